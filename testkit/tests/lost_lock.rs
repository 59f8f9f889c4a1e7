//! A lock file that is deleted, renamed or replaced under its holder is lost: the workload stops, then somebody is
//! active again, and never two.

use std::fs;

use anyhow::Result;
use testkit::group::Group;
use testkit::scenario::{LIMIT, check, follow, start};
use testkit::stamp;
use testkit::wait::wait_until;

/// Breaks the lock of two members; one of them is active again afterwards.
fn broken(damage: impl Fn(&Group) -> Result<()>) -> Result<()> {
    let group = Group::new()?;
    let (_members, active) = start(&group, &["a", "b"], &[], &["--mode", "setsid+ignore-term"])?;
    let at = stamp::now();
    damage(&group)?;
    follow(&group, &active, at)?;
    check(&group, 2, &active)
}

#[test]
fn deleted() -> Result<()> {
    broken(|group| Ok(fs::remove_file(group.lock())?))
}

#[test]
fn renamed() -> Result<()> {
    broken(|group| Ok(fs::rename(group.lock(), group.folder().join("elsewhere"))?))
}

#[test]
fn replaced() -> Result<()> {
    broken(|group| {
        let other = group.folder().join("other");
        fs::write(&other, "")?;
        Ok(fs::rename(other, group.lock())?)
    })
}

#[test]
fn a_record_that_is_deleted_does_not_repeat_a_token() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    fs::remove_file(group.folder().join("app.lock.record"))?;
    // Whether the holder writes it again or gives up: who is active next has a larger token, as long as one of those
    // who remember the old one is there.
    members[0].signal(rustix::process::Signal::TERM)?;
    follow(&group, &active, stamp::now())?;
    check(&group, 2, &active)
}

#[test]
fn a_record_that_is_garbage_is_never_free() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    fs::write(group.folder().join("app.lock.record"), "{\"garbage\": ")?;
    // Until the holder has written it again, it is a foreigner's: killed before that, it costs three leases of 15 s.
    wait_until("the holder to write its record again", LIMIT, || group.record().is_some())?;
    members[0].signal(rustix::process::Signal::KILL)?;
    follow(&group, &active, stamp::now())?;
    check(&group, 2, &active)
}
