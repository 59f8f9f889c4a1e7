//! Nothing of a workload gets away: not by a session of its own, a double fork, closed descriptors, an empty
//! environment, a deaf ear for SIGTERM, or all of that at once. The next one starts only when all of it is gone.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{ESCAPEES, LEASE, LIMIT, check, follow, hand_over, start, wait_family};
use testkit::stamp;

/// Ends the first of two, whose workload is the worst of families.
fn family(end: End) -> Result<()> {
    let group = Group::new()?;
    let mut probe = ESCAPEES.to_vec();
    // With both keepers gone at once, only its environment tells whose process it is: see root_keepers.rs.
    if end != End::KeepersKilled {
        probe.extend(["--mode", "scrub-env", "--mode", "setsid+double-fork+close-fds+scrub-env+ignore-term"]);
    }
    let (members, active) = start(&group, &["a", "b"], &[], &probe)?;
    let handover = hand_over(&group, &members, &active, end)?;
    if end != End::KeepersKilled {
        handover.was_proved()?;
    }
    check(&group, 2, &active)
}

#[test]
fn a_family_is_gone_after_its_command_crashed() -> Result<()> {
    family(End::WorkloadCrash)
}

#[test]
fn a_family_is_gone_after_its_command_was_done() -> Result<()> {
    family(End::WorkloadDone)
}

#[test]
fn a_family_is_gone_after_its_command_was_killed() -> Result<()> {
    family(End::WorkloadKilled)
}

#[test]
fn a_family_is_gone_after_sigterm() -> Result<()> {
    family(End::Term)
}

#[test]
fn a_family_is_gone_after_its_elector_was_killed() -> Result<()> {
    family(End::ElectorKilled)
}

#[test]
fn a_family_is_gone_after_its_guard_was_killed() -> Result<()> {
    family(End::GuardKilled)
}

#[test]
fn a_family_is_gone_after_both_keepers_were_killed() -> Result<()> {
    family(End::KeepersKilled)
}

#[test]
fn a_family_is_gone_after_its_elector_was_stopped() -> Result<()> {
    family(End::ElectorStopped)
}

#[test]
fn a_family_is_gone_after_its_guard_was_stopped() -> Result<()> {
    family(End::GuardStopped)
}

#[test]
fn a_daemon_ends_with_its_command() -> Result<()> {
    let group = Group::new()?;
    let _first = Member::spawn(&group, "a", &[], &["--mode", "daemon"])?;
    // It may be over before anybody sees it active; what it stamped stays.
    let active = wait_family(&group, 1, 1)?;
    let next = Member::spawn(&group, "b", &[], &[])?;
    next.wait_active(&group, LIMIT)?;
    check(&group, 2, &active)
}

#[test]
fn a_fork_storm_is_outrun() -> Result<()> {
    for end in [End::Term, End::ElectorKilled, End::GuardKilled] {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "fork-storm=4"])?;
        hand_over(&group, &members, &active, end)?.was_proved()?;
        let left = members[0].workload_pids(&active);
        ensure!(left.is_empty(), "left behind: {left:?}");
        // A child of the storm may have had time for its first stamp only.
        group.check(2, 1)?;
    }
    Ok(())
}

#[test]
fn a_stopped_workload_ends_all_the_same() -> Result<()> {
    for end in [End::Term, End::ElectorKilled, End::GuardKilled] {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "setsid"])?;
        let pids = members[0].workload_pids(&active);
        assert_eq!(pids.len(), 2);
        let at = stamp::now();
        for pid in pids {
            process::signal(pid, Signal::STOP)?;
        }
        hand_over(&group, &members, &active, end)?;
        // It did not stamp while it was stopped, so the event is what counts.
        let handover = follow(&group, &active, at)?;
        handover.came_within(LEASE * 2)?;
        check(&group, 2, &active)?;
    }
    Ok(())
}

#[test]
fn half_a_gibibyte_is_gone_before_the_next_one_starts() -> Result<()> {
    for end in [End::Term, End::ElectorKilled, End::ElectorStopped] {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "allocate=512"])?;
        // On a loaded machine half a gibibyte takes long to free: the standby may find the lease over and help.
        hand_over(&group, &members, &active, end)?;
        check(&group, 2, &active)?;
    }
    Ok(())
}
