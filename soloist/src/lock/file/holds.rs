//! Tells somebody else when this process holds a lock that others wait for: a process that is stopped meanwhile would
//! block the whole group, so the guard kills it then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A compare-and-set takes this long at most, on a disk that is not broken.
const WRITE_HOLD: Duration = Duration::from_secs(10);
/// A winner of the flock may have to wait for a lease before it can use it; no lease is longer than a day.
const FLOCK_HOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Hears when this process holds one of the two locks of a lock file by itself.
pub trait Announce: Send + Sync {
    /// From now on, for `limit` at most, unless it is told otherwise. Called again with another limit when that changes.
    fn holding(&self, limit: Duration);
    /// From now on nothing is held.
    fn not_holding(&self);
}

/// What is held now.
#[derive(Default)]
pub(super) struct Holds {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    announce: Option<Arc<dyn Announce>>,
    flock: bool,
    writes: usize,
    told: Option<Duration>,
}

impl State {
    fn tell(&mut self) {
        let limit = match (self.flock, self.writes) {
            (true, _) => Some(FLOCK_HOLD),
            (false, 0) => None,
            (false, _) => Some(WRITE_HOLD),
        };
        if let Some(announce) = &self.announce
            && limit != self.told
        {
            match limit {
                Some(limit) => announce.holding(limit),
                None => announce.not_holding(),
            }
            self.told = limit;
        }
    }
}

impl Holds {
    /// Who hears it from now on; at once, if something is held already.
    pub fn announce_to(&self, announce: Arc<dyn Announce>) {
        self.change(|state| {
            state.announce = Some(announce);
            state.told = None;
        });
    }

    /// The flock was won, or given away.
    pub fn flock(&self, held: bool) {
        self.change(|state| state.flock = held);
    }

    /// Announced until the answer is dropped. To be called before the write lock is taken.
    pub fn writing(&self) -> Writing<'_> {
        self.change(|state| state.writes += 1);
        Writing(self)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.tell();
    }
}

/// One compare-and-set that is going on.
pub(super) struct Writing<'a>(&'a Holds);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.writes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Option<Duration>>>);

    impl Announce for Heard {
        fn holding(&self, limit: Duration) {
            self.0.lock().unwrap().push(Some(limit));
        }
        fn not_holding(&self) {
            self.0.lock().unwrap().push(None);
        }
    }

    #[test]
    fn tells_the_longer_hold_and_each_change_once() {
        let holds = Holds::default();
        holds.flock(true);
        let heard = Arc::new(Heard::default());
        holds.announce_to(heard.clone());
        let first = holds.writing();
        let second = holds.writing();
        drop(first);
        holds.flock(false);
        drop(second);
        let told = heard.0.lock().unwrap().clone();
        assert_eq!(told, [Some(FLOCK_HOLD), Some(WRITE_HOLD), None]);
    }
}
