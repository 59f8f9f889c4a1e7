//! Both keepers killed at the same instant: with a cgroup the whole family is gone at once and that is proof; without
//! one it is found by its environment, a lease is waited, and the handover is reported as unproven.

use anyhow::{Context, Result, ensure};
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::root::{NOBODY, as_nobody, need_root};
use testkit::scenario::{ESCAPEES, LEASE, LIMIT, check, descendants, hand_over, start, wait_family};
use testkit::wait::{holds_for, wait_until};

#[test]
fn with_a_cgroup_a_family_that_left_no_trace_is_gone_too() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut probe = ESCAPEES.to_vec();
    probe.extend(["--mode", "scrub-env", "--mode", "setsid+double-fork+close-fds+scrub-env+ignore-term"]);
    let (members, active) = start(&group, &["a", "b"], &[], &probe)?;
    let handover = hand_over(&group, &members, &active, End::KeepersKilled)?;
    check(&group, 2, &active)?;
    // Those that kept the lock open hold it for a lease; then the cgroup ends them, and its emptiness is the proof.
    handover.came_within(LEASE * 3 / 2)?;
    ensure!(!members[1].log().contains("unproven"), "the cgroup proves it:\n{}", members[1].log());
    Ok(())
}

/// Two members of a user who may write no cgroup; the first is active.
fn start_as_nobody(group: &mut Group, probe: &[&str]) -> Result<(Vec<Member>, Span)> {
    group.give_to(NOBODY)?;
    let a = group.member("a").wrapper(as_nobody()).probe(probe)?;
    let active = a.wait_active(group, LIMIT)?;
    let b = group.member("b").wrapper(as_nobody()).probe(probe)?;
    b.wait_standby(LIMIT)?;
    let active = wait_family(group, active.token, descendants(probe))?;
    Ok((vec![a, b], active))
}

#[test]
fn without_a_cgroup_a_family_is_found_by_its_environment() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    let (members, active) = start_as_nobody(&mut group, &ESCAPEES)?;
    let handover = hand_over(&group, &members, &active, End::KeepersKilled)?;
    check(&group, 2, &active)?;
    // It counts from the last renewal that was seen, which is younger than half a lease.
    ensure!(handover.from_event > LEASE / 2, "a lease must be waited without proof: {:?}", handover.from_event);
    handover.came_within(LEASE * 3)?;
    wait_until("the report that nothing proved it", LIMIT, || members[1].log().contains("unproven"))
        .with_context(|| members[1].log())
}

#[test]
fn without_a_cgroup_one_that_cannot_be_found_but_holds_the_lock_is_waited_for() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    let (members, active) = start_as_nobody(&mut group, &["--mode", "setsid+scrub-env"])?;
    End::KeepersKilled.apply(&group, &members[0], &active)?;
    holds_for("nobody else starts", LEASE * 3, || group.history().spans.len() == 1)?;
    let holder = |process: &Process| process.mentions("--traits") && process.has_open(group.lock());
    process::kill_all(holder);
    let next = group.wait_active_after(active.token, LIMIT)?;
    assert_eq!(next.member, "b");
    check(&group, 2, &active)
}

#[test]
fn every_other_end_works_without_a_cgroup_too() -> Result<()> {
    need_root()?;
    let ends = [End::Term, End::WorkloadCrash, End::ElectorKilled, End::GuardKilled, End::ElectorStopped];
    for end in ends {
        let mut group = Group::new()?;
        let mut probe = ESCAPEES.to_vec();
        probe.extend(["--mode", "setsid+double-fork+close-fds+scrub-env+ignore-term"]);
        let (members, active) = start_as_nobody(&mut group, &probe)?;
        let handover = hand_over(&group, &members, &active, end)?;
        handover.was_proved().with_context(|| end.to_string())?;
        check(&group, 2, &active)?;
    }
    Ok(())
}
