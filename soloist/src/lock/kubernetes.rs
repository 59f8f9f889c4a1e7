//! A Lease of Kubernetes as a lock: compare-and-set by resource version, change notices by one watch.

mod access;
pub(crate) mod answer;
mod events;
mod lease;
mod rule;
pub(crate) mod session;
mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use election::{Evidence, Record, Seen, Version, Write};
use http::Method;
use serde_json::Value;

use self::answer::{Answer, Ask};
use self::rule::Verb;
use self::session::{Session, request};
use self::watch::{News, Watcher};
use super::codec::EncodeError;
use super::history::Change;
use super::{Lock, LockError};

pub use self::access::Access;

/// The smallest lease that is of use here: the native field holds whole seconds.
pub const LEASE_MIN: Duration = Duration::from_secs(4);

/// Which Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// The namespace; empty for the one that the credentials belong to.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl LeaseName {
    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

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
    access: Access,
    place: LeaseName,
    /// Nothing after a disappointment: the next call opens a fresh one.
    session: RefCell<Option<Rc<Session>>>,
    /// The Lease as it was seen last, with all that is not ours in it.
    last: RefCell<Option<(Version, Value)>>,
    /// How long to wait between two looks while there is no watch.
    period: Duration,
    watcher: RefCell<Option<Watcher>>,
    /// How much of the watch's news is older than the last look.
    known: Cell<u64>,
    /// What the watch woke for last, if nothing was asked of the API server since.
    told: Cell<Option<Version>>,
}

/// How a call ended that brought no Lease.
enum Failed {
    Absent,
    Conflict,
    Denied(String),
    Throttled(Duration),
    Unknown(String),
}

impl KubernetesLock {
    /// Reads the credentials; nothing is asked of the API server yet. `period` passes between two looks while the Lease
    /// cannot be watched.
    ///
    /// # Errors
    /// Credentials that cannot be read or must not be used.
    pub async fn open(access: Access, place: LeaseName, period: Duration) -> Result<Self, LockError> {
        let session = Session::open(&access).await?;
        let namespace = if place.namespace.is_empty() { session.namespace().to_owned() } else { place.namespace };
        let place = LeaseName { namespace, name: place.name };
        Ok(Self {
            access,
            place,
            session: RefCell::new(Some(Rc::new(session))),
            last: RefCell::new(None),
            period,
            watcher: RefCell::new(None),
            known: Cell::new(0),
            told: Cell::new(None),
        })
    }

    /// Which Lease it is, with its namespace.
    pub fn place(&self) -> &LeaseName {
        &self.place
    }

    /// One call and, where the credentials are not accepted, one more with fresh ones.
    async fn ask(&self, verb: Verb, method: Method, path: String, body: Vec<u8>) -> Result<(Version, Value), Failed> {
        let first = self.ask_once(verb, method.clone(), path.clone(), body.clone()).await?;
        let answer = match first {
            Answer::Unauthorized(_) => self.ask_once(verb, method, path, body).await?,
            answer => answer,
        };
        match answer {
            Answer::Lease(lease) => {
                let version = lease::version(&lease).map_err(Failed::Unknown)?;
                self.last.replace(Some((version, lease.clone())));
                Ok((version, lease))
            }
            Answer::Absent => {
                self.last.replace(None);
                Err(Failed::Absent)
            }
            Answer::Conflict => Err(Failed::Conflict),
            Answer::Unauthorized(why) | Answer::Denied(why) => Err(Failed::Denied(why)),
            Answer::Throttled(after) => Err(Failed::Throttled(after)),
            Answer::Unclear(why) => Err(Failed::Unknown(why)),
        }
    }

    /// The session goes back only after an answer that speaks for it. A call that is dropped takes it along.
    async fn ask_once(&self, verb: Verb, method: Method, path: String, body: Vec<u8>) -> Result<Answer, Failed> {
        let kept = self.session.take();
        let session = match kept {
            Some(session) => session,
            // Nothing was sent, so nothing was stored.
            None => Rc::new(Session::open(&self.access).await.map_err(|error| Failed::Denied(error.to_string()))?),
        };
        let request = request(method, path, body).map_err(Failed::Denied)?;
        let (status, headers, bytes) = session.call(request).await.map_err(Failed::Unknown)?;
        let answer = Ask { verb, place: &self.place }.judge(status, &headers, &bytes);
        if !matches!(answer, Answer::Unauthorized(_) | Answer::Unclear(_)) {
            self.session.replace(Some(session));
        }
        Ok(answer)
    }

    /// What the watch tells; it is begun when it is asked for first.
    fn news(&self, since: Version) -> tokio::sync::watch::Receiver<News> {
        let mut slot = self.watcher.borrow_mut();
        let kept = slot.take().filter(|watcher| !watcher.is_over());
        let watcher = kept.unwrap_or_else(|| {
            self.known.set(0);
            Watcher::start(self.access.clone(), self.place.clone(), since)
        });
        slot.insert(watcher).news()
    }

    /// The Lease that the watch has just woken for: a look would only cost time on the way of a handover. What was told
    /// is newer than everything seen before, and each write quotes the version that it was told at.
    fn told_lease(&self) -> Option<(Version, Value)> {
        let since = self.told.take()?;
        let watcher = self.watcher.borrow();
        let news = watcher.as_ref()?.news();
        let told = news.borrow();
        let found = told.lease_after(since, self.known.get())?;
        self.known.set(told.count());
        self.last.replace(Some(found.clone()));
        Some(found)
    }

    async fn get(&self) -> Result<(Version, Value), Failed> {
        self.ask(Verb::Get, Method::GET, self.place.path(), Vec::new()).await
    }

    /// The Lease at `expected`, from memory where it is the last one seen; nothing for a lock that is absent.
    async fn at(&self, expected: Version) -> Result<Option<Value>, Failed> {
        if expected == Version::ABSENT {
            return Ok(None);
        }
        let last = self.last.borrow().clone();
        let (version, lease) = match last {
            Some((version, lease)) if version == expected => (version, lease),
            _ => self.get().await?,
        };
        if version == expected { Ok(Some(lease)) } else { Err(Failed::Conflict) }
    }

    async fn store(&self, expected: Version, record: &Record, why: &str) -> Result<Version, Failed> {
        let before = self.at(expected).await?;
        let now = jiff::Timestamp::now();
        let refused = |error: &dyn std::error::Error| Failed::Denied(error.to_string());
        let lease = lease::encode(before.as_ref(), &self.place, record, why, now)
            .map_err(|error: EncodeError| refused(&error))?;
        let body = serde_json::to_vec(&lease).map_err(|error| refused(&error))?;
        // The Lease quotes its UID and resource version: only that object at that version is replaced.
        let (verb, method, path) = match before {
            Some(_) => (Verb::Update, Method::PUT, self.place.path()),
            None => (Verb::Create, Method::POST, self.place.collection()),
        };
        let (version, stored) = self.ask(verb, method, path, body).await?;
        // Only what an answer shows is confirmed: something on the way may have changed or swallowed it.
        if lease::decode(&stored) == *record {
            Ok(version)
        } else {
            Err(Failed::Unknown("the API server's answer shows another record than the one that was sent".into()))
        }
    }
}

impl Lock for KubernetesLock {
    async fn read(&self) -> Result<Seen, LockError> {
        let seen = |version, record| Ok(Seen { version, record, evidence: Evidence::None });
        if let Some((version, lease)) = self.told_lease() {
            return seen(version, Some(lease::decode(&lease)));
        }
        // Whatever was told before the question is older than its answer. A look that fails counts as well: who asks
        // decides when to look again, and must not be woken by the same news at once.
        self.known.set(self.watcher.borrow().as_ref().map_or(0, |watcher| watcher.news().borrow().count()));
        match self.get().await {
            Ok((version, lease)) => seen(version, Some(lease::decode(&lease))),
            Err(Failed::Absent) => seen(Version::ABSENT, None),
            Err(Failed::Denied(why)) => Err(LockError::Denied(why)),
            Err(Failed::Throttled(after)) => {
                Err(LockError::Unavailable(format!("the API server asks to wait for {after:?}")))
            }
            Err(Failed::Conflict) => Err(LockError::Unavailable("a conflict where nothing was written".into())),
            Err(Failed::Unknown(why)) => Err(LockError::Unavailable(why)),
        }
    }

    async fn write(&self, expected: Version, record: &Record, why: &str) -> Write {
        self.told.set(None);
        match self.store(expected, record, why).await {
            Ok(version) => Write::Written(version),
            Err(Failed::Absent) => Write::Gone,
            Err(Failed::Conflict) => Write::Conflict,
            Err(Failed::Denied(why)) => Write::Denied(why),
            Err(Failed::Throttled(after)) => Write::Throttled(after),
            Err(Failed::Unknown(why)) => Write::Unknown(why),
        }
    }

    fn history(&self) -> Vec<Change> {
        self.last.borrow().as_ref().map(|(_, lease)| lease::history(lease)).unwrap_or_default()
    }

    async fn changed(&self, since: Version) -> Result<(), LockError> {
        let mut news = self.news(since);
        loop {
            let (is_live, is_behind) = {
                let told = news.borrow_and_update();
                if told.may_differ(since, self.known.get()) {
                    self.told.set(Some(since));
                    return Ok(());
                }
                (told.is_live, told.is_behind(since))
            };
            let has_ended = |_| LockError::Unavailable("the watch of the Lease has ended".into());
            if is_live && !is_behind {
                news.changed().await.map_err(has_ended)?;
                continue;
            }
            let patience = if is_live { self.period / 2 } else { self.period };
            let in_time = tokio::time::timeout(patience, news.changed()).await;
            match in_time {
                Ok(told) => told.map_err(has_ended)?,
                Err(_) if !is_live => return Ok(()),
                // Silent about what is known to have happened: held up somewhere on the way.
                Err(_) => {
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
mod tests;
