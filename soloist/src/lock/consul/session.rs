//! The session that holds the key for us: what keeps programs that know only Consul's own locks away.
//!
//! It lives on by itself, apart from the renewals of the record. Whether we may be active is never decided by it: a
//! session that is lost only ends an activation, and one that lives proves nothing.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::calls::Calls;
use crate::lock::Failed;
use crate::patience::within;

/// What Consul allows.
pub const TTL_MIN: Duration = Duration::from_secs(10);
const LOCK_DELAY_MIN: Duration = Duration::from_secs(15);
/// What Consul allows: for so long is a key kept from everybody whose session was lost.
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// For one call.
const CALL_LIMIT: Duration = Duration::from_secs(4);
/// Between tries, doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// How long the end of a process waits for the end of its session.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// What the session is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What people see of it.
    pub name: String,
    /// How long it lives without a renewal, at least.
    pub ttl: Duration,
    /// How long a key is kept from everybody after the session that held it was lost.
    pub lock_delay: Duration,
}

impl Terms {
    /// For a lock with this lease: whoever waits for the session alone waits longer than whoever waits for the record.
    pub fn of(name: String, lease: Duration) -> Self {
        Self { name, ttl: TTL_MIN.max(lease * 2), lock_delay: lock_delay(lease) }
    }

    /// Without checks of the node: a rumour about it must not free the lock.
    pub fn wanted(&self) -> Value {
        json!({
            "Name": self.name,
            "TTL": format!("{}ms", self.ttl.as_millis()),
            "LockDelay": format!("{}ms", self.lock_delay.as_millis()),
            "Behavior": "release",
            "NodeChecks": [],
            "ServiceChecks": [],
        })
    }
}

/// How long a key is kept from everybody after the session was lost that a member with this lease held it by.
pub fn lock_delay(lease: Duration) -> Duration {
    LOCK_DELAY_MIN.max(lease).min(LOCK_DELAY_MAX)
}

/// What there is of the session at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It is being made.
    Pending,
    /// It lives, as far as is known.
    Ready(String),
    /// It must not be made.
    Denied(String),
}

/// The session, as the lock uses it.
#[derive(Debug)]
pub struct Session {
    state: watch::Sender<State>,
    /// Whether a key is held by it, as far as is known.
    holds: AtomicBool,
    doubted: Notify,
}

impl Default for Session {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Pending), holds: AtomicBool::new(false), doubted: Notify::new() }
    }
}

impl Session {
    /// The session's id, once there is one.
    ///
    /// # Errors
    /// It must not be made.
    pub async fn id(&self) -> Result<String, Failed> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| *state != State::Pending).await;
        match settled.as_deref() {
            Ok(State::Ready(id)) => Ok(id.clone()),
            Ok(State::Denied(why)) => Err(Failed::Denied(why.clone())),
            Ok(State::Pending) | Err(_) => Err(Failed::Unknown("there is no session".into())),
        }
    }

    /// Something speaks against `id`: it is asked for at once.
    pub fn doubt(&self, id: &str) {
        if matches!(&*self.state.borrow(), State::Ready(ready) if ready == id) {
            self.doubted.notify_one();
        }
    }

    /// Consul says that `id` does not exist any more.
    pub fn is_gone(&self, id: &str) {
        self.state.send_if_modified(|state| {
            let is_meant = matches!(state, State::Ready(ready) if ready == id);
            if is_meant {
                *state = State::Pending;
            }
            is_meant
        });
    }

    /// The session's id, if there is one at the moment.
    pub fn current(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Ready(id) => Some(id.clone()),
            _ => None,
        }
    }

    /// Whether a key may be held by it.
    pub fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Says whether a key may be held by it.
    pub fn set_holds(&self, holds: bool) {
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Keeps the session alive until `until`, and ends it then unless it holds the key: a lock that was not released is
    /// not to be freed.
    pub async fn keep(&self, calls: &Calls, terms: &Terms, until: impl Future<Output = ()>) {
        tokio::select! {
            () = until => {}
            () = self.renew_for_ever(calls, terms) => {}
        }
        let State::Ready(id) = self.state.borrow().clone() else { return };
        if !self.holds() {
            // Else it ends by itself.
            let _ = timeout(FAREWELL_LIMIT, calls.destroy_session(&id)).await;
        }
    }

    async fn renew_for_ever(&self, calls: &Calls, terms: &Terms) {
        let mut backoff = BACKOFF_MIN;
        let mut is_reported = false;
        loop {
            let sent = Instant::now();
            match within(CALL_LIMIT, calls.create_session(&terms.wanted())).await {
                Ok(id) => {
                    tracing::debug!(id, "a session");
                    (backoff, is_reported) = (BACKOFF_MIN, false);
                    self.state.send_replace(State::Ready(id.clone()));
                    self.renew(calls, terms, &id, sent).await;
                }
                Err(failed) => {
                    let is_denied = matches!(failed, Failed::Denied(_));
                    let why = crate::lock::LockError::from(failed).to_string();
                    if !std::mem::replace(&mut is_reported, true) {
                        tracing::warn!("there is no session yet: {why}");
                    }
                    self.fail(is_denied.then_some(why));
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn fail(&self, denied: Option<String>) {
        // What was ready before lives on, as far as is known, until another one takes its place.
        self.state.send_if_modified(|state| match (denied, &state) {
            (Some(why), State::Pending | State::Denied(_)) => {
                *state = State::Denied(why);
                true
            }
            _ => false,
        });
    }

    /// Renews `id` each half of its time. Returns when another session is to take its place: it is gone, or was not
    /// renewed for its whole time.
    async fn renew(&self, calls: &Calls, terms: &Terms, id: &str, mut confirmed: Instant) {
        let mut state = self.state.subscribe();
        let mut pause = terms.ttl / 2;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.doubted.notified() => {}
                _ = state.wait_for(|state| *state == State::Pending) => {
                    tracing::warn!(id, "the session is gone");
                    return;
                }
            }
            let sent = Instant::now();
            match within(CALL_LIMIT, calls.renew_session(id)).await {
                Ok(()) => (confirmed, pause) = (sent, terms.ttl / 2),
                Err(Failed::Absent) => self.is_gone(id),
                Err(failed) => {
                    tracing::debug!(id, "the session was not renewed: {failed:?}");
                    pause = BACKOFF_MIN.max(terms.ttl / 20);
                }
            }
            if confirmed.elapsed() > terms.ttl {
                tracing::warn!(id, "the session was not renewed for {:?}: another one takes its place", terms.ttl);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_session_waits_longer_than_who_waits_for_the_lease() {
        let terms = |seconds| Terms::of("n".into(), Duration::from_secs(seconds));
        for (lease, ttl, lock_delay) in [(1, 10, 15), (4, 10, 15), (15, 30, 15), (30, 60, 30), (60, 120, 60)] {
            let terms = terms(lease);
            assert_eq!((terms.ttl.as_secs(), terms.lock_delay.as_secs()), (ttl, lock_delay), "{lease}");
            assert!(terms.ttl > Duration::from_secs(lease));
        }
    }

    #[tokio::test]
    async fn whoever_needs_the_session_waits_for_it_or_hears_why_there_is_none() {
        let session = Session::default();
        assert!(timeout(Duration::from_millis(10), session.id()).await.is_err());
        session.fail(None);
        assert!(timeout(Duration::from_millis(10), session.id()).await.is_err());
        session.fail(Some("no".into()));
        assert_eq!(session.id().await, Err(Failed::Denied("no".into())));
        session.state.send_replace(State::Ready("a".into()));
        session.fail(Some("no".into()));
        assert_eq!(session.id().await, Ok("a".into()), "one that lives is used on");
        session.is_gone("b");
        assert_eq!(session.id().await, Ok("a".into()));
        session.is_gone("a");
        assert!(timeout(Duration::from_millis(10), session.id()).await.is_err());
    }
}
