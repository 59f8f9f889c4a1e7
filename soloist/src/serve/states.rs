//! The questions that probes and programs ask: who is active, is this member well, what is counted.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use election::{Instant, Role};
use serde::{Deserialize, Serialize};

use super::Site;
use super::problem::Problem;
use super::status::{Status, holder, valid_for_ms};
use crate::chronicle::Chronicle;
use crate::clock;
use crate::snapshot::Snapshot;

/// An elector that is later than this hangs.
const LATE_MAX: Duration = Duration::from_secs(5);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    holder: Option<&'a str>,
    fencing_token: Option<u64>,
    valid_for_ms: u64,
}

/// Whether this member is the active one, at this very moment.
pub(super) async fn active(State(site): State<Arc<Site>>) -> Response {
    let (snapshot, now) = (site.view.now(), clock::now());
    let active = snapshot.active_for(now).is_some();
    let (holder, fencing_token) = holder(&snapshot);
    let body = Active { active, holder, fencing_token, valid_for_ms: valid_for_ms(&snapshot, now) };
    (yes_or_no(active), Json(body)).into_response()
}

#[derive(Serialize)]
struct Healthy {
    healthy: bool,
    reason: String,
}

/// Whether the elector works.
pub(super) async fn healthy(State(site): State<Arc<Site>>) -> Response {
    let hangs = hangs(&site.view.now(), clock::now());
    let reason = hangs.clone().unwrap_or_else(|| "the elector works".to_owned());
    (yes_or_no(hangs.is_none()), Json(Healthy { healthy: hangs.is_none(), reason })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadyQuery {
    role: Option<WantedRole>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WantedRole {
    Active,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    role: String,
    reason: String,
}

/// Whether this member takes part, or with `?role=active`, whether it is the active one.
pub(super) async fn ready(
    State(site): State<Arc<Site>>,
    query: Result<Query<ReadyQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (snapshot, now) = (site.view.now(), clock::now());
    let mut hindrance = hindrance(&snapshot, now);
    if matches!(query.role, Some(WantedRole::Active)) && snapshot.active_for(now).is_none() {
        hindrance = hindrance.or_else(|| Some("this member is not the active one".to_owned()));
    }
    let ready = hindrance.is_none();
    let reason = hindrance.unwrap_or_else(|| snapshot.reason.clone());
    Ok((yes_or_no(ready), Json(Ready { ready, role: snapshot.told_role().to_string(), reason })).into_response())
}

/// Everything about this member.
pub(super) async fn status(State(site): State<Arc<Site>>) -> Response {
    Json(Status::of(&site.view.now(), clock::now())).into_response()
}

/// Who was active when, and why.
pub(super) async fn history(State(site): State<Arc<Site>>) -> Response {
    Json(Chronicle::of(&site.view.now(), &site.lock)).into_response()
}

/// What is counted, for Prometheus.
pub(super) async fn metrics(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    let groups = site.groups.as_ref().and_then(|gallery| gallery.counts());
    let text = site.metrics.text(site.view.now(), clock::now(), groups);
    let text = text.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed to write the metrics"))?;
    Ok(([(CONTENT_TYPE, OPENMETRICS)], text).into_response())
}

fn yes_or_no(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What the elector meant to do is long overdue.
fn hangs(snapshot: &Snapshot, now: Instant) -> Option<String> {
    let late = now.since(snapshot.due?);
    (late > LATE_MAX).then(|| format!("the elector is late by {} s", late.as_secs()))
}

/// Why this member cannot be counted on.
fn hindrance(snapshot: &Snapshot, now: Instant) -> Option<String> {
    if let Some(hangs) = hangs(snapshot, now) {
        return Some(hangs);
    }
    if !snapshot.health.healthy {
        return Some(format!("unhealthy: {}", snapshot.health.why));
    }
    if snapshot.store_answered.is_none() {
        return Some("the lock has not answered yet".to_owned());
    }
    match snapshot.role {
        Role::Standby | Role::Acquiring | Role::Active => None,
        Role::Stopping | Role::Ended => Some(snapshot.reason.clone()),
    }
}
