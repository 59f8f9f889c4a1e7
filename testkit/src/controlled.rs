//! A group of pods that nothing runs, on the API server of the testbed, and the controllers that look after it. A test
//! says what the kubelet would.

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::group::UNHURRIED;
use crate::lease_group::LeaseGroup;
use crate::member::Member;
use crate::relay::Relay;
use crate::scenario::LIMIT;
use crate::sight::Sight;
use crate::stamp;
use crate::wait::wait_until;

/// The name of the group, the value of its pods' label `app`, and the name of its record.
pub const APP: &str = "duty";

/// Nobody should have to wait for more than a few writes: on busy processors.
pub const PROMPT: Duration = Duration::from_millis(1500);

/// The pods of one namespace.
pub struct Pods {
    /// Where they are.
    pub namespace: String,
    /// All that was to be seen of them.
    pub sight: Sight,
    app: String,
    runtime: Runtime,
    client: kube::Client,
    created: Cell<u32>,
}

impl fmt::Debug for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pods").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A container that nothing is said about.
pub fn container(name: &str) -> Value {
    json!({"name": name, "image": "none"})
}

/// A container that is marked as critical.
pub fn critical_container(name: &str) -> Value {
    json!({"name": name, "image": "none", "env": [{"name": "pwcriticality", "value": "critical"}]})
}

/// How a container is that has ended.
pub fn terminated(reason: &str) -> Value {
    json!({"terminated": {"exitCode": 1, "reason": reason}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
}

impl Pods {
    /// None yet, in a namespace that exists; a record of this name is looked at.
    pub fn new(cluster: &Cluster, namespace: &str, app: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async { kube::Client::try_from(cluster.config()) })?;
        let sight = Sight::open(cluster.config(), namespace, app)?;
        let (namespace, app) = (namespace.to_owned(), app.to_owned());
        let pods = Self { namespace, sight, app, runtime, client, created: Cell::new(0) };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        // Where somebody else makes one, it may be there.
        let _ = pods.call(Method::POST, &pods.path("serviceaccounts", ""), &account);
        Ok(pods)
    }

    fn path(&self, plural: &str, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        format!("/api/v1/namespaces/{}/{plural}{slash}{name}", self.namespace)
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method.clone()).uri(path).header("content-type", kind).body(bytes)?;
        let answer = self.runtime.block_on(self.client.request_text(request));
        let answer = answer.with_context(|| format!("failed to {method} {path}"))?;
        serde_json::from_str(&answer).with_context(|| format!("{method} {path} was answered with no JSON"))
    }

    /// Creates a pod with these containers, of which nothing runs yet.
    pub fn create(&self, name: &str, containers: &[Value]) -> Result<()> {
        self.create_on("node", name, containers)
    }

    /// Creates one on this node.
    pub fn create_on(&self, node: &str, name: &str, containers: &[Value]) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": self.app}},
            "spec": {"nodeName": node, "automountServiceAccountToken": false, "containers": containers},
        });
        self.call(Method::POST, &self.path("pods", ""), &pod).map(drop)
    }

    /// All containers of it run, and it is ready; whoever is so first counts as older.
    pub fn run(&self, name: &str) -> Result<()> {
        let age = self.created.replace(self.created.get() + 1);
        let pod = self.get(name)?;
        let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let status =
            |container: &Value| self.container_status(container["name"].as_str().unwrap_or_default(), running());
        self.set_status(
            name,
            &json!({
                "phase": "Running", "podIP": "127.0.0.1",
                "startTime": format!("2026-01-01T{:02}:{:02}:{:02}Z", age / 3600, age / 60 % 60, age % 60),
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": containers.iter().map(status).collect::<Vec<_>>(),
            }),
        )
    }

    fn container_status(&self, name: &str, state: Value) -> Value {
        let is_ready = !state["running"].is_null();
        // Without an identity it has never begun.
        let identity = "containerd://x";
        json!({"name": name, "image": "x", "imageID": "x", "containerID": identity, "ready": is_ready,
            "restartCount": 0, "state": state})
    }

    /// A pod with one container, running and ready.
    pub fn up(&self, name: &str) -> Result<()> {
        self.up_with(name, &[container("main")])
    }

    /// A pod with these containers, running and ready.
    pub fn up_with(&self, name: &str, containers: &[Value]) -> Result<()> {
        self.create(name, containers)?;
        self.run(name)
    }

    /// The kubelet says this of the containers of a pod.
    pub fn say(&self, name: &str, states: &[(&str, Value)]) -> Result<()> {
        let statuses = states.iter().map(|(container, state)| match state.is_null() {
            true => self.container_status(container, running()),
            false => self.container_status(container, state.clone()),
        });
        self.set_status(name, &json!({"containerStatuses": statuses.collect::<Vec<_>>()}))
    }

    /// The kubelet says for good that nothing of a pod runs.
    pub fn say_over(&self, name: &str) -> Result<()> {
        let status = self.container_status("main", terminated("Completed"));
        self.set_status(name, &json!({"phase": "Succeeded", "containerStatuses": [status]}))
    }

    /// The kubelet says that a pod is ready, or not.
    pub fn say_ready(&self, name: &str, is_ready: bool) -> Result<()> {
        let status = if is_ready { "True" } else { "False" };
        self.set_status(name, &json!({"conditions": [{"type": "Ready", "status": status}]}))
    }

    /// Changes its status.
    pub fn set_status(&self, name: &str, status: &Value) -> Result<()> {
        let path = format!("{}/status", self.path("pods", name));
        self.call(Method::PATCH, &path, &json!({"status": status})).map(drop)
    }

    /// Changes its metadata by hand.
    pub fn edit(&self, name: &str, metadata: &Value) -> Result<()> {
        self.call(Method::PATCH, &self.path("pods", name), &json!({"metadata": metadata})).map(drop)
    }

    /// Changes its label by hand; nothing takes it away.
    pub fn label(&self, name: &str, role: Option<&str>) -> Result<()> {
        self.edit(name, &json!({"labels": {"role": role}}))
    }

    /// A pod as it is.
    pub fn get(&self, name: &str) -> Result<Value> {
        self.call(Method::GET, &self.path("pods", name), &Value::Null)
    }

    /// Deletes a pod as an operator does: it stays for its grace. When that was asked for.
    pub fn delete(&self, name: &str) -> Result<u64> {
        let at = stamp::now();
        self.call(Method::DELETE, &self.path("pods", name), &Value::Null)?;
        Ok(at)
    }

    /// Deletes a pod at once. When that was asked for.
    pub fn force_delete(&self, name: &str) -> Result<u64> {
        let at = stamp::now();
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.call(Method::DELETE, &self.path("pods", name), &options)?;
        Ok(at)
    }

    /// Waits until these are labelled as active, and all others as standby. When it was so.
    pub fn wait_active(&self, names: &[&str]) -> Result<u64> {
        self.sight.wait(&format!("{names:?} to be active"), LIMIT, |moment| moment.shows(names))
    }

    /// How long after `since` it was so first, which must not be long.
    pub fn follows(&self, since: u64, names: &[&str]) -> Result<Duration> {
        let what = format!("{names:?} to be active");
        let at = self.sight.wait_since(since, &what, PROMPT, |moment| moment.shows(names))?;
        Ok(Duration::from_nanos(at - since))
    }

    /// Declares that these pods are a group of so many active ones, as `spec` says besides its selector.
    pub fn declare(&self, cluster: &Cluster, name: &str, spec: &Value) -> Result<()> {
        let mut spec = spec.clone();
        spec["selector"] = json!({"matchLabels": {"app": self.app}});
        cluster.apply(&json!({
            "apiVersion": "soloist.dev/v1alpha1", "kind": "ActiveStandby",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        }))
    }

    fn declared_path(&self, name: &str) -> String {
        format!("/apis/soloist.dev/v1alpha1/namespaces/{}/activestandbys/{name}", self.namespace)
    }

    /// A declared group as it is.
    pub fn declared(&self, name: &str) -> Result<Value> {
        self.call(Method::GET, &self.declared_path(name), &Value::Null)
    }

    /// Changes what is wanted of a declared group.
    pub fn wish(&self, name: &str, spec: &Value) -> Result<()> {
        self.call(Method::PATCH, &self.declared_path(name), &json!({"spec": spec})).map(drop)
    }

    /// Takes the declaration of a group away.
    pub fn undeclare(&self, name: &str) -> Result<()> {
        self.call(Method::DELETE, &self.declared_path(name), &Value::Null).map(drop)
    }

    /// Waits until a declared group says so of itself.
    pub fn says(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let status = || self.declared(name).map(|mut object| object["status"].take()).unwrap_or_default();
        wait_until(what, LIMIT, || is_so(&status())).with_context(|| format!("{:#}", status()))?;
        Ok(status())
    }

    fn record_path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}", self.namespace, self.app)
    }

    /// The Lease that records who is active.
    pub fn record(&self) -> Result<Value> {
        self.call(Method::GET, &self.record_path(), &Value::Null)
    }

    /// Changes that Lease by hand.
    pub fn edit_record(&self, change: &Value) -> Result<()> {
        self.call(Method::PATCH, &self.record_path(), change).map(drop)
    }

    /// Deletes it.
    pub fn delete_record(&self) -> Result<()> {
        self.call(Method::DELETE, &self.record_path(), &Value::Null).map(drop)
    }
}

/// One group, its controllers, and their lock.
#[derive(Debug)]
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    /// The controllers.
    pub controllers: LeaseGroup,
    /// The pods.
    pub pods: Pods,
    lease: Duration,
}

impl Site {
    /// No pods and no controllers yet; the lock among them is free at first sight, and nobody waits for its lease.
    pub fn new() -> Result<Self> {
        Self::with_lease(UNHURRIED)
    }

    /// The same, where the controllers' lock has this lease.
    pub fn with_lease(lease: Duration) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let controllers = LeaseGroup::new(&cluster)?;
        let pods = Pods::new(&cluster, &controllers.namespace, APP)?;
        Ok(Self { cluster, controllers, pods, lease })
    }

    /// With a controller, and these pods, of which the first is active.
    pub fn settled(options: &[&str], names: &[&str]) -> Result<(Self, Member)> {
        let site = Self::new()?;
        for name in names {
            site.pods.up(name)?;
        }
        let controller = site.lead("c1", options)?;
        site.pods.wait_active(&names[..1])?;
        Ok((site, controller))
    }

    /// Starts a controller as the administrator.
    pub fn controller(&self, name: &str, options: &[&str]) -> Result<Member> {
        self.controller_of(name, &[&self.pods.namespace], options)
    }

    /// Starts one that looks after these namespaces.
    pub fn controller_of(&self, name: &str, namespaces: &[&str], options: &[&str]) -> Result<Member> {
        self.start(name, &["--selector", &format!("app={APP}")], namespaces, options)
    }

    /// Starts one that looks after what is declared here, and waits until it leads.
    pub fn lead_declared(&self, name: &str, options: &[&str]) -> Result<Member> {
        let controller = self.start(name, &["--declared"], &[&self.pods.namespace], options)?;
        self.leads(&controller)?;
        Ok(controller)
    }

    fn start(&self, name: &str, groups: &[&str], namespaces: &[&str], options: &[&str]) -> Result<Member> {
        let LeaseGroup { namespace, lease, .. } = &self.controllers;
        let mut words: Vec<OsString> =
            std::iter::once("controller").chain(groups.iter().copied()).map(Into::into).collect();
        for namespace in namespaces {
            words.extend(["--namespace".into(), namespace.into()]);
        }
        let lock = format!("kubernetes://{namespace}/{lease}");
        let lease = format!("{}s", self.lease.as_secs());
        words.extend(["--lock", &lock, "--lease", &lease, "--name", name].map(OsString::from));
        self.controllers.group.member(name).options(options.iter().copied()).call(&words)
    }

    /// Starts a controller and waits until it leads.
    pub fn lead(&self, name: &str, options: &[&str]) -> Result<Member> {
        let controller = self.controller(name, options)?;
        self.leads(&controller)?;
        Ok(controller)
    }

    /// Starts a controller behind a relay of its own.
    pub fn relayed(&mut self, name: &str, options: &[&str]) -> Result<Member> {
        self.controllers.add_relay(&self.cluster, name, &json!({}))?;
        let kubeconfig = self.controllers.kubeconfig(name).display().to_string();
        let options: Vec<&str> = options.iter().copied().chain(["--kubeconfig", &kubeconfig]).collect();
        self.controller(name, &options)
    }

    /// The relay of a controller.
    pub fn relay(&self, name: &str) -> Result<&Relay> {
        self.controllers.relay(name)
    }

    /// How many changes a controller has asked for, but for its own lock and its Events.
    pub fn writes(&self, name: &str) -> Result<u64> {
        let lock = format!("/leases/{}", self.controllers.lease);
        let is_write = |name: &str| {
            ["POST ", "PUT ", "PATCH ", "DELETE "].iter().any(|verb| name.starts_with(verb))
                && !name.ends_with(&lock)
                && !name.ends_with("/events")
        };
        let requests = self.relay(name)?.requests();
        Ok(requests.iter().filter(|(name, _)| is_write(name)).map(|(_, count)| count).sum())
    }

    /// Waits until a controller leads, or leads once more.
    pub fn leads(&self, controller: &Member) -> Result<()> {
        let terms = |what: &str| controller.own_log().matches(what).count();
        let leads = || terms("leading with the term") > terms(" is over");
        wait_until(&format!("{} to lead", controller.name()), LIMIT, leads)
            .with_context(|| self.controllers.group.logs())
    }

    /// Never was more than one pod labelled as active; see [`Sight::check`].
    pub fn check(&self) -> Result<()> {
        self.pods.sight.check(1).with_context(|| self.controllers.group.logs())
    }
}
