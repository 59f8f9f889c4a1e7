//! The lines that people wait for: who leads, to standard output, and how that came, into the log.

use election::Instant;
use tokio::sync::watch;

use super::leader;
use crate::clock;
use crate::member::Reading;
use crate::snapshot::Snapshot;
use crate::workload::nothing::Bars;

/// Says what changed.
pub(super) struct Voice {
    /// Namespace and name of the election.
    lock: String,
    /// What keeps this member from leading.
    bars: Option<Bars>,
    /// Who was said to lead; nothing as long as nothing was said.
    said: Option<String>,
    led: bool,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Out(String),
    Log(String),
}

impl Voice {
    pub(super) fn new(lock: String, bars: Option<Bars>) -> Self {
        Self { lock, bars, said: None, led: false }
    }

    /// Follows the elector to its end.
    pub(super) fn follow(mut self, mut snapshots: watch::Receiver<Snapshot>) -> Reading {
        Box::pin(async move {
            loop {
                let lines = self.news(&snapshots.borrow_and_update(), clock::now());
                lines.into_iter().for_each(Line::say);
                if snapshots.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }

    fn news(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Line> {
        // Nothing is said before the first answer. From then on an empty name means that it is not known.
        if snapshot.store_answered.is_none() {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let leads = snapshot.active_for(now).is_some();
        match (std::mem::replace(&mut self.led, leads), leads) {
            (false, true) => lines.push(Line::Log(format!("sucessfully acquired lease {}", self.lock))),
            (true, false) => lines.push(Line::Log(format!("stopped leading {}: {}", self.lock, snapshot.reason))),
            _ => {}
        }
        let old = leader::barred_by(self.bars.as_ref());
        let name = leader::name(snapshot, old.as_deref(), now).unwrap_or_default();
        if self.said.as_deref() != Some(name) {
            if !leads && !name.is_empty() {
                lines.push(Line::Log(format!("lock is held by {name} and has not yet expired")));
            }
            lines.push(Line::Out(format!("{name} is the leader")));
            self.said = Some(name.to_owned());
        }
        lines
    }
}

impl Line {
    fn say(self) {
        match self {
            Line::Log(line) => tracing::info!("{line}"),
            Line::Out(line) => {
                use std::io::Write as _;
                // Nobody is left to tell if that is closed.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use election::Role;

    use super::super::leader::tests::{active, at, standby};
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let mut voice = Voice::new("default/example".to_owned(), None);
        let (out, log) = (|text: &str| Line::Out(text.to_owned()), |text: &str| Line::Log(text.to_owned()));
        let mut nothing = standby(None);
        nothing.store_answered = None;
        assert_eq!(voice.news(&nothing, at(0)), []);
        assert_eq!(voice.news(&standby(None), at(0)), [out(" is the leader")]);
        let held = [log("lock is held by b and has not yet expired"), out("b is the leader")];
        assert_eq!(voice.news(&standby(Some("b")), at(0)), held);
        assert_eq!(voice.news(&standby(Some("b")), at(1)), []);
        let won = [log("sucessfully acquired lease default/example"), out("a is the leader")];
        assert_eq!(voice.news(&active(), at(0)), won);
        assert_eq!(voice.news(&active(), at(1)), []);
        let mut stopping = active();
        (stopping.role, stopping.reason) = (Role::Stopping, "asked to leave".to_owned());
        let lost = [log("stopped leading default/example: asked to leave"), out(" is the leader")];
        assert_eq!(voice.news(&stopping, at(1)), lost);
    }
}
