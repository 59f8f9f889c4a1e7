//! Disks that do not answer and disks that are full.

use std::fs;

use anyhow::{Context, Result, ensure};
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::root::{Mount, need_root};
use testkit::scenario::{LEASE, LIMIT, check, follow, start};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// Two members, the workload of the first with a process that sleeps uninterruptibly.
fn stuck(group: &Group, disk: &mut Mount) -> Result<(Vec<Member>, testkit::history::Span)> {
    let mode = format!("d-state={}", group.folder().join("disk/file").display());
    let a = Member::spawn(group, "a", &[], &["--mode", &mode])?;
    let active = a.wait_active(group, LIMIT)?;
    let b = Member::spawn(group, "b", &[], &[])?;
    b.wait_standby(LIMIT)?;
    wait_until("the file to be written", LIMIT, || fs::metadata(group.folder().join("disk/file")).is_ok())?;
    disk.freeze()?;
    wait_until("a writer in uninterruptible sleep", LIMIT, || a.workload_pids(&active).into_iter().any(has_sleeper))
        .with_context(|| format!("{}{}", group.history(), group.logs()))?;
    Ok((vec![a, b], active))
}

/// Whether a thread of this process sleeps uninterruptibly.
fn has_sleeper(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let state = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).ok();
    threads.flatten().filter_map(state).any(|stat| stat.contains(") D "))
}

/// The next one starts only after the writer could end, which takes a thaw.
fn nobody_before_the_thaw(end: End) -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut disk = Mount::image(&group.folder().join("disk"))?;
    let (members, active) = stuck(&group, &mut disk)?;
    let at = end.apply(&group, &members[0], &active)?;
    holds_for("nobody else starts while a process cannot end", LEASE * 3, || group.history().spans.len() == 1)?;
    let thawed = stamp::now();
    disk.thaw()?;
    let handover = follow(&group, &active, at)?;
    ensure!(handover.new.first > thawed, "started before the thaw");
    check(&group, 2, &active)
}

#[test]
fn sigterm_releases_nothing_while_a_process_cannot_end() -> Result<()> {
    nobody_before_the_thaw(End::Term)
}

#[test]
fn a_crash_releases_nothing_while_a_process_cannot_end() -> Result<()> {
    nobody_before_the_thaw(End::WorkloadCrash)
}

#[test]
fn a_killed_elector_releases_nothing_while_a_process_cannot_end() -> Result<()> {
    nobody_before_the_thaw(End::ElectorKilled)
}

#[test]
fn a_killed_guard_releases_nothing_while_a_process_cannot_end() -> Result<()> {
    nobody_before_the_thaw(End::GuardKilled)
}

#[test]
fn both_killed_release_nothing_while_a_process_cannot_end() -> Result<()> {
    nobody_before_the_thaw(End::KeepersKilled)
}

#[test]
fn a_member_that_cannot_end_its_workload_goes_on_renewing_and_says_so() -> Result<()> {
    need_root()?;
    let group = Group::new()?;
    let mut disk = Mount::image(&group.folder().join("disk"))?;
    let (mut members, active) = stuck(&group, &mut disk)?;
    End::Term.apply(&group, &members[0], &active)?;
    let log = || members[0].log().to_lowercase();
    wait_until("a word about what cannot be killed", LIMIT, || {
        log().contains("cannot be killed") || log().contains("stuck")
    })?;
    let first = group.record();
    wait_until("renewals", LIMIT, || group.record() != first)?;
    ensure!(members[0].try_exit()?.is_none(), "it left its workload alone");
    disk.thaw()?;
    group.wait_active_after(active.token, LIMIT)?;
    check(&group, 2, &active)
}

#[test]
fn a_lock_on_a_frozen_disk_stops_its_holder_in_time() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    let mut disk = Mount::image(&group.folder().join("disk"))?;
    group.set_lock(group.folder().join("disk/app.lock"));
    let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "setsid+ignore-term"])?;
    let at = stamp::now();
    disk.freeze()?;
    wait_until("the workload to be ended", LEASE, || members[0].workload_pids(&active).is_empty())?;
    disk.thaw()?;
    follow(&group, &active, at)?;
    check(&group, 2, &active)
}

/// Fills a file system to the last byte.
fn fill(folder: &std::path::Path) {
    let mut block = vec![0_u8; 1 << 20];
    let mut number = 0;
    while !block.is_empty() {
        if fs::write(folder.join(format!("fill{number}")), &block).is_err() {
            block.truncate(block.len() / 2);
        }
        number += 1;
    }
}

fn empty(folder: &std::path::Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("fill") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_starts_nobody_without_a_durable_token() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    let full = group.folder().join("full");
    let _mount = Mount::memory(&full, "256k")?;
    group.set_lock(full.join("app.lock"));
    fill(&full);
    let mut member = Member::spawn(&group, "a", &[], &[])?;
    holds_for("nobody starts", LEASE, || group.history().spans.is_empty())?;
    let left = member.try_exit()?.is_some();
    ensure!(!member.log().is_empty(), "it says nothing");
    empty(&full)?;
    if left {
        member = Member::spawn(&group, "a", &[], &[])?;
    }
    let active = member.wait_active(&group, LIMIT)?;
    ensure!(group.record().is_some(), "no record");
    ensure!(active.token > 0, "no token");
    group.check(1, 1)
}

#[test]
fn a_disk_that_fills_up_never_costs_exclusion() -> Result<()> {
    need_root()?;
    let mut group = Group::new()?;
    let full = group.folder().join("full");
    let _mount = Mount::memory(&full, "256k")?;
    group.set_lock(full.join("app.lock"));
    let (members, active) = start(&group, &["a", "b"], &[], &["--mode", "setsid"])?;
    fill(&full);
    // It may renew where that needs no new space, or stop in time; either way nobody else starts without a record.
    holds_for("nobody starts", LEASE * 2, || group.history().spans.len() == 1)?;
    let stopped = members[0].workload_pids(&active).is_empty();
    empty(&full)?;
    if stopped {
        group.wait_active_after(active.token, LIMIT)?;
        return check(&group, 2, &active);
    }
    let at = End::ElectorKilled.apply(&group, &members[0], &active)?;
    follow(&group, &active, at)?;
    check(&group, 2, &active)
}

#[test]
fn a_member_that_ends_on_a_full_disk_is_followed_when_there_is_space_again() -> Result<()> {
    need_root()?;
    for end in [End::Term, End::ElectorKilled, End::KeepersKilled] {
        let mut group = Group::new()?;
        let full = group.folder().join("full");
        let _mount = Mount::memory(&full, "256k")?;
        group.set_lock(full.join("app.lock"));
        let (members, active) = start(&group, &["a", "b"], &[], &[])?;
        fill(&full);
        let at = end.apply(&group, &members[0], &active)?;
        wait_until("the workload to end", LIMIT, || members[0].workload_pids(&active).is_empty())?;
        empty(&full)?;
        follow(&group, &active, at)?;
        check(&group, 2, &active)?;
    }
    Ok(())
}
