//! An object of Kubernetes, a Lease as a rule, as a lock: compare-and-set by resource version, change notices by one watch.

mod access;
pub(crate) mod answer;
mod board;
mod calls;
mod container;
mod elder;
pub(crate) mod events;
mod evidence;
mod hub;
mod instance;
mod kubeconfig;
pub(crate) mod kubelet;
mod lease;
mod object;
pub(crate) mod recorder;
mod rule;
pub(crate) mod session;
mod survey;
pub(crate) mod watch;
mod witness;

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Claim, Evidence, Record, Seen, Version, Write};
use serde_json::Value;
use tokio::task::JoinSet;

use self::calls::Calls;
use self::hub::LeaseNews;
use self::watch::Watcher;
use self::witness::Witness;
pub use self::witness::Witnesses;
use super::codec::EncodeError;
use super::history::Change;
use super::news::{self, Woken};
use super::{Failed, Lock, LockError};

pub use self::access::Access;
pub use self::board::LeaseBoard;
pub use self::elder::Elder;
pub use self::lease::ACTIVE_PODS;
pub use self::object::{Kind, ObjectName};
pub use self::recorder::Recorder;
pub use self::survey::{Scope, survey};

/// The smallest lease that is of use here: the native field holds whole seconds.
pub const LEASE_MIN: Duration = Duration::from_secs(4);

/// Whether a Lease can carry `lease`: whole seconds, and enough of them for the attempts to fit.
///
/// # Errors
/// What was got, what is allowed.
pub fn check_lease(lease: Duration) -> Result<(), String> {
    if lease.subsec_nanos() != 0 || lease < LEASE_MIN {
        let got = election::Plain(lease);
        return Err(format!("a lease of {got} does not fit into a Kubernetes Lease: whole seconds from 4s on do"));
    }
    Ok(())
}

/// A Lease that members share.
pub struct KubernetesLock {
    calls: Calls,
    /// The Lease as it was seen last, with all that is not ours in it.
    last: RefCell<Option<(Version, Value)>>,
    /// How long to wait between two looks while there is no watch.
    period: Duration,
    watcher: RefCell<Option<Watcher>>,
    /// How much of the watch's news is older than the last look.
    known: Cell<u64>,
    /// What the watch woke for last, if nothing was asked of the API server since.
    told: Cell<Option<Version>>,
    witness: Witness,
    /// Whether the kubelet's word is what was woken for, and nothing was asked since.
    woke_for_kubelet: Cell<bool>,
    /// The look that was begun before anybody asked; one that is not waited for to its end is broken off.
    ahead: RefCell<JoinSet<Result<(Version, Value), Failed>>>,
}

impl KubernetesLock {
    /// Reads the credentials; nothing is asked of the API server yet. `period` passes between two looks while the Lease
    /// cannot be watched. `witnesses` tell of a holder's end before its lease runs out.
    ///
    /// # Errors
    /// Credentials that cannot be read or must not be used.
    pub async fn open(
        access: Access,
        place: ObjectName,
        period: Duration,
        witnesses: Witnesses,
    ) -> Result<Self, LockError> {
        Ok(Self::over(Calls::open(access, place).await?, period, witnesses))
    }

    /// Another Lease in the same namespace, over the same connections.
    #[must_use]
    pub fn of_another(&self, place: ObjectName, witnesses: Witnesses) -> Self {
        Self::over(self.calls.about(place), self.period, witnesses)
    }

    fn over(calls: Calls, period: Duration, witnesses: Witnesses) -> Self {
        let witness = Witness::new(calls.access(), calls.home(), calls.place(), witnesses);
        Self {
            calls,
            last: RefCell::new(None),
            period,
            watcher: RefCell::new(None),
            known: Cell::new(0),
            told: Cell::new(None),
            witness,
            woke_for_kubelet: Cell::new(false),
            ahead: RefCell::default(),
        }
    }

    /// Which object it is, with its namespace.
    pub fn place(&self) -> &ObjectName {
        self.calls.place()
    }

    /// The notice board in the same Lease, which hears what this lock hears.
    pub fn board(&self) -> LeaseBoard {
        LeaseBoard::beside(&self.calls)
    }

    /// Who tells people what `member` does: as Events, which know of the Lease what this lock knows.
    pub fn recorder(&self, member: String) -> Recorder {
        Recorder::new(&self.calls, member, Recorder::own_pod())
    }

    /// Remembers what an answer showed.
    fn heard(&self, answer: Result<(Version, Value), Failed>) -> Result<(Version, Value), Failed> {
        match &answer {
            Ok(shown) => drop(self.last.replace(Some(shown.clone()))),
            Err(Failed::Absent) => drop(self.last.replace(None)),
            Err(_) => {}
        }
        answer
    }

    /// What the watch tells; it is begun when it is asked for first.
    fn news(&self, since: Version) -> tokio::sync::watch::Receiver<LeaseNews> {
        let mut slot = self.watcher.borrow_mut();
        let kept = slot.take().filter(|watcher| !watcher.is_over());
        slot.replace(kept.unwrap_or_else(|| Watcher::start(&self.calls, since)));
        self.calls.hub().news()
    }

    /// The Lease that the watch has just woken for: a look would only cost time on the way of a handover. What was told
    /// is newer than everything seen before, and each write quotes the version that it was told at.
    fn told_lease(&self) -> Option<(Version, Value)> {
        let since = self.told.take()?;
        let news = self.calls.hub().news();
        let told = news.borrow();
        let found = told.content_after(since, self.known.get())?;
        self.known.set(told.count());
        self.last.replace(Some(found.clone()));
        Some(found)
    }

    /// The Lease as it was seen last. The kubelet's word is on whom that names; each write quotes its version.
    fn last_lease(&self) -> Option<(Version, Value)> {
        self.last.borrow().clone()
    }

    fn seen(&self, version: Version, lease: &Value) -> Seen {
        let record = lease::decode(lease);
        let evidence = self.witness.judge(&record, &lease::backend(lease));
        Seen { version, record: Some(record), evidence }
    }

    /// Begins the first look already. What it shows is as old as its answer, not as the question.
    pub fn look_ahead(&self) {
        let calls = self.calls.beside();
        self.ahead.borrow_mut().spawn(async move { calls.get().await });
    }

    async fn get(&self) -> Result<(Version, Value), Failed> {
        let mut ahead = self.ahead.take();
        match ahead.join_next().await {
            Some(Ok(answer)) => self.heard(answer),
            _ => self.heard(self.calls.get().await),
        }
    }

    /// The Lease at `expected`, from memory where it is the last one seen; nothing for a lock that is absent.
    async fn at(&self, expected: Version) -> Result<Option<Value>, Failed> {
        if expected == Version::ABSENT {
            return Ok(None);
        }
        let (version, lease) = match self.last_lease() {
            Some((version, lease)) if version == expected => (version, lease),
            _ => self.get().await?,
        };
        if version == expected { Ok(Some(lease)) } else { Err(Failed::Conflict) }
    }

    async fn store(&self, expected: Version, record: &Record, why: &str) -> Result<Version, Failed> {
        let before = self.at(expected).await?;
        if let Some(why) = before.as_ref().and_then(lease::another_use) {
            let ObjectName { kind, namespace, name } = self.place();
            return Err(Failed::Denied(format!("the {} {namespace}/{name} is no lock: {why}", kind.word())));
        }
        let now = jiff::Timestamp::now();
        let named = self.witness.named(&record.claim);
        let lease = lease::encode(before.as_ref(), self.place(), record, named, why, now)
            .map_err(|error: EncodeError| Failed::Denied(error.to_string()))?;
        // The Lease quotes its UID and resource version: only that object at that version is replaced.
        let answer = match before {
            Some(_) => self.calls.put(&lease).await,
            None => self.calls.post(&lease).await,
        };
        let (version, stored) = self.heard(answer)?;
        // Only what an answer shows is confirmed: something on the way may have changed or swallowed it.
        if lease::decode(&stored) == lease::decode(&lease) {
            Ok(version)
        } else {
            Err(Failed::Unknown("the API server's answer shows another record than the one that was sent".into()))
        }
    }
}

impl Lock for KubernetesLock {
    async fn read(&self) -> Result<Seen, LockError> {
        let woke_for_kubelet = self.woke_for_kubelet.take();
        if let Some((version, lease)) = self.told_lease().or_else(|| self.last_lease().filter(|_| woke_for_kubelet)) {
            return Ok(self.seen(version, &lease));
        }
        // Whatever was told before the question is older than its answer. A look that fails counts as well: who asks
        // decides when to look again, and must not be woken by the same news at once.
        self.known.set(self.calls.hub().news().borrow().count());
        match self.get().await {
            Ok((version, lease)) => Ok(self.seen(version, &lease)),
            Err(Failed::Absent) => Ok(Seen { version: Version::ABSENT, record: None, evidence: Evidence::None }),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        self.told.set(None);
        self.woke_for_kubelet.set(false);
        if matches!(record.claim, Claim::Held(_)) {
            self.witness.forget();
        }
        match self.store(expected, record, why).await {
            Ok(version) => Write::Written(version),
            Err(failed) => failed.into(),
        }
    }

    /// Nobody has to win this: it tells the next run of this container when guard and workload are gone.
    fn descriptor(&self) -> Option<OwnedFd> {
        self.witness.share_lock()
    }

    fn history(&self) -> Vec<Change> {
        self.last.borrow().as_ref().map(|(_, lease)| lease::history(lease)).unwrap_or_default()
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        let mut news = self.news(since);
        loop {
            let woken = tokio::select! {
                woken = news::wait(&mut news, since, self.known.get(), self.period) => woken?,
                () = self.witness.told() => {
                    self.witness.heard();
                    self.woke_for_kubelet.set(true);
                    return Ok(());
                }
            };
            match woken {
                Woken::News => {
                    self.told.set(Some(since));
                    return Ok(());
                }
                Woken::Period => return Ok(()),
                Woken::HeldUp => {
                    self.watcher.replace(None);
                    news = self.news(since);
                }
            }
        }
    }
}

#[cfg(test)]
mod testbed;
#[cfg(test)]
pub(crate) mod tests;
