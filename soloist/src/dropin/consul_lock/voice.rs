//! What `consul lock` says while it works: with `-verbose` only, and to standard output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use election::Role;
use tokio::sync::watch;

use crate::member::Reading;
use crate::snapshot::{Snapshot, Workload};

/// Says what changed, and remembers whether the lock was ever held.
#[derive(Clone, Default)]
pub(super) struct Voice {
    is_verbose: bool,
    passes_stdin: bool,
    held: Arc<AtomicBool>,
}

impl Voice {
    pub(super) fn new(is_verbose: bool, passes_stdin: bool) -> Self {
        Self { is_verbose, passes_stdin, held: Arc::default() }
    }

    /// A line, where lines are wanted.
    pub(super) fn say(&self, line: &str) {
        if self.is_verbose {
            use std::io::Write as _;
            // Nobody is left to tell if that is closed.
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
    }

    /// Whether the lock was ever held.
    pub(super) fn has_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Follows the elector to its end.
    pub(super) fn follow(self, mut snapshots: watch::Receiver<Snapshot>) -> Reading {
        Box::pin(async move {
            let mut state = State::default();
            loop {
                let lines = state.news(&snapshots.borrow_and_update(), self.passes_stdin);
                if state.held {
                    self.held.store(true, Ordering::Relaxed);
                }
                for line in lines {
                    self.say(&line);
                }
                if snapshots.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }
}

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
        if snapshot.role == Role::Active && !std::mem::replace(&mut self.held, true) {
            lines.push("Starting handler".to_owned());
            if passes_stdin {
                lines.push("Stdin passed to handler process".to_owned());
            }
        }
        if let Workload::Running { pid, .. } = snapshot.workload {
            self.pid = Some(pid);
        }
        if snapshot.role == Role::Stopping && self.held && !std::mem::replace(&mut self.is_ending, true) {
            lines.extend(self.end(&snapshot.reason));
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
