//! `soloist run --route` on a real API server: who gets traffic, as a watch sees it, however the active one ends; and
//! what is refused at the start.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::ends::End;
use testkit::history::Span;
use testkit::lease_group::LEASE;
use testkit::relay::{Fault, Scope};
use testkit::routed::{ROUTES, Site, address};
use testkit::scenario::{LIMIT, check, follow, hand_over};
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::{holds_for, wait_until};

/// A command would start within this where nothing held it back.
const UNPUBLISHED: Duration = Duration::from_millis(300);

/// What docs/kubernetes-routes.md says that a Role needs for all of them.
fn documented() -> Value {
    json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["app"],
            "verbs": ["get", "watch", "update"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
            "verbs": ["get", "list", "create", "update"]},
        {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "update"]},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ])
}

/// A member with this route leaves with `code` and says `text`.
fn refused(site: &mut Site, route: &str, changes: &[&str], code: i32, text: &str) -> Result<()> {
    refused_as(site, &json!({}), route, changes, code, text)
}

fn refused_as(site: &mut Site, user: &Value, route: &str, changes: &[&str], code: i32, text: &str) -> Result<()> {
    let mut member = site.spawn_as("a", user, changes, &[route])?;
    let got = member.wait_exit_code(LIMIT)?;
    let log = member.own_log();
    ensure!(got == code && log.contains(text), "{route}: {got} instead of {code}, and {text:?} expected in: {log}");
    ensure!(site.group.group.history().spans.is_empty(), "it was active");
    Ok(())
}

/// All that is published quotes the token of this activation, which is the version of the Lease's acquisition, and was
/// stored later than that: the API server counts all its objects' versions together.
fn published_after_the_acquisition(site: &Site, active: &Span) -> Result<()> {
    for (kind, name) in [("endpointslice", "app-soloist"), ("endpoints", "old"), ("pod", active.member.as_str())] {
        let metadata = site.get(kind, name)?["metadata"].clone();
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        let token = number(&metadata["annotations"]["soloist.dev/token"]);
        let version = number(&metadata["resourceVersion"]);
        ensure!(token == Some(active.token) && version > token, "{kind}: {metadata}, active with {}", active.token);
    }
    Ok(())
}

/// Ends `a` in one way; traffic goes to `b`, and never to both.
fn traffic_follows(end: End) -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (members, active) = site.pair(&ROUTES)?;
    views.wait("a")?;
    let handover = hand_over(&site.group.group, &members, &active, end)?;
    views.wait("b")?;
    views.check(&["a", "b"])?;
    published_after_the_acquisition(&site, &handover.new)?;
    check(&site.group.group, 2, &active)
}

#[test]
fn sigterm_moves_all_traffic_and_never_to_two() -> Result<()> {
    traffic_follows(End::Term)
}

#[test]
fn a_crash_moves_all_traffic_and_never_to_two() -> Result<()> {
    traffic_follows(End::WorkloadCrash)
}

#[test]
fn sigkill_of_the_elector_moves_all_traffic_and_never_to_two() -> Result<()> {
    traffic_follows(End::ElectorKilled)
}

#[test]
fn sigkill_of_the_guard_moves_all_traffic_and_never_to_two() -> Result<()> {
    traffic_follows(End::GuardKilled)
}

#[test]
fn sigkill_of_everything_moves_all_traffic_and_never_to_two() -> Result<()> {
    traffic_follows(End::KeepersKilled)
}

#[test]
fn a_stopped_elector_loses_all_traffic_and_takes_nothing_back_when_it_wakes() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (members, active) = site.pair(&ROUTES)?;
    hand_over(&site.group.group, &members, &active, End::ElectorStopped)?;
    views.wait("b")?;
    if members[0].elector_pid().is_ok() {
        members[0].signal(Signal::CONT)?;
    }
    holds_for("traffic goes to b", LEASE * 2, || views.show("b"))?;
    views.check(&["a", "b"])
}

#[test]
fn a_black_hole_moves_all_traffic_and_never_to_two() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (members, active) = site.pair(&ROUTES)?;
    site.group.relay("a")?.black_hole();
    follow(&site.group.group, &active, stamp::now())?;
    views.wait("b")?;
    site.group.relay("a")?.heal();
    members[0].wait_standby(LIMIT)?;
    holds_for("traffic goes to b", LEASE, || views.show("b"))?;
    views.check(&["a", "b"])?;
    check(&site.group.group, 2, &active)
}

#[test]
fn a_lease_that_is_deleted_leaves_all_traffic_where_it_is() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (_members, active) = site.pair(&ROUTES)?;
    views.wait("a")?;
    site.kubectl(&["delete", "lease", &site.group.lease])?;
    holds_for("traffic goes to a", LEASE * 2, || views.show("a")).with_context(|| site.group.group.logs())?;
    views.check(&["a"])?;
    let lives = || site.group.group.active().is_some_and(|span| span.token == active.token);
    wait_until("a stamp of a", LIMIT, lives)
}

#[test]
fn a_holder_that_dies_with_its_lease_deleted_loses_all_traffic_and_never_to_two() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (members, active) = site.pair(&ROUTES)?;
    views.wait("a")?;
    site.group.relay("a")?.black_hole();
    site.kubectl(&["delete", "lease", &site.group.lease])?;
    let handover = hand_over(&site.group.group, &members, &active, End::KeepersKilled)?;
    views.wait("b")?;
    views.check(&["a", "b"])?;
    published_after_the_acquisition(&site, &handover.new)?;
    check(&site.group.group, 2, &active)
}

#[test]
fn traffic_comes_back_to_a_pod_whose_container_runs_anew() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    let (mut members, active) = site.pair(&ROUTES)?;
    hand_over(&site.group.group, &members, &active, End::KeepersKilled)?;
    views.wait("b")?;
    let again = site.spawn("a", &ROUTES)?;
    again.wait_standby(LIMIT)?;
    members.remove(0);
    let second = members[0].wait_active(&site.group.group, LIMIT)?;
    members.push(again);
    hand_over(&site.group.group, &members, &second, End::Term)?;
    views.wait("a")?;
    views.check(&["a", "b", "a"])
}

/// A publication that is held on its way while its member dies takes no effect when it arrives.
#[test]
fn a_publication_that_arrives_late_changes_nothing() -> Result<()> {
    for route in ROUTES {
        let mut site = Site::new()?;
        let views = site.views()?;
        let (mut members, _) = site.pair(&[route])?;
        site.group.relay("b")?.inject(Scope::Routes, Fault::Hold);
        members[0].signal(Signal::TERM)?;
        let relay = site.group.relay("b")?;
        wait_until("a publication on its way", LIMIT, || relay.held() > 0)
            .with_context(|| format!("{route}\n{}", site.group.group.logs()))?;
        let is_alone = || site.group.group.history().spans.len() == 1;
        holds_for("no command starts before its route is published", UNPUBLISHED, is_alone)
            .with_context(|| format!("{route}\n{}", site.group.group.logs()))?;
        members[1].signal(Signal::KILL)?;
        members[1].wait_exit(LIMIT)?;
        site.pod("c", json!({}))?;
        let c = site.spawn("c", &[route])?;
        c.wait_active(&site.group.group, LIMIT)?;
        let codes = site.group.relay("b")?.deliver_held()?;
        ensure!(codes.iter().all(|code| *code == 409), "{route}: {codes:?}");
        // The views of the other routes show nobody.
        let told = || [&views.slices, &views.endpoints, &views.pods].map(View::now).concat();
        let is_c = || told() == [address("c")] || told() == ["c"];
        wait_until(&format!("{route} to lead to c alone"), LIMIT, is_c).with_context(|| format!("{:?}", told()))?;
        views.never_two().with_context(|| route.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_pod_that_hangs_while_it_is_deleted_blocks_nobody() -> Result<()> {
    let mut site = Site::new()?;
    let views = site.views()?;
    site.pod("a", json!({"finalizers": ["soloist.dev/hangs"]}))?;
    // Nobody hears of the deletion.
    let a = site.spawn_as("a", &json!({}), &["SOLOIST_HANDOVER_ON=none"], &["pod-label:role"])?;
    let active = a.wait_active(&site.group.group, LIMIT)?;
    let b = site.spawn("b", &["pod-label:role"])?;
    b.wait_standby(LIMIT)?;
    let members = vec![a, b];
    views.pods.wait(Some("a"), LIMIT)?;
    site.kubectl(&["delete", "pod", "a", "--wait=false"])?;
    hand_over(&site.group.group, &members, &active, End::KeepersKilled)?;
    views.pods.wait(Some("b"), LIMIT)?;
    views.pods.check(&["a", "b"])?;
    let hung = site.get("pod", "a")?;
    ensure!(hung["metadata"]["deletionTimestamp"].is_string() && hung["metadata"]["labels"]["role"] == "standby");
    site.kubectl(&["patch", "pod", "a", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"])?;
    Ok(())
}

#[test]
fn the_documented_role_is_enough_and_what_is_published_is_taken_back() -> Result<()> {
    let mut site = Site::new()?;
    site.cluster.grant(&site.group.namespace, "member", &documented())?;
    let user = json!({"token": site.cluster.token(&site.group.namespace, "member")?});
    let views = site.views()?;
    let mut a = site.spawn_as("a", &user, &[], &ROUTES)?;
    a.wait_active(&site.group.group, LIMIT)?;
    views.wait("a")?;
    let slice = site.get("endpointslice", "app-soloist")?;
    ensure!(slice["endpoints"][0]["nodeName"] == "node1" && slice["ports"][0]["port"] == 8080, "{slice}");
    a.signal(Signal::TERM)?;
    a.wait_exit(LIMIT)?;
    for view in [&views.slices, &views.endpoints, &views.pods] {
        view.wait(None, LIMIT)?;
    }
    views.check(&["a"])?;
    let log = a.own_log();
    let warnings = log.lines().filter(|line| line.contains("WARN") && !line.contains("verb watch on nodes"));
    ensure!(warnings.count() == 0, "{log}");
    Ok(())
}

#[test]
fn a_missing_rule_is_named_at_the_start() -> Result<()> {
    for (route, without, texts) in [
        ("endpoint-slice:app", 1, "missing: verb get on services \"app\""),
        ("endpoint-slice:app", 2, "missing: verb list on endpointslices"),
        ("endpoints:old", 3, "missing: verb get on endpoints \"old\""),
        ("pod-label:role", 4, "missing: verb get on pods \"a\""),
    ] {
        let mut site = Site::new()?;
        let mut rules = documented();
        rules.as_array_mut().context("no list")?.remove(without);
        site.cluster.grant(&site.group.namespace, "member", &rules)?;
        let user = json!({"token": site.cluster.token(&site.group.namespace, "member")?});
        refused_as(&mut site, &user, route, &[], 77, texts)?;
    }
    Ok(())
}

#[test]
fn bad_input_is_refused_with_the_fix() -> Result<()> {
    let mut site = Site::new()?;
    site.service("selects", json!({"selector": {"app": "x"}, "ports": [{"port": 80}]}))?;
    site.service("named", json!({"ports": [{"port": 80, "targetPort": "http"}]}))?;
    site.service("foreign", json!({"ports": [{"port": 80}]}))?;
    site.service("mirrored", json!({"ports": [{"port": 80}]}))?;
    let slice = |name: &str, service: &str, manager: &str| {
        let labels = json!({"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": manager});
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "labels": labels},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.9.9.9"]}], "ports": []})
    };
    site.apply(slice("foreign-soloist", "foreign", "somebody.example"))?;
    site.apply(slice("mirrored-x", "mirrored", "endpointslicemirroring-controller.k8s.io"))?;

    refused(&mut site, "endpoint-slice:none", &[], 78, "Service")?;
    refused(&mut site, "endpoint-slice:selects", &[], 78, "has the selector app=x")?;
    refused(&mut site, "endpoints:selects", &[], 78, "remove spec.selector")?;
    refused(&mut site, "endpoint-slice:named", &[], 78, "targetPort \"http\"")?;
    refused(&mut site, "endpoint-slice:foreign", &[], 78, "managed by somebody.example")?;
    refused(&mut site, "endpoint-slice:mirrored", &[], 78, "kubectl delete endpoints mirrored")?;
    refused(&mut site, "endpoint-slice:app", &["POD_IP=fd00::7"], 78, "is for IPv4, and fd00::7 is IPv6")?;
    refused(&mut site, "endpoint-slice:app", &["POD_IP="], 78, "POD_IP is not set")?;
    refused(&mut site, "pod-label:role", &["POD_UID=other"], 78, "POD_UID must be metadata.uid")?;
    refused(&mut site, "pod-label:role", &["POD_NAME=nobody"], 78, "does not exist")?;
    refused(&mut site, "service:app", &[], 64, "is no kind of route")?;
    Ok(())
}

#[test]
fn a_label_that_the_owner_selects_by_or_the_template_sets_is_refused() -> Result<()> {
    let mut site = Site::new()?;
    let selector = json!({"matchLabels": {"role": "standby"}});
    let template = json!({"metadata": {"labels": {"role": "standby"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]}});
    site.apply(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "app-1"},
        "spec": {"replicas": 0, "selector": selector, "template": template}}))?;
    let uid = site.kubectl(&["get", "replicaset", "app-1", "-o", "jsonpath={.metadata.uid}"])?;
    site.kubectl(&["delete", "pod", "a", "--grace-period=0", "--force"])?;
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-1", "uid": uid, "controller": true});
    site.pod("a", json!({"labels": {"role": "standby"}, "ownerReferences": [owner]}))?;
    refused(&mut site, "pod-label:role", &[], 78, "the selector of ReplicaSet")?;
    ensure!(site.get("pod", "a")?["metadata"]["labels"]["role"] == "standby");
    site.kubectl(&["label", "pod", "a", "--overwrite", "tier=active"])?;
    refused(&mut site, "pod-label:tier", &[], 78, "tier=active, which soloist did not write")
}

/// No signal comes: nothing runs these pods.
#[test]
fn a_pod_that_is_deleted_hands_over_at_once_and_to_one_that_stays() -> Result<()> {
    let mut site = Site::new()?;
    for (node, unschedulable) in [("cordoned", true), ("free", false)] {
        let name = format!("{node}-{}", site.group.namespace);
        site.cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"unschedulable": unschedulable}}))?;
    }
    let node = |site: &Site, node: &str| format!("NODE_NAME={node}-{}", site.group.namespace);
    site.pod("a", json!({"finalizers": ["soloist.dev/hangs"]}))?;
    site.pod("c", json!({}))?;
    let views = site.views()?;
    let (cordoned, free) = (node(&site, "cordoned"), node(&site, "free"));
    let mut members = Vec::new();
    for (name, node) in [("a", &free), ("b", &cordoned), ("c", &free)] {
        let member = site.spawn_as(name, &json!({}), &[node], &["pod-label:role"])?;
        match name {
            "a" => drop(member.wait_active(&site.group.group, LIMIT)?),
            _ => member.wait_standby(LIMIT)?,
        }
        members.push(member);
    }
    wait_until("the node's state", LIMIT, || members[1].own_log().contains("node is being emptied"))?;
    // The board tells the active one.
    let announced = || site.cluster.announced(&site.group.namespace, &site.group.lease);
    let told = || {
        announced().is_ok_and(|members| {
            let is = |name: &str, leaving: bool| members.iter().any(|one| one.name == name && one.leaving == leaving);
            is("b", true) && is("c", false)
        })
    };
    wait_until("the announcements", LIMIT, told).with_context(|| site.group.group.logs())?;
    site.kubectl(&["delete", "pod", "a", "--wait=false"])?;
    members[2].wait_active(&site.group.group, LIMIT)?;
    members[0].wait_standby(LIMIT)?;
    views.pods.wait(Some("c"), LIMIT)?;
    views.pods.check(&["a", "c"])?;
    ensure!(members[0].own_log().contains("switchover to c"), "{}", members[0].own_log());
    site.kubectl(&["patch", "pod", "a", "--type=merge", "-p", "{\"metadata\":{\"finalizers\":null}}"])?;
    Ok(())
}

#[test]
fn a_member_waits_for_an_api_server_that_is_away_and_leaves_when_it_is_asked_to() -> Result<()> {
    let mut site = Site::new()?;
    site.group.add_relay(&site.cluster, "a", &json!({}))?;
    site.group.relay("a")?.cut();
    let mut a = site.spawn("a", &["endpoint-slice:app"])?;
    wait_until("a warning", LIMIT, || a.own_log().contains("cannot be opened yet"))?;
    site.group.relay("a")?.reconnect();
    a.wait_active(&site.group.group, LIMIT)?;
    site.group.add_relay(&site.cluster, "b", &json!({}))?;
    site.group.relay("b")?.cut();
    let mut b = site.spawn("b", &["endpoint-slice:app"])?;
    wait_until("a warning", LIMIT, || b.own_log().contains("cannot be opened yet"))?;
    b.signal(Signal::TERM)?;
    ensure!(b.wait_exit_code(LIMIT)? == 0, "{}", b.own_log());
    a.signal(Signal::TERM)?;
    a.wait_exit(LIMIT).map(drop)
}
