//! The guard and the workload that it keeps, as far as time and exclusion go.

use election::{Activation, Instant};

/// The guard of one member process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// No workload.
    Idle,
    /// The workload runs until the deadline.
    Running {
        /// The time of being active.
        activation: Activation,
        /// The deadline.
        kill_at: Instant,
    },
    /// SIGTERM was sent; the workload may end at any moment, and is killed at the end of its grace.
    Stopping {
        /// The time of being active.
        activation: Activation,
        /// The deadline, which stays armed.
        kill_at: Instant,
        /// The end of the grace.
        grace_ends: Instant,
    },
    /// SIGKILL was sent: the workload counts as running until the proof.
    Dying {
        /// The time of being active.
        activation: Activation,
        /// When nothing is left.
        gone_at: u16,
        /// Whether the guard is there to see it.
        is_guarded: bool,
    },
}

impl Guard {
    /// Whether something of the workload may run.
    pub fn is_up(&self) -> bool {
        *self != Guard::Idle
    }

    /// The activation whose workload may run.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Guard::Idle => None,
            Guard::Running { activation, .. }
            | Guard::Stopping { activation, .. }
            | Guard::Dying { activation, .. } => Some(*activation),
        }
    }

    /// When the guard kills by itself.
    pub fn kills_at(&self) -> Option<Instant> {
        match self {
            Guard::Running { kill_at, .. } => Some(*kill_at),
            Guard::Stopping { kill_at, grace_ends, .. } => Some(*kill_at.min(grace_ends)),
            Guard::Idle | Guard::Dying { .. } => None,
        }
    }

    /// Moves the deadline.
    pub fn extend(&mut self, to: Instant) {
        if let Guard::Running { kill_at, .. } | Guard::Stopping { kill_at, .. } = self {
            *kill_at = to;
        }
    }

    /// SIGTERM, or a shorter grace.
    pub fn stop(&mut self, ends: Instant) {
        match self {
            Guard::Running { activation, kill_at } => {
                *self = Guard::Stopping { activation: *activation, kill_at: *kill_at, grace_ends: ends };
            }
            Guard::Stopping { grace_ends, .. } => *grace_ends = ends.min(*grace_ends),
            Guard::Idle | Guard::Dying { .. } => {}
        }
    }

    /// SIGKILL; the proof comes at `gone_at`.
    pub fn kill(&mut self, gone_at: u16) {
        if let Guard::Running { activation, .. } | Guard::Stopping { activation, .. } = self {
            *self = Guard::Dying { activation: *activation, gone_at, is_guarded: true };
        }
    }

    /// The guard itself dies, which kills the workload; the process proves it.
    pub fn die(&mut self, gone_at: u16) {
        self.kill(gone_at);
        if let Guard::Dying { is_guarded, .. } = self {
            *is_guarded = false;
        }
    }
}
