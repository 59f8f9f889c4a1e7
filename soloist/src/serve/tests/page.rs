//! The page for people, and what it is told besides the status.

use election::{Attempt, Vigil};
use serde_json::{Value, json};

use super::*;
use crate::lock::history::Change;
use crate::snapshot::{Passage, Workload};

fn change(member: &str, token: u64, from_us: u64, until_us: Option<u64>) -> Change {
    let end = until_us.map(|_| "switchover".to_owned());
    Change { token: Some(token), member: member.to_owned(), from_us, why: "a reason".to_owned(), until_us, end }
}

fn two_changes() -> [Change; 2] {
    [change("other", 6, 1_000_000, Some(2_000_000)), change(NAME, 7, 2_008_500, None)]
}

#[test]
fn page_may_run_and_ask_nothing_but_its_own() {
    let stand = Stand::up();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.js", "text/javascript; charset=utf-8"),
        ("/dashboard.svg", "image/svg+xml"),
    ] {
        let answer = stand.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "form-action 'none'"] {
            assert!(policy.contains(rule), "{rule}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(stand.get("/status").header("x-content-type-options"), Some("nosniff"));
    stand.get("/?x").refuses(400, "/ takes no query");
    stand.post("/", "{}").refuses(405, "GET, HEAD");
}

#[test]
fn history_tells_what_the_lock_keeps_and_what_this_member_saw() {
    let stand = Stand::up();
    assert_eq!(stand.get("/history").json(), json!({"schema": 1, "group": "g", "lock": LOCK, "changes": []}));
    let passage =
        Passage { acquiring_us: 2_005_000, active_us: 2_009_000, running_us: Some(2_012_000), stopping_us: None };
    stand.publisher.update(|snapshot| {
        snapshot.history = two_changes().into();
        snapshot.passages = [passage].into();
    });
    let changes = stand.get("/history").json()["changes"].take();
    assert_eq!(
        changes[0],
        json!({"fencing_token": 6, "member": "other", "from": "1970-01-01T00:00:01.000000Z",
            "until": "1970-01-01T00:00:02.000000Z", "duration_ms": 1000.0, "gap_ms": null, "why": "a reason",
            "end": "switchover"})
    );
    assert_eq!((&changes[1]["gap_ms"], &changes[1]["member"]), (&8.5.into(), &NAME.into()));
    assert_eq!(
        changes[1]["seen"],
        json!({"acquiring": "1970-01-01T00:00:02.005000Z", "active": "1970-01-01T00:00:02.009000Z",
            "running": "1970-01-01T00:00:02.012000Z", "stopping": null})
    );
}

/// docs/safety.md R21.
#[test]
fn history_is_silent_about_an_activation_whose_workload_was_not_told() {
    let stand = Stand::up();
    stand.activate(in_a_while());
    stand.publisher.update(|snapshot| {
        snapshot.is_warm = true;
        snapshot.history = two_changes().into();
    });
    let members = || {
        let changes = stand.get("/history").json()["changes"].take();
        changes.as_array().unwrap().iter().map(|change| change["member"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(members(), ["other"]);
    stand.publisher.update(|snapshot| snapshot.workload = Workload::Running { pid: 1, since_unix_us: 1 });
    assert_eq!(members(), ["other", NAME]);
}

/// The name and the data of the next event.
fn next(client: &mut Client) -> (String, Value) {
    let mut name = String::new();
    loop {
        let line = client.line();
        assert!(!line.is_empty(), "the connection has ended");
        if let Some(text) = line.strip_prefix("event: ") {
            name = text.trim().to_owned();
        } else if let Some(json) = line.strip_prefix("data: ") {
            return (name, serde_json::from_str(json).unwrap());
        }
    }
}

fn listen(stand: &Stand, query: &str) -> Client {
    let mut client = stand.client();
    client.say(&format!("GET /events{query} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    client
}

#[test]
fn who_asks_hears_of_the_lease_and_the_history_as_well() {
    let stand = Stand::up();
    let mut client = listen(&stand, "?with=lease,history");
    let names: Vec<String> = (0..3).map(|_| next(&mut client).0).collect();
    assert_eq!(names, ["status", "lease", "history"]);
    stand.activate(in_a_while());
    assert_eq!(next(&mut client).1["role"], "active");
    let (name, lease) = next(&mut client);
    assert!(name == "lease" && lease["valid_for_ms"].as_u64().unwrap() > 30_000, "{lease}");
    assert!(lease["now"].is_string() && lease["heard_ms"].is_null() && lease["wait_ms"].is_null(), "{lease}");
    // A renewal is no news of the status.
    let stop_at = clock::now() + Duration::from_secs(600);
    stand.publisher.update(|snapshot| snapshot.tenure = snapshot.tenure.map(|tenure| Tenure { stop_at, ..tenure }));
    let (name, lease) = next(&mut client);
    assert!(name == "lease" && lease["valid_for_ms"].as_u64().unwrap() > 500_000, "{lease}");
    stand.publisher.update(|snapshot| snapshot.history = two_changes().into());
    assert_eq!(next(&mut client).0, "status");
    assert_eq!(next(&mut client).0, "lease");
    let (name, history) = next(&mut client);
    assert_eq!((name.as_str(), history), ("history", stand.get("/history").json()));
}

#[test]
fn lease_of_another_and_a_wait_are_told_by_their_age() {
    let stand = Stand::up();
    let second = Duration::from_secs(1);
    stand.publisher.update(|snapshot| {
        let attempt = Attempt { count: 1, random: 1 };
        snapshot.heard = Some((attempt, clock::now() - second * 3));
        snapshot.vigil = Some(Vigil { since: clock::now() - second * 5, until: clock::now() + second * 40 });
    });
    let mut client = listen(&stand, "?with=lease");
    next(&mut client);
    let (_, lease) = next(&mut client);
    let ms = |field: &str| lease[field].as_u64().unwrap();
    assert!((3_000..23_000).contains(&ms("heard_ms")), "{lease}");
    assert!((20_000..=40_000).contains(&ms("wait_ms")), "{lease}");
    assert!((44_900..45_100).contains(&ms("wait_of_ms")), "{lease}");
    assert_eq!(ms("valid_for_ms"), 0);
}

#[test]
fn who_does_not_ask_hears_the_status_alone() {
    let stand = Stand::up();
    let mut all = listen(&stand, "?with=lease");
    let mut plain = listen(&stand, "");
    stand.activate(in_a_while());
    stand.publisher.update(|snapshot| {
        snapshot.tenure = snapshot.tenure.map(|tenure| Tenure { stop_at: clock::now(), ..tenure });
    });
    stand.publisher.update(|snapshot| snapshot.reason = "the end".to_owned());
    while next(&mut all).1["reason"] != "the end" {}
    loop {
        let (name, status) = next(&mut plain);
        assert_eq!(name, "status");
        if status["reason"] == "the end" {
            return;
        }
    }
}

#[test]
fn what_events_cannot_tell_is_refused() {
    let stand = Stand::up();
    stand.get("/events?with=leases").refuses(400, "with= takes lease, history");
    stand.get("/events?width=lease").refuses(400, "width");
    stand.get("/history?with=lease").refuses(400, "/history takes no query");
}
