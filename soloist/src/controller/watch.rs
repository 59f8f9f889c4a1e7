//! All objects of one kind: a list in pages, and a watch that goes on from there. What cannot be told any more is listed
//! again.

use std::time::Duration;

use http::{Method, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::entropy::KernelEntropy;
use crate::error::chain;
use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::answer::retry_after;
use crate::lock::kubernetes::events::{Cut, Feed};
use crate::lock::kubernetes::session::{Sessions, request};
use crate::lock::kubernetes::watch::{BACKOFF_MAX, BACKOFF_MIN, GOOD, LATE_MAX, START_LIMIT};
use crate::patience::{jittered, within};
use election::Entropy as _;

/// So many objects come at once.
const PAGE: usize = 500;
/// No page is larger.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// For one page.
const PAGE_LIMIT: Duration = Duration::from_secs(20);
/// The longest pause where a rule or the kind itself is missing: somebody has to do something about it first.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// The server ends a watch after this, and up to as much again: for so long may one be silent that has died unseen.
const WATCH_SECONDS: u64 = 10;

/// Which objects are watched, and how they are read.
pub trait Scope: Clone + Send + Sync + 'static {
    /// What is kept of an object.
    type Item: Send + Sync + 'static;

    /// What they are called in the log.
    fn name(&self) -> String;

    /// Where they are: a path, and a selector where there is one.
    fn place(&self) -> Place;

    /// What a Role needs, and where the kind may have to be made known first.
    fn missing(&self) -> &'static str;

    /// Reads one object.
    ///
    /// # Errors
    /// It is none of these.
    fn read(&self, object: Value) -> Result<Self::Item, String>;
}

/// Where the objects of one kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The version of their API, as a path.
    pub root: &'static str,
    /// The namespace; all of them where there is none.
    pub namespace: Option<String>,
    /// Their kind, as a path names it.
    pub plural: &'static str,
    /// Labels that they have; empty for all objects.
    pub selector: String,
}

impl Place {
    fn path(&self) -> String {
        let Self { root, namespace, plural, selector } = self;
        let selector = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}?labelSelector={selector}"),
            None => format!("{root}/{plural}?labelSelector={selector}"),
        }
    }
}

/// What the watch tells.
#[derive(Debug)]
pub enum News<T> {
    /// These are all of a namespace, or of all namespaces where none is named; nothing told before counts.
    All(Option<String>, Vec<T>),
    /// One is so now.
    Now(Box<T>),
    /// One is gone; this was the last of it.
    Gone(Box<T>),
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
    /// It is not allowed, or there is nothing of that kind.
    Refused(String),
    /// Nobody is there any more to be told.
    Unheard,
}

/// Tells all news of what is in `scope`, until nobody listens.
pub async fn run<S: Scope, N: From<News<S::Item>> + 'static>(access: Access, scope: S, news: mpsc::Sender<N>) {
    follow(access, Box::new(Reader { scope, gathered: Vec::new() }), news).await;
}

/// A scope whose items nobody else needs to know: what lists and watches is there once for all of them.
trait Read<N>: Send + Sync {
    fn name(&self) -> String;
    fn place(&self) -> Place;
    fn missing(&self) -> &'static str;
    /// A list begins.
    fn begin(&mut self);
    /// One object of the list.
    fn gather(&mut self, object: Value);
    /// The list is whole.
    fn all(&mut self) -> N;
    fn now(&self, object: Value) -> Result<N, String>;
    fn gone(&self, object: Value) -> Result<N, String>;
}

struct Reader<S: Scope> {
    scope: S,
    gathered: Vec<S::Item>,
}

impl<S: Scope, N: From<News<S::Item>>> Read<N> for Reader<S> {
    fn name(&self) -> String {
        self.scope.name()
    }

    fn place(&self) -> Place {
        self.scope.place()
    }

    fn missing(&self) -> &'static str {
        self.scope.missing()
    }

    fn begin(&mut self) {
        self.gathered.clear();
    }

    fn gather(&mut self, object: Value) {
        match self.scope.read(object) {
            Ok(item) => self.gathered.push(item),
            Err(why) => tracing::warn!("{why}"),
        }
    }

    fn all(&mut self) -> N {
        News::All(self.scope.place().namespace, std::mem::take(&mut self.gathered)).into()
    }

    fn now(&self, object: Value) -> Result<N, String> {
        Ok(News::Now(Box::new(self.scope.read(object)?)).into())
    }

    fn gone(&self, object: Value) -> Result<N, String> {
        Ok(News::Gone(Box::new(self.scope.read(object)?)).into())
    }
}

async fn follow<N>(access: Access, scope: Box<dyn Read<N>>, news: mpsc::Sender<N>) {
    let mut watch = Watch { sessions: Sessions::new(access), scope, news, from: None, is_told: false };
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let end = watch.turn().await;
        if began.elapsed() >= GOOD {
            backoff = BACKOFF_MIN;
        }
        let max = if matches!(end, End::Refused(_)) { REFUSED_MAX } else { BACKOFF_MAX };
        let pause = match end {
            End::Unheard => return,
            End::Over if began.elapsed() >= GOOD => Duration::ZERO,
            End::Over => backoff,
            End::Throttled(after) => after.max(backoff),
            End::Gap(why) | End::Refused(why) => {
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
        backoff = (backoff * 2).min(max);
    }
}

struct Watch<N> {
    sessions: Sessions,
    scope: Box<dyn Read<N>>,
    news: mpsc::Sender<N>,
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

impl<N> Watch<N> {
    /// Once an outage.
    fn report(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!("the watch of {} broke and is begun anew: {why}", self.scope.name());
        }
        self.sessions.forget();
    }

    fn begun(&mut self) {
        if std::mem::replace(&mut self.is_told, false) {
            tracing::info!("the watch of {} is back", self.scope.name());
        }
    }

    /// Lists, where that is needed, and watches until something ends it.
    async fn turn(&mut self) -> End {
        if self.from.is_none()
            && let Err(end) = self.list().await
        {
            return end;
        }
        let seconds = WATCH_SECONDS + KernelEntropy.bits() % WATCH_SECONDS;
        let from = self.from.as_deref().unwrap_or_default();
        let path = format!(
            "{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}",
            self.scope.place().path()
        );
        let response = match within(START_LIMIT, self.send(path)).await {
            Ok(response) => response,
            Err(why) => return End::Broken(why),
        };
        if response.status() != StatusCode::OK {
            return self.refusal(response).await;
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
        self.scope.begin();
        let mut rest = String::new();
        loop {
            let path = format!("{}&limit={PAGE}{rest}", self.scope.place().path());
            let response = within(PAGE_LIMIT, self.send(path)).await.map_err(End::Broken)?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(response).await);
            }
            let body = within(PAGE_LIMIT, whole(response.into_body())).await.map_err(End::Broken)?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| End::Broken(format!("a list cannot be read: {error}")))?;
            for item in page.items {
                self.scope.gather(item);
            }
            if page.metadata.rest.is_empty() {
                self.from = Some(page.metadata.resource_version);
                let all = self.scope.all();
                return self.tell(all).await;
            }
            rest = format!("&continue={}", page.metadata.rest);
        }
    }

    async fn tell(&self, news: N) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::Unheard)
    }

    async fn listen(&mut self, body: Body, limit: Duration) -> End {
        let mut feed = Feed::new(body, limit);
        loop {
            let line = tokio::select! {
                line = feed.next() => line,
                () = self.news.closed() => return End::Unheard,
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return End::Over,
                Err(Cut::Broken(why)) => return End::Broken(why),
                Err(Cut::Gap(why)) => return End::Gap(why),
            };
            let told = match self.take(&line) {
                Ok(Some(news)) => self.tell(news).await,
                Ok(None) => Ok(()),
                Err(end) => Err(end),
            };
            if let Err(end) = told {
                return end;
            }
        }
    }

    /// One event, and what it tells.
    fn take(&mut self, line: &[u8]) -> Result<Option<N>, End> {
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
            "ADDED" | "MODIFIED" => Some(self.scope.now(object).map_err(unreadable)?),
            "DELETED" => Some(self.scope.gone(object).map_err(unreadable)?),
            other => return Err(unreadable(format!("it has the unknown type {other:?}"))),
        };
        self.from = Some(version);
        Ok(news)
    }

    async fn refusal(&self, response: Response<Body>) -> End {
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
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                End::Refused(format!("{why}; missing: {}", self.scope.missing()))
            }
            _ => End::Broken(why),
        }
    }
}

async fn whole(body: Body) -> Result<Vec<u8>, String> {
    let bytes = Limited::new(body, PAGE_BYTES_MAX).collect().await;
    Ok(bytes.map_err(|error| format!("the answer cannot be read: {}", chain(&*error)))?.to_bytes().to_vec())
}
