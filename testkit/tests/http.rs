//! Members are asked and steered over HTTP, and nothing that clients do there is in the way of a handover.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group::Group;
use testkit::history::Span;
use testkit::http::{Connection, Server, make_room};
use testkit::member::Member;
use testkit::scenario::{LIMIT, STAMPS, check};
use testkit::wait::{wait_for, wait_until};

/// Those who listen, and as many that have sent half a request.
const CROWD: usize = 1_000;

const TOKEN: &str = "s3cret";

/// The first member serves on a port and wants a token, the second on a socket, where none is needed.
fn two(group: &Group) -> Result<([Member; 2], [Server; 2], Span)> {
    let token = group.folder().join("token");
    fs::write(&token, TOKEN)?;
    let token = token.display().to_string();
    let a = Member::spawn(group, "a", &["--http", "127.0.0.1:0", "--http-token-file", &token], &[])?;
    let active = a.wait_active(group, LIMIT)?;
    let b = Member::spawn(group, "b", &["--http", &format!("unix:{}/b", group.folder().display())], &[])?;
    b.wait_standby(LIMIT)?;
    let servers = [Server::of(&a)?, Server::of(&b)?];
    let knows = || servers[0].get("/status").ok()?.json().ok()?["members"].as_array()?.get(1).map(|_| ());
    wait_for("the first to know of the second", LIMIT, knows)?;
    Ok(([a, b], servers, active))
}

fn is(server: &Server, path: &str, status: u16) -> Result<()> {
    wait_until(&format!("{path} to be {status}"), LIMIT, || server.get(path).is_ok_and(|one| one.status == status))
}

#[test]
fn exactly_one_says_that_it_is_active() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, [a, b], active) = two(&group)?;
    is(&a, "/active", 200)?;
    let said = a.get("/active")?.json()?;
    assert_eq!((&said["holder"], &said["fencing_token"]), (&"a".into(), &active.token.into()));
    assert_eq!((b.get("/active")?.status, b.get("/readyz?role=active")?.status), (503, 503));
    for server in [&a, &b] {
        assert_eq!((server.get("/healthz")?.status, server.get("/readyz")?.status), (200, 200));
        assert_eq!(server.get("/status")?.json()?["group"], "test");
    }
    ensure!(a.get("/metrics")?.body.contains("\nsoloist_active 1\n"));
    ensure!(b.get("/metrics")?.body.contains("\nsoloist_active 0\n"));
    Ok(())
}

#[test]
fn a_switchover_by_request_moves_the_role_and_back() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, [a, b], active) = two(&group)?;
    let [mut own, mut events] = [a.listen()?, b.listen()?];
    let body = format!("{{\"to\":\"b\",\"fencing_token\":{}}}", active.token);
    assert_eq!(a.post("/switchover", None, &body)?.status, 401);
    assert_eq!(a.post("/switchover", Some("wrong"), &body)?.status, 401);
    assert_eq!(b.post("/switchover", None, "{}")?.status, 409, "a standby has nothing to hand over");
    assert_eq!(a.post("/switchover", Some(TOKEN), "{\"to\":\"zoe\"}")?.status, 412);
    assert_eq!(a.post("/switchover", Some(TOKEN), &body)?.status, 202);
    let next = group.wait_active_after(active.token, LIMIT)?;
    assert_eq!(next.member, "b");
    is(&b, "/active", 200)?;
    assert_eq!(a.get("/active")?.status, 503);
    // Whoever listens hears the same.
    loop {
        let status = events.event()?;
        if status["role"] == "active" && status["workload"]["state"] == "running" {
            assert_eq!(status["fencing_token"], next.token);
            assert_eq!((&status["previous"]["holder"], status["previous"]["until"].is_string()), (&"a".into(), true));
            break;
        }
    }
    // And whoever has let go of the role is never shown as its holder once more.
    // It was a when the listener began; a newer state may overtake that of its stop.
    let mut holders = vec![Value::from("a")];
    while holders.last() != Some(&Value::from("b")) {
        let holder = own.event()?["holder"].take();
        if holders.last() != Some(&holder) {
            holders.push(holder);
        }
    }
    assert!(holders.len() <= 3, "{holders:?}");
    is(&a, "/readyz", 200)?;
    let back = || b.post("/switchover", None, "").is_ok_and(|answer| answer.status == 202);
    wait_until("the way back to be granted", LIMIT, back)?;
    assert_eq!(group.wait_active_after(next.token, LIMIT)?.member, "a");
    is(&a, "/active", 200)?;
    check(&group, 3, &active)
}

#[test]
fn who_asks_second_is_told_who_asked_first() -> Result<()> {
    let mut group = Group::unhurried()?;
    group.set("--stop-grace", "5s");
    let http = format!("unix:{}/a", group.folder().display());
    let a = Member::spawn(&group, "a", &["--http", &http], &["--mode", "ignore-term"])?;
    let active = a.wait_active(&group, LIMIT)?;
    let server = Server::of(&a)?;
    let _b = Member::spawn(&group, "b", &[], &[])?;
    let granted = || server.post("/switchover", None, "").is_ok_and(|answer| answer.status == 202);
    wait_until("a switchover to be granted", LIMIT, granted)?;
    let second = server.post("/switchover", None, "{\"to\":\"b\"}")?;
    let why = second.json()?["error"].as_str().unwrap_or_default().to_owned();
    ensure!(second.status == 409 && why.contains("already stopping") && why.contains("asked for by"), "{second:?}");
    group.wait_active_after(active.token, LIMIT).map(drop)
}

#[test]
fn a_pause_and_its_end_by_request_change_the_lease() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, [a, b], _) = two(&group)?;
    assert_eq!(b.post("/pause", None, "{\"for\":\"30m\"}")?.status, 409);
    assert_eq!(a.post("/pause", Some(TOKEN), "{\"for\":\"30m\"}")?.status, 202);
    let shown = |server: &Server| server.get("/status").and_then(|answer| answer.json());
    let lease = |server: &Server| shown(server).ok()?["lease"]["seconds"].as_u64();
    for server in [&a, &b] {
        wait_until("a long lease", LIMIT, || lease(server) > Some(1_790))?;
        ensure!(shown(server)?["paused_until"].is_string());
    }
    assert_eq!(a.post("/resume", Some(TOKEN), "")?.status, 202);
    for server in [&a, &b] {
        wait_until("the short lease again", LIMIT, || lease(server) == Some(15))?;
        ensure!(shown(server)?["paused_until"].is_null());
    }
    group.check(1, STAMPS)
}

#[test]
fn the_history_is_what_the_verb_prints_and_how_this_member_saw_it() -> Result<()> {
    let group = Group::unhurried()?;
    let (_members, [a, b], active) = two(&group)?;
    assert_eq!(a.post("/switchover", Some(TOKEN), "{}")?.status, 202);
    assert_eq!(group.wait_active_after(active.token, LIMIT)?.member, "b");
    let has_run = || b.get("/history").ok()?.json().ok()?["changes"][1]["seen"]["running"].as_str().map(|_| ());
    wait_for("b to have seen its workload run", LIMIT, has_run)?;
    let changes = || Some(a.get("/history").ok()?.json().ok()?["changes"].as_array()?.len());
    wait_until("a to have heard of b", LIMIT, || changes() == Some(2))?;
    let mut verb = Command::new(group.binary("soloist")?);
    verb.args(["history", "--group", "test", "--output", "json", "--lock"]).arg(group.lock());
    let printed: Value = serde_json::from_slice(&verb.output()?.stdout)?;
    for (server, own) in [(&a, 0), (&b, 1)] {
        let mut served = server.get("/history")?.json()?;
        let changes = served["changes"].as_array_mut().context("no changes")?;
        for (number, change) in changes.iter_mut().enumerate() {
            let seen = change.as_object_mut().context("no change")?.remove("seen");
            let stopping = seen.as_ref().map(|seen| seen["stopping"].is_string());
            assert_eq!(stopping, (number == own).then_some(own == 0), "{change}");
        }
        assert_eq!(served, printed);
    }
    Ok(())
}

/// Thousands of connections that want nothing good.
fn crowd(server: &Server) -> Result<Vec<Connection>> {
    let mut crowd = Vec::with_capacity(2 * CROWD);
    for _ in 0..CROWD {
        crowd.push(server.listen()?);
    }
    for _ in 0..CROWD {
        let mut half = server.connect()?;
        half.say("POST /switchover HTTP/1.1\r\nhost: ")?;
        crowd.push(half);
    }
    Ok(crowd)
}

#[test]
fn thousands_of_connections_are_not_in_the_way_of_a_handover() -> Result<()> {
    make_room(4 * CROWD)?;
    let group = Group::unhurried()?;
    let (mut members, [a, b], active) = two(&group)?;
    let mut listening = crowd(&b)?;
    let _crowd = crowd(&a)?;
    members[0].signal(Signal::TERM)?;
    let next = group.wait_active_after(active.token, LIMIT)?;
    assert_eq!(next.member, "b");
    members[0].wait_exit(LIMIT)?;
    is(&b, "/active", 200)?;
    for listener in listening.iter_mut().take(CROWD) {
        while listener.event().context("who listens hears of it")?["role"] != "active" {}
    }
    check(&group, 2, &active)
}

/// What `ulimit -n` says in the workload of a member with these options, and the limit of its elector.
fn limits(group: &Group, name: &str, options: &[&str]) -> Result<(String, String)> {
    let path = group.folder().join(format!("{name}.limit"));
    let line = format!("ulimit -Sn > {0}; ulimit -Hn >> {0}; echo end >> {0}; exec sleep 1000", path.display());
    let member = group.member(name).wrapper(["prlimit", "--nofile=1024:", "--"]).options(options);
    let mut member = member.run(&["sh", "-c", &line])?;
    let text = || fs::read_to_string(&path).ok().filter(|text| text.ends_with("end\n"));
    let text = wait_for("the workload to say its limits", LIMIT, text)?;
    if !options.is_empty() {
        is(&Server::of(&member)?, "/active", 200)?;
    }
    let page = fs::read_to_string(format!("/proc/{}/limits", member.elector_pid()?))?;
    let own = page.lines().find(|line| line.starts_with("Max open files")).context("no limit")?;
    let own = own.split_whitespace().nth(3).context("no number")?.to_owned();
    member.signal(Signal::TERM)?;
    member.wait_exit(LIMIT)?;
    Ok((text, own))
}

#[test]
fn the_workload_keeps_its_limit_on_descriptors() -> Result<()> {
    let group = Group::unhurried()?;
    let (without, low) = limits(&group, "a", &[])?;
    let (with, high) = limits(&group, "b", &["--http", "127.0.0.1:0"])?;
    assert_eq!(without, with);
    ensure!(with.starts_with("1024\n"), "{with}");
    assert_eq!((low.as_str(), high.as_str()), ("1024", "4160"));
    Ok(())
}
