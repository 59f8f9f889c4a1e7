//! After the proof: the release is settled, then the member leaves or stands by.

use std::time::Duration;

use super::{Active, Cause, Ending, Phase, Stop};
use crate::clock::Instant;
use crate::io::{Action, Exit};
use crate::machine::core::Core;
use crate::machine::standby::Standby;
use crate::machine::{Entropy, OnExit, OnLoss, State};
use crate::record::Proof;
use crate::register::Version;

/// A workload that ended sooner than this after its start is not started again at once.
const QUICK_END: Duration = Duration::from_secs(5);

/// Without a proof there is no release: the lease runs out, which the deadline of the workload comes before.
/// See docs/safety.md R4.
pub(super) fn forsaken<E: Entropy>(core: &mut Core<E>) -> State {
    core.say(Action::Exit(Exit::LeaseLost), "the workload is out of sight: leaving without a release");
    State::Ended
}

impl Active {
    // docs/safety.md R4: only the proof leads to a release.
    pub(super) fn gone<E: Entropy>(
        mut self,
        core: &mut Core<E>,
        now: Instant,
        proof: Proof,
        released: Option<Version>,
    ) -> State {
        if !self.recreated {
            // A late create would put this activation into a lock that others have used since: never vouched for.
            core.remember_ended(self.activation, proof);
        }
        let stop = match self.phase {
            Phase::Stopping(stop) => stop,
            Phase::Running => {
                core.say(Action::Note, "the guard ended the workload");
                Stop { cause: Cause::Loss, successor: None, lost: false, leaving: false }
            }
            // Unusable: it was never started, so nothing can go.
            Phase::Releasing(..) => return State::Active(self),
        };
        let is_settled = stop.lost || released.is_some();
        if let Some(version) = released
            && !core.newest.is_some_and(|newest| version.rewinds(newest))
        {
            core.newest = Some(version);
        }
        self.phase = Phase::Releasing(stop, Ending { proof, released_by: None });
        if is_settled && core.is_idle() {
            return self.finish(core, now);
        }
        if released.is_some()
            && let Phase::Releasing(stop, _) = &mut self.phase
        {
            // The guard has written the release; what is still under way can only meet a conflict.
            stop.lost = true;
        }
        self.next_send = now;
        self.proceed(core, now)
    }

    pub(super) fn finish<E: Entropy>(self, core: &mut Core<E>, now: Instant) -> State {
        let Phase::Releasing(stop, ending) = self.phase else { return State::Active(self) };
        let timing = core.settings.timing;
        let ended = format!("nothing of the workload is left ({})", ending.proof.word());
        let exit = match stop.cause {
            Cause::Exited(code) if stop.leaving || core.settings.on_exit == OnExit::Exit => Some(Exit::Workload(code)),
            Cause::Loss | Cause::Released if core.settings.on_loss == OnLoss::Exit => Some(Exit::LeaseLost),
            _ => stop.leaving.then_some(Exit::StoodBy),
        };
        if let Some(exit) = exit {
            core.say(Action::Exit(exit), ended);
            return State::Ended;
        }
        let pause = match stop.cause {
            Cause::Exited(_) if core.settings.on_exit == OnExit::Restart => {
                if now.since(self.since) < QUICK_END {
                    timing.period()
                } else {
                    Duration::ZERO
                }
            }
            Cause::Unusable => timing.period(),
            _ => timing.courtesy() * 2,
        };
        core.say(Action::Note, ended);
        core.say(Action::StepBack { pause }, "others may go first");
        let (again, reason) = (now + pause, "standing by again");
        match stop.cause {
            Cause::Switchover => Standby::courteously(core, again, reason),
            // Whatever went wrong may go wrong again: nobody's wish shortens that.
            _ => Standby::after(core, again, reason),
        }
    }
}
