//! What probes and programs are told.

use serde_json::json;

use super::*;
use crate::lock::history::Change;
use crate::snapshot::{Announcement, Holder, Workload};

#[test]
fn standby_is_not_active_and_says_so() {
    let stand = Stand::up();
    let answer = stand.get("/active");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({"active": false, "holder": null, "fencing_token": null, "valid_for_ms": 0}));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn active_member_says_for_how_long() {
    let stand = Stand::up();
    stand.activate(in_a_while());
    let answer = stand.get("/active");
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((&body["active"], &body["holder"], &body["fencing_token"]), (&true.into(), &NAME.into(), &TOKEN.into()));
    let valid_for_ms = body["valid_for_ms"].as_u64().unwrap();
    assert!((30_000..=60_000).contains(&valid_for_ms), "{body}");
}

#[test]
fn active_runs_out_by_the_clock_when_the_snapshot_stands_still() {
    let stand = Stand::up();
    let stop_at = clock::now() + Duration::from_millis(500);
    stand.activate(stop_at);
    let mut agreed = 0;
    loop {
        let before = clock::now();
        let answer = stand.get("/active");
        if answer.status == 503 {
            break;
        }
        assert_eq!(answer.status, 200);
        assert!(before < stop_at, "it said yes to a question that came after the end");
        agreed += 1;
    }
    assert!(clock::now() >= stop_at, "it said no before the end");
    assert!(agreed > 0);
    let status = stand.get("/status").json();
    assert_eq!((&status["role"], &status["lease"]["valid_for_ms"]), (&"active".into(), &0.into()));
    assert!(stand.get("/metrics").body.contains("\nsoloist_active 0\n"));
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let stand = Stand::up();
    for path in ["/active", "/healthz", "/readyz", "/status", "/metrics"] {
        let mut client = stand.client();
        client.say(&format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        let head = client.head();
        let expected = stand.get(path).status.to_string();
        assert_eq!(head.split(' ').nth(1), Some(expected.as_str()), "{path}: {head}");
        assert_eq!(client.rest(), "", "{path}");
    }
}

#[test]
fn elector_that_hangs_is_not_healthy_and_not_ready() {
    let stand = Stand::up();
    assert_eq!(stand.get("/healthz").json(), json!({"healthy": true, "reason": "the elector works"}));
    stand.publisher.update(|snapshot| snapshot.due = Some(clock::now() + Duration::from_secs(60)));
    assert_eq!(stand.get("/healthz").status, 200);
    let long_ago = Instant::from_nanos(clock::now().as_nanos() - 7_000_000_000);
    stand.publisher.update(|snapshot| snapshot.due = Some(long_ago));
    let answer = stand.get("/healthz");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["reason"].as_str().unwrap().contains("late by 7 s"), "{answer:?}");
    assert_eq!(stand.get("/readyz").status, 503);
}

#[test]
fn elector_that_has_ended_leaves_its_last_word() {
    let (mut stand, _orders) = Plan::default().put_up();
    stand.activate(in_a_while());
    stand.publisher = Publisher::new(standby());
    assert_eq!(stand.get("/active").status, 200);
    assert_eq!(stand.get("/status").status, 200);
}

#[test]
fn healthy_standby_is_ready_but_not_for_the_active_role() {
    let stand = Stand::up();
    let answer = stand.get("/readyz");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"ready": true, "role": "standby", "reason": "waits for the lock"}));
    let answer = stand.get("/readyz?role=active");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "this member is not the active one");
    stand.activate(in_a_while());
    assert_eq!(stand.get("/readyz?role=active").status, 200);
    assert_eq!(stand.get("/readyz").status, 200);
    stand.activate(clock::now());
    assert_eq!(stand.get("/readyz?role=active").status, 503);
}

#[test]
fn member_that_cannot_be_counted_on_is_not_ready() {
    let stand = Stand::up();
    let refuses = |change: fn(&mut Snapshot), about: &str| {
        stand.publisher.update(|snapshot| {
            *snapshot = Snapshot { news: snapshot.news, ..standby() };
            change(snapshot);
        });
        let answer = stand.get("/readyz");
        assert_eq!(answer.status, 503, "{about}: {answer:?}");
        assert!(answer.json()["reason"].as_str().unwrap().contains(about), "{answer:?}");
    };
    refuses(|snapshot| snapshot.store_answered = None, "the lock has not answered yet");
    refuses(|snapshot| snapshot.health = Health { healthy: false, why: "a full disk".to_owned() }, "a full disk");
    refuses(|snapshot| (snapshot.role, snapshot.reason) = (Role::Stopping, "asked to".to_owned()), "asked to");
    refuses(|snapshot| (snapshot.role, snapshot.reason) = (Role::Ended, "left".to_owned()), "left");
}

#[test]
fn query_of_readyz_that_nobody_knows_is_refused() {
    let stand = Stand::up();
    for query in ["role=standby", "role=", "roel=active", "role=active&x=1"] {
        stand.get(&format!("/readyz?{query}")).refuses(400, "");
    }
    stand.get("/active?role=active").refuses(400, "/active takes no query");
}

#[test]
fn status_tells_all_that_is_known() {
    let stand = Stand::up();
    stand.activate(in_a_while());
    let announced = Announcement {
        name: "other".to_owned(),
        nonce: "1".to_owned(),
        role: "standby".to_owned(),
        healthy: false,
        why: Some("ill".to_owned()),
        leaving: false,
        version: "0.1.0".to_owned(),
        since_unix_ms: 1_000,
        at_unix_ms: 2_000,
    };
    stand.publisher.update(|snapshot| {
        snapshot.since_unix_us = 1_000_001;
        snapshot.paused_until_unix_ms = Some(3_000);
        snapshot.workload = Workload::Running { pid: 42, since_unix_us: 4_000_000 };
        snapshot.containment = Some(crate::workload::Containment::Cgroup);
        snapshot.memory_locked = Some(true);
        snapshot.members = vec![announced.clone()];
        let ended = Change {
            token: Some(6),
            member: "other".to_owned(),
            from_us: 5_000_000,
            why: "first".to_owned(),
            until_us: Some(6_000_000),
            end: Some("asked to".to_owned()),
        };
        snapshot.history = [ended].into();
    });
    let mut status = stand.get("/status").json();
    assert!(status["lease"]["valid_for_ms"].take().as_u64().is_some_and(|ms| ms > 30_000));
    let expected = json!({
        "schema": 1, "group": "g", "name": NAME, "role": "active", "holder": NAME, "fencing_token": TOKEN,
        "since": "1970-01-01T00:00:01.000001Z",
        "lease": {"seconds": 15, "valid_for_ms": null},
        "paused_until": "1970-01-01T00:00:03.000000Z",
        "workload": {"state": "running", "pid": 42, "since": "1970-01-01T00:00:04.000000Z"},
        "health": {"healthy": true, "why": "nothing is checked"},
        "containment": "cgroup",
        "memory_locked": true,
        "reason": "waits for the lock",
        "previous": {"holder": "other", "fencing_token": 6, "since": "1970-01-01T00:00:05.000000Z",
            "until": "1970-01-01T00:00:06.000000Z", "end": "asked to"},
        "members": [{"name": "other", "role": "standby", "healthy": false, "why": "ill", "version": "0.1.0",
            "since": "1970-01-01T00:00:01.000000Z", "announced": "1970-01-01T00:00:02.000000Z"}],
    });
    assert_eq!(status, expected);
}

#[test]
fn status_shows_all_slots_where_there_are_several() {
    let stand = Stand::up();
    stand.publisher.update(|snapshot| {
        let holder = Holder { name: "other".to_owned(), activation: None, token: Some(Token(9)) };
        snapshot.slots = vec![None, Some(holder), None];
    });
    let status = stand.get("/status").json();
    assert_eq!(status["slot"], json!(null));
    let slot = |slot: u64, holder: Option<&str>, token: Option<u64>| json!({"slot": slot, "holder": holder, "fencing_token": token});
    assert_eq!(status["slots"], json!([slot(1, None, None), slot(2, Some("other"), Some(9)), slot(3, None, None)]));
    stand.publisher.update(|snapshot| snapshot.slot = Some(3));
    assert_eq!(stand.get("/status").json()["slot"], 3);
}

#[test]
fn metrics_are_a_page_of_openmetrics() {
    let stand = Stand::up();
    stand.activate(in_a_while());
    stand.metrics.unknown_outcome();
    let answer = stand.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    for line in ["soloist_active 1", "soloist_fencing_token 7", "soloist_store_unknown_outcomes_total 1"] {
        assert!(answer.body.lines().any(|shown| shown == line), "{line}: {}", answer.body);
    }
    assert!(answer.body.ends_with("# EOF\n"));
}

#[test]
fn no_header_of_any_answer_carries_the_name() {
    let (stand, orders) = Plan::unix().put_up();
    stand.activate(in_a_while());
    let asked = elector(orders, refusal(RefusalKind::WrongMember));
    let paths =
        ["/active", "/healthz", "/readyz", "/readyz?role=active", "/status", "/history", "/metrics", "/", "/nowhere"];
    let mut heads: Vec<String> = paths.iter().map(|path| stand.get(path).head).collect();
    heads.push(stand.post("/resume", "{}").head);
    heads.push(stand.post("/pause", "{").head);
    let mut listening = stand.client();
    listening.say("GET /events HTTP/1.1\r\nhost: x\r\n\r\n");
    heads.push(listening.head());
    asked.join().unwrap();
    for head in heads {
        assert!(head.starts_with("HTTP/1.1 ") && !head.contains(NAME) && !head.contains("zyx"), "{head}");
    }
}
