//! The record as JSON text: one format, readable by people, that never loses a field and never trusts a doubtful one.
//!
//! ```json
//! {
//!   "format": 1,
//!   "version": 42,
//!   "claim": {"state": "held", "member": {"name": "a", "nonce": "..."}, "activation": "...", "attempt": "7-...", "token": 42},
//!   "lease_ms": 15000,
//!   "digest": "89abcdef01234567",
//!   "backend": {}
//! }
//! ```
//!
//! Whatever cannot be understood is a foreign claim, which is never free. The digest is FNV-1a (64 bits) over version,
//! claim and lease: it tells an edit by hand or by another program from a write of ours; it is no signature. A claim
//! that needs another field needs another format number, because members that do not know the field could not check
//! the digest. Unknown fields beside the claim, and in `backend`, are kept and written back. `slots` stands there where it is not 1. The history is for people
//! only and not under the digest; one that cannot be read is dropped.

use std::time::Duration;

use election::{Activation, Attempt, Claim, Foreign, Holder, Member, Nonce, Proof, Record, Release, Token, Vacancy};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::history::{self, Change};

/// The format that this program writes, and the only one that it reads.
const FORMAT: u64 = 1;
/// A longer text is not a record of ours.
pub const MAX_BYTES: usize = 64 * 1024;
/// A longer lease is a mistake or an attack: it would stop the group for as long.
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// What is assumed for a record that does not say its lease in a way that can be trusted.
pub const FOREIGN_LEASE: Duration = Duration::from_secs(15);

/// A record with everything that a store keeps beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The record.
    pub record: Record,
    /// The version, in stores that do not count by themselves.
    pub version: Option<u64>,
    /// The last changes, oldest first.
    pub history: Vec<Change>,
    /// What the backend stores for itself.
    pub backend: Map<String, Value>,
    /// Fields that this version of soloist does not know; they survive a rewrite.
    pub unknown: Map<String, Value>,
}

impl Document {
    /// What replaces `earlier` in a store that names the token only in its answer: everything beside the record is
    /// kept, and the history says what changes, and why.
    pub fn after(earlier: Option<Self>, record: &Record, why: &str, now_us: u64) -> Self {
        let begins = begins(earlier.as_ref().map(|earlier| &earlier.record.claim), &record.claim);
        let record = record.clone();
        let mut next = match earlier {
            Some(earlier) => Self { record, version: None, ..earlier },
            None => {
                let (history, backend, unknown) = (Vec::new(), Map::new(), Map::new());
                Self { record, version: None, history, backend, unknown }
            }
        };
        note(&mut next.history, begins, &next.record.claim, why, now_us);
        next
    }
}

/// Whether another activation begins than the one that was recorded last.
pub fn begins(earlier: Option<&Claim>, claim: &Claim) -> bool {
    match (earlier, claim) {
        (Some(Claim::Held(then)), Claim::Held(now)) => then.activation != now.activation,
        (_, Claim::Held(_)) => true,
        _ => false,
    }
}

/// The answer to the acquiring write names the token, so the first renewal is the first to know it.
fn note(changes: &mut Vec<Change>, begins: bool, claim: &Claim, why: &str, now_us: u64) {
    match claim {
        Claim::Held(holder) if begins => {
            history::acquired(changes, holder.token.map(|token| token.0), &holder.member.name, why, now_us);
        }
        Claim::Held(holder) => {
            let last = changes.last_mut().filter(|last| last.token.is_none() && last.member == holder.member.name);
            if let Some(last) = last {
                last.token = holder.token.map(|token| token.0);
            }
        }
        Claim::Released(release) => {
            let token = changes.last().and_then(|last| last.token);
            history::ended(changes, token, &release.member.name, why, now_us);
        }
        Claim::Vacant(_) | Claim::Foreign(_) => {}
    }
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Only others write foreign claims.
    #[error("failed to write the record: a foreign claim cannot be stored")]
    Foreign,
    /// Every reader would take it for a foreign record.
    #[error("failed to write the record: got a lease of {0:?}, allowed is more than 0 and at most 24 h")]
    Lease(Duration),
    /// Every reader would take it for a foreign record.
    #[error(
        "failed to write the record: it has {0} bytes, allowed are {MAX_BYTES}; remove fields that soloist did not write"
    )]
    Size(usize),
    /// The JSON writer failed.
    #[error("failed to write the record as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// FNV-1a, 64 bits. Stable for ever, unlike the hashers of `std`, since it is stored.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads a document. Never fails: what cannot be trusted is a foreign claim.
/// See docs/safety.md R17.
pub fn decode(bytes: &[u8]) -> Document {
    match parse(bytes) {
        Ok(document) => document,
        Err(why) => foreign(bytes, why),
    }
}

/// Writes a document, with a line break at its end.
pub fn encode(document: &Document) -> Result<String, EncodeError> {
    let record = &document.record;
    // Rounded up: a longer lease is the safe side.
    let lease_ms = u64::try_from(record.lease.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    if record.lease.is_zero() || record.lease > MAX_LEASE {
        return Err(EncodeError::Lease(record.lease));
    }
    let claim = StoredClaim::of(&record.claim).ok_or(EncodeError::Foreign)?;

    let mut fields = document.unknown.clone();
    fields.insert("format".into(), FORMAT.into());
    if let Some(version) = document.version {
        fields.insert("version".into(), version.into());
    }
    fields.insert("digest".into(), digest(document.version, &claim, lease_ms)?.into());
    fields.insert("claim".into(), serde_json::to_value(&claim)?);
    fields.insert("lease_ms".into(), lease_ms.into());
    if record.slots != 1 {
        fields.insert("slots".into(), record.slots.into());
    }
    if let Some(until) = record.paused_until_unix_ms {
        fields.insert("paused_until_unix_ms".into(), until.into());
    }
    if !document.history.is_empty() {
        fields.insert("history".into(), serde_json::to_value(&document.history)?);
    }
    if !document.backend.is_empty() {
        fields.insert("backend".into(), Value::Object(document.backend.clone()));
    }

    let mut text = serde_json::to_string_pretty(&fields)?;
    text.push('\n');
    if text.len() > MAX_BYTES { Err(EncodeError::Size(text.len())) } else { Ok(text) }
}

/// A document for bytes that nobody of ours wrote.
fn foreign(bytes: &[u8], why: String) -> Document {
    let claim = Claim::Foreign(Foreign { holder: None, fingerprint: fingerprint(bytes), why });
    Document {
        record: Record { claim, lease: FOREIGN_LEASE, slots: 1, paused_until_unix_ms: None },
        version: None,
        history: Vec::new(),
        backend: Map::new(),
        unknown: Map::new(),
    }
}

fn parse(bytes: &[u8]) -> Result<Document, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("the record is larger than {MAX_BYTES} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("the record is not UTF-8: {error}"))?;
    let mut fields: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("the record is not a JSON object: {error}"))?;

    match take::<u64>(&mut fields, "format")? {
        Some(FORMAT) => {}
        Some(other) => return Err(format!("the record has format {other}, this program reads {FORMAT}")),
        None => return Err("the record has no format number".into()),
    }
    let version = take::<u64>(&mut fields, "version")?;
    let lease_ms = take::<u64>(&mut fields, "lease_ms")?.ok_or("the record has no lease")?;
    let claim = take::<StoredClaim>(&mut fields, "claim")?.ok_or("the record has no claim")?;
    let stored_digest = take::<String>(&mut fields, "digest")?.ok_or("the record has no digest")?;
    let paused_until_unix_ms = take::<u64>(&mut fields, "paused_until_unix_ms")?;
    // Members that know nothing of slots take part in one.
    let slots = take::<u32>(&mut fields, "slots")?.unwrap_or(1).max(1);
    let history = fields.remove("history").map(history::parse).unwrap_or_default();
    let backend = take::<Map<String, Value>>(&mut fields, "backend")?.unwrap_or_default();

    let lease = Duration::from_millis(lease_ms);
    if lease.is_zero() || lease > MAX_LEASE {
        return Err(format!("the record has a lease of {lease_ms} ms, allowed is more than 0 and at most 24 h"));
    }
    let expected = digest(version, &claim, lease_ms).map_err(|error| error.to_string())?;
    if stored_digest != expected {
        return Err(format!("the record was edited: its digest is {stored_digest:?}, its fields give {expected:?}"));
    }
    let record = Record { claim: claim.read()?, lease, slots, paused_until_unix_ms };
    Ok(Document { record, version, history, backend, unknown: fields })
}

/// Takes one field out of an object, leaving the unknown ones.
fn take<T: serde::de::DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<T>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|error| format!("the record's field {name:?} cannot be read: {error}")),
    }
}

fn digest(version: Option<u64>, claim: &StoredClaim, lease_ms: u64) -> Result<String, serde_json::Error> {
    let sealed = serde_json::to_vec(&(version, claim, lease_ms))?;
    Ok(format!("{:016x}", fingerprint(&sealed)))
}

#[derive(Serialize, Deserialize)]
struct StoredMember {
    name: String,
    nonce: String,
}

/// A claim as it is spelled in JSON. The order of the fields is part of the format: the digest covers this text.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum StoredClaim {
    Held {
        member: StoredMember,
        activation: String,
        attempt: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<u64>,
    },
    Vacant {
        member: StoredMember,
        attempt: String,
    },
    Released {
        member: StoredMember,
        activation: String,
        attempt: String,
        proof: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        successor: Option<String>,
    },
}

impl StoredClaim {
    /// The spelling of `claim`; nothing for one that only others write.
    fn of(claim: &Claim) -> Option<Self> {
        let spell = |member: &Member| StoredMember { name: member.name.clone(), nonce: member.nonce.to_string() };
        match claim {
            Claim::Held(holder) => Some(Self::Held {
                member: spell(&holder.member),
                activation: holder.activation.to_string(),
                attempt: holder.attempt.to_string(),
                token: holder.token.map(|token| token.0),
            }),
            Claim::Released(release) => Some(Self::Released {
                member: spell(&release.member),
                activation: release.activation.to_string(),
                attempt: release.attempt.to_string(),
                proof: release.proof.word().to_owned(),
                successor: release.successor.clone(),
            }),
            Claim::Vacant(vacancy) => {
                Some(Self::Vacant { member: spell(&vacancy.member), attempt: vacancy.attempt.to_string() })
            }
            Claim::Foreign(_) => None,
        }
    }

    fn read(self) -> Result<Claim, String> {
        match self {
            Self::Held { member, activation, attempt, token } => Ok(Claim::Held(Holder {
                member: member.read()?,
                activation: known("activation", &activation, Activation::parse)?,
                attempt: known("attempt", &attempt, Attempt::parse)?,
                token: token.map(Token),
            })),
            Self::Vacant { member, attempt } => Ok(Claim::Vacant(Vacancy {
                member: member.read()?,
                attempt: known("attempt", &attempt, Attempt::parse)?,
            })),
            Self::Released { member, activation, attempt, proof, successor } => Ok(Claim::Released(Release {
                member: member.read()?,
                activation: known("activation", &activation, Activation::parse)?,
                attempt: known("attempt", &attempt, Attempt::parse)?,
                proof: known("proof", &proof, Proof::parse)?,
                successor,
            })),
        }
    }
}

impl StoredMember {
    fn read(self) -> Result<Member, String> {
        let nonce = known("nonce", &self.nonce, Nonce::parse)?;
        Ok(Member { name: self.name, nonce })
    }
}

fn known<T>(field: &str, text: &str, parse: fn(&str) -> Option<T>) -> Result<T, String> {
    parse(text).ok_or_else(|| format!("the record's {field} cannot be read: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder {
            member: Member { name: "alpha \"1\" ü".into(), nonce: Nonce(7) },
            activation: Activation(u128::MAX - 1),
            attempt: Attempt { count: 9, random: 0xfeed },
            token: Some(Token(42)),
        }
    }

    fn document(claim: Claim) -> Document {
        Document {
            record: Record {
                claim,
                lease: Duration::from_millis(15_001),
                slots: 3,
                paused_until_unix_ms: Some(1_700_000_000_000),
            },
            version: Some(42),
            history: Vec::new(),
            backend: Map::new(),
            unknown: Map::new(),
        }
    }

    fn held() -> Document {
        document(Claim::Held(holder()))
    }

    fn why(bytes: &[u8]) -> String {
        let document = decode(bytes);
        assert_eq!(document.record.lease, FOREIGN_LEASE, "not foreign");
        match document.record.claim {
            Claim::Foreign(foreign) => {
                assert_eq!(foreign.fingerprint, fingerprint(bytes));
                foreign.why
            }
            other => panic!("not foreign: {other:?}"),
        }
    }

    #[test]
    fn every_claim_comes_back() {
        let mut documents = vec![held()];
        let mut without_token = holder();
        without_token.token = None;
        documents.push(document(Claim::Held(without_token)));
        let Holder { member, attempt, .. } = holder();
        documents.push(document(Claim::Vacant(Vacancy { member, attempt })));
        for (proof, successor) in Proof::ALL.into_iter().zip([None, Some("beta".to_owned())].into_iter().cycle()) {
            let Holder { member, activation, attempt, .. } = holder();
            documents.push(document(Claim::Released(Release { member, activation, attempt, proof, successor })));
        }
        for document in documents {
            assert_eq!(decode(encode(&document).unwrap().as_bytes()), document);
        }
    }

    #[test]
    fn the_text_is_stable() {
        let text = encode(&held()).unwrap();
        let fields: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(fields["format"], 1);
        assert_eq!(fields["claim"]["state"], "held");
        assert_eq!(fields["claim"]["activation"], "fffffffffffffffffffffffffffffffe");
        assert_eq!(fields["claim"]["attempt"], "9-000000000000feed");
        assert_eq!(fields["lease_ms"], 15_001);
        assert_eq!(fields["digest"], "60b934244f44cdb8", "a changed digest makes every stored record foreign");
    }

    #[test]
    fn unknown_fields_survive() {
        let mut fields: Map<String, Value> = serde_json::from_str(&encode(&held()).unwrap()).unwrap();
        fields.insert("note".into(), serde_json::json!({"by": "hand", "n": [1, 2.5, null]}));
        fields.insert("backend".into(), serde_json::json!({"future": true}));
        let read = decode(&serde_json::to_vec(&fields).unwrap());
        assert_eq!(read.record, held().record);
        let again: Value = serde_json::from_str(&encode(&read).unwrap()).unwrap();
        assert_eq!(again["note"], fields["note"]);
        assert_eq!(again["backend"], fields["backend"]);
    }

    #[test]
    fn history_is_kept_and_garbage_in_it_harms_nothing() {
        let mut document = held();
        history::acquired(&mut document.history, Some(42), "alpha", "because", 7);
        let text = encode(&document).unwrap();
        assert_eq!(decode(text.as_bytes()), document);
        let mut fields: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for garbage in [Value::Null, "x".into(), 5.into(), serde_json::json!([{"member": 1}]), vec![0; 9999].into()] {
            fields.insert("history".into(), garbage);
            assert_eq!(decode(&serde_json::to_vec(&fields).unwrap()), held());
        }
    }

    #[test]
    fn a_fraction_of_a_millisecond_rounds_up() {
        let mut document = held();
        document.record.lease = Duration::from_micros(1);
        assert_eq!(decode(encode(&document).unwrap().as_bytes()).record.lease, Duration::from_millis(1));
    }

    #[test]
    fn what_nobody_could_read_is_not_written() {
        let mut document = held();
        document.record.lease = Duration::ZERO;
        assert!(matches!(encode(&document), Err(EncodeError::Lease(_))));
        document.record.lease = MAX_LEASE + Duration::from_nanos(1);
        assert!(matches!(encode(&document), Err(EncodeError::Lease(_))));
        let mut document = held();
        document.unknown.insert("big".into(), "x".repeat(MAX_BYTES).into());
        assert!(matches!(encode(&document), Err(EncodeError::Size(_))));
        let claim = Claim::Foreign(Foreign { holder: None, fingerprint: 0, why: String::new() });
        assert!(matches!(encode(&super::tests::document(claim)), Err(EncodeError::Foreign)));
    }

    #[test]
    fn unreadable_bytes_are_foreign() {
        let long = vec![b' '; MAX_BYTES + 1];
        let deep = "[".repeat(MAX_BYTES);
        let table: &[(&[u8], &str)] = &[
            (b"", "not a JSON object"),
            (b"\0\0\0\0", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b"[]", "not a JSON object"),
            (b"{}", "no format number"),
            (b"{\"format\": 1} x", "not a JSON object"),
            (b"{\"format\": 2}", "format 2"),
            (b"{\"format\": -1}", "\"format\""),
            (b"{\"format\": 1e999}", "not a JSON object"),
            (b"{\"format\": 1}", "no lease"),
            (b"\xff\xfe{}", "not UTF-8"),
            (&long, "larger than"),
            (deep.as_bytes(), "not a JSON object"),
        ];
        for (bytes, expected) in table {
            let got = why(bytes);
            assert!(
                got.contains(expected),
                "{:?} gave {got:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
            );
        }
    }

    #[test]
    fn an_edited_record_is_foreign() {
        let edits: &[(&[&str], Value)] = &[
            (&["claim", "member", "name"], "mallory".into()),
            (&["claim", "activation"], "00000000000000000000000000000001".into()),
            (&["claim", "token"], 1.into()),
            (&["claim", "state"], "released".into()),
            (&["claim", "state"], "free".into()),
            (&["claim"], Value::Null),
            (&["claim"], "held".into()),
            (&["version"], 43.into()),
            (&["version"], (-1).into()),
            (&["lease_ms"], 1.into()),
            (&["lease_ms"], 0.into()),
            (&["lease_ms"], (MAX_LEASE.as_millis() as u64 + 1).into()),
            (&["lease_ms"], 15.5.into()),
            (&["digest"], "0000000000000000".into()),
            (&["digest"], Value::Null),
            (&["backend"], 5.into()),
            (&["format"], 2.into()),
        ];
        for (path, value) in edits {
            let mut fields: Value = serde_json::from_str(&encode(&held()).unwrap()).unwrap();
            let mut place = &mut fields;
            for step in *path {
                place = &mut place[*step];
            }
            *place = value.clone();
            why(&serde_json::to_vec(&fields).unwrap());
        }
    }

    #[test]
    fn no_cut_of_a_record_is_readable() {
        let text = encode(&held()).unwrap();
        let whole = text.trim_end().len();
        for end in 0..whole {
            why(&text.as_bytes()[..end]);
        }
        for at in 0..whole {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0x80;
            why(&bytes);
        }
    }
}
