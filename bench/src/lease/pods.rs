//! Members in containers, as far as soloist can tell: namespaces of their own, the kubelet's mount, a pod at the API
//! server. No kubelet runs; the bench says what one would say, so that what comes after its word can be measured alone.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::group::Group;
use testkit::lease_group::NAMESPACE;
use testkit::member::Member;
use testkit::{stamp, wait};
use tokio::runtime::Runtime;

use super::QUIET;
use crate::beat;
use crate::handover::page;
use crate::steps::LIMIT;

/// The container of each pod.
const CONTAINER: &str = "main";

/// A pod with one container.
pub struct Pod {
    name: String,
    uid: String,
    /// What the kubelet would mount, and where; and when the first process began.
    folder: TempDir,
    runs: u32,
}

impl Pod {
    /// Tells the API server of it.
    pub fn create(cluster: &Cluster, name: &str) -> Result<Self> {
        cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "bench", "namespace": QUIET}}))?;
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": QUIET},
            "spec": {"nodeName": "nowhere", "serviceAccountName": "bench", "automountServiceAccountToken": false,
                "containers": [{"name": CONTAINER, "image": "none"}]}}))?;
        let uid = cluster.kubectl(&["get", "pod", name, "-n", QUIET, "-o", "jsonpath={.metadata.uid}"])?;
        let folder = tempfile::tempdir()?;
        for path in [mount_source(folder.path(), &uid), mount_target(folder.path())] {
            std::fs::create_dir_all(path)?;
        }
        Ok(Self { name: name.to_owned(), uid, folder, runs: 0 })
    }

    /// The next run of its container, with a member of `group` as the first process, which has begun when this returns.
    pub fn run(&mut self, group: &Group, options: &[&str]) -> Result<Member> {
        if self.runs > 0 {
            std::fs::remove_file(self.stamp_file()).context("the run before has not begun")?;
        }
        self.runs += 1;
        let program = std::env::current_exe().context("failed to find this program")?;
        let variables = [("POD_NAME", self.name.as_str()), ("POD_UID", &self.uid), ("POD_NAMESPACE", QUIET)];
        let mut wrapper: Vec<OsString> = vec!["env".into()];
        wrapper.extend(variables.map(|(name, value)| format!("{name}={value}").into()));
        wrapper.extend(NAMESPACE.map(Into::into));
        wrapper.extend([program.into(), "contain".into(), mount_source(self.folder.path(), &self.uid).into()]);
        wrapper.extend([mount_target(self.folder.path()).into(), self.stamp_file().into()]);
        let workload = beat::command(&page(group))?;
        let starter = group.member(&format!("{}.{}", self.name, self.runs)).wrapper(wrapper);
        let member = starter.options(options.iter().copied()).run(&workload)?;
        wait::wait_until("the first process", LIMIT, || self.began().is_ok())?;
        Ok(member)
    }

    /// When the first process of the present run began.
    pub fn began(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.stamp_file()).context("the container has not begun")?;
        text.trim().parse().context("failed to read when the container began")
    }

    /// The runtime's id for the present run.
    pub fn id(&self) -> String {
        format!("bench://{}-{}", self.name, self.runs)
    }

    fn stamp_file(&self) -> std::path::PathBuf {
        self.folder.path().join("began")
    }
}

/// What says what a kubelet would say.
pub struct Kubelet {
    pods: Api<k8s_openapi::api::core::v1::Pod>,
    runtime: Runtime,
}

impl Kubelet {
    /// Connects as the administrator of the testbed.
    pub fn connect() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(kube::Client::try_default()).context("failed to connect as a kubelet")?;
        Ok(Self { pods: Api::namespaced(client, QUIET), runtime })
    }

    /// The present run of the container runs since now.
    pub fn say_running(&self, pod: &Pod) -> Result<()> {
        let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.say(pod, &json!({"running": {"startedAt": started}})).map(drop)
    }

    /// It has ended. Returns the instant before that was said.
    pub fn say_killed(&self, pod: &Pod) -> Result<u64> {
        self.say(pod, &json!({"terminated": {"containerID": pod.id(), "reason": "Error", "exitCode": 137}}))
    }

    fn say(&self, pod: &Pod, state: &Value) -> Result<u64> {
        let status = json!({"name": CONTAINER, "image": "none", "imageID": "none", "ready": false,
            "restartCount": pod.runs - 1, "containerID": pod.id(), "state": state});
        let patch = Patch::Merge(json!({"status": {"phase": "Running", "containerStatuses": [status]}}));
        let now = stamp::now();
        self.runtime
            .block_on(self.pods.patch_status(&pod.name, &PatchParams::default(), &patch))
            .with_context(|| format!("failed to say what became of {}", pod.name))?;
        Ok(now)
    }
}

/// The kubelet mounts a file for the last words of each run, which names pod and container.
fn mount_source(folder: &Path, uid: &str) -> std::path::PathBuf {
    folder.join(format!("pods/{uid}/containers/{CONTAINER}/00000001"))
}

fn mount_target(folder: &Path) -> std::path::PathBuf {
    folder.join("last-words")
}
