//! As PID 1 of a PID namespace, as in a container: reaps what others leave, and ends what others bring in.

use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::root::need_root;
use testkit::scenario::{ESCAPEES, LEASE, LIMIT, check, descendants, follow, hand_over, wait_family};
use testkit::stamp;
use testkit::wait::wait_until;

const NAMESPACE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// Two members, each PID 1 of a namespace of its own.
fn start(group: &Group, probe: &[&str]) -> Result<(Vec<Member>, Span)> {
    let a = group.member("a").wrapper(NAMESPACE).probe(probe)?;
    let active = a.wait_active(group, LIMIT)?;
    let b = group.member("b").wrapper(NAMESPACE).probe(probe)?;
    b.wait_standby(LIMIT)?;
    let inner = Process::read(a.elector_pid()?).and_then(|one| one.status("NSpid")).context("no elector")?;
    ensure!(inner.ends_with("\t1"), "not PID 1: {inner}");
    let active = wait_family(group, active.token, descendants(probe))?;
    Ok((vec![a, b], active))
}

/// A process that somebody brings into the namespace of a member, as `kubectl exec` does.
fn inject(group: &Group, member: &Member, active: &Span) -> Result<Child> {
    let identity = active.slots.first().map(|slot| slot.identity.to_argument()).context("no slot")?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &member.elector_pid()?.to_string(), "--pid", "--mount", "--"]);
    command.arg(group.binary("probe")?).arg("--dir").arg(group.probe_dir());
    command.args(["--pace-us", "100", "--label", "injected", "--identity", &identity]);
    let child = command.spawn().context("failed to bring a process in")?;
    wait_until("the injected process to stamp", LIMIT, || {
        group.active().is_some_and(|span| span.slots.iter().any(|slot| slot.label == "injected" && slot.stamps > 10))
    })?;
    Ok(child)
}

#[test]
fn an_injected_process_is_gone_before_the_next_one_starts() -> Result<()> {
    need_root()?;
    for end in [End::Term, End::WorkloadCrash, End::GuardKilled, End::ElectorKilled, End::KeepersKilled] {
        let group = Group::new()?;
        let (members, active) = start(&group, &ESCAPEES)?;
        let mut injected = inject(&group, &members[0], &active)?;
        hand_over(&group, &members, &active, end)?;
        injected.wait()?;
        check(&group, 2, &active).with_context(|| end.to_string())?;
    }
    Ok(())
}

#[test]
fn planned_ends_are_proved() -> Result<()> {
    need_root()?;
    for end in [End::Term, End::WorkloadDone, End::WorkloadKilled] {
        let group = Group::new()?;
        let (members, active) = start(&group, &["--mode", "setsid+double-fork+scrub-env+close-fds"])?;
        hand_over(&group, &members, &active, end)?.was_proved()?;
        check(&group, 2, &active)?;
    }
    Ok(())
}

#[test]
fn orphans_are_reaped() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let done = group.folder().join("done");
    let script = r#"for i in 1 2 3 4 5 6 7 8 9; do (setsid true &); done; echo > "$0"; exec sleep 1000"#;
    let done_name = done.to_string_lossy().into_owned();
    let member = group.member("a").wrapper(NAMESPACE).run(&["sh", "-c", script, &done_name])?;
    wait_until("the orphans to be started", LIMIT, || done.exists())?;
    let elector = member.elector_pid()?;
    wait_until("all orphans to be reaped", LIMIT, || {
        let tree = process::tree(elector);
        let asleep = tree.iter().filter(|process| process.called() == "sleep").count();
        let orphans = tree.iter().filter(|process| process.name == "true" || process.name == "setsid").count();
        asleep == 1 && orphans == 0
    })
}

#[test]
fn the_exit_code_is_the_workloads() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut member = group.member("a").wrapper(NAMESPACE).run(&["sh", "-c", "exit 9"])?;
    assert_eq!(member.wait_exit_code(LIMIT)?, 9);
    Ok(())
}

#[test]
fn sigterm_from_outside_ends_a_standby_with_0() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let (mut members, _active) = start(&group, &[])?;
    members[1].signal(Signal::TERM)?;
    assert_eq!(members[1].wait_exit_code(LIMIT)?, 0);
    Ok(())
}

#[test]
fn the_end_of_pid_1_ends_all_and_the_next_one_follows() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut probe = ESCAPEES.to_vec();
    probe.extend(["--mode", "setsid+double-fork+close-fds+scrub-env+ignore-term"]);
    let (members, active) = start(&group, &probe)?;
    let at = stamp::now();
    members[0].signal(Signal::KILL)?;
    let handover = follow(&group, &active, at)?;
    check(&group, 2, &active)?;
    handover.came_within(LEASE * 3)?;
    Ok(())
}
