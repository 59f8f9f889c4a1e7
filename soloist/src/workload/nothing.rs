//! No workload: the member takes part in the election, and who asks is told how it stands.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Instant, Proof};
use tokio::sync::watch;

use super::{Ending, Event, Launch, Workload};

/// Why a member must not be active, whatever its lock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// One clause for people.
    pub why: String,
    /// Who is active instead, where that is known.
    pub holder: Option<String>,
}

/// The present bar, if there is one.
pub type Bars = watch::Receiver<Option<Bar>>;

/// Stands where a workload would. There is never a process of it, so it is gone as soon as it is to stop.
///
/// Nobody ends it at the deadline: [`Snapshot::active_for`](crate::snapshot::Snapshot::active_for) has run out a grace
/// before it, whatever the elector does.
#[derive(Debug, Default)]
pub struct Nothing {
    /// What this process holds while it is active, and the kernel lets go of with it.
    held: Option<OwnedFd>,
    is_active: bool,
    bars: Option<Bars>,
    events: VecDeque<Event>,
}

impl Nothing {
    /// One that is not there, and ends, while there is a bar.
    pub fn unless(bars: Option<Bars>) -> Self {
        Self { bars, ..Self::default() }
    }

    /// Takes in whether there is a bar now.
    fn note_bar(&mut self) {
        let is_barred = self.bars.as_mut().is_some_and(|bars| bars.borrow_and_update().is_some());
        if is_barred && self.is_active {
            self.events.push_back(Event::Exited(Ending::Code(0)));
            self.end();
        }
        self.events.push_back(Event::Absent);
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_active) {
            self.held = None;
            self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
        }
    }
}

impl Workload for Nothing {
    fn absence(&self) -> Option<String> {
        self.bars.as_ref()?.borrow().as_ref().map(|bar| bar.why.clone())
    }

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
        // An error: whoever told of bars has ended, and its last word stands.
        if self.bars.as_ref().is_some_and(|bars| bars.has_changed().unwrap_or(false)) {
            self.note_bar();
        }
        self.events.pop_front()
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            let told = match &mut self.bars {
                Some(bars) => bars.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
            self.note_bar();
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

    #[tokio::test]
    async fn whoever_is_barred_is_not_fit_and_ends_what_it_is_active_for() {
        let (tell, bars) = watch::channel(Some(Bar { why: "not looked at".to_owned(), holder: None }));
        let mut nothing = Nothing::unless(Some(bars));
        assert_eq!((nothing.absence().as_deref(), nothing.try_next()), (Some("not looked at"), None));
        tell.send_replace(None);
        assert_eq!((nothing.next().await, nothing.absence()), (Event::Absent, None));
        nothing.start(launch(1), None);
        tell.send_replace(Some(Bar { why: "held by b".to_owned(), holder: Some("b".to_owned()) }));
        let gone = Event::Gone { proof: Proof::NeverStarted, released: None };
        for event in [Event::Exited(Ending::Code(0)), gone, Event::Absent] {
            assert_eq!(nothing.next().await, event);
        }
        assert_eq!((nothing.absence().as_deref(), nothing.try_next()), (Some("held by b"), None));
        drop(tell);
        assert_eq!((nothing.absence().as_deref(), nothing.try_next()), (Some("held by b"), None));
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
