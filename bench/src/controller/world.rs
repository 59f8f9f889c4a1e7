//! Pods that nobody runs, on a real API server: made directly, with the status that a kubelet would write; and a watch of
//! them that notes when each change was told.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use soloist::controller::pod::Pod;
use soloist::controller::pods::{Eye, Pods, Shown};
use soloist::controller::watch::{self, News};
use soloist::lock::kubernetes::Access;
use soloist::route::api::{Api, Mode, Resource, Stored};
use testkit::stamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::steps::LIMIT;

/// By this label a controller knows its pods.
pub const SELECTOR: &str = "app=bench";
/// So many calls are under way at once while a world is made.
pub const HANDS: usize = 16;

/// All pods with the label, as they were told last.
pub struct World {
    /// Who writes.
    pub api: Arc<Api>,
    news: mpsc::Receiver<News<Shown>>,
    watch: JoinHandle<()>,
    pods: BTreeMap<String, Pod>,
    /// How many pods each namespace has that are labelled as active.
    active: BTreeMap<String, usize>,
    /// Namespaces in which two were, at any time.
    pub violations: Vec<String>,
}

/// What has changed: a pod as it is now, and when that was told, in nanoseconds of CLOCK_BOOTTIME.
pub struct Told {
    /// The pod.
    pub pod: Pod,
    /// When.
    pub at: u64,
}

impl World {
    /// Begins to watch.
    pub async fn open() -> Result<Self> {
        let scope = Pods { namespace: None, selector: SELECTOR.to_owned(), eye: Eye::default() };
        let (to, news) = mpsc::channel(65_536);
        let watch = tokio::spawn(watch::run(Access::default(), scope, to));
        let api = Arc::new(Api::keeping(HANDS, Access::default()));
        let (pods, active) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { api, news, watch, pods, active, violations: Vec::new() };
        match timeout(LIMIT, world.news.recv()).await.context("no list of pods")? {
            Some(News::All(..)) => Ok(world),
            other => bail!("{other:?} in the place of a list"),
        }
    }

    /// The next change of a pod that is there.
    pub async fn next(&mut self) -> Result<Told> {
        loop {
            let news = timeout(LIMIT, self.news.recv()).await.context("nothing was told")?.context("no watch")?;
            let at = stamp::now();
            match news {
                News::Now(shown) => {
                    let pod = shown.pod;
                    self.note(Some(pod.clone()), &pod);
                    return Ok(Told { pod, at });
                }
                News::Gone(shown) => self.note(None, &shown.pod),
                News::All(..) => bail!("the watch began anew: what was told before may be missing"),
            }
        }
    }

    /// Waits for a change that fits.
    pub async fn wait(&mut self, is_it: impl Fn(&Pod) -> bool) -> Result<Told> {
        loop {
            let told = self.next().await?;
            if is_it(&told.pod) {
                return Ok(told);
            }
        }
    }

    fn note(&mut self, now: Option<Pod>, pod: &Pod) {
        let before = self.pods.get(&pod.uid).is_some_and(is_active);
        let after = now.as_ref().is_some_and(is_active);
        let count = self.active.entry(pod.namespace.clone()).or_default();
        *count = (*count + usize::from(after)).saturating_sub(usize::from(before));
        if *count > 1 {
            self.violations.push(format!("{} pods of {} are labelled as active", *count, pod.namespace));
        }
        match now {
            Some(now) => self.pods.insert(now.uid.clone(), now),
            None => self.pods.remove(&pod.uid),
        };
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Whether a pod is labelled as the active one.
pub fn is_active(pod: &Pod) -> bool {
    pod.label("role") == Some("active")
}

fn resource(group: &'static str, kind: &'static str, plural: &'static str, namespace: &str) -> Resource {
    Resource { group, version: "v1", kind, plural, verbs: "all", namespace: namespace.to_owned() }
}

/// Pods of a namespace.
pub fn pods(namespace: &str) -> Resource {
    resource("", "Pod", "pods", namespace)
}

/// A pod that nobody runs.
pub struct Made<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: Value,
    /// The node that it is said to be on.
    pub node: &'a str,
    /// Its address.
    pub ip: &'a str,
    /// It is ready since this second of a day long ago.
    pub since: usize,
    /// Whether its container is marked as critical.
    pub is_critical: bool,
}

/// A pod of the controller that [`SELECTOR`] is given to.
pub async fn make_pod(api: &Api, namespace: &str, name: &str, since: usize) -> Result<()> {
    let labels = json!({"app": "bench", "role": "standby"});
    make(api, namespace, &Made { name, labels, node: "none", ip: "127.0.0.1", since, is_critical: false }).await
}

/// Makes a pod and says that it is ready.
pub async fn make(api: &Api, namespace: &str, made: &Made<'_>) -> Result<()> {
    let Made { name, labels, node, ip, since, is_critical } = made;
    let environment = if *is_critical { json!([{"name": "pwcriticality", "value": "critical"}]) } else { json!([]) };
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none", "env": environment}]},
    });
    ensure!(matches!(api.post(&pods(namespace), name, &object).await?, Stored::As(_)), "{name} exists");
    let since = format!("2026-01-01T{:02}:{:02}:{:02}Z", since / 3600 % 24, since / 60 % 60, since % 60);
    let status = json!({"status": {
        "phase": "Running", "startTime": since, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container_status(&json!({"running": {"startedAt": since}}))],
    }});
    api.patch(&pods(namespace), &format!("{name}/status"), &status).await.map(drop).context("no status")
}

/// What a kubelet says of the one container.
pub fn container_status(state: &Value) -> Value {
    let is_ready = state["running"].is_object();
    json!({"name": "main", "image": "none", "imageID": "none", "ready": is_ready, "restartCount": 0, "state": state})
}

/// Deletes a pod, at once or as everybody does.
pub async fn delete_pod(api: &Api, namespace: &str, name: &str, at_once: bool) -> Result<()> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if at_once {
        options["gracePeriodSeconds"] = 0.into();
    }
    api.delete(&pods(namespace), name, &options).await.map(drop).context("failed to delete a pod")
}

/// Writes a pod twice, one after the other: what two labels cost that nobody has to decide on.
pub async fn two_writes(api: &Api, namespace: &str, name: &str) -> Result<u64> {
    let of = pods(namespace);
    let mut object = api.get(&of, name).await?.context("no pod to write")?;
    let began = stamp::now();
    for count in 0..2 {
        object["metadata"]["annotations"]["bench"] = format!("{began}-{count}").into();
        object = stored(api.put(&of, name, &object, Mode::Real).await?)?;
    }
    Ok(stamp::now() - began)
}

fn stored(outcome: Stored) -> Result<Value> {
    match outcome {
        Stored::As(object) => Ok(object),
        Stored::Conflict => bail!("somebody else wrote as well"),
    }
}

/// A namespace in which pods can be made.
pub async fn make_namespace(api: &Api, name: &str) -> Result<()> {
    let of = Resource { kind: "Namespace", ..resource("", "Namespace", "namespaces", "") };
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    api.post(&of, name, &object).await.context("failed to make a namespace")?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let of = resource("", "ServiceAccount", "serviceaccounts", name);
    api.post(&of, "default", &account).await.map(drop).context("failed to make a ServiceAccount")
}
