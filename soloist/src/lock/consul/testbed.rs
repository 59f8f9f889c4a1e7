//! The lock on a real Consul. Each test uses keys of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::entry::LOCK_FLAGS;
use super::*;
use crate::lock::board::contract as board_contract;
use crate::lock::contract::{self, held, released, written};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);
/// A change notice that takes longer is no change notice.
const NOTICE_MAX: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(4);
const PERIOD: Duration = Duration::from_millis(500);

/// How Consul is reached, by whoever `CONSUL_HTTP_TOKEN` is.
fn access() -> Access {
    assert!(std::env::var_os("TESTBED_DIR").is_some(), "no real Consul is there: run this by make consul");
    let token = std::env::var("TESTBED_CONSUL_ROOT_TOKEN").ok();
    let variable = |name: &str| match name {
        "CONSUL_HTTP_TOKEN" => token.clone(),
        _ => std::env::var(name).ok(),
    };
    Access::new(&Server::default(), &variable).unwrap()
}

/// Keys that nobody has used in this run.
fn keys() -> Keys {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    Keys::of(&format!("lock-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// A lock with its session.
fn lock_of(access: Access, keys: &Keys) -> ConsulLock {
    let lock = ConsulLock::new(access, keys.clone(), "member".to_owned(), LEASE, PERIOD);
    tokio::spawn(lock.session_keeper().run(std::future::pending()));
    lock
}

fn lock(keys: &Keys) -> ConsulLock {
    lock_of(access(), keys)
}

fn operator(keys: &Keys) -> Calls {
    Calls::new(access(), keys.clone())
}

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("in time")
}

async fn entry(keys: &Keys) -> Entry {
    operator(keys).get().await.unwrap().1.expect("the key is there")
}

/// A session as `consul lock` makes one.
async fn foreign_session(keys: &Keys) -> String {
    operator(keys).create_session(&json!({"Name": "foreign", "TTL": "10s", "LockDelay": "0s"})).await.unwrap()
}

/// The session that takes the place of `old`.
async fn another_session(lock: &ConsulLock, old: &str) -> String {
    soon(async {
        loop {
            match lock.session.id().await.unwrap() {
                id if id != old => return id,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// Takes the key as `consul lock` does.
async fn take(keys: &Keys, session: &str) {
    operator(keys).transact(&[Operation::lock(&keys.lock(), "", session)]).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn keeps_the_contract() {
    contract::suite(async || {
        let keys = keys();
        (lock(&keys), lock(&keys))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn its_board_keeps_the_contract() {
    board_contract::suite(async || {
        let keys = keys();
        (ConsulBoard::new(access(), keys.clone()), ConsulBoard::new(access(), keys))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn the_key_looks_as_consul_lock_left_it() {
    let keys = keys();
    let lock = lock(&keys);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let shown = entry(&keys).await;
    assert_eq!((shown.flags, shown.version()), (LOCK_FLAGS, acquired));
    assert_eq!(shown.holder(), Some(lock.session.id().await.unwrap().as_str()));
    written(lock.write(acquired, &released(1), "why").await);
    let shown = entry(&keys).await;
    assert_eq!((shown.flags, shown.holder()), (LOCK_FLAGS, None));
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_dead_members_key_is_taken_although_its_session_lives() {
    let keys = keys();
    let (first, second) = (lock(&keys), lock(&keys));
    written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let seen = second.read().await.unwrap();
    let next = written(second.write(seen.version, &held(2, 1), "why").await);
    assert_eq!(entry(&keys).await.record(), held(2, 1));
    assert_eq!(first.write(seen.version, &held(1, 2), "why").await, Write::Conflict, "the old one is out");
    assert!(next.number > seen.version.number);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_session_that_an_operator_destroys_ends_the_activation_and_nothing_else_is_lost() {
    let keys = keys();
    let lock = lock(&keys);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    operator(&keys).destroy_session(&lock.session.id().await.unwrap()).await.unwrap();
    assert!(matches!(lock.write(acquired, &held(1, 2), "why").await, Write::Lost(_)));
    let seen = lock.read().await.unwrap();
    assert_eq!((seen.record.clone(), seen.evidence), (Some(held(1, 1)), Evidence::None));
    assert!(matches!(lock.write(seen.version, &held(1, 3), "why").await, Write::Lost(_)));
    let ended = written(lock.write(seen.version, &released(1), "why").await);
    // Consul keeps the key from everybody for a while now.
    let other = self::lock(&keys);
    assert!(matches!(other.write(ended, &held(2, 1), "why").await, Write::Throttled(_)));
    assert_eq!(entry(&keys).await.record(), released(1));
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_standby_whose_session_was_lost_gets_another_one() {
    let keys = keys();
    let lock = lock(&keys);
    let lost = lock.session.id().await.unwrap();
    operator(&keys).destroy_session(&lost).await.unwrap();
    assert!(matches!(lock.write(Version::ABSENT, &held(1, 1), "why").await, Write::Throttled(_)));
    another_session(&lock, &lost).await;
    written(lock.write(Version::ABSENT, &held(1, 2), "why").await);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_session_that_cannot_be_renewed_is_replaced_under_the_lock() {
    let keys = keys();
    let lock = lock(&keys);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let first = lock.session.id().await.unwrap();
    lock.session.is_gone(&first);
    let second = another_session(&lock, &first).await;
    let renewed = written(lock.write(acquired, &held(1, 2), "why").await);
    let shown = entry(&keys).await;
    assert_eq!((shown.version(), shown.holder()), (renewed, Some(second.as_str())));
    operator(&keys).destroy_session(&first).await.unwrap();
    written(lock.write(renewed, &held(1, 3), "why").await);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn who_holds_the_key_by_consul_lock_keeps_us_out_until_the_session_ends() {
    let keys = keys();
    let session = foreign_session(&keys).await;
    take(&keys, &session).await;
    let lock = lock(&keys);
    let seen = lock.read().await.unwrap();
    assert!(matches!(seen.record, Some(Record { claim: Claim::Foreign(_), .. })));
    assert_eq!(seen.evidence, Evidence::Busy);
    assert_eq!(lock.write(seen.version, &held(1, 1), "why").await, Write::Conflict);
    let ends = async { operator(&keys).destroy_session(&session).await.unwrap() };
    let (woken, ()) = soon(async { tokio::join!(lock.changed(seen.version), ends) }).await;
    woken.unwrap();
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::None);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn consul_lock_is_kept_out_while_we_hold_and_gets_the_key_after_our_release() {
    let keys = keys();
    let (lock, session) = (lock(&keys), foreign_session(&keys).await);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let theirs = [Operation::lock(&keys.lock(), "", &session)];
    assert_eq!(operator(&keys).transact(&theirs).await, Err(Failed::Conflict));
    written(lock.write(acquired, &released(1), "why").await);
    take(&keys, &session).await;
    assert!(matches!(lock.read().await.unwrap().record, Some(Record { claim: Claim::Foreign(_), .. })));
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_key_of_another_use_is_left_alone() {
    let keys = keys();
    operator(&keys).transact(&[Operation::set(&keys.lock(), "precious")]).await.unwrap();
    let lock = lock(&keys);
    let Err(LockError::Denied(why)) = lock.read().await else { panic!("it was read") };
    assert!(why.contains(&keys.lock()), "{why}");
    let version = entry(&keys).await.version();
    assert!(matches!(lock.write(version, &held(1, 1), "why").await, Write::Denied(_)));
    assert_eq!(entry(&keys).await.bytes(), b"precious");
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_release_is_told_at_once_and_with_everything_that_the_next_write_needs() {
    let keys = keys();
    let (first, second) = (lock(&keys), lock(&keys));
    second.session.id().await.unwrap();
    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let seen = second.read().await.unwrap();
    let quiet = tokio::time::timeout(NOTICE_MAX, second.changed(seen.version)).await;
    assert!(quiet.is_err(), "nothing has changed");
    let release = async { (written(first.write(acquired, &released(1), "why").await), Instant::now()) };
    let (woken, (ended, at)) = soon(async { tokio::join!(second.changed(seen.version), release) }).await;
    woken.unwrap();
    assert!(at.elapsed() < NOTICE_MAX);
    assert!(second.told.get().is_some());
    assert_eq!(second.read().await.unwrap().record, Some(released(1)));
    written(second.write(ended, &held(2, 1), "why").await);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn deletion_by_hand_is_told_and_found_by_the_holder() {
    let keys = keys();
    let (first, second) = (lock(&keys), lock(&keys));
    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let seen = second.read().await.unwrap();
    let delete = async {
        operator(&keys).transact(&[Operation::delete(&keys.lock(), acquired.number)]).await.unwrap();
    };
    let (woken, ()) = soon(async { tokio::join!(second.changed(seen.version), delete) }).await;
    woken.unwrap();
    assert_eq!(second.read().await.unwrap().record, None);
    assert_eq!(first.write(acquired, &held(1, 2), "why").await, Write::Gone);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn the_session_ends_with_its_member_unless_it_holds_the_key() {
    for releases in [true, false] {
        let keys = keys();
        let lock = ConsulLock::new(access(), keys.clone(), "member".to_owned(), LEASE, PERIOD);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let kept = tokio::spawn(lock.session_keeper().run(async move { drop(ended.await) }));
        let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
        let id = lock.session.id().await.unwrap();
        if releases {
            written(lock.write(acquired, &released(1), "why").await);
        }
        end.send(()).unwrap();
        soon(kept).await.unwrap();
        let lives = operator(&keys).renew_session(&id).await.is_ok();
        assert_eq!(lives, !releases);
    }
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_standby_asks_one_question_and_the_active_one_none_about_the_lock() {
    let keys = keys();
    let (first, second) = (lock(&keys), lock(&keys));
    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let seen = second.read().await.unwrap();
    for lock in [&first, &second] {
        assert!(tokio::time::timeout(NOTICE_MAX, lock.changed(seen.version)).await.is_err());
    }
    assert_eq!(*first.hub.scope_now(), Scope::Posts);
    assert_eq!(*second.hub.scope_now(), Scope::All);
    written(first.write(acquired, &released(1), "why").await);
    assert_eq!(*first.hub.scope_now(), Scope::All);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn a_write_that_nobody_knows_the_end_of_is_told_by_the_query() {
    let keys = keys();
    let lock = lock(&keys);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    assert!(tokio::time::timeout(NOTICE_MAX, lock.changed(acquired)).await.is_err(), "nothing has changed");
    let waits = lock.changed(acquired);
    let lost = async {
        // It lands, and its writer has given up: as if it were written by another one with the same session.
        let before = entry(&keys).await;
        let id = lock.session.id().await.unwrap();
        let text = entry::text(Some(&before), &held(1, 2), Some(&id), "why", 1).unwrap();
        operator(&keys).transact(&[Operation::lock(&keys.lock(), &text, &id)]).await.unwrap();
        drop(Trial { lock: &lock, is_known: false });
    };
    let (woken, ()) = soon(async { tokio::join!(waits, lost) }).await;
    woken.unwrap();
    assert_eq!(lock.read().await.unwrap().record, Some(held(1, 2)));
    assert_eq!(*lock.hub.scope_now(), Scope::All);
    written(lock.write(entry(&keys).await.version(), &held(1, 3), "why").await);
    assert_eq!(*lock.hub.scope_now(), Scope::Posts);
}

#[tokio::test]
#[ignore = "needs a real Consul: make consul"]
async fn the_session_is_bound_to_no_check_of_the_node() {
    let keys = keys();
    let lock = lock(&keys);
    let id = lock.session.id().await.unwrap();
    let shown: Vec<Value> = operator(&keys).show_session(&id).await;
    assert_eq!(shown[0]["NodeChecks"], json!([]));
    assert_eq!(shown[0]["TTL"], "10000ms");
    assert_eq!(shown[0]["LockDelay"], 15_000_000_000_u64);
    assert_eq!(shown[0]["Behavior"], "release");
}
