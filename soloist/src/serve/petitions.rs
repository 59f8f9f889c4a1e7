//! The requests: they are handed to the elector, which grants or refuses them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use election::RefusalKind;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connections::Connection;
use super::problem::Problem;
use super::{Site, token};
use crate::clock;
use crate::elector::{Order, Petition};
use crate::metrics::Bearer;
use crate::settings::duration;

/// The largest body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// How long the elector may take to answer; it answers in one step.
const ANSWER_TIME: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switchover {
    to: Option<String>,
    fencing_token: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    #[serde(rename = "for")]
    length: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {}

/// Hands the active role over.
pub(super) async fn switchover(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    let Switchover { to, fencing_token } = read(&site, &connection, request).await?;
    let own = site.view.now().tenure.map(|tenure| tenure.token.0);
    if let (Some(given), Some(own)) = (fencing_token, own)
        && given != own
    {
        site.metrics.token_refused(Bearer::Request);
        return Err(conflict(format!("the fencing token {given} is stale: this member is active with {own}")));
    }
    ask(&site, &connection, election::Request::Switchover { to }).await
}

/// Makes the lease long for a while.
pub(super) async fn pause(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    let Pause { length } = read(&site, &connection, request).await?;
    let length = duration("for", &length).map_err(|failure| Problem::bad_request(failure.to_string()))?;
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let until_unix_ms = (clock::unix_us() / 1000).saturating_add(length_ms);
    ask(&site, &connection, election::Request::Pause { length, until_unix_ms }).await
}

/// Ends a pause.
pub(super) async fn resume(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    let Resume {} = read(&site, &connection, request).await?;
    ask(&site, &connection, election::Request::Resume).await
}

/// Who may not ask is told before anything of the body is read.
async fn read<T: DeserializeOwned>(site: &Site, connection: &Connection, request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    token::check(site.token_file.as_deref(), connection.peer, &head.headers)?;
    let bytes = timeout(BODY_TIME, read_body(body)).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {BODY_TIME:?}"))
    })??;
    if bytes.is_empty() {
        return parse(b"{}");
    }
    if !is_json(&head.headers) {
        let sentence = "the body must be JSON, with the header Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::bad_request(format!("failed to read the body: {error}")))
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let sentence = format!("the body is too large: at most {BODY_BYTES_MAX} bytes are read");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Problem::bad_request(format!("failed to read the body: {error}"))),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Hands the request to the elector, and waits for its answer.
async fn ask(site: &Site, connection: &Connection, request: election::Request) -> Result<Response, Problem> {
    let unavailable = |sentence: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence);
    let word = match &request {
        election::Request::Switchover { .. } => "switchover",
        election::Request::Pause { .. } => "pause",
        election::Request::Resume => "resume",
        election::Request::Fenced { .. } => "fenced",
    };
    let (answer_to, answer) = oneshot::channel();
    let petition = Petition { request, by: connection.peer.to_string(), answer_to };
    if site.orders.try_send(Order::Request(petition)).is_err() {
        return Err(unavailable("the elector takes no request now: nothing was done, try again".to_owned()));
    }
    match timeout(ANSWER_TIME, answer).await {
        Ok(Ok(Ok(()))) => Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": word }))).into_response()),
        Ok(Ok(Err(refusal))) => Err(Problem::new(status_of(refusal.kind), refusal.why)),
        Ok(Err(_)) => Err(unavailable("the elector has ended".to_owned())),
        Err(_) => Err(unavailable(format!("no answer within {ANSWER_TIME:?}: look at /status for what came of it"))),
    }
}

fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::WrongMember | RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::NoCandidate => StatusCode::PRECONDITION_FAILED,
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
    }
}

fn conflict(sentence: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, sentence)
}
