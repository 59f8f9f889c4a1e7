//! What `consul lock` says while it works: with `-verbose` only, and to standard output. That the command is started is said
//! before it is, as a route is asked then: whatever the command says comes after it.

use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use election::{Exit, Role};
use tokio::sync::watch;

use super::GRACE;
use crate::member::Reading;
use crate::route::{Pending, Route, Turn};
use crate::snapshot::Snapshot;

/// Says what changed.
#[derive(Clone, Default)]
pub(super) struct Voice {
    is_verbose: bool,
    passes_stdin: bool,
    state: Arc<Mutex<State>>,
}

impl Voice {
    pub(super) fn new(is_verbose: bool, passes_stdin: bool) -> Self {
        Self { is_verbose, passes_stdin, state: Arc::default() }
    }

    /// A line, where lines are wanted.
    pub(super) fn say(&self, line: &str) {
        if self.is_verbose {
            use std::io::Write as _;
            // Nobody is left to tell if that is closed.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the elector to its end.
    pub(super) fn follow(self, mut snapshots: watch::Receiver<Snapshot>) -> Reading {
        Box::pin(async move {
            loop {
                let lines = self.state().news(&snapshots.borrow_and_update());
                for line in lines {
                    self.say(&line);
                }
                if snapshots.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }

    /// Says how the command ended, and what went by too quickly to be heard of: a command may end sooner than anybody
    /// looks.
    pub(super) fn conclude(&self, exit: Exit) {
        let lines = self.state().rest(exit);
        for line in lines {
            self.say(&line);
        }
    }

    /// Whether the command was made to end.
    pub(super) fn made_it_end(&self) -> bool {
        matches!(self.state().end, Some(End::Made(_)))
    }
}

impl Route for Voice {
    fn publish(&self, _: Turn) -> Pending {
        if !std::mem::replace(&mut self.state().held, true) {
            self.say("Starting handler");
            if self.passes_stdin {
                self.say("Stdin passed to handler process");
            }
        }
        Box::pin(ready(Ok(())))
    }

    fn withdraw(&self, _: Turn) -> Pending {
        Box::pin(ready(Ok(())))
    }
}

/// What was said already.
#[derive(Default)]
struct State {
    held: bool,
    end: Option<End>,
}

/// Why the command ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    ByItself,
    /// It is made to; its number, once that was said.
    Made(Option<i32>),
}

impl State {
    fn news(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        if snapshot.role == Role::Stopping && self.held && self.end.is_none() {
            let (end, line) = begun(&snapshot.reason);
            self.end = Some(end);
            lines.push(line.to_owned());
        }
        if let (Some(End::Made(None)), Some(pid)) = (self.end, snapshot.workload.pid()) {
            self.end = Some(End::Made(Some(pid)));
            lines.push(format!("Terminating child pid {pid}"));
        }
        lines
    }

    /// The lock was held, and the command has ended.
    fn rest(&mut self, exit: Exit) -> Vec<String> {
        let mut lines = Vec::new();
        match self.end {
            None => {
                self.end = Some(End::ByItself);
                lines.push(ENDED.to_owned());
            }
            Some(End::Made(Some(pid))) if exit == KILLED => {
                lines.push(format!("Child did not exit after grace period of {GRACE}"));
                lines.push(format!("Killing child pid {pid}"));
            }
            Some(End::Made(Some(_))) => lines.push("Child terminated".to_owned()),
            Some(End::Made(None) | End::ByItself) => {}
        }
        lines
    }
}

/// Why the command ends, by the elector's reason, and what is said of it first.
fn begun(reason: &str) -> (End, &'static str) {
    match reason {
        reason if reason.starts_with("asked to leave") => (End::Made(None), "Shutdown triggered, killing child"),
        reason if reason.starts_with("the workload ended by itself") => (End::ByItself, ENDED),
        _ => (End::Made(None), "Lock lost, killing child"),
    }
}

const ENDED: &str = "Child terminated, releasing lock";

/// SIGKILL has ended the command.
const KILLED: Exit = Exit::Workload(128 + 9);

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Exit = Exit::Workload(0);

    #[test]
    fn a_command_that_ends_before_anybody_looks_is_told_of_all_the_same() {
        let mut state = State { held: true, ..State::default() };
        assert_eq!(state.rest(DONE), [ENDED]);
        assert!(state.rest(DONE).is_empty(), "nothing is said twice");
    }

    #[test]
    fn the_end_of_a_command_that_was_made_to_end_is_told() {
        let state = || State { held: true, end: Some(End::Made(Some(7))) };
        assert_eq!(state().rest(DONE), ["Child terminated"]);
        let killed = ["Child did not exit after grace period of 5s", "Killing child pid 7"];
        assert_eq!(state().rest(KILLED), killed);
        let mut unheard_of = State { held: true, end: Some(End::Made(None)) };
        assert!(unheard_of.rest(DONE).is_empty());
    }
}
