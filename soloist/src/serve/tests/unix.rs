//! The same on a socket of the file system.

use super::*;
use crate::error::Code;

#[test]
fn same_user_needs_no_token() {
    let (stand, orders) = Plan { token: Some("s3cret"), ..Plan::unix() }.put_up();
    let asked = elector(orders, Ok(()));
    assert_eq!(stand.post("/switchover", "{}").status, 202);
    let own = std::process::id();
    let by = asked.join().unwrap().1;
    assert!(by.starts_with("uid ") && by.ends_with(&format!("pid {own} over HTTP")), "{by}");
}

#[test]
fn questions_are_answered_there_too() {
    let (stand, _orders) = Plan::unix().put_up();
    stand.activate(in_a_while());
    assert_eq!(stand.get("/active").status, 200);
    assert_eq!(stand.get("/status").json()["name"], NAME);
    assert_eq!(stand.get("/nowhere").status, 404);
}

#[test]
fn socket_is_removed_in_the_end() {
    let (mut stand, _orders) = Plan::unix().put_up();
    let path = stand.socket().to_owned();
    assert_eq!(stand.get("/active").status, 503);
    drop(stand.serving.take());
    assert!(!path.exists());
}

#[test]
fn socket_that_somebody_else_put_there_is_left_alone() {
    let (mut stand, _orders) = Plan::unix().put_up();
    let path = stand.socket().to_owned();
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(stand.serving.take());
    assert!(path.exists());
}

#[test]
fn live_socket_is_refused_and_a_stale_one_replaced() {
    let (mut stand, _orders) = Plan::unix().put_up();
    let path = stand.socket().to_owned();
    let http = Http { address: stand.address.clone(), token_file: None };
    let failure = bind(&http).unwrap_err();
    assert_eq!(failure.code, Code::Unavailable, "{failure}");
    assert_eq!(stand.get("/active").status, 503, "the one that serves is not disturbed");

    // What a member leaves that was killed.
    drop(stand.serving.take());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = bind(&http).unwrap();
    let (orders, _taken) = mpsc::channel(1);
    let serving =
        bound.start_within(Limits::of(8), stand.publisher.subscribe(), orders, Metrics::default(), LOCK, None).unwrap();
    stand.serving = Some(Box::pin(serving));
    assert_eq!(stand.get("/active").status, 503);
}
