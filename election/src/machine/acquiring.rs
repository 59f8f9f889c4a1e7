//! Acquiring: the member writes itself into the lock and must know how that ended before it does anything else.

use super::active::Active;
use super::core::{Core, Send, Sends};
use super::standby::Standby;
use super::{Entropy, State, refuse_as_standby};
use crate::clock::Instant;
use crate::io::{Action, Input};
use crate::record::{Activation, Claim, Holder, Token};
use crate::register::{Evidence, Seen, Version, Write};

/// An acquiring write is under way or unresolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Acquiring {
    /// What to go back to if nothing is stored.
    before: Standby,
    activation: Activation,
    /// The version that every send of this activation quotes: once the lock has moved on, none of them can land.
    expected: Version,
    sends: Sends,
    /// Some send may have landed.
    unresolved: bool,
    why: String,
    retry_at: Option<Instant>,
    /// Asked to leave: only after it is known how the write ended.
    leaving: bool,
}

impl Acquiring {
    pub fn begin<E: Entropy>(
        core: &mut Core<E>,
        now: Instant,
        before: Standby,
        expected: Version,
        why: String,
    ) -> State {
        let activation = Activation(core.bits128());
        let mut acquiring = Self {
            before,
            activation,
            expected,
            sends: Sends::default(),
            unresolved: false,
            why,
            retry_at: None,
            leaving: false,
        };
        acquiring.send(core, now);
        State::Acquiring(acquiring)
    }

    fn send<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
        self.retry_at = None;
        let lease = core.settings.timing.lease();
        let activation = self.activation;
        let member = core.member();
        let reason = format!("acquiring: {}", self.why);
        let send = core.write(now, self.expected, lease, None, reason, |attempt| {
            Claim::Held(Holder { member, activation, attempt, token: None })
        });
        self.sends.push(send);
    }

    pub fn on<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, input: Input) -> State {
        match input {
            Input::Written { attempt, outcome } => {
                let send = self.sends.find(attempt);
                return self.written(core, now, send, outcome);
            }
            Input::Read(Ok(seen)) => return self.resolve(core, now, seen),
            Input::Read(Err(_)) => self.retry_at = Some(now + core.settings.timing.backoff()),
            Input::Leave => self.leaving = true,
            Input::Request(request) => refuse_as_standby(core, &request),
            // The answer to the write tells more than a change notice that it causes itself.
            Input::Changed | Input::Wake | Input::Health(_) | Input::Candidates(_) => {}
            Input::Exited { .. } | Input::Gone { .. } | Input::GuardLost | Input::Forsaken | Input::Measured { .. } => {
            }
        }
        if core.is_idle() && self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            core.read("to learn whether the acquiring write landed");
        }
        State::Acquiring(self)
    }

    fn written<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, send: Option<Send>, outcome: Write) -> State {
        match outcome {
            Write::Written(version) => match send {
                Some(send) => self.confirmed(core, now, version, send),
                None => self.back_to_standby(core, now, "an answer came to an attempt that was forgotten"),
            },
            Write::Conflict | Write::Gone => {
                core.read("to see who was first");
                State::Acquiring(self)
            }
            Write::Unknown(why) => {
                self.unresolved = true;
                self.retry_at = Some(now + core.settings.timing.backoff());
                core.say(Action::Note, format!("nobody knows whether the acquiring write landed: {why}"));
                State::Acquiring(self)
            }
            Write::Denied(why) | Write::Lost(why) => self.not_stored(core, now, &why),
            Write::Throttled(after) => {
                let timing = &core.settings.timing;
                let at = now + after.min(timing.lease()).max(timing.backoff());
                if self.unresolved {
                    self.retry_at = Some(at);
                    return State::Acquiring(self);
                }
                self.back_to_standby(core, at, "the store asked to wait")
            }
        }
    }

    fn not_stored<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, why: &str) -> State {
        core.say(Action::Note, format!("cannot acquire the lock: {why}"));
        let at = now + core.settings.timing.period();
        if self.unresolved {
            // An earlier send may still land: only a read that shows another version settles it.
            self.retry_at = Some(at);
            return State::Acquiring(self);
        }
        self.back_to_standby(core, at, "the acquiring write was refused")
    }

    /// A read after a conflict or an unknown outcome.
    /// See docs/safety.md R12.
    fn resolve<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, seen: Seen) -> State {
        if let Some(Claim::Held(holder)) = seen.record.as_ref().map(|record| &record.claim)
            && holder.activation == self.activation
        {
            return match self.sends.find(holder.attempt) {
                Some(send) => self.confirmed(core, now, seen.version, send),
                None => self.cloned(core, now),
            };
        }
        if seen.version == self.expected && self.unresolved {
            // It has not landed yet but still may: write again against the same version, so that only one of them can.
            self.send(core, now);
            return State::Acquiring(self);
        }
        if seen.version == self.expected {
            // The platform's own lock has come meanwhile: the record may be taken over now. Otherwise not so soon.
            let has_come =
                self.before.was_kept_out() && matches!(seen.evidence, Evidence::Gone(_) | Evidence::Unproven);
            let period = core.settings.timing.period();
            let at = if has_come { now } else { now + core.jittered(period) };
            return self.back_to_standby(core, at, "the lock did not take the write");
        }
        self.back_to_standby(core, now, "somebody else was first")
    }

    // docs/safety.md R11 (token), R14 (too late).
    fn confirmed<E: Entropy>(self, core: &mut Core<E>, now: Instant, version: Version, send: Send) -> State {
        core.newest = Some(version);
        core.rewound_since = None;
        let token = Token(version.number);
        let unusable = if token <= core.largest_token {
            Some(format!("token {token} is not larger than {}, which was seen before", core.largest_token))
        } else if now + core.settings.timing.grace() >= send.at + core.settings.timing.kill_after() {
            Some("the acquiring write was confirmed too late to be used".to_owned())
        } else if !core.healthy {
            Some("this member became unhealthy while it acquired the lock".to_owned())
        } else {
            self.leaving.then(|| "asked to leave while it acquired the lock".to_owned())
        };
        core.largest_token = core.largest_token.max(token);
        Active::begin(core, now, self.activation, version, send, &self.why, unusable, self.leaving)
    }

    /// Somebody writes with this member's nonce and activation.
    /// See docs/safety.md R10.
    fn cloned<E: Entropy>(self, core: &mut Core<E>, now: Instant) -> State {
        core.renew_nonce();
        self.back_to_standby(core, now, "a clone of this member writes with its nonce; a new one was drawn")
    }

    fn back_to_standby<E: Entropy>(self, core: &mut Core<E>, not_before: Instant, reason: &str) -> State {
        core.say(Action::Note, reason);
        if self.leaving {
            return super::leave_idle(core);
        }
        self.before.resume(core, not_before, reason)
    }

    pub fn next_wakeup<E: Entropy>(&self, core: &Core<E>) -> Option<Instant> {
        if core.is_idle() { self.retry_at } else { None }
    }
}
