use std::time::Instant;

use serde_json::json;

use super::*;
use crate::lock::Lock;
use crate::lock::board::Wish;
use crate::lock::board::contract::{asked, member};
use crate::lock::contract::{held, released, written};
use crate::lock::kubernetes::tests::{Reply, SOON, Server, say, status};
use crate::lock::kubernetes::{KubernetesLock, ObjectName};

/// A Lease as a manifest makes it.
fn marked(number: u64) -> Value {
    json!({"kind": "Lease", "metadata": {"name": "app", "uid": "u", "resourceVersion": number.to_string(),
        "annotations": {lease::INITIAL: "true"}}})
}

/// What the server would have stored.
fn stored(record: &election::Record, number: u64) -> Value {
    let place = ObjectName::lease("prod", "app");
    let mut lease = lease::encode(None, &place, record, None, "why", jiff::Timestamp::now()).unwrap();
    lease["metadata"]["uid"] = "u".into();
    lease["metadata"]["resourceVersion"] = number.to_string().into();
    lease
}

async fn alone(server: &Server) -> LeaseBoard {
    let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
    LeaseBoard::open(access, ObjectName::lease("", "app")).await.unwrap()
}

/// A lock that holds the Lease, and the board beside it.
async fn holding(server: &Server) -> (KubernetesLock, LeaseBoard) {
    let lock = server.lock().await;
    written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let board = lock.board();
    (lock, board)
}

fn verbs(server: &Server) -> Vec<String> {
    server.requests().iter().map(|request| request.line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_member_writes_once_and_asks_for_nothing() {
    let server = Server::start(vec![Reply::Store, Reply::Store]).await;
    let (lock, board) = holding(&server).await;
    board.announce(&member("a", 1)).await.unwrap();
    let look = board.look().await.unwrap();
    assert_eq!((look.members.len(), look.seen.record, board.asked().await.unwrap()), (1, Some(held(1, 1)), None));
    assert!(look.written_unix_us.is_some());
    assert_eq!(verbs(&server), ["POST", "PUT"]);
    let (first, second) = (&server.requests()[0], &server.requests()[1]);
    assert_eq!(first.connection, second.connection, "which keeps the connection of the lock in use");
    assert_eq!(
        (&second.body["metadata"]["uid"], &second.body["metadata"]["resourceVersion"]),
        (&"u".into(), &"1".into())
    );
    assert_eq!(second.body["spec"], first.body["spec"]);
    let ours = |body: &Value, name: &str| body["metadata"]["annotations"][name].clone();
    for name in [lease::RECORD, lease::DIGEST] {
        assert_eq!(ours(&second.body, name), ours(&first.body, name));
    }
    drop(lock);
}

#[tokio::test]
async fn an_announcement_is_never_in_the_way_of_a_renewal_nor_behind_one() {
    let server = Server::start(vec![Reply::Store, Reply::Silent, Reply::Store]).await;
    let (lock, board) = holding(&server).await;
    let version = lock.last_lease().unwrap().0;
    let (renewal, own) = (held(1, 2), member("a", 1));
    tokio::select! {
        biased;
        written = lock.write(version, &renewal, "why") => panic!("the server is silent: {written:?}"),
        announced = async {
            while verbs(&server) != ["POST", "PUT"] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            board.announce(&own).await
        } => announced.unwrap(),
    }
    let connections: Vec<usize> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[tokio::test]
async fn an_announcement_waits_for_a_record() {
    // The mark of a manifest would mean nothing any more beside an announcement.
    let server = Server::start(vec![say(200, marked(1)), Reply::Store, Reply::Store]).await;
    let lock = server.lock().await;
    let board = lock.board();
    let version = lock.read().await.unwrap().version;
    let own = member("a", 1);
    let (announced, ()) = tokio::join!(board.announce(&own), async {
        tokio::task::yield_now().await;
        assert_eq!(verbs(&server), ["GET"]);
        written(lock.write(version, &held(1, 1), "why").await);
    });
    announced.unwrap();
    assert_eq!(verbs(&server), ["GET", "PUT", "PUT"]);
}

#[tokio::test]
async fn nothing_is_put_up_where_there_is_no_lease_or_only_its_mark() {
    for (reply, expected) in [(say(404, status("NotFound")), "does not exist yet"), (say(200, marked(3)), "no record")]
    {
        let server = Server::start(vec![reply.clone(), reply.clone(), reply.clone(), reply]).await;
        let board = alone(&server).await;
        let why = board.announce(&member("a", 1)).await.unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
        board.ask(&asked("one", Wish::Resume)).await.unwrap_err();
        board.withdraw(&member("a", 1).nonce).await.unwrap();
        assert_eq!(board.look().await.unwrap().members, []);
        assert_eq!(verbs(&server), ["GET"; 4], "{expected}");
    }
}

#[tokio::test]
async fn a_member_whose_lock_finds_no_lease_says_so_in_time() {
    let server = Server::start(vec![say(404, status("NotFound"))]).await;
    let lock = server.lock().await;
    lock.read().await.unwrap();
    let start = Instant::now();
    let why = lock.board().announce(&member("a", 1)).await.unwrap_err().to_string();
    assert!(why.contains("does not exist yet"), "{why}");
    assert!(start.elapsed() >= LEASE_WAIT && start.elapsed() < SOON);
    assert_eq!(verbs(&server), ["GET"]);
}

#[tokio::test]
async fn who_is_too_late_looks_and_tries_again_a_few_times() {
    let conflict = || say(409, status("Conflict"));
    let now = || say(200, stored(&held(1, 2), 9));
    let server = Server::start(vec![Reply::Store, conflict(), now(), Reply::Store]).await;
    let (_lock, board) = holding(&server).await;
    board.announce(&member("a", 1)).await.unwrap();
    assert_eq!(verbs(&server), ["POST", "PUT", "GET", "PUT"]);
    assert_eq!(server.requests()[3].body["metadata"]["resourceVersion"], "9");

    let replies = std::iter::once(Reply::Store).chain((0..TRIES + 1).flat_map(|_| [conflict(), now()]));
    let server = Server::start(replies.collect()).await;
    let (_lock, board) = holding(&server).await;
    assert!(board.announce(&member("a", 1)).await.is_err());
    assert_eq!(verbs(&server).iter().filter(|verb| *verb == "PUT").count(), usize::try_from(TRIES).unwrap());
}

#[tokio::test]
async fn what_may_not_be_written_names_the_rule() {
    let body = json!({"kind": "Status", "message": "User \"u\" cannot update resource \"leases\""});
    let server = Server::start(vec![say(200, stored(&held(1, 1), 5)), say(403, body)]).await;
    let board = alone(&server).await;
    match board.ask(&asked("one", Wish::Resume)).await {
        Err(LockError::Denied(why)) => assert!(why.contains("verb update") && why.contains("resourceNames: [app]")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_leaves_does_not_hold_up_who_follows() {
    let others_turn = say(200, stored(&held(2, 1), 9));
    let server = Server::start(vec![Reply::Store, Reply::Store, others_turn]).await;
    let (lock, board) = holding(&server).await;
    let version = board.look().await.unwrap().seen.version;
    written(lock.write(version, &released(1), "why").await);
    drop(lock);
    let start = Instant::now();
    board.withdraw(&member("a", 1).nonce).await.unwrap();
    assert!(start.elapsed() >= GIVE_WAY);
    assert_eq!(verbs(&server).last().map(String::as_str), Some("GET"), "it looked, and nothing was left to withdraw");
}

#[tokio::test]
async fn what_the_lock_hears_the_board_hears() {
    let server = Server::start(vec![Reply::Store, Reply::Store, Reply::Store]).await;
    let (lock, board) = holding(&server).await;
    assert_eq!(board.changed().await.unwrap(), Changes::ALL);
    let version = board.look().await.unwrap().seen.version;
    written(lock.write(version, &held(1, 2), "why").await);
    assert_eq!(board.changed().await.unwrap(), Changes { lock: true, ..Changes::default() });
    board.announce(&member("a", 1)).await.unwrap();
    assert_eq!(board.changed().await.unwrap(), Changes { members: true, ..Changes::default() });
    assert!(timeout(Duration::ZERO, board.changed()).await.is_err());
}
