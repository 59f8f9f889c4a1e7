//! soloist beside the real `consul lock` on one prefix: under its name and as `soloist run`, in both directions. Clean
//! ends, crashes and killed programs never make two.
//!
//! A real holder that is stopped or cut off goes on whatever anybody does: docs/from-consul-lock.md says so.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use testkit::consul_lock::{Contender, Kind, LIMIT, Site};
use testkit::history::Span;
use testkit::member::Member;
use testkit::wait::{holds_for, wait_until, within};

/// Consul waits for twice the time of a session, and then keeps the key from everybody for 15 s.
const SESSION_MAX: Duration = Duration::from_secs(60);
/// What members of ours wait for a holder that is not, beyond its session.
const FOREIGN_WAIT: Duration = Duration::from_secs(45);

/// `second` waits while `first` has the lock, and gets it after `end`.
fn one_after_the_other(
    site: &Site,
    first: (Kind, &str),
    second: (Kind, &str),
    end: impl FnOnce(&Contender, &Span) -> Result<()>,
    limit: Duration,
) -> Result<Span> {
    let holder = site.contend(first.0, first.1, &[])?;
    let active = site.wait_active(first.1, LIMIT)?;
    let _waiting = site.contend(second.0, second.1, &[])?;
    nobody_else(site, &active, Duration::from_secs(3))?;
    end(&holder, &active)?;
    let next = site.wait_active(second.1, limit)?;
    site.check(2)?;
    Ok(next)
}

fn nobody_else(site: &Site, active: &Span, time: Duration) -> Result<()> {
    holds_for("nobody else becomes active", time, || {
        site.group.history().spans.last().is_some_and(|span| span.token == active.token)
    })
}

fn gap(site: &Site) -> Duration {
    site.group.history().gaps().last().map(|gap| gap.length).unwrap_or_default()
}

#[test]
fn a_real_holder_that_ends_makes_room_at_once() -> Result<()> {
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Theirs, "t"), (Kind::Ours, "o"), |t, _| t.signal(Signal::TERM), LIMIT)?;
    eprintln!("consul lock, SIGTERM, soloist: {:?}", gap(site));
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Theirs, "t"), (Kind::Ours, "o"), |_, a| site.group.end_workload(a, 0), LIMIT)?;
    eprintln!("consul lock, command ended, soloist: {:?}", gap(site));
    Ok(())
}

#[test]
fn a_holder_of_ours_that_ends_makes_room_for_a_real_one_at_once() -> Result<()> {
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Ours, "o"), (Kind::Theirs, "t"), |o, _| o.signal(Signal::TERM), LIMIT)?;
    eprintln!("soloist, SIGTERM, consul lock: {:?}", gap(site));
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Ours, "o"), (Kind::Theirs, "t"), |_, a| site.group.end_workload(a, 7), LIMIT)?;
    Ok(())
}

#[test]
fn two_of_ours_follow_each_other_at_once() -> Result<()> {
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Ours, "one"), (Kind::Ours, "two"), |o, _| o.signal(Signal::TERM), LIMIT)?;
    eprintln!("soloist, SIGTERM, soloist: {:?}", gap(site));
    within("what waits for no lease", gap(site), Duration::from_secs(2))?;
    Ok(())
}

#[test]
fn a_real_holder_that_is_killed_is_waited_for() -> Result<()> {
    let site = &Site::new()?;
    let limit = SESSION_MAX + FOREIGN_WAIT;
    one_after_the_other(site, (Kind::Theirs, "t"), (Kind::Ours, "o"), |t, _| t.signal(Signal::KILL), limit)?;
    eprintln!("consul lock, killed, soloist: {:?}", gap(site));
    Ok(())
}

#[test]
fn a_holder_of_ours_that_is_killed_is_waited_for_by_a_real_one() -> Result<()> {
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Ours, "o"), (Kind::Theirs, "t"), |o, _| o.signal(Signal::KILL), SESSION_MAX)?;
    eprintln!("soloist, killed, consul lock: {:?}", gap(site));
    Ok(())
}

#[test]
fn a_holder_of_ours_that_is_stopped_ends_its_command_before_a_real_one_starts() -> Result<()> {
    let site = &Site::new()?;
    one_after_the_other(site, (Kind::Ours, "o"), (Kind::Theirs, "t"), |o, _| o.signal(Signal::STOP), SESSION_MAX)?;
    eprintln!("soloist, stopped, consul lock: {:?}", gap(site));
    Ok(())
}

/// From scripts to `soloist run` and back: the key is the same.
#[test]
fn a_group_moves_from_consul_lock_to_soloist_run_and_back() -> Result<()> {
    let site = &Site::new()?;
    let theirs = site.contend(Kind::Theirs, "t", &[])?;
    site.wait_active("t", LIMIT)?;
    let member = Member::spawn(&site.group, "m", &[], &[])?;
    member.wait_standby(LIMIT)?;
    theirs.signal(Signal::TERM)?;
    // The real one deletes its key: what is absent costs a lease here, and what it left costs three.
    let active = site.wait_active("m", FOREIGN_WAIT + LIMIT)?;
    let again = site.contend(Kind::Theirs, "t2", &[])?;
    nobody_else(site, &active, Duration::from_secs(3))?;
    member.signal(Signal::TERM)?;
    site.wait_active("t2", LIMIT)?;
    drop(again);
    site.check(3)
}

#[test]
fn the_last_of_ours_deletes_the_key_unless_a_member_waits_for_the_release() -> Result<()> {
    let site = &Site::new()?;
    let holder = site.contend(Kind::Ours, "o", &[])?;
    site.wait_active("o", LIMIT)?;
    let member = Member::spawn(&site.group, "m", &[], &[])?;
    member.wait_standby(LIMIT)?;
    wait_until("its announcement", LIMIT, || site.keys().is_ok_and(|keys| keys.len() > 1))?;
    holder.signal(Signal::TERM)?;
    site.wait_active("m", LIMIT)?;
    within("what waits for no lease", gap(site), Duration::from_secs(2))?;
    site.check(2)
}
