//! Tells somebody else when this process holds a lock that others wait for: a process that is stopped meanwhile would
//! block the whole group, so the guard kills it then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hears when this process holds one of the two locks of a lock file by itself.
pub trait Announce: Send + Sync {
    /// From now on, until it is told otherwise.
    fn holding(&self);
    /// From now on nothing is held.
    fn not_holding(&self);
}

/// Several lock files of one process, which hold something while one of them does.
pub struct JointAnnounce {
    announce: Box<dyn Announce>,
    holding: Mutex<usize>,
}

impl JointAnnounce {
    /// All of them tell `announce`.
    pub fn of(announce: impl Announce + 'static) -> Self {
        Self { announce: Box::new(announce), holding: Mutex::new(0) }
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announce for JointAnnounce {
    fn holding(&self) {
        let mut holding = self.count();
        *holding += 1;
        if *holding == 1 {
            self.announce.holding();
        }
    }

    fn not_holding(&self) {
        let mut holding = self.count();
        *holding = holding.saturating_sub(1);
        if *holding == 0 {
            self.announce.not_holding();
        }
    }
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

    impl Announce for Arc<Heard> {
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
        holds.announce_to(Arc::new(heard.clone()));
        let first = holds.writing();
        let second = holds.writing();
        drop(first);
        holds.flock(false);
        drop(second);
        let told = heard.0.lock().unwrap().clone();
        assert_eq!(told, [true, false]);
    }

    #[test]
    fn one_of_several_is_enough() {
        let heard = Arc::new(Heard::default());
        let joint = Arc::new(JointAnnounce::of(heard.clone()));
        let several = [Holds::default(), Holds::default()];
        several.iter().for_each(|holds| holds.announce_to(joint.clone()));
        several[0].flock(true);
        several[1].flock(true);
        several[0].flock(false);
        assert_eq!(*heard.0.lock().unwrap(), [true]);
        several[1].flock(false);
        assert_eq!(*heard.0.lock().unwrap(), [true, false]);
    }
}
