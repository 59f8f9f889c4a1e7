//! One member: its process (the machine that ships), its guard, and its line to the store.

use election::{Activation, Attempt, Entropy, Input, Instant, Machine, Record, Version};

use crate::books::Books;
use crate::workload::Guard;

/// Randomness for the machine: distinct, repeatable, and a multiple of every jitter's range, so that jitter is zero.
/// Only its counter goes into a state's hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Draws {
    next: u64,
    range: u64,
}

impl Draws {
    /// Draws of the `start`th process of the `index`th member; `range` is what jitter is taken from.
    pub fn new(index: usize, start: u8, range: u64) -> Self {
        Self { next: 10_000 * (1 + index as u64) + 1_000 * u64::from(start), range }
    }
}

impl Entropy for Draws {
    fn bits(&mut self) -> u64 {
        self.next += 1;
        self.next * self.range
    }
}

/// A request to the store that the machine waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What was asked.
    pub request: Request,
    /// When the driver stops waiting.
    pub limit: Instant,
    /// Where it is.
    pub flight: Flight,
}

/// What the store is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "members are shared between states, and few at a time hold one")]
pub enum Request {
    /// Read the lock.
    Read,
    /// Write it by compare-and-set.
    Write {
        /// The version that must be there.
        expected: Version,
        /// What to store.
        record: Record,
        /// The id of the send.
        attempt: Attempt,
    },
}

/// Where a request is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "members are shared between states, and few at a time hold one")]
pub enum Flight {
    /// On its way; arrives before time moves on unless a fault befalls it.
    Sent,
    /// Held up; arrives whenever it likes.
    Held,
    /// Served; its answer arrives whenever it likes.
    Answered(Input),
    /// No answer will ever come.
    Lost,
}

/// What the guard reports to its process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// The command ended by itself, or after SIGTERM.
    Exited,
    /// Nothing is left of this activation; its release is stored at this version where the guard wrote it.
    Gone(Activation, Option<Version>),
    /// The guard died.
    GuardLost,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The process; nothing after a crash or a leave.
    pub machine: Option<Machine<Draws>>,
    /// How many processes there were.
    pub starts: u8,
    /// A crashed process comes back then.
    pub restart_at: Option<u16>,
    /// The process takes no step before.
    pub stopped_until: Option<u16>,
    /// No request gets through before.
    pub cut_until: Option<u16>,
    /// The health check fails until.
    pub unwell_until: Option<u16>,
    /// The version that the last answer or change notice was about.
    pub told: Option<Version>,
    /// The request under way.
    pub operation: Option<Operation>,
    /// The workload.
    pub guard: Guard,
    /// What a crashed process left behind is gone then.
    pub orphan_until: Option<u16>,
    /// Not delivered yet.
    pub reports: Vec<Report>,
    /// The audit.
    pub books: Books,
}

impl Member {
    /// A member whose process has not been started.
    pub fn new() -> Self {
        Self {
            machine: None,
            starts: 0,
            restart_at: None,
            stopped_until: None,
            cut_until: None,
            unwell_until: None,
            told: None,
            operation: None,
            guard: Guard::Idle,
            orphan_until: None,
            reports: Vec::new(),
            books: Books::default(),
        }
    }

    /// Whether something of its workload may run.
    pub fn is_up(&self) -> bool {
        self.guard.is_up() || self.orphan_until.is_some()
    }

    /// Whether its process can take a step.
    pub fn is_awake(&self) -> bool {
        self.machine.is_some() && self.stopped_until.is_none()
    }

    /// Whether it could lead: awake, healthy, with a line to the store.
    pub fn is_able(&self) -> bool {
        self.is_awake() && self.cut_until.is_none() && self.unwell_until.is_none()
    }

    /// Whether the machine wants to be woken at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.machine.as_ref().and_then(Machine::next_wakeup).is_some_and(|at| at <= now)
    }

    /// Whether a change notice about `version` is on its way.
    pub fn is_to_be_told(&self, version: Version) -> bool {
        self.machine.is_some() && self.cut_until.is_none() && self.told != Some(version)
    }
}

impl Default for Member {
    fn default() -> Self {
        Self::new()
    }
}
