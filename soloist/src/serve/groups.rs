//! The groups of a controller: `GET /groups`, `GET /groups/NAMESPACE/NAME`, and what `/events?with=groups` tells of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Site;
use super::extras::frame;
use super::problem::Problem;
use crate::controller::gallery::{Counts, Gallery, Only, Sight, View, Visitor, Wanted};
use crate::controller::group::Key;

pub(super) const GROUPS: &str = "/groups";

/// So many groups at once where nothing is said, and at most.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 200;
/// So many pages are being made or sent at once: each may have 800 kB, and nobody has to read it.
const PAGES_MAX: usize = 16;
/// So long one waits for its turn.
const TURN: Duration = Duration::from_secs(2);
/// No two names together are longer.
const FILTER_MAX: usize = 320;
/// Who listens hears of changes at most so often: of many, what came of them.
const PACE: Duration = Duration::from_millis(50);
/// Grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// Which groups somebody asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupsQuery {
    pub(super) filter: Option<String>,
    pub(super) only: Option<String>,
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
}

impl GroupsQuery {
    pub(super) fn wanted(self) -> Result<Wanted, Problem> {
        let filter = self.filter.unwrap_or_default();
        if filter.len() > FILTER_MAX {
            return Err(Problem::bad_request(format!("filter= takes at most {FILTER_MAX} bytes")));
        }
        let only = match self.only.as_deref().unwrap_or_default() {
            "" => Only::All,
            "trouble" => Only::Trouble,
            "lone" => Only::Lone,
            "paused" => Only::Paused,
            _ => return Err(Problem::bad_request("only= takes trouble, lone or paused")),
        };
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad_request(format!("limit= takes 1 to {LIMIT_MAX}")));
        }
        let key = |text: String| {
            let (namespace, name) = text.split_once('/')?;
            Some(Key { namespace: namespace.to_owned(), name: name.to_owned() })
        };
        let after = match self.after.filter(|after| !after.is_empty()) {
            None => None,
            Some(after) => Some(key(after).ok_or_else(|| Problem::bad_request("after= takes NAMESPACE/NAME"))?),
        };
        Ok(Wanted { filter, only, after, limit })
    }
}

/// What `/groups` says.
#[derive(Serialize)]
struct Page<'a> {
    schema: u32,
    leads: bool,
    term: Option<u64>,
    counts: Counts,
    groups: Vec<&'a View>,
    /// What to ask for next with `after=`.
    next: Option<String>,
}

fn name(view: &View) -> String {
    format!("{}/{}", view.namespace, view.name)
}

fn next(sight: &Sight) -> Option<String> {
    sight.groups.last().filter(|_| sight.has_more).map(|(_, view)| name(view))
}

type GroupsQueried = Result<Query<GroupsQuery>, QueryRejection>;

/// The bytes of a page, and its turn, which lasts until they are sent.
struct Sent {
    json: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// The questions about groups.
pub(super) fn routes(gallery: &Arc<Gallery>) -> Router<Arc<Site>> {
    let [all, each] = [Arc::clone(gallery), Arc::clone(gallery)];
    let turns = Arc::new(Semaphore::new(PAGES_MAX));
    let groups = move |query: GroupsQueried| groups(Arc::clone(&all), Arc::clone(&turns), query);
    Router::new().route(GROUPS, get(groups)).route(
        "/groups/{namespace}/{name}",
        get(move |Path((namespace, name)): Path<(String, String)>| group(Arc::clone(&each), namespace, name)),
    )
}

/// Those that are asked for, as they are now.
async fn groups(gallery: Arc<Gallery>, turns: Arc<Semaphore>, query: GroupsQueried) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let wanted = query.wanted()?;
    let Ok(Ok(turn)) = timeout(TURN, turns.acquire_owned()).await else {
        let sentence = "too many clients read groups and are slow to do so: try again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
    };
    let sight = gallery.look(&wanted);
    let page = Page {
        schema: SCHEMA,
        leads: sight.term.is_some(),
        term: sight.term,
        counts: sight.counts,
        groups: sight.groups.iter().map(|(_, view)| &**view).collect(),
        next: next(&sight),
    };
    // Numbers, words and lists: nothing in it can fail to be JSON.
    let json = serde_json::to_vec(&page).unwrap_or_default();
    Ok(([(CONTENT_TYPE, "application/json")], Bytes::from_owner(Sent { json, _turn: turn })).into_response())
}

/// One of them.
async fn group(gallery: Arc<Gallery>, namespace: String, name: String) -> Result<Response, Problem> {
    let key = Key { namespace, name };
    let unknown = || {
        let sentence = format!("no group {key} is looked after by this controller, or another one leads");
        Problem::new(StatusCode::NOT_FOUND, sentence)
    };
    Ok(Json(&*gallery.one(&key).ok_or_else(unknown)?).into_response())
}

/// One that listens: what it wants to see, and what it has been shown of that.
pub(super) struct Visit {
    visitor: Visitor,
    wanted: Wanted,
    changes: watch::Receiver<u64>,
    shown: Shown,
    not_before: Instant,
}

#[derive(Default, PartialEq)]
struct Shown {
    term: Option<u64>,
    counts: Counts,
    next: Option<String>,
    /// By name, each with the number of its last change.
    groups: BTreeMap<String, u64>,
}

/// What of it is new.
#[derive(Serialize)]
struct News<'a> {
    leads: bool,
    term: Option<u64>,
    counts: Counts,
    /// The names of all that are shown, in their order.
    order: Vec<&'a str>,
    /// Those of them that have changed.
    groups: Vec<&'a View>,
    next: Option<&'a str>,
}

impl Visit {
    pub(super) fn new(visitor: Visitor, wanted: Wanted) -> Self {
        let changes = visitor.gallery().changes();
        Self { visitor, wanted, changes, shown: Shown::default(), not_before: Instant::now() }
    }

    /// All that is to be seen now.
    pub(super) fn first(&mut self) -> Bytes {
        self.changes.borrow_and_update();
        self.look(true).unwrap_or_default()
    }

    /// The next that is new. Cancel safe.
    pub(super) async fn next(&mut self) -> Bytes {
        loop {
            if self.changes.changed().await.is_err() {
                // Nobody shows anything any more.
                std::future::pending::<()>().await;
            }
            // A change that comes in the pause is seen by the look after it; a wait that is given up is begun anew.
            self.changes.mark_changed();
            sleep_until(self.not_before).await;
            self.changes.borrow_and_update();
            if let Some(frame) = self.look(false) {
                return frame;
            }
        }
    }

    fn look(&mut self, is_first: bool) -> Option<Bytes> {
        self.not_before = Instant::now() + PACE;
        let sight = self.visitor.gallery().look(&self.wanted);
        let names: Vec<String> = sight.groups.iter().map(|(_, view)| name(view)).collect();
        let now = Shown {
            term: sight.term,
            counts: sight.counts,
            next: next(&sight),
            groups: names.iter().cloned().zip(sight.groups.iter().map(|(change, _)| *change)).collect(),
        };
        let before = std::mem::replace(&mut self.shown, now);
        if !is_first && before == self.shown {
            return None;
        }
        let is_new = |(name, shown): (&String, &'_ (u64, Arc<View>))| before.groups.get(name) != Some(&shown.0);
        let changed = names.iter().zip(&sight.groups).filter(|(name, shown)| is_new((*name, *shown)));
        let news = News {
            leads: sight.term.is_some(),
            term: sight.term,
            counts: sight.counts,
            order: names.iter().map(String::as_str).collect(),
            groups: changed.map(|(_, (_, view))| &**view).collect(),
            next: self.shown.next.as_deref(),
        };
        Some(frame("groups", &news))
    }
}
