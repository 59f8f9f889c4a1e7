//! Descriptors run out (F44).

use anyhow::{Context, Result};
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process::Process;
use testkit::root::run;
use testkit::scenario::{LEASE, LIMIT, check, hand_over, start};
use testkit::wait::holds_for;

/// Leaves this process no descriptor to open.
fn exhaust(pid: i32) -> Result<()> {
    let process = Process::read(pid).context("no such process")?;
    run(&["prlimit", "--pid", &process.pid.to_string(), "--nofile=3:3"])
}

#[test]
fn keepers_without_descriptors_go_on_renewing() -> Result<()> {
    for end in [End::Term, End::ElectorKilled, End::GuardKilled] {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &[])?;
        exhaust(members[0].elector_pid()?)?;
        exhaust(members[0].guard_pid()?)?;
        holds_for("the same one stays active", LEASE * 2, || group.history().spans.len() == 1)?;
        members[0].wait_active(&group, LIMIT)?;
        hand_over(&group, &members, &active, end)?;
        check(&group, 2, &active)?;
    }
    Ok(())
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
