//! However the active member ends, the next one is active soon, and never while the old one still is.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process::Process;
use testkit::scenario::{Handover, LEASE, LIMIT, check, follow, hand_over, start};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// Ends the first of two in this way; the second follows.
fn one(end: End) -> Result<Handover> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    let handover = hand_over(&group, &members, &active, end)?;
    check(&group, 2, &active)?;
    Ok(handover)
}

#[test]
fn a_crash_of_the_workload_hands_over() -> Result<()> {
    one(End::WorkloadCrash)?.was_proved()
}

#[test]
fn the_end_of_the_workload_hands_over() -> Result<()> {
    one(End::WorkloadDone)?.was_proved()
}

#[test]
fn a_failure_of_the_workload_hands_over() -> Result<()> {
    one(End::WorkloadFailed)?.was_proved()
}

#[test]
fn killing_the_workload_hands_over() -> Result<()> {
    one(End::WorkloadKilled)?.was_proved()
}

#[test]
fn sigterm_hands_over() -> Result<()> {
    one(End::Term)?.was_proved()
}

#[test]
fn killing_the_elector_hands_over() -> Result<()> {
    let handover = one(End::ElectorKilled)?;
    ensure!(handover.from_event < LEASE, "the guard did not see it: {:?}", handover.from_event);
    handover.was_proved()
}

#[test]
fn killing_the_guard_hands_over() -> Result<()> {
    let handover = one(End::GuardKilled)?;
    ensure!(handover.from_event < LEASE, "the elector did not see it: {:?}", handover.from_event);
    handover.was_proved()
}

#[test]
fn killing_both_keepers_hands_over() -> Result<()> {
    one(End::KeepersKilled).map(drop)
}

#[test]
fn a_stopped_elector_is_overtaken_within_a_lease() -> Result<()> {
    let handover = one(End::ElectorStopped)?;
    handover.came_within(LEASE + Duration::from_millis(500))?;
    handover.was_proved()
}

#[test]
fn a_stopped_guard_is_overtaken_within_a_lease() -> Result<()> {
    let handover = one(End::GuardStopped)?;
    handover.came_within(LEASE + Duration::from_millis(500))?;
    handover.was_proved()
}

#[test]
fn a_stopped_elector_that_wakes_up_touches_nothing_of_the_next_one() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    let elector = members[0].elector_pid()?;
    let handover = hand_over(&group, &members, &active, End::ElectorStopped)?;
    if Process::read(elector).is_some_and(|process| process.is_alive()) {
        members[0].signal(Signal::CONT)?;
    }
    // Long enough for whatever it might do: its timers are all overdue.
    holds_for("the next one stays active", LEASE * 2, || {
        group.history().spans.last().is_some_and(|span| span.token == handover.new.token)
    })?;
    members[1].wait_active(&group, LIMIT)?;
    check(&group, 2, &active)
}

#[test]
fn three_members_hand_over_again_and_again() -> Result<()> {
    let group = Group::new()?;
    let (mut members, mut active) = start(&group, &["a", "b", "c"], &[], &[])?;
    let ends = [End::WorkloadCrash, End::Term, End::ElectorKilled, End::GuardKilled, End::WorkloadDone];
    for end in ends {
        let at = members.iter().position(|member| member.name() == active.member);
        members.swap(0, at.unwrap_or(0));
        let handover = hand_over(&group, &members, &active, end)?;
        check(&group, 2, &active)?;
        let name = members[0].name().to_owned();
        members[0] = Member::spawn(&group, &name, &[], &[])?;
        active = handover.new;
    }
    group.check(ends.len() + 1, 1)
}

#[test]
fn a_member_alone_starts_again_with_a_larger_token() -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = start(&group, &["a"], &["--on-exit", "restart"], &[])?;
    group.end_workload(&active, 3)?;
    let handover = follow(&group, &active, stamp::now())?;
    assert_eq!(handover.new.member, "a");
    check(&group, 2, &active)
}

#[test]
fn on_exit_standby_hands_over_and_stays() -> Result<()> {
    let group = Group::new()?;
    let (mut members, active) = start(&group, &["a", "b"], &["--on-exit", "standby"], &[])?;
    let handover = hand_over(&group, &members, &active, End::WorkloadFailed)?;
    assert_eq!(handover.new.member, "b");
    members[0].wait_standby(LIMIT)?;
    let back = hand_over(&group, &members[1..], &handover.new, End::WorkloadFailed)?;
    assert_eq!(back.new.member, "a");
    assert!(members[1].try_exit()?.is_none(), "b left");
    check(&group, 3, &handover.new)
}

#[test]
fn a_standby_that_ends_disturbs_nobody() -> Result<()> {
    let group = Group::new()?;
    let (mut members, active) = start(&group, &["a", "b", "c"], &[], &[])?;
    members[1].signal(Signal::TERM)?;
    members[1].wait_exit(LIMIT)?;
    members[2].signal(Signal::KILL)?;
    members[2].wait_exit(LIMIT)?;
    let stamps = |token| group.history().spans.iter().find(|span| span.token == token).map(|span| span.last);
    let before = stamps(active.token);
    wait_until("the active one to live on", LIMIT, || stamps(active.token) > before)?;
    group.check(1, 2)?;
    assert_eq!(group.history().spans.len(), 1);
    Ok(())
}
