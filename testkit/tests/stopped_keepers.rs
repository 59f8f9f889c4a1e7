//! A keeper that is stopped while it holds a lock of the file system holds up the others for a lease, not for ever.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use soloist::workload::process::ProcessId;
use testkit::group::{Group, MARK};
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::scenario::{LIMIT, check, follow, start};
use testkit::stamp;
use testkit::wait::wait_until;

/// How often a moment is waited for that lasts a few milliseconds only.
const TRIES: usize = 2000;

/// Who the kernel says took the flock on `path`, if somebody holds it.
fn holder(path: &Path) -> Option<i32> {
    let file = format!(":{}", fs::metadata(path).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`; those who wait have an arrow in front.
    let granted = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own =
        |words: &Vec<&str>| words.get(1) == Some(&"FLOCK") && words.get(5).is_some_and(|one| one.ends_with(&file));
    granted.into_iter().find(own)?.get(4)?.parse().ok()
}

/// Stops a process, and waits until it has stopped.
fn stop(pid: i32) -> Result<()> {
    process::signal(pid, Signal::STOP)?;
    wait_until("it to stop", LIMIT, || Process::read(pid).is_none_or(|one| one.state == 'T'))
}

fn write_lock(group: &Group) -> PathBuf {
    let mut path = group.lock().as_os_str().to_owned();
    path.push(".write");
    path.into()
}

/// Stops `pid` at a moment when it holds the lock under which records are written.
fn stop_while_writing(group: &Group, pid: i32) -> Result<()> {
    let lock = write_lock(group);
    for _ in 0..TRIES {
        while holder(&lock).is_none() {
            ensure!(Process::read(pid).is_some_and(|process| process.is_alive()), "it ended before it wrote");
        }
        stop(pid)?;
        if holder(&lock).is_some() && Process::read(pid).is_some_and(|process| process.has_open(&lock)) {
            return Ok(());
        }
        process::signal(pid, Signal::CONT)?;
    }
    bail!("never caught {pid} while it held {}", lock.display())
}

#[test]
fn an_elector_stopped_while_it_writes_is_killed_and_overtaken() -> Result<()> {
    let group = Group::new()?;
    let (mut members, active) = start(&group, &["a", "b"], &[], &[])?;
    let elector = members[0].elector_pid()?;
    stop_while_writing(&group, elector)?;
    let at = stamp::now();
    follow(&group, &active, at)?.was_proved()?;
    let status = members[0].wait_exit(LIMIT)?;
    assert_eq!(status.signal(), Some(9), "the guard kills an elector that is stopped while it holds the lock");
    check(&group, 2, &active)
}

#[test]
fn a_guard_stopped_before_its_release_can_be_seen_is_overtaken() -> Result<()> {
    for _ in 0..100 {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &[])?;
        let guard = members[0].guard_pid()?;
        let at = stamp::now();
        members[0].signal(Signal::KILL)?;
        let caught = stop_while_writing(&group, guard).is_ok();
        let says = |record: serde_json::Value| record.pointer("/claim/state").is_some_and(|claim| claim == "held");
        if caught && group.record().is_some_and(says) {
            follow(&group, &active, at)?;
            return check(&group, 2, &active);
        }
    }
    bail!("never caught the guard while it wrote the release")
}

/// The moment between the release and letting go is too short to be hit: a process of the test stands in for the guard.
#[test]
fn a_guard_that_keeps_the_lock_after_its_release_is_killed() -> Result<()> {
    let group = Group::new()?;
    assert_eq!(group.member("a").run(&["true"])?.wait_exit_code(LIMIT)?, 0);
    let lock = group.lock().to_string_lossy().into_owned();
    let mut hung =
        Command::new("flock").args(["--no-fork", &lock, "sleep", "1000"]).env(MARK, group.folder()).spawn()?;
    let pid = hung.id().cast_signed();
    wait_until("the lock to be held", LIMIT, || holder(group.lock()) == Some(pid))?;
    let mut record = group.record().context("a record")?;
    let guard = record.pointer_mut("/backend/keepers/guard").context("a recorded guard")?;
    *guard = serde_json::to_value(ProcessId::of(pid)?)?;
    std::fs::write(format!("{lock}.test"), record.to_string())?;
    std::fs::rename(format!("{lock}.test"), format!("{lock}.record"))?;
    let next = Member::spawn(&group, "b", &[], &[])?;
    next.wait_active(&group, LIMIT)?;
    assert_eq!(hung.wait()?.signal(), Some(9), "what keeps the lock after a release is in the way");
    Ok(())
}

#[test]
fn an_elector_stopped_before_its_workload_starts_is_overtaken() -> Result<()> {
    for _ in 0..50 {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b", "c"], &[], &[])?;
        let at = stamp::now();
        members[0].signal(Signal::TERM)?;
        if let Some(stopped) = stop_between(&group, &members[1..], active.token)? {
            let next = follow(&group, &active, at)?;
            assert_ne!(next.new.member, stopped, "a stopped member cannot be active");
            return check(&group, 2, &active);
        }
    }
    bail!("never caught an elector between its lock and its workload");
}

/// Stops the one of these electors that wins the lock, before a workload of it runs; says whose it is, if that worked.
fn stop_between(group: &Group, standbys: &[Member], token: u64) -> Result<Option<String>> {
    let electors = standbys.iter().map(|member| Ok((member.elector_pid()?, member.name().to_owned())));
    let electors: BTreeMap<i32, String> = electors.collect::<Result<_>>()?;
    let too_late = || group.active().is_some_and(|active| active.token > token);
    let winner = || holder(group.lock()).filter(|pid| electors.contains_key(pid));
    wait_until("the lock to change hands", LIMIT, || winner().is_some() || too_late())?;
    let Some(pid) = winner() else { return Ok(None) };
    stop(pid)?;
    if Process::read(pid).is_some_and(|one| one.has_open(group.lock())) && !too_late() {
        return Ok(electors.get(&pid).cloned());
    }
    process::signal(pid, Signal::CONT)?;
    Ok(None)
}
