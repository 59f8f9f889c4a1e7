//! The same lock in the annotation of Endpoints.

use super::*;
use crate::lock::board;
use crate::lock::kubernetes::object::LEADER;

impl Cluster {
    /// Endpoints that nobody has used in this run.
    fn endpoints(&self) -> ObjectName {
        ObjectName { kind: Kind::Endpoints, ..self.place() }
    }

    /// What client-go would read.
    async fn leader(&self, place: &ObjectName) -> Value {
        let object = self.ask(Method::GET, &place.path(), "application/json", json!({})).await;
        object["metadata"]["annotations"][LEADER].as_str().expect("the annotation").parse().expect("JSON")
    }

    /// Merges `change` into that.
    async fn set_leader(&self, place: &ObjectName, change: Value) {
        let mut leader = self.leader(place).await;
        for (field, value) in change.as_object().expect("an object") {
            leader[field] = value.clone();
        }
        self.patch(place, json!({"metadata": {"annotations": {LEADER: leader.to_string()}}})).await;
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn keeps_the_contract_of_locks_and_boards() {
    let cluster = Cluster::connect().await;
    contract::suite(async || {
        let place = cluster.endpoints();
        (cluster.lock(&place).await, cluster.lock(&place).await)
    })
    .await;
    board::contract::suite(async || {
        let place = cluster.endpoints();
        written(cluster.lock(&place).await.write(Version::ABSENT, &held(1, 1), "why").await);
        (cluster.board(&place).await, cluster.board(&place).await)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn client_go_finds_what_it_expects_and_everything_else_stays() {
    let cluster = Cluster::connect().await;
    let place = cluster.endpoints();
    let lock = cluster.lock(&place).await;
    let first = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let leader = cluster.leader(&place).await;
    assert_eq!((&leader["holderIdentity"], &leader["leaderTransitions"]), (&"member-1".into(), &0.into()));
    assert_eq!(leader["leaseDurationSeconds"], 15);
    for time in ["acquireTime", "renewTime"] {
        let text = leader[time].as_str().unwrap();
        assert!(text.len() == "2020-02-17T05:35:12Z".len() && text.parse::<jiff::Timestamp>().is_ok(), "{text}");
    }
    let subsets = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}]);
    cluster.patch(&place, json!({"subsets": subsets, "metadata": {"labels": {"team": "a"}}})).await;
    assert_eq!(record(&lock).await, Some(held(1, 1)), "that changes nothing");
    assert_eq!(lock.write(first, &released(1), "why").await, Write::Conflict);
    let seen = lock.read().await.unwrap().version;
    written(lock.write(seen, &released(1), "why").await);
    let object = cluster.ask(Method::GET, &place.path(), "application/json", json!({})).await;
    assert_eq!((&object["subsets"], &object["metadata"]["labels"]["team"]), (&subsets, &"a".into()));
    assert_eq!(cluster.leader(&place).await["holderIdentity"], "", "free to client-go");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn what_a_stranger_does_to_the_annotation_is_foreign() {
    let cluster = Cluster::connect().await;
    let place = cluster.endpoints();
    let (holder, observer) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let first = written(holder.write(Version::ABSENT, &held(1, 1), "why").await);
    observer.read().await.unwrap();
    cluster.set_leader(&place, json!({"holderIdentity": "mallory", "leaderTransitions": 1})).await;
    changed(&observer, first).await;
    let named = foreign(record(&observer).await);
    assert_eq!(named.holder.as_deref(), Some("mallory"));
    assert_eq!(holder.write(first, &held(1, 2), "why").await, Write::Conflict);
    cluster.set_leader(&place, json!({"renewTime": "2036-01-01T00:00:00Z"})).await;
    assert_ne!(foreign(record(&observer).await).fingerprint, named.fingerprint, "it was renewed");
    for text in [Value::Null, "nonsense".into()] {
        cluster.patch(&place, json!({"metadata": {"annotations": {LEADER: text}}})).await;
        assert_eq!(foreign(record(&observer).await).holder, None);
    }
    let seen = observer.read().await.unwrap().version;
    written(observer.write(seen, &held(2, 1), "why").await);
    assert_eq!(cluster.leader(&place).await["holderIdentity"], "member-2");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn get_create_and_update_on_endpoints_will_do() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.endpoints();
    let rule = json!({"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "create", "update"]});
    cluster.account(&place.name, json!([rule])).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), cluster.token(&place.name).await).unwrap();
    let lock = lock_as(&cluster.kubeconfig_for(folder.path()), &place).await;
    let version = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    changed(&lock, version).await;
    assert_eq!(lock.read().await.unwrap().version, version);
    let text = logged.text();
    assert!(text.contains("the Endpoints is looked at each retry period"), "{text}");
    assert!(text.contains("missing: verb watch on endpoints"), "{text}");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn endpoints_of_a_service_with_a_selector_are_refused() {
    let cluster = Cluster::connect().await;
    let place = cluster.endpoints();
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let service = json!({"metadata": {"name": place.name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    cluster.post(&services, service).await;
    let controllers = |verb: &str| {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/service");
        assert!(Command::new(program).args([verb, "kube-controller-manager"]).status().unwrap().success());
    };
    controllers("start");
    let lock = cluster.lock(&place).await;
    let began = Instant::now();
    let why = loop {
        match lock.read().await {
            Err(LockError::Denied(why)) => break why,
            other => assert!(began.elapsed() < SOON, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    controllers("kill");
    assert!(why.contains("belong to a Service with a selector") && why.contains("choose a name"), "{why}");
    cluster.delete(&format!("{services}/{}", place.name)).await;
}
