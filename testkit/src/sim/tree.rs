//! The workload of one activation and its guard, as far as time matters to them.

use election::{Activation, Instant, Token};

use super::clock::Nanos;

/// How far a tree has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Forked, behind the start gate.
    Waiting,
    /// The workload runs.
    Running,
    /// Killed; not proven dead.
    Dying,
    /// Proven dead, or never let through the gate.
    Gone,
}

/// How its guard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It enforces the deadline.
    Runs,
    /// It is stopped.
    Stopped,
    /// It is dead.
    Dead,
}

/// The workload of one activation with its guard.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Whose it is.
    pub member: usize,
    /// The process that started it.
    pub process: u32,
    /// The slot that it is active in.
    pub slot: usize,
    /// The activation.
    pub activation: Activation,
    /// Its token.
    pub token: Token,
    /// SIGKILL on this instant of the member's clock.
    pub kill_at: Instant,
    /// The earliest check of the deadline that lies in the queue.
    pub check_at: Nanos,
    /// SIGKILL at this moment, after a stop.
    pub grace_until: Option<Nanos>,
    /// How far it has come.
    pub life: Life,
    /// Its guard.
    pub guard: Guard,
    /// When it passed the gate.
    pub started: Option<Nanos>,
    /// Whether it was told to stop: this activation never comes back.
    pub told: bool,
    /// Whether a person or program asked for this end.
    pub planned: bool,
    /// Whether the guard could not do its work in time.
    pub unguarded: bool,
    /// Whether the platform says that it is gone, once it is.
    pub platform_tells: bool,
}

impl Tree {
    /// Whether some process of it can run.
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Dying)
    }
}
