//! The manifests in examples/controller run as they stand, with real pods on two nodes: delete, crash, rolling updates of
//! the application and of the controllers, an operator's wish. Whatever happens, never are two pods labelled as active, and
//! never has the Service two ready endpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::pods::{LIMIT, NAMESPACE, Pods, PowerLoss};
use testkit::process;
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::{holds_for, wait_for};

/// A failover takes milliseconds. This only tells it from one that waited for the end of a pod, on a busy machine.
const PROMPT: Duration = Duration::from_millis(2_500);

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/controller").join(file)
}

/// A node that has just lost its power is no evidence for so long, at least: nobody has said anything of its pods.
const SILENT: Duration = Duration::from_secs(3);
/// Where the leading controller went with the node, its lease has to run out first.
const PROMPT_AFTER_A_LEASE: Duration = Duration::from_secs(20);

/// The examples, installed, and all that was to be seen of them.
struct Site<'a> {
    pods: &'a Pods,
    labelled: View,
    ready: View,
}

/// The pods of the application, when nothing is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    active: String,
    standby: String,
}

impl<'a> Site<'a> {
    fn install(pods: &'a Pods) -> Result<Self> {
        let kubectl = pods.client();
        let labelled = View::of_pods(kubectl, NAMESPACE, &[("app", "hapod"), ("role", "active")])?;
        let ready = View::of_slices(kubectl, NAMESPACE, "hapod")?;
        pods.apply(&example("controller.yml"), |_| {})?;
        pods.apply(&example("application.yml"), |_| {})?;
        Ok(Self { pods, labelled, ready })
    }

    /// Waits until one of two ready pods is active and the Service sends its traffic there.
    fn settled(&self) -> Result<Pair> {
        wait_for("an active pod and a standby", LIMIT, || self.look().ok().flatten())
            .with_context(|| format!("{}{}", self.logs(), self.pods.logs()))
    }

    fn look(&self) -> Result<Option<Pair>> {
        let list: Value =
            serde_json::from_str(&self.pods.kubectl(&["get", "pods", "-l", "app=hapod", "-o", "json"])?)?;
        let pods: Vec<&Value> = list["items"].as_array().into_iter().flatten().filter(|pod| stays(pod)).collect();
        let of = |role: &str| {
            let pod = pods.iter().find(|pod| pod["metadata"]["labels"]["role"] == role && is_ready(pod))?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Some((text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"])))
        };
        let (Some((active, ip)), Some((standby, _))) = (of("active"), of("standby")) else { return Ok(None) };
        Ok((pods.len() == 2 && self.ready.now() == [ip]).then_some(Pair { active, standby }))
    }

    fn logs(&self) -> String {
        self.pods.kubectl(&["logs", "-l", "app=soloist-controller", "--prefix", "--tail=40"]).unwrap_or_default()
    }

    /// Does something after which the standby is to be the active one.
    fn failover(&self, what: &str, limit: Duration, act: impl FnOnce(&Pair) -> Result<()>) -> Result<()> {
        let before = self.settled()?;
        let call = stamp::now();
        act(&before).with_context(|| what.to_owned())?;
        let moved = wait_for(what, LIMIT, || self.labelled.first(Some(&before.standby), call));
        let took = Duration::from_nanos(moved.with_context(|| self.logs())? - call);
        eprintln!("{what}: label moved after {took:?}");
        ensure!(took < limit, "{what}: {took:?}{}", self.logs());
        ensure!(self.settled()?.active == before.standby, "{what}: another one became active{}", self.logs());
        self.never_two().with_context(|| what.to_owned())
    }

    fn never_two(&self) -> Result<()> {
        self.labelled.never_two()?;
        self.ready.never_two()
    }
}

fn stays(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

#[test]
fn the_examples_survive_delete_crash_updates_and_an_operators_wish() -> Result<()> {
    let pods = Pods::new()?;
    let site = Site::install(&pods)?;
    site.settled()?;
    site.failover("plain delete", PROMPT, |pair| {
        pods.kubectl(&["delete", "pod", &pair.active, "--wait=false"]).map(drop)
    })?;
    site.failover("critical container killed", PROMPT + Duration::from_secs(1), |pair| {
        process::signal(pods.first_process(&pair.active)?.pid, Signal::KILL)
    })?;
    site.failover("an operator's wish", PROMPT, |pair| {
        pods.kubectl(&["annotate", "pod", &pair.standby, "soloist.dev/become-active=true"]).map(drop)
    })?;

    for deployment in ["deployment/soloist-controller", "deployment/hapod"] {
        pods.kubectl(&["rollout", "restart", deployment])?;
        pods.kubectl(&["rollout", "status", deployment, "--timeout=90s"])?;
        site.settled()?;
        site.never_two().with_context(|| deployment.to_owned())?;
    }
    // Whoever leads now is another one than before.
    site.failover("forced delete", PROMPT, |pair| {
        pods.kubectl(&["delete", "pod", &pair.active, "--force", "--wait=false"]).map(drop)
    })?;
    let pair = site.settled()?;
    let holder = pods.kubectl(&["get", "lease", "hapod", "-o", "jsonpath={.spec.holderIdentity}"])?;
    ensure!(holder == pair.active, "the record names {holder}, and {pair:?}");
    let events = pods.kubectl(&["events", "--for", "lease/hapod"])?;
    ensure!(events.contains(&format!("{} is active", pair.active)), "{events}");
    Ok(())
}

#[test]
fn a_node_without_power_is_no_proof_and_its_pod_is_replaced_when_it_is_deleted() -> Result<()> {
    let pods = Pods::new()?;
    let site = Site::install(&pods)?;
    let before = site.settled()?;
    let node = pods.node_of(&before.active)?;
    ensure!(node != pods.node_of(&before.standby)?, "both pods are on {node}");
    let loss = PowerLoss::new(&node)?;
    let stays = || site.labelled.now() == [before.active.clone()];
    holds_for(&format!("{} stays active", before.active), SILENT, stays).with_context(|| site.logs())?;
    let call = stamp::now();
    pods.kubectl(&["delete", "pod", &before.active, "--force", "--wait=false"])?;
    let moved = wait_for("the standby to be active", LIMIT, || site.labelled.first(Some(&before.standby), call));
    let took = Duration::from_nanos(moved.with_context(|| site.logs())? - call);
    eprintln!("a pod on a node without power is deleted: label moved after {took:?}");
    ensure!(took < PROMPT_AFTER_A_LEASE, "{took:?}{}", site.logs());
    loss.end()?;
    pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("node/{node}")])?;
    ensure!(site.settled()?.active == before.standby, "another one became active{}", site.logs());
    site.never_two()
}
