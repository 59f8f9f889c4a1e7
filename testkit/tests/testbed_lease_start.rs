//! Members of a group on a Lease start in every order, under every name and with every lease: one of them is active.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::cluster::Cluster;
use testkit::lease_group::{LEASE, LeaseGroup};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until, within};

#[test]
fn of_many_that_start_at_once_without_a_lease_one_is_active_after_the_wait() -> Result<()> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    cluster.kubectl(&["delete", "lease", &group.lease, "-n", &group.namespace])?;
    let began = stamp::now();
    let names: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
    let members: Vec<_> = names.iter().map(|name| group.spawn(&cluster, name, &[])).collect::<Result<_>>()?;
    let active = group.group.wait_active_after(0, LIMIT)?;
    let waited = Duration::from_nanos(active.first - began);
    ensure!(waited >= LEASE, "an absent lock was taken for a free one after {waited:?}");
    within("the first one to be active", waited, LEASE * 2)?;
    for member in members.iter().filter(|member| member.name() != active.member) {
        member.wait_standby(LIMIT)?;
    }
    holds_for("one is active", LEASE * 2, || group.group.history().spans.len() == 1)?;
    group.group.check(1, 2)?;
    let asked: u64 = names.iter().map(|name| group.relay(name).map_or(0, |relay| relay.asked("PUT"))).sum();
    // Of the winner: its renewals. Of each: a few announcements and attempts.
    ensure!(asked < 150, "{asked} writes of twelve members in {:?}", Duration::from_nanos(stamp::now() - began));
    Ok(())
}

#[test]
fn a_lease_that_is_marked_as_new_is_taken_at_once() -> Result<()> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    let began = stamp::now();
    let member = group.spawn(&cluster, "a", &[])?;
    let active = member.wait_active(&group.group, LIMIT)?;
    let waited = Duration::from_nanos(active.first - began);
    within("the first one to be active", waited, LEASE / 2).with_context(|| member.log())?;
    Ok(())
}

#[test]
fn two_of_one_name_are_two_members() -> Result<()> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    let first = group.spawn(&cluster, "a", &[])?;
    let active = first.wait_active(&group.group, LIMIT)?;
    let _second = group.spawn(&cluster, "a", &[])?;
    holds_for("the second one waits", LEASE * 2, || group.group.history().spans.len() == 1)?;
    first.signal(rustix::process::Signal::TERM)?;
    let handover = follow(&group.group, &active, stamp::now())?;
    handover.was_proved()?;
    check(&group.group, 2, &active)
}

#[test]
fn a_member_with_a_longer_lease_follows_the_lock_and_brings_its_own_in() -> Result<()> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    let a = group.spawn(&cluster, "a", &[])?;
    let active = a.wait_active(&group.group, LIMIT)?;
    group.group.set("--lease", "6s");
    let b = group.spawn(&cluster, "b", &[])?;
    b.wait_standby(LIMIT)?;
    group.relay("a")?.black_hole();
    let handover = follow(&group.group, &active, stamp::now())?;
    let waited = Duration::from_nanos(handover.new.first - group.last_sight("a")?);
    ensure!(waited >= LEASE, "waited {waited:?}");
    within("the next one to be active", waited, Duration::from_secs(7))?;
    group.relay("a")?.heal();
    a.wait_standby(LIMIT)?;
    // The other way round: a, of 4 s, must wait for the 6 s that b has written.
    wait_until("a renewal of b", LIMIT, || group.relay("b").is_ok_and(|relay| relay.asked("PUT") > 4))?;
    group.relay("b")?.black_hole();
    let back = follow(&group.group, &handover.new, stamp::now()).with_context(|| group.group.logs())?;
    group.came_after_a_lease(&back, Duration::from_secs(6))?;
    check(&group.group, 3, &handover.new)
}
