//! What is said of one pod or node: one watch of it, until something can be made of that. Above all the kubelet's word on
//! a container.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use election::Entropy;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::events::{Cut, Feed};
use super::rule::{Verb, missing_beside};
use super::session::{Sessions, request};
use super::watch::{BACKOFF_MAX, BACKOFF_MIN, FORBIDDEN_PAUSE, GOOD, LATE_MAX, START_LIMIT, WATCH_SECONDS};
use crate::entropy::KernelEntropy;
use crate::patience::{jittered, within};

/// What is watched from the start of a member on waits so long: the member may have to acquire the lock, and another
/// handshake with the API server would be in its way.
pub const GIVE_WAY: Duration = Duration::from_millis(100);

/// One object that is watched, and what it costs not to be allowed to.
#[derive(Clone, Debug)]
pub struct Watched {
    collection: String,
    name: String,
    /// The rule that allows it.
    rule: String,
    /// What is not done without it.
    cost: &'static str,
}

impl Watched {
    /// A pod.
    pub fn pod(namespace: &str, name: &str, cost: &'static str) -> Self {
        let rule = missing_beside(Verb::Watch, "pods", namespace);
        Self { collection: format!("/api/v1/namespaces/{namespace}/pods"), name: name.to_owned(), rule, cost }
    }

    /// A node, which is in no namespace.
    pub fn node(name: &str, cost: &'static str) -> Self {
        let rule = "missing: verb watch on nodes; give the member a ClusterRole with {apiGroups: [\"\"], resources: [nodes], \
             verbs: [watch]}";
        Self { collection: "/api/v1/nodes".to_owned(), name: name.to_owned(), rule: rule.to_owned(), cost }
    }
}

/// Waits for a word on one object; it ends when this is dropped, and by itself after the word.
pub struct Waiting<T> {
    word: watch::Receiver<Option<T>>,
    task: JoinHandle<()>,
}

impl<T: Clone + Send + Sync + 'static> Waiting<T> {
    /// Watches the object until `judge` makes something of it. `is_told`: whether it was said already that it must not be
    /// watched.
    pub fn start(
        access: Access,
        watched: Watched,
        is_told: Arc<AtomicBool>,
        judge: impl Fn(&Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        Self::start_after(Duration::ZERO, access, watched, is_told, judge)
    }

    /// The same a little later, where something else is more urgent.
    pub fn start_after(
        delay: Duration,
        access: Access,
        watched: Watched,
        is_told: Arc<AtomicBool>,
        judge: impl Fn(&Value) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let (sender, word) = watch::channel(None);
        let task = Task { watched, is_told, sessions: Sessions::new(access) };
        let task = tokio::spawn(async move {
            sleep(delay).await;
            let said = task.run(judge).await;
            // Fails only if nobody listens any more.
            let _ = sender.send(Some(said));
        });
        Self { word, task }
    }

    /// The word, once there is one.
    pub fn word(&self) -> Option<T> {
        self.word.borrow().clone()
    }

    /// What was said until now is known.
    pub fn hear(&mut self) {
        self.word.mark_unchanged();
    }

    /// What tells that a word has come that was not heard.
    pub fn listen(&self) -> watch::Receiver<Option<T>> {
        self.word.clone()
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How one watch ended without a word.
enum End {
    Over,
    Broken(String),
    Forbidden,
}

impl From<Cut> for End {
    fn from(cut: Cut) -> Self {
        let (Cut::Broken(why) | Cut::Gap(why)) = cut;
        Self::Broken(why)
    }
}

struct Task {
    watched: Watched,
    is_told: Arc<AtomicBool>,
    /// Apart from those of the lock: whatever becomes of this must never be in their way.
    sessions: Sessions,
}

impl Task {
    async fn run<T>(mut self, judge: impl Fn(&Value) -> Option<T>) -> T {
        let mut backoff = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            let end = match self.watch(&judge).await {
                Ok(word) => return word,
                Err(end) => end,
            };
            let was_good = began.elapsed() >= GOOD;
            if was_good {
                backoff = BACKOFF_MIN;
            }
            let pause = match end {
                End::Over if was_good => Duration::ZERO,
                End::Over => backoff,
                End::Broken(why) => {
                    self.sessions.forget();
                    tracing::debug!("the watch of {:?} broke and is begun anew: {why}", self.watched.name);
                    backoff
                }
                End::Forbidden => {
                    self.sessions.forget();
                    self.tell();
                    FORBIDDEN_PAUSE
                }
            };
            sleep(jittered(pause)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Once, for all objects of a kind.
    fn tell(&self) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            let Watched { collection, rule, cost, .. } = &self.watched;
            let plural = collection.rsplit('/').next().unwrap_or_default();
            tracing::warn!("{cost}, because {plural} must not be watched: {rule}");
        }
    }

    async fn watch<T>(&mut self, judge: &impl Fn(&Value) -> Option<T>) -> Result<T, End> {
        let seconds = WATCH_SECONDS + KernelEntropy.bits() % WATCH_SECONDS;
        let response = within(START_LIMIT, self.begin(seconds)).await.map_err(End::Broken)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Err(End::Forbidden),
            other => return Err(End::Broken(format!("the API server answered {other}"))),
        }
        let mut feed = Feed::new(response.into_body(), Duration::from_secs(seconds) + LATE_MAX);
        while let Some(line) = feed.next().await? {
            if let Some(word) = judge(&object_of(&line).map_err(End::Broken)?) {
                return Ok(word);
            }
        }
        Err(End::Over)
    }

    /// Without a version: the first event is the object as it is now, and `get` is not needed.
    async fn begin(&mut self, seconds: u64) -> Result<http::Response<kube::client::Body>, String> {
        let session = self.sessions.take().await.map_err(|error| error.to_string())?;
        let Watched { collection, name, .. } = &self.watched;
        let path = format!("{collection}?watch=true&timeoutSeconds={seconds}&fieldSelector=metadata.name%3D{name}");
        let response = session.send(request(Method::GET, path, Vec::new())?).await?;
        session.keep();
        Ok(response)
    }
}

/// The object in one event, whatever happened to it: the judge looks at what it says, and nothing else.
fn object_of(line: &[u8]) -> Result<Value, String> {
    let mut event: Value = serde_json::from_slice(line).map_err(|error| format!("an event cannot be read: {error}"))?;
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event["type"].as_str() {
        Some("ADDED" | "MODIFIED" | "DELETED") => Ok(object),
        _ => Err(object["message"].as_str().unwrap_or("an event of an unknown type").to_owned()),
    }
}
