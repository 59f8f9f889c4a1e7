//! What is known of nodes: whether one is a bad place, and whether an operator has said that nothing runs there any more.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::watch::{Place, Scope};

/// The taint by which an operator vouches for a node: it is shut down, and nothing runs there.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it takes no new pods, or is to lose those that it has: a pod there is the last choice.
    pub is_bad: bool,
    /// Whether an operator says that nothing runs there.
    pub is_out_of_service: bool,
}

/// All nodes that were seen, by name.
pub type Nodes = BTreeMap<String, Node>;

/// All nodes.
#[derive(Clone, Copy, Debug)]
pub struct AllNodes;

impl Scope for AllNodes {
    type Item = Node;

    fn name(&self) -> String {
        "nodes".to_owned()
    }

    fn place(&self) -> Place {
        Place { root: "/api/v1", namespace: None, plural: "nodes", selector: String::new() }
    }

    fn missing(&self) -> &'static str {
        "the verbs list and watch on nodes, in a ClusterRole; without them a pod on a cordoned or tainted node is as good a \
         candidate as any, and the taint out-of-service is not seen"
    }

    fn read(&self, object: Value) -> Result<Node, String> {
        let raw: Raw = serde_json::from_value(object).map_err(|error| format!("a node cannot be read: {error}"))?;
        let has = |taint: &Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        Ok(Node {
            is_bad: raw.spec.unschedulable || raw.spec.taints.iter().any(has),
            is_out_of_service: raw.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE),
            name: raw.metadata.name,
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: bool,
    taints: Vec<Taint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
    effect: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_bad_when_it_is_cordoned_or_tainted() {
        let read = |spec: Value| {
            let Node { is_bad, is_out_of_service, .. } =
                AllNodes.read(json!({"metadata": {"name": "n1"}, "spec": spec})).unwrap();
            (is_bad, is_out_of_service)
        };
        assert_eq!(read(json!({})), (false, false));
        assert_eq!(read(json!({"unschedulable": true})), (true, false));
        assert_eq!(read(json!({"taints": [{"key": "x", "effect": "PreferNoSchedule"}]})), (false, false));
        assert_eq!(read(json!({"taints": [{"key": "x", "effect": "NoExecute"}]})), (true, false));
        assert_eq!(read(json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]})), (true, true));
        assert!(AllNodes.read(json!({"metadata": {}})).is_err());
    }
}
