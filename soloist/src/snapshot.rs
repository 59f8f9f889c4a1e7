//! What a member knows of itself and of its group, for everybody who asks: HTTP, hooks, routes, the notice board.
//!
//! The elector publishes a snapshot after each step of the machine and before it acts on it, so that nobody is told
//! "active" a moment too long. Readers compute what depends on the time from the clock when they are asked; a snapshot
//! that stands still, because the elector does, runs out by itself.

mod passage;

use std::sync::Arc;
use std::time::Duration;

use election::{Activation, Attempt, Instant, Role, Token, Vigil};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::lock::history::Change;
use crate::workload::Containment;

pub use self::passage::Passage;

/// The state of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The group's name.
    pub group: String,
    /// The member's name.
    pub name: String,
    /// The part that it plays.
    pub role: Role,
    /// Since when it plays it, in wall-clock microseconds since 1970.
    pub since_unix_us: u64,
    /// Whom the lock names, as far as this member knows.
    pub holder: Option<Holder>,
    /// The slot, counted from 1, that this member acquires, or is active in, or was until nothing of it is left.
    pub slot: Option<u32>,
    /// Whom the lock of each slot names, where there are several.
    pub slots: Vec<Option<Holder>>,
    /// The own time of being active, until nothing of it is left.
    pub tenure: Option<Tenure>,
    /// The last changes of who was active, as the lock keeps them: the oldest first.
    pub history: Arc<[Change]>,
    /// What this member saw of its own last times of being active: the oldest first.
    pub passages: Arc<[Passage]>,
    /// How long observers wait for the present holder.
    pub lease: Duration,
    /// Until when a pause lasts, in wall-clock milliseconds since 1970.
    pub paused_until_unix_ms: Option<u64>,
    /// The own workload.
    pub workload: Workload,
    /// What holds the workload's tree together; nothing before the first one started.
    pub containment: Option<Containment>,
    /// Whether the guard could lock its memory; nothing before the first workload started.
    pub memory_locked: Option<bool>,
    /// Whether the workload runs while this member stands by, and is told when it is active.
    pub is_warm: bool,
    /// Whether this member may be active.
    pub health: Health,
    /// Why this member's place is about to go away, if it is: others are better successors.
    pub leaving: Option<String>,
    /// The other members that announced themselves and this one, by name.
    pub members: Vec<Announcement>,
    /// Why it is so: the last reason of the machine that was worth a log line.
    pub reason: String,
    /// When the last answer of the store came.
    pub store_answered: Option<Instant>,
    /// The holder's last attempt that was seen, and when it was first seen here.
    pub heard: Option<(Attempt, Instant)>,
    /// What is waited out, while nothing proves that nobody is active.
    pub vigil: Option<Vigil>,
    /// When the elector wanted to do something next; long after it, it hangs.
    pub due: Option<Instant>,
    /// Counts the changes that a person would call news. Deadlines that move are none.
    pub news: u64,
}

/// Whom the lock names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The member's name.
    pub name: String,
    /// Its activation, where the record is one of ours.
    pub activation: Option<Activation>,
    /// Its fencing token, where the record says it.
    pub token: Option<Token>,
}

/// One's own time of being active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// This time of being active.
    pub activation: Activation,
    /// Its fencing token.
    pub token: Token,
    /// When the workload is stopped unless a renewal is confirmed before: until then "active" holds.
    pub stop_at: Instant,
    /// When it is killed.
    pub kill_at: Instant,
}

/// How far the own workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Workload {
    /// Nothing of it is there.
    #[default]
    None,
    /// It runs as a standby, and was not told that it is active.
    Warm {
        /// The PID of the command.
        pid: i32,
        /// Since when, in wall-clock microseconds since 1970.
        since_unix_us: u64,
    },
    /// The guard was told to start it, or to tell it that it is active.
    Starting,
    /// It runs.
    Running {
        /// The PID of the command.
        pid: i32,
        /// Since when, in wall-clock microseconds since 1970.
        since_unix_us: u64,
    },
    /// It was told to end, or its command has ended and the rest of its tree is being ended.
    Stopping {
        /// The PID of the command, if it ever ran.
        pid: Option<i32>,
    },
}

impl Workload {
    /// The word for it in `/status`.
    pub fn word(self) -> &'static str {
        match self {
            Workload::None => "none",
            Workload::Warm { .. } => "warm",
            Workload::Starting => "starting",
            Workload::Running { .. } => "running",
            Workload::Stopping { .. } => "stopping",
        }
    }

    /// The PID of the command, while there is one.
    pub fn pid(self) -> Option<i32> {
        match self {
            Workload::Warm { pid, .. } | Workload::Running { pid, .. } => Some(pid),
            Workload::Stopping { pid } => pid,
            Workload::None | Workload::Starting => None,
        }
    }
}

/// What the health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether this member may be active.
    pub healthy: bool,
    /// One sentence for people.
    pub why: String,
}

/// What a member says of itself beside the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The member's name.
    pub name: String,
    /// The nonce of its process: a member that is started anew is another one.
    pub nonce: String,
    /// The part that it played when it wrote this.
    pub role: String,
    /// Whether it may be active.
    pub healthy: bool,
    /// Why it is unhealthy, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether its place is about to go away: others go first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The version of soloist.
    pub version: String,
    /// Since when it has been there, in wall-clock milliseconds since 1970: who waits longest goes first.
    pub since_unix_ms: u64,
    /// When it wrote this, in wall-clock milliseconds since 1970.
    pub at_unix_ms: u64,
}

impl Snapshot {
    /// A member that has not looked at the lock yet.
    pub fn new(group: &str, name: &str, lease: Duration, health: Health, now_unix_us: u64) -> Self {
        Self {
            group: group.to_owned(),
            name: name.to_owned(),
            role: Role::Standby,
            since_unix_us: now_unix_us,
            holder: None,
            slot: None,
            slots: Vec::new(),
            tenure: None,
            history: Arc::default(),
            passages: Arc::default(),
            lease,
            paused_until_unix_ms: None,
            workload: Workload::None,
            containment: None,
            memory_locked: None,
            is_warm: false,
            health,
            leaving: None,
            members: Vec::new(),
            reason: "has not looked at the lock yet".to_owned(),
            store_answered: None,
            heard: None,
            vigil: None,
            due: None,
            news: 0,
        }
    }

    /// A member of a group of which so many may be active.
    #[must_use]
    pub fn in_slots(mut self, count: usize) -> Self {
        if count > 1 {
            self.slots = vec![None; count];
        }
        self
    }

    /// How long this member may still say that it is active; nothing if it may not.
    /// See docs/safety.md R16.
    pub fn active_for(&self, now: Instant) -> Option<Duration> {
        let tenure = self.tenure.filter(|_| self.told_role() == Role::Active)?;
        let rest = tenure.stop_at.since(now);
        (!rest.is_zero()).then_some(rest)
    }

    /// The role that anybody may be told. A workload that is warm may hear of it from anywhere, so nobody hears that this
    /// member is active before the guard has told the workload and ends it at the deadline.
    /// See docs/safety.md R21.
    pub fn told_role(&self) -> Role {
        match (self.role, self.workload) {
            (Role::Active, workload) if self.is_warm && !matches!(workload, Workload::Running { .. }) => {
                Role::Acquiring
            }
            (role, _) => role,
        }
    }

    /// The holder that anybody may be told, where that is not this member before its workload was.
    pub fn told_holder(&self) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| self.told_role() == self.role || holder.name != self.name)
    }

    /// The last time of being active that has ended, anybody's.
    pub fn previous(&self) -> Option<&Change> {
        self.history.iter().rev().find(|change| change.end.is_some())
    }

    /// The changes that anybody may be told: not that this member is active before its workload was.
    /// See docs/safety.md R21.
    pub fn told_history(&self) -> &[Change] {
        match self.history.split_last() {
            Some((last, rest)) if self.told_role() != self.role && last.member == self.name && last.end.is_none() => {
                rest
            }
            _ => &self.history,
        }
    }

    /// Whether another member that has announced itself may be active.
    pub fn another_is_fit(&self) -> bool {
        self.members.iter().any(|member| member.healthy && member.name != self.name)
    }

    /// Whether one of them is not about to leave either.
    pub fn another_stays(&self) -> bool {
        self.members.iter().any(|member| member.healthy && !member.leaving && member.name != self.name)
    }

    /// What of it a person would call news when it changes; the rest moves with each renewal.
    #[must_use]
    pub fn lasting(&self) -> Self {
        let (stop_at, kill_at) = (Instant::default(), Instant::default());
        let tenure = self.tenure.map(|tenure| Tenure { stop_at, kill_at, ..tenure });
        Self { tenure, store_answered: None, heard: None, vigil: None, due: None, news: 0, ..self.clone() }
    }
}

/// Where snapshots come from: the elector has one, everybody else a receiver.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Snapshot>,
}

impl Publisher {
    /// Publishes `first` at once.
    pub fn new(first: Snapshot) -> Self {
        Self { sender: watch::Sender::new(first) }
    }

    /// One more reader.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }

    /// What was published last. Not to be kept: nobody can publish meanwhile.
    pub fn newest(&self) -> watch::Ref<'_, Snapshot> {
        self.sender.borrow()
    }

    /// Changes the snapshot; readers wake up if it is another one then.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        self.sender.send_if_modified(|snapshot| {
            let before = snapshot.clone();
            change(snapshot);
            if snapshot.lasting() != before.lasting() {
                snapshot.news += 1;
            }
            *snapshot != before
        });
    }
}
