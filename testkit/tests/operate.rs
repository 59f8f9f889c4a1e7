//! An operator looks at a group and steers it with the verbs of the command line, over the lock alone.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use soloist::clock::unix_us;
use soloist::lock::board::{Asked, Asking, Board, Wish};
use soloist::lock::file::FileBoard;
use soloist::snapshot::Announcement;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{LIMIT, check, start};
use testkit::wait::{wait_for, wait_until, within};

/// A verb over the lock of the group.
fn command(group: &Group, verb: &str, options: &[&str]) -> Result<Command> {
    let mut command = Command::new(group.binary("soloist")?);
    command.arg(verb).arg("--lock").arg(group.lock()).args(options).stdin(Stdio::null());
    Ok(command)
}

fn run(group: &Group, verb: &str, options: &[&str]) -> Result<Output> {
    command(group, verb, options)?.output().context("failed to run soloist")
}

/// What a verb says in JSON, which must succeed.
fn json(group: &Group, verb: &str, options: &[&str]) -> Result<Value> {
    let output = run(group, verb, &[options, &["--output", "json"]].concat())?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{verb} {options:?}: {:?} {message}\n{}", output.status, group.logs());
    serde_json::from_slice(&output.stdout).context("not JSON")
}

/// One sentence and the exit code.
fn check_refusal(output: &Output, code: i32, about: &str) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "expected code {code}, got {:?}: {message}", output.status.code());
    ensure!(message.starts_with("soloist: ") && message.contains(about), "no word about {about:?}: {message}");
    ensure!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn names(status: &Value) -> Vec<&str> {
    status["members"].as_array().into_iter().flatten().filter_map(|member| member["name"].as_str()).collect()
}

/// Two members that know each other; the first is active.
fn two(group: &Group, probe: &[&str]) -> Result<(Vec<Member>, Span)> {
    let (members, active) = start(group, &["a", "b"], &[], probe)?;
    wait_until("both to announce themselves", LIMIT, || {
        json(group, "status", &[]).is_ok_and(|status| names(&status) == ["a", "b"])
    })?;
    Ok((members, active))
}

/// Two members of which the active one takes seconds to stop.
fn stubborn() -> Result<(Group, Vec<Member>, Span)> {
    let mut group = Group::new()?;
    group.set("--stop-grace", "3s");
    let (members, active) = two(&group, &["--mode", "ignore-term"])?;
    Ok((group, members, active))
}

#[test]
fn a_switchover_and_the_way_back_tell_the_gap_and_who_is_active() -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = two(&group, &[])?;
    let there = json(&group, "switchover", &["--to", "b"])?;
    assert_eq!((&there["schema"], &there["previous"], &there["holder"]), (&1.into(), &"a".into(), &"b".into()));
    let next = group.wait_active_after(active.token, LIMIT)?;
    assert_eq!(there["fencing_token"], next.token);
    for field in ["gap_ms", "stop_ms"] {
        let ms = there[field].as_f64().with_context(|| format!("no {field}: {there}"))?;
        ensure!((0.0..2_000.0).contains(&ms), "{there}");
    }

    // The way back is the command that was printed.
    let undo = there["undo"].as_str().context("no undo")?;
    let binaries = group.binary("soloist")?.parent().context("no folder")?.display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default());
    let back = Command::new("sh").args(["-c", undo]).env("PATH", path).output()?;
    let text = String::from_utf8_lossy(&back.stdout);
    ensure!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    ensure!(text.starts_with("a is active with token ") && text.contains("--to b"), "{text}");
    group.wait_active_after(next.token, LIMIT)?;

    let history = json(&group, "history", &[])?;
    let changes = history["changes"].as_array().context("no changes")?;
    let members: Vec<&str> = changes.iter().filter_map(|change| change["member"].as_str()).collect();
    assert_eq!(members, ["a", "b", "a"]);
    assert_eq!(changes[1]["gap_ms"], there["gap_ms"]);
    check(&group, 3, &active)
}

/// Who has just handed over lets the others go first for a while, but not the one that names it.
#[test]
fn the_way_back_waits_for_nothing() -> Result<()> {
    let mut group = Group::new()?;
    // Long enough that a wait could not be taken for slowness.
    group.set("--lease", "15s");
    let (_members, _) = two(&group, &[])?;
    json(&group, "switchover", &["--to", "b"])?;
    let back = json(&group, "switchover", &["--to", "a"])?;
    let gap_ms = back["gap_ms"].as_f64().with_context(|| format!("no gap_ms: {back}"))?;
    // The courtesy is twice 500 ms.
    within("the way back", Duration::from_secs_f64(gap_ms / 1e3), Duration::from_millis(400))
        .with_context(|| group.logs())
}

#[test]
fn a_switchover_to_nobody_anybody_unfit_or_oneself_is_refused() -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = two(&group, &[])?;
    check_refusal(&run(&group, "switchover", &["--to", "zoe"])?, 1, "no member \"zoe\"; known are a, b")?;
    check_refusal(&run(&group, "switchover", &["--to", "a"])?, 1, "a is active already")?;

    let now_unix_ms = unix_us() / 1_000;
    let unfit = Announcement {
        name: "c".to_owned(),
        nonce: format!("{:032x}", 7),
        role: "standby".to_owned(),
        healthy: false,
        why: Some("its disk is full".to_owned()),
        leaving: false,
        version: "0".to_owned(),
        since_unix_ms: now_unix_ms,
        at_unix_ms: now_unix_ms,
    };
    let board = FileBoard::open(group.lock())?;
    block_on(board.announce(&unfit))??;
    check_refusal(&run(&group, "switchover", &["--to", "c"])?, 1, "c did not announce itself healthy")?;
    let status = json(&group, "status", &[])?;
    assert_eq!(names(&status), ["a", "b", "c"]);
    assert_eq!(status["members"][2]["why"], "its disk is full");
    assert_eq!(group.history().spans.len(), 1, "{active}");
    Ok(())
}

#[test]
fn the_second_who_asks_is_told_who_asked_first() -> Result<()> {
    let mut group = Group::new()?;
    // Its elector is stopped for a moment, which must not be taken for its end.
    group.set("--lease", "15s");
    let (members, _active) = two(&group, &[])?;
    let board = FileBoard::open(group.lock())?;
    let activation = json(&group, "status", &[])?["activation"].as_str().context("no activation")?.to_owned();
    members[0].signal(Signal::STOP)?;
    let first = Asked {
        id: "1".to_owned(),
        wish: Wish::Switchover { to: Some("b".to_owned()) },
        activation,
        by: "eve@far (pid 7)".to_owned(),
        at_unix_ms: unix_us() / 1_000,
    };
    assert_eq!(block_on(board.ask(&first))??, Asking::Up);
    let second = run(&group, "resume", &[])?;
    members[0].signal(Signal::CONT)?;
    check_refusal(&second, 1, "eve@far (pid 7) asked first")?;
    check_refusal(&second, 1, "ago, for a switchover to b")?;
    members[1].wait_active(&group, LIMIT).map(drop)
}

#[test]
fn whoever_asks_during_a_switchover_is_told_of_it() -> Result<()> {
    let (group, members, active) = stubborn()?;
    let mut first = command(&group, "switchover", &["--to", "b"])?;
    let first = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_until("the switchover to begin", LIMIT, || members[0].log().contains("switchover to b: stopping"))?;
    let second = run(&group, "switchover", &["--to", "b"])?;
    check_refusal(&second, 1, "already stopping")?;
    check_refusal(&second, 1, &format!("(pid {})", first.id()))?;
    let output = first.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&group, 2, &active)
}

#[test]
fn a_switchover_that_takes_too_long_says_how_far_it_is() -> Result<()> {
    let (group, _members, active) = stubborn()?;
    check_refusal(&run(&group, "switchover", &["--timeout", "1ms"])?, 1, "a is stopping")?;
    group.wait_active_after(active.token, LIMIT).map(drop)
}

#[test]
fn a_pause_lengthens_the_lease_until_it_is_ended() -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = two(&group, &[])?;
    let lease_ms = || group.record().and_then(|record| record["lease_ms"].as_u64()).unwrap_or(0);
    assert_eq!(lease_ms(), 2_000);
    let paused = json(&group, "pause", &["--for", "30m"])?;
    ensure!(lease_ms() > 1_790_000, "{} ms, {paused}", lease_ms());
    let status = json(&group, "status", &[])?;
    assert_eq!(status["paused_until"], paused["paused_until"]);
    ensure!(status["paused_until"].is_string(), "{status}");

    let resumed = json(&group, "resume", &[])?;
    assert_eq!((lease_ms(), resumed["lease"]["seconds"].as_u64()), (2_000, Some(2)));
    check_refusal(&run(&group, "resume", &[])?, 1, "there is no pause")?;
    check_refusal(&run(&group, "pause", &["--for", "24h"])?, 1, "at most")?;
    assert_eq!(group.history().spans.len(), 1, "{active}");
    Ok(())
}

#[test]
fn a_holder_that_renews_is_not_failed_over() -> Result<()> {
    let group = Group::new()?;
    let (_members, _active) = two(&group, &[])?;
    check_refusal(&run(&group, "failover", &["--i-have-fenced"])?, 1, "a is not fenced")?;
    check_refusal(&run(&group, "failover", &[])?, 64, "neither the holder's workload nor its soloist")
}

#[test]
fn status_tells_programs_and_people_the_same() -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = two(&group, &[])?;
    let status = json(&group, "status", &[])?;
    assert_eq!(status["schema"], 1);
    assert_eq!(status["state"], "held");
    assert_eq!(status["holder"], "a");
    assert_eq!(status["fencing_token"], active.token);
    assert_eq!(status["activation"], format!("{:032x}", active.activation));
    assert_eq!(status["lease"]["seconds"], 2);
    ensure!(status["since"].is_string() && status["paused_until"].is_null(), "{status}");
    ensure!(status["written_age_ms"].as_u64().is_some_and(|age| age < 2_000), "{status}");
    let active_ones: Vec<bool> =
        status["members"].as_array().into_iter().flatten().filter_map(|member| member["active"].as_bool()).collect();
    assert_eq!(active_ones, [true, false]);

    let output = run(&group, "status", &[])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.starts_with(&format!("a is active with token {}\n", active.token)), "{text}");
    ensure!(!text.contains('\x1b'), "colours belong on a terminal: {text}");
    ensure!(text.lines().any(|line| line.starts_with(" * ")), "{text}");
    Ok(())
}

#[test]
fn nobody_active_is_1_and_says_how_the_last_one_ended() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _active) = start(&group, &["a"], &[], &[])?;
    members[0].signal(Signal::TERM)?;
    members[0].wait_exit(LIMIT)?;
    let status = run(&group, "status", &[])?;
    let text = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(1), "{text}");
    ensure!(text.starts_with("nobody is active\n") && text.contains("a released ("), "{text}");
    for (verb, options) in
        [("switchover", &[][..]), ("pause", &["--for", "1m"]), ("resume", &[]), ("failover", &["--i-have-fenced"])]
    {
        check_refusal(&run(&group, verb, options)?, 1, "nobody is active: a released").context(verb)?;
    }
    assert_eq!(run(&group, "history", &[])?.status.code(), Some(0));
    Ok(())
}

#[test]
fn an_unreadable_record_is_65() -> Result<()> {
    let group = Group::new()?;
    fs::write(group.lock(), "")?;
    fs::write(group.lock().with_extension("lock.record"), "not ours")?;
    let status = run(&group, "status", &[])?;
    let text = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(65), "{text}");
    ensure!(text.contains("unreadable") && text.contains("not a JSON object"), "{text}");
    for (verb, options) in [
        ("history", &[][..]),
        ("switchover", &[]),
        ("pause", &["--for", "1m"]),
        ("resume", &[]),
        ("failover", &["--i-have-fenced"]),
    ] {
        check_refusal(&run(&group, verb, options)?, 65, "unreadable").context(verb)?;
    }
    Ok(())
}

#[test]
fn a_lock_that_is_not_there_is_69_and_is_not_made() -> Result<()> {
    let group = Group::new()?;
    let verbs = ["status", "history", "switchover", "resume"];
    for verb in verbs {
        check_refusal(&run(&group, verb, &[])?, 69, "there is no lock at").context(verb)?;
    }
    let nowhere = Command::new(group.binary("soloist")?).args(["status", "--lock", "/nowhere/x.lock"]).output()?;
    check_refusal(&nowhere, 69, "/nowhere/x.lock")?;
    ensure!(fs::read_dir(group.folder())?.next().is_none(), "something was left behind");
    Ok(())
}

#[test]
fn bad_usage_is_64_unreachable_stores_are_69_and_unusable_ones_78() -> Result<()> {
    let cases: [(&[&str], i32, &str); 23] = [
        (&["status", "--lock", ""], 64, "is empty"),
        (&["status", "--lock", "http://x"], 64, "http"),
        (&["status", "--lock", "/x/"], 64, "a folder"),
        (&["status", "--group", "a/b"], 64, "--group"),
        (&["status", "--group", "nobody-has-this-name"], 69, "there is no lock at "),
        (&["switchover", "--group", "nobody-has-this-name"], 69, "nobody-has-this-name.lock"),
        (&["status", "--output", "xml"], 64, "xml"),
        (&["status", "--lock", "kubernetes://a/b", "--kubeconfig", "/nowhere/config"], 78, "/nowhere/config"),
        (&["history", "--lock", "consul://host/a b"], 64, "blanks"),
        (&["history", "--lock", "consul://127.0.0.1:1/x"], 69, "127.0.0.1:1"),
        (&["switchover"], 64, "--group"),
        (&["switchover", "--lock", "x", "--timeout", "soon"], 64, "soon"),
        (&["switchover", "--lock", "x", "--timeout=-1s"], 64, "-1s"),
        (&["switchover", "--lock", "x", "--to"], 64, "--to"),
        (&["pause", "--lock", "x"], 64, "--for"),
        (&["pause", "--lock", "x", "--for", "5"], 64, "not a duration"),
        (&["pause", "--lock", "x", "--for", "25h"], 64, "longer than a day"),
        (&["resume", "--lock", "x", "--for", "1m"], 64, "--for"),
        (&["failover", "--lock", "x"], 64, "--i-have-fenced"),
        (&["explain", "--lease", "1s"], 78, "the smallest lease that holds is"),
        (&["explain", "--lease", "15"], 64, "not a duration"),
        (&["explain", "--lock", "kubernetes", "--lease", "4500ms"], 78, "whole seconds"),
        (&["explain", "--memory", "8 parsecs"], 64, "8 parsecs"),
    ];
    let folder = tempfile::tempdir()?;
    for (words, code, about) in cases {
        let output =
            Command::new(testkit::group::binary("soloist")?).args(words).current_dir(folder.path()).output()?;
        check_refusal(&output, code, about).with_context(|| format!("{words:?}"))?;
    }
    Ok(())
}

#[test]
fn a_request_that_nobody_answers_ends_after_its_time() -> Result<()> {
    let group = Group::new()?;
    let (members, _active) = start(&group, &["a"], &[], &[])?;
    let record = wait_for("a record", LIMIT, || fs::read(group.lock().with_extension("lock.record")).ok())?;
    for one in members[0].processes() {
        // The guard ends the others at the same time.
        let _ = process::signal(one.pid, Signal::KILL);
    }
    // Whatever the guard still did: the lock names a holder that is gone.
    wait_until("all of it to end", LIMIT, || members[0].processes().is_empty())?;
    fs::write(group.lock().with_extension("lock.record"), record)?;
    check_refusal(&run(&group, "switchover", &[])?, 1, "did not answer within 10s")
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
