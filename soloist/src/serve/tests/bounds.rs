//! Clients that send nothing, too slowly, or are too many.

use std::net::TcpStream;

use super::*;
use crate::descriptors;

/// Idle connections of one client.
const CROWD: usize = 2_000;

#[test]
fn who_sends_nothing_or_half_a_head_is_cut_off() {
    let stand = Stand::up();
    let mut silent = stand.client();
    let mut half = stand.client();
    half.say("GET /status HTTP/1.1\r\nhost: ");
    let mut kept = stand.client();
    assert_eq!(kept.ask("GET /active HTTP/1.1\r\nhost: x\r\n\r\n").status, 503);
    for client in [&mut silent, &mut half, &mut kept] {
        let rest = client.rest();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408 "), "{rest}");
    }
}

#[test]
fn drop_by_drop_does_not_help() {
    let stand = Stand::up();
    let mut stream = TcpStream::connect(tcp(&stand.address)).unwrap();
    stream.set_nonblocking(true).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /status HTTP/1.1\r\nx: ").unwrap();
    wait_until("the connection to be cut off", || {
        let _ = std::io::Write::write(&mut stream, b"x");
        !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
}

#[test]
fn body_that_does_not_come_is_408() {
    let (stand, _orders) = Plan::unix().put_up();
    let mut client = stand.client();
    client.say("POST /pause HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{");
    client.answer().refuses(408, "the body did not come within 5s");
}

#[test]
fn one_connection_too_many_hears_so_at_once() {
    let (stand, _orders) = Plan { limits: Limits { connections: 2, streams: 2 }, ..Plan::default() }.put_up();
    let mut listening: Vec<Client> = (0..2).map(|_| stand.client()).collect();
    for client in &mut listening {
        client.say("GET /events HTTP/1.1\r\nhost: x\r\n\r\n");
        client.event();
    }
    // Before it has asked anything.
    let answer = stand.client().answer();
    answer.refuses(503, "too many connections now");
    assert_eq!(answer.header("connection"), Some("close"));
    stand.get("/active").refuses(503, "too many connections now");
    drop(listening.pop());
    stand.activate(in_a_while());
    wait_until("room for a question", || stand.get("/active").status == 200);
}

#[test]
fn idle_connections_make_room_for_new_ones_the_oldest_first() {
    let (stand, _orders) = Plan { limits: Limits { connections: 3, streams: 1 }, ..Plan::default() }.put_up();
    let mut listening = stand.client();
    listening.say("GET /events HTTP/1.1\r\nhost: x\r\n\r\n");
    listening.event();
    let question = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let (mut first, mut second) = (stand.client(), stand.client());
    assert_eq!(first.ask(question).status, 200);
    assert_eq!(second.ask(question).status, 200);
    assert_eq!(stand.client().ask(question).status, 200);
    assert_eq!(first.rest(), "", "the oldest is closed");
    stand.activate(in_a_while());
    assert_eq!(listening.event().1["role"], "active", "who listens is not idle");
}

#[test]
fn who_asks_for_the_head_of_events_is_idle_afterwards() {
    let (stand, _orders) = Plan { limits: Limits { connections: 2, streams: 1 }, ..Plan::default() }.put_up();
    let mut asking: Vec<Client> = (0..2).map(|_| stand.client()).collect();
    for client in &mut asking {
        client.say("HEAD /events HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 200 "));
    }
    stand.activate(in_a_while());
    assert_eq!(stand.get("/active").status, 200);
}

#[test]
fn two_thousand_idle_connections_keep_no_question_from_its_answer() {
    descriptors::raise_to(2 * CROWD as u64 + 1_000);
    let (stand, _orders) = Plan { limits: Limits::of(CROWD), ..Plan::default() }.put_up();
    let address = tcp(&stand.address);
    let _crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect();
    stand.activate(in_a_while());
    for _ in 0..20 {
        assert_eq!(stand.get("/active").status, 200);
    }
}
