//! What outlives a state: settings, identity, what was ever seen, and the one store operation under way.

use std::time::Duration;

use super::{Absence, Entropy, Settings};
use crate::clock::Instant;
use crate::io::{Action, Input, Output, Refusal, RefusalKind};
use crate::record::{Activation, Attempt, Claim, Member, Nonce, Proof, Record, Token};
use crate::register::{Seen, Version};

/// An activation's attempts whose fate may still be told by a read. A long outage inside a pause sees more of them.
const SENDS_MAX: usize = 64;

/// Ended activations that are remembered, to release them once more if they are seen again.
const ENDED_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Read,
    Write(Attempt),
}

/// One request to the store that carried an attempt id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Send {
    pub attempt: Attempt,
    /// Read before the first byte left: what a confirmation is counted from.
    pub at: Instant,
    /// The lease that the record carried.
    pub lease: Duration,
}

/// The sends of one activation whose outcome is not settled.
/// See docs/safety.md R12.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sends(Vec<Send>);

impl Sends {
    /// All of them quote the same version, so at most one can land, and most likely the first that was not lost: when
    /// there are too many, the latest makes room.
    pub fn push(&mut self, send: Send) {
        self.0.truncate(SENDS_MAX - 1);
        self.0.push(send);
    }

    pub fn find(&self, attempt: Attempt) -> Option<Send> {
        self.0.iter().copied().find(|send| send.attempt == attempt)
    }

    /// A version that carries `confirmed` leaves no room for an earlier send to land.
    pub fn settle(&mut self, confirmed: Attempt) {
        self.0.retain(|send| send.attempt.count > confirmed.count);
    }

    pub fn last(&self) -> Option<Send> {
        self.0.last().copied()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Core<E> {
    pub settings: Settings,
    nonce: Nonce,
    entropy: E,
    sends: u64,
    pub healthy: bool,
    pub candidates: Vec<String>,
    /// The newest version seen or written.
    pub newest: Option<Version>,
    /// Since when the store shows an older lock than this member has seen.
    pub rewound_since: Option<Instant>,
    pub longest_lease: Duration,
    pub largest_token: Token,
    pub foreign_seen: bool,
    record_seen: bool,
    /// Whether the record that was seen last names a member of ours that may be active, or stands in for such a one.
    claim_seen: bool,
    ended: Vec<(Activation, Proof)>,
    operation: Option<Operation>,
    /// The lock changed while an operation was under way: read once more after it.
    read_again: bool,
    outputs: Vec<Output>,
}

impl<E: Entropy> Core<E> {
    pub fn new(settings: Settings, nonce: Nonce, entropy: E) -> Self {
        let (longest_lease, healthy) = (settings.timing.lease(), settings.healthy);
        Self {
            settings,
            nonce,
            entropy,
            sends: 0,
            healthy,
            candidates: Vec::new(),
            newest: None,
            rewound_since: None,
            longest_lease,
            largest_token: Token(0),
            foreign_seen: false,
            record_seen: false,
            claim_seen: false,
            ended: Vec::new(),
            operation: None,
            read_again: false,
            outputs: Vec::new(),
        }
    }

    /// Takes from an input what every state wants to know.
    pub fn observe(&mut self, input: &Input) {
        match input {
            Input::Read(result) => {
                assert_eq!(self.operation, Some(Operation::Read), "an answer to a read that was not asked for");
                self.operation = None;
                if let Ok(seen) = result {
                    self.remember(seen);
                }
            }
            Input::Written { attempt, .. } => {
                assert_eq!(self.operation, Some(Operation::Write(*attempt)), "an answer to a write that was not sent");
                self.operation = None;
            }
            Input::Health(healthy) => self.healthy = *healthy,
            Input::Candidates(names) => {
                self.candidates = names.iter().filter(|name| **name != self.settings.name).cloned().collect();
            }
            _ => {}
        }
    }

    /// Whether nobody can be active while the lock is absent.
    pub fn absence_is_free(&self) -> bool {
        match self.settings.absence {
            Absence::Free => !self.record_seen,
            Absence::FreeUnlessHeld => !self.claim_seen,
            Absence::CostsALease => false,
        }
    }

    fn remember(&mut self, seen: &Seen) {
        let Some(record) = &seen.record else { return };
        self.record_seen = true;
        self.claim_seen = matches!(record.claim, Claim::Held(_) | Claim::Vacant(_));
        self.longest_lease = self.longest_lease.max(record.lease);
        match &record.claim {
            Claim::Held(holder) if holder.member.nonce == self.nonce => {}
            Claim::Held(holder) => {
                // The acquiring write does not say its token: its version is the token.
                let token = holder.token.unwrap_or(Token(seen.version.number));
                self.largest_token = self.largest_token.max(token);
            }
            Claim::Foreign(_) => self.foreign_seen = true,
            Claim::Released(_) | Claim::Vacant(_) => {}
        }
    }

    pub fn member(&self) -> Member {
        Member { name: self.settings.name.clone(), nonce: self.nonce }
    }

    /// Becomes another member: somebody else writes with the present nonce.
    /// See docs/safety.md R10.
    pub fn renew_nonce(&mut self) {
        self.nonce = Nonce(self.bits128());
    }

    pub fn bits128(&mut self) -> u128 {
        u128::from(self.entropy.bits()) << 64 | u128::from(self.entropy.bits())
    }

    fn next_attempt(&mut self) -> Attempt {
        self.sends += 1;
        Attempt { count: self.sends, random: self.entropy.bits() }
    }

    /// `length`, shortened by up to a tenth: members that started together drift apart.
    /// See docs/safety.md R18.
    pub fn jittered(&mut self, length: Duration) -> Duration {
        let tenth = u64::try_from((length / 10).as_nanos()).unwrap_or(u64::MAX);
        length - Duration::from_nanos(if tenth == 0 { 0 } else { self.entropy.bits() % tenth })
    }

    pub fn is_idle(&self) -> bool {
        self.operation.is_none()
    }

    pub fn say(&mut self, action: Action, reason: impl Into<String>) {
        self.outputs.push(Output { action, reason: reason.into() });
    }

    pub fn refuse(&mut self, kind: RefusalKind, why: &str) {
        let refusal = Refusal { kind, why: why.to_owned() };
        self.say(Action::Answer(Err(refusal)), format!("refused: {why}"));
    }

    pub fn grant(&mut self, reason: impl Into<String>) {
        self.say(Action::Answer(Ok(())), reason);
    }

    /// Reads now, or once more after the operation that is under way.
    pub fn read(&mut self, reason: impl Into<String>) {
        if self.operation.is_some() {
            self.read_again = true;
            return;
        }
        self.read_again = false;
        self.operation = Some(Operation::Read);
        self.say(Action::Read { limit: self.settings.timing.attempt_limit() }, reason);
    }

    /// Whether the lock changed during the operation that has just ended. Asking clears it.
    pub fn wants_another_read(&mut self) -> bool {
        std::mem::take(&mut self.read_again)
    }

    /// Sends one conditional write. `claim` is made with the id of this send. Only when no operation is under way.
    /// The instant of the send is what a confirmation counts from: docs/safety.md R2.
    pub fn write(
        &mut self,
        now: Instant,
        expected: Version,
        lease: Duration,
        paused_until_unix_ms: Option<u64>,
        reason: impl Into<String>,
        claim: impl FnOnce(Attempt) -> Claim,
    ) -> Send {
        assert!(self.operation.is_none(), "one operation at a time");
        let attempt = self.next_attempt();
        self.operation = Some(Operation::Write(attempt));
        let record = Record { claim: claim(attempt), lease, slots: self.settings.slots, paused_until_unix_ms };
        let limit = self.settings.timing.attempt_limit();
        self.say(Action::Write { expected, record, attempt, limit }, reason);
        Send { attempt, at: now, lease }
    }

    /// Remembers that nothing of `activation` runs any more.
    pub fn remember_ended(&mut self, activation: Activation, proof: Proof) {
        if self.ended.len() == ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push((activation, proof));
    }

    /// The proof of an activation of this member that has ended.
    pub fn ended(&self, activation: Activation) -> Option<Proof> {
        self.ended.iter().find(|(ended, _)| *ended == activation).map(|(_, proof)| *proof)
    }

    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }
}
