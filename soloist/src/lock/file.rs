//! A lock file: for members on one host, without any server.
//!
//! `PATH` is flocked by guard and workload, so that the kernel tells at once when the last of them is gone, and holds
//! the counter of the fencing tokens. `PATH.record` is the record. `PATH.write` is flocked around each compare-and-set.

mod board;
mod deaths;
mod evidence;
mod holds;
mod paths;
mod queue;
mod ready;
mod store;
mod watch;
mod writing;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use election::{Activation, Claim, Evidence, Record, Seen, Version, Write};

pub use self::board::FileBoard;
pub use self::evidence::{Keepers, Tree};
pub use self::holds::{Announce, JointAnnounce};
pub use self::paths::{Category, Refusal, locks_in};
pub use self::writing::release_after_proof;

use self::holds::Holds;
use self::paths::{Inode, Paths};
use self::queue::Queue;
use self::store::Stored;
use self::watch::Watch;
use super::codec::Document;
use super::history::Change;
use super::{Lock, LockError};
use crate::workload::process::ProcessId;

/// What a lock file needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The lock file.
    pub path: PathBuf,
    /// Whether a remote or layered file system will do. The user knows then that every member sees the same flock.
    pub allow_remote_fs: bool,
    /// Who keeps the workload of this member.
    pub keepers: Keepers,
}

/// One member's hold on a lock file.
pub struct FileLock {
    shared: Arc<Shared>,
    watch: Watch,
}

/// What the calls share that run on other threads, and may outlive the future that started them.
struct Shared {
    paths: Paths,
    remote: bool,
    queue: Queue,
    holds: Arc<Holds>,
    known: Mutex<Known>,
    /// Held from reading or replacing the record until what follows from it is known: an older look must not be taken
    /// for news. Only by threads that may wait for a disk.
    record: Mutex<()>,
    /// Held while a silent holder is being ended.
    clearing: Mutex<()>,
    /// Somebody waits for the end of keepers, to look again then.
    waits_for_an_end: Arc<AtomicBool>,
}

/// What this process remembers about the lock.
struct Known {
    keepers: Keepers,
    /// The largest version number ever seen: tokens grow even when all files are deleted.
    largest: u64,
    /// The number that a record without one has been given, by its fingerprint.
    unnumbered: Option<(u64, u64)>,
    /// The activation of the last acquiring write, until the record says that it is over.
    own: Option<Own>,
    /// What the last look or write left behind.
    glance: Glance,
    /// Of the record that was seen or written last.
    history: Vec<Change>,
    /// What was found about an activation without a release.
    finding: Option<(Activation, Evidence)>,
}

/// An activation that this process acquired, or may have.
#[derive(Clone)]
struct Own {
    activation: Activation,
    /// The file that was flocked.
    inode: Inode,
    keepers: Keepers,
    /// Whether the acquiring write is known to have landed.
    settled: bool,
}

/// Everything whose change wakes a watcher, besides the version.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Glance {
    fingerprint: Option<u64>,
    inode: Option<Inode>,
    wins: u64,
}

impl Known {
    /// The version of a record. One that carries no number of ours (edited, unreadable) gets one for its content, so
    /// that a compare-and-set tells it from the next.
    fn version_of(&mut self, stored: Option<&Stored>, counter: u64) -> Version {
        let Some(stored) = stored else { return Version::ABSENT };
        let number = match (stored.document.version, self.unnumbered) {
            (Some(number), _) if number > 0 => number,
            (_, Some((fingerprint, number))) if fingerprint == stored.fingerprint => number,
            _ => {
                let number = self.largest.max(counter).saturating_add(1);
                self.unnumbered = Some((stored.fingerprint, number));
                number
            }
        };
        self.largest = self.largest.max(number);
        Version { incarnation: 0, number }
    }

    /// Whether this process acquired `activation`, for certain.
    fn owns(&self, activation: Activation) -> bool {
        self.own.as_ref().is_some_and(|own| own.settled && own.activation == activation)
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_record(&self) -> MutexGuard<'_, ()> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the record and learns from it.
    fn look(&self) -> io::Result<(Version, Option<Stored>)> {
        let _record = self.with_record();
        let stored = store::read_record(&self.paths)?;
        if stored.is_none() {
            // A folder that is gone (unmounted, renamed) says nothing about the lock.
            self.paths.folder.metadata()?;
        }
        let unnumbered = stored.as_ref().is_some_and(|stored| stored.document.version.is_none_or(|number| number == 0));
        let counter = if unnumbered { stored_counter(&self.paths) } else { 0 };
        let mut known = self.known();
        let version = known.version_of(stored.as_ref(), counter);
        known.history = stored.as_ref().map(|stored| stored.document.history.clone()).unwrap_or_default();
        let over = match (&mut known.own, stored.as_ref().map(|stored| &stored.document.record.claim)) {
            (Some(own), Some(Claim::Held(holder))) if holder.activation == own.activation => {
                own.settled = true;
                false
            }
            (Some(own), Some(Claim::Released(release))) if release.activation == own.activation => true,
            // Somebody else's. An acquiring write that has not been answered may still replace it.
            (Some(own), Some(Claim::Held(_) | Claim::Released(_) | Claim::Vacant(_))) => own.settled,
            _ => false,
        };
        if over {
            known.own = None;
            drop(known);
            self.queue.resume();
        }
        Ok((version, stored))
    }

    /// One whole look. Blocks, and may kill what is left of a dead holder.
    fn read(&self) -> io::Result<Seen> {
        let wins = self.queue.wins();
        // In this order: what the record says while the flock is ours is the last word of the one before.
        let won = self.queue.won()?.is_some();
        let (version, stored) = self.look_and_note(wins)?;
        let evidence = if won { self.evidence(stored.as_ref()) } else { Evidence::Busy };
        Ok(Seen { version, record: stored.map(|stored| stored.document.record), evidence })
    }

    /// A look that also remembers what would have to change to be worth another one.
    fn look_and_note(&self, wins: u64) -> io::Result<(Version, Option<Stored>)> {
        let (version, stored) = self.look()?;
        let fingerprint = stored.as_ref().map(|stored| stored.fingerprint);
        self.known().glance = Glance { fingerprint, inode: Inode::of_path(&self.paths.lock)?, wins };
        Ok((version, stored))
    }

    /// Whether a look finds all it needs in memory and has nothing to do: somebody else on this host holds the lock, and
    /// nothing of this process is under way. Such a look needs no other thread, so that a renewal of the holder wakes
    /// each standby once and not five times.
    fn only_observes(&self) -> bool {
        let idle = self.record.try_lock().is_ok() && self.known().own.is_none();
        idle && !self.remote && self.queue.waits()
    }

    /// A whole look, if it does not block.
    fn glimpse(&self) -> Option<io::Result<Seen>> {
        // In this order, as in `read`.
        let wins = self.queue.wins();
        let seen = |(version, stored): (Version, Option<Stored>)| Seen {
            version,
            record: stored.map(|stored| stored.document.record),
            evidence: Evidence::Busy,
        };
        self.only_observes().then(|| self.look_and_note(wins).map(seen))
    }

    /// What is known besides the record, while the flock is ours.
    fn evidence(&self, stored: Option<&Stored>) -> Evidence {
        let Some(document) = stored.map(|stored| &stored.document) else { return Evidence::None };
        let Claim::Held(holder) = &document.record.claim else { return Evidence::None };
        let activation = holder.activation;
        let keepers = {
            let known = self.known();
            if known.own.as_ref().is_some_and(|own| own.activation == activation) {
                return Evidence::None;
            }
            if let Some((_, evidence)) = known.finding.filter(|(of, _)| *of == activation) {
                return evidence;
            }
            known.keepers.clone()
        };
        let finding = evidence::gather(document, activation, &keepers, self.remote);
        if finding.lasting {
            self.known().finding = Some((activation, finding.evidence));
        } else {
            self.look_again_after_the_end_of(document);
        }
        finding.evidence
    }

    /// The flock is free a little before its last holder is gone, and a death is no change of any file.
    fn look_again_after_the_end_of(&self, document: &Document) {
        let Some(recorded) = Keepers::of(document) else { return };
        if self.waits_for_an_end.swap(true, Ordering::AcqRel) {
            return;
        }
        let (nudge, waits) = (self.queue.nudger(), Arc::clone(&self.waits_for_an_end));
        std::thread::spawn(move || {
            let ended = recorded.end_soon();
            waits.store(false, Ordering::Release);
            if ended {
                nudge();
            }
        });
    }

    /// Whether the lock is another one than at the last look.
    fn differs(&self, since: Version) -> io::Result<bool> {
        let wins = self.queue.wins();
        let (version, stored) = self.look()?;
        let fingerprint = stored.map(|stored| stored.fingerprint);
        let glance = Glance { fingerprint, inode: Inode::of_path(&self.paths.lock)?, wins };
        Ok(version != since || glance != self.known().glance)
    }
}

/// The counter of a lock file that others may have flocked; 0 where it cannot be read.
fn stored_counter(paths: &Paths) -> u64 {
    let file = paths::open_to_read(&paths.lock).ok().flatten();
    file.and_then(|file| store::read_counter(&file).ok()).unwrap_or(0)
}

/// Refuses a place that cannot hold a lock, before anything is started or written there.
///
/// # Errors
/// What was got, what is allowed and how to fix it.
pub fn check(path: &Path, allow_remote_fs: bool) -> Result<(), Refusal> {
    paths::check(path, allow_remote_fs).map(|_| ())
}

/// Looks at a lock without touching anything, for those who only want to know.
pub fn look(path: &Path) -> Result<Seen, LockError> {
    let paths = Paths::of(path).ok_or_else(|| names_no_file(path))?;
    let stored = store::read_record(&paths).map_err(|error| unreadable(&paths, error))?;
    Ok(seen_by_anybody(&paths, stored))
}

/// What a record says to somebody who takes no part.
fn seen_by_anybody(paths: &Paths, stored: Option<Stored>) -> Seen {
    let number = |stored: &Stored| match stored.document.version {
        Some(number) if number > 0 => number,
        _ => stored_counter(paths).saturating_add(1),
    };
    let version = stored.as_ref().map_or(Version::ABSENT, |stored| Version { incarnation: 0, number: number(stored) });
    Seen { version, record: stored.map(|stored| stored.document.record), evidence: Evidence::None }
}

fn names_no_file(path: &Path) -> LockError {
    LockError::Unavailable(format!("{path:?} names no file"))
}

fn unreadable(paths: &Paths, error: io::Error) -> LockError {
    let why = format!("{:?}: {error}", paths.record);
    match error.kind() {
        io::ErrorKind::PermissionDenied => LockError::Denied(why),
        _ => LockError::Unavailable(why),
    }
}

impl FileLock {
    /// Opens a lock, and takes the flock if it is free.
    pub fn open(settings: Settings) -> Result<Self, Refusal> {
        let Settings { path, allow_remote_fs, keepers } = settings;
        let paths::Place { paths, remote } = paths::check(&path, allow_remote_fs)?;
        let watch = Watch::new(&paths).map_err(|source| Refusal::NoWatch { folder: paths.folder.clone(), source })?;
        let file = paths::open_checked(&paths)?;
        let holds = Arc::new(Holds::default());
        let queue = Queue::start(paths.clone(), file, Arc::clone(&holds)).map_err(|source| Refusal::Failed {
            action: "queue for",
            path: paths.lock.clone(),
            source,
        })?;
        let known = Mutex::new(Known {
            keepers,
            largest: 0,
            unnumbered: None,
            own: None,
            glance: Glance::default(),
            history: Vec::new(),
            finding: None,
        });
        Ok(Self {
            shared: Arc::new(Shared {
                paths,
                remote,
                queue,
                holds,
                known,
                record: Mutex::new(()),
                clearing: Mutex::new(()),
                waits_for_an_end: Arc::default(),
            }),
            watch,
        })
    }

    /// The lock file, with its folder resolved: what the guard is told.
    pub fn path(&self) -> &Path {
        &self.shared.paths.lock
    }

    /// Takes in that the guard was replaced: the next acquiring write names the new one.
    pub fn guard_setter(&self) -> impl Fn(ProcessId) + use<> {
        let shared = Arc::clone(&self.shared);
        move |guard| shared.known().keepers.guard = guard
    }

    /// Who hears when this process itself holds what others wait for. Told at once if it does.
    pub fn set_announce(&self, announce: Arc<dyn Announce>) {
        self.shared.holds.announce_to(announce);
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Calls that nobody waits for may still run and keep the rest alive for a moment.
        self.shared.queue.close();
    }
}

/// Runs what may wait for a disk where it holds nobody up. Goes on when the future is dropped.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

impl Lock for FileLock {
    async fn read(&self) -> Result<Seen, LockError> {
        let seen = match self.shared.glimpse() {
            Some(seen) => seen,
            None => {
                let shared = Arc::clone(&self.shared);
                blocking(move || shared.read()).await.map_err(LockError::Unavailable)?
            }
        };
        seen.map_err(|error| unreadable(&self.shared.paths, error))
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        let (shared, record, why) = (Arc::clone(&self.shared), record.clone(), why.to_owned());
        blocking(move || shared.write(expected, record, &why)).await.unwrap_or_else(Write::Unknown)
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        let failed = |error| unreadable(&self.shared.paths, error);
        let mut wins = self.shared.queue.subscribe();
        loop {
            // First forget, then look: what happens from here on is heard. A look comes first in every call, so that
            // nothing is lost with a dropped one.
            self.watch.drain().map_err(failed)?;
            wins.mark_unchanged();
            let differs = if self.shared.only_observes() {
                self.shared.differs(since)
            } else {
                let shared = Arc::clone(&self.shared);
                blocking(move || shared.differs(since)).await.map_err(LockError::Unavailable)?
            };
            if differs.map_err(failed)? {
                return Ok(());
            }
            loop {
                tokio::select! {
                    ready = self.watch.ready() => ready.map_err(failed)?,
                    _ = wins.changed() => break,
                }
                if self.watch.drain().map_err(failed)? {
                    break;
                }
            }
        }
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        let settled = self.shared.known().own.as_ref().is_some_and(|own| own.settled);
        if !settled {
            return None;
        }
        self.shared.queue.give().unwrap_or_else(|error| {
            tracing::warn!("failed to hand the lock {:?} over: {error}", self.shared.paths.lock);
            None
        })
    }

    fn history(&self) -> Vec<Change> {
        self.shared.known().history.clone()
    }

    fn step_back(&self, pause: Duration) {
        let in_force = self.shared.known().own.as_ref().is_some_and(|own| own.settled);
        self.shared.queue.step_back(pause, in_force);
    }
}

#[cfg(test)]
mod tests;
