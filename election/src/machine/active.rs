//! Active, until nothing of the workload is left and the lock says so.
//!
//! The deadline `kill_at` only ever follows from a confirmed send. Everything else stops the workload.

use std::time::Duration;

use super::core::{Core, Send, Sends};
use super::standby::Standby;
use super::{Entropy, OnExit, OnLoss, State};
use crate::clock::Instant;
use crate::io::{Action, Exit, Input, Request};
use crate::record::{Activation, Attempt, Claim, Holder, Proof, Release, Token};
use crate::register::{Seen, Version, Write};
use crate::timing::{LEASE_MAX, Timing};

/// What a second request to leave shortens the stop to.
const GRACE_IN_A_HURRY: Duration = Duration::from_secs(1);

/// A workload that ended sooner than this after its start is not started again at once.
const QUICK_END: Duration = Duration::from_secs(5);

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

/// What a look at the lock means to its holder.
enum Verdict {
    /// An older answer than one that was heard already.
    Stale,
    /// The own newest confirmed record, at a version that may be new.
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
    /// Begins an activation that `send` acquired. With `unusable` its workload is never started, only released.
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
            Input::Changed => self.must_read = !self.is_lost(),
            Input::Read(Ok(seen)) => return self.judge(core, now, &seen),
            Input::Read(Err(why)) => {
                self.next_send = now + core.settings.timing.backoff();
                core.say(Action::Note, format!("cannot read the lock: {why}"));
            }
            Input::Written { attempt, outcome } => return self.written(core, now, attempt, outcome),
            Input::Exited { code } => self.exited(core, code),
            Input::Gone { proof, released } => return self.gone(core, now, proof, released),
            Input::GuardLost => self.lose(core, "the guard died or does not answer", false),
            Input::Measured { lateness, proof } => self.measured(core, lateness, proof),
            Input::Health(_) => {}
            Input::Request(request) => self.answer(core, now, request),
            Input::Leave => self.leave(core),
        }
        self.proceed(core, now)
    }

    // === stopping ===

    fn is_lost(&self) -> bool {
        matches!(&self.phase, Phase::Stopping(stop) | Phase::Releasing(stop, _) if stop.lost)
    }

    /// Begins a stop with SIGTERM. Irreversible: a stop that is under way keeps its cause.
    fn stop<E: Entropy>(&mut self, core: &mut Core<E>, cause: Cause, to: Option<String>, grace: Duration, why: String) {
        if self.phase != Phase::Running {
            return;
        }
        let successor = to.or_else(|| core.candidates.first().cloned());
        let leaving = cause == Cause::Leaving;
        self.phase = Phase::Stopping(Stop { cause, successor: successor.clone(), lost: false, leaving });
        core.say(Action::Stop { grace, successor }, why);
    }

    /// SIGKILL. With `to_another` the lock is not ours to write any more.
    fn lose<E: Entropy>(&mut self, core: &mut Core<E>, why: &str, to_another: bool) {
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

    fn leave<E: Entropy>(&mut self, core: &mut Core<E>) {
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

    fn exited<E: Entropy>(&mut self, core: &mut Core<E>, code: i32) {
        match &mut self.phase {
            Phase::Running => {
                let restarts = core.settings.on_exit == OnExit::Restart;
                let successor = restarts.then(|| core.settings.name.clone());
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
    fn measured<E: Entropy>(&mut self, core: &mut Core<E>, lateness: Duration, proof: Duration) {
        let timing = core.settings.timing;
        if lateness * 2 <= timing.lateness() && proof <= timing.proof() {
            return;
        }
        match timing.with_measured(lateness * 2, proof) {
            Ok(stricter) => {
                core.settings.timing = stricter;
                self.shorten(core, self.confirmed.at + self.kill_after(core, self.confirmed.lease));
                let why = format!(
                    "the guard was late by {lateness:?} and a kill would take {proof:?}: the deadline is {:?} now",
                    stricter.kill_after()
                );
                core.say(Action::Note, why);
            }
            Err(error) => {
                let grace = timing.grace();
                self.stop(core, Cause::Loss, None, grace, format!("this host is too slow for the lease: {error}"));
            }
        }
    }

    fn shorten<E: Entropy>(&mut self, core: &mut Core<E>, kill_at: Instant) {
        if kill_at < self.kill_at {
            self.kill_at = kill_at;
            core.say(Action::Extend { kill_at }, "a shorter deadline");
        }
    }

    // === requests ===

    fn answer<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, request: Request) {
        if self.phase != Phase::Running {
            return core.refuse("this member is already stopping");
        }
        match request {
            Request::Switchover { to } => self.switch_over(core, to),
            Request::Pause { length, until_unix_ms } => self.begin_pause(core, now, length, until_unix_ms),
            Request::Resume if self.pause.is_none() => core.refuse("there is no pause"),
            Request::Resume => {
                self.end_pause(now);
                core.grant("the pause was ended by request");
            }
            Request::Fenced { .. } => core.refuse("this member is active itself"),
        }
    }

    fn switch_over<E: Entropy>(&mut self, core: &mut Core<E>, to: Option<String>) {
        let target = match to {
            Some(name) if name == core.settings.name => return core.refuse(&format!("{name} is active already")),
            Some(name) if !core.candidates.contains(&name) => {
                return core.refuse(&format!("{name} did not announce itself healthy within two minutes"));
            }
            Some(name) => name,
            None => match core.candidates.first() {
                Some(name) => name.clone(),
                None => return core.refuse("no other member announced itself healthy within two minutes"),
            },
        };
        core.grant(format!("switching over to {target}"));
        let grace = core.settings.stop_grace;
        let why = format!("switchover to {target}: stopping the workload");
        self.stop(core, Cause::Switchover, Some(target), grace, why);
    }

    fn begin_pause<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, length: Duration, until_unix_ms: u64) {
        if core.foreign_seen {
            return core.refuse("a foreign holder was seen on this lock, and it would not honour a pause");
        }
        let lease = core.settings.timing.lease();
        if length.is_zero() || length.checked_add(lease).is_none_or(|whole| whole > LEASE_MAX) {
            let most = LEASE_MAX - lease;
            return core.refuse(&format!("a pause of {length:?} is not possible: more than 0 and at most {most:?} is"));
        }
        self.pause = Some(Pause { until: now + length, until_unix_ms });
        self.next_send = now;
        core.grant(format!("paused for {length:?}"));
    }

    fn end_pause(&mut self, now: Instant) {
        self.pause = None;
        self.next_send = now;
    }

    // === the lock ===

    /// D for a record that carries `lease`.
    fn kill_after<E: Entropy>(&self, core: &Core<E>, lease: Duration) -> Duration {
        let timing: Timing = core.settings.timing;
        // A pause is longer than the own lease, so this cannot fail; were it to, the shorter D is the safe one.
        timing.for_lease(lease).map_or(timing.kill_after(), |longer| longer.kill_after())
    }

    fn written<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, attempt: Attempt, outcome: Write) -> State {
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
                self.next_send = now + timing.backoff();
            }
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
        let known = self.version != Version::ABSENT && seen.version.incarnation == self.version.incarnation;
        if known && seen.version.number < self.version.number {
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
            Claim::Foreign(foreign) => match &foreign.holder {
                Some(holder) if *holder != core.settings.name => Verdict::Lost(format!("the lock names {holder}")),
                _ => Verdict::Contested(seen.version, foreign.why.clone()),
            },
        }
    }

    fn verdict_on_own(&self, version: Version, holder: &Holder) -> Verdict {
        if holder.attempt == self.confirmed.attempt {
            return Verdict::Same(version);
        }
        match self.sends.find(holder.attempt) {
            Some(send) => Verdict::Landed(version, send),
            None => Verdict::Cloned,
        }
    }

    /// Takes in one answer of the store. None of them extends, except one that shows an own send.
    fn judge<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, seen: &Seen) -> State {
        let backoff = core.settings.timing.backoff();
        match self.verdict(core, seen) {
            Verdict::Stale => self.next_send = now + backoff,
            Verdict::Same(version) if version == self.version => {}
            Verdict::Same(version) => {
                self.version = version;
                self.next_send = now;
                core.say(Action::Note, "somebody edited the lock around this activation; rewriting it");
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
            Verdict::Contested(version, why) => {
                self.version = version;
                self.next_send = now.max(self.last_send() + backoff);
                core.say(Action::Note, format!("the lock was overwritten ({why}); rewriting it without an extension"));
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

    fn last_send(&self) -> Instant {
        self.sends.last().map_or(self.confirmed.at, |send| send.at)
    }

    fn renew<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
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

    fn release<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
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

    // === the end ===

    fn gone<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, proof: Proof, released: Option<Version>) -> State {
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
        if let Some(version) = released {
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

    fn finish<E: Entropy>(self, core: &mut Core<E>, now: Instant) -> State {
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
        Standby::after(core, now + pause, "standing by again")
    }

    // === time ===

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
        if self.must_read || core.wants_another_read() {
            self.must_read = false;
            core.read("to see what the lock says of this activation");
        } else if now >= self.next_send {
            match &self.phase {
                Phase::Running | Phase::Stopping(_) => self.renew(core, now),
                Phase::Releasing(..) => self.release(core, now),
            }
        }
        State::Active(self)
    }

    /// SIGTERM a grace before the deadline; SIGKILL on it is the guard's, and said here once more.
    fn give_up_in_time<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant) {
        let grace = core.settings.timing.grace();
        if self.phase == Phase::Running && now + grace >= self.kill_at {
            let since = now.since(self.confirmed.at);
            let why = format!("no renewal was confirmed for {since:?}: stopping before the lease runs out");
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
