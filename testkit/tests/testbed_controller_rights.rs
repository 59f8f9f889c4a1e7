//! What a controller may do is what its manifests say and nothing more; what is missing is named, and is waited for.

use std::net::UdpSocket;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::controlled::{APP, Pods, Site, critical_container, terminated};
use testkit::documents::root;
use testkit::group::Group;
use testkit::kubeconfig::Server;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

const ACCOUNT: &str = "duty";

/// The rules of the manifest that the document shows.
fn rules(cluster: &Cluster) -> Result<Vec<Value>> {
    let objects = cluster.client().objects(&root().join("examples/controller/controller.yml"))?;
    let role = objects.iter().find(|object| object["kind"] == "Role").context("no Role")?;
    Ok(role["rules"].as_array().context("no rules")?.clone())
}

/// The rules of the manifest for a whole cluster.
fn cluster_rules(cluster: &Cluster) -> Result<Vec<Value>> {
    let objects = cluster.client().objects(&root().join("examples/controller/cluster.yml"))?;
    let role = objects.iter().find(|object| object["kind"] == "ClusterRole").context("no ClusterRole")?;
    Ok(role["rules"].as_array().context("no rules")?.clone())
}

/// The same without a verb, or without all that they say of these resources.
fn without(rules: &[Value], resource: &str, verb: Option<&str>) -> Vec<Value> {
    let mut rules = rules.to_vec();
    for rule in rules.iter_mut().filter(|rule| rule["resources"] == json!([resource])) {
        let verbs = rule["verbs"].as_array().cloned().unwrap_or_default();
        rule["verbs"] = verbs.into_iter().filter(|one| verb.is_some_and(|verb| one != verb)).collect();
    }
    rules.retain(|rule| rule["verbs"] != json!([]));
    rules
}

/// Writes a kubeconfig for an account that may do what the rules say.
fn restricted(cluster: &Cluster, group: &Group, namespace: &str, rules: &[Value]) -> Result<PathBuf> {
    cluster.grant(namespace, ACCOUNT, &json!(rules))?;
    let path = group.folder().join("restricted");
    let user = json!({"token": cluster.token(namespace, ACCOUNT)?});
    Server::of_testbed()?.write_kubeconfig(&path, &user)?;
    Ok(path)
}

/// A controller with these rules.
fn controller(site: &Site, rules: &[Value]) -> Result<Member> {
    let kubeconfig = restricted(&site.cluster, &site.controllers.group, &site.pods.namespace, rules)?;
    site.controller("c1", &["--kubeconfig", &kubeconfig.display().to_string()])
}

#[test]
fn the_role_of_the_manifest_is_enough() -> Result<()> {
    let site = Site::new()?;
    let rules = rules(&site.cluster)?;
    let controller = controller(&site, &rules)?;
    site.leads(&controller)?;
    for name in ["a", "b", "c"] {
        site.pods.up_with(name, &[critical_container("main")])?;
    }
    site.pods.wait_active(&["a"])?;
    let since = site.pods.delete("a")?;
    site.pods.follows(since, &["b"])?;
    site.pods.say("b", &[("main", terminated("Error"))])?;
    site.pods.wait_active(&["c"])?;
    let is_deleted =
        |moment: &testkit::sight::Moment| moment.pods.values().any(|pod| pod.name == "b" && pod.is_deleting);
    site.pods.sight.wait("b to be deleted", LIMIT, is_deleted)?;
    let told = || {
        let words = ["get", "events", "-n", &site.pods.namespace, "-o", "jsonpath={.items[*].message}"];
        site.cluster.kubectl(&words).is_ok_and(|text| text.contains("c is active"))
    };
    wait_until("an Event", LIMIT, told)?;
    // Nodes are in no namespace, and a Role says nothing of them.
    let missing: Vec<String> =
        controller.log().lines().filter(|line| line.contains("missing:")).map(Into::into).collect();
    ensure!(missing.len() == 1 && missing[0].contains("watch on nodes"), "{missing:#?}");
    site.check()
}

/// A controller of declared groups with these rules in the whole cluster, and a group with a pod.
fn declared(rules: &[Value]) -> Result<(Site, Member)> {
    let site = Site::new()?;
    let cluster = &site.cluster;
    cluster.define()?;
    let kubeconfig = restricted(cluster, &site.controllers.group, &site.pods.namespace, &[])?;
    let name = format!("declared-{}", site.pods.namespace);
    let api = "rbac.authorization.k8s.io";
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": site.pods.namespace}]},
    ]}))?;
    for name in ["a", "b"] {
        site.pods.up_with(name, &[critical_container("main")])?;
    }
    site.pods.declare(cluster, APP, &json!({}))?;
    let controller = site.lead_declared("c1", &["--kubeconfig", &kubeconfig.display().to_string()])?;
    site.pods.wait_active(&["a"])?;
    Ok((site, controller))
}

#[test]
fn the_cluster_role_of_the_manifest_is_enough() -> Result<()> {
    let rules = cluster_rules(&Cluster::connect()?)?;
    let (site, controller) = declared(&rules)?;
    site.pods.says(APP, "a to be told of", |status| status["active"][0]["pod"] == "a")?;
    site.pods.say("a", &[("main", terminated("Error"))])?;
    site.pods.wait_active(&["b"])?;
    ensure!(!controller.log().contains("missing:"), "{}", controller.log());
    site.check()
}

#[test]
fn without_the_right_to_write_a_status_that_is_said_once_and_all_else_works() -> Result<()> {
    let rules = without(&cluster_rules(&Cluster::connect()?)?, "activestandbys/status", None);
    let (site, controller) = declared(&rules)?;
    let said = || controller.log().matches("missing: the verb patch on activestandbys/status").count();
    wait_until("the missing verb", LIMIT, || said() == 1)?;
    let since = site.pods.delete("a")?;
    site.pods.follows(since, &["b"])?;
    ensure!(said() == 1 && site.pods.declared(APP)?["status"].is_null(), "{}", controller.log());
    site.check()
}

#[test]
fn a_verb_that_is_missing_is_named_and_waited_for() -> Result<()> {
    let cases = [
        ("pods", "list", "list and watch on pods"),
        ("pods", "watch", "list and watch on pods"),
        ("pods", "patch", "missing: verb patch on pods"),
        ("pods", "delete", "missing: verb delete on pods \"a\""),
    ];
    for (resource, verb, named) in cases {
        let site = Site::new()?;
        let all = rules(&site.cluster)?;
        for name in ["a", "b"] {
            site.pods.up_with(name, &[critical_container("main")])?;
        }
        let controller = controller(&site, &without(&all, resource, Some(verb)))?;
        site.leads(&controller)?;
        if verb == "delete" {
            site.pods.wait_active(&["a"])?;
            site.pods.say("a", &[("main", terminated("Error"))])?;
            site.pods.wait_active(&["b"])?;
        }
        let is_named = || controller.log().contains(named);
        wait_until(named, LIMIT, is_named).with_context(|| controller.log())?;
        site.cluster.grant(&site.pods.namespace, ACCOUNT, &json!(all))?;
        if verb == "delete" {
            let goes = |moment: &testkit::sight::Moment| moment.pods.values().any(|pod| pod.is_deleting);
            site.pods.sight.wait("a to be deleted", LIMIT, goes)?;
        } else {
            site.pods.wait_active(&["a"])?;
        }
        site.check().with_context(|| format!("without {verb} on {resource}"))?;
    }
    Ok(())
}

#[test]
fn records_that_may_not_be_written_are_named_and_without_events_all_works() -> Result<()> {
    let site = Site::new()?;
    let cluster = &site.cluster;
    let all = rules(cluster)?;
    // The pods are elsewhere than the lock, which may be written.
    let pods = Pods::new(cluster, &cluster.namespace()?, APP)?;
    pods.up("a")?;
    let kubeconfig =
        restricted(cluster, &site.controllers.group, &site.pods.namespace, &without(&all, "events", None))?;
    let binding = |rules: &[Value]| bind_elsewhere(cluster, &pods.namespace, &site.pods.namespace, rules);
    binding(&without(&without(&all, "leases", Some("create")), "events", None))?;
    let kubeconfig = kubeconfig.display().to_string();
    let controller = site.controller_of("c1", &[&pods.namespace], &["--kubeconfig", &kubeconfig])?;
    let is_named = || controller.log().contains("missing: verb create on leases");
    wait_until("the missing verb", LIMIT, is_named).with_context(|| controller.log())?;
    binding(&without(&all, "events", None))?;
    pods.wait_active(&["a"])?;
    wait_until("Events to be missed", LIMIT, || controller.log().contains("no Events are written"))?;
    pods.sight.check(1)
}

/// Lets the account of one namespace do what the rules say in another one.
fn bind_elsewhere(cluster: &Cluster, namespace: &str, home: &str, rules: &[Value]) -> Result<()> {
    let api = "rbac.authorization.k8s.io";
    let metadata = json!({"name": ACCOUNT, "namespace": namespace});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rules},
        {"apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}]},
    ]}))
}

/// The rules of icr's ClusterRole, and who has them.
fn icr_role(cluster: &Cluster, account: &str, keep: impl Fn(&Value) -> bool) -> Result<()> {
    let objects = cluster.client().objects(&root().join("examples/controller/seed/icr_cr.yaml"))?;
    let mut role = objects.into_iter().next().context("no ClusterRole")?;
    role["metadata"]["name"] = account.into();
    let rules = role["rules"].as_array().context("no rules")?;
    ensure!(!rules.iter().any(|rule| rule["verbs"].to_string().contains("patch")), "icr may patch: {rules:?}");
    role["rules"] = rules.iter().filter(|rule| keep(rule)).cloned().collect();
    cluster.apply(&role)?;
    cluster.grant("default", account, &json!([]))?;
    cluster.apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}]}))
}

/// Starts icr as this account.
fn icr(cluster: &Cluster, group: &Group, account: &str) -> Result<Member> {
    let path = group.folder().join(account);
    Server::of_testbed()?.write_kubeconfig(&path, &json!({"token": cluster.token("default", account)?}))?;
    group.member(account).call(&["icr", "-kubeconfig", &path.display().to_string()])
}

#[test]
fn icr_works_with_its_cluster_role_and_without_patch() -> Result<()> {
    let cluster = Cluster::connect()?;
    let group = Group::new()?;
    cluster.initial_lease("default", "icr")?;
    icr_role(&cluster, "icr", |_| true)?;
    let socket = UdpSocket::bind("127.0.0.1:10001").context("the port of the notice")?;
    socket.set_read_timeout(Some(LIMIT))?;
    let pods = Pods::new(&cluster, &cluster.namespace()?, "hapod")?;
    let first = icr(&cluster, &group, "icr")?;
    for name in ["a", "b", "c"] {
        pods.up_with(name, &[critical_container("main")])?;
    }
    let mut text = [0; 64];
    let mut heard = || -> Result<bool> {
        let length = socket.recv(&mut text)?;
        Ok(&text[..length] == b"GoActiveDuringFailover")
    };
    pods.wait_active(&["a"]).with_context(|| first.log())?;
    ensure!(heard()?, "another text");
    let since = pods.delete("a")?;
    pods.follows(since, &["b"])?;
    ensure!(heard()?, "another text");
    pods.say("b", &[("main", terminated("Error"))])?;
    pods.wait_active(&["c"])?;
    // Without grace, as the other program does.
    let is_gone = |moment: &testkit::sight::Moment| !moment.pods.values().any(|pod| pod.name == "b");
    pods.sight.wait("b to be gone", LIMIT, is_gone)?;
    ensure!(!first.log().contains("missing"), "{}", first.log());
    pods.sight.check(1)
}

#[test]
fn icr_refuses_without_leases_and_names_both_rules() -> Result<()> {
    let cluster = Cluster::connect()?;
    let group = Group::new()?;
    icr_role(&cluster, "icr-old", |rule| rule["resources"] == json!(["pods"]))?;
    let mut member = icr(&cluster, &group, "icr-old")?;
    ensure!(member.wait_exit_code(LIMIT)? == 1, "{}", member.log());
    for part in ["leases", "get, create, update, watch", "events"] {
        ensure!(member.log().contains(part), "{part}: {}", member.log());
    }
    Ok(())
}
