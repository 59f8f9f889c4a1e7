//! A group of two pods, one on each node.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{LIMIT, NAMESPACE, Pods};
use crate::history::Span;

/// The nodes of the testbed.
const NODES: [&str; 2] = ["node1", "node2"];

/// What the group is.
#[derive(Clone, Debug)]
pub struct Pair<'a> {
    /// Of its Lease, its account and, with the node behind it, of its pods.
    pub name: &'a str,
    /// Its lease.
    pub lease: Duration,
    /// What its members may do besides using their Lease.
    pub rules: Vec<Value>,
    /// Comes before the command.
    pub arguments: &'a [&'a str],
    /// As much memory may a pod use, as Kubernetes spells it.
    pub memory: &'a str,
}

impl<'a> Pair<'a> {
    /// With the documented Role and more memory than it needs.
    pub fn new(name: &'a str, lease: Duration) -> Self {
        Self { name, lease, rules: Vec::new(), arguments: &[], memory: "1Gi" }
    }

    /// Starts it; who is active once both are ready.
    pub fn start(&self, pods: &Pods) -> Result<Span> {
        self.create_access(pods)?;
        for node in NODES {
            pods.create_pod(self.pod(node))?;
        }
        for node in NODES {
            pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{}-{node}", self.name)])?;
        }
        pods.wait_active_after(0, LIMIT)
    }

    fn create_access(&self, pods: &Pods) -> Result<()> {
        let mut rules = vec![json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": [self.name], "verbs": ["get", "watch", "update"]})];
        rules.extend(self.rules.iter().cloned());
        pods.client().initial_lease(NAMESPACE, self.name)?;
        pods.client().grant(NAMESPACE, self.name, &rules.into())
    }

    fn pod(&self, node: &str) -> Value {
        let mut command = vec!["run".to_owned(), format!("--lock=kubernetes:///{}", self.name)];
        command.push(format!("--lease={}s", self.lease.as_secs()));
        command.extend(self.arguments.iter().map(|argument| (*argument).to_owned()));
        command.extend(["--", "my-app"].map(str::to_owned));
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{}-{node}", self.name)},
        "spec": {"nodeName": node, "serviceAccountName": self.name, "containers": [{
            "name": "main", "command": ["/usr/bin/soloist"], "args": command,
            "resources": {"limits": {"memory": self.memory}},
            "env": [{"name": "POD_NAME", "valueFrom": from("metadata.name")},
                {"name": "POD_UID", "valueFrom": from("metadata.uid")},
                {"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")}],
        }]}})
    }
}
