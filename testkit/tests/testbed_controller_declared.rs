//! Groups that somebody has declared, on a real API server: what the schema refuses, what becomes of the pods, and what the
//! status says of it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::controlled::{APP, Pods, Site, container, critical_container, terminated};
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::{holds_for, wait_until};

const QUIET: std::time::Duration = std::time::Duration::from_millis(700);

/// With a controller, a declared group, and these pods, of which the first is active.
fn settled(spec: &Value, names: &[&str]) -> Result<(Site, Member)> {
    let site = Site::new()?;
    site.cluster.define()?;
    for name in names {
        site.pods.up(name)?;
    }
    site.pods.declare(&site.cluster, APP, spec)?;
    let controller = site.lead_declared("c1", &[])?;
    site.pods.wait_active(&names[..1])?;
    Ok((site, controller))
}

fn stays(pods: &Pods, names: &[&str]) -> Result<()> {
    holds_for(&format!("only {names:?} are active"), QUIET, || pods.sight.now().active() == names)
        .with_context(|| format!("{:#?}", pods.sight.now()))
}

/// Status and reason of a condition.
fn condition(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let one = all.into_iter().find(|one| one["type"] == kind).unwrap_or_default();
    format!("{} {}", one["status"].as_str().unwrap_or("none"), one["reason"].as_str().unwrap_or("none"))
}

#[test]
fn a_declared_group_is_kept_and_its_status_says_so() -> Result<()> {
    let (site, _controller) = settled(&json!({}), &["a", "b"])?;
    let pods = &site.pods;
    let status = pods.says(APP, "a to be told of", |status| status["active"][0]["pod"] == "a")?;
    let token = pods.get("a")?["metadata"]["annotations"]["soloist.dev/token"].clone();
    ensure!(status["active"][0]["token"] == token && token.is_string(), "{status:#}");
    for (kind, expected) in
        [("Available", "True AllActive"), ("Redundant", "True EnoughPods"), ("Accepted", "True Understood")]
    {
        ensure!(condition(&status, kind) == expected, "{kind}: {status:#}");
    }
    ensure!(status["observedGeneration"] == 1 && status["readyPods"] == 2, "{status:#}");
    let since = pods.delete("a")?;
    pods.follows(since, &["b"])?;
    let status = pods.says(APP, "b to be told of", |status| {
        status["active"][0]["pod"] == "b" && condition(status, "Redundant") == "False TooFewPods"
    })?;
    let last = &status["lastFailover"];
    let parts = [&last["recordedMs"], &last["labelledMs"], &last["totalMs"]].map(|part| part.as_u64());
    ensure!(last["pods"] == json!(["b"]) && last["why"].to_string().contains("a is being deleted"), "{status:#}");
    ensure!(matches!(parts, [Some(one), Some(other), Some(sum)] if one + other == sum && sum < 5_000), "{status:#}");
    ensure!(status["transitions"] == 2, "{status:#}");
    let shown = site.cluster.kubectl(&["get", "asb", APP, "-n", &pods.namespace, "--no-headers"])?;
    let columns: Vec<&str> = shown.split_whitespace().collect();
    ensure!(columns[..4] == [APP, "b", "True", "1"], "{shown}");
    site.check()
}

#[test]
fn a_group_that_nobody_is_left_of_says_what_it_waits_for() -> Result<()> {
    let (site, _controller) = settled(&json!({"promoteAfter": "stopped"}), &["a", "b"])?;
    let pods = &site.pods;
    pods.delete("a")?;
    let status = pods.says(APP, "nobody", |status| condition(status, "Available") == "False NobodyActive")?;
    ensure!(status.to_string().contains("waiting for the kubelet's word"), "{status:#}");
    pods.say_over("a")?;
    pods.wait_active(&["b"])?;
    pods.says(APP, "b", |status| condition(status, "Available") == "True AllActive")?;
    site.check()
}

#[test]
fn each_group_has_settings_of_its_own() -> Result<()> {
    let (site, _controller) = settled(&json!({"critical": {"containers": ["core"]}}), &["a"])?;
    let other = Pods::new(&site.cluster, &site.pods.namespace, "other")?;
    for name in ["x", "y", "z"] {
        other.up_with(name, &[container("core"), critical_container("main")])?;
    }
    let role = json!({"label": "part", "active": "first", "standby": "second"});
    other.declare(
        &site.cluster,
        "other",
        &json!({"active": 2, "role": role, "critical": {"marker": "nothing=marks"}}),
    )?;
    let part = |name: &str| other.get(name).map(|pod| pod["metadata"]["labels"]["part"].clone()).unwrap_or_default();
    let are_two = || [part("x"), part("y"), part("z")] == ["first", "first", "second"];
    wait_until("two of three", LIMIT, are_two)?;
    other.say("x", &[("core", terminated("Error")), ("main", terminated("Error"))])?;
    holds_for("x is not critical there", QUIET, are_two)?;
    other.wish("other", &json!({"active": 1}))?;
    wait_until("one of three", LIMIT, || [part("x"), part("y"), part("z")] == ["first", "second", "second"])?;
    site.pods.wait_active(&["a"]).err().context("the pods of the other group have no role of this one")?;
    Ok(())
}

#[test]
fn a_switchover_is_made_once_for_each_request() -> Result<()> {
    let (site, _controller) = settled(&json!({}), &["a", "b", "c"])?;
    let pods = &site.pods;
    let since = testkit::stamp::now();
    pods.wish(APP, &json!({"switchover": {"to": "c", "request": "first"}}))?;
    pods.follows(since, &["c"])?;
    pods.says(APP, "it to be met", |status| status["metRequest"] == "first")?;
    let since = pods.delete("c")?;
    pods.follows(since, &["a"])?;
    pods.force_delete("c")?;
    pods.up("c")?;
    pods.wait_active(&["a"])?;
    stays(pods, &["a"])?;
    pods.wish(APP, &json!({"switchover": {"to": "z", "request": "second"}}))?;
    let status = pods.says(APP, "it to wait", |status| status.to_string().contains("z was asked for"))?;
    ensure!(condition(&status, "Available") == "True AllActive" && status["metRequest"] == "first", "{status:#}");
    let since = testkit::stamp::now();
    pods.up("z")?;
    pods.sight.wait_since(since, "z to be active", LIMIT, |moment| moment.shows(&["z"]))?;
    site.check()
}

#[test]
fn a_group_that_is_paused_is_left_alone() -> Result<()> {
    let (site, _controller) = settled(&json!({"paused": false}), &["a", "b"])?;
    let pods = &site.pods;
    pods.wish(APP, &json!({"paused": true}))?;
    pods.says(APP, "the pause", |status| status.to_string().contains("paused: nothing is changed"))?;
    pods.delete("a")?;
    stays(pods, &["a"])?;
    let since = testkit::stamp::now();
    pods.wish(APP, &json!({"paused": false}))?;
    pods.follows(since, &["b"])?;
    site.check()
}

#[test]
fn of_two_groups_that_select_the_same_pods_the_older_one_has_them() -> Result<()> {
    let (site, _controller) = settled(&json!({}), &["a", "b"])?;
    let pods = &site.pods;
    // Times are told in whole seconds: of two of the same age the first by name counts as older.
    pods.declare(&site.cluster, "younger", &json!({"active": 2}))?;
    let status =
        pods.says("younger", "the overlap", |status| condition(status, "Accepted") == "False OverlappingSelector")?;
    ensure!(status.to_string().contains(&format!("older group {APP}")) && status["pods"] == 0, "{status:#}");
    stays(pods, &["a"])?;
    site.check()?;
    pods.undeclare(APP)?;
    pods.wait_active(&["a", "b"])?;
    // Its record is another one than the one that was looked at.
    pods.says("younger", "its pods", |status| condition(status, "Accepted") == "True Understood")?;
    Ok(())
}

#[test]
fn pods_of_a_group_that_is_not_wanted_any_more_are_left_as_they_are() -> Result<()> {
    let (site, controller) = settled(&json!({}), &["a", "b"])?;
    let pods = &site.pods;
    pods.undeclare(APP)?;
    wait_until("it to be forgotten", LIMIT, || controller.log().contains("nobody wants this group"))?;
    pods.delete("a")?;
    stays(pods, &["a"])?;
    pods.declare(&site.cluster, APP, &json!({}))?;
    pods.wait_active(&["b"])?;
    site.check()
}

#[test]
fn a_pod_whose_labels_change_changes_its_group() -> Result<()> {
    let (site, _controller) = settled(&json!({}), &["a", "b"])?;
    let pods = &site.pods;
    pods.edit("a", &json!({"labels": {"app": "elsewhere", "role": null}}))?;
    pods.sight.wait("b to be active", LIMIT, |moment| moment.active() == ["b"])?;
    pods.edit("a", &json!({"labels": {"app": APP}}))?;
    pods.wait_active(&["b"])?;
    Ok(())
}

/// A node that nothing runs on, with a name that no other test has.
fn node(site: &Site, name: &str) -> Result<String> {
    let name = format!("{name}-{}", site.pods.namespace);
    site.cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))?;
    // The API server takes it for not ready, as no kubelet has said a word.
    site.cluster.kubectl(&["taint", "node", &name, "node.kubernetes.io/not-ready:NoSchedule-"])?;
    Ok(name)
}

#[test]
fn a_cordoned_nodes_pod_goes_last_and_a_node_out_of_service_runs_nothing() -> Result<()> {
    let (site, controller) = settled(&json!({"promoteAfter": "stopped"}), &["first"])?;
    let (pods, cluster) = (&site.pods, &site.cluster);
    let [bad, good] = [node(&site, "bad")?, node(&site, "good")?];
    for (name, on) in [("a", &bad), ("b", &good), ("c", &good)] {
        pods.create_on(on, name, &[container("main")])?;
        pods.run(name)?;
    }
    cluster.kubectl(&["cordon", &bad])?;
    pods.delete("first")?;
    pods.say_over("first")?;
    pods.wait_active(&["b"])?;
    pods.force_delete("first")?;
    // Its node does not answer: nobody knows whether it runs.
    pods.delete("b")?;
    pods.sight.wait("b to stand by", LIMIT, |moment| moment.active().is_empty())?;
    stays(pods, &[])?;
    cluster.kubectl(&["taint", "node", &good, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"])?;
    // c is on the same node, and a on one that is cordoned: neither is a good place, and a is older.
    pods.sight.wait("a to be active", LIMIT, |moment| moment.active() == ["a"]).with_context(|| controller.log())?;
    for node in [&bad, &good] {
        cluster.kubectl(&["delete", "node", node])?;
    }
    site.check()
}

#[test]
fn what_makes_no_group_is_refused_by_the_api_server_with_what_would() -> Result<()> {
    let cluster = Cluster::connect()?;
    cluster.define()?;
    let namespace = cluster.namespace()?;
    let object = |spec: &Value| {
        json!({"apiVersion": "soloist.dev/v1alpha1", "kind": "ActiveStandby",
            "metadata": {"name": "duty", "namespace": namespace}, "spec": spec})
    };
    let good = json!({"selector": {"matchLabels": {"app": "x"}}, "active": 2});
    cluster.apply(&object(&good))?;
    let with = |change: &Value| {
        let mut spec = good.clone();
        change.as_object().into_iter().flatten().for_each(|(field, value)| spec[field] = value.clone());
        spec
    };
    for (change, part) in [
        (json!({"selector": {"matchLabels": {}}}), "should have at least 1 properties"),
        (json!({"selector": {}}), "matchLabels: Required value"),
        (json!({"selector": {"matchLabels": {"app": "y"}}}), "the selector cannot be changed"),
        (json!({"selector": {"matchLabels": {"app": "x", "role": "active"}}}), "the selector uses the role label"),
        (json!({"role": {"label": "part"}}), "the role label cannot be changed"),
        (json!({"role": {"active": "x", "standby": "x"}}), "need different values"),
        (json!({"active": 0}), "greater than or equal to 1"),
        (json!({"active": 65}), "less than or equal to 64"),
        (json!({"promoteAfter": "gone"}), "supported values: \"removed\", \"stopped\""),
        (json!({"handover": "x"}), "supported values: \"drain-first\", \"stop-first\""),
        (json!({"order": "newest"}), "supported values: \"priority\", \"oldest\""),
        (json!({"notice": {"protocol": "udp", "port": 0}}), "greater than or equal to 1"),
        (json!({"notice": {"protocol": "udp", "port": 65536}}), "less than or equal to 65535"),
        (json!({"notice": {"protocol": "http", "port": 80}}), "a notice by http needs a path"),
        (json!({"notice": {"protocol": "udp", "port": 80, "path": "/x"}}), "a datagram has no path"),
        (json!({"notice": {"protocol": "http", "port": 80, "path": "/x", "payload": "y"}}), "only a datagram"),
        (json!({"critical": {"marker": "x"}}), "should match"),
        (json!({"switchover": {"to": "a"}}), "request: Required value"),
        (json!({"selektor": {}}), "unknown field"),
    ] {
        let refused = cluster.apply(&object(&with(&change))).err().with_context(|| format!("taken: {change}"))?;
        ensure!(format!("{refused:#}").contains(part), "{change}: {refused:#}");
    }
    Ok(())
}

#[test]
fn a_label_that_an_owner_selects_by_is_never_changed() -> Result<()> {
    let site = Site::new()?;
    let (cluster, pods) = (&site.cluster, &site.pods);
    cluster.define()?;
    let labels = json!({"app": APP, "role": "waiting"});
    cluster.apply(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "keeper", "namespace": pods.namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]},
        }},
    }))?;
    let uid = cluster.kubectl(&["-n", &pods.namespace, "get", "rs", "keeper", "-o", "jsonpath={.metadata.uid}"])?;
    pods.up("a")?;
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "keeper", "uid": uid, "controller": true,
    }]);
    pods.edit("a", &json!({"labels": {"role": "waiting"}, "ownerReferences": owner}))?;
    pods.declare(cluster, APP, &json!({}))?;
    let controller = site.lead_declared("c1", &[])?;
    let status =
        pods.says(APP, "the owner to be named", |status| condition(status, "Accepted").contains("LabelOfOwner"))?;
    ensure!(status.to_string().contains("keeper uses the label"), "{status:#}");
    stays(pods, &[])?;
    ensure!(pods.get("a")?["metadata"]["labels"]["role"] == "waiting");
    ensure!(controller.log().matches("would lose the pod").count() == 1, "{}", controller.log());
    Ok(())
}

#[test]
fn a_service_that_sends_traffic_to_standbys_is_named_until_it_does_not() -> Result<()> {
    let (site, _controller) = settled(&json!({}), &["a", "b"])?;
    let (cluster, pods) = (&site.cluster, &site.pods);
    let service = |selector: &Value| {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": pods.namespace},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        }))
    };
    service(&json!({"app": APP}))?;
    let is_named = |status: &Value| condition(status, "Misrouted") == "True ServiceSelectsAll";
    pods.says(APP, "the Service to be named", is_named)?;
    service(&json!({"app": APP, "role": "active"}))?;
    pods.says(APP, "the Service not to be named any more", |status| condition(status, "Misrouted") == "none none")?;
    site.check()
}
