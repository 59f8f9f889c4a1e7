//! Members as real pods on the two nodes of the testbed, with a workload that stamps into a folder of this machine.

mod claims;
mod ear;
pub mod labelled;
mod node;
mod pair;
mod seed;
mod traffic;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::history::{History, Span};
use crate::kubectl::Kubectl;
use crate::process::{self, Process};
use crate::stamp;
use crate::wait::{wait_for, wait_until};

pub use self::claims::Claims;
pub use self::ear::Ear;
pub use self::node::{CutOff, Failover, PowerLoss};
pub use self::pair::Pair;
pub use self::seed::Seed;
pub use self::traffic::Traffic;

/// Longer than anything takes that works; pods take seconds to start.
pub const LIMIT: Duration = Duration::from_secs(90);

/// The lease of tests with the examples, whose own is longer.
pub const LEASE: Duration = Duration::from_secs(4);

/// Where everything is.
pub const NAMESPACE: &str = "default";

/// The image that `testbed/test-image` makes.
const IMAGE: &str = "localhost/soloist-test:testbed";

/// Who has stamped this recently is alive; pods stamp every half millisecond, on two busy processors.
const FRESH: Duration = Duration::from_millis(50);

/// The cluster, and where the pods stamp.
#[derive(Debug)]
pub struct Pods {
    kubectl: Kubectl,
    stamps: TempDir,
}

impl Pods {
    /// The cluster that the testbed has started.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Result<Self> {
        let kubectl = Kubectl::find("TESTBED_NODE2", "this test needs two nodes: make nodes")?;
        let stamps = tempfile::Builder::new().prefix("soloist-test-").tempdir_in("/dev/shm")?;
        for folder in ["", "slots", "slots/old", "slots-2"] {
            let path = stamps.path().join(folder);
            std::fs::create_dir_all(&path)?;
            // The pods run as another user.
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        }
        Ok(Self { kubectl, stamps })
    }

    /// Runs kubectl, which must succeed; what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(arguments)
    }

    /// The folder of this machine that pods stamp into.
    pub fn stamps(&self) -> &Path {
        self.stamps.path()
    }

    /// For what runs kubectl itself.
    pub fn client(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Applies a manifest as [`Pods::fitted`] makes it.
    pub fn apply(&self, manifest: &Path, change: impl Fn(&mut Value)) -> Result<()> {
        self.kubectl.run_with(&["apply", "-f", "-"], &self.fitted(manifest, change)?).map(drop)
    }

    /// A manifest with `change` made to each object; Deployments get the image and the folder of the tests.
    pub fn fitted(&self, manifest: &Path, change: impl Fn(&mut Value)) -> Result<String> {
        let mut objects = self.kubectl.objects(manifest)?;
        for object in &mut objects {
            if object["kind"] == "Deployment" {
                self.fit(&mut object["spec"]["template"]["spec"]);
            }
            change(object);
        }
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
    }

    /// Creates one object.
    pub fn create(&self, object: &Value) -> Result<()> {
        self.kubectl.run_with(&["create", "-f", "-"], &object.to_string()).map(drop)
    }

    /// Creates one pod, with the image and the folder of the tests.
    pub fn create_pod(&self, mut pod: Value) -> Result<()> {
        self.fit(&mut pod["spec"]);
        self.create(&pod)
    }

    /// The first process of the only container of a pod, which sees it as number 1.
    ///
    /// # Errors
    /// It does not run.
    pub fn first_process(&self, pod: &str) -> Result<Process> {
        self.first_process_called(pod, "")
    }

    /// The first process of the container of a pod whose command line holds `words`.
    ///
    /// # Errors
    /// It does not run.
    pub fn first_process_called(&self, pod: &str, words: &str) -> Result<Process> {
        let is_first = |process: &Process| {
            let numbers = process.status("NSpid").unwrap_or_default();
            let mut numbers = numbers.split_ascii_whitespace();
            numbers.next().is_some()
                && numbers.last() == Some("1")
                && process.carries(&format!("HOSTNAME={pod}"))
                && process.mentions(words)
        };
        process::all().into_iter().find(is_first).with_context(|| format!("{pod} does not run"))
    }

    /// Listens, from now on, for the kubelet to say that the only container of a pod has ended, and why.
    pub fn hear_end_of(&self, pod: &str) -> Result<Ear> {
        Ear::open(&self.kubectl, &["pod", pod], "{.status.containerStatuses[0].state.terminated.reason}")
    }

    /// Listens, from now on, to the renewals of a Lease: a line for each change, with its holder and its time.
    pub fn hear_renewals(&self, lease: &str) -> Result<Ear> {
        Ear::open(&self.kubectl, &["lease", lease], "{.spec.holderIdentity} {.spec.renewTime}")
    }

    /// Lets the command of an activation take more and more memory, up to so many MiB.
    pub fn leak(&self, active: &Span, mebibytes: u32) -> Result<()> {
        let path = self.stamps.path().join(format!("leak-{}", active.token));
        std::fs::write(&path, mebibytes.to_string()).with_context(|| format!("failed to write {}", path.display()))
    }

    /// What tests change in every pod.
    fn fit(&self, pod: &mut Value) {
        // No name server runs in the testbed.
        pod["dnsPolicy"] = "Default".into();
        add(&mut pod["volumes"], json!({"name": "stamps", "hostPath": {"path": self.stamps.path()}}));
        for kind in ["containers", "initContainers"] {
            for container in pod.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = IMAGE.into();
                add(&mut container["volumeMounts"], json!({"name": "stamps", "mountPath": "/stamps"}));
            }
        }
    }

    /// Waits until the container of a pod has said this, and returns its log.
    pub fn wait_said(&self, pod: &str, what: &str) -> Result<String> {
        let said = || self.kubectl(&["logs", pod]).ok().filter(|log| log.contains(what));
        wait_for(&format!("{pod} to say {what:?}"), LIMIT, said).with_context(|| self.logs())
    }

    /// Evicts a pod, as a drain does.
    pub fn evict(&self, pod: &str) -> Result<()> {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
        self.kubectl.run_with(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).map(drop)
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod: &str) -> Result<String> {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
    }

    /// Waits until there is a pod on another node than this one's; the name of that node.
    pub fn wait_elsewhere(&self, pod: &str) -> Result<String> {
        let own = self.node_of(pod)?;
        wait_for("a pod on another node", LIMIT, || {
            let nodes = self.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).ok()?;
            nodes.split_ascii_whitespace().find(|node| *node != own).map(str::to_owned)
        })
        .with_context(|| self.logs())
    }

    /// What a command waits for that waits for the roll-out: all pods ready, and none left on the way out.
    pub fn wait_rolled_out(&self, deployment: &str, replicas: usize) -> Result<()> {
        self.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=90s"])?;
        let count =
            || self.kubectl(&["get", "pods", "-o", "name"]).is_ok_and(|names| names.lines().count() == replicas);
        wait_until(&format!("{replicas} pods"), LIMIT, count).with_context(|| self.logs())
    }

    /// Crashes the command of this activation.
    pub fn crash_command(&self, active: &Span) -> Result<()> {
        let hostname = format!("HOSTNAME={}", active.member);
        let is_command = |one: &Process| one.name == "probe" && one.carries(&hostname);
        let command = process::all().into_iter().find(is_command).context("the command does not run")?;
        process::signal(command.pid, Signal::ABORT)
    }

    /// Everything that was stamped.
    pub fn history(&self) -> History {
        self.history_of(1)
    }

    /// The same of one slot, where several may be active: there are pages for two.
    pub fn history_of(&self, slot: u32) -> History {
        History::of(stamp::read_page(&stamp::page(self.stamps.path(), slot)))
    }

    /// Waits for an activation with a larger token that stamps; its member is the pod's name.
    pub fn wait_active_after(&self, token: u64, limit: Duration) -> Result<Span> {
        self.wait_active_in(1, token, limit)
    }

    /// The same in one slot.
    pub fn wait_active_in(&self, slot: u32, token: u64, limit: Duration) -> Result<Span> {
        let found = wait_for(&format!("somebody active after token {token}"), limit, || {
            let fresh = stamp::now().saturating_sub(u64::try_from(FRESH.as_nanos()).unwrap_or(u64::MAX));
            self.history_of(slot).spans.into_iter().find(|span| span.token > token && span.last > fresh)
        });
        found.with_context(|| self.logs())
    }

    /// Checks all that was stamped: no overlaps, tokens in order, at least so many activations.
    pub fn check(&self, activations: usize) -> Result<()> {
        History::check_soon(|| self.history(), activations, 2)
            .with_context(|| format!("{}{}", self.history(), self.logs()))
    }

    /// What all pods are, and what they wrote last, for the message of a failure.
    pub fn logs(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "-o", "wide"]).unwrap_or_else(|error| error.to_string());
        let names = self.kubectl(&["get", "pods", "-o", "name"]).unwrap_or_default();
        let log = |name: &str| {
            let text = self
                .kubectl(&["logs", "--tail=30", "--all-containers", name])
                .unwrap_or_else(|error| error.to_string());
            format!("--- {name}\n{text}")
        };
        format!("\n{pods}{}", names.lines().map(log).collect::<String>())
    }
}

/// The next test finds an empty cluster. What the cluster itself provides says so in a label. Pods go first: without
/// their Role they could not release, and would try for a lease.
impl Drop for Pods {
    fn drop(&mut self) {
        for kinds in ["deployments,replicasets,pods", "services,poddisruptionbudgets,leases,roles,rolebindings"] {
            let gone = self.kubectl(&["delete", kinds, "--selector=!provider", "--timeout=60s"]);
            if let Err(error) = gone {
                eprintln!("something is left in the cluster: {error:#}");
            }
        }
    }
}

/// One more in a list, which need not be there yet.
fn add(list: &mut Value, one: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(one),
        None => *list = Value::Array(vec![one]),
    }
}

/// Gives the members of an example a short lease.
pub fn shorten_lease(object: &mut Value) {
    let arguments = object.pointer_mut("/spec/template/spec/containers/0/args");
    for argument in arguments.and_then(Value::as_array_mut).into_iter().flatten() {
        if *argument == "--lease=15s" {
            *argument = format!("--lease={}s", LEASE.as_secs()).into();
        }
    }
}
