//! Which question goes where, and what is none.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{ALLOW, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Body as _;

use super::problem::Problem;
use super::{Site, events, groups, page, petitions, states};

const READY: &str = "/readyz";
const EVENTS: &str = "/events";

/// The paths that are asked with a query.
const WITH_QUERY: [&str; 3] = [READY, EVENTS, groups::GROUPS];

pub(super) fn router(site: Arc<Site>) -> Router {
    let of_groups = site.groups.as_ref().map_or_else(Router::new, groups::routes);
    let has_groups = site.groups.is_some();
    let questions = Router::new()
        .route("/active", get(states::active))
        .route("/healthz", get(states::healthy))
        .route(READY, get(states::ready))
        .route("/status", get(states::status))
        .route("/metrics", get(states::metrics))
        .route("/history", get(states::history))
        .route(EVENTS, get(events::events))
        .merge(of_groups)
        .merge(page::routes(has_groups))
        .method_not_allowed_fallback(|method, uri| wrong_verb(method, uri, "GET, HEAD"));
    let petitions = Router::new()
        .route("/switchover", post(petitions::switchover))
        .route("/pause", post(petitions::pause))
        .route("/resume", post(petitions::resume))
        .method_not_allowed_fallback(|method, uri| wrong_verb(method, uri, "POST"));
    questions
        .merge(petitions)
        .route_layer(from_fn(refuse_strays))
        .fallback(move || unknown_path(has_groups))
        .layer(from_fn(finish))
        .with_state(site)
}

async fn wrong_verb(method: Method, uri: Uri, allowed: &'static str) -> Response {
    let sentence = format!("{} does not take {method}: {allowed} is allowed", uri.path());
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, sentence);
    ([(ALLOW, HeaderValue::from_static(allowed))], problem).into_response()
}

async fn unknown_path(has_groups: bool) -> Problem {
    let groups = if has_groups { "/groups, /groups/NAMESPACE/NAME, /member, " } else { "" };
    let sentence = format!(
        "there are /active, /healthz, /readyz, /status, /history, /events, /metrics, {groups}/switchover, /pause, \
         /resume, and / for people"
    );
    Problem::new(StatusCode::NOT_FOUND, format!("nothing is here: {sentence}"))
}

/// What nobody would look at is refused: it was meant to have an effect.
async fn refuse_strays(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if !query.is_empty() && !WITH_QUERY.contains(&request.uri().path()) {
        return Problem::bad_request(format!("{} takes no query", request.uri().path())).into_response();
    }
    if request.method() != Method::POST && !request.body().is_end_stream() {
        return Problem::bad_request("a body does not belong here").into_response();
    }
    next.run(request).await
}

/// What all answers have in common.
async fn finish(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // An answer is about one moment.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
