//! The servers of a store stop, die and come back, for everybody at once. One test at a time, as all of them share the
//! servers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::group::Group;
use crate::history::Span;
use crate::outage::{BACK, Outage};
use crate::relayed::{LEASE, Placed};
use crate::scenario::LIMIT;
use crate::stamp;
use crate::wait::{holds_for, wait_for, within};

/// An outage that leaves room for a renewal before the grace begins: D - G - p is 1.57 s.
pub const SHORT: Duration = Duration::from_millis(1000);
/// D, and a second for a busy machine.
pub const STOPPED: Duration = Duration::from_millis(3630);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Two members, alone with the servers.
pub struct Scene<P> {
    /// The two.
    pub pair: P,
    _turn: MutexGuard<'static, ()>,
}

impl<P: Placed> Scene<P> {
    /// Waits until no other one is left.
    pub fn new() -> Result<Self> {
        Self::of(P::placed)
    }

    /// The same, with two that are started by `place`.
    pub fn of(place: impl FnOnce() -> Result<P>) -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { pair: place()?, _turn: turn })
    }

    /// Everything that was active until now.
    pub fn spans(&self) -> Vec<Span> {
        self.group().history().spans
    }

    fn group(&self) -> &Group {
        &self.pair.view().relayed.group
    }

    /// An outage of `time` stops nobody.
    pub fn nobody_notices(&self, verb: &str, server: &'static str, time: Duration) -> Result<()> {
        let outage = Outage::begin(self.pair.store(), verb, server)?;
        let during = holds_for("a is active", time, || self.spans().len() == 1);
        outage.end()?;
        during?;
        let from = stamp::now();
        holds_for("a stays active", LEASE * 2, || self.spans().len() == 1)?;
        let lives = || self.group().active().filter(|span| span.last > from);
        wait_for("a stamp of a", LIMIT, lives).with_context(|| self.group().logs())?;
        self.group().check(1, 2)
    }

    /// An outage until after the holder has given up: nobody is active then, and somebody soon after its end.
    pub fn it_stops_and_goes_on(&self, verb: &str, server: &'static str, time: Duration) -> Result<()> {
        let (began, outage) = (stamp::now(), Outage::begin(self.pair.store(), verb, server)?);
        let during = holds_for("nobody else is active", time, || self.spans().len() == 1);
        outage.end()?;
        during?;
        let back = stamp::now();
        let next = self.group().wait_active_after(self.pair.view().active.token, BACK)?;
        let old = self
            .spans()
            .into_iter()
            .find(|span| span.token == self.pair.view().active.token)
            .context("no first one")?;
        let lived = Duration::from_nanos(old.last.saturating_sub(began));
        ensure!(lived <= STOPPED, "the holder went on for {lived:?} without its lock");
        let gap = Duration::from_nanos(next.first.saturating_sub(back));
        within("somebody to be active after the outage", gap, LEASE + Duration::from_secs(2))?;
        holds_for("it stays so", LEASE * 2, || self.spans().len() == 2).with_context(|| self.group().logs())?;
        self.group().check(2, 2)
    }
}
