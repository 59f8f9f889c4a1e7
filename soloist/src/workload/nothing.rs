//! No workload: the member takes part in the election, and who asks is told how it stands.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Instant, Proof};

use super::{Event, Launch, Workload};

/// Stands where a workload would. There is never a process of it, so it is gone as soon as it is to stop.
///
/// Nobody ends it at the deadline: [`Snapshot::active_for`](crate::snapshot::Snapshot::active_for) has run out a grace
/// before it, whatever the elector does.
#[derive(Debug, Default)]
pub struct Nothing {
    /// What this process holds while it is active, and the kernel lets go of with it.
    held: Option<OwnedFd>,
    is_active: bool,
    events: VecDeque<Event>,
}

impl Nothing {
    fn end(&mut self) {
        if std::mem::take(&mut self.is_active) {
            self.held = None;
            self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
        }
    }
}

impl Workload for Nothing {
    fn has_processes(&self) -> bool {
        false
    }

    fn start(&mut self, _launch: Launch, descriptor: Option<OwnedFd>) {
        (self.is_active, self.held) = (true, descriptor);
    }

    fn extend(&mut self, _kill_at: Instant) {}

    fn stop(&mut self, _grace: Duration, _successor: Option<String>, _why: &str) {
        self.end();
    }

    fn kill(&mut self) {
        self.end();
    }

    fn signal(&mut self, _signal: i32) {}

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn try_next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    async fn next(&mut self) -> Event {
        match self.events.pop_front() {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::task::tests::launch;

    #[test]
    fn an_activation_is_gone_once_and_as_soon_as_it_is_to_stop() {
        let mut nothing = Nothing::default();
        nothing.stop(Duration::ZERO, None, "not active");
        assert_eq!(nothing.try_next(), None);
        for _ in 0..2 {
            nothing.start(launch(1), None);
            assert_eq!(nothing.try_next(), None);
            nothing.stop(Duration::from_secs(10), None, "why");
            nothing.kill();
            assert_eq!(nothing.try_next(), Some(Event::Gone { proof: Proof::NeverStarted, released: None }));
            assert_eq!(nothing.try_next(), None);
        }
    }

    #[test]
    fn what_it_holds_is_free_when_it_is_gone() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut nothing = Nothing::default();
        nothing.start(launch(1), Some(writer.into()));
        nothing.stop(Duration::ZERO, None, "why");
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
}
