//! Active, until nothing of the workload is left and the lock says so.
//!
//! The deadline `kill_at` only ever follows from a confirmed send. Everything else stops the workload.

mod ending;
mod lock;
mod requests;
mod stopping;

pub use stopping::GRACE_IN_A_HURRY;

use super::core::{Core, Send, Sends};
use super::{Entropy, OnExit, State};
use crate::clock::Instant;
use crate::io::{Action, Input};
use crate::record::{Activation, Attempt, Proof, Token};
use crate::register::Version;
use crate::timing::Plain;

/// One activation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Active {
    activation: Activation,
    token: Token,
    since: Instant,
    /// The newest version known to carry this activation: what the next write quotes.
    version: Version,
    /// The send that the deadline is counted from.
    confirmed: Send,
    kill_at: Instant,
    sends: Sends,
    next_send: Instant,
    /// An answer made it necessary to read before the next write.
    must_read: bool,
    /// The lock may have changed: to be read when no renewal is due, which would tell as much.
    noticed: bool,
    /// The last write met a conflict that no read has explained yet.
    conflict: bool,
    pause: Option<Pause>,
    /// The lock vanished and a create was sent, which may land at any later time.
    recreated: bool,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pause {
    until: Instant,
    until_unix_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The workload may run.
    Running,
    /// The workload is being stopped; irreversible. The lock is still renewed, except after a loss.
    Stopping(Stop),
    /// Nothing of the workload is left; the release is on its way.
    Releasing(Stop, Ending),
}

/// How an activation ended, and how far its release has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ending {
    proof: Proof,
    /// The first send that carried the release; sends before it were renewals.
    released_by: Option<Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stop {
    cause: Cause,
    successor: Option<String>,
    /// The lock is somebody else's already: nothing may be written to it any more.
    lost: bool,
    /// Leave the process afterwards.
    leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    Leaving,
    Switchover,
    Unhealthy,
    Exited(i32),
    /// Out of time, contradicted by the lock, or without a guard.
    Loss,
    /// The lock says so first: most likely the own guard released, and its report is on its way.
    Released,
    /// Confirmed, but never started.
    Unusable,
}

impl Active {
    /// Begins an activation that `send` acquired. With `unusable` its workload is never started, only released.
    /// See docs/safety.md R2 and R14.
    #[expect(clippy::too_many_arguments, reason = "the facts of one confirmed write, used once")]
    pub fn begin<E: Entropy>(
        core: &mut Core<E>,
        now: Instant,
        activation: Activation,
        version: Version,
        send: Send,
        why: &str,
        unusable: Option<String>,
        leaving: bool,
    ) -> State {
        let token = Token(version.number);
        let kill_at = send.at + core.settings.timing.kill_after();
        let phase = match &unusable {
            None => Phase::Running,
            Some(_) => {
                let stop = Stop { cause: Cause::Unusable, successor: None, lost: false, leaving };
                Phase::Releasing(stop, Ending { proof: Proof::NeverStarted, released_by: None })
            }
        };
        let period = core.settings.timing.period();
        let next_send = if unusable.is_some() { now } else { send.at + core.jittered(period) };
        let active = Self {
            activation,
            token,
            since: now,
            version,
            confirmed: send,
            kill_at,
            sends: Sends::default(),
            next_send,
            must_read: false,
            noticed: false,
            conflict: false,
            pause: None,
            recreated: false,
            phase,
        };
        match unusable {
            Some(why) => core.say(Action::Note, format!("not started, released at once: {why}")),
            None => {
                assert!(kill_at > now, "started with a deadline in the past");
                let restarts = core.settings.on_exit == OnExit::Restart;
                let successor = restarts.then(|| core.settings.name.clone());
                let action = Action::Start { activation, token, kill_at, successor };
                core.say(action, format!("active with token {token}: {why}"));
            }
        }
        active.proceed(core, now)
    }

    pub fn is_stopping(&self) -> bool {
        self.phase != Phase::Running
    }

    pub fn activation(&self) -> (Activation, Token, Instant) {
        (self.activation, self.token, self.kill_at)
    }

    pub fn on<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, input: Input) -> State {
        match input {
            Input::Wake | Input::Candidates(_) => {}
            Input::Changed => self.noticed = true,
            Input::Read(Ok(seen)) => return self.judge(core, now, &seen),
            Input::Read(Err(why)) => core.say(Action::Note, format!("cannot read the lock: {why}")),
            Input::Written { attempt, outcome } => return self.written(core, now, attempt, outcome),
            Input::Exited { code } => self.exited(core, code),
            Input::Gone { proof, released } => return self.gone(core, now, proof, released),
            Input::GuardLost => self.lose(core, "the guard died or does not answer", false),
            Input::Forsaken => return ending::forsaken(core),
            Input::Measured { lateness, proof } => self.measured(core, lateness, proof),
            Input::Health(_) => {}
            Input::Request(request) => self.answer(core, now, request),
            Input::Leave => self.leave(core),
        }
        self.proceed(core, now)
    }

    /// Does what is due. Called after every input.
    fn proceed<E: Entropy>(mut self, core: &mut Core<E>, now: Instant) -> State {
        self.give_up_in_time(core, now);
        if self.pause.as_ref().is_some_and(|pause| now >= pause.until) {
            self.end_pause(now);
            core.say(Action::Note, "the pause is over");
        }
        self.heed_health(core);
        if !core.is_idle() {
            return State::Active(self);
        }
        if let Phase::Releasing(stop, _) = &self.phase
            && (stop.lost || self.version == Version::ABSENT || now > self.confirmed.at + self.confirmed.lease * 2)
        {
            // Somebody else's already; or absent, where a release could follow anybody's; or so late that every
            // observer has waited out the lease.
            return self.finish(core, now);
        }
        if self.is_lost() {
            return State::Active(self);
        }
        if self.must_read {
            (self.must_read, self.noticed) = (false, false);
            core.read("to see what the lock says of this activation");
        } else if now >= self.next_send {
            match &self.phase {
                Phase::Running | Phase::Stopping(_) => self.renew(core, now),
                Phase::Releasing(..) => self.release(core, now),
            }
        } else if std::mem::take(&mut self.noticed) {
            core.read("the lock may have changed");
        }
        State::Active(self)
    }

    /// SIGTERM a grace before the deadline; SIGKILL on it is the guard's, and said here once more.
    /// See docs/safety.md R3 and R16.
    fn give_up_in_time<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
        let grace = core.settings.timing.grace();
        if self.phase == Phase::Running && now + grace >= self.kill_at {
            let since = Plain(now.since(self.confirmed.at));
            let why = format!("no renewal was confirmed for {since}: stopping before the lease runs out");
            self.stop(core, Cause::Loss, None, self.kill_at.since(now).min(grace), why);
        }
    }

    /// An unhealthy active member gives up only where somebody healthy can take over.
    fn heed_health<E: Entropy>(&mut self, core: &mut Core<E>) {
        if core.healthy || core.candidates.is_empty() {
            return;
        }
        let grace = core.settings.stop_grace;
        self.stop(core, Cause::Unhealthy, None, grace, "this member is unhealthy and another is not".to_owned());
    }

    pub fn next_wakeup<E: Entropy>(&self, core: &Core<E>) -> Option<Instant> {
        let send = (core.is_idle() && !self.is_lost()).then_some(self.next_send);
        let give_up = (self.phase == Phase::Running).then(|| self.kill_at - core.settings.timing.grace());
        let resume = self.pause.as_ref().map(|pause| pause.until);
        [send, give_up, resume].into_iter().flatten().min()
    }
}
