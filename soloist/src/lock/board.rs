//! The notice board beside the lock: who is there, what an operator asks for, and what has happened.
//!
//! Nothing on it decides who is active. A member that cannot reach its board takes part all the same; only operators
//! and the choice of a successor miss something.

#[cfg(test)]
pub(crate) mod contract;

use std::future::Future;
use std::time::Duration;

use election::{Activation, Claim, Evidence, Nonce, Refusal, RefusalKind, Request, Seen, Version};
use serde::{Deserialize, Serialize};

use super::LockError;
use super::history::Change;
use crate::clock::unix_us;
use crate::settings::{ACTIVE_MAX, is_member_name};
use crate::snapshot::Announcement;

/// How long one call to the board may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long an announcement counts without a new one.
pub const ANNOUNCEMENT_LIFE: Duration = Duration::from_secs(120);
/// How often a member announces itself at most while nothing changes.
pub const ANNOUNCEMENT_PERIOD: Duration = Duration::from_secs(60);
/// How long a request waits for its answer. Whoever asks gives up then, and another request may take its place.
pub const REQUEST_LIFE: Duration = Duration::from_secs(10);

/// One authoritative look for those who only want to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// The lock.
    pub seen: Seen,
    /// The last changes, oldest first.
    pub history: Vec<Change>,
    /// Who is there.
    pub members: Vec<Announcement>,
    /// When the record was written, by the wall clock: for display only.
    pub written_unix_us: Option<u64>,
}

impl Look {
    /// At a lock that does not exist, with these members beside it.
    pub fn at_nothing(members: Vec<Announcement>) -> Self {
        let seen = Seen { version: Version::ABSENT, record: None, evidence: Evidence::None };
        Self { seen, history: Vec::new(), members, written_unix_us: None }
    }

    /// How many slots the record says there are.
    pub fn slots(&self) -> u32 {
        self.seen.record.as_ref().map_or(1, |record| record.slots.min(ACTIVE_MAX))
    }

    /// Whether somebody else wrote the record, or nobody can read it.
    pub fn is_foreign(&self) -> bool {
        matches!(self.seen.record.as_ref().map(|record| &record.claim), Some(Claim::Foreign(_)))
    }
}

/// A request that an operator has put up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Random, so that an answer finds its request.
    pub id: String,
    /// What is asked for.
    pub wish: Wish,
    /// The activation that the lock named when it was asked: a member that became active later must not obey.
    pub activation: String,
    /// Who asks, for people.
    pub by: String,
    /// When, in wall-clock milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// What can be asked for, as it is spelled on the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// Hand over, to a named member or to any.
    Switchover {
        /// Whom to.
        to: Option<String>,
    },
    /// A long lease.
    Pause {
        /// How long.
        for_ms: u64,
    },
    /// End a pause.
    Resume,
    /// The operator vouches that the activation cannot run any more, neither its workload nor its soloist.
    Fenced,
}

impl Wish {
    /// The request that a member's machine understands, `now` being in wall-clock milliseconds since 1970.
    pub fn request(&self, activation: Activation, now_unix_ms: u64) -> Request {
        match self {
            Wish::Switchover { to } => Request::Switchover { to: to.clone() },
            Wish::Pause { for_ms } => Request::Pause {
                length: Duration::from_millis(*for_ms),
                until_unix_ms: now_unix_ms.saturating_add(*for_ms),
            },
            Wish::Resume => Request::Resume,
            Wish::Fenced => Request::Fenced { activation },
        }
    }

    /// Whether the active member answers it; the others do so otherwise.
    pub fn is_for_the_active(&self) -> bool {
        !matches!(self, Wish::Fenced)
    }
}

/// What a member says to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's id.
    pub id: String,
    /// Who answers.
    pub by: String,
    /// Nothing if it is granted.
    pub refusal: Option<Refused>,
}

/// A refusal, as it is spelled on the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The kind of no: `wrong-member`, `conflict`, `no-candidate` or `invalid`.
    pub kind: String,
    /// One sentence for people.
    pub why: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind {
            RefusalKind::WrongMember => "wrong-member",
            RefusalKind::Conflict => "conflict",
            RefusalKind::NoCandidate => "no-candidate",
            RefusalKind::Invalid => "invalid",
        };
        Self { kind: kind.to_owned(), why: refusal.why }
    }
}

/// How putting up a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It is up; the answer will come.
    Up,
    /// Somebody else has asked for something and waits for the answer.
    Busy(Asked),
}

impl Announcement {
    /// Whether all of it may be believed and shown: a terminal obeys control characters.
    pub(super) fn is_sound(&self) -> bool {
        let Announcement { name, nonce, role, why, version, .. } = self;
        is_member_name(name)
            && Nonce::parse(nonce).is_some_and(|parsed| parsed.to_string() == *nonce)
            && [role, version].into_iter().chain(why).all(|text| is_plain(text))
    }

    /// Whether it counts still, or counts already.
    pub(crate) fn is_fresh(&self) -> bool {
        is_within(self.at_unix_ms, ANNOUNCEMENT_LIFE)
    }
}

impl Asked {
    /// Whether whoever asked waits for the answer.
    pub(super) fn is_waiting(&self) -> bool {
        is_within(self.at_unix_ms, REQUEST_LIFE)
    }

    /// Whether a terminal shows it and obeys nothing in it.
    pub(super) fn is_showable(&self) -> bool {
        is_plain(&self.by)
    }
}

impl Answer {
    /// Whether a terminal shows it and obeys nothing in it.
    pub(super) fn is_showable(&self) -> bool {
        is_plain(&self.by) && self.refusal.as_ref().is_none_or(|refused| is_plain(&refused.why))
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Whether the wall clock says that `at` is no longer than `life` ago. A clock that was set makes it old.
fn is_within(at_unix_ms: u64, life: Duration) -> bool {
    Duration::from_millis((unix_us() / 1000).abs_diff(at_unix_ms)) < life
}

/// In the order in which members are shown.
pub(super) fn sort(members: &mut [Announcement]) {
    members.sort_unstable_by(|a, b| (&a.name, &a.nonce).cmp(&(&b.name, &b.nonce)));
}

/// What may have changed. Says too much rather than too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The lock itself.
    pub lock: bool,
    /// Who is there, or what they say of themselves.
    pub members: bool,
    /// The request that waits.
    pub request: bool,
    /// The last answer.
    pub answer: bool,
}

impl Changes {
    /// What is assumed before anything was heard.
    pub const ALL: Self = Self { lock: true, members: true, request: true, answer: true };

    /// Whether there is anything to look at.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What members and operators keep beside the lock. Calls may block for as long as the store does: the caller bounds
/// them in time, and dropping a future is safe.
pub trait Board {
    /// Puts up the own announcement, or replaces it.
    fn announce(&self, own: &Announcement) -> impl Future<Output = Result<(), LockError>> + Send;
    /// Takes the announcement of the member with this nonce down. Others who write at the same time may cost it many
    /// calls; where one of them is not answered within [`CALL_LIMIT`], it gives up.
    fn withdraw(&self, nonce: &str) -> impl Future<Output = Result<(), LockError>> + Send;
    /// Lock, history, and the members whose announcement is fresh.
    fn look(&self) -> impl Future<Output = Result<Look, LockError>> + Send;
    /// The request that waits for an answer, if there is one.
    fn asked(&self) -> impl Future<Output = Result<Option<Asked>, LockError>> + Send;
    /// Answers a request, and takes it down.
    fn answer(&self, answer: &Answer) -> impl Future<Output = Result<(), LockError>> + Send;
    /// Puts up a request, unless another one waits.
    fn ask(&self, asked: &Asked) -> impl Future<Output = Result<Asking, LockError>> + Send;
    /// The answer to a request, once it is there. Looking at it does not take it down.
    fn answered(&self, id: &str) -> impl Future<Output = Result<Option<Answer>, LockError>> + Send;
    /// Returns when the board or the lock may have changed since the last call; the first call returns at once. Cancel
    /// safe. For one caller at a time: what one hears, another one does not.
    fn changed(&self) -> impl Future<Output = Result<Changes, LockError>> + Send;
}
