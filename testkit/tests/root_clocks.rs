//! Members whose clocks differ: each in a time namespace of its own, days apart. Nothing that one of them writes is an
//! instant of its clock, so nothing may change. Needs root and unshare(1).

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process;
use testkit::root::need_root;
use testkit::scenario::{LEASE, LIMIT, check, follow, hand_over};
use testkit::stamp;
use testkit::wait::{wait_until, within};

const DAY_S: u32 = 24 * 60 * 60;

/// CLOCK_BOOTTIME, as /proc/PID/fdinfo names it.
const BOOTTIME: &str = "clockid: 7";

/// What to put before a command to run it with both clocks since boot ahead of the host's.
fn ahead(boottime_s: u32, monotonic_s: u32) -> Vec<String> {
    let (boottime, monotonic) = (boottime_s.to_string(), monotonic_s.to_string());
    ["unshare", "--time", "--boottime", &boottime, "--monotonic", &monotonic, "--"].map(str::to_owned).to_vec()
}

/// A member that many days ahead. Its workload stamps by the host's clock.
fn member(group: &Group, name: &str, days: u32) -> Result<Member> {
    let back = format!("--time=/proc/{}/ns/time", std::process::id());
    let starter = group.member(name).wrapper(ahead(days * DAY_S, days * DAY_S));
    starter.probe_wrapper(["nsenter", &back, "--no-fork", "--"]).probe(&["--mode", "setsid+ignore-term"])
}

/// Two members, so many days ahead; the first is active.
fn start(group: &Group, days: [u32; 2]) -> Result<(Vec<Member>, Span)> {
    need_root()?;
    let first = member(group, "a", days[0])?;
    let active = first.wait_active(group, LIMIT)?;
    let second = member(group, "b", days[1])?;
    second.wait_standby(LIMIT)?;
    Ok((vec![first, second], active))
}

/// One ahead of the other, and the other way round.
const APART: [[u32; 2]; 2] = [[2, 0], [0, 2]];

#[test]
fn members_in_different_time_namespaces_hand_over() -> Result<()> {
    use End::{ElectorKilled, ElectorStopped, GuardKilled, GuardStopped, KeepersKilled, Term, WorkloadCrash};
    for days in APART {
        for end in [Term, WorkloadCrash, ElectorKilled, GuardKilled, KeepersKilled, ElectorStopped, GuardStopped] {
            let group = Group::new()?;
            let (members, active) = start(&group, days)?;
            let handover = hand_over(&group, &members, &active, end)?;
            check(&group, 2, &active)?;
            within(&format!("the next one, {days:?}, {end}"), handover.from_event, LEASE * 3)?;
        }
    }
    Ok(())
}

/// Only the next one can do something about them, and must find them by what the record says.
#[test]
fn keepers_that_hang_in_another_time_namespace_are_killed() -> Result<()> {
    for days in APART {
        let group = Group::new()?;
        let (mut members, active) = start(&group, days)?;
        let (elector, guard) = (members[0].elector_pid()?, members[0].guard_pid()?);
        let at = stamp::now();
        for keeper in [elector, guard] {
            process::signal(keeper, Signal::STOP)?;
        }
        follow(&group, &active, at).with_context(|| format!("{days:?} days ahead"))?;
        ensure!(members[0].wait_exit(LIMIT)?.signal() == Some(9), "they are in the way");
        check(&group, 2, &active)?;
    }
    Ok(())
}

/// The clocks' descriptions that a process has in its descriptors.
fn timers(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let clock = |text: String| text.lines().find(|line| line.starts_with("clockid:")).map(str::to_owned);
    texts.filter_map(clock).collect()
}

#[test]
fn every_timer_of_a_member_is_on_the_clock_that_nobody_can_set() -> Result<()> {
    let group = Group::new()?;
    let (members, _) = start(&group, [0, 0])?;
    for member in &members {
        for pid in [member.elector_pid()?, member.guard_pid()?] {
            wait_until("a timer", LIMIT, || !timers(pid).is_empty())?;
            let found = timers(pid);
            ensure!(found.iter().all(|timer| timer == BOOTTIME), "a timer is not on CLOCK_BOOTTIME: {found:?}");
        }
    }
    Ok(())
}

/// Not a test by itself: the process of `the_clock_runs_on_while_the_host_is_suspended`.
#[test]
fn reads_its_clocks() {
    if std::env::var_os("TEST_CLOCKS").is_none() {
        return;
    }
    let nanos = |clock| {
        let spec = clock_gettime(clock);
        u64::try_from(spec.tv_sec * 1_000_000_000 + spec.tv_nsec).unwrap_or(0)
    };
    let (before, seen, after) = (nanos(ClockId::Boottime), stamp::now(), nanos(ClockId::Boottime));
    assert!(before <= seen && seen <= after, "the clock is not CLOCK_BOOTTIME: {seen} at {before}");
    assert!(nanos(ClockId::Monotonic) < before, "these clocks must differ, or nothing is shown");
}

/// On a host that was never suspended CLOCK_MONOTONIC is the same; in a time namespace it need not be.
#[test]
fn the_clock_runs_on_while_the_host_is_suspended() -> Result<()> {
    need_root()?;
    let wrapper = ahead(DAY_S, 0);
    let mut command = Command::new(&wrapper[0]);
    command.args(&wrapper[1..]).arg(std::env::current_exe()?).args(["reads_its_clocks", "--exact"]);
    let output = command.env("TEST_CLOCKS", "").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("1 passed"), "{text}");
    Ok(())
}
