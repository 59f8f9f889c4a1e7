//! All pods that a selector fits: a list in pages, and a watch that goes on from there. What cannot be told any more is
//! listed again.

use std::time::Duration;

use http::{Method, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::critical::Mark;
use super::pod::{Pod, Raw};
use crate::elector::KernelEntropy;
use crate::error::chain;
use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::answer::retry_after;
use crate::lock::kubernetes::events::Lines;
use crate::lock::kubernetes::session::{Sessions, request};
use crate::lock::kubernetes::watch::{BACKOFF_MAX, BACKOFF_MIN, GOOD, LATE_MAX, START_LIMIT};
use crate::patience::{jittered, within};
use election::Entropy as _;

/// So many pods come at once.
const PAGE: usize = 500;
/// No page is larger.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// For one page.
const PAGE_LIMIT: Duration = Duration::from_secs(20);
/// The server ends a watch after this, and up to as much again: for so long may one be silent that has died unseen.
const WATCH_SECONDS: u64 = 10;

/// A pod, and the text of the whole object where that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What decides.
    pub pod: Pod,
    /// Everything.
    pub object: Option<String>,
}

/// What the watch tells.
#[derive(Debug)]
pub enum News {
    /// These are all pods; nothing told before counts.
    All(Vec<Shown>),
    /// A pod is so now.
    Now(Box<Shown>),
    /// A pod is gone; this was the last of it.
    Gone(Box<Pod>),
}

/// Which pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The namespace; all of them where there is none.
    pub namespace: Option<String>,
    /// Labels that they have.
    pub selector: String,
    /// What marks a critical container.
    pub mark: Mark,
    /// Whether whole objects are kept, because whole objects are written.
    pub keeps_objects: bool,
}

impl Scope {
    fn path(&self) -> String {
        let root = match &self.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
            None => "/api/v1/pods".to_owned(),
        };
        let escaped = percent_encoding::utf8_percent_encode(&self.selector, percent_encoding::NON_ALPHANUMERIC);
        format!("{root}?labelSelector={escaped}")
    }

    /// Reads one object.
    fn read(&self, object: Value) -> Result<Shown, String> {
        let text = self.keeps_objects.then(|| {
            let mut whole = object.clone();
            if let Some(metadata) = whole["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            whole.to_string()
        });
        let raw: Raw = serde_json::from_value(object).map_err(|error| format!("a pod cannot be read: {error}"))?;
        Ok(Shown { pod: Pod::read(raw, &self.mark)?, object: text })
    }

    /// The pod that a write was answered with.
    ///
    /// # Errors
    /// It is none.
    pub fn stored(&self, object: Value) -> Result<Shown, String> {
        self.read(object)
    }
}

/// Why a list or a watch came to nothing.
enum End {
    /// The watch ended in time.
    Over,
    /// What happened cannot be told from here on.
    Gap(String),
    /// Nothing can be told at the moment.
    Broken(String),
    /// The API server asks to wait.
    Throttled(Duration),
    /// Nobody is there any more to be told.
    Unheard,
}

/// Tells all news of the pods in `scope`, until nobody listens.
pub async fn run(access: Access, scope: Scope, news: mpsc::Sender<News>) {
    let mut watch = Watch { sessions: Sessions::new(access), scope, news, from: None, is_told: false };
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let end = watch.follow().await;
        if began.elapsed() >= GOOD {
            backoff = BACKOFF_MIN;
        }
        let pause = match end {
            End::Unheard => return,
            End::Over if began.elapsed() >= GOOD => Duration::ZERO,
            End::Over => backoff,
            End::Throttled(after) => after.max(backoff),
            End::Gap(why) => {
                watch.from = None;
                watch.report(&why);
                backoff
            }
            End::Broken(why) => {
                watch.report(&why);
                backoff
            }
        };
        sleep(jittered(pause)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

struct Watch {
    sessions: Sessions,
    scope: Scope,
    news: mpsc::Sender<News>,
    /// The version from which on everything is news.
    from: Option<String>,
    /// The present outage was reported.
    is_told: bool,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue", default)]
    rest: String,
}

impl Watch {
    /// Once an outage.
    fn report(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!("the watch of pods with {} broke and is begun anew: {why}", self.scope.selector);
        }
        self.sessions.forget();
    }

    fn begun(&mut self) {
        if std::mem::replace(&mut self.is_told, false) {
            tracing::info!("the watch of pods with {} is back", self.scope.selector);
        }
    }

    async fn follow(&mut self) -> End {
        if self.from.is_none()
            && let Err(end) = self.list().await
        {
            return end;
        }
        let seconds = WATCH_SECONDS + KernelEntropy.bits() % WATCH_SECONDS;
        let from = self.from.as_deref().unwrap_or_default();
        let path = format!(
            "{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}",
            self.scope.path()
        );
        let response = match within(START_LIMIT, self.send(path)).await {
            Ok(response) => response,
            Err(why) => return End::Broken(why),
        };
        if response.status() != StatusCode::OK {
            return refusal(response).await;
        }
        self.begun();
        self.listen(response.into_body(), Duration::from_secs(seconds) + LATE_MAX).await
    }

    async fn send(&self, path: String) -> Result<Response<Body>, String> {
        let session = self.sessions.take().await.map_err(|error| error.to_string())?;
        let response = session.send(request(Method::GET, path, Vec::new())?).await?;
        session.keep();
        Ok(response)
    }

    /// All pods as they are now: what was stored before the first page was asked for is in it.
    async fn list(&mut self) -> Result<(), End> {
        let mut all = Vec::new();
        let mut rest = String::new();
        loop {
            let path = format!("{}&limit={PAGE}{rest}", self.scope.path());
            let response = within(PAGE_LIMIT, self.send(path)).await.map_err(End::Broken)?;
            if response.status() != StatusCode::OK {
                return Err(refusal(response).await);
            }
            let body = within(PAGE_LIMIT, whole(response.into_body())).await.map_err(End::Broken)?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| End::Broken(format!("a list of pods cannot be read: {error}")))?;
            for item in page.items {
                match self.scope.read(item) {
                    Ok(shown) => all.push(shown),
                    Err(why) => tracing::warn!("{why}"),
                }
            }
            if page.metadata.rest.is_empty() {
                self.from = Some(page.metadata.resource_version);
                return self.news.send(News::All(all)).await.map_err(|_| End::Unheard);
            }
            rest = format!("&continue={}", page.metadata.rest);
        }
    }

    async fn listen(&mut self, mut body: Body, limit: Duration) -> End {
        let mut lines = Lines::default();
        let end = Instant::now() + limit;
        loop {
            let frame = tokio::select! {
                frame = timeout_at(end, body.frame()) => frame,
                () = self.news.closed() => return End::Unheard,
            };
            let frame = match frame {
                Err(_) => return End::Broken("it did not end in time".into()),
                Ok(None) => return End::Over,
                Ok(Some(Err(error))) => return End::Broken(chain(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(piece) = frame.into_data() else { continue };
            let complete = match lines.push(&piece) {
                Ok(complete) => complete,
                Err(why) => return End::Gap(why),
            };
            for line in complete {
                let told = match self.take(&line) {
                    Ok(Some(news)) => self.news.send(news).await.map_err(|_| End::Unheard),
                    Ok(None) => Ok(()),
                    Err(end) => Err(end),
                };
                if let Err(end) = told {
                    return end;
                }
            }
        }
    }

    /// One event, and what it tells.
    fn take(&mut self, line: &[u8]) -> Result<Option<News>, End> {
        let unreadable = |why: String| End::Gap(format!("an event cannot be read: {why}"));
        let mut event: Value = serde_json::from_slice(line).map_err(|error| unreadable(error.to_string()))?;
        let object = event["object"].take();
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            let why = object["message"].as_str().unwrap_or("no reason given").to_owned();
            return Err(End::Gap(why));
        }
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let news = match kind {
            "BOOKMARK" => None,
            "ADDED" | "MODIFIED" => Some(News::Now(Box::new(self.scope.read(object).map_err(unreadable)?))),
            "DELETED" => Some(News::Gone(Box::new(self.scope.read(object).map_err(unreadable)?.pod))),
            other => return Err(unreadable(format!("it has the unknown type {other:?}"))),
        };
        self.from = Some(version);
        Ok(news)
    }
}

async fn whole(body: Body) -> Result<Vec<u8>, String> {
    let bytes = Limited::new(body, PAGE_BYTES_MAX).collect().await;
    Ok(bytes.map_err(|error| format!("the answer cannot be read: {}", chain(&*error)))?.to_bytes().to_vec())
}

async fn refusal(response: Response<Body>) -> End {
    let (head, body) = response.into_parts();
    let body: Value = match within(START_LIMIT, whole(body)).await {
        Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    if head.status == StatusCode::TOO_MANY_REQUESTS || head.headers.contains_key(RETRY_AFTER) {
        return End::Throttled(retry_after(&head.headers).unwrap_or(BACKOFF_MAX));
    }
    let message = body["message"].as_str().unwrap_or_default();
    let why = format!("the API server answered {}: {message}", head.status);
    match head.status {
        StatusCode::GONE => End::Gap(why),
        StatusCode::FORBIDDEN => End::Broken(format!(
            "{why}; missing: the verbs list and watch on pods, in a ClusterRole where the namespace is not given"
        )),
        _ => End::Broken(why),
    }
}
