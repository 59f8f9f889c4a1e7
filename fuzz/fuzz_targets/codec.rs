//! A stored record: whatever is found is read without a panic, and what is believed is written back the same.
#![no_main]

use election::Claim;
use libfuzzer_sys::fuzz_target;
use soloist::lock::codec::{FOREIGN_LEASE, MAX_LEASE, decode, encode, fingerprint};

fuzz_target!(|bytes: &[u8]| {
    let document = decode(bytes);
    let record = &document.record;
    assert!(!record.lease.is_zero() && record.lease <= MAX_LEASE);
    if let Claim::Foreign(foreign) = &record.claim {
        assert_eq!((foreign.fingerprint, record.lease), (fingerprint(bytes), FOREIGN_LEASE));
        assert!(encode(&document).is_err(), "a foreign claim is never written");
        return;
    }
    // It may be refused for its length only: indentation makes it longer than it was found.
    if let Ok(text) = encode(&document) {
        assert_eq!(decode(text.as_bytes()), document);
    }
});
