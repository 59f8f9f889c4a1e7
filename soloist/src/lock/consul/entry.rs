//! The record as the value of a key, held by a session as `consul lock` holds it.
//!
//! The key's flags and its session are what `consul lock` goes by, and the value is ours. The record names the session
//! that holds the key for it: a key that is held by another one was taken by somebody who knows nothing of us.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use election::{Claim, Evidence, Foreign, Record, Seen, Version};
use serde::Deserialize;
use serde_json::Value;

use crate::lock::codec::{self, Document, EncodeError, FOREIGN_LEASE, fingerprint};
use crate::lock::history::Change;

/// The flags of a key that `consul lock` uses as a mutex.
pub const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// Where the record names the session that holds the key.
const SESSION: &str = "session";

/// One key as Consul shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// Its whole name.
    pub key: String,
    /// The number of the last change; every change of the store makes it larger.
    pub modify_index: u64,
    /// What says who uses it.
    pub flags: u64,
    /// The session that holds it.
    #[serde(default)]
    pub session: Option<String>,
    /// Base64.
    #[serde(default)]
    value: Option<String>,
}

impl Entry {
    /// A key as it is after a write that Consul has confirmed.
    pub fn written(key: &str, modify_index: u64, session: Option<String>, text: &str) -> Self {
        let (key, value) = (key.to_owned(), Some(encode_value(text)));
        Self { key, modify_index, flags: LOCK_FLAGS, session, value }
    }

    /// The version that a write must quote.
    pub fn version(&self) -> Version {
        Version { incarnation: 0, number: self.modify_index }
    }

    /// What is stored; nothing where it is no base64.
    pub fn bytes(&self) -> Vec<u8> {
        self.value.as_deref().and_then(|value| STANDARD.decode(value).ok()).unwrap_or_default()
    }

    /// The session that holds it, if one does.
    pub fn holder(&self) -> Option<&str> {
        self.session.as_deref().filter(|session| !session.is_empty())
    }

    /// Whether another program than `consul lock` or soloist uses this key.
    pub fn is_of_another_use(&self) -> bool {
        self.flags != LOCK_FLAGS
    }

    /// Everything that the value says.
    pub fn document(&self) -> Document {
        codec::decode(&self.bytes())
    }

    /// The record. What cannot be trusted is a foreign claim.
    /// See docs/safety.md R17.
    pub fn record(&self) -> Record {
        let document = self.document();
        let recorded = document.backend.get(SESSION).and_then(Value::as_str);
        match (&document.record.claim, self.holder()) {
            (Claim::Foreign(unreadable), _) => self.foreign(&unreadable.why),
            (_, None) => document.record,
            (Claim::Held(_), Some(session)) if Some(session) == recorded => document.record,
            (_, Some(_)) => self.foreign("its session is not the one in the record: something else took it"),
        }
    }

    fn foreign(&self, why: &str) -> Record {
        let holder = self.holder().map(str::to_owned);
        let seen = format!("{:?} {:?}", holder, self.value);
        let claim = Claim::Foreign(Foreign { holder, fingerprint: fingerprint(seen.as_bytes()), why: why.to_owned() });
        Record { claim, lease: FOREIGN_LEASE, slots: 1, paused_until_unix_ms: None }
    }

    /// The lock as the machine of whoever keeps the session `own` sees it. A foreigner has it for as long as his session
    /// holds it; what is not ours under our own session was written by hand, and nobody else has the key.
    pub fn seen(&self, own: Option<&str>) -> Seen {
        let mut record = self.record();
        let foreign_holder = self.holder().filter(|holder| Some(*holder) != own);
        let mut evidence = Evidence::None;
        if let Claim::Foreign(foreign) = &mut record.claim {
            foreign.holder = foreign_holder.map(str::to_owned);
            evidence = if foreign_holder.is_some() { Evidence::Busy } else { Evidence::None };
        }
        Seen { version: self.version(), record: Some(record), evidence }
    }

    /// The last changes of who was active, for people.
    pub fn history(&self) -> Vec<Change> {
        self.document().history
    }
}

/// The value that says `record`, held by `session`, in the place of `before`.
///
/// # Errors
/// A record that no reader would accept.
pub fn text(
    before: Option<&Entry>,
    record: &Record,
    session: Option<&str>,
    why: &str,
    now_us: u64,
) -> Result<String, EncodeError> {
    let earlier = before.filter(|entry| !entry.bytes().is_empty()).map(Entry::document);
    let mut document = Document::after(earlier, record, why, now_us);
    match session {
        Some(session) => drop(document.backend.insert(SESSION.into(), session.into())),
        None => drop(document.backend.remove(SESSION)),
    }
    codec::encode(&document)
}

/// As values travel.
pub fn encode_value(text: &str) -> String {
    STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lock::contract::{held, released};

    fn entry(record: &Record, recorded: Option<&str>, holder: Option<&str>) -> Entry {
        let text = text(None, record, recorded, "why", 1).unwrap();
        Entry::written("p/.lock", 7, holder.map(str::to_owned), &text)
    }

    fn is_foreign(entry: &Entry) -> bool {
        matches!(entry.record().claim, Claim::Foreign(_))
    }

    #[test]
    fn the_answer_of_consul_is_read() {
        let shown = json!({"LockIndex": 1, "Key": "p/.lock", "Flags": LOCK_FLAGS, "Value": encode_value("x"),
            "Session": "s", "CreateIndex": 5, "ModifyIndex": 9});
        let entry: Entry = serde_json::from_value(shown).unwrap();
        assert_eq!((entry.version().number, entry.holder(), entry.bytes()), (9, Some("s"), b"x".to_vec()));
        assert!(!entry.is_of_another_use());
        let empty = json!({"Key": "p/.lock", "Flags": 0, "Value": null, "ModifyIndex": 9});
        let entry: Entry = serde_json::from_value(empty).unwrap();
        assert!(entry.is_of_another_use() && entry.holder().is_none() && entry.bytes().is_empty());
    }

    #[test]
    fn the_session_in_the_record_must_be_the_one_that_holds_the_key() {
        assert_eq!(entry(&held(1, 1), Some("s"), Some("s")).record(), held(1, 1));
        assert_eq!(entry(&held(1, 1), Some("s"), None).record(), held(1, 1), "the session was lost: the lease counts");
        assert_eq!(entry(&released(1), None, None).record(), released(1));
        assert!(is_foreign(&entry(&held(1, 1), Some("s"), Some("t"))));
        assert!(is_foreign(&entry(&released(1), None, Some("t"))), "somebody took it and left our value");
    }

    #[test]
    fn who_holds_it_without_a_record_of_ours_keeps_everybody_out() {
        let consul_lock = Entry { session: Some("s".into()), flags: LOCK_FLAGS, ..Entry::default() };
        assert_eq!(consul_lock.seen(None).evidence, Evidence::Busy);
        let left = Entry { session: None, ..consul_lock.clone() };
        assert_eq!(left.seen(None).evidence, Evidence::None);
        let next = Entry { session: Some("t".into()), ..consul_lock.clone() };
        assert_ne!(next.record(), consul_lock.record(), "another holder is another claim");
        assert_eq!(entry(&held(1, 1), Some("s"), Some("s")).seen(None).evidence, Evidence::None);
    }

    #[test]
    fn what_was_written_by_hand_under_the_own_session_is_nobodys() {
        let overwritten = Entry { session: Some("s".into()), flags: LOCK_FLAGS, ..Entry::default() };
        let of = |own| overwritten.seen(own);
        let holder = |seen: Seen| match seen.record.unwrap().claim {
            Claim::Foreign(foreign) => foreign.holder,
            other => panic!("{other:?}"),
        };
        assert_eq!((of(Some("s")).evidence, holder(of(Some("s")))), (Evidence::None, None));
        assert_eq!((of(Some("t")).evidence, holder(of(Some("t")))), (Evidence::Busy, Some("s".into())));
    }

    #[test]
    fn what_others_stored_beside_the_record_survives() {
        let before = entry(&held(1, 1), Some("s"), Some("s"));
        let document: Value = serde_json::from_slice(&before.bytes()).unwrap();
        let mut document = document.as_object().cloned().unwrap();
        document.insert("novelty".into(), 1.into());
        let before = Entry::written("p/.lock", 7, None, &Value::Object(document).to_string());
        let after = text(Some(&before), &released(1), None, "the end", 2).unwrap();
        let after = Entry::written("p/.lock", 8, None, &after);
        assert_eq!(after.document().unknown.get("novelty"), Some(&1.into()));
        assert_eq!(after.history().len(), 1);
        assert_eq!(after.history()[0].end.as_deref(), Some("the end"));
    }
}
