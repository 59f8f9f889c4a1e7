//! Consul is put back to an older state, as from a backup, while a group uses it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::consul::Consul;
use testkit::consul_group::ConsulGroup;
use testkit::scenario::{LIMIT, check};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// The same as on Kubernetes: D is 8 s.
const LEASE: Duration = Duration::from_secs(12);

/// So many renewals are forgotten.
const FORGOTTEN: u64 = 4;

#[test]
fn a_store_that_went_back_ends_the_holder_and_costs_everybody_a_lease() -> Result<()> {
    let consul = &Consul::connect()?;
    let mut group = ConsulGroup::with_lease(consul, "12s")?;
    let (members, active) = group.start(consul, &["a", "b"])?;
    let relay = group.relay("a")?;
    let backup = group.group.folder().join("backup");
    let backup = backup.to_str().context("no name")?;
    consul.run(&["snapshot", "save", backup])?;
    let asked = relay.asked("PUT");
    wait_until("renewals", LIMIT, || relay.asked("PUT") > asked + FORGOTTEN)?;

    let began = stamp::now();
    consul.run(&["snapshot", "restore", backup])?;
    let back = stamp::now();
    let next = group.group.wait_active_after(active.token, LEASE * 4)?;
    let spans = group.group.history().spans;
    let old = spans.iter().find(|span| span.token == active.token).context("the first one is lost")?;
    let after = |instant: u64| Duration::from_nanos(instant.saturating_sub(began));
    let told = format!(
        "the store was back after {:?}; the old one ended after {:?}, the next one is {} after {:?}\n{}",
        after(back),
        after(old.last),
        next.member,
        after(next.first),
        group.group.logs()
    );
    // As soon as the holder looks, it sees that the store went back: it does not live to its deadline by much.
    ensure!(old.last < back + 3_000_000_000, "it went on: {told}");
    let waited = Duration::from_nanos(next.first.saturating_sub(old.last));
    ensure!(waited >= LEASE / 2, "a release was believed: {told}");
    ensure!(next.first < back + 2 * 12_000_000_000, "too late: {told}");
    eprintln!("{told}");
    holds_for("it stays so", LEASE / 2, || group.group.history().spans.len() == 2)?;
    for member in &members {
        ensure!(member.elector_pid().is_ok(), "{} has ended: {told}", member.name());
    }
    check(&group.group, 2, &active)
}
