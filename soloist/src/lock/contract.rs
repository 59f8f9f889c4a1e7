//! What every lock has to do, run against each of them.

use std::time::Duration;

use election::{
    Activation, Attempt, Claim, Evidence, Holder, Member, Nonce, Proof, Record, Release, Seen, Version, Write,
};

use super::Lock;

/// Longer than any lock needs to show a change.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to believe that nothing happens.
const A_WHILE: Duration = Duration::from_millis(50);

/// A record of activation `activation`, written by its send number `attempt`.
pub fn held(activation: u128, attempt: u64) -> Record {
    let claim = Claim::Held(Holder {
        member: Member { name: format!("member-{activation}"), nonce: Nonce(activation) },
        activation: Activation(activation),
        attempt: Attempt { count: attempt, random: 7 },
        token: None,
    });
    Record { claim, lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None }
}

/// The release of activation `activation`.
pub fn released(activation: u128) -> Record {
    let claim = Claim::Released(Release {
        member: Member { name: format!("member-{activation}"), nonce: Nonce(activation) },
        activation: Activation(activation),
        attempt: Attempt { count: 99, random: 7 },
        proof: Proof::NoChildLeft,
        successor: Some("next".into()),
    });
    Record { claim, lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None }
}

/// The version that a successful write answered.
pub fn written(write: Write) -> Version {
    match write {
        Write::Written(version) => version,
        other => panic!("not written: {other:?}"),
    }
}

/// Reads until nobody holds the platform's own lock any more.
pub async fn free(lock: &impl Lock) -> Seen {
    let wait = async {
        loop {
            let seen = lock.read().await.unwrap();
            if seen.evidence != Evidence::Busy {
                return seen;
            }
            lock.changed(seen.version).await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it is free in time")
}

/// The record without its token, which some stores fill in.
fn without_token(record: Option<Record>) -> Option<Record> {
    record.map(|mut record| {
        if let Claim::Held(holder) = &mut record.claim {
            holder.token = None;
        }
        record
    })
}

/// Everything. `pair` makes two clients of one new lock; the first may acquire it at once.
pub async fn suite<L: Lock>(pair: impl AsyncFn() -> (L, L)) {
    life_of_an_activation(&pair).await;
    only_the_newest_version_counts(&pair).await;
    watchers_wake(&pair).await;
    dropped_calls_do_no_harm(&pair).await;
}

async fn life_of_an_activation<L: Lock>(pair: &impl AsyncFn() -> (L, L)) {
    let (first, second) = pair().await;
    let seen = first.read().await.unwrap();
    assert_eq!((seen.version, seen.record), (Version::ABSENT, None));

    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    assert_ne!(acquired, Version::ABSENT);
    let seen = second.read().await.unwrap();
    assert_eq!((seen.version, without_token(seen.record)), (acquired, Some(held(1, 1))));

    let renewed = written(first.write(acquired, &held(1, 2), "why").await);
    assert!(renewed.number > acquired.number);
    assert!(!renewed.rewinds(acquired));
    let ended = written(first.write(renewed, &released(1), "why").await);
    assert!(ended.number > renewed.number);

    // Who has released queues again, and nothing says who wins.
    first.step_back(SOON);
    let seen = free(&second).await;
    assert_eq!((seen.version, seen.record), (ended, Some(released(1))));
    let next = written(second.write(ended, &held(2, 1), "why").await);
    assert!(next.number > ended.number);
    assert_eq!(without_token(first.read().await.unwrap().record), Some(held(2, 1)));
}

async fn only_the_newest_version_counts<L: Lock>(pair: &impl AsyncFn() -> (L, L)) {
    let (first, second) = pair().await;
    let later = Version { incarnation: 0, number: 5 };
    assert_eq!(first.write(later, &held(1, 1), "why").await, Write::Gone);
    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let renewed = written(first.write(acquired, &held(1, 2), "why").await);
    for stale in [Version::ABSENT, acquired, Version { number: renewed.number + 1, ..renewed }] {
        assert_eq!(first.write(stale, &held(1, 3), "why").await, Write::Conflict);
        assert_eq!(first.write(stale, &released(1), "why").await, Write::Conflict);
        assert_eq!(second.write(stale, &held(2, 1), "why").await, Write::Conflict);
    }
    let seen = second.read().await.unwrap();
    assert_eq!((seen.version, without_token(seen.record)), (renewed, Some(held(1, 2))));
}

async fn watchers_wake<L: Lock>(pair: &impl AsyncFn() -> (L, L)) {
    let (first, second) = pair().await;
    let absent = second.read().await.unwrap().version;
    let wake = |since| async move { tokio::time::timeout(SOON, second.changed(since)).await.expect("wakes").unwrap() };
    wakes_on(wake, first, absent).await;
}

async fn wakes_on<L: Lock, F: Future<Output = ()>>(wake: impl FnOnce(Version) -> F, first: L, absent: Version) {
    let writer = async {
        tokio::time::sleep(A_WHILE).await;
        let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
        (first, acquired)
    };
    let (_, _) = tokio::join!(wake(absent), writer);
}

async fn dropped_calls_do_no_harm<L: Lock>(pair: &impl AsyncFn() -> (L, L)) {
    let (first, second) = pair().await;
    let absent = second.read().await.unwrap().version;
    let dropped = tokio::time::timeout(Duration::ZERO, first.write(Version::ABSENT, &held(1, 1), "why")).await;
    // It may have landed, now or later; or it never will.
    let mut acquired = dropped.ok();
    let acquired = loop {
        match acquired {
            Some(Write::Written(version)) => break version,
            Some(other) => assert_eq!(other, Write::Conflict),
            None => {}
        }
        let seen = first.read().await.unwrap();
        acquired = Some(match seen.record {
            Some(_) => Write::Written(seen.version),
            None => first.write(Version::ABSENT, &held(1, 1), "why").await,
        });
    };
    let _ = tokio::time::timeout(Duration::ZERO, second.changed(absent)).await;
    tokio::time::timeout(SOON, second.changed(absent)).await.expect("nothing was lost").unwrap();
    assert_eq!(second.read().await.unwrap().version, acquired);
    let quiet = tokio::time::timeout(A_WHILE, second.changed(acquired)).await;
    assert!(quiet.is_err(), "nothing has changed since the look");
    written(first.write(acquired, &held(1, 2), "why").await);
    tokio::time::timeout(SOON, second.changed(acquired)).await.expect("wakes").unwrap();
}
