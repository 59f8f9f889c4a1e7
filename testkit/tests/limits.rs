//! Descriptors or memory run out.

use anyhow::{Context, Result};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process::Process;
use testkit::root::run;
use testkit::scenario::{LEASE, LIMIT, check, follow, hand_over, start};
use testkit::stamp;

/// Leaves this process no descriptor to open.
fn exhaust(pid: i32) -> Result<()> {
    let process = Process::read(pid).context("no such process")?;
    run(&["prlimit", "--pid", &process.pid.to_string(), "--nofile=3:3"])
}

#[test]
fn keepers_without_descriptors_give_the_role_up_in_time() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    exhaust(members[0].elector_pid()?)?;
    exhaust(members[0].guard_pid()?)?;
    // Every compare-and-set on a file opens files: what cannot renew must stop, and nobody else must suffer.
    follow(&group, &active, stamp::now())?;
    check(&group, 2, &active)
}

#[test]
fn a_member_under_a_low_limit_works() -> Result<()> {
    let group = Group::new()?;
    let low = group.member("a").wrapper(["prlimit", "--nofile=64:64", "--"]).probe::<&str>(&[])?;
    let active = low.wait_active(&group, LIMIT)?;
    let next = Member::spawn(&group, "b", &[], &[])?;
    next.wait_standby(LIMIT)?;
    hand_over(&group, &[low], &active, End::Term)?.was_proved()?;
    check(&group, 2, &active)
}

#[test]
fn keepers_that_get_no_more_memory_hand_over_or_end() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    for pid in [members[0].elector_pid()?, members[0].guard_pid()?] {
        run(&["prlimit", "--pid", &pid.to_string(), "--as=1:1"])?;
    }
    // Whatever they still can, or whatever they end by: it may be over before they are asked to.
    let at = stamp::now();
    let _ = members[0].signal(Signal::TERM);
    let handover = follow(&group, &active, at)?;
    handover.came_within(LEASE * 2)?;
    check(&group, 2, &active)
}
