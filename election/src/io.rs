//! What goes into the machine and what comes out.

use std::fmt;
use std::time::Duration;

use crate::clock::Instant;
use crate::record::{Activation, Attempt, Proof, Record, Token};
use crate::register::{Seen, Version, Write};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time has passed; nothing else.
    Wake,
    /// The lock may have changed.
    Changed,
    /// The answer to [`Action::Read`], or why there is none.
    Read(Result<Seen, String>),
    /// The answer to [`Action::Write`].
    Written {
        /// The attempt that is answered.
        attempt: Attempt,
        /// How it ended; an attempt that ran into its limit is [`Write::Unknown`].
        outcome: Write,
    },
    /// The workload's command ended by itself, with this exit code; the guard is ending the rest of its tree.
    Exited {
        /// The code that `soloist run` would leave with.
        code: i32,
    },
    /// Nothing of the workload is left. Exactly once for each [`Action::Start`].
    Gone {
        /// How that is known.
        proof: Proof,
        /// The version of the release, where the guard wrote it.
        released: Option<Version>,
    },
    /// The guard died or did not answer; its tree is being ended.
    GuardLost,
    /// Whether anything of the workload is left will never be known here: it ends by its deadline, and without a proof.
    /// Instead of [`Input::Gone`].
    Forsaken,
    /// The guard's greatest lateness so far, and the time that killing the workload would take at its present size.
    Measured {
        /// Lateness.
        lateness: Duration,
        /// SIGKILL to proof.
        proof: Duration,
    },
    /// Whether this member may be active, as its health check says.
    Health(bool),
    /// The names of the other members that announced themselves healthy within two minutes.
    Candidates(Vec<String>),
    /// Somebody asks for something; answered by [`Action::Answer`] in the same step.
    Request(Request),
    /// Leave the group: stop the workload, release, exit. A second time: with a shorter grace.
    Leave,
}

/// What an operator or a program may ask a member for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Hand the active role to a named member, or to any.
    Switchover {
        /// Who shall be active.
        to: Option<String>,
    },
    /// Write a lease so long that an outage of the store within this time stops nobody.
    Pause {
        /// How long.
        length: Duration,
        /// When it ends, for display.
        until_unix_ms: u64,
    },
    /// End a pause.
    Resume,
    /// The operator vouches that this activation cannot run any more.
    Fenced {
        /// The activation that was fenced.
        activation: Activation,
    },
}

/// Why a request is not granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// What kind of no it is, for programs.
    pub kind: RefusalKind,
    /// One sentence for people.
    pub why: String,
}

/// The kinds of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Only another member can grant this: the active one, or a standby.
    WrongMember,
    /// What is asked for contradicts what is under way or the case already.
    Conflict,
    /// The member that is named, or any, cannot take over.
    NoCandidate,
    /// No member could ever grant this.
    Invalid,
}

/// Something to do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// What to do.
    pub action: Action,
    /// One plain sentence for logs, status and history.
    pub reason: String,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the lock; answer with [`Input::Read`] within `limit`.
    Read {
        /// After this long, answer with an error.
        limit: Duration,
    },
    /// Write the lock; answer with [`Input::Written`] within `limit`.
    Write {
        /// The version that must still be there.
        expected: Version,
        /// What to store.
        record: Record,
        /// The id of this send, which is in the record too.
        attempt: Attempt,
        /// After this long, answer [`Write::Unknown`].
        limit: Duration,
    },
    /// Let go of the platform's own lock, if it is held, and queue again after `pause`.
    StepBack {
        /// How long.
        pause: Duration,
    },
    /// Start the workload.
    Start {
        /// This time of being active.
        activation: Activation,
        /// Its fencing token.
        token: Token,
        /// SIGKILL on this instant unless it moves.
        kill_at: Instant,
        /// Who goes first when the workload ends by itself.
        successor: Option<String>,
    },
    /// The instant of SIGKILL has moved.
    Extend {
        /// Where to.
        kill_at: Instant,
    },
    /// SIGTERM to the workload, SIGKILL after `grace`.
    Stop {
        /// How long it gets.
        grace: Duration,
        /// Who may go first afterwards.
        successor: Option<String>,
    },
    /// SIGKILL to the workload.
    Kill,
    /// Answer to the request in this step: done or under way, or why not.
    Answer(Result<(), Refusal>),
    /// Nothing to do, but people want to know.
    Note,
    /// Leave the process.
    Exit(Exit),
}

impl Action {
    /// Whether this happens all the time and is of no interest to a person.
    pub fn is_routine(&self) -> bool {
        matches!(self, Action::Read { .. } | Action::Write { .. } | Action::Extend { .. } | Action::StepBack { .. })
    }
}

/// Why the process leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Asked to leave while it was not active.
    StoodBy,
    /// The workload ended, with this code.
    Workload(i32),
    /// The lease was lost and the member was told to leave then.
    LeaseLost,
}

/// A wait that only time ends: nothing proves that nobody is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vigil {
    /// Since when the lock has stood as it does.
    pub since: Instant,
    /// When this member may try, if the lock stands until then.
    pub until: Instant,
}

/// The part that a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Waits for its turn.
    Standby,
    /// Is writing itself into the lock.
    Acquiring,
    /// Its workload may run.
    Active,
    /// Was active; its workload is being stopped, or its release is on its way.
    Stopping,
    /// Has left.
    Ended,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Standby => "standby",
            Role::Acquiring => "acquiring",
            Role::Active => "active",
            Role::Stopping => "stopping",
            Role::Ended => "ended",
        })
    }
}
