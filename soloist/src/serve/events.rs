//! `GET /events`: the status as server-sent events, whenever it is news, and with `?with=` what a page shows besides.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Site;
use super::connections::{Connections, StreamPermit};
use super::extras::{Extras, Wanted};
use super::groups::{GroupsQuery, Visit};
use super::problem::Problem;
use super::status::Status;
use crate::clock;
use crate::snapshot::Snapshot;

/// A comment is sent after so much silence: middlemen close what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// So many clients are told at once.
const PROMPT_MAX: usize = 50;

/// How long a change settles where there are more: longer than handovers take on a quiet host.
const SETTLE: Duration = Duration::from_millis(50);

const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// One event, as it goes to all clients: they share its bytes.
#[derive(Clone, Debug)]
pub(super) struct Event {
    news: u64,
    frame: Bytes,
}

impl Event {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let status = Status::of(snapshot, clock::now());
        // Numbers, words and lists: nothing in it can fail to be JSON.
        let json = serde_json::to_string(&status).unwrap_or_default();
        let news = snapshot.news;
        Self { news, frame: format!("id: {news}\nevent: status\ndata: {json}\n\n").into() }
    }
}

/// Makes an event of each change that is news, once for all clients, and what else is asked for of every change as long
/// as somebody asks. Ends with the elector.
///
/// A handover is several changes within some milliseconds. To tell many clients each of them at once would take the
/// processor time that the handover needs, so with many a change settles first, and they hear what came of it.
pub(super) async fn forward(
    mut snapshots: watch::Receiver<Snapshot>,
    events: watch::Sender<Event>,
    extras: Arc<watch::Sender<Extras>>,
    connections: Arc<Connections>,
    lock: Arc<str>,
) {
    let mut told = events.borrow().news;
    while snapshots.changed().await.is_ok() {
        let is_news = snapshots.borrow_and_update().news != told;
        if !is_news && extras.is_closed() {
            continue;
        }
        if connections.streams() > PROMPT_MAX {
            sleep(SETTLE).await;
        }
        // Copied first: the elector could not publish while it is borrowed.
        let snapshot = snapshots.borrow_and_update().clone();
        if snapshot.news != told {
            told = snapshot.news;
            events.send_replace(Event::of(&snapshot));
        }
        if !extras.is_closed() {
            let newest = Extras::of(&snapshot, &lock);
            extras.send_if_modified(|extras| std::mem::replace(extras, newest) != *extras);
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    with: Option<String>,
    filter: Option<String>,
    only: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

impl EventsQuery {
    /// What is wanted besides, and a visit of the groups if they are.
    fn wanted(self, site: &Site) -> Result<(Wanted, Option<Visit>), Problem> {
        let wanted = Wanted::parse(self.with.as_deref().unwrap_or_default())?;
        let Self { filter, only, after, limit, .. } = self;
        if !wanted.groups {
            return match (filter, only, after, limit) {
                (None, None, None, None) => Ok((wanted, None)),
                _ => Err(Problem::bad_request("filter=, only=, after= and limit= belong to with=groups")),
            };
        }
        let Some(gallery) = &site.groups else {
            return Err(Problem::bad_request("with=groups is for controllers, and this is a member of one group"));
        };
        let groups = GroupsQuery { filter, only, after, limit }.wanted()?;
        let visitor = gallery.admit().ok_or_else(full)?;
        Ok((wanted, Some(Visit::new(visitor, groups))))
    }
}

fn full() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many clients listen to events: try again later")
}

/// Now, and then whenever it is news.
pub(super) async fn events(
    State(site): State<Arc<Site>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (wanted, mut visit) = query.wanted(&site)?;
    let permit = site.connections.admit_stream().ok_or_else(full)?;
    let mut events = site.events.clone();
    events.mark_unchanged();
    // Before the look: what changes after it is told.
    let extras = wanted.is_any().then(|| site.extras.subscribe());
    let snapshot = site.view.now();
    let shown = Extras::of(&snapshot, &site.lock);
    let groups = visit.as_mut().map(Visit::first).unwrap_or_default();
    let first = [Event::of(&snapshot).frame, shown.frames(&Extras::default(), wanted), groups].concat();
    let (first, told) = (Some(first.into()), snapshot.news);
    let client = Client { first, told, wanted, shown, events, extras, visit, site, _permit: permit };
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(client.frames())).into_response())
}

/// One that listens. What it has not read when something newer comes is skipped.
struct Client {
    first: Option<Bytes>,
    /// The news that it has heard last.
    told: u64,
    /// What it wants besides, and has heard of that last.
    wanted: Wanted,
    shown: Extras,
    events: watch::Receiver<Event>,
    extras: Option<watch::Receiver<Extras>>,
    visit: Option<Visit>,
    site: Arc<Site>,
    _permit: StreamPermit,
}

impl Client {
    fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut client| async move { client.next().await.map(|frame| (Ok(frame), client)) })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        // What this client is not told of does not put its sign of life off.
        let silence = sleep(KEEP_ALIVE);
        tokio::pin!(silence);
        loop {
            let frame = tokio::select! {
                biased;
                changed = self.events.changed() => {
                    changed.ok()?;
                    self.news()
                }
                newest = changed(&mut self.extras) => self.besides(newest),
                frame = seen(&mut self.visit) => Some(frame),
                () = &mut silence => Some(self.sign_of_life()),
            };
            if frame.is_some() {
                return frame;
            }
        }
    }

    fn news(&mut self) -> Option<Bytes> {
        let event = self.events.borrow_and_update().clone();
        if event.news <= self.told {
            return None;
        }
        self.told = event.news;
        Some(event.frame)
    }

    fn besides(&mut self, newest: Extras) -> Option<Bytes> {
        let frames = newest.frames(&self.shown, self.wanted);
        self.shown = newest;
        (!frames.is_empty()).then_some(frames)
    }

    /// Scripts in a page hear no comments.
    fn sign_of_life(&self) -> Bytes {
        let frames = Extras::of(&self.site.view.now(), &self.site.lock).frames(&Extras::default(), self.wanted.lease());
        if frames.is_empty() { COMMENT } else { frames }
    }
}

/// Never, for who does not look at groups.
async fn seen(visit: &mut Option<Visit>) -> Bytes {
    match visit {
        Some(visit) => visit.next().await,
        None => std::future::pending().await,
    }
}

/// Never, for who wants nothing besides.
async fn changed(extras: &mut Option<watch::Receiver<Extras>>) -> Extras {
    if let Some(extras) = extras
        && extras.changed().await.is_ok()
    {
        return extras.borrow_and_update().clone();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::super::connections::Limits;
    use super::super::view::View;
    use super::*;
    use crate::metrics::Metrics;
    use crate::snapshot::Health;

    #[tokio::test(start_paused = true)]
    async fn news_that_a_client_does_not_hear_of_do_not_put_off_its_sign_of_life() {
        let health = Health { healthy: true, why: String::new() };
        let snapshot = Snapshot::new("g", "a", Duration::from_secs(15), health, 0);
        let snapshots = watch::Sender::new(snapshot.clone());
        let told = watch::Sender::new(Event::of(&snapshot));
        let extras = Arc::new(watch::Sender::new(Extras::default()));
        let site = Site {
            view: View::new(snapshots.subscribe()),
            orders: mpsc::channel(1).0,
            metrics: Metrics::default(),
            token_file: None,
            events: told.subscribe(),
            extras: Arc::clone(&extras),
            lock: "x.lock".into(),
            groups: None,
            connections: Arc::new(Connections::new(Limits::of(8))),
        };
        let query = Query(EventsQuery { with: Some("history".to_owned()), ..EventsQuery::default() });
        let Ok(response) = events(State(Arc::new(site)), Ok(query)).await else { panic!("refused") };
        let mut frames = response.into_body().into_data_stream();
        let first = frames.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"id: 0\nevent: status\n"), "{first:?}");
        let renewals = async {
            loop {
                sleep(Duration::from_secs(2)).await;
                extras.send_replace(Extras::of(&snapshot, "x.lock"));
            }
        };
        let begun = Instant::now();
        let next = tokio::select! {
            next = timeout(KEEP_ALIVE * 10, frames.next()) => next.unwrap().unwrap().unwrap(),
            () = renewals => unreachable!(),
        };
        assert_eq!((next, begun.elapsed()), (COMMENT, KEEP_ALIVE));
    }
}
