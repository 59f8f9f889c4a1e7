//! Against a server whose watch says what each test wants.

use std::time::Duration;

use election::{Instant, Token};
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::health::without_check;
use crate::lock::board::contract::member;
use crate::lock::kubernetes::tests::{Reply, SOON, Server};
use crate::snapshot::{Announcement, Publisher, Tenure};

/// Long enough to believe that nothing happens.
const A_WHILE: Duration = Duration::from_millis(200);

fn event(object: Value) -> Value {
    json!({"type": "MODIFIED", "object": object})
}

fn pod(uid: &str, deleted: bool) -> Value {
    let timestamp = deleted.then_some("2026-01-01T00:00:00Z");
    event(json!({"metadata": {"uid": uid, "deletionTimestamp": timestamp}}))
}

fn node(unschedulable: bool) -> Reply {
    Reply::ShortWatch(vec![event(json!({"spec": {"unschedulable": unschedulable}}))])
}

/// A member "own" that is active beside `others`.
fn publisher(others: &[(&str, bool)]) -> Publisher {
    let mut snapshot = Snapshot::new("app", "own", Duration::from_secs(15), without_check(), 0);
    snapshot.role = Role::Active;
    let (activation, far) = (Activation(7), Instant::default() + Duration::from_secs(1000));
    snapshot.tenure = Some(Tenure { activation, token: Token(1), stop_at: far, kill_at: far });
    snapshot.members = others.iter().map(|&(name, leaving)| Announcement { leaving, ..member(name, 1) }).collect();
    Publisher::new(snapshot)
}

struct Run {
    orders: mpsc::Receiver<Order>,
    _task: tokio::task::JoinHandle<anyhow::Result<()>>,
    _server: Server,
}

impl Run {
    fn start(server: Server, publisher: &Publisher, node: Option<&str>) -> Self {
        let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
        let place =
            Place { namespace: "prod".into(), pod: "own".into(), uid: Some("u".into()), node: node.map(str::to_owned) };
        let (sender, orders) = mpsc::channel(4);
        let task = tokio::spawn(run(access, place, publisher.subscribe(), sender));
        Self { orders, _task: task, _server: server }
    }

    async fn next(&mut self) -> Order {
        timeout(SOON, self.orders.recv()).await.expect("an order").expect("the task lives")
    }

    async fn is_quiet(&mut self) -> bool {
        timeout(A_WHILE, self.orders.recv()).await.is_err()
    }
}

#[tokio::test]
async fn a_pod_that_is_deleted_asks_for_a_handover_once_somebody_stays() {
    let publisher = publisher(&[("leaves", true)]);
    let events = vec![pod("u", false), pod("another", true), pod("u", true)];
    let server = Server::on_pods(vec![Reply::Watch(events)]).await;
    let mut run = Run::start(server, &publisher, None);
    assert!(matches!(run.next().await, Order::Leaving(Some(why)) if why.contains("deleted")));
    assert!(run.is_quiet().await, "nobody stays");
    publisher.update(|snapshot| snapshot.members.push(member("stays", 2)));
    let Order::Request(petition) = run.next().await else { panic!("no request") };
    assert_eq!(petition.request, Request::Switchover { to: None });
    petition.answer_to.send(Ok(())).unwrap();
    publisher.update(|snapshot| snapshot.reason = "something else".into());
    assert!(run.is_quiet().await, "once for an activation");
}

#[tokio::test]
async fn another_pod_of_the_name_says_nothing() {
    let publisher = publisher(&[("stays", false)]);
    let server = Server::on_pods(vec![Reply::Watch(vec![pod("another", true), pod("u", false)])]).await;
    assert!(Run::start(server, &publisher, None).is_quiet().await);
}

#[tokio::test]
async fn a_node_that_is_emptied_and_not_any_more_is_told() {
    let publisher = publisher(&[("stays", false)]);
    let server = Server::watched(vec![node(false), node(true), node(true), node(false)], Vec::new()).await;
    let mut run = Run::start(server, &publisher, Some("node1"));
    assert!(matches!(run.next().await, Order::Leaving(Some(why)) if why.contains("node")));
    assert!(matches!(run.next().await, Order::Leaving(None)));
}

#[test]
fn only_taints_that_send_pods_away_count() {
    for (spec, expected) in [
        (json!({}), false),
        (json!({"unschedulable": true}), true),
        (json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]}), false),
        (json!({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]}), true),
    ] {
        assert_eq!(is_being_emptied(&json!({"spec": spec})), expected, "{spec}");
    }
}
