//! `GET /events`: the status as server-sent events, whenever it is news.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Site;
use super::connections::{Connections, StreamPermit};
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

/// Makes an event of each change that is news, once for all clients. Ends with the elector.
///
/// A handover is several changes within some milliseconds. To tell many clients each of them at once would take the
/// processor time that the handover needs, so with many a change settles first, and they hear what came of it.
pub(super) async fn forward(
    mut snapshots: watch::Receiver<Snapshot>,
    events: watch::Sender<Event>,
    connections: Arc<Connections>,
) {
    let mut told = events.borrow().news;
    while snapshots.changed().await.is_ok() {
        if snapshots.borrow_and_update().news == told {
            continue;
        }
        if connections.streams() > PROMPT_MAX {
            sleep(SETTLE).await;
        }
        // Copied first: the elector could not publish while it is borrowed.
        let snapshot = snapshots.borrow_and_update().clone();
        told = snapshot.news;
        events.send_replace(Event::of(&snapshot));
    }
}

/// Now, and then whenever it is news.
pub(super) async fn events(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    let permit = site.connections.admit_stream().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many clients listen to events: try again later")
    })?;
    let mut events = site.events.clone();
    events.mark_unchanged();
    let client = Client { first: Some(Event::of(&site.view.now())), told: 0, events, _permit: permit };
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(client.frames())).into_response())
}

/// One that listens. What it has not read when something newer comes is skipped.
struct Client {
    first: Option<Event>,
    told: u64,
    events: watch::Receiver<Event>,
    _permit: StreamPermit,
}

impl Client {
    fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut client| async move { client.next().await.map(|frame| (Ok(frame), client)) })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            self.told = first.news;
            return Some(first.frame);
        }
        loop {
            match timeout(KEEP_ALIVE, self.events.changed()).await {
                Err(_) => return Some(COMMENT),
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {
                    let event = self.events.borrow_and_update().clone();
                    if event.news > self.told {
                        self.told = event.news;
                        return Some(event.frame);
                    }
                }
            }
        }
    }
}
