//! One member: a name with a clock, and the process that runs under it now.

use std::time::Duration;

use election::{
    Absence, Activation, Attempt, Claim, Input, Instant, OnExit, OnLoss, Seen, Settings, Slots, Timing, Version, Write,
};

use super::clock::{Clock, Nanos};
use super::event::Delivery;
use super::random::Kernel;
use super::scenario::Spec;

/// What the driver waits for, of one slot.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// The operation.
    pub op: u64,
    /// Its attempt, where it is a write.
    pub attempt: Option<Attempt>,
}

/// One send of a process, as the simulator saw it: what the machine may claim is recomputed from these.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The slot whose lock it was for.
    pub slot: usize,
    /// Its id.
    pub attempt: Attempt,
    /// The activation in its record.
    pub activation: Activation,
    /// The clock of the member before the send.
    pub at: Instant,
    /// The lease in the record; nothing where it is a release.
    pub lease: Option<Duration>,
    /// The version that it quoted.
    pub expected: Version,
    /// Whether an answer of the store showed that it was stored.
    pub confirmed: bool,
    /// Whether it was answered with an unknown outcome.
    pub unknown: bool,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    /// What it was made from; its lease may change with a restart.
    pub spec: Spec,
    /// Its clock.
    pub clock: Clock,
    /// Counts its processes.
    pub process: u32,
    /// The machines of the present process, one for each slot.
    pub machine: Option<Slots<Kernel>>,
    /// The operation under way, for each slot.
    pub pending: Vec<Option<Pending>>,
    /// Whether the elector is stopped.
    pub stopped_until: Nanos,
    /// Whether the whole host sleeps.
    pub frozen_until: Nanos,
    /// What reached the elector while it did not run.
    pub backlog: Vec<Delivery>,
    /// The version that the last answer of each slot named: changes are counted from here.
    pub last_version: Vec<Version>,
    /// The wake-up that counts.
    pub wake: u32,
    /// When that is.
    pub wake_at: Option<Nanos>,
    /// Wake-ups in a row that led to nothing and asked for another in the same moment.
    pub idle_wakes: u32,
    /// The tree of its last start.
    pub tree: Option<usize>,
    /// The sends of the present process.
    pub sent: Vec<Sent>,
    /// The deadline that the confirmed sends of the last activation in each slot allow.
    pub allowed: Vec<Option<(Activation, Instant)>>,
    /// The activations whose end this process has heard of.
    pub gone: Vec<Activation>,
    /// Whether somebody asked it to hand over.
    pub asked: bool,
    /// What its health check says.
    pub healthy: bool,
    /// How long it stays away after its process ended.
    pub away: Nanos,
}

impl Member {
    /// A member of a group with so many slots that has no process yet.
    pub fn new(spec: Spec, clock: Clock, slots: usize) -> Self {
        Self {
            spec,
            clock,
            process: 0,
            machine: None,
            pending: vec![None; slots],
            stopped_until: 0,
            frozen_until: 0,
            backlog: Vec::new(),
            last_version: vec![Version::ABSENT; slots],
            wake: 0,
            wake_at: None,
            idle_wakes: 0,
            tree: None,
            sent: Vec::new(),
            allowed: vec![None; slots],
            gone: Vec::new(),
            asked: false,
            healthy: true,
            away: 0,
        }
    }

    /// Starts a new process. Nothing where the lease does not hold.
    pub fn spawn(&mut self, kernel: &Kernel) -> bool {
        let Ok(timing) = Timing::new(Duration::from_millis(u64::from(self.spec.lease_ms)), None) else { return false };
        let settings = Settings {
            name: self.spec.name.clone(),
            timing,
            stop_grace: Duration::from_millis(u64::from(self.spec.stop_grace_ms)),
            absence: Absence::CostsALease,
            can_pause: true,
            slots: u32::try_from(self.pending.len()).unwrap_or(u32::MAX),
            on_exit: match self.spec.on_exit {
                0 => OnExit::Exit,
                1 => OnExit::Restart,
                _ => OnExit::Standby,
            },
            on_loss: OnLoss::Standby,
            healthy: true,
        };
        self.end();
        self.machine = Some(Slots::new(&settings, || kernel.clone()));
        true
    }

    /// Ends the process: everything on its way to it is lost.
    pub fn end(&mut self) {
        self.process += 1;
        self.machine = None;
        self.pending.fill(None);
        self.backlog.clear();
        self.wake_at = None;
        self.wake += 1;
        self.stopped_until = 0;
        self.sent.clear();
        self.allowed.fill(None);
        self.gone.clear();
        self.asked = false;
        self.last_version.fill(Version::ABSENT);
    }

    /// The operation that is answered or given up, with its slot, unless it is over already.
    pub fn settle(&mut self, op: u64) -> Option<(usize, Pending)> {
        let answered = |(slot, pending): (usize, &mut Option<Pending>)| {
            pending.take_if(|pending| pending.op == op).map(|pending| (slot, pending))
        };
        self.pending.iter_mut().enumerate().find_map(answered)
    }

    /// Whether its elector runs at `now`.
    pub fn runs(&self, now: Nanos) -> bool {
        self.machine.is_some() && now >= self.stopped_until && now >= self.frozen_until
    }

    /// Takes from an answer of a slot which of the own sends it confirms.
    pub fn hear(&mut self, slot: usize, input: &Input) {
        match input {
            Input::Read(Ok(Seen { version, .. }))
            | Input::Written { outcome: Write::Written(version), .. }
            | Input::Gone { released: Some(version), .. } => self.last_version[slot] = *version,
            _ => {}
        }
        match input {
            Input::Written { attempt, outcome: Write::Written(_) } => self.confirm(*attempt),
            Input::Written { attempt, outcome: Write::Unknown(_) } => {
                if let Some(sent) = self.sent.iter_mut().rev().find(|sent| sent.attempt == *attempt) {
                    sent.unknown = true;
                }
            }
            Input::Read(Ok(seen)) => match seen.record.as_ref().map(|record| &record.claim) {
                Some(Claim::Held(holder)) => self.confirm(holder.attempt),
                Some(Claim::Released(release)) => self.confirm(release.attempt),
                _ => {}
            },
            Input::Gone { .. } => {
                self.asked = false;
            }
            _ => {}
        }
    }

    fn confirm(&mut self, attempt: Attempt) {
        let Some(sent) = self.sent.iter_mut().rev().find(|sent| sent.attempt == attempt) else { return };
        sent.confirmed = true;
        let Some(lease) = sent.lease else { return };
        let until = sent.at + kill_after(lease);
        match &mut self.allowed[sent.slot] {
            Some((activation, allowed)) if *activation == sent.activation => *allowed = (*allowed).max(until),
            allowed => *allowed = Some((sent.activation, until)),
        }
    }
}

/// D, from the inequality and the published presets, and on purpose not from the machine's own arithmetic:
/// D = min(2/3 L, 0.9 (L/1.1 - S - P - 50 ms)) with S = max(L/30, 100 ms) and P for 2 GiB.
pub fn kill_after(lease: Duration) -> Duration {
    let lease = lease.as_micros();
    let lateness = (lease / 30).max(100_000);
    let rest = (lease * 10).div_ceil(11).saturating_sub(lateness + 165_000 + 50_000);
    let micros = (lease * 2).div_ceil(3).min((rest * 9).div_ceil(10)) + 1;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
