//! The stored record: whatever bytes are found, nothing panics, and nothing doubtful is ever free.

use std::time::Duration;

use election::{Activation, Attempt, Claim, Holder, Member, Nonce, Proof, Record, Release, Token, Vacancy};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use soloist::lock::codec::{Document, FOREIGN_LEASE, MAX_LEASE, decode, encode, fingerprint};
use soloist::lock::history::{self, Change};

fn member() -> impl Strategy<Value = Member> {
    (any::<String>(), any::<u128>()).prop_map(|(name, nonce)| Member { name, nonce: Nonce(nonce) })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    any::<(u64, u64)>().prop_map(|(count, random)| Attempt { count, random })
}

fn claim() -> impl Strategy<Value = Claim> {
    let ids = || (member(), any::<u128>().prop_map(Activation), attempt());
    let held = (ids(), any::<Option<u64>>()).prop_map(|((member, activation, attempt), token)| {
        Claim::Held(Holder { member, activation, attempt, token: token.map(Token) })
    });
    let proof = prop::sample::select(&Proof::ALL[..]);
    let released =
        (ids(), proof, any::<Option<String>>()).prop_map(|((member, activation, attempt), proof, successor)| {
            Claim::Released(Release { member, activation, attempt, proof, successor })
        });
    let vacant = (member(), attempt()).prop_map(|(member, attempt)| Claim::Vacant(Vacancy { member, attempt }));
    prop_oneof![3 => held, 3 => released, 1 => vacant]
}

/// What others may have stored beside the record, under names that are not ours.
fn extras(prefix: &'static str) -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        any::<Vec<u8>>().prop_map(|bytes| json!({ "list": bytes })),
    ];
    prop::collection::vec((any::<String>(), value), 0..4)
        .prop_map(move |fields| fields.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect())
}

fn document() -> impl Strategy<Value = Document> {
    let max_ms = u64::try_from(MAX_LEASE.as_millis()).unwrap_or(u64::MAX);
    let record = (claim(), 1..=max_ms, 1..=u32::MAX, any::<Option<u64>>());
    let record = record.prop_map(|(claim, ms, slots, paused_until_unix_ms)| Record {
        claim,
        lease: Duration::from_millis(ms),
        slots,
        paused_until_unix_ms,
    });
    (record, any::<Option<u64>>(), history(), extras(""), extras("x-")).prop_map(
        |(record, version, history, backend, unknown)| Document { record, version, history, backend, unknown },
    )
}

/// What members have noted, each with or without a release.
fn history() -> impl Strategy<Value = Vec<Change>> {
    let change = (any::<Option<u64>>(), "[a-z0-9]{1,9}", any::<String>(), any::<Option<String>>(), any::<u64>());
    prop::collection::vec(change, 0..9).prop_map(|changes| {
        let mut history = Vec::new();
        for (token, member, why, end, now_us) in changes {
            history::acquired(&mut history, token, &member, &why, now_us);
            if let Some(end) = end {
                history::ended(&mut history, token, &member, &end, now_us);
            }
        }
        history
    })
}

/// Whether these bytes were taken for what nobody of ours wrote: never free, timed by a lease that does not come from
/// them.
fn is_foreign(document: &Document, bytes: &[u8]) -> bool {
    let Claim::Foreign(foreign) = &document.record.claim else { return false };
    foreign.fingerprint == fingerprint(bytes)
        && document.record.lease == FOREIGN_LEASE
        && document.version.is_none()
        && document.record.paused_until_unix_ms.is_none()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_foreign(bytes in any::<Vec<u8>>()) {
        prop_assert!(is_foreign(&decode(&bytes), &bytes));
    }

    #[test]
    fn arbitrary_objects_are_foreign(
        claim in prop_oneof![Just("held"), Just("released"), Just("vacant"), Just("free"), Just("")],
        format in prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!("1")), Just(json!(-1)), Just(json!(1.5))],
        lease in prop_oneof![any::<i64>().prop_map(Value::from), Just(json!("15s")), Just(Value::Null)],
        digest in "[0-9a-f]{16}",
        extra in extras(""),
    ) {
        let mut fields = extra;
        fields.insert("claim".into(), json!({ "state": claim }));
        fields.insert("format".into(), format);
        fields.insert("lease_ms".into(), lease);
        fields.insert("digest".into(), digest.into());
        let bytes = Value::Object(fields).to_string().into_bytes();
        prop_assert!(is_foreign(&decode(&bytes), &bytes));
    }

    #[test]
    fn what_is_written_is_read_again(document in document()) {
        let text = encode(&document).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(decode(text.as_bytes()), document);
    }

    #[test]
    fn unknown_fields_survive_a_rewrite_by_another_claim(document in document(), next in claim()) {
        let text = encode(&document).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut rewritten = decode(text.as_bytes());
        rewritten.record.claim = next.clone();
        let text = encode(&rewritten).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let read = decode(text.as_bytes());
        prop_assert_eq!(read.record.claim, next);
        prop_assert_eq!((read.unknown, read.backend), (document.unknown, document.backend));
    }

    #[test]
    fn a_changed_byte_is_never_another_claim(
        document in document(), at in any::<prop::sample::Index>(), mask in 1..=u8::MAX,
    ) {
        let text = encode(&document).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let read = decode(&bytes);
        let is_same = read.record.claim == document.record.claim
            && read.record.lease == document.record.lease
            && read.version == document.version;
        prop_assert!(is_same || is_foreign(&read, &bytes), "{read:?}");
    }

    #[test]
    fn a_torn_record_is_foreign(document in document(), at in any::<prop::sample::Index>()) {
        let text = encode(&document).map_err(|error| TestCaseError::fail(error.to_string()))?;
        // The line break at its end is all that may be missing.
        let torn = &text.as_bytes()[..at.index(text.len() - 1)];
        prop_assert!(is_foreign(&decode(torn), torn));
    }
}
