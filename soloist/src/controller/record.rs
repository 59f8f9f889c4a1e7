//! Who is active in a group: one object that is changed by compare-and-set. Labels and endpoints are views of it.
//!
//! It is a Lease that nobody renews, so that `kubectl get leases` shows the active pod as the holder.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::group::Group;
use crate::lock::kubernetes::ACTIVE_PODS as RECORD;

/// A place among the active ones, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The pod's name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its fencing token; nothing where it is the version of the object that names it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Whether it has been told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_told: bool,
}

/// All places that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// At most as many as may be active.
    pub places: Vec<Place>,
    /// Why it became so, in one sentence.
    #[serde(default)]
    pub why: String,
    /// The last request of an operator that was met.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

impl Record {
    /// The place of a pod.
    pub fn place_of(&self, uid: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.uid == uid)
    }
}

/// The record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The version of the object.
    pub version: u64,
    /// Its UID, which Events go by.
    pub uid: String,
    /// How often others have become active.
    pub transitions: u64,
    /// What it says.
    pub record: Record,
    /// The whole object, as text: whatever else is in it stays.
    object: String,
}

impl Stored {
    /// Reads the object. One without a record names nobody: it is free, because nobody else writes its name.
    ///
    /// # Errors
    /// It has no version, or a record that cannot be read: then nobody may be made active.
    pub fn read(mut object: Value) -> Result<Self, String> {
        let metadata = &mut object["metadata"];
        if let Some(fields) = metadata.as_object_mut() {
            fields.remove("managedFields");
        }
        let version = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        let version = version.ok_or("the Lease has no resource version")?;
        let uid = metadata["uid"].as_str().unwrap_or_default().to_owned();
        let holder = object["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let record = match object["metadata"]["annotations"][RECORD].as_str() {
            Some(text) => serde_json::from_str(text).map_err(|error| format!("its record cannot be read: {error}"))?,
            None if holder.is_empty() => Record::default(),
            None => return Err(format!("it is held by {holder:?}, which is no record of active pods")),
        };
        let transitions = object["spec"]["leaseTransitions"].as_u64().unwrap_or(0);
        Ok(Self { version, uid, transitions, record, object: object.to_string() })
    }

    /// The object with another record in it.
    ///
    /// # Errors
    /// None that can happen: what was read can be read again.
    pub fn with(&self, record: &Record, now: jiff::Timestamp) -> Result<Value, String> {
        let object = serde_json::from_str(&self.object).map_err(|error| format!("failed to read it again: {error}"))?;
        Ok(filled(object, record, now))
    }
}

/// The object of a group that has none yet.
pub fn first(group: &Group, record: &Record, now: jiff::Timestamp) -> Value {
    let object = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": group.namespace, "name": group.name},
    });
    filled(object, record, now)
}

fn filled(mut object: Value, record: &Record, now: jiff::Timestamp) -> Value {
    let holder: Vec<&str> = record.places.iter().map(|place| place.pod.as_str()).collect();
    let holder = holder.join(",");
    let spec = &mut object["spec"];
    if spec["holderIdentity"] != holder.as_str() {
        spec["leaseTransitions"] = (spec["leaseTransitions"].as_i64().unwrap_or(0) + 1).into();
        spec["acquireTime"] = now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into();
    }
    spec["holderIdentity"] = holder.into();
    // Only text can be in an annotation; the record has no form that could fail.
    object["metadata"]["annotations"][RECORD] = serde_json::to_string(record).unwrap_or_default().into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let place = |pod: &str, token| Place { pod: pod.to_owned(), uid: format!("uid-{pod}"), token, is_told: false };
        let places = vec![place("app-1", Some(5)), place("app-2", None)];
        Record { places, why: "a place is free".to_owned(), request: "r1".to_owned() }
    }

    fn stored(object: &Value) -> Value {
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = "9".into();
        object["metadata"]["managedFields"] = json!([{}]);
        object
    }

    #[test]
    fn what_is_written_is_read_again_and_the_rest_stays() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let group = crate::controller::plan::tests::group();
        let mut object = stored(&first(&group, &record(), now));
        assert_eq!(object["spec"]["holderIdentity"], "app-1,app-2");
        object["metadata"]["labels"] = json!({"owner": "somebody"});
        let read = Stored::read(object).unwrap();
        assert_eq!((read.version, &read.record), (9, &record()));
        let next = read.with(&Record::default(), now).unwrap();
        assert_eq!(
            (&next["metadata"]["labels"]["owner"], &next["spec"]["holderIdentity"]),
            (&json!("somebody"), &json!(""))
        );
        assert_eq!((&next["spec"]["leaseTransitions"], &next["metadata"]["managedFields"]), (&json!(2), &Value::Null));
        assert_eq!(read.with(&record(), now).unwrap()["spec"]["leaseTransitions"], 1, "the same pods are active");
    }

    #[test]
    fn a_lease_of_somebody_else_or_one_that_nobody_can_read_is_not_free() {
        let bare = json!({"metadata": {"resourceVersion": "9"}});
        assert_eq!(Stored::read(bare.clone()).unwrap().record, Record::default());
        let mut foreign = bare.clone();
        foreign["spec"] = json!({"holderIdentity": "somebody"});
        assert!(Stored::read(foreign).is_err());
        let mut odd = bare.clone();
        odd["metadata"]["annotations"] = json!({RECORD: "[]"});
        assert!(Stored::read(odd).is_err());
        assert!(Stored::read(json!({"metadata": {}})).is_err());
    }
}
