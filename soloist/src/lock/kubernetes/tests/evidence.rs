//! Evidence as the lock shows it to the machine.

use election::Proof;

use super::super::container::Container;
use super::super::evidence::tests::{container, ended_pod};
use super::*;
use crate::lock::contract::released;

/// A container of a pod that no other test uses, so that its instance lock is its own.
fn container_of(pod: u32) -> Container {
    let pod_uid = format!("{:08x}-{pod:04x}-437f-9c2b-930ff4c84159", std::process::id());
    Container { pod_uid, id: None, ..container() }
}

fn next(run: &Container) -> Container {
    Container { start_ticks: run.start_ticks + 200, ..run.clone() }
}

/// A member in `container`.
async fn lock_in(server: &Server, container: Container, asks_kubelet: bool) -> KubernetesLock {
    let mut lock = server.lock().await;
    let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
    lock.witness = Witness::of(Some(container), &access, lock.place(), asks_kubelet);
    lock
}

/// The Lease that a member of `container` holds, at this version.
fn lease_of(container: &Container, activation: u128, number: u64) -> Value {
    let place = ObjectName::lease("prod", "app");
    let record = held(activation, 1);
    let named = Some((election::Activation(activation), container.clone()));
    let mut lease = lease::encode(None, &place, &record, named, "why", jiff::Timestamp::UNIX_EPOCH).unwrap();
    lease["metadata"]["uid"] = "u".into();
    lease["metadata"]["resourceVersion"] = number.to_string().into();
    lease
}

fn pod(container: &Container) -> Value {
    let mut pod = ended_pod();
    pod["metadata"]["uid"] = container.pod_uid.clone().into();
    pod
}

fn pod_event(kind: &str, pod: Value) -> Value {
    json!({"type": kind, "object": pod})
}

fn requests_for(server: &Server, part: &str) -> usize {
    server.requests().iter().filter(|request| request.line.contains(part)).count()
}

async fn evidence(lock: &KubernetesLock) -> Evidence {
    lock.read().await.unwrap().evidence
}

#[tokio::test]
async fn the_next_run_of_the_holders_container_has_proof_once_the_last_process_is_gone() {
    let run = container_of(1);
    let server = Server::start(vec![Reply::Store]).await;
    let holder = lock_in(&server, run.clone(), false).await;
    written(write(&holder, Version::ABSENT, 1).await);
    let mut lease = server.requests()[0].body.clone();
    lease["metadata"]["uid"] = "u".into();
    lease["metadata"]["resourceVersion"] = "2".into();

    let server = Server::start((0..4).map(|_| say(200, lease.clone())).collect()).await;
    let restarted = lock_in(&server, next(&run), false).await;
    assert_eq!(evidence(&restarted).await, Evidence::None, "the first process is there");
    let guard = holder.descriptor().unwrap();
    drop(holder);
    assert_eq!(evidence(&restarted).await, Evidence::None, "the guard is there");
    drop(guard);
    assert_eq!(evidence(&restarted).await, Evidence::Gone(Proof::Restarted));
    let elsewhere = lock_in(&server, container_of(2), false).await;
    assert_eq!(evidence(&elsewhere).await, Evidence::None);
}

#[tokio::test]
async fn evidence_on_one_activation_is_none_on_the_next() {
    let run = container_of(3);
    let mut lease = lease_of(&Container { id: None, holds_lock: true, ..run.clone() }, 1, 2);
    let place = ObjectName::lease("prod", "app");
    // A member that knows nothing of containers keeps what it does not know.
    let text = lease["metadata"]["annotations"][lease::RECORD].as_str().unwrap();
    let mut document = crate::lock::codec::decode(text.as_bytes());
    document.record = held(2, 1);
    let kept = document.backend.clone();
    lease = lease::encode(Some(&lease), &place, &held(2, 1), None, "why", jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert!(lease::backend(&lease).is_empty(), "this version does not");

    let own = next(&run);
    let server = Server::start(vec![]).await;
    let lock = lock_in(&server, own, false).await;
    assert_eq!(lock.witness.judge(&held(1, 1), &kept), Evidence::Gone(Proof::Restarted));
    assert_eq!(lock.witness.judge(&held(2, 1), &kept), Evidence::None);
    assert_eq!(lock.witness.judge(&released(1), &kept), Evidence::None);
}

#[tokio::test]
async fn an_edited_container_is_no_evidence() {
    let run = container_of(4);
    let mut lease = lease_of(&Container { holds_lock: true, ..run.clone() }, 1, 2);
    let text = lease["metadata"]["annotations"][lease::RECORD].as_str().unwrap();
    let edited = text.replace("\"start_ticks\":100", "\"start_ticks\":10");
    assert_ne!(edited, text);
    lease["metadata"]["annotations"][lease::RECORD] = edited.into();
    let server = Server::start(vec![say(200, lease)]).await;
    let lock = lock_in(&server, next(&run), false).await;
    let seen = lock.read().await.unwrap();
    assert!(matches!(seen.record.unwrap().claim, Claim::Foreign(_)));
    assert_eq!(seen.evidence, Evidence::None);
}

#[tokio::test]
async fn the_kubelets_word_wakes_at_once_and_nothing_else_is_asked() {
    let holder = Container { id: container().id, ..container_of(5) };
    let mut running = pod(&holder);
    running["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": "2026-11-21T07:32:29Z"}});
    let server = Server::with(Replies {
        pods: vec![Reply::Watch(vec![pod_event("ADDED", running), pod_event("MODIFIED", pod(&holder))])].into(),
        watches: vec![Reply::Watch(vec![])].into(),
        others: vec![say(200, lease_of(&holder, 1, 2))].into(),
    })
    .await;
    // Elsewhere than in a pod, pods can be watched as well.
    let mut lock = server.lock().await;
    let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
    lock.witness = Witness::of(None, &access, lock.place(), true);
    let seen = lock.read().await.unwrap();
    assert_eq!(seen.evidence, Evidence::None);
    changed(&lock, seen.version).await;
    let woken = lock.read().await.unwrap();
    assert_eq!((woken.version, woken.evidence), (seen.version, Evidence::Gone(Proof::Terminated)));
    assert_eq!(woken.record, Some(held(1, 1)));
    assert_eq!(requests_for(&server, "/leases/app"), 1, "the Lease was looked at once");
    assert_eq!(requests_for(&server, "/pods?"), 1);
    assert!(stays_quiet(&lock, seen.version).await, "one word wakes once");
}

#[tokio::test]
async fn a_pod_that_is_deleted_under_its_holder_is_no_word() {
    let holder = Container { id: container().id, ..container_of(6) };
    let mut running = pod(&holder);
    running["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": "2026-11-21T07:32:29Z"}});
    let events = vec![pod_event("ADDED", running.clone()), pod_event("DELETED", running)];
    let server = Server::with(Replies {
        pods: vec![Reply::Watch(events)].into(),
        watches: vec![Reply::Watch(vec![])].into(),
        others: vec![say(200, lease_of(&holder, 1, 2)), say(200, lease_of(&holder, 1, 2))].into(),
    })
    .await;
    let lock = lock_in(&server, container_of(7), true).await;
    let seen = lock.read().await.unwrap();
    assert!(stays_quiet(&lock, seen.version).await);
    assert_eq!(evidence(&lock).await, Evidence::None);
}

#[tokio::test]
async fn the_holder_names_the_run_once_the_kubelet_shows_it() {
    let mut own = container_of(8);
    own.start_ticks = crate::workload::process::ProcessId::own().unwrap().start_ticks;
    let mut shown = pod(&own);
    let now = jiff::Timestamp::now().to_string();
    shown["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": now}});
    let server = Server::with(Replies {
        pods: vec![Reply::Watch(vec![pod_event("ADDED", shown)])].into(),
        others: vec![Reply::Store, Reply::Store].into(),
        ..Replies::default()
    })
    .await;
    let lock = lock_in(&server, own, true).await;
    let named = async {
        while lock.witness.named(&held(1, 1).claim).unwrap().1.id.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, named).await.expect("the kubelet's status is read");
    written(write(&lock, Version::ABSENT, 1).await);
    let stored = server.requests().into_iter().find(|request| request.line.starts_with("POST")).unwrap().body;
    assert_eq!(lease::backend(&stored)["container"]["id"], container().id.unwrap());
}

#[tokio::test]
async fn a_member_that_must_not_watch_pods_goes_on_without() {
    let holder = Container { id: container().id, ..container_of(9) };
    let forbidden = json!({"kind": "Status", "message": "User \"u\" cannot watch resource \"pods\""});
    let server = Server::with(Replies {
        pods: vec![say(403, forbidden)].into(),
        watches: vec![Reply::Watch(vec![event("MODIFIED", 5)])].into(),
        others: vec![say(200, lease_of(&holder, 1, 2))].into(),
    })
    .await;
    let lock = lock_in(&server, Container { is_pid_1: false, ..container_of(10) }, true).await;
    let seen = lock.read().await.unwrap();
    changed(&lock, seen.version).await;
    assert_eq!(lock.read().await.unwrap().version, at(5), "the Lease is watched as ever");
    assert_eq!(requests_for(&server, "/pods?"), 1);
}

#[tokio::test]
async fn who_does_not_ask_the_kubelet_watches_no_pod() {
    let holder = Container { id: container().id, ..container_of(11) };
    let server = Server::with(Replies {
        watches: vec![Reply::Watch(vec![])].into(),
        others: vec![say(200, lease_of(&holder, 1, 2))].into(),
        ..Replies::default()
    })
    .await;
    let lock = lock_in(&server, container_of(12), false).await;
    let seen = lock.read().await.unwrap();
    assert!(stays_quiet(&lock, seen.version).await);
    assert_eq!(requests_for(&server, "/pods"), 0);
}
