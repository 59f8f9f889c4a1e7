//! A lock in memory: for tests and for the simulator. Deterministic, and at home on a paused clock.

mod board;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use election::{Activation, Claim, Evidence, Foreign, Record, Seen, Version, Write};
use tokio::sync::watch;

pub use self::board::MemoryBoard;

use self::board::Posts;
use super::codec::FOREIGN_LEASE;
use super::history::{self, Change};
use super::{Lock, LockError};
use crate::clock::unix_us;

/// The store that any number of [`MemoryLock`]s share. Clones are the same store.
///
/// It counts as Kubernetes does: every write has the next number, deletions too, and a lock that is created again is
/// another incarnation.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    incarnation: u64,
    number: u64,
    record: Option<Record>,
    past: Vec<(Version, Record)>,
    history: Vec<Change>,
    posts: Posts,
}

impl State {
    fn version(&self) -> Version {
        match self.record {
            Some(_) => Version { incarnation: self.incarnation, number: self.number },
            None => Version::ABSENT,
        }
    }

    fn put(&mut self, record: Record) -> Version {
        if self.record.is_none() {
            self.incarnation += 1;
        }
        self.number += 1;
        self.record = Some(record.clone());
        self.past.push((self.version(), record));
        self.version()
    }

    /// Notes what a write of ours changes; `before` is what it replaces.
    fn note(&mut self, before: Option<&Claim>, record: &Record, why: &str) {
        let now = unix_us();
        let token = Some(self.number);
        match &record.claim {
            Claim::Held(holder) if before.is_none_or(|before| activation(before) != Some(holder.activation)) => {
                history::acquired(&mut self.history, token, &holder.member.name, why, now);
            }
            Claim::Released(release) => {
                let token = self.history.last().and_then(|last| last.token);
                history::ended(&mut self.history, token, &release.member.name, why, now);
            }
            _ => {}
        }
    }
}

/// The activation that holds, if one does.
fn activation(claim: &Claim) -> Option<Activation> {
    match claim {
        Claim::Held(holder) => Some(holder.activation),
        _ => None,
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { state: Arc::default(), changes: watch::Sender::new(()) }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more client of this store.
    pub fn lock(&self) -> MemoryLock {
        MemoryLock { store: self.clone() }
    }

    /// What the lock is now.
    pub fn seen(&self) -> Seen {
        let state = self.state();
        Seen { version: state.version(), record: state.record.clone(), evidence: Evidence::None }
    }

    /// Deletes the lock, as an operator would.
    pub fn delete(&self) {
        let mut state = self.state();
        state.record = None;
        state.history.clear();
        state.number += 1;
        drop(state);
        self.changes.send_replace(());
    }

    /// Goes back to an earlier version, as a store that is restored from a backup does. Counts on from there.
    /// False if there never was such a version.
    pub fn rewind(&self, to: Version) -> bool {
        let mut state = self.state();
        let Some(at) = state.past.iter().rposition(|(version, _)| *version == to) else { return false };
        state.past.truncate(at + 1);
        state.incarnation = to.incarnation;
        state.number = to.number;
        state.record = state.past.last().map(|(_, record)| record.clone());
        drop(state);
        self.changes.send_replace(());
        true
    }

    /// Writes a record that is none of ours, as another program would. Returns its version.
    pub fn blank(&self, foreign: Foreign) -> Version {
        let claim = Claim::Foreign(foreign);
        let version = self.state().put(Record { claim, lease: FOREIGN_LEASE, slots: 1, paused_until_unix_ms: None });
        self.changes.send_replace(());
        version
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare_and_set(&self, expected: Version, record: &Record, why: &str) -> Write {
        let mut state = self.state();
        let current = state.version();
        if current == Version::ABSENT && expected != Version::ABSENT {
            return Write::Gone;
        }
        if current != expected {
            return Write::Conflict;
        }
        let before = state.record.as_ref().map(|record| record.claim.clone());
        let version = state.put(record.clone());
        state.note(before.as_ref(), record, why);
        drop(state);
        self.changes.send_replace(());
        Write::Written(version)
    }
}

/// One client of a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemoryLock {
    store: MemoryStore,
}

impl Lock for MemoryLock {
    async fn read(&self) -> Result<Seen, LockError> {
        Ok(self.store.seen())
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        self.store.compare_and_set(expected, record, why)
    }

    fn history(&self) -> Vec<Change> {
        self.store.state().history.clone()
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        let mut changes = self.store.changes.subscribe();
        while self.store.seen().version == since {
            // Cannot fail: the store that this lock belongs to is the sender.
            if changes.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::board::Board as _;
    use crate::lock::contract;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract() {
        contract::suite(async || {
            let store = MemoryStore::new();
            (store.lock(), store.lock())
        })
        .await;
    }

    #[tokio::test]
    async fn history_is_kept_beside_the_record() {
        let store = MemoryStore::new();
        let lock = store.lock();
        let acquired = contract::written(lock.write(Version::ABSENT, &contract::held(1, 1), "acquiring: free").await);
        let renewed = contract::written(lock.write(acquired, &contract::held(1, 2), "renewing").await);
        let ended = contract::written(lock.write(renewed, &contract::released(1), "asked to leave").await);
        contract::written(lock.write(ended, &contract::held(2, 1), "acquiring: released").await);
        let history = store.board().look().await.unwrap().history;
        let told: Vec<_> = history.iter().map(|change| (change.why.as_str(), change.end.as_deref())).collect();
        assert_eq!(told, [("free", Some("asked to leave")), ("released", None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn deleted_rewound_and_blanked() {
        let store = MemoryStore::new();
        let lock = store.lock();
        let first = contract::written(lock.write(Version::ABSENT, &contract::held(1, 1), "why").await);
        let second = contract::written(lock.write(first, &contract::held(1, 2), "why").await);
        assert!(store.rewind(first));
        assert!(first.rewinds(second));
        assert_eq!(lock.read().await.unwrap().record, Some(contract::held(1, 1)));
        assert!(!store.rewind(second), "it has not been there yet");

        store.delete();
        assert_eq!(lock.read().await.unwrap().version, Version::ABSENT);
        assert_eq!(lock.write(first, &contract::held(1, 3), "why").await, Write::Gone);
        let again = contract::written(lock.write(Version::ABSENT, &contract::held(2, 1), "why").await);
        assert_ne!(again.incarnation, first.incarnation);

        let blank = store.blank(Foreign { holder: None, fingerprint: 1, why: "blanked".into() });
        assert!(blank.number > again.number);
        assert_eq!(lock.write(again, &contract::held(2, 2), "why").await, Write::Conflict);
    }
}
