//! The queue for the flock: one thread that blocks in `flock`, because the kernel tells nobody else when a holder dies.
//!
//! The thread sleeps in the kernel, so that an idle standby never wakes up. Nothing can interrupt a `flock` without a
//! signal handler of our own (and those need unsafe code), so a dropped queue leaves a blocked thread behind: it holds
//! no lock, it does not keep the process from ending, and when its turn comes it lets go at once and ends.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::holds::Holds;
use super::paths::{Inode, Paths, open_lock};

/// How long to wait after the lock file could not be opened (folder gone, no descriptor left).
const RETRY: Duration = Duration::from_secs(1);
/// It calls little, and every member has one.
const STACK_BYTES: usize = 256 * 1024;

/// The flock, won. Closing the file lets go of it: never LOCK_UN, since guard and workload share the description.
#[derive(Clone, Debug)]
pub(super) struct Flock {
    /// The flocked file.
    pub file: Arc<File>,
    /// Which file that is.
    pub inode: Inode,
}

/// This member's place.
#[derive(Debug)]
enum Place {
    /// The thread is waiting, or about to.
    Waiting,
    /// The flock is ours, and in this process.
    Won(Flock),
    /// Not wanted: the own activation is in force, its guard has the descriptor.
    Away,
}

struct State {
    place: Place,
    not_before: Option<Instant>,
    closed: bool,
}

struct Inner {
    paths: Paths,
    state: Mutex<State>,
    turn: Condvar,
    wins: watch::Sender<u64>,
    holds: Arc<Holds>,
}

/// The queue for one lock file.
pub(super) struct Queue {
    inner: Arc<Inner>,
}

impl Queue {
    /// Takes the flock if it is free, and queues for it otherwise.
    pub fn start(paths: Paths, file: File, holds: Arc<Holds>) -> io::Result<Self> {
        let place = match file.try_lock() {
            Ok(()) => won_if_current(&paths, file)?.map_or(Place::Waiting, Place::Won),
            Err(TryLockError::WouldBlock) => Place::Waiting,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        let won = matches!(place, Place::Won(_));
        holds.flock(won);
        let inner = Arc::new(Inner {
            paths,
            state: Mutex::new(State { place, not_before: None, closed: false }),
            turn: Condvar::new(),
            wins: watch::Sender::new(u64::from(won)),
            holds,
        });
        let in_thread = Arc::clone(&inner);
        thread::Builder::new().name("flock".into()).stack_size(STACK_BYTES).spawn(move || in_thread.run())?;
        Ok(Self { inner })
    }

    /// Makes watchers look again, as a win does.
    pub fn nudger(&self) -> impl Fn() + Send + use<> {
        let inner = Arc::clone(&self.inner);
        move || inner.wins.send_modify(|wins| *wins += 1)
    }

    /// How often the flock has been won.
    pub fn wins(&self) -> u64 {
        *self.inner.wins.borrow()
    }

    /// Hears of the next win.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.wins.subscribe()
    }

    /// The flock, if it is ours and its path still names it; otherwise it is worthless, and this member queues again.
    pub fn won(&self) -> io::Result<Option<Flock>> {
        let flock = match &self.inner.state().place {
            Place::Won(flock) => flock.clone(),
            Place::Waiting | Place::Away => return Ok(None),
        };
        if Inode::of_path(&self.inner.paths.lock)? == Some(flock.inode) {
            return Ok(Some(flock));
        }
        let mut state = self.inner.state();
        if matches!(&state.place, Place::Won(current) if current.inode == flock.inode) {
            self.inner.leave(&mut state, Place::Waiting);
        }
        Ok(None)
    }

    /// Whether the flock is somebody else's, and this member in the queue for it.
    pub fn waits(&self) -> bool {
        matches!(self.inner.state().place, Place::Waiting)
    }

    /// Waits until the flock is won, for `limit` at most.
    pub fn wait_won(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| !matches!(state.place, Place::Won(_));
        match self.inner.turn.wait_timeout_while(self.inner.state(), limit, waiting) {
            Ok((state, _)) => matches!(state.place, Place::Won(_)),
            Err(_) => false,
        }
    }

    /// Gives the descriptor away, once.
    pub fn give(&self) -> io::Result<Option<OwnedFd>> {
        let mut state = self.inner.state();
        let flock = match std::mem::replace(&mut state.place, Place::Away) {
            Place::Won(flock) => flock,
            other => {
                state.place = other;
                return Ok(None);
            }
        };
        let descriptor = match Arc::try_unwrap(flock.file) {
            Ok(file) => file.into(),
            // A write that nobody waits for any more still has it; it closes its copy by itself.
            Err(file) => match file.try_clone() {
                Ok(copy) => copy.into(),
                Err(error) => {
                    state.place = Place::Won(Flock { file, inode: flock.inode });
                    return Err(error);
                }
            },
        };
        self.inner.holds.flock(false);
        Ok(Some(descriptor))
    }

    /// Lets go of the flock if it is held, and does not queue for it before `pause` has passed.
    pub fn step_back(&self, pause: Duration, in_force: bool) {
        let mut state = self.inner.state();
        state.not_before = Some(Instant::now() + pause);
        if matches!(state.place, Place::Won(_)) {
            self.inner.leave(&mut state, if in_force { Place::Away } else { Place::Waiting });
        }
        // Without a pause it queues at once, also where it was to wait before.
        self.inner.turn.notify_all();
    }

    /// The own activation is not in force any more: lets go of the flock if it is still here, and queues behind others.
    pub fn requeue(&self) {
        let mut state = self.inner.state();
        if !matches!(state.place, Place::Waiting) {
            self.inner.leave(&mut state, Place::Waiting);
        }
    }

    /// Queues again if the descriptor was given away; keeps the flock if it is here.
    pub fn resume(&self) {
        let mut state = self.inner.state();
        if matches!(state.place, Place::Away) {
            self.inner.leave(&mut state, Place::Waiting);
        }
    }

    /// Lets go of everything, for ever.
    pub fn close(&self) {
        let mut state = self.inner.state();
        state.closed = true;
        self.inner.leave(&mut state, Place::Away);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the place; a flock that was won is closed with it.
    fn leave(&self, state: &mut State, place: Place) {
        let was_won = matches!(state.place, Place::Won(_));
        state.place = place;
        if was_won {
            self.holds.flock(false);
        }
        self.turn.notify_all();
    }

    /// The thread.
    fn run(&self) {
        while self.wait_for_order() {
            match self.take_flock() {
                Ok(flock) => self.arrive(flock),
                Err(error) => {
                    tracing::warn!("failed to queue for the lock {:?}: {error}; trying again", self.paths.lock);
                    let mut state = self.state();
                    state.not_before = state.not_before.max(Some(Instant::now() + RETRY));
                }
            }
        }
    }

    /// Sleeps until the flock is wanted. False: never again.
    fn wait_for_order(&self) -> bool {
        let mut state = self.state();
        loop {
            if state.closed {
                return false;
            }
            let wait = match (&state.place, state.not_before) {
                (Place::Won(_) | Place::Away, _) => None,
                (Place::Waiting, None) => return true,
                (Place::Waiting, Some(instant)) => match instant.checked_duration_since(Instant::now()) {
                    Some(rest) if !rest.is_zero() => Some(rest),
                    _ => return true,
                },
            };
            state = match wait {
                None => self.turn.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(rest) => match self.turn.wait_timeout(state, rest) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                },
            };
        }
    }

    /// Blocks until the file that the path names is flocked.
    fn take_flock(&self) -> io::Result<Flock> {
        loop {
            let file = open_lock(&self.paths)?;
            match file.lock() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(flock) = won_if_current(&self.paths, file)? {
                return Ok(flock);
            }
        }
    }

    /// The flock was won; if it is not wanted any more, it is closed at once.
    fn arrive(&self, flock: Flock) {
        let mut state = self.state();
        let too_early = state.not_before.is_some_and(|instant| instant > Instant::now());
        if state.closed || too_early || !matches!(state.place, Place::Waiting) {
            return;
        }
        self.holds.flock(true);
        state.place = Place::Won(flock);
        state.not_before = None;
        // Before anybody can see the place: whoever finds the flock won must not be woken for it once more.
        self.wins.send_modify(|wins| *wins += 1);
        self.turn.notify_all();
    }
}

/// The flock, unless the path names another file by now: whoever renames or deletes a lock file makes a second lock.
fn won_if_current(paths: &Paths, file: File) -> io::Result<Option<Flock>> {
    let inode = Inode::of_file(&file)?;
    let current = Inode::of_path(&paths.lock)? == Some(inode);
    Ok(current.then(|| Flock { file: Arc::new(file), inode }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const A_WHILE: Duration = Duration::from_millis(50);

    fn paths(folder: &tempfile::TempDir) -> Paths {
        Paths::of(&folder.path().join("app.lock")).unwrap()
    }

    fn start(paths: &Paths) -> Queue {
        Queue::start(paths.clone(), open_lock(paths).unwrap(), Arc::default()).unwrap()
    }

    #[test]
    fn one_at_a_time_and_the_next_is_woken() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(&paths(&folder));
        let second = start(&paths(&folder));
        assert!(first.won().unwrap().is_some());
        assert!(!second.wait_won(A_WHILE));
        first.close();
        assert!(second.wait_won(SOON));
        assert_eq!(second.wins(), 1);
    }

    #[test]
    fn a_given_descriptor_holds_the_lock_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(&paths(&folder));
        let second = start(&paths(&folder));
        let descriptor = first.give().unwrap().unwrap();
        assert!(first.give().unwrap().is_none(), "once only");
        assert!(first.won().unwrap().is_none());
        drop(first);
        assert!(!second.wait_won(A_WHILE));
        drop(descriptor);
        assert!(second.wait_won(SOON));
    }

    #[test]
    fn stepping_back_lets_others_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(&paths(&folder));
        let second = start(&paths(&folder));
        first.step_back(Duration::from_millis(200), false);
        assert!(second.wait_won(SOON));
        second.close();
        let start = Instant::now();
        assert!(first.wait_won(SOON));
        assert!(start.elapsed() > Duration::from_millis(100));
    }

    #[test]
    fn a_win_during_a_pause_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(&paths(&folder));
        let second = start(&paths(&folder));
        thread::sleep(A_WHILE);
        second.step_back(Duration::from_millis(300), false);
        first.close();
        let third = start(&paths(&folder));
        assert!(third.wait_won(Duration::from_millis(200)));
        assert!(second.won().unwrap().is_none());
    }

    #[test]
    fn a_replaced_file_is_noticed_by_winner_and_waiter() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(&folder);
        let first = start(&paths);
        let second = start(&paths);
        thread::sleep(A_WHILE);
        fs::rename(&paths.lock, folder.path().join("moved")).unwrap();
        assert!(first.won().unwrap().is_none(), "the path names nothing");
        // Both open the file anew; exactly one of them can have it.
        assert!(first.wait_won(SOON) || second.wait_won(SOON));
        thread::sleep(A_WHILE);
        let winners = [&first, &second].map(|queue| queue.won().unwrap().is_some());
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
    }

    #[test]
    fn away_does_not_queue_until_told() {
        let folder = tempfile::tempdir().unwrap();
        let queue = start(&paths(&folder));
        drop(queue.give().unwrap());
        assert!(!queue.wait_won(A_WHILE));
        queue.resume();
        assert!(queue.wait_won(SOON));
        queue.resume();
        assert!(queue.won().unwrap().is_some(), "what is here is kept");
        queue.requeue();
        assert!(queue.wait_won(SOON));
    }

    #[test]
    fn a_closed_queue_lets_go_when_its_turn_comes() {
        let folder = tempfile::tempdir().unwrap();
        let first = start(&paths(&folder));
        let second = start(&paths(&folder));
        thread::sleep(A_WHILE);
        second.close();
        first.close();
        let third = start(&paths(&folder));
        assert!(third.wait_won(SOON));
        assert!(second.won().unwrap().is_none());
    }
}
