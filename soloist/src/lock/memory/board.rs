//! A notice board in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::{MemoryStore, State};
use crate::lock::LockError;
use crate::lock::board::{self, Answer, Asked, Asking, Board, Changes, Look};
use crate::snapshot::Announcement;

/// What is on the board, and how often each part of it has changed.
#[derive(Debug, Default)]
pub(super) struct Posts {
    members: BTreeMap<String, Announcement>,
    request: Option<Asked>,
    answer: Option<Answer>,
    members_changes: u64,
    request_changes: u64,
    answer_changes: u64,
}

/// One client's view of a [`MemoryStore`]'s board.
#[derive(Debug)]
pub struct MemoryBoard {
    store: MemoryStore,
    changes: watch::Receiver<()>,
    /// The counts of the last call, in the order of the fields of [`Changes`].
    heard: Mutex<Option<[u64; 4]>>,
}

impl MemoryStore {
    /// One more client of this store's board.
    pub fn board(&self) -> MemoryBoard {
        MemoryBoard { store: self.clone(), changes: self.changes.subscribe(), heard: Mutex::default() }
    }

    fn post<T>(&self, change: impl FnOnce(&mut Posts) -> T) -> T {
        let result = change(&mut self.state().posts);
        self.changes.send_replace(());
        result
    }
}

impl State {
    fn counts(&self) -> [u64; 4] {
        [self.number, self.posts.members_changes, self.posts.request_changes, self.posts.answer_changes]
    }
}

impl MemoryBoard {
    /// What has changed since the last call.
    fn take(&self) -> Changes {
        let now = self.store.state().counts();
        let before = self.heard.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let Some(before) = before else { return Changes::ALL };
        let [lock, members, request, answer] = [0, 1, 2, 3].map(|part| before[part] != now[part]);
        Changes { lock, members, request, answer }
    }
}

impl Board for MemoryBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        self.store.post(|posts| {
            posts.members.retain(|_, member| member.is_fresh());
            posts.members.insert(own.nonce.clone(), own.clone());
            posts.members_changes += 1;
        });
        Ok(())
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        self.store.post(|posts| {
            posts.members.remove(nonce);
            posts.members_changes += 1;
        });
        Ok(())
    }

    async fn look(&self) -> Result<Look, LockError> {
        let seen = self.store.seen();
        let state = self.store.state();
        let history = state.history.clone();
        let mut members: Vec<_> = state.posts.members.values().filter(|member| member.is_fresh()).cloned().collect();
        board::sort(&mut members);
        Ok(Look { seen, history, members, written_unix_us: None })
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        Ok(self.store.state().posts.request.clone().filter(Asked::is_waiting))
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        self.store.post(|posts| {
            posts.answer = Some(answer.clone());
            posts.answer_changes += 1;
            if posts.request.take_if(|asked| asked.id == answer.id).is_some() {
                posts.request_changes += 1;
            }
        });
        Ok(())
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let first = self.store.state().posts.request.clone().filter(Asked::is_waiting);
        if let Some(first) = first {
            return Ok(Asking::Busy(first));
        }
        self.store.post(|posts| {
            posts.request = Some(asked.clone());
            posts.request_changes += 1;
        });
        Ok(Asking::Up)
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        Ok(self.store.state().posts.answer.clone().filter(|answer| answer.id == id))
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            let heard = self.take();
            // Cannot fail: the store that this board belongs to is the sender.
            if heard.any() || changes.changed().await.is_err() {
                return Ok(heard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::board::contract;

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::suite(async || {
            let store = MemoryStore::new();
            (store.board(), store.board())
        })
        .await;
    }
}
