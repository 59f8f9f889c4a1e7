//! Requests that reach the elector, and what becomes of its answer.

use super::*;

const BEARER: &str = "content-type: application/json\r\nauthorization: Bearer s3cret\r\n";

fn with_token() -> (Stand, mpsc::Receiver<Order>) {
    Plan { token: Some("s3cret\n"), ..Plan::default() }.put_up()
}

#[test]
fn switchover_is_handed_to_the_elector() {
    let (stand, orders) = with_token();
    let asked = elector(orders, Ok(()));
    let answer = stand.post_with("/switchover", BEARER, "{\"to\":\"b\"}");
    assert_eq!((answer.status, answer.body.as_str()), (202, "{\"accepted\":\"switchover\"}"));
    let (request, by) = asked.join().unwrap();
    assert_eq!(request, Request::Switchover { to: Some("b".to_owned()) });
    assert!(by.starts_with("127.0.0.1:") && by.ends_with(" over HTTP"), "{by}");
}

#[test]
fn switchover_needs_no_body() {
    let (stand, orders) = with_token();
    let asked = elector(orders, Ok(()));
    assert_eq!(stand.post_with("/switchover", "authorization: Bearer s3cret\r\n", "").status, 202);
    assert_eq!(asked.join().unwrap().0, Request::Switchover { to: None });
}

#[test]
fn pause_and_resume_are_handed_to_the_elector() {
    let (stand, orders) = with_token();
    let asked = elector(orders, Ok(()));
    let before_ms = clock::unix_us() / 1000;
    let answer = stand.post_with("/pause", BEARER, "{\"for\":\"1m30s\"}");
    assert_eq!((answer.status, answer.body.as_str()), (202, "{\"accepted\":\"pause\"}"));
    let Request::Pause { length, until_unix_ms } = asked.join().unwrap().0 else { panic!("no pause") };
    assert_eq!(length, Duration::from_secs(90));
    assert!((before_ms + 90_000..before_ms + 150_000).contains(&until_unix_ms), "{until_unix_ms}");

    let (stand, orders) = with_token();
    let asked = elector(orders, Ok(()));
    let answer = stand.post_with("/resume", BEARER, "{}");
    assert_eq!((answer.status, answer.body.as_str()), (202, "{\"accepted\":\"resume\"}"));
    assert_eq!(asked.join().unwrap().0, Request::Resume);
}

#[test]
fn refusal_of_the_elector_gets_its_status_and_keeps_its_sentence() {
    let kinds = [
        (RefusalKind::WrongMember, 409),
        (RefusalKind::Conflict, 409),
        (RefusalKind::NoCandidate, 412),
        (RefusalKind::Invalid, 400),
    ];
    for (kind, status) in kinds {
        let (stand, orders) = with_token();
        let asked = elector(orders, refusal(kind));
        stand.post_with("/switchover", BEARER, "{}").refuses(status, "the elector says no");
        asked.join().unwrap();
    }
}

#[test]
fn stale_fencing_token_is_409() {
    let (stand, orders) = with_token();
    stand.activate(in_a_while());
    stand.post_with("/switchover", BEARER, "{\"fencing_token\":6}").refuses(409, "active with 7");
    let asked = elector(orders, Ok(()));
    assert_eq!(stand.post_with("/switchover", BEARER, "{\"fencing_token\":7}").status, 202);
    asked.join().unwrap();
}

#[test]
fn elector_that_takes_nothing_now_is_503() {
    let (stand, mut orders) = with_token();
    let mut first = stand.client();
    first.say(&format!("POST /resume HTTP/1.1\r\nhost: x\r\n{BEARER}content-length: 2\r\n\r\n{{}}"));
    wait_until("the queue to be full", || !orders.is_empty());
    let second = stand.post_with("/resume", BEARER, "{}");
    second.refuses(503, "nothing was done, try again");
    // Nobody answers the first either.
    first.answer().refuses(503, "no answer within 2s");
    assert!(orders.try_recv().is_ok());
    drop(orders);
    stand.post_with("/resume", BEARER, "{}").refuses(503, "takes no request now");
}

#[test]
fn elector_that_ends_meanwhile_is_503() {
    let (stand, mut orders) = with_token();
    let ending = thread::spawn(move || drop(orders.blocking_recv()));
    stand.post_with("/resume", BEARER, "{}").refuses(503, "the elector has ended");
    ending.join().unwrap();
}

#[test]
fn token_file_is_read_anew_each_time() {
    let (stand, mut orders) = with_token();
    let path = stand._folder.path().join("token");
    let status = |header: &str| {
        stand.post_with("/switchover", &format!("{header}content-type: application/json\r\n"), "{").status
    };
    let (old, new) = ("authorization: Bearer s3cret\r\n", "authorization: Bearer another\r\n");
    // A body that is broken is looked at only after the token was right.
    assert_eq!((status(old), status(new)), (400, 401));
    std::fs::write(&path, "another").unwrap();
    assert_eq!((status(old), status(new)), (401, 400));
    std::fs::write(&path, "").unwrap();
    assert_eq!((status(old), status(new)), (401, 401));
    std::fs::remove_file(&path).unwrap();
    assert_eq!((status(old), status(new)), (401, 401));
    assert!(orders.try_recv().is_err(), "nothing of this reached the elector");
}

#[test]
fn many_requests_on_one_connection_are_answered_in_turn() {
    let (stand, _orders) = with_token();
    let mut client = stand.client();
    let body = "{\"x\":1}";
    for _ in 0..50 {
        assert_eq!(client.ask("GET /active HTTP/1.1\r\nhost: x\r\n\r\n").status, 503);
        let head = format!("POST /pause HTTP/1.1\r\nhost: x\r\n{BEARER}content-length: {}\r\n\r\n", body.len());
        client.ask(&format!("{head}{body}")).refuses(400, "unknown field");
    }
}
