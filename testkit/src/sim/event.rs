//! What lies in the queue of the simulator.

use std::cmp::Ordering;

use election::{Input, Record, Version};

use super::clock::Nanos;

/// Something that will happen.
#[derive(Debug)]
pub struct Scheduled {
    /// When.
    pub at: Nanos,
    /// Which of those of one moment comes first.
    pub order: u64,
    /// What.
    pub event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest: the queue is a heap that gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A process of this member starts.
    Spawn { member: usize },
    /// Something reaches the elector of this process.
    Deliver { member: usize, process: u32, delivery: Delivery },
    /// A request reaches the store.
    Arrive { member: usize, process: u32, slot: usize, op: u64, request: Box<Call>, back: Back },
    /// A stopped elector, or a host that slept, runs on.
    Resume { member: usize },
    /// Something of this tree is due.
    Tree { tree: usize, due: Due },
    /// A fault begins.
    Fault { index: usize },
    /// The next step of a fault that has several.
    Again { index: usize, count: u32 },
}

/// What reaches an elector.
#[derive(Debug)]
pub enum Delivery {
    /// The wake-up of this generation.
    Wake(u32),
    /// The lock of a slot has changed to this version.
    Notice(usize, Version),
    /// The answer to an operation.
    Answer { op: u64, input: Box<Input> },
    /// The limit of an operation has passed.
    Timeout { op: u64 },
    /// A report of the guard, a signal, a request.
    Order(Box<Input>),
}

/// A request to the store.
#[derive(Clone, Debug)]
pub enum Call {
    /// A look; so many changes ago where the store is stale.
    Read { back: usize },
    /// A conditional write.
    Write { expected: Version, record: Record, attempt: election::Attempt },
}

/// What the store answers with, and when.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    /// How long the answer takes; nothing when it is lost.
    pub delay: Option<Nanos>,
    /// What a failing store says instead of doing its work.
    pub instead: Option<Instead>,
}

/// What a failing store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Wait for so many milliseconds.
    Throttled(u32),
    /// Not allowed.
    Denied,
    /// Failed before it did anything.
    Failed,
    /// Failed after it did everything.
    FailedAfter,
}

/// What of a tree can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The guard opens the gate, if there is still time.
    Gate,
    /// The deadline may have passed.
    Deadline,
    /// The grace of a stop may have passed.
    Grace,
    /// The workload ends after SIGTERM.
    Ends,
    /// Guard, elector or kernel kill what is left.
    Kill,
    /// Nothing is left.
    Proof,
    /// The elector misses the beat of its guard.
    MissedBeat,
}
