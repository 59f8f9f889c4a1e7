//! Beginning a stop: why, how, and what it does to the deadline.

use std::time::Duration;

use super::{Active, Cause, Phase, Stop};
use crate::clock::Instant;
use crate::io::Action;
use crate::machine::core::Core;
use crate::machine::{Entropy, OnExit};
use crate::timing::Plain;

/// What a second request to leave shortens the stop to.
pub const GRACE_IN_A_HURRY: Duration = Duration::from_secs(1);

impl Active {
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.phase, Phase::Stopping(stop) | Phase::Releasing(stop, _) if stop.lost)
    }

    /// Begins a stop with SIGTERM. Irreversible: a stop that is under way keeps its cause.
    /// See docs/safety.md R16.
    pub(super) fn stop<E: Entropy>(
        &mut self,
        core: &mut Core<E>,
        cause: Cause,
        to: Option<String>,
        grace: Duration,
        why: String,
    ) {
        if self.phase != Phase::Running {
            return;
        }
        let successor = to.or_else(|| core.candidates.first().cloned());
        let leaving = cause == Cause::Leaving;
        self.phase = Phase::Stopping(Stop { cause, successor: successor.clone(), lost: false, leaving });
        core.say(Action::Stop { grace, successor }, why);
    }

    /// SIGKILL. With `to_another` the lock is not ours to write any more.
    /// See docs/safety.md R7.
    pub(super) fn lose<E: Entropy>(&mut self, core: &mut Core<E>, why: &str, to_another: bool) {
        match &mut self.phase {
            Phase::Running => {
                let stop = Stop { cause: Cause::Loss, successor: None, lost: to_another, leaving: false };
                self.phase = Phase::Stopping(stop);
                core.say(Action::Kill, why);
            }
            Phase::Stopping(stop) if to_another && !stop.lost => {
                stop.lost = true;
                core.say(Action::Kill, why);
            }
            Phase::Releasing(stop, _) if to_another => stop.lost = true,
            Phase::Stopping(_) | Phase::Releasing(..) => {}
        }
    }

    pub(super) fn leave<E: Entropy>(&mut self, core: &mut Core<E>) {
        match &mut self.phase {
            Phase::Running => {
                let grace = core.settings.stop_grace;
                self.stop(core, Cause::Leaving, None, grace, "asked to leave: stopping the workload".to_owned());
            }
            Phase::Stopping(stop) if stop.leaving => {
                let successor = stop.successor.clone();
                let grace = core.settings.stop_grace.min(GRACE_IN_A_HURRY);
                core.say(Action::Stop { grace, successor }, "asked to leave again: a shorter grace");
            }
            Phase::Stopping(stop) | Phase::Releasing(stop, _) => {
                stop.leaving = true;
                core.say(Action::Note, "asked to leave: after the release");
            }
        }
    }

    pub(super) fn exited<E: Entropy>(&mut self, core: &mut Core<E>, code: i32) {
        match &mut self.phase {
            Phase::Running => {
                // Named, or all standbys would try at once and meet in conflicts.
                let successor = match core.settings.on_exit {
                    OnExit::Restart => Some(core.settings.name.clone()),
                    OnExit::Exit | OnExit::Standby => core.candidates.first().cloned(),
                };
                let stop = Stop { cause: Cause::Exited(code), successor, lost: false, leaving: false };
                self.phase = Phase::Stopping(stop);
                core.say(Action::Note, format!("the workload ended by itself with code {code}"));
            }
            // A planned stop leaves with the workload's own code.
            Phase::Stopping(stop) if matches!(stop.cause, Cause::Leaving | Cause::Released) => {
                stop.cause = Cause::Exited(code);
            }
            Phase::Stopping(_) | Phase::Releasing(..) => {}
        }
    }

    /// Lateness and size beyond half of what was assumed shrink the deadline before they break it.
    /// See docs/safety.md R9.
    pub(super) fn measured<E: Entropy>(&mut self, core: &mut Core<E>, lateness: Duration, proof: Duration) {
        let timing = core.settings.timing;
        if lateness * 2 <= timing.lateness() && proof <= timing.proof() {
            return;
        }
        // Twice what was measured where the lease has room for it, but never less.
        let roomy = timing.with_measured(lateness * 2, proof);
        match roomy.or_else(|_| timing.with_measured(lateness, proof)) {
            Ok(stricter) => {
                core.settings.timing = stricter;
                self.shorten(core, self.confirmed.at + self.kill_after(core, self.confirmed.lease));
                let why = format!(
                    "the guard was late by {} and a kill would take {}: the deadline is {} now",
                    Plain(lateness),
                    Plain(proof),
                    Plain(stricter.kill_after())
                );
                core.say(Action::Note, why);
            }
            Err(error) => {
                let grace = timing.grace();
                self.stop(core, Cause::Loss, None, grace, format!("this host is too slow for the lease: {error}"));
            }
        }
    }

    pub(super) fn shorten<E: Entropy>(&mut self, core: &mut Core<E>, kill_at: Instant) {
        if kill_at < self.kill_at {
            self.kill_at = kill_at;
            core.say(Action::Extend { kill_at }, "a shorter deadline");
        }
    }
}
