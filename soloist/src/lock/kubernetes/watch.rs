//! One watch of the one Lease, kept alive beside the lock: the elector asks anew after each look, and what happens
//! between two questions must not be lost.
//!
//! Without `list` in the Role there is nothing to list: where the server cannot go on from a known version, whoever
//! waits is told to look, and the watch begins at the newest state.

use std::sync::Arc;
use std::time::Duration;

use election::{Entropy, Version};
use http::{Method, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::ObjectName;
use super::answer::{Answer, Ask, retry_after};
use super::calls::Calls;
use super::events::{Cut, Event, Feed, parse};
use super::hub::Hub;
use super::rule::Verb;
use super::session::{BODY_MAX, Sessions, request};
use crate::entropy::KernelEntropy;
use crate::patience::{jittered, within};

/// The server ends a watch after this, and up to as much again: not all members' at once.
pub const WATCH_SECONDS: u64 = 30;
/// How much later than it should a watch may end before it is taken for dead.
pub const LATE_MAX: Duration = Duration::from_secs(5);
/// For everything up to the first byte of an answer.
pub const START_LIMIT: Duration = Duration::from_secs(5);
/// Between tries, doubled each time; an outage must not cost much after its end.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A watch that lived for this long was a good one.
pub const GOOD: Duration = Duration::from_secs(1);
/// How often it is tried whether a watch is allowed meanwhile.
pub const FORBIDDEN_PAUSE: Duration = Duration::from_secs(60);

/// The watch at work; it ends when this is dropped.
pub struct Watcher {
    task: JoinHandle<()>,
}

impl Watcher {
    /// Watches from `since` on, and tells the hub of `calls`.
    pub fn start(calls: &Calls, since: Version) -> Self {
        let hub = Arc::clone(calls.hub());
        hub.update_news(|news| news.begin(since.number));
        let from = (since != Version::ABSENT).then_some(since.number);
        let (access, place) = (calls.access().clone(), calls.place().clone());
        let task = Task { sessions: Sessions::new(access), place, hub, from, trouble: Trouble::None };
        Self { task: tokio::spawn(task.run()) }
    }

    /// Whether nothing will ever be told again.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was logged about the present outage.
#[derive(PartialEq)]
enum Trouble {
    None,
    Broken,
    Forbidden,
}

/// How one watch ended.
enum End {
    /// By itself, in time.
    Over,
    /// What happened since the last version cannot be told.
    Gap(String),
    Broken(String),
    Throttled(Duration),
    Forbidden(String),
}

struct Task {
    place: ObjectName,
    hub: Arc<Hub>,
    /// The version after which everything is news; nothing for the newest state and everything after it.
    from: Option<u64>,
    /// Apart from that of reads and writes: a watch must never be in their way.
    sessions: Sessions,
    trouble: Trouble,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            let end = self.watch().await;
            if began.elapsed() >= GOOD {
                backoff = BACKOFF_MIN;
            }
            let is_over = matches!(end, End::Over);
            if !is_over {
                self.sessions.forget();
                self.hub.update_news(|news| news.is_live = false);
            }
            let pause = match end {
                End::Over if began.elapsed() >= GOOD => Duration::ZERO,
                End::Over => backoff,
                End::Gap(why) => {
                    self.from = None;
                    self.hub.update_news(|news| news.miss());
                    self.report(&why);
                    backoff
                }
                End::Broken(why) => {
                    self.report(&why);
                    backoff
                }
                End::Throttled(after) => after.max(backoff),
                End::Forbidden(why) => {
                    self.report_forbidden(&why);
                    FORBIDDEN_PAUSE
                }
            };
            sleep(jittered(pause)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Once an outage.
    fn report(&mut self, why: &str) {
        if self.trouble == Trouble::None {
            tracing::warn!(
                "the watch of the {} {:?} broke and is begun anew: {why}",
                self.place.kind.word(),
                self.place.name
            );
            self.trouble = Trouble::Broken;
        }
    }

    /// Once.
    fn report_forbidden(&mut self, why: &str) {
        if self.trouble != Trouble::Forbidden {
            tracing::warn!(
                "the {} is looked at each retry period, because it must not be watched: {why}",
                self.place.kind.word()
            );
            self.trouble = Trouble::Forbidden;
        }
    }

    fn begun(&mut self) {
        if self.trouble != Trouble::None {
            tracing::info!("the watch of the {} {:?} is back", self.place.kind.word(), self.place.name);
            self.trouble = Trouble::None;
        }
        self.hub.update_news(|news| news.is_live = true);
    }

    /// One watch from its request to its end.
    async fn watch(&mut self) -> End {
        let seconds = WATCH_SECONDS + KernelEntropy.bits() % WATCH_SECONDS;
        let response = match within(START_LIMIT, self.begin(seconds)).await {
            Ok(response) => response,
            Err(why) => return End::Broken(why),
        };
        if response.status() != StatusCode::OK {
            return self.refusal(response).await;
        }
        self.begun();
        self.follow(response.into_body(), Duration::from_secs(seconds) + LATE_MAX).await
    }

    async fn begin(&mut self, seconds: u64) -> Result<http::Response<kube::client::Body>, String> {
        let session = self.sessions.take().await.map_err(|error| error.to_string())?;
        let mut path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&fieldSelector=metadata.name%3D{}",
            self.place.collection(),
            self.place.name
        );
        if let Some(from) = self.from {
            path.push_str(&format!("&resourceVersion={from}"));
        }
        let response = session.send(request(Method::GET, path, Vec::new())?).await?;
        session.keep();
        Ok(response)
    }

    async fn refusal(&self, response: http::Response<kube::client::Body>) -> End {
        let (head, body) = response.into_parts();
        let body = match timeout(START_LIMIT, Limited::new(body, BODY_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes().to_vec(),
            _ => Vec::new(),
        };
        if head.status == StatusCode::TOO_MANY_REQUESTS || head.headers.contains_key(RETRY_AFTER) {
            return End::Throttled(retry_after(&head.headers).unwrap_or(BACKOFF_MAX));
        }
        match (Ask { verb: Verb::Watch, place: &self.place }).judge(head.status, &head.headers, &body) {
            Answer::Denied(why) if head.status == StatusCode::FORBIDDEN => End::Forbidden(why),
            Answer::Unauthorized(why) => End::Broken(why),
            Answer::Denied(why) | Answer::Unclear(why) => End::Gap(why),
            other => End::Gap(format!("{other:?}")),
        }
    }

    async fn follow(&mut self, body: kube::client::Body, limit: Duration) -> End {
        let mut feed = Feed::new(body, limit);
        loop {
            let line = match feed.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return End::Over,
                Err(Cut::Broken(why)) => return End::Broken(why),
                Err(Cut::Gap(why)) => return End::Gap(why),
            };
            if let Some(end) = self.take(&line) {
                return end;
            }
        }
    }

    /// One event; the end, if it is one.
    fn take(&mut self, line: &[u8]) -> Option<End> {
        match parse(line, &self.place) {
            Ok(Event::Now { version, number, lease }) => {
                self.from = Some(number);
                self.hub.tell(version, number, lease);
                None
            }
            Ok(Event::Bookmark { number }) => {
                self.from = Some(number);
                self.hub.update_news(|news| news.reach(number));
                None
            }
            Ok(Event::Expired) => Some(End::Gap("the server has forgotten that version".into())),
            Ok(Event::Failed(why)) | Err(why) => Some(End::Gap(why)),
        }
    }
}
