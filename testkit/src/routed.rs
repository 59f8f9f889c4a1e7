//! A group on a Lease whose members have routes: two Services without selectors, pods that nothing runs, and members
//! that take themselves for those.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::history::Span;
use crate::lease_group::{LEASE, LeaseGroup, NAMESPACE};
use crate::member::Member;
use crate::scenario::LIMIT;
use crate::traffic::View;

/// All kinds of routes.
pub const ROUTES: [&str; 3] = ["endpoint-slice:app", "endpoints:old", "pod-label:role"];

/// The place, with pods `a` and `b`.
#[derive(Debug)]
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// The group.
    pub group: LeaseGroup,
}

/// What watches show of all kinds.
#[derive(Debug)]
pub struct Views {
    /// Of `endpoint-slice:app`.
    pub slices: View,
    /// Of `endpoints:old`.
    pub endpoints: View,
    /// Of `pod-label:role`.
    pub pods: View,
}

/// The address of a pod.
pub fn address(name: &str) -> &'static str {
    match name {
        "a" => "10.0.0.1",
        "b" => "10.0.0.2",
        _ => "10.0.0.3",
    }
}

/// Makes two Services without selectors and pods `a` and `b` in a namespace.
///
/// # Errors
/// The API server does not take them.
pub fn furnish(cluster: &Cluster, namespace: &str) -> Result<()> {
    let apply = |api_version: &str, kind: &str, name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": namespace});
        cluster.apply(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}))
    };
    cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": namespace}}))?;
    for name in ["app", "old"] {
        apply("v1", "Service", name, json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}))?;
    }
    for name in ["a", "b"] {
        apply("v1", "Pod", name, pod_spec())?;
    }
    Ok(())
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "app", "image": "none"}]})
}

/// What the downward API would tell a process in the pod.
///
/// # Errors
/// There is no such pod.
pub fn environment(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Vec<(&'static str, String)>> {
    let uid = cluster.kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])?;
    Ok(vec![
        ("POD_NAME", pod.to_owned()),
        ("POD_NAMESPACE", namespace.to_owned()),
        ("POD_UID", uid),
        ("POD_IP", address(pod).to_owned()),
        ("NODE_NAME", "node1".to_owned()),
    ])
}

impl Site {
    /// With the shortest lease.
    pub fn new() -> Result<Self> {
        Self::with_lease(LEASE)
    }

    /// With another lease.
    pub fn with_lease(lease: Duration) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let group = LeaseGroup::with_lease(&cluster, lease)?;
        furnish(&cluster, &group.namespace)?;
        Ok(Self { cluster, group })
    }

    /// Creates or changes an object of the group's namespace.
    pub fn apply(&self, mut object: Value) -> Result<()> {
        object["metadata"]["namespace"] = self.group.namespace.as_str().into();
        self.cluster.apply(&object)
    }

    /// Creates or changes a Service.
    pub fn service(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}))
    }

    /// Creates a pod, or changes its metadata.
    pub fn pod(&self, name: &str, mut metadata: Value) -> Result<()> {
        metadata["name"] = name.into();
        self.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec()}))
    }

    /// What `kubectl` prints in the group's namespace; fails if it does.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.group.namespace];
        all.extend(words);
        self.cluster.kubectl(&all)
    }

    /// An object as it is.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// What is put before the command of a member: it is PID 1 of a PID namespace of its own then, and finds what the
    /// downward API would tell its pod.
    pub fn as_pod(&self, name: &str) -> Result<Vec<String>> {
        let pairs = environment(&self.cluster, &self.group.namespace, name)?;
        let words = NAMESPACE.into_iter().chain(["env"]).map(str::to_owned);
        Ok(words.chain(pairs.into_iter().map(|(key, value)| format!("{key}={value}"))).collect())
    }

    /// Starts the member of a pod, with these changes to its environment.
    pub fn spawn_as(&mut self, name: &str, user: &Value, changes: &[&str], routes: &[&str]) -> Result<Member> {
        let words = self.as_pod(name)?;
        let wrapper: Vec<&str> = words.iter().map(String::as_str).chain(changes.iter().copied()).collect();
        let options: Vec<&str> = routes.iter().flat_map(|&route| ["--route", route]).collect();
        self.group.spawn_as(&self.cluster, name, user, &wrapper, &options)
    }

    /// The same as the administrator.
    pub fn spawn(&mut self, name: &str, routes: &[&str]) -> Result<Member> {
        self.spawn_as(name, &json!({}), &[], routes)
    }

    /// `a` active and `b` standing by, both with `routes`.
    pub fn pair(&mut self, routes: &[&str]) -> Result<(Vec<Member>, Span)> {
        let a = self.spawn("a", routes)?;
        let active = a.wait_active(&self.group.group, LIMIT)?;
        let b = self.spawn("b", routes)?;
        b.wait_standby(LIMIT)?;
        Ok((vec![a, b], active))
    }

    /// Watches everything from now on.
    pub fn views(&self) -> Result<Views> {
        let (kubectl, namespace) = (self.cluster.client(), &self.group.namespace);
        Ok(Views {
            slices: View::of_slices(kubectl, namespace, "app")?,
            endpoints: View::of_endpoints(kubectl, namespace, "old")?,
            pods: View::of_pods(kubectl, namespace, &[("role", "active")])?,
        })
    }
}

impl Views {
    /// Waits until all traffic goes to this member and nobody else.
    pub fn wait(&self, member: &str) -> Result<()> {
        self.slices.wait(Some(address(member)), LIMIT)?;
        self.endpoints.wait(Some(address(member)), LIMIT)?;
        self.pods.wait(Some(member), LIMIT)
    }

    /// Whether it does now.
    pub fn show(&self, member: &str) -> bool {
        let addresses = [self.slices.now(), self.endpoints.now()];
        addresses.iter().all(|addresses| *addresses == [address(member)]) && self.pods.now() == [member]
    }

    /// Never did it go to two at once.
    pub fn never_two(&self) -> Result<()> {
        [&self.slices, &self.endpoints, &self.pods].into_iter().try_for_each(View::never_two)
    }

    /// It went to these, one after the other, and never to two.
    pub fn check(&self, members: &[&str]) -> Result<()> {
        let addresses: Vec<&str> = members.iter().map(|member| address(member)).collect();
        self.slices.check(&addresses)?;
        self.endpoints.check(&addresses)?;
        self.pods.check(members)
    }
}
