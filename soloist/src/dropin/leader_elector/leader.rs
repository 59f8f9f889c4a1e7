//! Who leads, as HTTP and the lines tell it.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use election::Instant;
use serde_json::json;

use crate::snapshot::Snapshot;
use crate::workload::nothing::Bars;

/// The path with an answer of its own.
const IS_LEADER: &str = "/isLeader";

/// Who leads now; nothing while that is not known.
///
/// Of itself this member says so only while it may be active: not when its stop has begun, nor where the lock names an
/// earlier run of it. Of another one it says so as long as it has heard of the lock within a lease. `old` leads where a
/// lock of old is held and the own one is not.
pub(super) fn name<'a>(snapshot: &'a Snapshot, old: Option<&'a str>, now: Instant) -> Option<&'a str> {
    if snapshot.active_for(now).is_some() {
        return Some(&snapshot.name);
    }
    let heard = snapshot.store_answered?;
    let other = snapshot.holder.as_ref().filter(|holder| holder.name != snapshot.name);
    other.filter(|_| now.since(heard) <= snapshot.lease).map(|holder| holder.name.as_str()).or(old)
}

/// Who keeps a member from leading, as far as that is known.
pub(super) fn barred_by(bars: Option<&Bars>) -> Option<String> {
    bars?.borrow().as_ref()?.holder.clone()
}

/// The answer to a question at `path`.
pub(super) fn answer(snapshot: &Snapshot, old: Option<&str>, now: Instant, path: &str) -> impl IntoResponse + use<> {
    let text = match path {
        IS_LEADER => format!("{{\"isLeader\": {}}}", snapshot.active_for(now).is_some()),
        _ => json!({"name": name(snapshot, old, now).unwrap_or_default()}).to_string(),
    };
    // What the other program's body is taken for.
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use election::{Activation, Role, Token};

    use super::*;
    use crate::snapshot::{Health, Holder, Tenure};

    pub const LEASE: Duration = Duration::from_secs(10);

    /// A while after the host has started.
    pub fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(1000 + seconds)
    }

    /// Member `a`, which has just heard that `holder` holds the lock.
    pub fn standby(holder: Option<&str>) -> Snapshot {
        let mut snapshot = Snapshot::new("g", "a", LEASE, Health { healthy: true, why: String::new() }, 0);
        snapshot.store_answered = Some(at(0));
        snapshot.holder =
            holder.map(|name| Holder { name: name.to_owned(), activation: Some(Activation(7)), token: None });
        snapshot
    }

    /// Member `a`, which may be active for 5 s.
    pub fn active() -> Snapshot {
        let mut snapshot = standby(Some("a"));
        snapshot.role = Role::Active;
        let (stop_at, kill_at) = (at(5), at(6));
        snapshot.tenure = Some(Tenure { activation: Activation(7), token: Token(1), stop_at, kill_at });
        snapshot
    }

    #[test]
    fn the_name_is_that_of_the_present_holder() {
        assert_eq!(name(&active(), None, at(0)), Some("a"));
        assert_eq!(name(&standby(Some("b")), None, at(10)), Some("b"));
        assert_eq!(name(&standby(None), None, at(0)), None);
        let mut never = standby(Some("b"));
        never.store_answered = None;
        assert_eq!(name(&never, None, at(0)), None);
    }

    #[test]
    fn a_member_names_itself_only_while_it_may_be_active() {
        assert_eq!(name(&active(), None, at(5)), None, "no renewal was confirmed in time");
        let mut stopping = active();
        stopping.role = Role::Stopping;
        assert_eq!(name(&stopping, None, at(0)), None);
        assert_eq!(name(&standby(Some("a")), None, at(0)), None, "an earlier run of it");
    }

    #[test]
    fn nobody_is_named_on_old_news() {
        assert_eq!(name(&standby(Some("b")), None, at(11)), None);
    }

    #[test]
    fn the_holder_of_an_old_lock_leads_where_nobody_holds_the_new_one() {
        assert_eq!(name(&standby(None), Some("old"), at(0)), Some("old"));
        assert_eq!(name(&standby(Some("a")), Some("old"), at(0)), Some("old"), "an earlier run of it");
        assert_eq!(name(&standby(Some("b")), Some("old"), at(0)), Some("b"));
        assert_eq!(name(&active(), Some("old"), at(0)), Some("a"), "until its stop begins");
    }

    async fn body(snapshot: &Snapshot, path: &str) -> String {
        let response = answer(snapshot, None, at(0), path).into_response();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn bodies_are_those_of_old_to_the_letter() {
        for path in ["/", "/any/path", "/isleader"] {
            assert_eq!(body(&standby(Some("b")), path).await, r#"{"name":"b"}"#);
        }
        assert_eq!(body(&standby(None), "/").await, r#"{"name":""}"#);
        assert_eq!(body(&standby(Some("b")), "/isLeader").await, r#"{"isLeader": false}"#);
        assert_eq!(body(&active(), "/isLeader").await, r#"{"isLeader": true}"#);
    }
}
