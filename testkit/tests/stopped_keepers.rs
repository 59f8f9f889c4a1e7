//! A keeper that is stopped while it holds a lock of the file system holds up the others for a lease, not for ever.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::scenario::{LIMIT, check, follow, start};
use testkit::stamp;

/// How often a moment is waited for that lasts a few milliseconds only.
const TRIES: usize = 2000;

/// Whether the kernel says that somebody holds a flock on `path`.
fn is_locked(path: &Path) -> bool {
    let Ok(inode) = fs::metadata(path).map(|metadata| metadata.ino()) else { return false };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().filter(|line| line.contains("FLOCK") && !line.contains("->")).any(|line| {
        line.split_whitespace().filter_map(|word| word.rsplit_once(':')).any(|(_, number)| number == inode.to_string())
    })
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
        while !is_locked(&lock) {
            ensure!(Process::read(pid).is_some_and(|process| process.is_alive()), "it ended before it wrote");
        }
        process::signal(pid, Signal::STOP)?;
        testkit::wait::wait_until("it to stop", LIMIT, || Process::read(pid).is_none_or(|one| one.state == 'T'))?;
        if is_locked(&lock) && Process::read(pid).is_some_and(|process| process.has_open(&lock)) {
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
fn a_guard_stopped_while_it_writes_the_release_is_overtaken() -> Result<()> {
    for _ in 0..50 {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b"], &[], &[])?;
        let guard = members[0].guard_pid()?;
        let at = stamp::now();
        members[0].signal(Signal::KILL)?;
        if stop_while_writing(&group, guard).is_ok() {
            follow(&group, &active, at)?;
            return check(&group, 2, &active);
        }
    }
    bail!("never caught the guard while it wrote the release");
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

/// Stops the elector that holds the lock before a workload of it runs; says whose it is.
fn stop_between(group: &Group, standbys: &[Member], token: u64) -> Result<Option<String>> {
    let electors = standbys.iter().map(|member| Ok((member.name(), member.elector_pid()?)));
    let electors: Vec<(&str, i32)> = electors.collect::<Result<_>>()?;
    let held_by = || holder(group.lock(), &electors);
    let Ok(found) = testkit::wait::wait_for("the lock to change hands", LIMIT, || held_by().or(newer(group, token)))
    else {
        return Ok(None);
    };
    let Some((name, pid)) = found else { return Ok(None) };
    process::signal(pid, Signal::STOP)?;
    testkit::wait::wait_until("it to stop", LIMIT, || Process::read(pid).is_none_or(|one| one.state == 'T'))?;
    let holds = Process::read(pid).is_some_and(|one| one.has_open(group.lock()));
    if holds && newer(group, token).is_none() {
        return Ok(Some(name));
    }
    process::signal(pid, Signal::CONT)?;
    Ok(None)
}

/// Who of these the kernel says took the lock.
fn holder(lock: &Path, electors: &[(&str, i32)]) -> Option<Option<(String, i32)>> {
    let inode = format!(":{}", fs::metadata(lock).ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let granted = locks.lines().filter(|line| line.contains("FLOCK") && !line.contains("->"));
    let words = granted.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let owner = words
        .filter(|words| words.get(5).is_some_and(|file| file.ends_with(&inode)))
        .find_map(|words| words.get(4)?.parse::<i32>().ok())?;
    let (name, pid) = electors.iter().find(|(_, pid)| *pid == owner)?;
    Some(Some(((*name).to_owned(), *pid)))
}

/// The moment has passed: a later activation runs already.
fn newer(group: &Group, token: u64) -> Option<Option<(String, i32)>> {
    group.active().is_some_and(|active| active.token > token).then_some(None)
}
