//! An operator looks at a group on a Lease and steers it, over the API server alone.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{LIMIT, check};
use testkit::wait::{wait_until, within};

/// A group on a Lease of its own.
struct Scene {
    group: Group,
    members: Vec<Member>,
    active: Span,
}

impl Scene {
    /// Two members that know each other; the first is active.
    fn new(lease: &str) -> Result<Self> {
        let kubectl = std::env::var_os("KUBECTL").context("there is no API server: run this by make cluster")?;
        let manifest = format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: {lease}, namespace: default, \
             annotations: {{soloist.dev/initial: 'true'}}}}}}"
        );
        let apply = format!("echo \"{manifest}\" | \"$0\" apply -f -");
        let applied = Command::new("sh").args(["-c", &apply]).arg(kubectl).stdout(Stdio::null()).status()?;
        ensure!(applied.success(), "the Lease was not applied");
        let mut group = Group::unhurried()?;
        group.set_lock(format!("kubernetes://default/{lease}").into());
        let a = Member::spawn(&group, "a", &[], &[])?;
        let active = a.wait_active(&group, LIMIT)?;
        let b = Member::spawn(&group, "b", &[], &[])?;
        let scene = Self { group, members: vec![a, b], active };
        wait_until("both to announce themselves", LIMIT, || {
            scene.json("status", &[]).is_ok_and(|status| names(&status) == ["a", "b"])
        })
        .with_context(|| scene.group.logs())?;
        Ok(scene)
    }

    fn run(&self, verb: &str, options: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.group.binary("soloist")?);
        command.arg(verb).arg("--lock").arg(self.group.lock()).args(options).stdin(Stdio::null());
        command.output().context("failed to run soloist")
    }

    /// What a verb says in JSON, which must succeed.
    fn json(&self, verb: &str, options: &[&str]) -> Result<Value> {
        let output = self.run(verb, &[options, &["--output", "json"]].concat())?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{verb} {options:?}: {:?} {message}\n{}", output.status, self.group.logs());
        serde_json::from_slice(&output.stdout).context("not JSON")
    }

    fn refuses(&self, verb: &str, options: &[&str], code: i32, about: &str) -> Result<()> {
        let output = self.run(verb, options)?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && message.contains(about), "{verb}: {:?} {message}", output.status);
        Ok(())
    }
}

fn names(status: &Value) -> Vec<&str> {
    status["members"].as_array().into_iter().flatten().filter_map(|member| member["name"].as_str()).collect()
}

#[test]
fn every_verb_does_its_work() -> Result<()> {
    let scene = Scene::new("verbs")?;
    let status = scene.json("status", &[])?;
    assert_eq!((&status["state"], &status["holder"], &status["group"]), (&"held".into(), &"a".into(), &"verbs".into()));
    ensure!(status["written_age_ms"].as_u64().is_some_and(|age| age < 15_000), "{status}");

    let there = scene.json("switchover", &["--to", "b"])?;
    assert_eq!((&there["previous"], &there["holder"]), (&"a".into(), &"b".into()));
    for field in ["gap_ms", "stop_ms"] {
        let ms = there[field].as_f64().with_context(|| format!("no {field}: {there}"))?;
        ensure!(ms >= 0.0, "{there}");
        within(field, Duration::from_secs_f64(ms / 1e3), Duration::from_secs(2))?;
    }
    let next = scene.group.wait_active_after(scene.active.token, LIMIT)?;
    let undo = there["undo"].as_str().context("no undo")?;
    ensure!(undo == "soloist switchover --lock kubernetes://default/verbs --to a", "{undo}");

    let paused = scene.json("pause", &["--for", "30m"])?;
    assert_eq!(scene.json("status", &[])?["paused_until"], paused["paused_until"]);
    ensure!(paused["lease"]["seconds"].as_f64().is_some_and(|seconds| seconds > 1_790.0), "{paused}");
    let resumed = scene.json("resume", &[])?;
    ensure!(resumed["paused_until"].is_null() && resumed["lease"]["seconds"] == 15, "{resumed}");
    scene.refuses("resume", &[], 1, "there is no pause")?;
    scene.refuses("failover", &["--i-have-fenced"], 1, "b is not fenced")?;
    scene.refuses("switchover", &["--to", "zoe"], 1, "known are a, b")?;

    let history = scene.json("history", &[])?;
    let members: Vec<&str> =
        history["changes"].as_array().into_iter().flatten().filter_map(|change| change["member"].as_str()).collect();
    assert_eq!(members, ["a", "b"]);
    assert_eq!(history["changes"][1]["gap_ms"], there["gap_ms"]);
    ensure!(next.token > scene.active.token, "{next}");
    check(&scene.group, 2, &scene.active)
}

#[test]
fn a_holder_that_died_in_a_pause_is_replaced_on_an_operators_word() -> Result<()> {
    let scene = Scene::new("fenced")?;
    scene.json("pause", &["--for", "30m"])?;
    for process in scene.members[0].processes() {
        // Some of them end by the death of the others.
        let _ = process::signal(process.pid, Signal::KILL);
    }
    wait_until("nothing of a to be left", LIMIT, || scene.members[0].processes().is_empty())?;
    let done = scene.json("failover", &["--i-have-fenced"])?;
    assert_eq!((&done["previous"], &done["holder"]), (&"a".into(), &"b".into()));
    scene.group.wait_active_after(scene.active.token, LIMIT)?;
    check(&scene.group, 2, &scene.active)
}

#[test]
fn who_leaves_is_not_shown_any_more_and_nobody_active_is_1() -> Result<()> {
    let mut scene = Scene::new("leaving")?;
    for member in &mut scene.members {
        member.signal(Signal::TERM)?;
    }
    for member in &mut scene.members {
        member.wait_exit(LIMIT)?;
    }
    let output = scene.run("status", &["--output", "json"])?;
    assert_eq!(output.status.code(), Some(1));
    let status: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&status["state"], names(&status)), (&"released".into(), Vec::new()));
    scene.refuses("pause", &["--for", "1m"], 1, "nobody is active")
}

#[test]
fn a_lease_that_is_not_there_is_69_and_is_not_made() -> Result<()> {
    let mut group = Group::new()?;
    group.set_lock("kubernetes://default/nowhere".into());
    for verb in ["status", "history", "switchover", "resume"] {
        for _ in 0..2 {
            let output = Command::new(group.binary("soloist")?).arg(verb).arg("--lock").arg(group.lock()).output()?;
            let message = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(69), "{verb}: {:?} {message}", output.status);
            ensure!(message.contains("no Lease \"nowhere\" in namespace \"default\""), "{message}");
        }
    }
    Ok(())
}
