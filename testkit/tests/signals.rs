//! Signals that are meant for the workload reach it; signals that end it never skip the proof.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::process::Process;
use testkit::scenario::{LIMIT, check, follow, hand_over, start};
use testkit::stamp;
use testkit::wait::wait_until;

#[test]
fn hup_usr1_usr2_and_winch_are_passed_on() -> Result<()> {
    let group = Group::unhurried()?;
    let (members, _) = start(&group, &["a"], &[], &["--mode", "note-signals"])?;
    let noted = || fs::read_to_string(group.probe_dir().join("signals")).unwrap_or_default();
    let signals = [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")];
    for (signal, name) in signals.into_iter().chain([(Signal::WINCH, "SIGWINCH")]) {
        members[0].signal(signal)?;
        wait_until(&format!("{name} at the workload"), LIMIT, || noted().lines().last() == Some(name))?;
    }
    assert_eq!(noted().lines().count(), 4, "each once: {}", noted());
    assert_eq!(group.history().spans.len(), 1);
    Ok(())
}

#[test]
fn the_workload_starts_with_clean_signals() -> Result<()> {
    let group = Group::unhurried()?;
    let (members, active) = start(&group, &["a"], &[], &[])?;
    let command = Process::read(members[0].command_pid(&active)?).context("the command is gone")?;
    assert_eq!(command.status("SigBlk").as_deref(), Some("0000000000000000"));
    // The probe's own runtime ignores SIGPIPE (bit 12), and nothing else.
    assert_eq!(command.status("SigIgn").as_deref(), Some("0000000000001000"));
    Ok(())
}

#[test]
fn a_second_sigterm_shortens_the_grace_but_not_the_proof() -> Result<()> {
    let mut group = Group::unhurried()?;
    group.set("--stop-grace", "60s");
    let (members, active) =
        start(&group, &["a", "b"], &[], &["--mode", "ignore-term", "--mode", "setsid+ignore-term"])?;
    members[0].signal(Signal::TERM)?;
    let command = members[0].command_pid(&active)?;
    // Bit 14 of the mask is SIGTERM: it has arrived, and is not listened to.
    wait_until("SIGTERM at the workload", LIMIT, || {
        let pending = Process::read(command).and_then(|process| process.status("ShdPnd"));
        pending.is_some_and(|mask| mask == "0000000000004000")
    })?;
    let at = stamp::now();
    members[0].signal(Signal::TERM)?;
    let handover = follow(&group, &active, at)?;
    handover.was_proved()?;
    handover.came_within(Duration::from_secs(20))?;
    check(&group, 2, &active)
}

#[test]
fn sigint_ends_like_sigterm() -> Result<()> {
    let group = Group::unhurried()?;
    let (mut members, active) = start(&group, &["a", "b"], &[], &["--mode", "setsid"])?;
    let at = stamp::now();
    members[0].signal(Signal::INT)?;
    follow(&group, &active, at)?.was_proved()?;
    members[0].wait_exit_code(LIMIT)?;
    check(&group, 2, &active)
}

#[test]
fn a_deaf_workload_is_killed_after_the_grace_and_not_before() -> Result<()> {
    let group = Group::unhurried()?;
    let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "ignore-term"])?;
    let handover = hand_over(&group, &members, &active, End::Term)?;
    ensure!(handover.from_event > Duration::from_millis(950), "no grace: {:?}", handover.from_event);
    handover.was_proved()?;
    check(&group, 2, &active)
}
