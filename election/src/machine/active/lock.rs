//! Renewing and releasing: what is sent, and what the answers mean.

use std::time::Duration;

use super::{Active, Cause, Phase, Stop};
use crate::clock::Instant;
use crate::io::Action;
use crate::machine::core::{Core, Send};
use crate::machine::{Entropy, State};
use crate::record::{Attempt, Claim, Holder, Release};
use crate::register::{Seen, Version, Write};
use crate::timing::Timing;

/// What a look at the lock means to its holder.
enum Verdict {
    /// An older answer than one that was heard already.
    Stale,
    /// The own newest confirmed record, at a version that may be new: others may keep something beside it.
    Same(Version),
    /// A send of this activation that landed.
    Landed(Version, Send),
    /// Written by hand, or by a program that names nobody else: to be rewritten.
    Contested(Version, String),
    Absent,
    /// This activation was released, and not by a send of this machine.
    Released,
    Lost(String),
    /// Somebody writes with this member's nonce and activation.
    Cloned,
}

impl Active {
    /// D for a record that carries `lease`.
    /// See docs/safety.md R9.
    pub(super) fn kill_after<E: Entropy>(&self, core: &Core<E>, lease: Duration) -> Duration {
        let timing: Timing = core.settings.timing;
        // A pause is longer than the own lease, so this cannot fail; were it to, the shorter D is the safe one.
        timing.for_lease(lease).map_or(timing.kill_after(), |longer| longer.kill_after())
    }

    pub(super) fn written<E: Entropy>(
        mut self,
        core: &mut Core<E>,
        now: Instant,
        attempt: Attempt,
        outcome: Write,
    ) -> State {
        let send = self.sends.find(attempt);
        if let (Write::Written(version), Phase::Releasing(_, ending)) = (&outcome, &self.phase) {
            if ending.released_by.is_some_and(|first| attempt.count >= first.count) {
                core.newest = Some(*version);
                return self.finish(core, now);
            }
            // A renewal that was under way when the workload went: the release must quote its version.
            self.version = *version;
            self.next_send = now;
            return self.proceed(core, now);
        }
        let timing = core.settings.timing;
        match outcome {
            Write::Written(version) => match send {
                Some(send) => self.confirm(core, version, send),
                None => self.must_read = true,
            },
            Write::Conflict => {
                self.must_read = true;
                self.conflict = true;
                if self.version == Version::ABSENT {
                    // It does exist, then. What is known of it is the better guess.
                    self.version = core.newest.unwrap_or(Version::ABSENT);
                }
                self.next_send = now + timing.backoff();
            }
            Write::Gone if now >= self.kill_at => self.lose(core, "the lock vanished after the deadline", true),
            Write::Gone => {
                self.version = Version::ABSENT;
                self.next_send = now + timing.backoff();
                core.say(Action::Note, "the lock vanished; it is created again while the deadline holds");
            }
            Write::Lost(why) => self.lose(core, &format!("the lock is lost: {why}"), true),
            Write::Denied(why) => {
                self.next_send = now + timing.backoff();
                core.say(Action::Note, format!("cannot write the lock: {why}"));
            }
            Write::Throttled(after) => {
                let share = self.kill_at.since(now) / 4;
                self.next_send = now + after.min(share).max(timing.backoff());
            }
            Write::Unknown(why) => {
                self.next_send = now + timing.backoff();
                core.say(Action::Note, format!("nobody knows whether the renewal landed: {why}"));
            }
        }
        self.proceed(core, now)
    }

    /// Only this extends.
    /// See docs/safety.md R2 and R3.
    fn confirm<E: Entropy>(&mut self, core: &mut Core<E>, version: Version, send: Send) {
        self.sends.settle(send.attempt);
        self.version = version;
        core.newest = Some(version);
        self.confirmed = send;
        let period = core.settings.timing.period();
        let next_send = send.at + core.jittered(period);
        // A pause that began while this send was under way is due already.
        self.next_send = if send.lease == self.wanted_lease(core, send.at) { next_send } else { send.at };
        let kill_at = send.at + self.kill_after(core, send.lease);
        if kill_at > self.kill_at {
            self.kill_at = kill_at;
            core.say(Action::Extend { kill_at }, format!("renewed by attempt {}", send.attempt));
        }
    }

    /// The lease that a record sent at `at` carries: through a pause, what is left of it on top of the own.
    fn wanted_lease<E: Entropy>(&self, core: &Core<E>, at: Instant) -> Duration {
        let rest = self.pause.as_ref().map_or(Duration::ZERO, |pause| pause.until.since(at));
        core.settings.timing.lease() + rest
    }

    fn verdict<E: Entropy>(&self, core: &Core<E>, seen: &Seen) -> Verdict {
        let Some(record) = &seen.record else { return Verdict::Absent };
        // Not `self.version`, which a stale "absent" resets.
        let is_older =
            |newest: Version| seen.version.incarnation == newest.incarnation && seen.version.number < newest.number;
        if core.newest.is_some_and(is_older) {
            return Verdict::Stale;
        }
        match &record.claim {
            Claim::Held(holder) if holder.activation == self.activation => self.verdict_on_own(seen.version, holder),
            Claim::Held(holder) => Verdict::Lost(format!("the lock names {}", holder.member.name)),
            Claim::Released(release) if release.activation == self.activation => {
                match self.sends.find(release.attempt) {
                    Some(send) if matches!(self.phase, Phase::Releasing(..)) => Verdict::Landed(seen.version, send),
                    _ => Verdict::Released,
                }
            }
            Claim::Released(release) => {
                Verdict::Lost(format!("the lock was held and released by {}", release.member.name))
            }
            Claim::Vacant(vacancy) => {
                Verdict::Contested(seen.version, format!("{} found it absent", vacancy.member.name))
            }
            Claim::Foreign(foreign) => match &foreign.holder {
                Some(holder) if *holder != core.settings.name => Verdict::Lost(format!("the lock names {holder}")),
                _ => Verdict::Contested(seen.version, foreign.why.clone()),
            },
        }
    }

    // docs/safety.md R10: an attempt that was never sent is a clone's.
    fn verdict_on_own(&self, version: Version, holder: &Holder) -> Verdict {
        if holder.attempt == self.confirmed.attempt {
            return Verdict::Same(version);
        }
        match self.sends.find(holder.attempt) {
            Some(send) => Verdict::Landed(version, send),
            None if holder.attempt.count < self.confirmed.attempt.count => {
                Verdict::Contested(version, "an earlier record of this activation was put back".to_owned())
            }
            None => Verdict::Cloned,
        }
    }

    /// Takes in one answer of the store. None of them extends, except one that shows an own send.
    /// See docs/safety.md R3, R5 and R7.
    pub(super) fn judge<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, seen: &Seen) -> State {
        let backoff = core.settings.timing.backoff();
        let conflict = std::mem::take(&mut self.conflict);
        match self.verdict(core, seen) {
            // The store refused what it should know and shows what is older: it went back.
            Verdict::Stale if conflict => self.lose(core, "the store went back to an older state", true),
            Verdict::Stale => self.next_send = now + backoff,
            Verdict::Same(version) if version == self.version => {
                if conflict {
                    // Refused although nothing has moved: not to be repeated at full speed.
                    self.next_send = now + backoff;
                }
            }
            Verdict::Same(version) => {
                self.version = version;
                let edited = self.is_edited(seen);
                if edited {
                    core.say(Action::Note, "somebody edited the lock around this activation; rewriting it");
                }
                if edited || conflict {
                    self.next_send = now;
                }
            }
            Verdict::Landed(version, send) if matches!(self.phase, Phase::Releasing(..)) => {
                if matches!(seen.record.as_ref().map(|record| &record.claim), Some(Claim::Released(_))) {
                    core.newest = Some(version);
                    return self.finish(core, now);
                }
                // A late renewal: the release must quote its version.
                self.sends.settle(send.attempt);
                self.version = version;
                self.next_send = now;
            }
            Verdict::Landed(version, send) => self.confirm(core, version, send),
            // Until the deadline nobody else can have been there; after it a record without a name proves nothing.
            Verdict::Contested(_, why) if self.may_be_succeeded(now) => {
                self.lose(core, &format!("the lock was overwritten ({why}) when it may have been another's"), true);
            }
            Verdict::Contested(version, why) => {
                self.version = version;
                self.next_send = now.max(self.last_send() + backoff);
                core.say(Action::Note, format!("the lock was overwritten ({why}); rewriting it without an extension"));
            }
            Verdict::Absent if now >= self.kill_at => {
                self.lose(core, "the lock is absent after the deadline", true);
            }
            Verdict::Absent => {
                self.version = Version::ABSENT;
                self.next_send = now.max(self.last_send() + backoff);
                core.say(Action::Note, "the lock is absent; it is created again while the deadline holds");
            }
            Verdict::Released => match &mut self.phase {
                Phase::Running => {
                    let stop = Stop { cause: Cause::Released, successor: None, lost: true, leaving: false };
                    self.phase = Phase::Stopping(stop);
                    core.say(Action::Kill, "the lock says that this activation was released");
                }
                Phase::Stopping(stop) | Phase::Releasing(stop, _) => stop.lost = true,
            },
            Verdict::Lost(why) => self.lose(core, &why, true),
            Verdict::Cloned => {
                core.renew_nonce();
                self.lose(core, "a clone of this member writes with its nonce", true);
            }
        }
        self.proceed(core, now)
    }

    /// Whether the record carries another lease than was sent. A store may keep whole milliseconds only.
    fn is_edited(&self, seen: &Seen) -> bool {
        let sent = self.confirmed.lease;
        seen.record.as_ref().is_some_and(|record| record.lease.abs_diff(sent) >= Duration::from_millis(1))
    }

    /// Past the deadline, or once a release was sent, somebody else may have had the lock in between.
    fn may_be_succeeded(&self, now: Instant) -> bool {
        let release_was_sent = matches!(&self.phase, Phase::Releasing(_, ending) if ending.released_by.is_some());
        now >= self.kill_at || release_was_sent
    }

    fn last_send(&self) -> Instant {
        self.sends.last().map_or(self.confirmed.at, |send| send.at)
    }

    // docs/safety.md R9: a shorter deadline before the send, a longer one after the confirmation.
    pub(super) fn renew<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
        if self.version == Version::ABSENT && now >= self.kill_at {
            return self.lose(core, "the lock is absent after the deadline", true);
        }
        let lease = self.wanted_lease(core, now);
        // Observers may go by the new lease from the moment it is stored, whatever the answer says.
        self.shorten(core, now + self.kill_after(core, lease));
        let (activation, token, member) = (self.activation, self.token, core.member());
        let paused_until = self.pause.as_ref().map(|pause| pause.until_unix_ms);
        let send = core.write(now, self.version, lease, paused_until, "renewing", |attempt| {
            Claim::Held(Holder { member, activation, attempt, token: Some(token) })
        });
        self.sends.push(send);
        self.recreated |= self.version == Version::ABSENT;
        self.next_send = now + core.settings.timing.period();
    }

    // docs/safety.md R4 and R5.
    pub(super) fn release<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
        let Phase::Releasing(stop, ending) = &mut self.phase else { return };
        let (activation, member, proof) = (self.activation, core.member(), ending.proof);
        let (lease, successor) = (core.settings.timing.lease(), stop.successor.clone());
        let reason = format!("releasing ({})", proof.word());
        let send = core.write(now, self.version, lease, None, reason, |attempt| {
            Claim::Released(Release { member, activation, attempt, proof, successor })
        });
        ending.released_by.get_or_insert(send.attempt);
        self.sends.push(send);
        self.next_send = now + core.settings.timing.backoff();
    }
}
