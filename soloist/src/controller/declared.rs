//! Groups that somebody has declared: objects of the kind `ActiveStandby`. The API server has checked them by the schema in
//! `declared/crd.yml`, and filled in what was left out.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::critical::Mark;
use super::group::{Group, Handover, Key, Order, PromoteAfter, Selector, Switchover};
use super::notice::Notice;
use super::watch::{Place, Scope};
use crate::route::api::Resource;
use crate::route::pod_label::Label;

/// What makes the kind known to the API server.
pub const DEFINITION: &str = include_str!("declared/crd.yml");

const API_GROUP: &str = "soloist.dev";
const PLURAL: &str = "activestandbys";

/// Where the objects of a namespace are.
pub fn resource(namespace: &str) -> Resource {
    let verbs = "get, list, watch";
    Resource {
        group: API_GROUP,
        version: "v1alpha1",
        kind: "ActiveStandby",
        plural: PLURAL,
        verbs,
        namespace: namespace.to_owned(),
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Which one.
    pub key: Key,
    /// When it was created, as text that sorts by time.
    pub since: String,
    /// What is told of it later, and quoted then.
    pub origin: Origin,
    /// What it wants, or why that cannot be read.
    pub group: Result<Group, String>,
}

/// What a report has to quote, and what the one before said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The UID of the object.
    pub uid: String,
    /// Its resource version.
    pub version: String,
    /// Which of the wishes that have been there one after the other this is.
    pub generation: i64,
    /// What it says now.
    pub status: Value,
}

/// All of a namespace, or of all.
#[derive(Clone, Debug)]
pub struct AllDeclared {
    /// The namespace; all of them where there is none.
    pub namespace: Option<String>,
    /// The file with the bearer token of notices by HTTP.
    pub token_file: Option<PathBuf>,
}

impl Origin {
    /// What is to be quoted of an object from now on, if it is one.
    pub fn read(object: &Value) -> Option<Self> {
        let metadata = &object["metadata"];
        Some(Self {
            uid: metadata["uid"].as_str()?.to_owned(),
            version: metadata["resourceVersion"].as_str()?.to_owned(),
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            status: object["status"].clone(),
        })
    }
}

impl Scope for AllDeclared {
    type Item = Declared;

    fn name(&self) -> String {
        PLURAL.to_owned()
    }

    fn place(&self) -> Place {
        let namespace = self.namespace.clone();
        Place { root: "/apis/soloist.dev/v1alpha1", namespace, plural: PLURAL, selector: String::new() }
    }

    fn missing(&self) -> &'static str {
        "the kind itself (`soloist controller --print-crd | kubectl apply -f -`), or the verbs list and watch on \
         activestandbys.soloist.dev, in a ClusterRole where the namespace is not given"
    }

    fn read(&self, object: Value) -> Result<Declared, String> {
        let unreadable = |why: &str| format!("an ActiveStandby cannot be read: {why}");
        let origin = Origin::read(&object).ok_or_else(|| unreadable("it has no UID or no resource version"))?;
        let Raw { metadata, spec } = serde_json::from_value(object).map_err(|error| unreadable(&error.to_string()))?;
        let key = Key { namespace: metadata.namespace, name: metadata.name };
        let spec = serde_json::from_value::<Spec>(spec).map_err(|error| error.to_string());
        let group = spec.and_then(|spec| spec.group(&key, self.token_file.clone()));
        Ok(Declared { key, since: metadata.creation_timestamp, origin, group })
    }
}

#[derive(Deserialize)]
struct Raw {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    creation_timestamp: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    selector: Labels,
    active: usize,
    role: Role,
    critical: Critical,
    order: Order,
    promote_after: PromoteAfter,
    handover: Handover,
    notice: Option<Listener>,
    #[serde(default)]
    paused: bool,
    switchover: Option<Switchover>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Labels {
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Role {
    label: String,
    active: String,
    standby: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Critical {
    #[serde(default)]
    containers: Vec<String>,
    marker: String,
    delete_grace_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "protocol", rename_all = "lowercase")]
enum Listener {
    Udp { port: NonZeroU16, payload: Option<String> },
    Http { port: NonZeroU16, path: String },
}

impl Spec {
    fn group(self, key: &Key, token_file: Option<PathBuf>) -> Result<Group, String> {
        let Role { label, active, standby } = self.role;
        let selector =
            Selector::all(self.selector.match_labels).ok_or("spec.selector is empty: it would fit every pod")?;
        if selector.uses(&label) {
            return Err(format!("spec.selector selects by the label {label} that is to change"));
        }
        Ok(Group {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            selector,
            active: self.active,
            label: Label { key: label, active, standby },
            promote_after: self.promote_after,
            handover: self.handover,
            critical: self.critical.containers,
            mark: Mark::parse(&self.critical.marker).ok_or("spec.critical.marker is not NAME=VALUE")?,
            delete_grace_s: self.critical.delete_grace_seconds,
            notice: self.notice.map(|listener| match listener {
                Listener::Udp { port, payload } => Notice::Udp { port: port.get(), payload },
                Listener::Http { port, path } => Notice::Http { port: port.get(), path, token_file },
            }),
            order: self.order,
            is_paused: self.paused,
            switchover: self.switchover,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An object as the API server shows it.
    pub fn object(name: &str, created: &str, labels: &Value) -> Value {
        json!({
            "metadata": {"namespace": "prod", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7",
                "creationTimestamp": created, "generation": 2},
            "spec": {"selector": {"matchLabels": labels}, "active": 1, "order": "priority", "promoteAfter": "removed",
                "handover": "drain-first", "role": {"label": "role", "active": "active", "standby": "standby"},
                "critical": {"marker": "pwcriticality=critical"}},
        })
    }

    /// What is read of it.
    pub fn declared(name: &str, created: &str, labels: &Value) -> Declared {
        let all = AllDeclared { namespace: None, token_file: Some("/token".into()) };
        all.read(object(name, created, labels)).unwrap()
    }

    fn read(change: &Value) -> Result<Group, String> {
        let mut object = object("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"}));
        for (field, value) in change.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        let all = AllDeclared { namespace: None, token_file: Some("/token".into()) };
        all.read(object).unwrap().group
    }

    #[test]
    fn all_that_a_flag_says_can_be_declared() {
        let plain = read(&json!({})).unwrap();
        assert_eq!((plain.to_string(), plain.selector.to_string()), ("prod/duty".to_owned(), "app=x".to_owned()));
        assert_eq!((plain.notice, plain.mark, plain.is_paused), (None, Mark::default(), false));
        let full = read(&json!({
            "active": 3, "order": "oldest", "promoteAfter": "stopped", "handover": "stop-first", "paused": true,
            "critical": {"containers": ["main"], "marker": "a=b=c", "deleteGraceSeconds": 5},
            "notice": {"protocol": "http", "port": 80, "path": "/x"}, "switchover": {"to": "p1", "request": "r"},
        }));
        let full = full.unwrap();
        assert_eq!((full.active, full.order, full.promote_after), (3, Order::Oldest, PromoteAfter::Stopped));
        assert_eq!((full.handover, full.delete_grace_s, full.is_paused), (Handover::StopFirst, Some(5), true));
        assert_eq!((full.critical, full.mark), (vec!["main".to_owned()], Mark::of("a", "b=c")));
        let token_file = Some("/token".into());
        assert_eq!(full.notice, Some(Notice::Http { port: 80, path: "/x".to_owned(), token_file }));
        assert_eq!(full.switchover.unwrap().to, "p1");
    }

    #[test]
    fn what_gets_past_the_schema_is_refused_all_the_same() {
        for change in [
            json!({"selector": {"matchLabels": {}}}),
            json!({"selector": {"matchLabels": {"role": "active"}}}),
            json!({"active": -1}),
            json!({"order": "newest"}),
            json!({"notice": {"protocol": "udp", "port": 0}}),
            json!({"notice": {"protocol": "tcp", "port": 1}}),
            json!({"critical": {"marker": "x"}}),
        ] {
            assert!(read(&change).is_err(), "{change}");
        }
    }
}
