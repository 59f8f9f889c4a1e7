//! Who owns the pod: a label that its selector uses must not be changed, or the pod is no longer its own and gets a
//! sibling.

use serde::Deserialize;
use serde_json::Value;

use super::api::{Api, Resource, Trouble};
use super::open::Obstacle;
use crate::error::{Code, Failure};

/// What keeps pods in existence and knows them by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    api_version: String,
    kind: String,
    name: String,
    controller: bool,
}

impl Owner {
    /// The one of these references that is the owner, if there is one.
    pub fn among(references: Vec<Self>) -> Option<Self> {
        references.into_iter().find(|one| one.controller)
    }

    /// How the owner is called, if its selector uses the label `key`.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn selecting_by(&self, key: &str, api: &Api, namespace: &str) -> Result<Option<String>, Trouble> {
        let Some(resource) = self.resource(namespace) else {
            tracing::info!("the pod is owned by the {} {:?}, whose selector is not known", self.kind, self.name);
            return Ok(None);
        };
        // One that is gone selects nothing any more.
        let owner = api.get(&resource, &self.name).await?;
        let uses = owner.is_some_and(|owner| selects_by(&owner["spec"]["selector"], key));
        Ok(uses.then(|| resource.called(&self.name)))
    }

    fn resource(&self, namespace: &str) -> Option<Resource> {
        let (group, kind, plural) = match (self.api_version.as_str(), self.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => ("apps", "ReplicaSet", "replicasets"),
            ("apps/v1", "StatefulSet") => ("apps", "StatefulSet", "statefulsets"),
            ("apps/v1", "DaemonSet") => ("apps", "DaemonSet", "daemonsets"),
            ("batch/v1", "Job") => ("batch", "Job", "jobs"),
            ("v1", "ReplicationController") => ("", "ReplicationController", "replicationcontrollers"),
            _ => return None,
        };
        Some(Resource { group, version: "v1", kind, plural, verbs: "get", namespace: namespace.to_owned() })
    }
}

/// Refuses a label key that the owner of `pod` selects its pods by.
pub async fn check(api: &Api, pod: &Value, namespace: &str, key: &str) -> Result<(), Obstacle> {
    let references = serde_json::from_value(pod["metadata"]["ownerReferences"].clone()).unwrap_or_default();
    let Some(owner) = Owner::among(references) else { return Ok(()) };
    match owner.selecting_by(key, api, namespace).await? {
        None => Ok(()),
        Some(called) => Err(Failure::new(Code::Configuration, would_lose(&called, key))
            .hint("choose another key for --route pod-label:KEY")
            .into()),
    }
}

/// Why a label must not be changed.
pub fn would_lose(called: &str, key: &str) -> String {
    format!("the selector of {called} uses the label {key:?}, and would lose the pod")
}

fn selects_by(selector: &Value, key: &str) -> bool {
    let expressions = selector["matchExpressions"].as_array();
    let is_expressed = expressions.into_iter().flatten().any(|expression| expression["key"] == key);
    // That of a ReplicationController is the labels themselves.
    is_expressed || !selector["matchLabels"][key].is_null() || selector[key].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lock::kubernetes::Access;
    use crate::lock::kubernetes::tests::{Server, say};

    #[test]
    fn keys_are_found_in_every_kind_of_selector() {
        for selector in [
            json!({"matchLabels": {"app": "x", "role": "active"}}),
            json!({"matchLabels": {}, "matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}),
            json!({"role": "active"}),
        ] {
            assert!(selects_by(&selector, "role"), "{selector}");
            assert!(!selects_by(&selector, "other"), "{selector}");
        }
        assert!(!selects_by(&Value::Null, "role"));
    }

    async fn checked(kind: &str, answers: Vec<Value>) -> Result<(), Obstacle> {
        let server = Server::start(answers.into_iter().map(|answer| say(200, answer)).collect()).await;
        let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "app-1", "controller": true});
        let pod = json!({"metadata": {"ownerReferences": [{"kind": "Node"}, owner]}});
        check(&Api::new(access), &pod, "prod", "role").await
    }

    #[tokio::test]
    async fn a_key_of_the_owner_is_refused_with_its_name() {
        let owner = |key: &str| json!({"kind": "ReplicaSet", "spec": {"selector": {"matchLabels": {key: "x"}}}});
        checked("ReplicaSet", vec![owner("app")]).await.unwrap();
        checked("Rollout", Vec::new()).await.unwrap();
        let Err(Obstacle::Refusal(failure)) = checked("ReplicaSet", vec![owner("role")]).await else {
            panic!("not refused")
        };
        assert_eq!(failure.code, Code::Configuration);
        assert!(failure.message.contains("ReplicaSet prod/app-1 uses the label \"role\""), "{failure}");
    }
}
