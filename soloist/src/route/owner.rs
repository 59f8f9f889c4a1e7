//! Who owns the pod: a label that its selector uses must not be changed, or the pod is no longer its own and gets a
//! sibling.

use serde_json::Value;

use super::api::{Api, Resource};
use super::open::Obstacle;
use crate::error::{Code, Failure};

/// Refuses a label key that the controller of `pod` selects its pods by.
pub async fn check(api: &Api, pod: &Value, namespace: &str, key: &str) -> Result<(), Obstacle> {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
    let Some(controller) = controller else { return Ok(()) };
    let name = controller["name"].as_str().unwrap_or_default();
    let Some(resource) = resource(controller, namespace) else {
        tracing::info!("the pod is owned by the {} {name:?}, whose selector is not known", controller["kind"]);
        return Ok(());
    };
    // One that is gone selects nothing any more.
    let Some(owner) = api.get(&resource, name).await? else { return Ok(()) };
    if !selects_by(&owner["spec"]["selector"], key) {
        return Ok(());
    }
    let what = format!("the selector of {} uses the label {key:?}, and would lose the pod", resource.called(name));
    Err(Failure::new(Code::Configuration, what).hint("choose another key for --route pod-label:KEY").into())
}

fn resource(owner: &Value, namespace: &str) -> Option<Resource> {
    let (group, kind, plural) = match (owner["apiVersion"].as_str()?, owner["kind"].as_str()?) {
        ("apps/v1", "ReplicaSet") => ("apps", "ReplicaSet", "replicasets"),
        ("apps/v1", "StatefulSet") => ("apps", "StatefulSet", "statefulsets"),
        ("apps/v1", "DaemonSet") => ("apps", "DaemonSet", "daemonsets"),
        ("batch/v1", "Job") => ("batch", "Job", "jobs"),
        ("v1", "ReplicationController") => ("", "ReplicationController", "replicationcontrollers"),
        _ => return None,
    };
    Some(Resource { group, version: "v1", kind, plural, verbs: "get", namespace: namespace.to_owned() })
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
