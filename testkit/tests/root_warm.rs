//! Both keepers of a warm workload killed at the same instant: what it forked holds no lock and names no activation. With
//! a cgroup all of it is gone at once, and that is proof; without one it is found by its mark, and a lease is waited.

use anyhow::{Context, Result, ensure};
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::root::{NOBODY, as_nobody, need_root};
use testkit::scenario::{ESCAPEES, LEASE, LIMIT, STAMPS, descendants, hand_over, wait_family};
use testkit::wait::wait_until;
use testkit::warm::{options, start, wait_warm};

/// Two members, the first active and the second warm, which are started by `wrapper`.
fn pair(group: &Group, wrapper: &[String], probe: &[&str]) -> Result<(Vec<Member>, Span)> {
    let member = |name| start(group, group.member(name).options(options(group, &[])).wrapper(wrapper), probe);
    let first = member("a")?;
    let active = first.wait_active(group, LIMIT)?;
    let active = wait_family(group, active.token, descendants(probe))?;
    let second = member("b")?;
    wait_warm(group, &second)?;
    second.wait_standby(LIMIT)?;
    Ok((vec![first, second], active))
}

#[test]
fn with_a_cgroup_what_a_warm_workload_forked_is_gone_too() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut probe = ESCAPEES.to_vec();
    probe.extend(["--mode", "scrub-env", "--mode", "setsid+double-fork+close-fds+scrub-env+ignore-term"]);
    let (members, active) = pair(&group, &[], &probe)?;
    let handover = hand_over(&group, &members, &active, End::KeepersKilled)?;
    wait_family(&group, handover.new.token, descendants(&probe))?;
    group.check(2, STAMPS)?;
    // None of them keeps the lock open.
    handover.came_within(LEASE / 2)?;
    handover.was_proved()
}

#[test]
fn without_a_cgroup_what_a_warm_workload_forked_is_found_by_its_mark() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    group.give_to(NOBODY)?;
    let (members, active) = pair(&group, &as_nobody(), &ESCAPEES)?;
    let handover = hand_over(&group, &members, &active, End::KeepersKilled)?;
    wait_family(&group, handover.new.token, descendants(&ESCAPEES))?;
    group.check(2, STAMPS)?;
    // It counts from the last renewal that was seen, which is younger than half a lease.
    ensure!(handover.from_event > LEASE / 2, "a lease must be waited without proof: {:?}", handover.from_event);
    wait_until("the report that nothing proved it", LIMIT, || members[1].log().contains("unproven"))
        .with_context(|| members[1].log())
}
