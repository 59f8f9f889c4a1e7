//! What holds the record: a Lease, or Endpoints with the annotation in which client-go kept its election before there were
//! Leases.
//!
//! Only here is there a difference. Endpoints are read as the Lease that says the same, with what the annotation says as
//! its `spec`, and written back from that. Nobody else needs to know.

use serde_json::{Map, Value};

use super::lease::{RECORD, annotation, take_object};
use super::rule::Verb;
use crate::settings::of_slot;

/// The annotation of client-go.
pub const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// How the one field is called there that has another name in a Lease.
const TRANSITIONS: [&str; 2] = ["leaderTransitions", "leaseTransitions"];
/// What the controller of Services with a selector puts on their Endpoints, since Kubernetes 1.33 and before.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What kind of object holds the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Lease, whose own fields client-go reads.
    Lease,
    /// Endpoints, whose annotation client-go read up to 0.26.
    Endpoints,
}

impl Kind {
    /// Its name, as objects and people say it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Lease => "Lease",
            Kind::Endpoints => "Endpoints",
        }
    }

    /// Its plural in paths and rules.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::Lease => "leases",
            Kind::Endpoints => "endpoints",
        }
    }

    /// Its group, as a rule names it.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Lease => "coordination.k8s.io",
            Kind::Endpoints => "\"\"",
        }
    }

    /// Its group and version, as objects name them.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Lease => "coordination.k8s.io/v1",
            Kind::Endpoints => "v1",
        }
    }

    /// A time as client-go writes it there.
    pub fn time(self, at: jiff::Timestamp) -> String {
        let format = match self {
            Kind::Lease => "%Y-%m-%dT%H:%M:%S%.6fZ",
            Kind::Endpoints => "%Y-%m-%dT%H:%M:%SZ",
        };
        at.strftime(format).to_string()
    }

    /// The Lease that says what `object` says.
    pub fn read(self, mut object: Value) -> Value {
        if self == Kind::Endpoints {
            let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
            let text = annotations.and_then(|all| all.remove(LEADER));
            if let Some(fields) = object.as_object_mut() {
                fields.insert("spec".into(), text.as_ref().and_then(Value::as_str).map_or(Value::Null, native));
            }
        }
        object
    }

    /// The object that says what `lease` says.
    pub fn write(self, lease: &Value) -> Value {
        let mut object = lease.clone();
        if self == Kind::Lease {
            return object;
        }
        let spec = object.as_object_mut().and_then(|fields| fields.remove("spec")).unwrap_or_default();
        let text = match spec {
            Value::Object(fields) => Value::Object(renamed(fields, TRANSITIONS[1], TRANSITIONS[0])).to_string(),
            Value::String(unreadable) => unreadable,
            _ => return object,
        };
        if let Some(fields) = object.as_object_mut() {
            let mut metadata = take_object(fields, "metadata");
            let mut annotations = take_object(&mut metadata, "annotations");
            annotations.insert(LEADER.into(), text.into());
            metadata.insert("annotations".into(), annotations.into());
            fields.insert("metadata".into(), metadata.into());
        }
        object
    }
}

/// What the annotation says, as the fields of a Lease. What cannot be read stays as it is, so that it is not taken for
/// nothing.
fn native(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => renamed(fields, TRANSITIONS[0], TRANSITIONS[1]).into(),
        _ => text.into(),
    }
}

fn renamed(mut fields: Map<String, Value>, from: &str, to: &str) -> Map<String, Value> {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
    fields
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// What kind of object it is.
    pub kind: Kind,
    /// The namespace; empty for the one that the credentials belong to.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl ObjectName {
    /// The object of a slot.
    #[must_use]
    pub fn of_slot(&self, slot: u32) -> Self {
        Self { name: of_slot(&self.name, slot), ..self.clone() }
    }

    /// A Lease.
    pub fn lease(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: Kind::Lease, namespace: namespace.into(), name: name.into() }
    }

    /// Endpoints.
    pub fn endpoints(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: Kind::Endpoints, ..Self::lease(namespace, name) }
    }

    pub(super) fn collection(&self) -> String {
        let api = match self.kind {
            Kind::Lease => "/apis/coordination.k8s.io/v1",
            Kind::Endpoints => "/api/v1",
        };
        format!("{api}/namespaces/{}/{}", self.namespace, self.kind.resource())
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// Why the object that `verb` has shown must not be used, if it must not. Endpoints of a Service with a selector are
    /// written by Kubernetes. Where an election of ours goes on already it is not ended for that: the two can live together.
    pub(super) fn refusal(&self, verb: Verb, object: &Value) -> Option<String> {
        let metadata = &object["metadata"];
        let is_managed = metadata["labels"][MANAGED_BY] == "endpoint-controller"
            || metadata["annotations"][TRIGGER_TIME].is_string();
        if self.kind == Kind::Lease || verb != Verb::Get || !is_managed || annotation(object, RECORD).is_some() {
            return None;
        }
        let Self { namespace, name, .. } = self;
        Some(format!(
            "the Endpoints {name:?} in namespace {namespace:?} belong to a Service with a selector, whose addresses \
             Kubernetes keeps in them; allowed are Endpoints that nothing else writes: choose a name that no Service has, \
             or remove the Service's selector and then its Endpoints"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the API server shows what client-go wrote.
    fn endpoints() -> Value {
        let text = json!({"holderIdentity": "pod-a", "leaseDurationSeconds": 10, "acquireTime": "2020-02-17T05:35:12Z",
            "renewTime": "2020-02-17T05:36:00Z", "leaderTransitions": 3, "strategy": "new"});
        json!({"kind": "Endpoints", "apiVersion": "v1", "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}],
            "metadata": {"name": "example", "annotations": {LEADER: text.to_string(), "other": "stays"}}})
    }

    #[test]
    fn endpoints_are_read_as_a_lease_and_written_back_without_a_loss() {
        let lease = Kind::Endpoints.read(endpoints());
        assert_eq!(lease["spec"]["holderIdentity"], "pod-a");
        assert_eq!(lease["spec"]["leaseTransitions"], 3);
        assert_eq!(lease["metadata"]["annotations"], json!({"other": "stays"}));
        let back = Kind::Endpoints.write(&lease);
        let text = |object: &Value| annotation(object, LEADER).unwrap().parse::<Value>().unwrap();
        assert_eq!(text(&back), text(&endpoints()));
        assert_eq!((&back["subsets"], &back["spec"]), (&endpoints()["subsets"], &Value::Null));
        assert_eq!(annotation(&back, "other"), Some("stays"));
        assert_eq!(Kind::Lease.write(&lease), lease);
    }

    #[test]
    fn what_has_no_annotation_or_one_that_nobody_can_read_is_told_apart_and_stays() {
        for metadata in [json!({"name": "example"}), json!({"annotations": {"other": "x"}})] {
            let bare = json!({"kind": "Endpoints", "metadata": metadata});
            let lease = Kind::Endpoints.read(bare.clone());
            assert_eq!(lease["spec"], Value::Null);
            assert_eq!(Kind::Endpoints.write(&lease), bare);
        }
        for text in ["", "null", "[1]", "\"x\"", "{"] {
            let odd = json!({"metadata": {"annotations": {LEADER: text}}});
            let lease = Kind::Endpoints.read(odd.clone());
            assert_eq!(lease["spec"], text);
            assert_eq!(Kind::Endpoints.write(&lease), odd);
        }
    }

    #[test]
    fn endpoints_of_a_service_with_a_selector_are_refused_unless_they_are_in_use() {
        let name = ObjectName::endpoints("prod", "web");
        let refused = |object: &Value| name.refusal(Verb::Get, object);
        assert_eq!(refused(&endpoints()), None);
        let mut managed = endpoints();
        managed["metadata"]["labels"] = json!({MANAGED_BY: "endpoint-controller"});
        let why = refused(&managed).unwrap();
        for part in ["\"web\"", "\"prod\"", "selector", "choose"] {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(name.refusal(Verb::Update, &managed), None, "it is written already");
        managed["metadata"]["annotations"][RECORD] = "{}".into();
        assert_eq!(refused(&managed), None);
        let mut older = endpoints();
        older["metadata"]["annotations"][TRIGGER_TIME] = "2026-01-01T00:00:00Z".into();
        assert!(refused(&older).is_some());
        assert_eq!(ObjectName::lease("prod", "web").refusal(Verb::Get, &older), None);
    }
}
