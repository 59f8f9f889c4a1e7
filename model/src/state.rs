//! The state of a whole group.

use std::sync::Arc;

use election::Token;

use crate::member::Member;
use crate::store::Store;

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// Whether any flag of `other` is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Those that `other` has too.
    pub const fn within(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }
}

/// Rules that were broken on the way to a state.
pub mod broken {
    use super::Flags;

    /// A start whose token is not larger than every token before, or of an activation that ran before.
    pub const TOKEN: Flags = Flags(1);
    /// A release without the proof of that activation, or a claim after it.
    pub const PROOF: Flags = Flags(1 << 1);
    /// A deadline beyond what a confirmed send allows.
    pub const DEADLINE: Flags = Flags(1 << 2);
    /// A request to the store while another was under way.
    pub const TWO_OPERATIONS: Flags = Flags(1 << 3);
    /// A write for an activation that was lost to another.
    pub const AFTER_LOSS: Flags = Flags(1 << 4);
    /// A wake-up that was due and changed nothing: a driver would spin.
    pub const STUCK: Flags = Flags(1 << 5);
    /// The process left while something of its workload could run.
    pub const EXIT: Flags = Flags(1 << 6);
    /// A stop that nobody asked for, where the faults are too small to excuse one.
    pub const INTERRUPTED: Flags = Flags(1 << 7);
}

/// Things that must be possible: a model in which they never happen proves nothing about them.
pub mod mark {
    use super::Flags;

    /// A member took over from one that did not release.
    pub const FAILED_OVER: Flags = Flags(1);
    /// A named successor took over after a release.
    pub const SWITCHED: Flags = Flags(1 << 1);
    /// A write was stored after its sender was told that its outcome is unknown.
    pub const LANDED_LATE: Flags = Flags(1 << 2);
    /// A workload ran on beyond the ordinary deadline in an outage, thanks to a pause.
    pub const PAUSED_OUTAGE: Flags = Flags(1 << 3);
    /// A member took an absent lock.
    pub const TOOK_ABSENT: Flags = Flags(1 << 4);
    /// A member took the lock from a stranger.
    pub const TOOK_FOREIGN: Flags = Flags(1 << 5);
    /// A restarted process became active.
    pub const CAME_BACK: Flags = Flags(1 << 6);
    /// A process left by request.
    pub const LEFT: Flags = Flags(1 << 7);
    /// The guard killed on the deadline.
    pub const GUARD_KILLED: Flags = Flags(1 << 8);
    /// A holder created the deleted lock again and stayed active.
    pub const RECREATED: Flags = Flags(1 << 9);
}

/// Everything that decides what can happen next, and what has been found on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Real time.
    pub tick: u16,
    /// The members; shared between states as long as nothing changes them.
    pub members: Vec<Arc<Member>>,
    /// The register.
    pub store: Arc<Store>,
    /// Faults that may still happen.
    pub faults_left: u8,
    /// Acts of strangers that may still happen.
    pub acts_left: u8,
    /// Requests that may still be made.
    pub asks_left: u8,
    /// For how many ticks nobody has been active although somebody could be, since the last fault or request.
    pub idle: u8,
    /// The largest token so far.
    pub token: Token,
    /// Rules that were broken.
    pub broken: Flags,
    /// What was reached, as far as the instance asks for it.
    pub marks: Flags,
}

impl State {
    /// How many members' workloads may be running.
    pub fn up(&self) -> usize {
        self.members.iter().filter(|member| member.is_up()).count()
    }
}
