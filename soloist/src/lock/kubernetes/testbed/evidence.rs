//! Evidence and Events on a real API server. No kubelet runs: the test writes what one would say.

use election::{Proof, Role};

use super::super::calls::Calls;
use super::super::container::Container;
use super::super::evidence::tests::container;
use super::super::recorder::Recorder;
use super::super::witness::Witness;
use super::*;
use crate::snapshot::{Health, Snapshot};

/// Long enough to believe that nothing more comes.
const A_WHILE: Duration = Duration::from_secs(2);

/// Who runs with exactly these rules.
async fn restricted(cluster: &Cluster, place: &ObjectName, rules: Value) -> (tempfile::TempDir, Access) {
    cluster.account(&place.name, rules).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), cluster.token(&place.name).await).unwrap();
    let access = Access { kubeconfig: Some(cluster.kubeconfig_for(folder.path())), ..Access::default() };
    (folder, access)
}

fn of_pods(verbs: &[&str]) -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": verbs})
}

/// A pod that no kubelet runs; as its container would record itself.
async fn pod(cluster: &Cluster, place: &ObjectName) -> Container {
    let name = &place.name;
    let body = json!({"metadata": {"name": name}, "spec": {"serviceAccountName": name, "nodeName": "nowhere",
        "automountServiceAccountToken": false, "containers": [{"name": "main", "image": "none"}]}});
    let pod = cluster.post("/api/v1/namespaces/default/pods", body).await;
    let pod_uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    Container { namespace: NAMESPACE.into(), pod: name.clone(), pod_uid, ..container() }
}

async fn say_state(cluster: &Cluster, container: &Container, state: Value) {
    let path = format!("/api/v1/namespaces/default/pods/{}/status", container.pod);
    let status = json!({"status": {"containerStatuses": [{"name": "main", "image": "none", "imageID": "none",
        "ready": false, "restartCount": 0, "containerID": container.id, "state": state}]}});
    cluster.ask(Method::PATCH, &path, "application/merge-patch+json", status).await;
}

async fn observer(access: Access, place: &ObjectName) -> KubernetesLock {
    let mut lock = KubernetesLock::open(access.clone(), place.clone(), PERIOD, Witnesses::OWN_CONTAINER).await.unwrap();
    lock.witness = Witness::of(None, &access, place, true);
    lock
}

/// For a while there is nothing to be read that is new; a watch that is late may have it looked for.
async fn nothing_is_told(observer: &KubernetesLock, since: Version, why: &str) {
    let looks = async {
        loop {
            observer.changed(since).await.unwrap();
            let look = observer.read().await.unwrap();
            assert_eq!((look.version, look.evidence), (since, Evidence::None), "{why}");
        }
    };
    assert!(tokio::time::timeout(A_WHILE, looks).await.is_err(), "{why}");
}

/// The Lease as the container in the pod holds it.
async fn hold(cluster: &Cluster, place: &ObjectName, container: &Container) {
    let record = held(1, 1);
    let named = Some((election::Activation(1), container.clone()));
    let lease = lease::encode(None, place, &record, named, "why", jiff::Timestamp::now()).unwrap();
    cluster.post(&place.collection(), lease).await;
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_kubelets_word_is_heard_at_once_with_watch_on_pods_alone() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    let rules = json!([rule(&["get", "watch", "update"], &[&place.name]), of_pods(&["watch"])]);
    let (_folder, access) = restricted(&cluster, &place, rules).await;
    let container = pod(&cluster, &place).await;
    hold(&cluster, &place, &container).await;
    let id = container.id.clone();
    say_state(&cluster, &container, json!({"running": {"startedAt": "2026-11-21T07:32:29Z"}})).await;

    let observer = observer(access, &place).await;
    let seen = observer.read().await.unwrap();
    assert_eq!(seen.evidence, Evidence::None);
    nothing_is_told(&observer, seen.version, "it runs").await;
    let made_up = json!({"terminated": {"containerID": id, "exitCode": 137, "reason": "ContainerStatusUnknown"}});
    say_state(&cluster, &container, made_up).await;
    nothing_is_told(&observer, seen.version, "nobody knows").await;
    let (said, woken) = tokio::join!(
        async {
            let end = json!({"terminated": {"containerID": id, "exitCode": 137, "reason": "Error"}});
            say_state(&cluster, &container, end).await;
            Instant::now()
        },
        async {
            changed(&observer, seen.version).await;
            Instant::now()
        }
    );
    assert!(woken.saturating_duration_since(said) < NOTICE_MAX, "{:?}", woken - said);
    let woken = observer.read().await.unwrap();
    assert_eq!((woken.version, woken.evidence), (seen.version, Evidence::Gone(Proof::Terminated)));
    written(observer.write(woken.version, &held(2, 1), "why").await);
    assert_eq!(logged.text(), "", "no complaint");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_pod_deleted_by_force_is_no_word() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    cluster.account(&place.name, json!([])).await;
    let container = pod(&cluster, &place).await;
    hold(&cluster, &place, &container).await;
    say_state(&cluster, &container, json!({"running": {"startedAt": "2026-11-21T07:32:29Z"}})).await;
    let access = Access { kubeconfig: Some(cluster.kubeconfig.clone()), ..Access::default() };
    let observer = observer(access, &place).await;
    let seen = observer.read().await.unwrap();
    cluster.delete(&format!("/api/v1/namespaces/default/pods/{}?gracePeriodSeconds=0", container.pod)).await;
    nothing_is_told(&observer, seen.version, "nobody knows").await;
    assert_eq!(observer.read().await.unwrap().evidence, Evidence::None);
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn who_must_not_watch_pods_says_so_once_and_goes_on() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    let rules = json!([rule(&["get", "watch", "update"], &[&place.name])]);
    let (_folder, access) = restricted(&cluster, &place, rules).await;
    let container = pod(&cluster, &place).await;
    hold(&cluster, &place, &container).await;
    let observer = observer(access, &place).await;
    let seen = observer.read().await.unwrap();
    let told = async {
        while !logged.text().contains("must not be watched") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.expect("it is said");
    observer.witness.forget();
    assert_eq!(observer.read().await.unwrap().evidence, Evidence::None);
    let _ = tokio::time::timeout(A_WHILE, observer.changed(seen.version)).await;
    let text = logged.text();
    assert_eq!(text.matches("must not be watched").count(), 1, "{text}");
    assert!(text.contains("missing: verb watch on pods") && text.contains("resources: [pods]"), "{text}");
    written(observer.write(seen.version, &held(2, 1), "why").await);
}

/// What a member goes through, as its elector publishes it.
fn snapshots() -> tokio::sync::watch::Sender<Snapshot> {
    let health = Health { healthy: true, why: String::new() };
    tokio::sync::watch::Sender::new(Snapshot::new("app", "a", Duration::from_secs(15), health, 0))
}

async fn tell(snapshots: &tokio::sync::watch::Sender<Snapshot>, role: Role, reason: String) {
    snapshots.send_modify(|snapshot| {
        snapshot.role = role;
        snapshot.reason = reason;
    });
}

async fn events(cluster: &Cluster, field: &str, value: &str) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.{field}%3D{value}");
    let request = request(Method::GET, path, Vec::new()).unwrap();
    let (_, _, body) = cluster.session.call(request).await.unwrap();
    let list: Value = serde_json::from_slice(&body).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// Of a member that has seen the Lease.
async fn recorder(access: Access, place: &ObjectName, pod: Option<Value>) -> Recorder {
    let calls = Calls::open(access, place.clone()).await.unwrap();
    assert!(calls.get().await.is_ok());
    Recorder::new(&calls, "a".into(), pod)
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn events_appear_on_lease_and_pod_and_are_bounded() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    let events_rule = json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create"]});
    let rules = json!([rule(&["get", "watch", "update"], &[&place.name]), events_rule]);
    let (_folder, access) = restricted(&cluster, &place, rules).await;
    let container = pod(&cluster, &place).await;
    hold(&cluster, &place, &container).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": container.pod, "namespace": NAMESPACE,
        "uid": container.pod_uid});
    let sender = snapshots();
    let recorder = recorder(access, &place, Some(pod)).await;
    let task = tokio::spawn(recorder.run(sender.subscribe()));

    let messages = async |field: &str, value: &str| -> Vec<String> {
        let message = |event: &Value| event["message"].as_str().unwrap().to_owned();
        events(&cluster, field, value).await.iter().map(message).collect()
    };
    let written = async |count: usize| {
        while messages("uid", &container.pod_uid).await.len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for count in 0..40 {
        tell(&sender, Role::Active, format!("reason {count}")).await;
        // One after the other, as far as they are written at all.
        tokio::time::timeout(SOON, written((count + 1).min(10))).await.expect("a burst is written");
    }
    tokio::time::sleep(A_WHILE).await;
    let lease = cluster.ask(Method::GET, &place.path(), "application/json", json!({})).await;
    let on_the_lease = messages("uid", lease["metadata"]["uid"].as_str().unwrap()).await;
    assert_eq!(on_the_lease.len(), 10, "{on_the_lease:?}");
    assert!(on_the_lease.contains(&"a: reason 0".to_owned()), "{on_the_lease:?}");
    assert_eq!(messages("uid", &container.pod_uid).await.len(), 10);
    assert_eq!(logged.text(), "", "no complaint");
    task.abort();
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_role_without_events_costs_one_line() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    let rules = json!([rule(&["get", "watch", "update"], &[&place.name])]);
    let (_folder, access) = restricted(&cluster, &place, rules).await;
    let sender = snapshots();
    let container = pod(&cluster, &place).await;
    hold(&cluster, &place, &container).await;
    let recorder = recorder(access, &place, None).await;
    let task = tokio::spawn(recorder.run(sender.subscribe()));
    for count in 0..20 {
        tell(&sender, Role::Active, format!("reason {count}")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(A_WHILE).await;
    let text = logged.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("missing: verb create on events") && text.contains("resources: [events]"), "{text}");
    assert!(!task.is_finished(), "the member stays");
    task.abort();
}
