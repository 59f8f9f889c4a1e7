//! Tells somebody else when this process holds a lock that others wait for: a process that is stopped meanwhile would
//! block the whole group, so the guard kills it then.

use std::sync::{Arc, Mutex, PoisonError};

/// Hears when this process holds one of the two locks of a lock file by itself.
pub trait Announce: Send + Sync {
    /// From now on, until it is told otherwise.
    fn holding(&self);
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
    told: bool,
}

impl State {
    fn tell(&mut self) {
        let holds = self.flock || self.writes > 0;
        if let Some(announce) = &self.announce
            && holds != self.told
        {
            if holds {
                announce.holding()
            } else {
                announce.not_holding()
            }
            self.told = holds;
        }
    }
}

impl Holds {
    /// Who hears it from now on; at once, if something is held already.
    pub fn announce_to(&self, announce: Arc<dyn Announce>) {
        self.change(|state| {
            state.announce = Some(announce);
            state.told = false;
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
    struct Heard(Mutex<Vec<bool>>);

    impl Announce for Heard {
        fn holding(&self) {
            self.0.lock().unwrap().push(true);
        }
        fn not_holding(&self) {
            self.0.lock().unwrap().push(false);
        }
    }

    #[test]
    fn tells_each_change_once() {
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
        assert_eq!(told, [true, false]);
    }
}
