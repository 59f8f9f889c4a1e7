//! The container of the active one is killed on a real node. The others do not wait for its lease where the kubelet
//! says that it has ended, and its own next run does not either.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::history::Span;
use testkit::pods::{LIMIT, Pair, Pods};
use testkit::process;
use testkit::wait::{wait_until, within};

/// Much longer than anything here takes: who waits for it is found out.
const LEASE: Duration = Duration::from_secs(30);

/// From the word to the next workload: a write, a start, and two busy processors.
const PROMPT: Duration = Duration::from_millis(1_500);

/// A group whose members believe the kubelet.
fn believers(name: &str) -> Pair<'_> {
    let rules = vec![
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]}),
        json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}),
    ];
    Pair { rules, arguments: &["--evidence=pod"], ..Pair::new(name, LEASE) }
}

/// What the record says of the holder's container.
fn recorded(pods: &Pods, name: &str) -> Result<Value> {
    let lease: Value = serde_json::from_str(&pods.kubectl(&["get", "lease", name, "-o", "json"])?)?;
    let text = lease["metadata"]["annotations"]["soloist.dev/record"].as_str().context("no record")?;
    let record: Value = serde_json::from_str(text)?;
    Ok(record["backend"]["container"].clone())
}

/// Waits until the kubelet's word on this activation would be believed.
fn wait_named(pods: &Pods, name: &str, active: &Span) -> Result<()> {
    let names_the_run = || {
        recorded(pods, name).is_ok_and(|container| container["pod"] == *active.member && container["id"].is_string())
    };
    wait_until("the record names the run", LIMIT, names_the_run).with_context(|| pods.logs())
}

/// The container that was the active one runs again.
fn wait_back(pods: &Pods, old: &Span) -> Result<()> {
    pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{}", old.member)]).map(drop)
}

/// Kills the first process of the container that is active, and with it the container.
fn kill(pods: &Pods, active: &Span) -> Result<()> {
    process::signal(pods.first_process(&active.member)?.pid, Signal::KILL)
}

fn span(pods: &Pods, token: u64) -> Result<Span> {
    pods.history().spans.into_iter().find(|span| span.token == token).context("an activation is lost")
}

fn between(earlier: u64, later: u64) -> Duration {
    Duration::from_nanos(later.saturating_sub(earlier))
}

#[test]
fn the_kubelets_word_ends_the_wait_for_a_killed_container() -> Result<()> {
    let pods = Pods::new()?;
    let mut active = believers("word").start(&pods)?;
    for _ in 0..2 {
        wait_named(&pods, "word", &active)?;
        let end = pods.hear_end_of(&active.member)?;
        kill(&pods, &active)?;
        let next = pods.wait_active_after(active.token, LIMIT)?;
        let ((told, _), last) = (end.told()?, span(&pods, active.token)?.last);
        eprintln!(
            "the kubelet's word {:?} after the last instant; the next one is active {:?} after the word, {:?} in all",
            between(last, told),
            between(told, next.first),
            between(last, next.first)
        );
        ensure!(next.member != active.member, "the container that was killed came first{}", pods.logs());
        within("the next one to be active", between(told, next.first), PROMPT).with_context(|| pods.logs())?;
        pods.wait_said(&next.member, "proven gone (terminated)")?;
        // The standby of the next round is the container that was killed in this one.
        wait_back(&pods, &active)?;
        active = next;
    }
    events_tell(&pods, "word", &active)?;
    pods.check(3)
}

/// Events on the Lease and on the pod say who is active and why.
fn events_tell(pods: &Pods, name: &str, active: &Span) -> Result<()> {
    let messages = |object: &str| {
        let selector = format!("--field-selector=involvedObject.name={object},reason=Active");
        pods.kubectl(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"]).unwrap_or_default()
    };
    let are_there =
        || [name, &active.member].iter().all(|object| messages(object).contains("proven gone (terminated)"));
    wait_until("Events", LIMIT, are_there).with_context(|| messages(name))
}

#[test]
fn the_next_run_of_a_killed_container_does_not_wait() -> Result<()> {
    let pods = Pods::new()?;
    let active = Pair::new("again", LEASE).start(&pods)?;
    kill(&pods, &active)?;
    let next = pods.wait_active_after(active.token, LIMIT)?;
    let first = pods.first_process(&next.member)?.started_ns()?;
    let last = span(&pods, active.token)?.last;
    eprintln!(
        "the next run began {:?} after the last instant; it is active {:?} later, {:?} in all",
        between(last, first),
        between(first, next.first),
        between(last, next.first)
    );
    ensure!(next.member == active.member, "another container came first{}", pods.logs());
    within("the next one to be active", between(first, next.first), PROMPT).with_context(|| pods.logs())?;
    // Until the kubelet has told of the next run, this is the log of the one before.
    let log = || pods.kubectl(&["logs", &next.member]).unwrap_or_default();
    wait_until("the next run's log", LIMIT, || log().contains("proven gone (restarted)"))
        .with_context(|| pods.logs())?;
    wait_until("the missing rule", LIMIT, || log().contains("no Events are written")).with_context(|| pods.logs())?;
    let log = pods.kubectl(&["logs", &next.member])?;
    ensure!(log.matches("no Events are written").count() == 1, "a Role without events costs one line: {log}");
    pods.check(2)
}

/// More than a member and its workload need, and little enough to be used up soon.
const MEMORY: &str = "128Mi";
/// More than that.
const LEAK_MIB: u32 = 512;
/// Until the memory is used up, the kernel has killed, and the kubelet has told of it; a third of the lease.
const OUT_OF_MEMORY: Duration = Duration::from_secs(10);

/// The workload takes all memory there is. With `whole` the kernel takes the container's first process for that, and
/// the container ends with it; else it chooses itself: the workload, or on cgroup v2 all of the container.
fn runs_out_of_memory(pods: &Pods, name: &str, active: &Span, whole: bool) -> Result<Span> {
    wait_named(pods, name, active)?;
    if whole {
        offer_first_process(pods, active)?;
    }
    let end = pods.hear_end_of(&active.member)?;
    pods.leak(active, LEAK_MIB)?;
    let next = pods.wait_active_after(active.token, LIMIT)?;
    let (told, reason) = end.told()?;
    let last = span(pods, active.token)?.last;
    eprintln!(
        "out of memory, {}: {reason}, {:?} after the last instant; the next one is active {:?} after it",
        if whole { "the first process" } else { "the kernel's choice" },
        between(last, told),
        between(last, next.first),
    );
    ensure!(reason == "OOMKilled", "the kubelet says {reason}");
    ensure!(next.member != active.member, "the container that was killed came first{}", pods.logs());
    within("the next one to be active", between(last, next.first), OUT_OF_MEMORY).with_context(|| pods.logs())?;
    Ok(next)
}

/// Whatever the others use, the kernel takes the container's first process.
fn offer_first_process(pods: &Pods, active: &Span) -> Result<()> {
    let first = pods.first_process(&active.member)?.pid;
    for process in process::tree(first) {
        let score = if process.pid == first { "1000" } else { "0" };
        let path = format!("/proc/{}/oom_score_adj", process.pid);
        std::fs::write(&path, score).with_context(|| format!("failed to write {score} to {path}"))?;
    }
    Ok(())
}

#[test]
fn a_container_that_runs_out_of_memory_is_followed_without_waiting_for_its_lease() -> Result<()> {
    let pods = Pods::new()?;
    let first = Pair { memory: MEMORY, ..believers("memory") }.start(&pods)?;
    let second = runs_out_of_memory(&pods, "memory", &first, false)?;
    // The standby of the next round is the container that ended in this one.
    wait_back(&pods, &first)?;
    let third = runs_out_of_memory(&pods, "memory", &second, true)?;
    pods.wait_said(&third.member, "proven gone (terminated)").context("the first process did not end by itself")?;
    pods.check(3)
}
