//! One blocking query, kept alive beside the lock: it brings the lock and what is posted beside it in one answer.

use std::sync::Arc;
use std::time::Duration;

use election::{Entropy, Version};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::calls::Calls;
use super::entry::Entry;
use crate::elector::let_others_go_first;
use crate::entropy::KernelEntropy;
use crate::lock::news::News;
use crate::lock::{Failed, LockError};
use crate::patience::{jittered, within};

/// A query is answered after this at the latest, and up to as much again: not all members' at once.
const WAIT_SECONDS: u64 = 30;
/// Consul adds up to a sixteenth, and the way there and back takes time.
const LATE_MAX: Duration = Duration::from_secs(10);
/// For a query that does not wait.
const FIRST_LIMIT: Duration = Duration::from_secs(4);
/// Between tries, doubled each time; an outage must not cost much after its end.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often it is tried whether the keys may be read meanwhile.
const DENIED_PAUSE: Duration = Duration::from_secs(10);
/// Before the next query after one that was answered and brought nothing new: others write beside us.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

/// Between two traces.
const TRACE_PAUSE: Duration = Duration::from_secs(60);

/// What is listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The lock and what is posted beside it.
    #[default]
    All,
    /// What is posted beside the lock. Who holds the lock is the only one who writes it.
    Posts,
}

/// What is posted beside the lock, and at which change that was true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posted {
    /// The keys.
    pub keys: Arc<Vec<Entry>>,
    /// The last change of the lock, as far as it is listened to.
    pub lock: u64,
    /// Whether anything was heard.
    pub is_known: bool,
}

/// What one process knows.
#[derive(Debug, Default)]
pub struct Hub {
    news: watch::Sender<News<Entry>>,
    posted: watch::Sender<Posted>,
    scope: watch::Sender<Scope>,
}

impl Hub {
    /// What is told of the lock.
    pub fn news(&self) -> watch::Receiver<News<Entry>> {
        self.news.subscribe()
    }

    /// What is told of the posts.
    pub fn posted(&self) -> watch::Receiver<Posted> {
        self.posted.subscribe()
    }

    /// What is listened to at the moment.
    #[cfg(test)]
    pub fn scope_now(&self) -> watch::Ref<'_, Scope> {
        self.scope.borrow()
    }

    /// Waits until the lock is listened to.
    pub async fn all_is_listened_to(&self) {
        // It fails only where nobody is left who could choose.
        let _ = self.scope.subscribe().wait_for(|scope| *scope == Scope::All).await;
    }

    /// Chooses what is listened to.
    pub fn listen_to(&self, wanted: Scope) {
        self.scope.send_if_modified(|scope| std::mem::replace(scope, wanted) != wanted);
    }
}

/// How long a query shall be held back that has no news, and when there is no answer to it any more. Consul adds up to a
/// sixteenth.
pub fn waiting_time() -> (Duration, Duration) {
    let wait = Duration::from_secs(WAIT_SECONDS + KernelEntropy.bits() % WAIT_SECONDS);
    (wait, wait + wait / 16 + LATE_MAX)
}

/// The query at work; it ends when this is dropped.
pub struct Watcher {
    _task: JoinSet<()>,
}

impl Watcher {
    /// Begins to ask, and tells `hub`. `calls` must be for this alone: a query that waits is in the way of others.
    pub fn start(calls: Calls, hub: Arc<Hub>) -> Self {
        let mut task = JoinSet::new();
        task.spawn(Task { calls, hub, index: 0, is_broken: false, is_restless: false, traced: None }.run());
        Self { _task: task }
    }
}

struct Task {
    calls: Calls,
    hub: Arc<Hub>,
    /// The change after which everything is news; 0 for everything as it is.
    index: u64,
    /// Whether the present outage was logged.
    is_broken: bool,
    /// Whether the last answer had nothing in it but another number.
    is_restless: bool,
    /// When the last trace was left.
    traced: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        let mut scope = self.hub.scope.subscribe();
        let mut backoff = BACKOFF_MIN;
        loop {
            let wanted = *scope.borrow_and_update();
            let began = Instant::now();
            let answer = tokio::select! {
                answer = self.ask(wanted) => answer,
                _ = scope.changed() => {
                    self.begin_anew();
                    continue;
                }
            };
            let pause = match answer {
                Ok((index, keys)) => {
                    backoff = BACKOFF_MIN;
                    let is_news = self.take(wanted, index, keys);
                    if is_news || began.elapsed() > IDLE_PAUSE { Duration::ZERO } else { IDLE_PAUSE }
                }
                Err(failed) => {
                    let pause = if matches!(failed, Failed::Denied(_)) { DENIED_PAUSE } else { backoff };
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    self.fail(failed);
                    pause
                }
            };
            if pause.is_zero() {
                // What the news calls for is more urgent than the next question.
                let_others_go_first().await;
                continue;
            }
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                _ = scope.changed() => self.begin_anew(),
            }
        }
    }

    /// With another question the numbers mean something else.
    fn begin_anew(&mut self) {
        self.index = 0;
        self.calls.forget();
        self.hub.news.send_modify(|news| news.is_live = false);
    }

    async fn ask(&mut self, scope: Scope) -> Result<(u64, Vec<Entry>), Failed> {
        if std::mem::take(&mut self.is_restless) && self.traced.is_none_or(|at| at.elapsed() > TRACE_PAUSE) {
            self.traced = Some(Instant::now());
            // Without it more is asked, and nothing is missed.
            let _ = within(FIRST_LIMIT, self.calls.leave_trace()).await;
        }
        let keys = self.calls.keys();
        let prefix = if scope == Scope::All { keys.all() } else { keys.posts() };
        if self.index == 0 {
            return within(FIRST_LIMIT, self.calls.list(&prefix)).await;
        }
        let (wait, limit) = waiting_time();
        within(limit, self.calls.list_after(&prefix, self.index, wait)).await
    }

    /// Tells what an answer shows; whether it was another one than the last.
    fn take(&mut self, scope: Scope, index: u64, keys: Vec<Entry>) -> bool {
        if std::mem::take(&mut self.is_broken) {
            tracing::info!("Consul answers again");
        }
        let is_news = index != self.index;
        if index < self.index {
            // Consul was restored from a backup, or this is another one: what happened meanwhile is not told.
            tracing::warn!(from = self.index, to = index, "Consul counts backwards");
            self.hub.news.send_modify(News::miss);
        }
        self.index = index.max(1);
        let lock_key = self.calls.keys().lock();
        let (mut lock, posts): (Vec<_>, Vec<_>) = keys.into_iter().partition(|entry| entry.key == lock_key);
        let lock = lock.pop();
        let fingerprint = lock.as_ref().map_or(0, |entry| entry.modify_index);
        if scope == Scope::All {
            self.hub.news.send_modify(|news| {
                let (version, number) =
                    lock.as_ref().map_or((Version::ABSENT, index), |entry| (entry.version(), entry.modify_index));
                news.tell(version, number, lock);
                news.reach(index);
                news.is_live = true;
            });
        }
        self.is_restless = scope == Scope::Posts && posts.is_empty() && is_news;
        let posted = Posted { keys: Arc::new(posts), lock: fingerprint, is_known: true };
        self.hub.posted.send_if_modified(|known| {
            let is_news = *known != posted;
            *known = posted;
            is_news
        });
        is_news
    }

    fn fail(&mut self, failed: Failed) {
        self.index = 0;
        self.calls.forget();
        self.hub.news.send_modify(|news| news.is_live = false);
        if !std::mem::replace(&mut self.is_broken, true) {
            tracing::warn!("the query for changes failed and is begun anew: {}", LockError::from(failed));
        }
    }
}
