//! The manifests in examples/kubernetes run as they stand, as real pods on two nodes: delete, rolling update, eviction
//! and the loss of a node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::history::Span;
use testkit::pods::{CutOff, LEASE, LIMIT, Pods, shorten_lease};
use testkit::wait::{wait_for, wait_until, within};

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes").join(file)
}

/// Everything of the example, with a short lease and on any node.
fn install(pods: &Pods) -> Result<Span> {
    for file in ["role.yml", "lease.yml", "service.yml", "deployment.yml"] {
        pods.apply(&example(file), shorten_lease)?;
    }
    let active = pods.wait_active_after(0, LIMIT)?;
    pods.kubectl(&["rollout", "status", "deployment/my-app", "--timeout=60s"])?;
    Ok(active)
}

/// The longest gap from `old` to `new`: a rolling update may pass through a pod that is replaced in its turn.
fn gap(pods: &Pods, old: &Span, new: &Span) -> Result<Duration> {
    let mut between = pods.history().spans;
    between.retain(|span| (old.token..=new.token).contains(&span.token));
    between.sort_by_key(|span| span.token);
    let gaps = between.windows(2).map(|pair| pair[1].first.saturating_sub(pair[0].last));
    gaps.max().map(Duration::from_nanos).context("an activation is lost")
}

/// Who is active after `old`, and that it came without waiting for a lease.
fn prompt_successor(pods: &Pods, old: &Span, after: &str) -> Result<Span> {
    let new = pods.wait_active_after(old.token, LIMIT)?;
    let gap = gap(pods, old, &new)?;
    eprintln!("{after}: gap {gap:?}");
    within(after, gap, PROMPT).with_context(|| pods.logs())?;
    Ok(new)
}

/// The first member does not wait: nobody has used the Lease.
fn began_at_once(pods: &Pods, active: &Span) -> Result<()> {
    let log = pods.kubectl(&["logs", &active.member])?;
    ensure!(log.contains("active with token") && !log.contains("waiting"), "{log}");
    Ok(())
}

fn ready_pods(pods: &Pods) -> Result<Vec<String>> {
    let text = pods.kubectl(&["get", "pods", "-l", "app=my-app", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let is_up = pod["metadata"]["deletionTimestamp"].is_null();
        is_up && conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(list["items"].as_array().into_iter().flatten().filter(is_ready).map(name).collect())
}

fn wait_for_a_standby(pods: &Pods) -> Result<()> {
    wait_until("two ready pods", LIMIT, || ready_pods(pods).is_ok_and(|ready| ready.len() == 2))
        .with_context(|| pods.logs())
}

#[test]
fn the_examples_survive_delete_update_eviction_and_the_loss_of_a_node() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods)?;
    began_at_once(&pods, &first)?;
    wait_for_a_standby(&pods)?;

    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = prompt_successor(&pods, &first, "delete")?;
    wait_for_a_standby(&pods)?;

    pods.kubectl(&["rollout", "restart", "deployment/my-app"])?;
    // None is left on the way out: a pod that is replaced in its turn may have been active meanwhile.
    pods.wait_rolled_out("my-app", 2)?;
    let third = prompt_successor(&pods, &second, "rolling update")?;
    wait_for_a_standby(&pods)?;

    pods.evict(&third.member)?;
    let fourth = prompt_successor(&pods, &third, "eviction")?;
    pods.wait_rolled_out("my-app", 2)?;

    lose_node_of(&pods, &fourth)?;
    pods.check(5)
}

/// A node without network: its member ends its workload in time, and the other one starts after a lease.
fn lose_node_of(pods: &Pods, active: &Span) -> Result<()> {
    let node = pods.node_of(&active.member)?;
    let elsewhere = wait_for("a standby on the other node", LIMIT, || {
        let ready = ready_pods(pods).ok()?;
        ready.into_iter().find(|pod| pods.node_of(pod).is_ok_and(|its| its != node))
    });
    elsewhere.with_context(|| pods.logs())?;
    let cut = CutOff::new(&node)?;
    let at = testkit::stamp::now();
    let next = pods.wait_active_after(active.token, LIMIT)?;
    let after = Duration::from_nanos(next.first.saturating_sub(at));
    eprintln!("loss of a node: the next one is active after {after:?}");
    // The lease counts from the last renewal that was seen, which was before the cut.
    within("the next one to be active", after, LEASE + Duration::from_millis(500)).with_context(|| pods.logs())?;
    drop(cut);
    Ok(())
}
