//! The manifests in examples/controller run as they stand, with real pods on two nodes: delete, crash, rolling updates of
//! the application and of the controllers, an operator's wish. Whatever happens, never are two pods labelled as active, and
//! never has the Service two ready endpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::pods::labelled::{Labelled, Pair};
use testkit::pods::{LIMIT, NAMESPACE, Pods, PowerLoss};
use testkit::process;
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, within};

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
    seen: Labelled<'a>,
}

impl<'a> Site<'a> {
    fn install(pods: &'a Pods) -> Result<Self> {
        let seen = Labelled::watch(pods, NAMESPACE, "hapod")?;
        pods.apply(&example("controller.yml"), |_| {})?;
        pods.apply(&example("application.yml"), |_| {})?;
        Ok(Self { pods, seen })
    }

    /// Waits until one of two ready pods is active and the Service sends its traffic there.
    fn settled(&self) -> Result<Pair> {
        wait_for("an active pod and a standby", LIMIT, || self.seen.look().ok().flatten())
            .with_context(|| format!("{}{}", self.logs(), self.pods.logs()))
    }

    fn logs(&self) -> String {
        self.pods.kubectl(&["logs", "-l", "app=soloist-controller", "--prefix", "--tail=40"]).unwrap_or_default()
    }

    /// Does something after which the standby is to be the active one.
    fn failover(&self, what: &str, limit: Duration, act: impl FnOnce(&Pair) -> Result<()>) -> Result<()> {
        let before = self.settled()?;
        let call = stamp::now();
        act(&before).with_context(|| what.to_owned())?;
        let moved = wait_for(what, LIMIT, || self.seen.active.first(Some(&before.standby.name), call));
        let took = Duration::from_nanos(moved.with_context(|| self.logs())? - call);
        eprintln!("{what}: label moved after {took:?}");
        within(what, took, limit).with_context(|| self.logs())?;
        ensure!(self.settled()?.active == before.standby, "{what}: another one became active{}", self.logs());
        self.seen.never_two().with_context(|| what.to_owned())
    }
}

#[test]
fn the_examples_survive_delete_crash_updates_and_an_operators_wish() -> Result<()> {
    let pods = Pods::new()?;
    let site = Site::install(&pods)?;
    site.settled()?;
    site.failover("plain delete", PROMPT, |pair| {
        pods.kubectl(&["delete", "pod", &pair.active.name, "--wait=false"]).map(drop)
    })?;
    site.failover("critical container killed", PROMPT + Duration::from_secs(1), |pair| {
        process::signal(pods.first_process(&pair.active.name)?.pid, Signal::KILL)
    })?;
    site.failover("an operator's wish", PROMPT, |pair| {
        pods.kubectl(&["annotate", "pod", &pair.standby.name, "soloist.dev/become-active=true"]).map(drop)
    })?;

    for deployment in ["deployment/soloist-controller", "deployment/hapod"] {
        pods.kubectl(&["rollout", "restart", deployment])?;
        pods.kubectl(&["rollout", "status", deployment, "--timeout=90s"])?;
        site.settled()?;
        site.seen.never_two().with_context(|| deployment.to_owned())?;
    }
    // Whoever leads now is another one than before.
    site.failover("forced delete", PROMPT, |pair| {
        pods.kubectl(&["delete", "pod", &pair.active.name, "--force", "--wait=false"]).map(drop)
    })?;
    let pair = site.settled()?;
    let holder = pods.kubectl(&["get", "lease", "hapod", "-o", "jsonpath={.spec.holderIdentity}"])?;
    ensure!(holder == pair.active.name, "the record names {holder}, and {pair:?}");
    let events = pods.kubectl(&["events", "--for", "lease/hapod"])?;
    ensure!(events.contains(&format!("{} is active", pair.active.name)), "{events}");
    Ok(())
}

#[test]
fn a_node_without_power_is_no_proof_and_its_pod_is_replaced_when_it_is_deleted() -> Result<()> {
    let pods = Pods::new()?;
    let site = Site::install(&pods)?;
    let before = site.settled()?;
    let node = pods.node_of(&before.active.name)?;
    ensure!(node != pods.node_of(&before.standby.name)?, "both pods are on {node}");
    let loss = PowerLoss::new(&node)?;
    let stays = || site.seen.active.now() == [before.active.name.clone()];
    holds_for(&format!("{} stays active", before.active.name), SILENT, stays).with_context(|| site.logs())?;
    let call = stamp::now();
    pods.kubectl(&["delete", "pod", &before.active.name, "--force", "--wait=false"])?;
    let moved =
        wait_for("the standby to be active", LIMIT, || site.seen.active.first(Some(&before.standby.name), call));
    let took = Duration::from_nanos(moved.with_context(|| site.logs())? - call);
    eprintln!("a pod on a node without power is deleted: label moved after {took:?}");
    within("the standby to be active", took, PROMPT_AFTER_A_LEASE).with_context(|| site.logs())?;
    loss.end()?;
    pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("node/{node}")])?;
    ensure!(site.settled()?.active == before.standby, "another one became active{}", site.logs());
    site.seen.never_two()
}
