//! The workload: the user's command and all that it forks, behind a guard that cannot leave it running.

pub mod any;
mod attention;
pub mod cgroup;
pub mod guard;
pub mod keeper;
mod line;
pub mod nothing;
pub mod process;
mod protocol;
mod run;
pub mod size;
mod sys;
pub mod task;
mod terminal;
mod tree;
pub mod via;
pub mod warm;

pub(crate) use attention::PATIENCE as GUARD_PATIENCE;
pub(crate) use sys::{die_with_parent, restore_descriptor_limit, watch};

use std::ffi::OsString;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use election::{Activation, Instant, Member, Proof, Token, Version};
use serde::{Deserialize, Serialize};

/// What is known of an activation before the lock grants it.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// This time of being active.
    pub activation: Activation,
    /// The own member.
    pub member: Member,
    /// The slot that it is active in, counted from 1.
    pub slot: u32,
    /// How long the rest of a tree gets between SIGTERM and SIGKILL when the command ends by itself.
    pub stop_grace: Duration,
    /// The lock file, where the lock lives on this host: the guard writes the release itself then, so that it is there
    /// even when the elector is not.
    pub local_lock: Option<PathBuf>,
}

/// What the guard needs to start one activation.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What was known before.
    pub preparation: Preparation,
    /// Its fencing token.
    pub token: Token,
    /// SIGKILL on this instant, unless it is extended.
    pub kill_at: Instant,
    /// Named in the guard's own release when the command ends by itself.
    pub successor: Option<String>,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be executed: 126 or 127.
    NotStarted(i32),
}

impl Ending {
    /// The code with which a shell would name it.
    pub fn code(self) -> i32 {
        match self {
            Ending::Code(code) | Ending::NotStarted(code) => code,
            Ending::Signal(signal) => 128 + signal,
        }
    }
}

/// What holds the tree together if guard and elector die at once; the strongest that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containment {
    /// soloist is PID 1 of a PID namespace: the kernel ends the namespace with it.
    PidNamespace,
    /// A cgroup v2 of its own, which can be killed whole.
    Cgroup,
    /// Only the subreapers: processes that outlive both keepers are found by their environment.
    Subreaper,
}

impl Containment {
    /// The word for it in logs and in `/status`.
    pub fn word(self) -> &'static str {
        match self {
            Containment::PidNamespace => "pid-namespace",
            Containment::Cgroup => "cgroup",
            Containment::Subreaper => "subreaper",
        }
    }
}

/// What the guard reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The command runs.
    Started {
        /// Its PID.
        pid: i32,
        /// What holds its tree.
        containment: Containment,
        /// Whether the guard could lock its memory: then no shortage of it makes the guard late.
        memory_locked: bool,
    },
    /// The command itself ended; others of its tree may still be there.
    Exited(Ending),
    /// Nothing of the tree is left.
    Gone {
        /// How that is known.
        proof: Proof,
        /// The version of the release, where the guard wrote it.
        released: Option<Version>,
    },
    /// The guard woke up this much later than it should have, more than ever before.
    Late(Duration),
    /// The command was not even tried, for a reason of the host's; `Exited` and `Gone` follow.
    Failed(String),
    /// Something cannot be killed (another user's process, uninterruptible IO); the guard goes on trying.
    Stuck(String),
    /// The guard is gone or was killed because it did not answer; the elector ends the tree and `Gone` follows.
    GuardLost(String),
    /// The command runs as a standby.
    Stands {
        /// Its PID.
        pid: i32,
        /// What holds its tree.
        containment: Containment,
        /// As of [`Event::Started`].
        memory_locked: bool,
    },
    /// The standby has ended, and not because it was to. Nothing of it was ever told that it is active.
    Fell {
        /// How, for people.
        why: String,
        /// The code with which the member leaves, where it does not start another one.
        leaves: Option<i32>,
    },
    /// [`Workload::absence`] has changed.
    Absent,
    /// Whether anything of it is left will never be known, and why. Nothing follows.
    Forsaken(String),
}

/// Starts, stops and proves. Implemented by the handle to the guard process, and by the simulator.
///
/// Orders never block. Every started activation ends with exactly one [`Event::Gone`] or [`Event::Forsaken`].
pub trait Workload {
    /// Why nothing could be started now; it says [`Event::Absent`] when that changes.
    fn absence(&self) -> Option<String> {
        None
    }
    /// Whether there is ever a process of it.
    fn has_processes(&self) -> bool {
        true
    }
    /// An activation may be granted soon: whatever can be done for it, without running a single instruction of the
    /// command, may be done now. Who makes nothing ready has nothing to do here.
    fn prepare(&mut self, _preparation: Preparation) {}
    /// What was prepared and not started will not be. Nothing of it stays, and no event tells of it.
    fn discard(&mut self) {}
    /// Starts an activation; `descriptor` stays open in guard and workload until the last of them is gone.
    fn start(&mut self, launch: Launch, descriptor: Option<OwnedFd>);
    /// Moves the instant of SIGKILL; also shortens.
    fn extend(&mut self, kill_at: Instant);
    /// SIGTERM now, SIGKILL after `grace`. A later call may only shorten. `successor` and the reason `why` go into a local
    /// release.
    fn stop(&mut self, grace: Duration, successor: Option<String>, why: &str);
    /// SIGKILL now.
    fn kill(&mut self);
    /// Passes a signal on to the command.
    fn signal(&mut self, signal: i32);
    /// The member stands by: a workload that is kept warm is started, where it is not. The PID of the one that is there.
    fn stand_by(&mut self) -> Option<i32> {
        None
    }
    /// The member leaves: ends what stands by, SIGTERM now and SIGKILL after `grace`. A later call may only shorten.
    fn stand_down(&mut self, _grace: Duration) {}
    /// Whether anything of a standby is there.
    fn stands(&self) -> bool {
        false
    }
    /// Resident memory of the tree, in bytes; 0 where nothing runs. What a kill will cost depends on it.
    fn resident_bytes(&self) -> u64;
    /// A report that is there already. What the guard wrote to a lock comes after what it said before.
    fn try_next(&mut self) -> Option<Event>;
    /// The next report. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Event>;
}
