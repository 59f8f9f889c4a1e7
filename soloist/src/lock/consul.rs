//! A key of Consul as a lock: compare-and-set by transactions, change notices by one blocking query.
//!
//! The key is the one that `consul lock` uses, and a session holds it while a member is active: so both keep each other
//! out. Among members of ours only the record and its version count: Consul gives up a session's lock by its own clock,
//! at times early, and that proves nothing.

mod access;
pub(crate) mod answer;
mod board;
mod calls;
mod cleanup;
pub(crate) mod client;
mod connection;
mod entry;
mod session;
mod survey;
mod trust;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use election::{Claim, Evidence, Record, Seen, Version, Write};

use self::calls::{Calls, Operation};
use self::entry::Entry;
use self::session::{Session, Terms};
use self::watch::{Hub, Scope, Watcher};
use super::codec::EncodeError;
use super::history::Change;
use super::news::{self, Woken};
use super::{Failed, Lock, LockError};
use crate::clock::unix_us;

pub use self::access::{Access, Address, Server, Tls, Token, boolean};
pub use self::board::ConsulBoard;
pub use self::calls::Keys;
pub use self::cleanup::{Cleanup, clean_up, is_usable};
pub use self::session::{LOCK_DELAY_MAX, lock_delay};
pub use self::survey::survey;
pub(crate) use self::watch::waiting_time;

/// Between tries to acquire a key that Consul gives to nobody at the moment, and does not say for how long.
const LOST_PAUSE: Duration = Duration::from_millis(500);

/// Whether Consul can keep everybody away for as long as `lease`.
///
/// # Errors
/// What was got, what is allowed.
pub fn check_lease(lease: Duration) -> Result<(), String> {
    if lease > LOCK_DELAY_MAX {
        let (got, max) = (election::Plain(lease), election::Plain(LOCK_DELAY_MAX));
        return Err(format!("a lease of {got} does not fit into Consul: a key is kept from others for {max} at most"));
    }
    Ok(())
}

/// Keeps a member's session.
pub struct SessionKeeper {
    session: Arc<Session>,
    calls: Calls,
    terms: Terms,
}

impl SessionKeeper {
    /// Makes a session, renews it until `until`, and ends it then unless it holds the key.
    pub async fn run(self, until: impl Future<Output = ()>) {
        self.session.keep(&self.calls, &self.terms, until).await;
    }
}

/// A key that members share.
pub struct ConsulLock {
    calls: Calls,
    terms: Terms,
    session: Arc<Session>,
    hub: Arc<Hub>,
    watcher: OnceCell<Watcher>,
    /// How long to wait between two looks while nothing is told.
    period: Duration,
    /// The key as it was seen last.
    last: RefCell<Option<Entry>>,
    /// How much of what was told is older than the last look.
    known: Cell<u64>,
    /// What was woken for last, if nothing was asked of Consul since.
    told: Cell<Option<Version>>,
    /// The version of the own claim, while there is one: nobody else writes the key then. Nothing once nobody knows what
    /// became of a write.
    own: Cell<Option<Version>>,
}

/// A write under way. Where nobody knows what becomes of it, the lock is listened to again: that tells.
struct Trial<'a> {
    lock: &'a ConsulLock,
    is_known: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_known && self.lock.own.take().is_some() {
            self.lock.hub.listen_to(Scope::All);
        }
    }
}

impl ConsulLock {
    /// Nothing is read or asked yet. `session` is what people see of the session, `period` passes between two looks while
    /// Consul tells nothing.
    pub fn new(access: Access, keys: Keys, session: String, lease: Duration, period: Duration) -> Self {
        Self {
            calls: Calls::new(access, keys),
            terms: Terms::of(session, lease),
            session: Arc::default(),
            hub: Arc::default(),
            watcher: OnceCell::new(),
            period,
            last: RefCell::default(),
            known: Cell::new(0),
            told: Cell::new(None),
            own: Cell::new(None),
        }
    }

    /// The notice board beside the lock, which hears what this lock hears.
    pub fn board(&self) -> ConsulBoard {
        ConsulBoard::beside(self.calls.beside(), Arc::clone(&self.hub))
    }

    /// The same for a member that puts up nothing: `consul lock` leaves nothing but its key.
    pub fn silent_board(&self) -> ConsulBoard {
        self.board().silent()
    }

    /// Who keeps the session that holds the key. Without that nothing is acquired.
    pub fn session_keeper(&self) -> SessionKeeper {
        SessionKeeper { session: Arc::clone(&self.session), calls: self.calls.beside(), terms: self.terms.clone() }
    }

    fn listen(&self) {
        self.watcher.get_or_init(|| Watcher::start(self.calls.beside(), Arc::clone(&self.hub)));
    }

    /// The key that was just told of: a look would only cost time on the way of a handover. The leader itself has told
    /// it, it is newer than everything seen before, and each write quotes the version that it was told at.
    fn told_entry(&self) -> Option<(Version, Entry)> {
        let since = self.told.take()?;
        let news = self.hub.news();
        let told = news.borrow();
        let found = told.content_after(since, self.known.get())?;
        self.known.set(told.count());
        self.last.replace(Some(found.1.clone()));
        Some(found)
    }

    async fn get(&self) -> Result<Option<Entry>, Failed> {
        let (_, entry) = self.calls.get().await?;
        self.last.replace(entry.clone());
        Ok(entry)
    }

    /// The key at `expected`, from memory where it is the last one seen.
    async fn at(&self, expected: Version) -> Result<Option<Entry>, Failed> {
        if expected == Version::ABSENT {
            return Ok(None);
        }
        let last = self.last.borrow().clone().filter(|entry| entry.version() == expected);
        let entry = match last {
            Some(entry) => entry,
            None => self.get().await?.ok_or(Failed::Absent)?,
        };
        if entry.version() == expected { Ok(Some(entry)) } else { Err(Failed::Conflict) }
    }

    async fn store(&self, expected: Version, record: &Record, why: &str) -> Result<Version, Failed> {
        let before = self.at(expected).await?;
        if before.as_ref().is_some_and(Entry::is_of_another_use) {
            return Err(Failed::Denied(another_use(&self.calls.keys().lock())));
        }
        let session = match record.claim {
            Claim::Held(_) => Some(self.session.id().await?),
            _ => None,
        };
        let refused = |error: EncodeError| Failed::Denied(error.to_string());
        let text = entry::text(before.as_ref(), record, session.as_deref(), why, unix_us()).map_err(refused)?;
        let key = self.calls.keys().lock();
        let operations = plan(&key, before.as_ref(), record, session.as_deref(), &text)?;
        let written = self.calls.transact(&operations).await.map_err(|failed| match failed {
            Failed::Lost(why) => self.lost(before.as_ref(), record, session.as_deref(), why),
            failed => failed,
        })?;
        let shown = written.last().filter(|shown| shown.key == key && shown.holder() == session.as_deref());
        let Some(shown) = shown else {
            return Err(Failed::Unknown("Consul's answer shows another key than the one that was sent".into()));
        };
        let entry = Entry::written(&key, shown.modify_index, session, &text);
        let version = entry.version();
        self.last.replace(Some(entry));
        Ok(version)
    }

    /// No session of ours may hold the key. Who is active has lost it; who is not tries again soon, with another session
    /// or once Consul gives the key to somebody again.
    fn lost(&self, before: Option<&Entry>, record: &Record, session: Option<&str>, why: String) -> Failed {
        if let Some(session) = session {
            self.session.doubt(session);
        }
        match before.is_some_and(|before| goes_on(before, record)) {
            true => Failed::Lost(why),
            false => Failed::Throttled(LOST_PAUSE),
        }
    }

    /// What a write's end says about who holds the key; `held` is what was true before.
    fn note(&self, record: &Record, held: bool, result: &Result<Version, Failed>) {
        let is_held = matches!(record.claim, Claim::Held(_));
        match result {
            Ok(version) => {
                self.session.set_holds(is_held);
                self.own.set(is_held.then_some(*version));
            }
            Err(Failed::Unknown(_)) => {}
            // All is as it was.
            Err(Failed::Throttled(_) | Failed::Denied(_)) => self.session.set_holds(held),
            Err(_) => {
                self.session.set_holds(false);
                self.own.set(None);
            }
        }
        self.hub.listen_to(if self.own.get().is_some() { Scope::Posts } else { Scope::All });
    }

    fn seen(&self, entry: &Entry) -> Seen {
        entry.seen(self.session.current().as_deref())
    }
}

/// Whether `record` goes on with the activation that `before` names.
fn goes_on(before: &Entry, record: &Record) -> bool {
    match (&before.record().claim, &record.claim) {
        (Claim::Held(then), Claim::Held(now)) => then.activation == now.activation,
        _ => false,
    }
}

/// The transaction that puts `text` in the place of `before`. Each begins with what must still be true.
fn plan(
    key: &str,
    before: Option<&Entry>,
    record: &Record,
    session: Option<&str>,
    text: &str,
) -> Result<Vec<Operation>, Failed> {
    let Some(before) = before else {
        return Ok(match session {
            Some(session) => vec![Operation::check_absent(key), Operation::lock(key, text, session)],
            None => vec![Operation::check_absent(key), Operation::set_lock(key, text)],
        });
    };
    let index = before.modify_index;
    let is_foreign = matches!(before.record().claim, Claim::Foreign(_));
    match (before.holder(), session) {
        // Nothing of somebody else's lock is touched while his session lives. Under our own session it is nobody's.
        (Some(holder), _) if is_foreign && session != Some(holder) => Err(Failed::Conflict),
        (None, Some(_)) if goes_on(before, record) => {
            Err(Failed::Lost("its session was lost, and with it the lock that keeps others out".into()))
        }
        (Some(holder), Some(session)) if holder != session => Ok(vec![
            // A member of ours whose lease is over, or our own session that could not be renewed. Consul would keep the
            // key from everybody for a while if the old session were ended first.
            Operation::check_session(key, holder),
            Operation::delete(key, index),
            Operation::lock(key, text, session),
        ]),
        (_, Some(session)) => Ok(vec![Operation::check_index(key, index), Operation::lock(key, text, session)]),
        (Some(holder), None) => Ok(vec![Operation::check_index(key, index), Operation::unlock(key, text, holder)]),
        (None, None) => Ok(vec![Operation::check_index(key, index), Operation::set_lock(key, text)]),
    }
}

fn another_use(key: &str) -> String {
    format!("the key {key:?} is used by another program: its flags are not those of a lock of consul lock or soloist")
}

impl Lock for ConsulLock {
    async fn read(&self) -> Result<Seen, LockError> {
        if let Some((_, entry)) = self.told_entry().filter(|(_, entry)| !entry.is_of_another_use()) {
            return Ok(self.seen(&entry));
        }
        // Whatever was told before the question is older than its answer. A look that fails counts as well.
        self.known.set(self.hub.news().borrow().count());
        match self.get().await? {
            Some(entry) if entry.is_of_another_use() => Err(LockError::Denied(another_use(&entry.key))),
            Some(entry) => Ok(self.seen(&entry)),
            None => Ok(Seen { version: Version::ABSENT, record: None, evidence: Evidence::None }),
        }
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        self.told.set(None);
        let held = self.session.holds();
        if matches!(record.claim, Claim::Held(_)) {
            // Also where this call is given up before it is answered.
            self.session.set_holds(true);
        }
        let mut trial = Trial { lock: self, is_known: false };
        let result = self.store(expected, record, why).await;
        trial.is_known = !matches!(result, Err(Failed::Unknown(_)));
        self.note(record, held, &result);
        result.map_or_else(Write::from, Write::Written)
    }

    fn history(&self) -> Vec<Change> {
        self.last.borrow().as_ref().map(Entry::history).unwrap_or_default()
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        self.listen();
        if self.own.get() == Some(since) {
            // The own renewals find out soon enough what nobody but an operator can do to the key, as long as they are
            // answered.
            self.hub.all_is_listened_to().await;
        }
        let mut news = self.hub.news();
        let woken = news::wait(&mut news, since, self.known.get(), self.period).await?;
        if woken == Woken::News {
            self.told.set(Some(since));
        }
        Ok(())
    }
}

#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
