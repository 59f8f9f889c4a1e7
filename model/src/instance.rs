//! What is explored: how many members, how their clocks run, which faults and requests, how many and how long.

use election::Token;

use crate::state::Flags;
use crate::time::Rate;

/// Something that goes wrong. Each costs one of the instance's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A request never arrives.
    LoseRequest,
    /// A request is served and its answer never arrives.
    LoseReply,
    /// A request arrives later, perhaps after its sender has stopped waiting.
    HoldRequest,
    /// A request is served and its answer arrives later.
    HoldReply,
    /// A write arrives once more later.
    Duplicate,
    /// A request is refused.
    Refuse,
    /// A request is answered with "wait".
    Throttle,
    /// A change notice never arrives.
    LoseNotice,
    /// Process and workload die; what was sent may still arrive.
    Crash,
    /// The elector takes no steps for this many ticks; its guard goes on.
    Stop(u16),
    /// The guard dies, and its workload with it.
    GuardDies,
    /// The workload ends by itself.
    WorkloadEnds,
    /// The health check fails for this many ticks.
    Unwell(u16),
    /// A member has no line to the store for this many ticks.
    Cut(u16),
    /// Nobody has, for this many ticks.
    Outage(u16),
}

/// Something that somebody who is not of the group does to the lock or its store. Each costs one of the acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody deletes the lock.
    Delete,
    /// Somebody overwrites the lock with a record that names nobody.
    Blank,
    /// Somebody overwrites the lock with a record that names a stranger.
    Usurp,
    /// The lock goes back by this many changes, to a state older than what every process has seen; version numbers
    /// go on.
    Rewind(usize),
    /// The store goes back by this many changes and gives out the same version numbers again.
    Restore(usize),
}

/// Something that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Hand over to any candidate.
    Switchover,
    /// Pause for this many ticks.
    Pause(u16),
    /// End a pause.
    Resume,
    /// Leave the group.
    Leave,
    /// Vouch for the end of the activation in the lock, which is true: its process and its workload are gone.
    Fence,
}

/// One space to explore.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: &'static str,
    /// The members' clocks; one for each member.
    pub rates: &'static [Rate],
    /// Whether all members start at once, instead of the first being active already.
    pub is_race: bool,
    /// Whether there is no lock at first, instead of one that somebody long gone has released.
    pub is_absent: bool,
    /// What can go wrong under the assumptions.
    pub faults: &'static [Fault],
    /// How often.
    pub fault_budget: u8,
    /// What somebody who is not of the group may do to the lock or its store: this breaks assumptions.
    pub acts: &'static [Act],
    /// How often.
    pub act_budget: u8,
    /// What can be asked.
    pub asks: &'static [Ask],
    /// How often.
    pub ask_budget: u8,
    /// Faults and requests come before this tick.
    pub window: u16,
    /// Time ends here.
    pub horizon: u16,
    /// Whether the guard writes the release, as on a file lock.
    pub guard_releases: bool,
    /// A crashed process comes back after this many ticks.
    pub restarts_after: Option<u16>,
    /// The network keeps a held or repeated write for this many ticks.
    pub late_ticks: u16,
    /// Somebody who can must be active again after this many ticks.
    pub patience: u8,
    /// Whether the faults are too small to excuse a stop.
    pub is_steady: bool,
    /// What must be reached.
    pub marks: Flags,
}

impl Instance {
    /// Whether earlier states of the register matter.
    pub fn rewinds(&self) -> bool {
        self.acts.iter().any(|act| matches!(act, Act::Rewind(_) | Act::Restore(_)))
    }

    /// The token that comes before all others.
    pub const FIRST_TOKEN: Token = Token(100);
}
