//! A board of which a test says what it shows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use election::{
    Activation, Attempt, Claim, Evidence, Holder, Member, Nonce, Proof, Record, Release, Seen, Token, Version,
};

use super::{Front, Target};
use crate::lock::LockError;
use crate::lock::board::{Answer, Asked, Asking, Board, Changes, Look, Refused};
use crate::lock::history::Change;
use crate::lock::kubernetes::Access;
use crate::settings::{FilePlace, Place};
use crate::snapshot::Announcement;

#[derive(Default)]
struct State {
    /// What the looks show, one after the other; the last one stays.
    looks: VecDeque<Look>,
    /// How requests are answered, if they are.
    answer: Option<Option<Refused>>,
    busy: Option<Asked>,
    asked: Vec<Asked>,
    failure: Option<LockError>,
    hangs: bool,
}

pub(in crate::cli) struct Fake(Mutex<State>);

impl Fake {
    pub fn new(first: Look) -> Self {
        Self(Mutex::new(State { looks: VecDeque::from([first]), ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Then this is seen, from the next look after an answer on.
    pub fn then(self, look: Look) -> Self {
        self.state().looks.push_back(look);
        self
    }

    pub fn answers(&self, refusal: Option<Refused>) {
        self.state().answer = Some(refusal);
    }

    pub fn busy_with(&self, first: Asked) {
        self.state().busy = Some(first);
    }

    pub fn fails(&self, failure: Option<LockError>) {
        self.state().failure = failure;
    }

    pub fn hangs(&self) {
        self.state().hangs = true;
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }
}

impl Board for Fake {
    async fn announce(&self, _: &Announcement) -> Result<(), LockError> {
        Ok(())
    }

    async fn withdraw(&self, _: &str) -> Result<(), LockError> {
        Ok(())
    }

    async fn look(&self) -> Result<Look, LockError> {
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let look = state.looks.front().cloned().unwrap();
        if state.looks.len() > 1 {
            state.looks.pop_front();
        }
        Ok(look)
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        Ok(self.state().asked.last().cloned())
    }

    async fn answer(&self, _: &Answer) -> Result<(), LockError> {
        Ok(())
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let mut state = self.state();
        if let Some(first) = &state.busy {
            return Ok(Asking::Busy(first.clone()));
        }
        state.asked.push(asked.clone());
        Ok(Asking::Up)
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        let refusal = self.state().answer.clone();
        Ok(refusal.map(|refusal| Answer { id: id.to_owned(), by: "a".to_owned(), refusal }))
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Changes::ALL)
    }
}

/// The group `app` with a lock file that nobody looks for.
pub(in crate::cli) fn target_at(lock: &str) -> Target {
    let lock = Place::File(FilePlace { path: lock.into(), is_default: false });
    Target { group: "app".to_owned(), lock, slot: None, access: Access::default(), front: Front::default() }
}

fn member(name: &str) -> Member {
    Member { name: name.to_owned(), nonce: Nonce(u128::from(name.as_bytes()[0])) }
}

fn look(claim: Claim, number: u64) -> Look {
    let record = Record { claim, lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None };
    let seen = Seen { version: Version { incarnation: 0, number }, record: Some(record), evidence: Evidence::None };
    Look { seen, history: Vec::new(), members: Vec::new(), written_unix_us: None }
}

/// `name` is active, with this number as activation and token.
pub(in crate::cli) fn held(name: &str, number: u64) -> Look {
    let holder = Holder {
        member: member(name),
        activation: Activation(u128::from(number)),
        attempt: Attempt { count: number, random: 1 },
        token: Some(Token(number)),
    };
    look(Claim::Held(holder), number)
}

/// `name` has released this activation.
pub(in crate::cli) fn released(name: &str, number: u64) -> Look {
    let release = Release {
        member: member(name),
        activation: Activation(u128::from(number)),
        attempt: Attempt { count: number, random: 1 },
        proof: Proof::NoChildLeft,
        successor: None,
    };
    look(Claim::Released(release), number)
}

/// Nobody of ours wrote the record.
pub(in crate::cli) fn foreign(why: &str) -> Look {
    let foreign = election::Foreign { holder: None, fingerprint: 1, why: why.to_owned() };
    look(Claim::Foreign(foreign), 1)
}

/// With a history.
pub(in crate::cli) fn with_history(mut look: Look, history: &[Change]) -> Look {
    look.history = history.to_vec();
    look
}

/// With members that have announced themselves `age_ms` before `now_unix_ms`; the nonces are those of [`held`].
pub(in crate::cli) fn with_members(mut look: Look, now_unix_ms: u64, members: &[(&str, bool)]) -> Look {
    let announcement = |(name, healthy): &(&str, bool)| Announcement {
        name: (*name).to_owned(),
        nonce: member(name).nonce.to_string(),
        role: "standby".to_owned(),
        healthy: *healthy,
        why: (!healthy).then(|| "the check said no".to_owned()),
        leaving: false,
        version: "0.1.0".to_owned(),
        since_unix_ms: now_unix_ms - 60_000,
        at_unix_ms: now_unix_ms - 2_000,
    };
    look.members = members.iter().map(announcement).collect();
    look
}

/// One time of being active.
pub(in crate::cli) fn change(member: &str, token: u64, from_us: u64, until_us: Option<u64>) -> Change {
    Change {
        token: Some(token),
        member: member.to_owned(),
        from_us,
        why: "there is no record of an active member".to_owned(),
        until_us,
        end: until_us.map(|_| "switchover".to_owned()),
    }
}
