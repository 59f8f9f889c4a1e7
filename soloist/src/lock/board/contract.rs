//! What every board has to do, run against each of them.

use std::time::Duration;

use super::{ANNOUNCEMENT_LIFE, Answer, Asked, Asking, Board, Changes, REQUEST_LIFE, Refused, Wish};
use crate::clock::unix_us;
use crate::snapshot::Announcement;

/// Longer than any board needs to show a change.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to believe that nothing happens.
const A_WHILE: Duration = Duration::from_millis(500);

fn now_ms() -> u64 {
    unix_us() / 1000
}

fn ms_ago(ago: Duration) -> u64 {
    now_ms() - u64::try_from(ago.as_millis()).unwrap()
}

/// The announcement of member `name` with nonce `nonce`, of just now.
pub fn member(name: &str, nonce: u128) -> Announcement {
    Announcement {
        name: name.into(),
        nonce: election::Nonce(nonce).to_string(),
        role: "standby".into(),
        healthy: true,
        why: None,
        leaving: false,
        version: "1.2.3".into(),
        since_unix_ms: now_ms(),
        at_unix_ms: now_ms(),
    }
}

/// A request of just now.
pub fn asked(id: &str, wish: Wish) -> Asked {
    let activation = election::Activation(7).to_string();
    Asked { id: id.into(), wish, activation, by: "somebody".into(), at_unix_ms: now_ms() }
}

/// Everything. `pair` makes two clients of one new board.
pub async fn suite<B: Board>(pair: impl AsyncFn() -> (B, B)) {
    members_come_change_and_go(&pair).await;
    old_announcements_are_none(&pair).await;
    one_request_at_a_time(&pair).await;
    an_old_request_makes_room(&pair).await;
    of_many_who_ask_at_once_one_is_up(&pair).await;
    changes_are_heard(&pair).await;
}

async fn names<B: Board>(board: &B) -> Vec<String> {
    board.look().await.unwrap().members.into_iter().map(|member| member.name).collect()
}

async fn members_come_change_and_go<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    assert!(names(&first).await.is_empty());
    let mut b = member("b", 1);
    first.announce(&b).await.unwrap();
    second.announce(&member("a", 2)).await.unwrap();
    assert_eq!(names(&first).await, ["a", "b"]);
    (b.healthy, b.why) = (false, Some("it is tired".into()));
    first.announce(&b).await.unwrap();
    assert!(second.look().await.unwrap().members.contains(&b));
    // The same name with another nonce is another member.
    second.announce(&member("b", 3)).await.unwrap();
    assert_eq!(names(&first).await, ["a", "b", "b"]);
    first.withdraw(&b.nonce).await.unwrap();
    first.withdraw(&b.nonce).await.unwrap();
    assert_eq!(names(&second).await, ["a", "b"]);
    assert!(!second.look().await.unwrap().members.contains(&b));
}

async fn old_announcements_are_none<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    let mut old = member("old", 1);
    old.at_unix_ms = ms_ago(ANNOUNCEMENT_LIFE);
    first.announce(&old).await.unwrap();
    let mut ahead = member("ahead", 2);
    ahead.at_unix_ms = now_ms() + 10 * 60 * 1000;
    first.announce(&ahead).await.unwrap();
    let mut late = member("late", 3);
    late.at_unix_ms = ms_ago(ANNOUNCEMENT_LIFE - Duration::from_secs(30));
    first.announce(&late).await.unwrap();
    assert_eq!(names(&second).await, ["late"]);
}

async fn one_request_at_a_time<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    assert_eq!(first.asked().await.unwrap(), None);
    let one = asked("one", Wish::Switchover { to: Some("b".into()) });
    let two = asked("two", Wish::Pause { for_ms: 5 });
    assert_eq!(first.ask(&one).await.unwrap(), Asking::Up);
    assert_eq!(second.ask(&two).await.unwrap(), Asking::Busy(one.clone()));
    assert_eq!(second.asked().await.unwrap(), Some(one.clone()));

    // An answer to something else takes nothing down.
    let other = Answer { id: "none".into(), by: "b".into(), refusal: None };
    second.answer(&other).await.unwrap();
    assert_eq!(first.asked().await.unwrap(), Some(one));
    assert_eq!(first.answered("one").await.unwrap(), None);

    let no = Refused { kind: "conflict".into(), why: "not now".into() };
    let answer = Answer { id: "one".into(), by: "a".into(), refusal: Some(no) };
    second.answer(&answer).await.unwrap();
    assert_eq!(first.asked().await.unwrap(), None);
    for _ in 0..2 {
        assert_eq!(first.answered("one").await.unwrap(), Some(answer.clone()), "looking does not take it down");
    }
    assert_eq!(second.ask(&two).await.unwrap(), Asking::Up);
}

async fn an_old_request_makes_room<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    let mut old = asked("old", Wish::Resume);
    old.at_unix_ms = ms_ago(REQUEST_LIFE);
    assert_eq!(first.ask(&old).await.unwrap(), Asking::Up);
    assert_eq!(second.asked().await.unwrap(), None, "who asked has given up");
    let new = asked("new", Wish::Fenced);
    assert_eq!(second.ask(&new).await.unwrap(), Asking::Up);
    assert_eq!(first.asked().await.unwrap(), Some(new));
}

async fn of_many_who_ask_at_once_one_is_up<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    let (one, two) = (asked("one", Wish::Resume), asked("two", Wish::Resume));
    let answers = tokio::join!(first.ask(&one), second.ask(&two));
    let answers = [answers.0.unwrap(), answers.1.unwrap()];
    let up = first.asked().await.unwrap().unwrap();
    let ups = answers.iter().filter(|asking| **asking == Asking::Up).count();
    let busy = answers.iter().filter(|asking| **asking == Asking::Busy(up.clone())).count();
    assert_eq!((ups, busy), (1, 1), "{answers:?}");
}

/// Calls until `wanted` is among the changes.
async fn hears(board: &impl Board, wanted: impl Fn(Changes) -> bool) {
    let wait = async { while !wanted(board.changed().await.unwrap()) {} };
    tokio::time::timeout(SOON, wait).await.expect("it is heard in time");
}

async fn changes_are_heard<B: Board>(pair: &impl AsyncFn() -> (B, B)) {
    let (first, second) = pair().await;
    assert_eq!(second.changed().await.unwrap(), Changes::ALL, "nothing was heard before");
    first.announce(&member("a", 1)).await.unwrap();
    // The first one makes the place for announcements, which need not be heard.
    second.announce(&member("b", 2)).await.unwrap();
    hears(&second, |changes| changes.members).await;
    while tokio::time::timeout(A_WHILE, second.changed()).await.is_ok() {}

    let dropped = tokio::time::timeout(Duration::ZERO, second.changed()).await;
    assert!(dropped.is_err(), "nothing has changed");
    first.announce(&member("a", 1)).await.unwrap();
    hears(&second, |changes| changes.members && !changes.lock && !changes.request).await;
    first.ask(&asked("one", Wish::Resume)).await.unwrap();
    hears(&second, |changes| changes.request && !changes.members).await;
    first.answer(&Answer { id: "one".into(), by: "a".into(), refusal: None }).await.unwrap();
    hears(&second, |changes| changes.answer).await;
    first.withdraw(&member("a", 1).nonce).await.unwrap();
    hears(&second, |changes| changes.members).await;
}
