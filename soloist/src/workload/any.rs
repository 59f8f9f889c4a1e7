//! Whatever a member is active for: where the lock allows for several kinds, one elector is enough for all of them, and
//! not one compiled for each.

use std::os::fd::OwnedFd;
use std::time::Duration;

use election::Instant;

use super::nothing::Nothing;
use super::task::Task;
use super::via::Distant;
use super::warm::Guarded;
use super::{Event, Launch, Preparation, Workload};

/// One of all kinds.
pub enum AnyWorkload {
    /// Behind a guard.
    Guarded(Box<Guarded>),
    /// In another container.
    Distant(Box<Distant>),
    /// A task of this process.
    Task(Box<Task>),
    /// None.
    Nothing(Nothing),
}

/// The same of whichever it is.
macro_rules! whichever {
    ($self:ident, $workload:ident => $result:expr) => {
        match $self {
            AnyWorkload::Guarded($workload) => $result,
            AnyWorkload::Distant($workload) => $result,
            AnyWorkload::Task($workload) => $result,
            AnyWorkload::Nothing($workload) => $result,
        }
    };
}

impl Workload for AnyWorkload {
    fn absence(&self) -> Option<String> {
        whichever!(self, workload => workload.absence())
    }

    fn has_processes(&self) -> bool {
        whichever!(self, workload => workload.has_processes())
    }

    fn prepare(&mut self, preparation: Preparation) {
        whichever!(self, workload => workload.prepare(preparation));
    }

    fn discard(&mut self) {
        whichever!(self, workload => workload.discard());
    }

    fn start(&mut self, launch: Launch, descriptor: Option<OwnedFd>) {
        whichever!(self, workload => workload.start(launch, descriptor));
    }

    fn extend(&mut self, kill_at: Instant) {
        whichever!(self, workload => workload.extend(kill_at));
    }

    fn stop(&mut self, grace: Duration, successor: Option<String>, why: &str) {
        whichever!(self, workload => workload.stop(grace, successor, why));
    }

    fn kill(&mut self) {
        whichever!(self, workload => workload.kill());
    }

    fn signal(&mut self, signal: i32) {
        whichever!(self, workload => workload.signal(signal));
    }

    fn stand_by(&mut self) -> Option<i32> {
        whichever!(self, workload => workload.stand_by())
    }

    fn stand_down(&mut self, grace: Duration) {
        whichever!(self, workload => workload.stand_down(grace));
    }

    fn stands(&self) -> bool {
        whichever!(self, workload => workload.stands())
    }

    fn resident_bytes(&self) -> u64 {
        whichever!(self, workload => workload.resident_bytes())
    }

    fn try_next(&mut self) -> Option<Event> {
        whichever!(self, workload => workload.try_next())
    }

    async fn next(&mut self) -> Event {
        whichever!(self, workload => workload.next().await)
    }
}
