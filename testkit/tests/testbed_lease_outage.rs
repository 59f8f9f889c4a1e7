//! The API server and etcd stop, die and come back, for everybody at once: never two are active, an outage that fits
//! into the lease stops nobody, and after a longer one somebody is active soon.

use anyhow::Result;
use testkit::lease_group::{LEASE, Pair};
use testkit::outage::{BACK, Outage};
use testkit::statements::outage::{SHORT, Scene};
use testkit::wait::{holds_for, wait_until};

#[test]
fn an_api_server_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    scene.nobody_notices("pause", "kube-apiserver", SHORT)
}

#[test]
fn an_api_server_that_hangs_for_longer_than_the_lease_ends_the_holder_and_somebody_goes_on() -> Result<()> {
    // What hung in it is done when it wakes up: late renewals among it.
    let scene = &Scene::<Pair>::new()?;
    scene.it_stops_and_goes_on("pause", "kube-apiserver", LEASE * 2)
}

#[test]
fn an_api_server_that_was_killed_comes_back_to_a_group_that_goes_on() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    scene.it_stops_and_goes_on("kill", "kube-apiserver", LEASE + SHORT)
}

#[test]
fn etcd_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    scene.nobody_notices("pause", "etcd", SHORT)
}

#[test]
fn etcd_that_hangs_for_longer_than_the_lease_never_makes_two() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    scene.it_stops_and_goes_on("pause", "etcd", LEASE * 2)
}

#[test]
fn etcd_that_was_killed_comes_back_to_a_group_that_goes_on() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    scene.it_stops_and_goes_on("kill", "etcd", LEASE + SHORT)
}

#[test]
fn etcd_that_was_killed_and_started_at_once_never_makes_two() -> Result<()> {
    let scene = &Scene::<Pair>::new()?;
    for _ in 0..3 {
        Outage::begin(&scene.pair.cluster, "kill", "etcd")?.end()?;
        holds_for("nothing overlaps", LEASE, || scene.pair.group.group.history().violations().is_empty())?;
    }
    wait_until("somebody to be active", BACK, || scene.pair.group.group.active().is_some())?;
    scene.pair.group.group.check(1, 2)
}
