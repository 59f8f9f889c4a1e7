//! Consul stops, dies and comes back, for everybody at once: never two are active, an outage that fits into the lease
//! stops nobody, and after a longer one somebody is active soon.

use std::time::Duration;

use anyhow::{Context, Result};
use testkit::consul_group::Pair;
use testkit::outage::{BACK, Outage};
use testkit::relayed::LEASE;
use testkit::scenario::LIMIT;
use testkit::statements::outage::{SHORT, Scene};
use testkit::wait::{holds_for, wait_for, wait_until};

#[test]
fn consul_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    Scene::<Pair>::new()?.nobody_notices("pause", "consul", SHORT)
}

#[test]
fn consul_that_hangs_for_longer_than_the_lease_ends_the_holder_and_somebody_goes_on() -> Result<()> {
    // What hung in it is done when it wakes up: late renewals among it.
    Scene::<Pair>::new()?.it_stops_and_goes_on("pause", "consul", LEASE * 2)
}

/// The server keeps everything in memory: with its process, sessions and keys are gone, and it counts from one again.
fn it_forgets_everything(time: Duration) -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    let group = &scene.pair.group.group;
    // Whoever has seen a renewal knows its token, and takes no smaller one of a store that counts anew.
    let renewed =
        || scene.pair.group.entry(&scene.pair.consul).ok().filter(|key| key.json()["claim"]["token"].is_u64());
    let first = wait_for("a renewal", LIMIT, renewed)?;
    wait_until("the next one", LIMIT, || renewed().is_some_and(|key| key.index > first.index))?;
    let clean = || group.history().violations().is_empty();
    let outage = Outage::begin(&scene.pair.consul, "kill", "consul")?;
    holds_for("nothing overlaps", time, clean)?;
    outage.end()?;
    holds_for("nothing overlaps", LEASE * 3, clean).with_context(|| group.logs())?;
    wait_until("somebody to be active", BACK, || group.active().is_some()).with_context(|| group.logs())?;
    group.check(1, 2)
}

#[test]
fn consul_that_forgot_everything_at_once_never_makes_two() -> Result<()> {
    it_forgets_everything(Duration::ZERO)
}

#[test]
fn consul_that_forgot_everything_and_was_away_for_longer_than_the_lease_never_makes_two() -> Result<()> {
    it_forgets_everything(LEASE + SHORT)
}
