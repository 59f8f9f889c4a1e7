//! The lock on a real API server. Each test makes a Lease of its own.

mod board;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use election::{Claim, Foreign};
use http::Method;
use serde_json::json;

use super::session::{Session, request};
use super::*;
use crate::lock::contract::{self, held, released, written};

mod endpoints;
mod evidence;

/// Longer than anything here takes, a restart of the API server included.
const SOON: Duration = Duration::from_secs(60);
/// A change notice that takes longer is no change notice.
const NOTICE_MAX: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(500);
const NAMESPACE: &str = "default";

/// An administrator of the cluster that `KUBECONFIG` names.
struct Cluster {
    kubeconfig: PathBuf,
    session: Session,
}

impl Cluster {
    async fn connect() -> Self {
        let Some(kubeconfig) = std::env::var_os("KUBECONFIG").filter(|_| std::env::var_os("TESTBED_DIR").is_some())
        else {
            panic!("no real API server is there: run this by make cluster");
        };
        let kubeconfig = PathBuf::from(kubeconfig);
        let access = Access { kubeconfig: Some(kubeconfig.clone()), ..Access::default() };
        let session = Session::open(&access).await.expect("the testbed's kubeconfig");
        Self { kubeconfig, session }
    }

    /// A Lease name that nobody has used in this run.
    fn place(&self) -> ObjectName {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lock-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ObjectName::lease(NAMESPACE, name)
    }

    async fn lock(&self, place: &ObjectName) -> KubernetesLock {
        lock_as(&self.kubeconfig, place).await
    }

    /// What an administrator asks for by hand; panics unless it is granted.
    async fn ask(&self, method: Method, path: &str, kind: &str, body: Value) -> Value {
        let mut request = request(method, path.to_owned(), body.to_string().into_bytes()).unwrap();
        request.headers_mut().insert(http::header::CONTENT_TYPE, kind.parse().unwrap());
        let (status, _, bytes) = tokio::time::timeout(SOON, self.session.call(request)).await.unwrap().unwrap();
        assert!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, "application/json", body).await
    }

    async fn patch(&self, place: &ObjectName, patch: Value) {
        self.ask(Method::PATCH, &place.path(), "application/merge-patch+json", patch).await;
    }

    async fn delete(&self, path: &str) {
        self.ask(Method::DELETE, path, "application/json", json!({})).await;
    }

    /// A ServiceAccount that may do what `rules` say.
    async fn account(&self, name: &str, rules: Value) {
        self.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": name}})).await;
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        self.post(&format!("{rbac}/roles"), json!({"metadata": {"name": name}, "rules": &rules})).await;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        });
        self.post(&format!("{rbac}/rolebindings"), binding).await;
        if let Some(rule) = rules.as_array().and_then(|rules| rules.last()) {
            tokio::time::timeout(SOON, self.wait_granted(name, rule)).await.expect("what is granted is known in time");
        }
    }

    /// Waits until the API server, which learns of rules by watches of its own, lets this account do what one of them says.
    async fn wait_granted(&self, account: &str, rule: &Value) {
        let resource = rule["resources"][0].as_str().unwrap_or_default();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let question = json!({"spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{account}"),
            "resourceAttributes": {
                "namespace": NAMESPACE, "group": rule["apiGroups"][0], "resource": resource, "subresource": subresource,
                "verb": rule["verbs"][0], "name": rule["resourceNames"][0].as_str().unwrap_or_default(),
            },
        }});
        while self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", question.clone()).await["status"]["allowed"]
            != true
        {}
    }

    async fn token(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        let answer = self.post(&path, json!({"spec": {}})).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// A kubeconfig in `folder` with the token file beside it.
    fn kubeconfig_for(&self, folder: &Path) -> PathBuf {
        let admin = kube::config::Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let cluster = admin.clusters[0].cluster.as_ref().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "c", "cluster": {
                "server": cluster.server,
                "certificate-authority": cluster.certificate_authority,
                "certificate-authority-data": cluster.certificate_authority_data,
            }}],
            "users": [{"name": "u", "user": {"tokenFile": folder.join("token")}}],
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        });
        let path = folder.join("config");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

async fn lock_as(kubeconfig: &Path, place: &ObjectName) -> KubernetesLock {
    let access = Access { kubeconfig: Some(kubeconfig.to_owned()), ..Access::default() };
    KubernetesLock::open(access, place.clone(), PERIOD, Witnesses::OWN_CONTAINER).await.unwrap()
}

async fn changed(lock: &KubernetesLock, since: Version) {
    tokio::time::timeout(SOON, lock.changed(since)).await.expect("wakes").unwrap();
}

async fn record(lock: &KubernetesLock) -> Option<Record> {
    lock.read().await.unwrap().record
}

fn rule(verbs: &[&str], names: &[&str]) -> Value {
    json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs, "resourceNames": names})
}

/// What a program logs while this is kept.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn keeps_the_contract() {
    let cluster = Cluster::connect().await;
    contract::suite(async || {
        let place = cluster.place();
        (cluster.lock(&place).await, cluster.lock(&place).await)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn every_change_is_told_soon() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let (writer, watcher) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let mut version = written(writer.write(Version::ABSENT, &held(1, 1), "why").await);
    assert_eq!(watcher.read().await.unwrap().version, version);
    for attempt in 2..50 {
        let write = async { (written(writer.write(version, &held(1, attempt), "why").await), Instant::now()) };
        let told = async {
            changed(&watcher, version).await;
            Instant::now()
        };
        let ((next, answered), told) = tokio::join!(write, told);
        assert!(told.saturating_duration_since(answered) < NOTICE_MAX, "{:?}", told - answered);
        assert_eq!(watcher.read().await.unwrap().record, Some(held(1, attempt)));
        version = next;
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn get_create_and_update_will_do_and_the_missing_rule_is_named_once() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    cluster.account(&place.name, json!([rule(&["get", "create", "update"], &[])])).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), cluster.token(&place.name).await).unwrap();
    let lock = lock_as(&cluster.kubeconfig_for(folder.path()), &place).await;
    let mut version = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    for attempt in 2..6 {
        let began = Instant::now();
        changed(&lock, version).await;
        assert!(began.elapsed() >= PERIOD, "one look a period");
        assert_eq!(lock.read().await.unwrap().version, version);
        version = written(lock.write(version, &held(1, attempt), "why").await);
    }
    let text = logged.text();
    assert_eq!(text.matches("must not be watched").count(), 1, "{text}");
    assert!(text.contains("missing: verb watch on leases"), "{text}");
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_documented_role_for_one_lease_by_name_is_enough() {
    let cluster = Cluster::connect().await;
    let (logged, _guard) = Logged::begin();
    let place = cluster.place();
    cluster.account(&place.name, json!([rule(&["get", "watch", "update"], &[&place.name])])).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), cluster.token(&place.name).await).unwrap();
    let config = cluster.kubeconfig_for(folder.path());
    let lock = lock_as(&config, &place).await;

    match lock.write(Version::ABSENT, &held(1, 1), "why").await {
        Write::Denied(why) => assert!(why.contains("missing: verb create"), "{why}"),
        other => panic!("created: {other:?}"),
    }
    let manifest = json!({"metadata": {"name": place.name, "annotations": {lease::INITIAL: "true"}}});
    cluster.post(&place.collection(), manifest).await;
    let seen = lock.read().await.unwrap();
    assert!(matches!(seen.record.unwrap().claim, Claim::Released(_)), "free at first sight");
    let acquired = written(lock.write(seen.version, &held(1, 1), "why").await);
    let (told, next) = tokio::join!(
        async {
            changed(&lock, acquired).await;
            record(&lock).await
        },
        async { cluster.lock(&place).await.write(acquired, &held(1, 2), "why").await }
    );
    assert_eq!(told, Some(held(1, 2)));
    written(next);
    assert_eq!(logged.text(), "", "no complaint");
    let other = ObjectName { name: "another".into(), ..place };
    match lock_as(&config, &other).await.read().await {
        Err(LockError::Denied(why)) => assert!(why.contains("missing: verb get on leases \"another\""), "{why}"),
        other => panic!("allowed: {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_token_may_rotate_without_a_failed_call() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let name = &place.name;
    cluster.account(name, json!([rule(&["get", "create", "update", "watch"], &[])])).await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "nonsense").unwrap();
    let lock = lock_as(&cluster.kubeconfig_for(folder.path()), &place).await;
    assert!(matches!(lock.read().await, Err(LockError::Denied(_))));
    let first = cluster.token(name).await;
    std::fs::write(&token_file, &first).unwrap();
    let mut version = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);

    // The account comes back under the same name: the first token is worth nothing any more.
    let account = format!("/api/v1/namespaces/default/serviceaccounts/{name}");
    cluster.delete(&account).await;
    cluster.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": name}})).await;
    std::fs::write(&token_file, cluster.token(name).await).unwrap();
    let old = tempfile::tempdir().unwrap();
    std::fs::write(old.path().join("token"), first).unwrap();
    let old = lock_as(&cluster.kubeconfig_for(old.path()), &place).await;
    let (mut attempt, began) = (2, Instant::now());
    // The server remembers for some seconds whom it has accepted.
    while old.read().await.is_ok() {
        version = written(lock.write(version, &held(1, attempt), "why").await);
        attempt += 1;
        assert!(began.elapsed() < SOON, "the first token is still accepted");
    }
    written(lock.write(version, &held(1, attempt), "why").await);
}

/// What a record says that is none of ours.
fn foreign(record: Option<Record>) -> Foreign {
    match record.expect("a record").claim {
        Claim::Foreign(foreign) => foreign,
        other => panic!("not foreign: {other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn what_others_do_to_the_lease_is_seen_for_what_it_is() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let (holder, observer) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let first = written(holder.write(Version::ABSENT, &held(1, 1), "why").await);
    observer.read().await.unwrap();

    // As `kubectl patch` does, as a label does, and as a client-go member does that was paused.
    cluster.patch(&place, json!({"metadata": {"labels": {"team": "a"}}, "spec": {"holderIdentity": "mallory"}})).await;
    changed(&observer, first).await;
    let named = foreign(record(&observer).await);
    assert_eq!(named.holder.as_deref(), Some("mallory"));
    assert_eq!(holder.write(first, &held(1, 2), "why").await, Write::Conflict);
    let patched = holder.read().await.unwrap().version;
    let rewritten = written(holder.write(patched, &held(1, 3), "why").await);
    assert_eq!(record(&observer).await, Some(held(1, 3)));
    cluster.patch(&place, json!({"metadata": {"labels": {"team": "b"}}})).await;
    assert_eq!(record(&observer).await, Some(held(1, 3)), "a label changes nothing");
    let blank = json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
    cluster.patch(&place, blank).await;
    let blanked = foreign(record(&observer).await);
    assert_eq!(blanked.holder, None);
    assert_ne!(blanked.fingerprint, named.fingerprint);

    let seen = holder.read().await.unwrap().version;
    cluster.delete(&place.path()).await;
    changed(&observer, seen).await;
    assert_eq!(observer.read().await.unwrap().version, Version::ABSENT);
    // A PUT may create Leases: the UID keeps it from that.
    let late = holder.write(seen, &held(1, 4), "why").await;
    assert!(matches!(late, Write::Gone | Write::Conflict), "{late:?}");
    assert_eq!(record(&observer).await, None);
    let again = written(observer.write(Version::ABSENT, &held(2, 1), "why").await);
    assert_ne!(again.incarnation, rewritten.incarnation);
    assert_eq!(holder.write(seen, &held(1, 5), "why").await, Write::Conflict);
    assert_eq!(record(&observer).await, Some(held(2, 1)));
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_record_of_a_controller_is_left_alone() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let lock = cluster.lock(&place).await;
    let active = json!({"places": [{"pod": "duty-1", "uid": "u", "token": 41}]}).to_string();
    let of_a_controller = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": place.name, "annotations": {lease::ACTIVE_PODS: active}}});
    cluster.post(&place.collection(), of_a_controller).await;
    let seen = lock.read().await.unwrap();
    let told = lock.write(seen.version, &held(1, 1), "why").await;
    assert!(matches!(&told, Write::Denied(why) if why.contains("duty-1 is active with token 41")), "{told:?}");
    assert_eq!(lock.read().await.unwrap().version, seen.version);
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_mark_of_a_manifest_means_nothing_once_the_lease_was_used() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let lock = cluster.lock(&place).await;
    let manifest = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": place.name, "annotations": {lease::INITIAL: "true"}}});
    cluster.post(&place.collection(), manifest.clone()).await;
    let began = Instant::now();
    let seen = lock.read().await.unwrap();
    assert!(matches!(seen.record.unwrap().claim, Claim::Released(_)));
    let mut version = written(lock.write(seen.version, &held(1, 1), "why").await);
    let mut attempt = 2;
    // Whole seconds tell an untouched Lease from one that was emptied: be out of reach of rounding.
    while began.elapsed() < Duration::from_secs(4) {
        version = written(lock.write(version, &held(1, attempt), "why").await);
        attempt += 1;
    }
    // As `kubectl replace` does.
    let mut replacement = manifest;
    replacement["metadata"]["resourceVersion"] = version.number.to_string().into();
    cluster.ask(Method::PUT, &place.path(), "application/json", replacement).await;
    assert!(matches!(record(&lock).await.unwrap().claim, Claim::Foreign(_)));
    assert_eq!(lock.write(version, &held(1, attempt), "why").await, Write::Conflict);
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_namespace_that_is_missing_is_named() {
    let cluster = Cluster::connect().await;
    let lock = cluster.lock(&ObjectName::lease("nowhere", "app")).await;
    assert_eq!(lock.read().await.unwrap().version, Version::ABSENT);
    match lock.write(Version::ABSENT, &held(1, 1), "why").await {
        Write::Denied(why) => assert!(why.contains("nowhere"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn the_watch_outlives_a_restart_of_the_api_server() {
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let (writer, watcher) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let first = written(writer.write(Version::ABSENT, &held(1, 1), "why").await);
    let second = written(writer.write(first, &held(1, 2), "why").await);
    assert_eq!(watcher.read().await.unwrap().version, second);
    changed(&watcher, first).await;

    let service = concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/service");
    let restarted = Command::new(service).args(["restart", "kube-apiserver"]).status().expect("testbed/service");
    assert!(restarted.success());
    let began = Instant::now();
    let third = loop {
        match writer.write(second, &held(1, 3), "why").await {
            Write::Written(version) => break version,
            // It cannot have landed: there is one writer, and the next look would show it.
            _ => assert!(began.elapsed() < SOON, "the API server is not back"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while watcher.read().await.map_or(true, |seen| seen.version != third) {
        changed(&watcher, second).await;
        assert!(began.elapsed() < SOON);
    }
    // Not by looking each period: the watch itself is back.
    let mut version = third;
    let mut quick = 0;
    for attempt in 4..100 {
        let (next, told) = tokio::join!(
            async { (written(writer.write(version, &held(1, attempt), "why").await), Instant::now()) },
            async {
                changed(&watcher, version).await;
                Instant::now()
            }
        );
        version = next.0;
        let delay = told.saturating_duration_since(next.1);
        quick = if delay < PERIOD / 4 { quick + 1 } else { 0 };
        if quick == 5 {
            return;
        }
        while watcher.read().await.map_or(true, |seen| seen.version != version) {}
    }
    panic!("no notice is quick any more");
}

/// How many requests of this kind about single Leases the API server has got so far, from anybody.
async fn requests(cluster: &Cluster, verb: &str) -> f64 {
    let request = request(Method::GET, "/metrics".into(), Vec::new()).unwrap();
    let response = cluster.session.send(request).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let verb = format!("verb=\"{verb}\"");
    let of_leases = counts.filter(|line| line.contains("resource=\"leases\"") && line.contains(&verb));
    of_leases.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn a_standby_that_may_watch_looks_at_nothing_else() {
    const RENEWALS: u64 = 100;
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let (holder, standby) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let mut version = written(holder.write(Version::ABSENT, &held(1, 1), "why").await);
    standby.read().await.unwrap();
    let before = requests(&cluster, "GET").await;
    for attempt in 2..2 + RENEWALS {
        let record = held(1, attempt);
        let renewal = holder.write(version, &record, "why");
        let (renewed, ()) = tokio::join!(renewal, changed(&standby, version));
        version = written(renewed);
        assert_eq!(standby.read().await.unwrap().version, version);
    }
    // The first notices may be late, and the server looks after a Lease of its own.
    let more = requests(&cluster, "GET").await - before;
    assert!(more < 5.0, "{more} looks for {RENEWALS} renewals");
}

/// Prints how long the parts of a handover take: nothing is asserted but that it works.
#[tokio::test]
#[ignore = "needs the testbed: make cluster"]
async fn measures_a_handover_through_the_store() {
    const ROUNDS: u64 = 300;
    let cluster = Cluster::connect().await;
    let place = cluster.place();
    let (mut from, mut to) = (cluster.lock(&place).await, cluster.lock(&place).await);
    let mut version = written(from.write(Version::ABSENT, &held(1, 1), "why").await);
    let (mut puts, mut notices, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        to.read().await.unwrap();
        let began = Instant::now();
        let release =
            async { (written(from.write(version, &released(u128::from(round)), "why").await), Instant::now()) };
        let take = async {
            changed(&to, version).await;
            let told = Instant::now();
            let seen = to.read().await.unwrap();
            let next = written(to.write(seen.version, &held(u128::from(round) + 1, 1), "why").await);
            (next, told, Instant::now())
        };
        let ((_, answered), (next, told, ended)) = tokio::join!(release, take);
        puts.push(answered - began);
        notices.push(told.saturating_duration_since(answered));
        whole.push(ended - began);
        version = next;
        std::mem::swap(&mut from, &mut to);
    }
    for (name, mut times) in [("PUT", puts), ("notice after its answer", notices), ("PUT, notice, PUT", whole)] {
        times.sort();
        let at = |part: usize| times[times.len() * part / 100];
        eprintln!("{name}: p50 {:?}, p99 {:?}, max {:?} (n={ROUNDS})", at(50), at(99), times[times.len() - 1]);
    }
}
