//! The API server and etcd stop, die and come back, for everybody at once: never two are active, an outage that fits
//! into the lease stops nobody, and after a longer one somebody is active soon. One test at a time, as all of them
//! share the servers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::history::Span;
use testkit::lease_group::{LEASE, Pair};
use testkit::outage::{BACK, Outage};
use testkit::scenario::LIMIT;
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until};

/// An outage that leaves room for a renewal before the grace begins: D - G - p is 1.57 s.
const SHORT: Duration = Duration::from_millis(1000);
/// D, and a second for a busy machine.
const STOPPED: Duration = Duration::from_millis(3630);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Scene {
    pair: Pair,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { pair: Pair::start()?, _turn: turn })
    }

    fn spans(&self) -> Vec<Span> {
        self.pair.group.group.history().spans
    }

    /// An outage of `time` stops nobody.
    fn nobody_notices(&self, verb: &str, server: &'static str, time: Duration) -> Result<()> {
        let outage = Outage::begin(&self.pair.cluster, verb, server)?;
        let during = holds_for("a is active", time, || self.spans().len() == 1);
        outage.end()?;
        during?;
        let from = stamp::now();
        holds_for("a stays active", LEASE * 2, || self.spans().len() == 1)?;
        let lives = || self.pair.group.group.active().filter(|span| span.last > from);
        wait_for("a stamp of a", LIMIT, lives).with_context(|| self.pair.group.group.logs())?;
        self.pair.group.group.history().check(1, 2)
    }

    /// An outage until after the holder has given up: nobody is active then, and somebody soon after its end.
    fn it_stops_and_goes_on(&self, verb: &str, server: &'static str, time: Duration) -> Result<()> {
        let (began, outage) = (stamp::now(), Outage::begin(&self.pair.cluster, verb, server)?);
        let during = holds_for("nobody else is active", time, || self.spans().len() == 1);
        outage.end()?;
        during?;
        let back = stamp::now();
        let next = self.pair.group.group.wait_active_after(self.pair.active.token, BACK)?;
        let old = self.spans().into_iter().find(|span| span.token == self.pair.active.token).context("no first one")?;
        let lived = Duration::from_nanos(old.last.saturating_sub(began));
        ensure!(lived <= STOPPED, "the holder went on for {lived:?} without its lock");
        let gap = Duration::from_nanos(next.first.saturating_sub(back));
        ensure!(gap <= LEASE + Duration::from_secs(2), "{gap:?} after the outage nobody was active");
        holds_for("it stays so", LEASE * 2, || self.spans().len() == 2)
            .with_context(|| self.pair.group.group.logs())?;
        self.pair.group.group.history().check(2, 2)
    }
}

#[test]
fn an_api_server_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    let scene = &Scene::new()?;
    scene.nobody_notices("pause", "kube-apiserver", SHORT)
}

#[test]
fn an_api_server_that_hangs_for_longer_than_the_lease_ends_the_holder_and_somebody_goes_on() -> Result<()> {
    // What hung in it is done when it wakes up: late renewals among it.
    let scene = &Scene::new()?;
    scene.it_stops_and_goes_on("pause", "kube-apiserver", LEASE * 2)
}

#[test]
fn an_api_server_that_was_killed_comes_back_to_a_group_that_goes_on() -> Result<()> {
    let scene = &Scene::new()?;
    scene.it_stops_and_goes_on("kill", "kube-apiserver", LEASE + SHORT)
}

#[test]
fn etcd_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    let scene = &Scene::new()?;
    scene.nobody_notices("pause", "etcd", SHORT)
}

#[test]
fn etcd_that_hangs_for_longer_than_the_lease_never_makes_two() -> Result<()> {
    let scene = &Scene::new()?;
    scene.it_stops_and_goes_on("pause", "etcd", LEASE * 2)
}

#[test]
fn etcd_that_was_killed_comes_back_to_a_group_that_goes_on() -> Result<()> {
    let scene = &Scene::new()?;
    scene.it_stops_and_goes_on("kill", "etcd", LEASE + SHORT)
}

#[test]
fn etcd_that_was_killed_and_started_at_once_never_makes_two() -> Result<()> {
    let scene = &Scene::new()?;
    for _ in 0..3 {
        Outage::begin(&scene.pair.cluster, "kill", "etcd")?.end()?;
        holds_for("nothing overlaps", LEASE, || scene.pair.group.group.history().violations().is_empty())?;
    }
    wait_until("somebody to be active", BACK, || scene.pair.group.group.active().is_some())?;
    scene.pair.group.group.history().check(1, 2)
}
