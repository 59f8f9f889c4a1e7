//! Deployments that were made around scripts with `consul lock`, as real pods: soloist is `consul` in the image, and
//! nothing is changed but what the examples say.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::documents::root;
use testkit::history::Span;
use testkit::pods::{CutOff, LIMIT, Pods};
use testkit::process;
use testkit::wait::{wait_until, within};

/// The lease of the drop-in, and of the recommended form.
const LEASE: Duration = Duration::from_secs(15);
/// A shell as PID 1 ignores SIGTERM: this is what the tests leave of the grace period.
const GRACE: Duration = Duration::from_secs(3);
/// What a pod needs to start, and what two busy processors add.
const START_MAX: Duration = Duration::from_secs(20);

fn example(name: &str) -> PathBuf {
    root().join("examples/consul").join(name)
}

/// What the cluster of the tests forces besides.
fn shorten_grace(object: &mut Value) {
    if object["kind"] == "Deployment" {
        object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = GRACE.as_secs().into();
    }
}

/// One of the two, in its namespace, active.
fn install(pods: &Pods, app: &str) -> Result<Span> {
    pods.apply(&example(&format!("{app}-deployment.yaml")), shorten_grace)?;
    pods.apply(&example(&format!("{app}-lock-configmap.yaml")), |_| {})?;
    pods.wait_active_after(0, LIMIT).with_context(|| logs(pods, app))
}

fn logs(pods: &Pods, app: &str) -> String {
    let text = |words: &[&str]| pods.kubectl(words).unwrap_or_else(|error| error.to_string());
    let all = text(&["get", "pods", "-n", app, "-o", "wide"]);
    all + &text(&["logs", "-n", app, "--selector", &format!("app={app}"), "--tail=40"])
}

fn next(pods: &Pods, app: &str, old: &Span) -> Result<(Span, Duration)> {
    let next = pods.wait_active_after(old.token, LIMIT).with_context(|| logs(pods, app))?;
    let stamps_on = || pods.history().spans.iter().any(|span| span.token == next.token && span.last > next.last);
    wait_until("it to stamp on", LIMIT, stamps_on)?;
    let history = pods.history();
    let gap = history.gaps().into_iter().find(|gap| gap.to == next.token).context("no gap")?;
    Ok((next, gap.length))
}

/// Kills the program that stamps: what it was started by ends by itself.
fn kill_command(active: &Span) -> Result<()> {
    let token = format!("SOLOIST_FENCING_TOKEN={}", active.token);
    let stamps = |process: &process::Process| process.called().ends_with("/probe") && process.carries(&token);
    let command = process::all().into_iter().find(stamps).context("no command")?;
    process::signal(command.pid, Signal::KILL)
}

fn remove(pods: &Pods, app: &str) -> Result<()> {
    pods.kubectl(&["delete", "namespace", app, "--timeout=90s"]).map(drop)
}

#[test]
fn a_deployment_around_a_lock_script_survives_a_crash_a_delete_and_a_lost_node() -> Result<()> {
    let (pods, app) = (&Pods::new()?, "capi-drs");
    let first = install(pods, app)?;
    let said = || {
        let log = pods.kubectl(&["logs", "-n", app, &first.member]);
        log.is_ok_and(|log| log.contains("taking -name capi-drs-lock as the prefix"))
    };
    wait_until("the literal line to be understood", LIMIT, said).with_context(|| logs(pods, app))?;

    // The command dies; the loop starts it again in the same pod.
    kill_command(&first)?;
    let (second, gap) = next(pods, app, &first)?;
    eprintln!("{app}, command killed: {gap:?}");
    ensure!(second.member == first.member, "{second} after {gap:?}");
    within("the command once more", gap, Duration::from_secs(3))?;

    // A delete costs the grace period, and a lease after the last sign of life.
    pods.kubectl(&["delete", "pod", "-n", app, &second.member, "--wait=false"])?;
    let (third, gap) = next(pods, app, &second)?;
    eprintln!("{app}, pod deleted: {gap:?}");
    ensure!(third.member != second.member, "{third} after {gap:?}");
    within("the next pod", gap, LEASE + START_MAX)?;

    // The node is cut off, and somebody deletes the pod by force: its command must be gone before the next one starts.
    let node = pods.kubectl(&["get", "pod", "-n", app, &third.member, "-o", "jsonpath={.spec.nodeName}"])?;
    pods.kubectl(&["cordon", &node])?;
    let cut = CutOff::new(&node)?;
    pods.kubectl(&["delete", "pod", "-n", app, &third.member, "--force", "--grace-period=0"])?;
    let (fourth, gap) = next(pods, app, &third)?;
    eprintln!("{app}, node cut off: {gap:?}");
    within(&format!("{fourth}"), gap, LEASE + START_MAX)?;
    drop(cut);
    pods.kubectl(&["uncordon", &node])?;
    pods.check(4)?;
    remove(pods, app)
}

#[test]
fn the_other_deployment_runs_and_survives_a_restart() -> Result<()> {
    let (pods, app) = (&Pods::new()?, "mogi");
    let first = install(pods, app)?;
    pods.kubectl(&["rollout", "restart", "-n", app, &format!("deployment/{app}")])?;
    let (second, gap) = next(pods, app, &first)?;
    eprintln!("{app}, rollout restart: {gap:?}");
    ensure!(second.member != first.member, "{second}");
    pods.check(2)?;
    remove(pods, app)
}

/// The script gives way to `soloist run` on the same key, and the members of that to each other.
#[test]
fn the_recommended_form_takes_over_from_the_script_and_hands_over_in_milliseconds() -> Result<()> {
    let (pods, app) = (&Pods::new()?, "capi-drs");
    let script = install(pods, app)?;
    pods.kubectl(&["patch", "deployment", app, "-n", app, "--type=merge", "-p", r#"{"spec":{"replicas":0}}"#])?;
    pods.kubectl(&["delete", "deployment", app, "-n", app, "--wait=false"])?;
    let gone = || pods.kubectl(&["get", "deployment", "-n", app, "-o", "name"]).is_ok_and(|names| names.is_empty());
    wait_until("the script's Deployment to be gone", LIMIT, gone)?;
    pods.apply(&example("soloist.yaml"), |_| {})?;
    pods.kubectl(&["rollout", "status", "-n", app, &format!("deployment/{app}"), "--timeout=90s"])?;
    let (first, _) = next(pods, app, &script)?;

    pods.kubectl(&["delete", "pod", "-n", app, &first.member, "--wait=false"])?;
    let (second, gap) = next(pods, app, &first)?;
    eprintln!("{app}, recommended form, pod deleted: {gap:?}");
    within(&format!("{second}"), gap, Duration::from_secs(2)).with_context(|| logs(pods, app))?;
    pods.check(3)?;
    remove(pods, app)
}
