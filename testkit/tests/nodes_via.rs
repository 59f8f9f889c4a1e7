//! examples/sidecar/bound.yml as real pods: the election in one container, the application wrapped in another. As a
//! native sidecar and as an ordinary container, whatever of the two ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::documents::root;
use testkit::history::Span;
use testkit::pods::{Failover, LEASE, LIMIT, Pods};
use testkit::process;
use testkit::wait::{wait_until, within};

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// What a container's word and a busy machine add to a lease.
const BEYOND: Duration = Duration::from_millis(1_500);

fn install(pods: &Pods, change: impl Fn(&mut Value)) -> Result<Span> {
    for file in ["kubernetes/role.yml", "kubernetes/lease.yml", "sidecar/bound.yml"] {
        pods.apply(&root().join("examples").join(file), |object| {
            shorten_lease(object);
            change(object);
        })?;
    }
    let active = pods.wait_active_after(0, LIMIT)?;
    wait_for_a_standby(pods)?;
    Ok(active)
}

fn shorten_lease(object: &mut Value) {
    let arguments = object.pointer_mut("/spec/template/spec/initContainers/0/args");
    for argument in arguments.and_then(Value::as_array_mut).into_iter().flatten() {
        if *argument == "--lease=15s" {
            *argument = format!("--lease={}s", LEASE.as_secs()).into();
        }
    }
}

/// Puts the sidecar among the containers that are started and stopped together.
fn as_an_ordinary_container(object: &mut Value) {
    let Some(pod) = object.pointer_mut("/spec/template/spec") else { return };
    let Some(mut sidecar) = pod["initContainers"].as_array_mut().and_then(Vec::pop) else { return };
    if let Some(sidecar) = sidecar.as_object_mut() {
        sidecar.remove("restartPolicy");
    }
    if let Some(containers) = pod["containers"].as_array_mut() {
        containers.push(sidecar);
    }
}

fn wait_for_a_standby(pods: &Pods) -> Result<()> {
    pods.kubectl(&["rollout", "status", "deployment/my-app", "--timeout=90s"]).map(drop).with_context(|| pods.logs())
}

fn gap(pods: &Pods, old: &Span, new: &Span) -> Result<Duration> {
    let last = |token| pods.history().spans.into_iter().find(|span| span.token == token).context("lost");
    Ok(Duration::from_nanos(last(new.token)?.first.saturating_sub(last(old.token)?.last)))
}

/// Who is active after `old`, within `limit` of nobody being it.
fn successor(pods: &Pods, old: &Span, after: &str, limit: Duration) -> Result<Span> {
    let new = pods.wait_active_after(old.token, LIMIT)?;
    let gap = gap(pods, old, &new)?;
    eprintln!("{after}: gap {gap:?}");
    within(after, gap, limit).with_context(|| pods.logs())?;
    Ok(new)
}

/// How often an application has come to the sidecar of this pod.
fn applications(pods: &Pods, pod: &str) -> usize {
    let log = pods.kubectl(&["logs", pod, "-c", "soloist"]).unwrap_or_default();
    log.matches("an application is connected").count()
}

/// Who is active after `old`, whose application ends by `end`, once that one is there again.
fn application_ends(pods: &Pods, old: &Span, after: &str, end: impl FnOnce() -> Result<()>) -> Result<Span> {
    let before = applications(pods, &old.member);
    end()?;
    let new = successor(pods, old, after, PROMPT)?;
    wait_until("the next application", LIMIT, || applications(pods, &old.member) > before)
        .with_context(|| pods.logs())?;
    wait_for_a_standby(pods)?;
    Ok(new)
}

/// Kills the first process of the container of this pod that runs `soloist VERB`.
fn kill(pods: &Pods, pod: &str, verb: &str) -> Result<()> {
    process::signal(pods.first_process_called(pod, verb)?.pid, Signal::KILL)
}

fn each_end_in_turn(pods: &Pods, first: &Span) -> Result<()> {
    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = successor(pods, first, "pod deleted", PROMPT)?;
    // Where nobody else is fit, it would be the next one for as long as it is there.
    pods.kubectl(&["wait", "--for=delete", &format!("pod/{}", first.member), "--timeout=90s"])?;
    wait_for_a_standby(pods)?;

    let third =
        application_ends(pods, &second, "application's container killed", || kill(pods, &second.member, "run"))?;
    let fourth = application_ends(pods, &third, "command crashed", || pods.crash_command(&third))?;

    kill(pods, &fourth.member, "sidecar")?;
    let fifth = successor(pods, &fourth, "sidecar killed", LEASE + BEYOND)?;
    wait_for_a_standby(pods)?;

    // The restarted sidecar has its application again.
    wait_until("both members to be fit", LIMIT, || applications(pods, &fourth.member) > 0)
        .with_context(|| pods.logs())?;
    pods.kubectl(&["rollout", "restart", "deployment/my-app"])?;
    wait_for_a_standby(pods)?;
    successor(pods, &fifth, "rolling update", PROMPT * 3)?;
    // Whoever came last has to be seen more than once. An overlap stays one.
    wait_until("the last one to go on", LIMIT, || pods.check(6).is_ok()).or_else(|_| pods.check(6))
}

#[test]
fn a_native_sidecar_and_its_application_survive_each_others_end() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods, |_| {})?;
    each_end_in_turn(&pods, &first)
}

#[test]
fn an_ordinary_container_beside_the_application_does_as_well() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods, as_an_ordinary_container)?;
    each_end_in_turn(&pods, &first)
}

#[test]
fn a_node_without_power_costs_a_lease_and_both_containers_stand_by_when_it_is_back() -> Result<()> {
    let pods = Pods::new()?;
    let active = install(&pods, |_| {})?;
    pods.wait_elsewhere(&active.member)?;
    let Failover { node, loss, next } = Failover::of(&pods, "my-app", LEASE, &active)?;
    loss.end()?;
    pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("node/{node}")])?;
    // Both of its containers have run before: the sidecar is a standby with its application connected.
    wait_until("the pod of that node to stand by", LIMIT, || {
        let log = pods.kubectl(&["logs", &active.member, "-c", "soloist"]).unwrap_or_default();
        log.contains("an application is connected") && !log.contains("role=active")
    })
    .with_context(|| pods.logs())?;
    wait_for_a_standby(&pods)?;
    let last = pods.history().spans.into_iter().max_by_key(|span| span.token).context("nobody was active")?;
    ensure!(last.token == next.token, "{} leads on{}", next.member, pods.logs());
    pods.check(2)
}
