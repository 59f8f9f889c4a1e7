//! The traffic of examples/kubernetes/traffic.yml, with real pods on two nodes: who answers at the addresses of its
//! Services, through kube-proxy, while the active one is deleted, crashes, is rolled out, evicted and lost.

use std::path::Path;

use anyhow::Result;
use rustix::process::Signal;
use testkit::history::Span;
use testkit::pods::{CutOff, LIMIT, NAMESPACE, Pods, Traffic, shorten_lease};
use testkit::process;
use testkit::traffic::View;

const APP: &str = "my-routed";

/// Both Services of the example.
const SERVICES: [&str; 2] = [APP, "my-routed-labelled"];

/// Everything of the example with a short lease.
fn install(pods: &Pods) -> Result<Span> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes/traffic.yml");
    pods.apply(&example, shorten_lease)?;
    let active = pods.wait_active_after(0, LIMIT)?;
    pods.wait_rolled_out(APP, 2)?;
    Ok(active)
}

fn watch(pods: &Pods, node: &str) -> Result<Traffic> {
    let labels = View::of_pods(pods.client(), NAMESPACE, &[("role", "active")])?;
    Ok(Traffic::watch(pods, node, &SERVICES)?.and(labels))
}

/// The latest activation, with its member settled in.
fn next(pods: &Pods, traffic: &Traffic, old: &Span, what: &str) -> Result<Span> {
    pods.wait_active_after(old.token, LIMIT)?;
    pods.wait_rolled_out(APP, 2)?;
    // One that was active in between may be gone with its pod.
    let new = pods.wait_active_after(old.token, LIMIT)?;
    traffic.wait(&new)?;
    traffic.check(pods, what)?;
    Ok(new)
}

#[test]
fn only_the_active_pod_answers_at_the_address_of_the_service() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods)?;
    let traffic = watch(&pods, "node1")?;
    traffic.wait(&first)?;

    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = next(&pods, &traffic, &first, "delete")?;

    pods.kubectl(&["rollout", "restart", "deployment/my-routed"])?;
    let third = next(&pods, &traffic, &second, "rolling update")?;

    pods.evict(&third.member)?;
    let fourth = next(&pods, &traffic, &third, "eviction")?;

    pods.crash_command(&fourth)?;
    let fifth = next(&pods, &traffic, &fourth, "crash")?;

    let first_process = pods.first_process(&fifth.member)?;
    process::signal(first_process.pid, Signal::KILL)?;
    next(&pods, &traffic, &fifth, "container killed")?;
    pods.check(6)
}

#[test]
fn a_lost_node_takes_its_traffic_along_and_the_others_follow() -> Result<()> {
    let pods = Pods::new()?;
    let active = install(&pods)?;
    let lost = pods.node_of(&active.member)?;
    let other = pods.wait_elsewhere(&active.member)?;
    let traffic = watch(&pods, &other)?;
    traffic.wait(&active)?;
    let cut = CutOff::new(&lost)?;
    let new = pods.wait_active_after(active.token, LIMIT)?;
    traffic.wait(&new)?;
    drop(cut);
    traffic.check(&pods, "loss of a node")?;
    pods.check(2)
}
