//! Hooks and checks of a member that is PID 1: what ends its workload ends them too, and that is no fault of theirs.

use std::time::Duration;

use anyhow::Result;
use testkit::ends::End;
use testkit::group::Group;
use testkit::root::need_root;
use testkit::scenario::{LIMIT, STAMPS, hand_over, wait_family};
use testkit::wait::{wait_until, within};

const NAMESPACE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// Ignores SIGTERM, leaves a daemon behind, and never ends.
const HANGS: &str = "trap '' TERM; (setsid sleep 1000 &); sleep 1000";

#[test]
fn commands_that_hang_below_pid_1_delay_neither_a_handover_nor_a_proof() -> Result<()> {
    need_root()?;
    let check = format!("test \"$SOLOIST_ROLE\" = standby || {{ {HANGS}; }}");
    let pace = ["--health-interval", "1h", "--health-timeout", "1h", "--hook-timeout", "1h"];
    for end in [End::Term, End::WorkloadCrash, End::GuardKilled, End::ElectorKilled] {
        let group = Group::new()?;
        let hooks = ["--on-active", HANGS, "--on-stop", HANGS];
        let options = ["--health-exec", &check].into_iter().chain(pace).chain(hooks);
        let a = group.member("a").wrapper(NAMESPACE).options(options).probe::<&str>(&[])?;
        let active = a.wait_active(&group, LIMIT)?;
        let b = group.member("b").wrapper(NAMESPACE).probe::<&str>(&[])?;
        b.wait_standby(LIMIT)?;
        let active = wait_family(&group, active.token, 0)?;
        let hang = || a.processes().iter().filter(|one| one.called() == "sleep").count() >= 4;
        wait_until("hook and check to hang", LIMIT, hang)?;
        let handover = hand_over(&group, &[a, b], &active, end)?;
        within(&format!("the next one after {end}"), handover.from_event, Duration::from_secs(5))?;
        wait_family(&group, handover.new.token, 0)?;
        group.check(2, STAMPS)?;
    }
    Ok(())
}
