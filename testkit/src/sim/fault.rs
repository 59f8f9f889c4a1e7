//! Everything that can go wrong in a history, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident => $word:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $kind,)+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)+];

            /// The name of the kind in reports and on the command line.
            pub fn word(self) -> &'static str {
                match self {
                    $(Kind::$kind => $word,)+
                }
            }
        }
    };
}

kinds! {
    /// The workload's command ends with 0.
    WorkloadEnds => "workload-ends",
    /// The workload's command ends with another code.
    WorkloadFails => "workload-fails",
    /// SIGKILL to the elector; the guard ends the tree; a new process starts.
    ElectorKilled => "elector-killed",
    /// SIGKILL to the guard; the elector ends the tree.
    GuardKilled => "guard-killed",
    /// SIGKILL to both at once; the namespace ends the tree.
    BothKilled => "both-killed",
    /// The same, and whoever reads the lock after the proof is told of it: no platform lock stands behind that.
    ContainerKilled => "container-killed",
    /// SIGTERM to the member, which starts again afterwards.
    Terminated => "terminated",
    /// The elector is stopped for one to four leases and resumed where it was.
    ElectorStopped => "elector-stopped",
    /// The guard is stopped; the elector misses its beat.
    GuardStopped => "guard-stopped",
    /// The whole host of the member sleeps; its clock runs on.
    HostSuspended => "host-suspended",
    /// One member is killed and started again many times.
    RestartStorm => "restart-storm",
    /// A member is restarted with another lease.
    LeaseChanged => "lease-changed",
    /// Nothing passes between a member and the store.
    Partition => "partition",
    /// What the member sends does not arrive.
    RequestsLost => "requests-lost",
    /// What the store answers does not arrive.
    AnswersLost => "answers-lost",
    /// The answer to a single write is lost.
    OneAnswerLost => "one-answer-lost",
    /// Answers take a good part of the attempt limit.
    AnswersSlow => "answers-slow",
    /// Answers take a good part of the deadline.
    AnswersDelayed => "answers-delayed",
    /// The store gets the same conditional write twice.
    WritesRepeated => "writes-repeated",
    /// Writes arrive long after the member gave them up.
    WritesLate => "writes-late",
    /// The store asks to wait.
    Throttled => "throttled",
    /// The store refuses.
    Denied => "denied",
    /// The store fails in the middle: nobody knows what was stored.
    ServerErrors => "server-errors",
    /// The store is down, just shorter than the budget.
    OutageShort => "outage-short",
    /// The store is down, just longer than the budget.
    OutageLong => "outage-long",
    /// The store is down inside a pause.
    OutageInPause => "outage-in-pause",
    /// The lock is deleted by hand.
    LockDeleted => "lock-deleted",
    /// A stranger empties the holder.
    LockBlanked => "lock-blanked",
    /// A stranger writes another name.
    LockRenamed => "lock-renamed",
    /// A stranger sets the lease to a millisecond.
    LeaseEdited => "lease-edited",
    /// The lock is replaced by another object of the same name.
    LockReplaced => "lock-replaced",
    /// A stranger takes the lock and renews it for a while.
    ForeignHolder => "foreign-holder",
    /// A third party rewrites the lock again and again, and changes nothing that counts.
    LockTouched => "lock-touched",
    /// The store goes back to an older state.
    StoreRewound => "store-rewound",
    /// Change notices are lost.
    NoticesLost => "notices-lost",
    /// Change notices come late and out of order.
    NoticesLate => "notices-late",
    /// Change notices come several times.
    NoticesRepeated => "notices-repeated",
    /// Reads show an older state.
    ReadsStale => "reads-stale",
    /// The members have different leases.
    LeasesMixed => "leases-mixed",
    /// Two members have the same name.
    NameTwice => "name-twice",
    /// A standby is copied with its nonce.
    StandbyCloned => "standby-cloned",
    /// Seven members start in the same moment on an absent lock.
    AllAtOnce => "all-at-once",
    /// Every clock runs at one of the two extremes.
    ClocksExtreme => "clocks-extreme",
    /// A switchover is requested.
    Switchover => "switchover",
    /// A pause is requested.
    Paused => "paused",
    /// A pause is requested and ended early.
    Resumed => "resumed",
    /// The holder is dead and an operator says so.
    Fenced => "fenced",
    /// The holder lives and an operator says that it is dead.
    FencedFalsely => "fenced-falsely",
    /// The health check of a member fails for a while.
    HealthFlaps => "health-flaps",
    /// The guard reports that it was late.
    GuardLate => "guard-late",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Kind {
    /// The kind of this name.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.word() == word)
    }

    /// Where the kind stands in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// A holder loses nothing by it, however it is combined with others of this sort.
    pub fn is_harmless(self) -> bool {
        use Kind::*;
        matches!(
            self,
            NoticesLost | NoticesLate | NoticesRepeated | LeasesMixed | NameTwice | AllAtOnce | ClocksExtreme
        )
    }

    /// A holder stays active through it, as long as nothing else takes from the same budget.
    pub fn is_within_budget(self) -> bool {
        use Kind::*;
        matches!(self, OneAnswerLost | AnswersSlow | WritesRepeated | OutageShort | OutageInPause | LockTouched)
    }

    /// Somebody outside the group writes the lock.
    pub fn is_by_hand(self) -> bool {
        use Kind::*;
        matches!(self, LockDeleted | LockBlanked | LockRenamed | LeaseEdited | LockReplaced | ForeignHolder)
    }

    /// Leaves a record in the lock that observers must give three leases.
    pub fn leaves_foreign_record(self) -> bool {
        use Kind::*;
        matches!(self, LockBlanked | LockRenamed | LockReplaced | ForeignHolder)
    }

    /// Makes leases differ, so that not every member knows the longest one.
    pub fn varies_leases(self) -> bool {
        use Kind::*;
        matches!(self, LeasesMixed | LeaseChanged | Paused | Resumed | OutageInPause)
    }
}

/// An assumption of the promise that a history broke: overlaps that follow from it are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Broken {
    /// The store went back to an older state: somebody who saw nothing else believes it.
    StoreRewound,
    /// A stranger shortened the lease in the record: somebody who never saw the longer one believes it.
    LeaseEdited,
    /// An operator vouched for the death of a living holder.
    FencedFalsely,
    /// The guard could not run: its host slept over the deadline, or guard and elector were stopped at once.
    GuardNotRunning,
    /// A stranger removed a record whose lease was longer than any that the observer knew.
    LeaseNotKnown,
}

impl Broken {
    /// All of them.
    pub const ALL: [Broken; 5] = [
        Broken::StoreRewound,
        Broken::LeaseEdited,
        Broken::FencedFalsely,
        Broken::GuardNotRunning,
        Broken::LeaseNotKnown,
    ];

    /// Its name in reports.
    pub fn word(self) -> &'static str {
        match self {
            Broken::StoreRewound => "store-rewound",
            Broken::LeaseEdited => "lease-edited",
            Broken::FencedFalsely => "fenced-falsely",
            Broken::GuardNotRunning => "guard-not-running",
            Broken::LeaseNotKnown => "lease-not-known",
        }
    }
}
