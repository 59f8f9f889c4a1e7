use election::{Record, RefusalKind, Request, Token, Version, Write};

use super::*;
use crate::lock::Lock;
use crate::lock::board::contract::asked;
use crate::lock::board::{Asking, Wish};
use crate::lock::contract::{held, written};
use crate::lock::memory::{MemoryBoard, MemoryStore};
use crate::snapshot::{Health, Publisher, Tenure};

const SOON: Duration = Duration::from_secs(30);

/// One attended member, and both ends of what it hears and says.
struct Scene {
    store: MemoryStore,
    board: MemoryBoard,
    publisher: Publisher,
    orders: mpsc::Receiver<Order>,
    task: tokio::task::JoinHandle<()>,
}

fn healthy() -> Health {
    Health { healthy: true, why: String::new() }
}

impl Scene {
    fn new(name: &str, nonce: u128) -> Self {
        Self::on(MemoryStore::new(), name, nonce)
    }

    fn on(store: MemoryStore, name: &str, nonce: u128) -> Self {
        let first = Snapshot::new("g", name, Duration::from_secs(15), healthy(), unix_us());
        let publisher = Publisher::new(first);
        let (sender, orders) = mpsc::channel(4);
        let task = tokio::spawn(attend(Arc::new(store.board()), Nonce(nonce), publisher.subscribe(), sender));
        Self { board: store.board(), store, publisher, orders, task }
    }

    async fn order(&mut self) -> Order {
        timeout(SOON, self.orders.recv()).await.expect("an order comes").expect("it attends")
    }

    /// The names in the next order about members.
    async fn members(&mut self) -> Vec<String> {
        match self.order().await {
            Order::Members(members) => members.into_iter().map(|member| member.name).collect(),
            other => panic!("not members: {other:?}"),
        }
    }

    async fn petition(&mut self) -> Petition {
        match self.order().await {
            Order::Request(petition) => petition,
            other => panic!("no request: {other:?}"),
        }
    }

    fn activate(&self, activation: Activation) {
        let at = election::Instant::default();
        self.publisher.update(|snapshot| {
            snapshot.role = Role::Active;
            snapshot.tenure = Some(Tenure { activation, token: Token(1), stop_at: at, kill_at: at });
        });
    }

    /// Waits until what is on the board of this member is as `wanted`.
    async fn shows(&self, wanted: impl Fn(&Announcement) -> bool) {
        let wait = async {
            while !self.board.look().await.unwrap().members.iter().any(&wanted) {
                self.board.changed().await.unwrap();
            }
        };
        timeout(SOON, wait).await.expect("it is announced");
    }

    async fn answer(&self, id: &str) -> Answer {
        let wait = async {
            loop {
                if let Some(answer) = self.board.answered(id).await.unwrap() {
                    return answer;
                }
                self.board.changed().await.unwrap();
            }
        };
        timeout(SOON, wait).await.expect("it is answered")
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_is_announced_at_once_and_its_changes_soon() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    let start = Instant::now();
    scene.publisher.update(|snapshot| snapshot.health = Health { healthy: false, why: "it is\ntired".into() });
    scene.shows(|member| !member.healthy && member.why.as_deref() == Some("it is tired")).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    drop(scene.publisher);
    timeout(SOON, scene.task).await.expect("it ends with the elector").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restless_member_is_announced_seldom() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    let start = Instant::now();
    let mut heard = Vec::new();
    let mut healthy = true;
    while start.elapsed() < Duration::from_secs(60) {
        healthy = !healthy;
        scene.publisher.update(|snapshot| snapshot.health = Health { healthy, why: "restless".into() });
        if let Ok(Some(Order::Members(_))) = timeout(Duration::from_millis(150), scene.orders.recv()).await {
            heard.push(start.elapsed());
        }
    }
    assert!((2..=9).contains(&heard.len()), "{heard:?}");
    assert!(heard[3..].windows(2).all(|pair| pair[1] - pair[0] >= CHANGE_PACE - SETTLE), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn renewals_and_other_members_cost_no_announcement() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    let other = scene.store.board();
    let at = |scene: &Scene| scene.store.board();
    let own = |members: Vec<Announcement>| members.into_iter().find(|member| member.name == "a").unwrap();
    let first = own(at(&scene).look().await.unwrap().members);
    other.announce(&Announcement { name: "b".into(), nonce: Nonce(2).to_string(), ..first.clone() }).await.unwrap();
    assert_eq!(scene.members().await, ["a", "b"]);
    scene.publisher.update(|snapshot| snapshot.store_answered = Some(election::Instant::from_nanos(1)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(own(at(&scene).look().await.unwrap().members), first);
    assert!(scene.orders.try_recv().is_err(), "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn the_active_member_answers_what_is_asked_of_its_activation() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    // Asked before it knows that it is the active one.
    assert_eq!(scene.board.ask(&asked("one", Wish::Resume)).await.unwrap(), Asking::Up);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.orders.try_recv().is_err(), "it is a standby");
    scene.activate(Activation(7));
    let petition = scene.petition().await;
    assert_eq!((&petition.request, petition.by.as_str()), (&Request::Resume, "somebody"));
    petition.answer_to.send(Ok(())).unwrap();
    assert_eq!(scene.answer("one").await, Answer { id: "one".into(), by: "a".into(), refusal: None });

    let other = Asked { activation: Activation(8).to_string(), ..asked("two", Wish::Resume) };
    scene.board.ask(&other).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Only its own role has changed meanwhile.
    while let Ok(order) = scene.orders.try_recv() {
        assert!(matches!(order, Order::Members(_)), "another activation was meant: {order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_with_its_kind() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    scene.activate(Activation(7));
    assert_eq!(scene.members().await, ["a"]);
    scene.board.ask(&asked("one", Wish::Switchover { to: Some("x".into()) })).await.unwrap();
    let refusal = Refusal { kind: RefusalKind::NoCandidate, why: "no x".into() };
    scene.petition().await.answer_to.send(Err(refusal)).unwrap();
    let refusal = scene.answer("one").await.refusal.unwrap();
    assert_eq!((refusal.kind.as_str(), refusal.why.as_str()), ("no-candidate", "no x"));
}

#[tokio::test(start_paused = true)]
async fn a_standby_refuses_fencing_only_where_the_lock_names_another() {
    let record: Record = held(7, 1);
    let store = MemoryStore::new();
    let version = written(store.lock().write(Version::ABSENT, &record, "").await);
    let mut scene = Scene::on(store.clone(), "a", 1);
    assert_eq!(scene.members().await, ["a"]);
    let refuse = |petition: Petition| {
        let refusal = Refusal { kind: RefusalKind::Conflict, why: "no".into() };
        petition.answer_to.send(Err(refusal)).unwrap();
    };
    scene.board.ask(&asked("one", Wish::Fenced)).await.unwrap();
    refuse(scene.petition().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.board.answered("one").await.unwrap(), None, "another standby may grant it");

    assert!(matches!(store.lock().write(version, &held(8, 1), "").await, Write::Written(_)));
    scene.board.answer(&Answer { id: "one".into(), by: "test".into(), refusal: None }).await.unwrap();
    scene.board.ask(&asked("two", Wish::Fenced)).await.unwrap();
    refuse(scene.petition().await);
    assert!(scene.answer("two").await.refusal.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_was_active_waits_anew() {
    let mut scene = Scene::new("a", 1);
    assert_eq!(scene.members().await, ["a"]);
    let since = scene.board.look().await.unwrap().members[0].since_unix_ms;
    scene.activate(Activation(7));
    scene.shows(|member| member.role == "active" && member.since_unix_ms == since).await;
    let past = unix_us() / 1000;
    // The wall clock is not paused.
    while unix_us() / 1000 == past {
        std::thread::yield_now();
    }
    scene.publisher.update(|snapshot| snapshot.role = Role::Standby);
    scene.shows(|member| member.role == "standby" && member.since_unix_ms > since).await;
}

/// A board that is out of order.
struct Broken;

impl Board for Broken {
    async fn announce(&self, _: &Announcement) -> Result<(), LockError> {
        std::future::pending().await
    }
    async fn withdraw(&self, _: &str) -> Result<(), LockError> {
        std::future::pending().await
    }
    async fn look(&self) -> Result<crate::lock::board::Look, LockError> {
        Err(LockError::Denied("no".into()))
    }
    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        Err(LockError::Denied("no".into()))
    }
    async fn answer(&self, _: &Answer) -> Result<(), LockError> {
        Err(LockError::Denied("no".into()))
    }
    async fn ask(&self, _: &Asked) -> Result<Asking, LockError> {
        Err(LockError::Denied("no".into()))
    }
    async fn answered(&self, _: &str) -> Result<Option<Answer>, LockError> {
        Err(LockError::Denied("no".into()))
    }
    async fn changed(&self) -> Result<Changes, LockError> {
        Err(LockError::Denied("no".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_board_out_of_order_ends_nothing_and_holds_nobody_up() {
    let first = Snapshot::new("g", "a", Duration::from_secs(15), healthy(), unix_us());
    let publisher = Publisher::new(first);
    let (sender, mut orders) = mpsc::channel(4);
    let task = tokio::spawn(attend(Arc::new(Broken), Nonce(1), publisher.subscribe(), sender));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!task.is_finished());
    assert!(orders.try_recv().is_err());
    let start = Instant::now();
    drop(publisher);
    timeout(SOON, task).await.expect("it ends with the elector").unwrap();
    assert!(start.elapsed() <= CALL_LIMIT + WITHDRAW_LIMIT + SETTLE, "{:?}", start.elapsed());
}
