//! Ids and words in a record: what is read is printed as it was, up to leading zeros and capitals.
#![no_main]

use election::{Activation, Attempt, Nonce, Proof};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let activation = Activation::parse(text);
    assert_eq!(activation.map(|activation| activation.0), Nonce::parse(text).map(|nonce| nonce.0));
    if let Some(activation) = activation {
        assert_eq!(activation.to_string(), text.to_ascii_lowercase());
    }
    if let Some(attempt) = Attempt::parse(text) {
        let printed = attempt.to_string();
        assert_eq!(Attempt::parse(&printed), Some(attempt));
        assert!(text.to_ascii_lowercase().ends_with(&printed));
    }
    if let Some(proof) = Proof::parse(text) {
        assert_eq!(proof.word(), text);
    }
});
