//! What an auditor writes down about one member, apart from the machine: who may still be running by which proof, and
//! up to when a confirmed send lets the workload live.

use std::time::Duration;

use election::{Activation, Attempt, Claim, Input, Instant, Proof, Record, Seen, Version, Write};

/// One send of a claim to be active.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    activation: Activation,
    attempt: Attempt,
    expected: Version,
    at: Instant,
    /// The send plus D of the lease that it carried.
    good_until: Instant,
    /// It can no longer be stored.
    is_out: bool,
}

/// The audit of one member, over all its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Books {
    /// The newest confirmed send and those after it that may have been stored.
    sent: Vec<Sent>,
    started: Vec<Activation>,
    proven: Vec<Activation>,
    /// Activations that the member has learned to have lost to somebody else.
    lost: Vec<Activation>,
    /// The newest version that the present process has been told.
    newest: Option<Version>,
}

impl Books {
    /// A claim to be active leaves the member.
    pub fn send(
        &mut self,
        activation: Activation,
        attempt: Attempt,
        expected: Version,
        at: Instant,
        good_for: Duration,
    ) {
        self.sent.retain(|sent| sent.activation == activation);
        self.sent.push(Sent { activation, attempt, expected, at, good_until: at + good_for, is_out: false });
    }

    /// A new process knows nothing.
    pub fn forget(&mut self) {
        self.newest = None;
    }

    /// Whether the present process can tell that `version` is of the past.
    pub fn knows_newer(&self, version: Version) -> bool {
        self.newest.is_some_and(|newest| version.rewinds(newest))
    }

    /// The member is about to be told `input`; `held` is its present activation.
    pub fn learn(&mut self, held: Option<Activation>, input: &Input) {
        match input {
            Input::Written { attempt, outcome: Write::Written(version) } => {
                self.confirm(*attempt, *version);
                self.newest = Some(*version);
            }
            Input::Read(Ok(seen)) => self.learn_seen(held, seen),
            _ => {}
        }
    }

    /// A member has one request under way at a time, so an answer is only ever older than what it was told before when
    /// the lock itself went back.
    fn learn_seen(&mut self, held: Option<Activation>, seen: &Seen) {
        let Some(record) = &seen.record else { return };
        let named = match &record.claim {
            Claim::Held(holder) => Some(holder.activation),
            Claim::Released(release) => Some(release.activation),
            Claim::Vacant(_) | Claim::Foreign(_) => None,
        };
        self.lost.retain(|lost| Some(*lost) != named);
        let went_back = self.newest.is_some_and(|newest| {
            seen.version.incarnation == newest.incarnation && seen.version.number < newest.number
        });
        if went_back {
            return;
        }
        self.newest = Some(seen.version);
        if let Claim::Held(holder) = &record.claim {
            self.confirm(holder.attempt, seen.version);
        }
        let names_nobody = match &record.claim {
            Claim::Vacant(_) => true,
            Claim::Foreign(foreign) => foreign.holder.is_none(),
            Claim::Held(_) | Claim::Released(_) => false,
        };
        if let Some(activation) = held.filter(|activation| !names_nobody && named != Some(*activation)) {
            self.lost.push(activation);
        }
    }

    /// `attempt` is stored at `version`. What was sent before it is settled; what was sent after it can only be stored
    /// where it quotes that version, unless the lock goes back.
    fn confirm(&mut self, attempt: Attempt, version: Version) {
        let Some(index) = self.sent.iter().position(|sent| sent.attempt == attempt) else { return };
        self.sent.drain(..index);
        for sent in &mut self.sent {
            sent.is_out = sent.attempt != attempt && sent.expected != version;
        }
    }

    /// The newest confirmed send of an activation whose workload runs.
    pub fn confirmed_at(&self, activation: Activation) -> Option<Instant> {
        self.sent.iter().find(|sent| sent.activation == activation).map(|sent| sent.at)
    }

    /// The latest deadline that `activation` may have: by the newest confirmed send, and by any later one that may
    /// have been stored and made observers wait less.
    pub fn good_until(&self, activation: Activation) -> Option<Instant> {
        let counts = |sent: &&Sent| sent.activation == activation && !sent.is_out;
        self.sent.iter().filter(counts).map(|sent| sent.good_until).min()
    }

    /// The workload of `activation` starts. False when it is not the first time.
    pub fn start(&mut self, activation: Activation) -> bool {
        let is_new = !self.started.contains(&activation);
        self.started.push(activation);
        is_new
    }

    /// The guard has reported that nothing of `activation` is left.
    pub fn prove(&mut self, activation: Activation) {
        self.proven.push(activation);
    }

    /// Whether the member may write `record`: a release only with the proof of that very activation, a claim only
    /// before that, neither once the lock was lost to another.
    pub fn allows(&self, record: &Record) -> bool {
        match &record.claim {
            Claim::Held(holder) => !self.proven.contains(&holder.activation),
            Claim::Released(release) if release.proof == Proof::NeverStarted => {
                !self.started.contains(&release.activation)
            }
            Claim::Released(release) => self.proven.contains(&release.activation),
            Claim::Vacant(_) => true,
            Claim::Foreign(_) => false,
        }
    }

    /// Whether `record` speaks for an activation that was lost to another.
    pub fn has_lost(&self, record: &Record) -> bool {
        match &record.claim {
            Claim::Held(holder) => self.lost.contains(&holder.activation),
            Claim::Released(release) => self.lost.contains(&release.activation),
            Claim::Vacant(_) | Claim::Foreign(_) => false,
        }
    }
}
