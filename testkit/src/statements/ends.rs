//! However the active member of a group ends, the next one is active in time, and never while the old one still is.
#![expect(missing_docs, reason = "the name of a statement says it")]

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::ends::End;
use crate::relayed::{LEASE, Placed, Relayed, View};
use crate::scenario::{Handover, check, follow, hand_over};
use crate::wait::holds_for;

/// For a handover by proof: two writes, one delivery, and room for a busy machine.
const SOON: Duration = Duration::from_millis(1500);

/// Ends the first of two; the second follows, as `judge` likes it.
fn one<P: Placed>(end: End, judge: impl Fn(&Relayed, &Handover) -> Result<()>) -> Result<()> {
    let pair = P::placed_pid1()?;
    let View { relayed, members, active } = pair.view();
    let handover = hand_over(&relayed.group, members, active, end)?;
    check(&relayed.group, 2, active)?;
    judge(relayed, &handover)
}

fn by_proof<P: Placed>(end: End) -> Result<()> {
    one::<P>(end, |_, handover| {
        handover.was_proved()?;
        handover.came_within(SOON)
    })
}

fn by_lease<P: Placed>(end: End) -> Result<()> {
    one::<P>(end, |relayed, handover| relayed.came_after_a_lease(handover, LEASE))
}

pub fn sigterm_hands_over_by_proof<P: Placed>() -> Result<()> {
    by_proof::<P>(End::Term)
}

pub fn a_crash_of_the_workload_hands_over_by_proof<P: Placed>() -> Result<()> {
    by_proof::<P>(End::WorkloadCrash)
}

pub fn killing_the_workload_hands_over_by_proof<P: Placed>() -> Result<()> {
    by_proof::<P>(End::WorkloadKilled)
}

pub fn killing_the_guard_hands_over_by_proof<P: Placed>() -> Result<()> {
    by_proof::<P>(End::GuardKilled)
}

pub fn killing_the_elector_costs_a_lease<P: Placed>() -> Result<()> {
    by_lease::<P>(End::ElectorKilled)
}

pub fn killing_both_keepers_costs_a_lease<P: Placed>() -> Result<()> {
    by_lease::<P>(End::KeepersKilled)
}

pub fn a_stopped_elector_costs_a_lease<P: Placed>() -> Result<()> {
    by_lease::<P>(End::ElectorStopped)
}

pub fn a_stopped_guard_is_overtaken<P: Placed>() -> Result<()> {
    one::<P>(End::GuardStopped, |_, handover| {
        handover.came_within(LEASE * 3 / 2)?;
        Ok(())
    })
}

pub fn a_stopped_elector_that_wakes_up_touches_nothing_of_the_next_one<P: Placed>() -> Result<()> {
    let pair = P::placed()?;
    let View { relayed, members, active } = pair.view();
    let handover = hand_over(&relayed.group, members, active, End::ElectorStopped)?;
    // The guard has ended the workload; the elector sleeps on, with all its timers overdue.
    if members[0].elector_pid().is_ok() {
        members[0].signal(rustix::process::Signal::CONT)?;
    }
    holds_for("the next one stays active", LEASE * 2, || {
        relayed.group.history().spans.last().is_some_and(|span| span.token == handover.new.token)
    })?;
    ensure!(pair.holder()? == "b", "b does not hold the lock any more");
    check(&relayed.group, 2, active)
}

pub fn without_a_namespace_of_its_own_the_guard_survives_the_elector_and_ends_the_workload<P: Placed>() -> Result<()> {
    let pair = P::placed()?;
    let View { relayed, members, active } = pair.view();
    let at = End::ElectorKilled.apply(&relayed.group, &members[0], active)?;
    let handover = follow(&relayed.group, active, at)?;
    ensure!(handover.old.last < at + 1_000_000_000, "the workload outlived its elector for long");
    relayed.came_after_a_lease(&handover, LEASE)?;
    check(&relayed.group, 2, active)
}
