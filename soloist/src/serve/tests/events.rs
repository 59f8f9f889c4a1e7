//! What those hear who listen.

use super::*;

const LISTEN: &str = "GET /events HTTP/1.1\r\nhost: x\r\n\r\n";

fn listen(stand: &Stand) -> Client {
    let mut client = stand.client();
    client.say(LISTEN);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
    client
}

/// Waits until the server shows the snapshot that was published last.
fn wait_shown(stand: &Stand, reason: &str) {
    wait_until("the snapshot to be shown", || stand.get("/status").json()["reason"] == reason);
}

#[test]
fn status_comes_at_once_and_then_whenever_it_is_news() {
    let stand = Stand::up();
    let mut client = listen(&stand);
    let (first, status) = client.event();
    assert_eq!((&status["role"], &status["reason"]), (&"standby".into(), &"waits for the lock".into()));
    stand.activate(in_a_while());
    let (second, status) = client.event();
    assert!(second > first);
    assert_eq!((&status["role"], &status["fencing_token"]), (&"active".into(), &TOKEN.into()));
    assert_eq!(status, {
        let mut now = stand.get("/status").json();
        now["lease"]["valid_for_ms"] = status["lease"]["valid_for_ms"].clone();
        now
    });
}

#[test]
fn renewals_are_no_news() {
    let stand = Stand::up();
    stand.activate(in_a_while());
    let mut client = listen(&stand);
    let (told, _) = client.event();
    let valid_for_ms = || stand.get("/status").json()["lease"]["valid_for_ms"].as_u64().unwrap();
    for renewal in 1..=3 {
        let stop_at = clock::now() + Duration::from_secs(600 * renewal);
        stand.publisher.update(|snapshot| {
            snapshot.tenure = snapshot.tenure.map(|tenure| Tenure { stop_at, ..tenure });
        });
        wait_until("the renewal to be seen", || valid_for_ms() > (600 * renewal - 60) * 1000);
    }
    stand.publisher.update(|snapshot| snapshot.reason = "something else".to_owned());
    let (next, status) = client.event();
    assert_eq!((next, &status["reason"]), (told + 1, &"something else".into()));
}

#[test]
fn who_comes_late_hears_the_newest() {
    let stand = Stand::up();
    stand.publisher.update(|snapshot| snapshot.reason = "one".to_owned());
    stand.publisher.update(|snapshot| snapshot.reason = "two".to_owned());
    wait_shown(&stand, "two");
    let (_, status) = listen(&stand).event();
    assert_eq!(status["reason"], "two");
}

#[test]
fn all_who_listen_hear_the_same() {
    let stand = Stand::up();
    let mut clients: Vec<Client> = (0..20).map(|_| listen(&stand)).collect();
    for client in &mut clients {
        client.event();
    }
    stand.activate(in_a_while());
    let heard: Vec<_> = clients.iter_mut().map(Client::event).collect();
    assert!(heard.iter().all(|event| *event == heard[0]), "{heard:?}");
}

#[test]
fn many_who_listen_hear_what_came_of_a_handover_once() {
    let (stand, _orders) = Plan { limits: Limits::of(200), ..Plan::default() }.put_up();
    let mut clients: Vec<Client> = (0..60).map(|_| listen(&stand)).collect();
    for client in &mut clients {
        client.event();
    }
    for step in ["one", "two", "three"] {
        stand.publisher.update(|snapshot| snapshot.reason = step.to_owned());
    }
    for client in &mut clients {
        let (_, status) = client.event();
        assert_eq!(status["reason"], "three");
    }
}

#[test]
fn only_half_of_all_connections_may_listen() {
    let (stand, _orders) = Plan { limits: Limits { connections: 4, streams: 2 }, ..Plan::default() }.put_up();
    let mut first = listen(&stand);
    let second = listen(&stand);
    stand.get("/events").refuses(503, "too many clients listen");
    drop(second);
    first.event();
    wait_until("room for another one", || {
        let mut client = stand.client();
        client.say(LISTEN);
        client.head().starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn stream_ends_with_the_server() {
    let mut stand = Stand::up();
    let mut client = listen(&stand);
    client.event();
    drop(stand.serving.take());
    client.rest();
    let address = tcp(&stand.address);
    wait_until("the port to be free", || std::net::TcpListener::bind(address).is_ok());
}
