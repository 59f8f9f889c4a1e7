//! A workload that is warm when it becomes active: however the active one ends, at most one has been told that it is
//! active and is not gone yet, and only one that said that it is ready is ever told.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::documents::root;
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::http::Server;
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::scenario::{Handover, LEASE, LIMIT, STAMPS, follow, hand_over, wait_family};
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until};
use testkit::warm::{options, spawn, wait_warm};

/// Two members, of which the first is active and the second is warm; the PIDs of their workloads.
fn pair(group: &Group, more: &[&str], probe: &[&str]) -> Result<(Vec<Member>, Span, [i32; 2])> {
    let first = spawn(group, "a", more, probe)?;
    let warm = wait_warm(group, &first)?;
    let active = first.wait_active(group, LIMIT)?;
    let active = wait_family(group, active.token, testkit::scenario::descendants(probe))?;
    let second = spawn(group, "b", more, probe)?;
    let other = wait_warm(group, &second)?;
    second.wait_standby(LIMIT)?;
    Ok((vec![first, second], active, [warm, other]))
}

fn main_pid(span: &Span) -> Option<i32> {
    i32::try_from(span.slots.iter().find(|slot| slot.label == "main")?.pid).ok()
}

/// Ends the active one of two in this way; the other one was warm before and is the same process after.
fn one(end: End) -> Result<Handover> {
    let group = Group::new()?;
    let (members, active, [first, second]) = pair(&group, &[], &[])?;
    ensure!(main_pid(&active) == Some(first), "it was warm before it was told");
    let handover = hand_over(&group, &members, &active, end)?;
    ensure!(main_pid(&handover.new) == Some(second), "it was warm before: {:?}", handover.new);
    wait_family(&group, handover.new.token, 0)?;
    ensure!(Process::read(first).is_none_or(|one| !one.is_alive()), "the old one is told and lives");
    group.check(2, STAMPS)?;
    Ok(handover)
}

#[test]
fn sigterm_hands_over_to_a_process_that_runs_already() -> Result<()> {
    one(End::Term)?.was_proved()
}

#[test]
fn a_workload_that_is_killed_hands_over_to_a_warm_one() -> Result<()> {
    one(End::WorkloadKilled)?.was_proved()
}

#[test]
fn an_elector_that_is_killed_hands_over_to_a_warm_one() -> Result<()> {
    let handover = one(End::ElectorKilled)?;
    ensure!(handover.from_event < LEASE, "the guard did not see it: {:?}", handover.from_event);
    handover.was_proved()
}

#[test]
fn a_guard_that_is_killed_hands_over_to_a_warm_one() -> Result<()> {
    one(End::GuardKilled)?.was_proved()
}

#[test]
fn keepers_that_are_killed_at_once_hand_over_to_a_warm_one() -> Result<()> {
    one(End::KeepersKilled).map(drop)
}

#[test]
fn a_stopped_elector_loses_its_told_workload_at_the_deadline() -> Result<()> {
    let handover = one(End::ElectorStopped)?;
    handover.came_within(LEASE + Duration::from_millis(500))?;
    handover.was_proved()
}

#[test]
fn a_stopped_guard_is_found_out_within_a_lease() -> Result<()> {
    let handover = one(End::GuardStopped)?;
    handover.came_within(LEASE + Duration::from_millis(500))?;
    handover.was_proved()
}

/// What the told workload forked holds no lock and names no activation.
#[test]
fn what_outlives_both_keepers_is_ended_before_the_next_one_is_told() -> Result<()> {
    let group = Group::new()?;
    let family = ["--mode", "setsid+ignore-term", "--mode", "setsid+double-fork+close-fds+ignore-term"];
    let (members, active, _) = pair(&group, &[], &family)?;
    let handover = hand_over(&group, &members, &active, End::KeepersKilled)?;
    wait_family(&group, handover.new.token, 2)?;
    group.check(2, STAMPS)
}

#[test]
fn who_is_demoted_is_stopped_and_stands_by_as_another_process() -> Result<()> {
    let group = Group::new()?;
    let (members, active, [first, second]) = pair(&group, &["--on-exit", "standby"], &[])?;
    let handover = hand_over(&group, &members, &active, End::WorkloadFailed)?;
    ensure!(main_pid(&handover.new) == Some(second));
    let fresh = wait_warm(&group, &members[0])?;
    ensure!(fresh != first, "a workload that was told is never a standby again");
    let back = hand_over(&group, &members[1..], &handover.new, End::WorkloadFailed)?;
    ensure!(back.new.member == "a" && main_pid(&back.new) == Some(fresh));
    wait_family(&group, back.new.token, 0)?;
    group.check(3, STAMPS)
}

#[test]
fn only_who_says_that_it_is_warm_is_told() -> Result<()> {
    let group = Group::new()?;
    // Runs, and never says anything.
    let deaf = group.member("deaf").options(options(&group, &[])).run(&["sleep", "1000"])?;
    let says = |text: &str| wait_until(text, LIMIT, || deaf.log().contains(text)).with_context(|| deaf.log());
    says("the workload stands by")?;
    holds_for("nobody is active", Duration::from_secs(3), || group.record().is_none())?;
    let able = spawn(&group, "able", &[], &[])?;
    able.wait_active(&group, LIMIT)?;
    ensure!(!deaf.log().contains("active with token"), "{}", deaf.log());
    Ok(())
}

#[test]
fn a_standby_that_leaves_takes_its_workload_along_in_order() -> Result<()> {
    let group = Group::new()?;
    let (mut members, active, [_, second]) = pair(&group, &[], &[])?;
    members[1].signal(Signal::TERM)?;
    ensure!(members[1].wait_exit_code(LIMIT)? == 0, "{}", members[1].log());
    ensure!(Process::read(second).is_none_or(|one| !one.is_alive()), "it is left behind");
    ensure!(group.wait_active_after(active.token - 1, LIMIT)?.token == active.token);
    group.check(1, STAMPS)
}

#[test]
fn a_standby_whose_workload_ends_leaves_with_its_code_or_starts_it_anew() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _, [_, second]) = pair(&group, &[], &[])?;
    process::signal(second, Signal::KILL)?;
    ensure!(members[1].wait_exit_code(LIMIT)? == 137, "{}", members[1].log());

    let stays = spawn(&group, "c", &["--on-exit", "standby"], &[])?;
    let before = wait_warm(&group, &stays)?;
    process::signal(before, Signal::KILL)?;
    wait_until("it to be missed", LIMIT, || stays.log().contains("the standby workload is gone"))?;
    let after = wait_warm(&group, &stays)?;
    ensure!(after != before);
    members[0].signal(Signal::TERM)?;
    ensure!(main_pid(&stays.wait_active(&group, LIMIT)?) == Some(after));
    Ok(())
}

#[test]
fn a_signal_from_outside_says_nothing() -> Result<()> {
    let group = Group::new()?;
    let (members, active, [_, second]) = pair(&group, &[], &[])?;
    members[1].signal(Signal::USR1)?;
    members[1].signal(Signal::USR2)?;
    // The one is swallowed; the other ends the probe, which does not expect it, and so was passed on after it.
    wait_until("the other signal", LIMIT, || Process::read(second).is_none_or(|one| !one.is_alive()))?;
    ensure!(group.history().spans.len() == 1, "{}", group.history());
    ensure!(group.wait_active_after(active.token - 1, LIMIT)?.token == active.token);
    Ok(())
}

/// What a file, a command and `/active` say; members tell them apart by their names.
struct Heard {
    file: PathBuf,
    commands: PathBuf,
}

impl Heard {
    fn role(&self) -> Option<(String, String)> {
        let notice: Value = serde_json::from_str(&fs::read_to_string(&self.file).ok()?).ok()?;
        Some((notice["member"].as_str()?.to_owned(), notice["role"].as_str()?.to_owned()))
    }

    fn commands(&self) -> Vec<String> {
        fs::read_to_string(&self.commands).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

#[test]
fn nobody_hears_of_an_activation_before_the_workload_is_told_nor_after_it_was_stopped() -> Result<()> {
    let group = Group::new()?;
    let heard = Heard { file: group.folder().join("role.json"), commands: group.folder().join("commands") };
    fs::write(&heard.file, r#"{"member":"a","role":"active","fencing_token":1}"#)?;
    let line = format!("echo $SOLOIST_MEMBER $SOLOIST_ROLE $SOLOIST_FENCING_TOKEN >> {}", heard.commands.display());
    let (file, exec) = (format!("file:{}", heard.file.display()), format!("exec:{line}"));
    let more = ["--http", "127.0.0.1:0", "--on-exit", "standby", "--notify", &file, "--notify", &exec];
    let member = spawn(&group, "a", &more, &[])?;
    wait_warm(&group, &member)?;
    let active = member.wait_active(&group, LIMIT)?;
    let server = Server::of(&member)?;
    wait_until("/active", LIMIT, || server.get("/active").is_ok_and(|answer| answer.status == 200))?;
    let status = server.get("/status")?.json()?;
    ensure!(status["role"] == "active" && status["workload"]["state"] == "running", "{status}");
    let said = |role: &str, token: u64| format!("a {role} {token}").trim_end_matches(" 0").to_owned();
    let told = [said("standby", 0), said("active", active.token)];
    wait_until("the command", LIMIT, || heard.commands() == told).with_context(|| format!("{:?}", heard.commands()))?;
    wait_until("the file", LIMIT, || heard.role() == Some(("a".into(), "active".into())))?;

    // Demoted, and started again as a standby, which is not fit to stand: no notice of the old activation reaches it.
    group.end_workload(&active, 0)?;
    wait_until("the file", LIMIT, || heard.role() == Some(("a".into(), "standby".into())))?;
    let next = member_after(&group, &active)?;
    let more = [said("standby", active.token), said("active", next.token)];
    let told: Vec<String> = told.into_iter().chain(more).collect();
    wait_until("the command", LIMIT, || heard.commands() == told).with_context(|| format!("{:?}", heard.commands()))?;
    group.check(2, STAMPS)
}

fn member_after(group: &Group, active: &Span) -> Result<Span> {
    Ok(follow(group, active, stamp::now())?.new)
}

#[test]
fn what_was_left_in_a_file_is_gone_before_a_standby_is_started() -> Result<()> {
    let group = Group::new()?;
    let (file, copy) = (group.folder().join("role.json"), group.folder().join("copy"));
    fs::write(&file, r#"{"role":"active","fencing_token":1}"#)?;
    let listener = format!("file:{}", file.display());
    // It is not fit to become active before it has read the file.
    let check = format!("test -e {}", copy.display());
    let options = ["--warm", "--health-exec", &check, "--notify", &listener];
    let line = format!("cp {} {}.new; mv {1}.new {1}; exec sleep 1000", file.display(), copy.display());
    let _member = group.member("a").options(options).run(&["sh", "-c", &line])?;
    wait_until("the standby to read it", LIMIT, || copy.exists())?;
    let read: Value = serde_json::from_str(&fs::read_to_string(&copy)?)?;
    ensure!(read["role"] == "standby", "{read}");
    Ok(())
}

#[test]
fn the_example_is_active_at_once_after_it_has_loaded() -> Result<()> {
    let group = Group::new()?;
    let (folder, server) = (group.folder().display().to_string(), root().join("examples/warm/server.sh"));
    let check = format!("cd {folder}; kill -0 \"$(cat ready-$SOLOIST_MEMBER)\"");
    let start = |name: &str| {
        let notify = format!("signal:USR1,file:{folder}/role-{name}.json");
        let options = ["--warm", "--health-exec", &check, "--health-interval", "100ms", "--health-timeout", "100ms"];
        let line = format!("cd {folder}; exec {}", server.display());
        let member = group.member(name).options(options).options(["--notify", &notify]).variable("LOADING_S", "0.5");
        member.run(&["sh", "-c", &line])
    };
    let says = |name: &str| {
        let said = || fs::read_to_string(group.folder().join(format!("{name}.out"))).unwrap_or_default();
        let active = format!("{name} is active with token ");
        let token = || said().lines().find_map(|line| line.strip_prefix(&active)?.parse::<u64>().ok());
        wait_for(&active, LIMIT, token).with_context(|| group.logs())
    };
    let first = start("a")?;
    let token = says("a")?;
    let second = start("b")?;
    wait_until("b to be ready", LIMIT, || second.log().contains(" healthy: ")).with_context(|| second.log())?;
    second.wait_standby(LIMIT)?;
    first.signal(Signal::TERM)?;
    ensure!(says("b")? > token);
    Ok(())
}
