//! However the active member of a group on a Lease ends, the next one is active in time, and never while the old one
//! still is.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::ends::End;
use testkit::lease_group::{LEASE, LeaseGroup, Pair};
use testkit::scenario::{Handover, check, follow, hand_over};
use testkit::wait::holds_for;

/// For a handover by proof: two writes, one delivery, and room for a busy machine.
const SOON: Duration = Duration::from_millis(1500);

/// Ends the first of two; the second follows, as `judge` likes it.
fn one(end: End, judge: impl Fn(&LeaseGroup, &Handover) -> Result<()>) -> Result<()> {
    let pair = Pair::start_pid1()?;
    let group = &pair.group;
    let handover = hand_over(&group.group, &pair.members, &pair.active, end)?;
    check(&group.group, 2, &pair.active)?;
    judge(group, &handover)
}

fn by_proof(end: End) -> Result<()> {
    one(end, |_, handover| {
        handover.was_proved()?;
        ensure!(handover.from_event < SOON, "took {:?}", handover.from_event);
        Ok(())
    })
}

fn by_lease(end: End) -> Result<()> {
    one(end, |group, handover| group.came_after_a_lease(handover, LEASE))
}

#[test]
fn sigterm_hands_over_by_proof() -> Result<()> {
    by_proof(End::Term)
}

#[test]
fn a_crash_of_the_workload_hands_over_by_proof() -> Result<()> {
    by_proof(End::WorkloadCrash)
}

#[test]
fn killing_the_workload_hands_over_by_proof() -> Result<()> {
    by_proof(End::WorkloadKilled)
}

#[test]
fn killing_the_guard_hands_over_by_proof() -> Result<()> {
    by_proof(End::GuardKilled)
}

#[test]
fn killing_the_elector_costs_a_lease() -> Result<()> {
    by_lease(End::ElectorKilled)
}

#[test]
fn killing_both_keepers_costs_a_lease() -> Result<()> {
    by_lease(End::KeepersKilled)
}

#[test]
fn a_stopped_elector_costs_a_lease() -> Result<()> {
    by_lease(End::ElectorStopped)
}

#[test]
fn a_stopped_guard_is_overtaken() -> Result<()> {
    one(End::GuardStopped, |_, handover| {
        ensure!(handover.from_event < LEASE * 3 / 2, "took {:?}", handover.from_event);
        Ok(())
    })
}

#[test]
fn a_stopped_elector_that_wakes_up_touches_nothing_of_the_next_one() -> Result<()> {
    let Pair { cluster, group, members, active } = Pair::start()?;
    let handover = hand_over(&group.group, &members, &active, End::ElectorStopped)?;
    // The guard has ended the workload; the elector sleeps on, with all its timers overdue.
    if members[0].elector_pid().is_ok() {
        members[0].signal(rustix::process::Signal::CONT)?;
    }
    holds_for("the next one stays active", LEASE * 2, || {
        group.group.history().spans.last().is_some_and(|span| span.token == handover.new.token)
    })?;
    ensure!(group.read(&cluster)?["spec"]["holderIdentity"] == "b", "b does not hold the Lease any more");
    check(&group.group, 2, &active)
}

#[test]
fn without_a_namespace_of_its_own_the_guard_survives_the_elector_and_ends_the_workload() -> Result<()> {
    let Pair { group, members, active, .. } = Pair::start()?;
    let at = End::ElectorKilled.apply(&group.group, &members[0], &active)?;
    let handover = follow(&group.group, &active, at)?;
    ensure!(handover.old.last < at + 1_000_000_000, "the workload outlived its elector for long");
    group.came_after_a_lease(&handover, LEASE)?;
    check(&group.group, 2, &active)
}
