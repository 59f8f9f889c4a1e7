//! The notice board on a real API server, alone and beside a lock that renews.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;

use tokio::sync::mpsc;

use super::*;
use crate::attend::attend;
use crate::clock::unix_us;
use crate::lock::board::contract::{self as board_contract, asked, member};
use crate::lock::board::{Answer, Asking, Board, Wish};
use crate::snapshot::{Health, Publisher, Snapshot};

impl Cluster {
    /// A board without a lock.
    pub(super) async fn board(&self, place: &ObjectName) -> LeaseBoard {
        board_as(&self.kubeconfig, place).await
    }

    /// A Lease that somebody holds.
    async fn held_place(&self) -> (ObjectName, KubernetesLock, Version) {
        let place = self.place();
        let lock = self.lock(&place).await;
        let version = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
        (place, lock, version)
    }

    /// The kubeconfig of an account that may do what `verbs` say to this one Lease.
    async fn member_of(&self, place: &ObjectName, verbs: &[&str], folder: &Path) -> PathBuf {
        self.account(&place.name, json!([rule(verbs, &[&place.name])])).await;
        std::fs::write(folder.join("token"), self.token(&place.name).await).unwrap();
        self.kubeconfig_for(folder)
    }
}

async fn board_as(kubeconfig: &Path, place: &ObjectName) -> LeaseBoard {
    let access = Access { kubeconfig: Some(kubeconfig.to_owned()), ..Access::default() };
    LeaseBoard::open(access, place.clone()).await.unwrap()
}

async fn names(board: &LeaseBoard) -> Vec<String> {
    board.look().await.unwrap().members.into_iter().map(|member| member.name).collect()
}

/// Looks at each change, as an elector does, for ever.
async fn stand_by(lock: &KubernetesLock) {
    loop {
        let version = lock.read().await.map_or(Version::ABSENT, |seen| seen.version);
        lock.changed(version).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn keeps_the_contract_of_boards() {
    let cluster = Cluster::connect().await;
    board_contract::suite(async || {
        let (place, _, _) = cluster.held_place().await;
        (cluster.board(&place).await, cluster.board(&place).await)
    })
    .await;
}

/// One renewal as the elector does it: a conflict that shows the own attempt is written again at once.
async fn renew(lock: &KubernetesLock, version: &mut Version, attempt: u64) -> usize {
    for conflicts in 0..20 {
        match lock.write(*version, &held(1, attempt), "why").await {
            Write::Written(next) => {
                *version = next;
                return conflicts;
            }
            Write::Conflict => {
                let seen = lock.read().await.unwrap();
                assert_eq!(seen.record, Some(held(1, attempt - 1)), "nobody else wrote the record");
                *version = seen.version;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("a renewal that lost every time");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_holder_renews_whatever_five_members_and_those_who_ask_write() {
    const RENEWALS: u64 = 150;
    const REQUESTS: usize = 10;
    /// A tenth of what an attempt may take with the smallest lease.
    const PACE: Duration = Duration::from_millis(45);
    let cluster = Cluster::connect().await;
    let (place, holder, mut version) = cluster.held_place().await;
    let worst = RefCell::new((Duration::ZERO, 0, 0));
    let renewals = async {
        for attempt in 2..2 + RENEWALS {
            let began = Instant::now();
            let conflicts = renew(&holder, &mut version, attempt).await;
            let took = began.elapsed();
            let (longest, most, sum) = *worst.borrow();
            worst.replace((longest.max(took), most.max(conflicts), sum + conflicts));
            tokio::time::sleep(PACE.saturating_sub(took)).await;
        }
    };
    let mut boards = Vec::new();
    for _ in 0..5 {
        boards.push(cluster.board(&place).await);
    }
    let announced = RefCell::new(0);
    let announcing = boards.iter().enumerate().map(|(number, board)| {
        let announced = &announced;
        async move {
            loop {
                // One that loses every try says so, and the next one is soon.
                let own = member(&format!("m{number}"), u128::try_from(number).unwrap() + 1);
                if board.announce(&own).await.is_ok() {
                    *announced.borrow_mut() += 1;
                }
                tokio::time::sleep(PACE).await;
            }
        }
    });
    let (operator, active) = (cluster.board(&place).await, cluster.board(&place).await);
    let asking = async {
        for number in 0..REQUESTS {
            let request = asked(&format!("request-{number}"), Wish::Resume);
            while operator.ask(&request).await.ok() != Some(Asking::Up) {}
            assert_eq!(active.asked().await.unwrap(), Some(request.clone()));
            let answer = Answer { id: request.id.clone(), by: "a".into(), refusal: None };
            while active.answer(&answer).await.is_err() {}
            assert_eq!(operator.answered(&request.id).await.unwrap(), Some(answer));
        }
    };
    let busy = async {
        tokio::join!(renewals, asking);
    };
    tokio::select! {
        () = busy => {}
        _ = futures_of(announcing) => {}
    }
    let (longest, most, sum) = worst.into_inner();
    eprintln!(
        "{RENEWALS} renewals amid {} announcements: longest {longest:?}, {sum} conflicts, at most {most} in a row",
        announced.borrow()
    );
    // How long that takes depends on the machine; how often a renewal loses does not.
    assert!(most <= 10, "{most} conflicts in a row");
    let look = boards[0].look().await.unwrap();
    assert_eq!(look.seen.record, Some(held(1, RENEWALS + 1)));
    let names: BTreeSet<String> = look.members.into_iter().map(|member| member.name).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["m0", "m1", "m2", "m3", "m4"]);
}

/// All of them at once, in one task.
async fn futures_of(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        for future in &mut futures {
            let _ = future.as_mut().poll(context);
        }
        std::task::Poll::<()>::Pending
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_standby_is_announced_by_one_write_and_asks_for_nothing() {
    let cluster = Cluster::connect().await;
    let (place, holder, mut version) = cluster.held_place().await;
    let standby = cluster.lock(&place).await;
    standby.read().await.unwrap();
    let health = Health { healthy: true, why: String::new() };
    let publisher = Publisher::new(Snapshot::new("g", "b", Duration::from_secs(15), health, unix_us()));
    let (orders, mut heard) = mpsc::channel(16);
    let board = Arc::new(standby.board());
    let nonce = election::Nonce(7);
    let before = (requests(&cluster, "GET").await, requests(&cluster, "PUT").await);
    let attending = attend(Arc::clone(&board), nonce, publisher.subscribe(), orders);
    let mut renewed = 0;
    let life = async {
        // It knows itself when it was announced.
        heard.recv().await.unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        let mut attempt = 2;
        while Instant::now() < end {
            renewed += 1 + 2 * renew(&holder, &mut version, attempt).await;
            attempt += 1;
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::select! {
        () = life => {}
        _ = attending => panic!("it ended"),
        () = stand_by(&standby) => {}
    }
    let puts = requests(&cluster, "PUT").await - before.1;
    let gets = requests(&cluster, "GET").await - before.0;
    eprintln!("in 5 s: {gets} GET and {puts} PUT, of which the holder made {renewed} requests");
    // The server renews a Lease of its own each ten seconds.
    assert!(puts <= f64::from(u32::try_from(renewed).unwrap()) + 3.0, "{puts}");
    assert!(gets <= 5.0, "{gets}");
    assert_eq!(names(&board).await, ["b"]);
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_documented_role_will_do_and_without_watch_the_looks_of_the_lock_tell() {
    let cluster = Cluster::connect().await;
    for verbs in [vec!["get", "watch", "update"], vec!["get", "update"]] {
        let (place, _, _) = cluster.held_place().await;
        let folder = tempfile::tempdir().unwrap();
        let config = cluster.member_of(&place, &verbs, folder.path()).await;
        let standby = lock_as(&config, &place).await;
        let board = standby.board();
        let operator = cluster.board(&place).await;
        let request = asked("one", Wish::Resume);
        let course = async {
            board.announce(&member("b", 1)).await.unwrap();
            assert_eq!(operator.ask(&request).await.unwrap(), Asking::Up);
            while board.asked().await.unwrap().is_none() {
                board.changed().await.unwrap();
            }
            board.answer(&Answer { id: "one".into(), by: "b".into(), refusal: None }).await.unwrap();
            assert!(operator.answered("one").await.unwrap().is_some());
            board.withdraw(&member("b", 1).nonce).await.unwrap();
            assert_eq!(names(&operator).await, Vec::<String>::new());
        };
        let course = tokio::time::timeout(SOON, course);
        tokio::select! {
            result = course => result.unwrap_or_else(|_| panic!("{verbs:?}: too late")),
            () = stand_by(&standby) => {}
        }
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn whoever_may_only_look_is_told_the_rule_that_is_missing() {
    let cluster = Cluster::connect().await;
    let (place, _, _) = cluster.held_place().await;
    let folder = tempfile::tempdir().unwrap();
    let config = cluster.member_of(&place, &["get"], folder.path()).await;
    let board = board_as(&config, &place).await;
    assert!(board.look().await.unwrap().seen.record.is_some());
    match board.ask(&asked("one", Wish::Resume)).await {
        Err(LockError::Denied(why)) => assert!(why.contains("missing: verb update on leases"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_mark_of_a_manifest_is_not_spent_by_an_announcement() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let manifest = json!({"metadata": {"name": place.name, "annotations": {lease::INITIAL: "true"}}});
    cluster.post(&place.collection(), manifest).await;
    let board = cluster.board(&place).await;
    board.announce(&member("a", 1)).await.unwrap_err();
    let lock = cluster.lock(&place).await;
    let seen = lock.read().await.unwrap();
    assert!(matches!(seen.record.unwrap().claim, Claim::Released(_)), "free at first sight");
    let version = written(lock.write(seen.version, &held(1, 1), "why").await);
    board.announce(&member("a", 1)).await.unwrap();
    assert_eq!(lock.write(version, &held(1, 2), "why").await, Write::Conflict);
    let seen = lock.read().await.unwrap();
    assert_eq!(seen.record, Some(held(1, 1)), "the record and its digest are as they were");
    written(lock.write(seen.version, &held(1, 2), "why").await);
    assert_eq!(names(&board).await, ["a"], "a renewal keeps what is beside the record");
}
