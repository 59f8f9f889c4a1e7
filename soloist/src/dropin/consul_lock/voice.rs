//! What `consul lock` says while it works: with `-verbose` only, and to standard output.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use election::Role;
use tokio::sync::watch;

use crate::member::Reading;
use crate::snapshot::{Snapshot, Workload};

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
                let lines = self.state().news(&snapshots.borrow_and_update(), self.passes_stdin);
                for line in lines {
                    self.say(&line);
                }
                if snapshots.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }

    /// Says what went by too quickly to be heard of: a command may end sooner than anybody looks.
    pub(super) fn conclude(&self) {
        let lines = self.state().rest(self.passes_stdin);
        for line in lines {
            self.say(&line);
        }
    }
}

/// What was said already.
#[derive(Default)]
struct State {
    held: bool,
    /// The command, while it runs.
    pid: Option<i32>,
    is_ending: bool,
}

impl State {
    fn news(&mut self, snapshot: &Snapshot, passes_stdin: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if snapshot.role == Role::Active {
            lines.extend(self.start(passes_stdin));
        }
        if let Workload::Running { pid, .. } = snapshot.workload {
            self.pid = Some(pid);
        }
        if snapshot.role == Role::Stopping && self.held && !std::mem::replace(&mut self.is_ending, true) {
            lines.extend(self.end(&snapshot.reason));
        }
        lines
    }

    fn start(&mut self, passes_stdin: bool) -> Vec<String> {
        if std::mem::replace(&mut self.held, true) {
            return Vec::new();
        }
        let stdin = passes_stdin.then_some("Stdin passed to handler process");
        ["Starting handler"].into_iter().chain(stdin).map(str::to_owned).collect()
    }

    /// The lock was held, and the command has ended.
    fn rest(&mut self, passes_stdin: bool) -> Vec<String> {
        let mut lines = self.start(passes_stdin);
        if !std::mem::replace(&mut self.is_ending, true) {
            lines.push(ENDED.to_owned());
        }
        lines
    }

    fn end(&self, reason: &str) -> Vec<String> {
        let terminating = self.pid.map(|pid| format!("Terminating child pid {pid}"));
        let began = match reason {
            reason if reason.starts_with("asked to leave") => "Shutdown triggered, killing child",
            reason if reason.starts_with("the workload ended by itself") => return vec![ENDED.to_owned()],
            _ => "Lock lost, killing child",
        };
        [began.to_owned()].into_iter().chain(terminating).collect()
    }
}

const ENDED: &str = "Child terminated, releasing lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ends_before_anybody_looks_is_told_of_all_the_same() {
        let mut state = State::default();
        assert_eq!(state.rest(true), ["Starting handler", "Stdin passed to handler process", ENDED]);
        assert!(state.rest(true).is_empty(), "nothing is said twice");
        let mut state = State { held: true, ..State::default() };
        assert_eq!(state.rest(false), [ENDED]);
    }
}
