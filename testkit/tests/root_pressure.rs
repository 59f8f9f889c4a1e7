//! Too little processor time and too little memory: handovers may be late, but never too early.

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Result;
use testkit::ends::End;
use testkit::group::{Group, MARK};
use testkit::member::Member;
use testkit::root::{Cgroup, need_root};
use testkit::scenario::{LEASE, LIMIT, check, check_stamped, follow, hand_over, wait_family};
use testkit::stamp;
use testkit::wait::{wait_until, within};

/// A tenth of one processor.
const TENTH: [(&str, &str); 2] = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "10000")];

#[test]
fn a_starved_member_never_overlaps() -> Result<()> {
    need_root()?;
    for end in [End::Term, End::ElectorKilled, End::GuardKilled, End::ElectorStopped, End::KeepersKilled] {
        let quota = Cgroup::new("cpu", &TENTH)?;
        let mut group = Group::new()?;
        // Starved for up to 90 ms at a time.
        group.set_fresh(Duration::from_millis(150));
        let starved = group.member("a").wrapper(quota.wrapper());
        let starved = starved.probe(&["--mode", "setsid+ignore-term", "--mode", "spin=32"])?;
        let active = starved.wait_active(&group, LIMIT)?;
        let next = Member::spawn(&group, "b", &[], &[])?;
        next.wait_standby(LIMIT)?;
        wait_until("it to starve", LIMIT, || quota.count("cpu.stat", "nr_throttled") > 10)?;
        // It may have given up by itself meanwhile, which is safe; then there is nothing left to end.
        let still = group.active().filter(|span| span.token == active.token);
        match still.map(|span| end.apply(&group, &starved, &span)) {
            Some(Ok(at)) => drop(follow(&group, &active, at)?),
            _ => drop(group.wait_active_after(active.token, LIMIT)?),
        }
        // So starved, a process may not have come to a second stamp before its member gave up.
        check_stamped(&group, 2, &active, 1)?;
    }
    Ok(())
}

#[test]
fn a_starved_group_never_overlaps() -> Result<()> {
    need_root()?;
    let quota = Cgroup::new("cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "20000")])?;
    let mut group = Group::new()?;
    group.set_fresh(Duration::from_millis(150));
    let member = |name| group.member(name).wrapper(quota.wrapper()).probe(&["--mode", "setsid", "--mode", "spin=32"]);
    let members = [member("a")?, member("b")?, member("c")?];
    let mut token = 0;
    for _ in 0..3 {
        let active = group.wait_active_after(token, LIMIT * 3)?;
        token = active.token;
        let Some(one) = members.iter().find(|one| one.name() == active.member) else { continue };
        // Killed without a look at what it does: whatever it is in the middle of.
        drop(End::KeepersKilled.apply(&group, one, &active));
    }
    group.check(3, 1)
}

#[test]
fn a_workload_that_runs_out_of_memory_hands_over() -> Result<()> {
    need_root()?;
    let small = Cgroup::new("memory", &[("memory.limit_in_bytes", "100m")])?;
    let group = Group::new()?;
    let greedy = group.member("a").wrapper(small.wrapper());
    let greedy = greedy.probe(&["--mode", "setsid", "--mode", "leak=500"])?;
    let active = greedy.wait_active(&group, LIMIT)?;
    let next = Member::spawn(&group, "b", &[], &[])?;
    next.wait_standby(LIMIT)?;
    let handover = follow(&group, &active, stamp::now())?;
    check(&group, 2, &active)?;
    within("the next one to be active", handover.gap(), LEASE)?;
    Ok(())
}

/// A process in the cgroup that reads a large file, all holes, without end: page cache, but no disk.
fn reader(group: &Group, cgroup: &Cgroup) -> Result<Child> {
    let file = group.folder().join("holes");
    std::fs::File::create(&file)?.set_len(300 << 20)?;
    let script = r#"while cat "$0" > /dev/null; do :; done"#;
    let wrapper = cgroup.wrapper();
    let mut command = Command::new(&wrapper[0]);
    command.args(&wrapper[1..]).args(["nice", "sh", "-c", script]).arg(&file).env(MARK, group.folder());
    Ok(command.spawn()?)
}

#[test]
fn keepers_under_memory_pressure_are_in_time() -> Result<()> {
    need_root()?;
    for end in [End::Term, End::ElectorStopped, End::GuardStopped] {
        // Just enough, and a neighbour inside that reads and reads: pages of the binaries come and go all the time.
        let small = Cgroup::new("memory", &[("memory.limit_in_bytes", "96m")])?;
        let group = Group::new()?;
        let _neighbour = reader(&group, &small)?;
        let pressed = group.member("a").wrapper(small.wrapper()).probe(&["--mode", "allocate=72"])?;
        let active = pressed.wait_active(&group, LIMIT)?;
        let next = Member::spawn(&group, "b", &[], &[])?;
        next.wait_standby(LIMIT)?;
        let active = wait_family(&group, active.token, 0)?;
        wait_until("memory to run short", LIMIT, || small.count("memory.failcnt", "") > 100)?;
        hand_over(&group, &[pressed], &active, end)?;
        check(&group, 2, &active)?;
    }
    Ok(())
}
