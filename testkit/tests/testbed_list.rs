//! Groups on Leases and in Endpoints are listed, in a namespace and in all of them, and no other objects are.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::group::{Group, binary};
use testkit::kubeconfig::Server;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

fn list(words: &[&str]) -> Result<Output> {
    Command::new(binary("soloist")?).arg("list").args(words).output().context("failed to run soloist")
}

/// Group and namespace of all that is listed.
fn listed(words: &[&str]) -> Result<Vec<String>> {
    let output = list(&[words, &["-o", "json"]].concat())?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout)?;
    let groups = list["groups"].as_array().context("no groups")?;
    Ok(groups.iter().filter_map(|group| group["lock"].as_str().map(str::to_owned)).collect())
}

/// A member that is active on a Lease of this name, or on Endpoints.
fn active(cluster: &Cluster, namespace: &str, lease: &str) -> Result<(Group, Member)> {
    if !lease.starts_with("endpoints/") {
        cluster.initial_lease(namespace, lease)?;
    }
    let mut group = Group::new()?;
    group.set("--lease", "4s");
    group.set_lock_url(&format!("kubernetes://{namespace}/{lease}"));
    let member = Member::spawn(&group, "a", &[], &[])?;
    member.wait_active(&group, LIMIT)?;
    Ok((group, member))
}

#[test]
fn only_leases_of_soloist_are_listed_in_one_namespace_or_in_all() -> Result<()> {
    let cluster = Cluster::connect()?;
    let (here, there) = (cluster.namespace()?, cluster.namespace()?);
    let _one = active(&cluster, &here, "one")?;
    let _two = active(&cluster, &there, "two")?;
    let spec = json!({"holderIdentity": "someone", "leaseDurationSeconds": 15});
    let metadata = json!({"name": "foreign", "namespace": here});
    cluster
        .apply(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}))?;
    // More than fit on one page.
    let many: Vec<Value> = (0..120)
        .map(|number| {
            let metadata = json!({"name": format!("foreign-{number}"), "namespace": here});
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
        })
        .collect();
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": many}))?;

    let (one, two) = (format!("kubernetes://{here}/one"), format!("kubernetes://{there}/two"));
    assert_eq!(listed(&[&format!("kubernetes://{here}/")])?, std::slice::from_ref(&one));
    assert_eq!(listed(&[&format!("kubernetes://{there}")])?, std::slice::from_ref(&two));
    let all = listed(&["-A"])?;
    ensure!(all.contains(&one) && all.contains(&two), "{all:?}");
    let output = list(&["kubernetes://default/"])?;
    ensure!(output.status.success(), "{output:?}");
    wait_until("a token", LIMIT, || {
        list(&[&format!("kubernetes://{here}/")]).is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().any(|line| line.split_whitespace().take(3).eq(["one", "-", "a"]) && line.contains(" held "))
        })
    })
}

#[test]
fn groups_in_endpoints_are_listed_beside_those_on_leases() -> Result<()> {
    let cluster = Cluster::connect()?;
    let namespace = cluster.namespace()?;
    let _old = active(&cluster, &namespace, "endpoints/old")?;
    let _new = active(&cluster, &namespace, "old")?;
    let metadata = json!({"name": "foreign", "namespace": namespace});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}))?;
    let locks = ["endpoints/old", "old"].map(|name| format!("kubernetes://{namespace}/{name}"));
    assert_eq!(listed(&[&format!("kubernetes://{namespace}/")])?, locks);
    let all = listed(&["-A"])?;
    ensure!(locks.iter().all(|lock| all.contains(lock)), "{all:?}");
    Ok(())
}

#[test]
fn who_may_not_list_is_told_the_missing_rule() -> Result<()> {
    let cluster = Cluster::connect()?;
    let namespace = cluster.namespace()?;
    cluster.grant(&namespace, "viewer", &json!([]))?;
    let token = cluster.token(&namespace, "viewer")?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("config");
    Server::of_testbed()?.write_kubeconfig(&kubeconfig, &json!({"token": token}))?;
    refused(&kubeconfig, &[&format!("kubernetes://{namespace}/")], "verb list on leases in namespace")?;
    refused(&kubeconfig, &["-A"], "add to a ClusterRole")?;
    cluster.grant(
        &namespace,
        "viewer",
        &json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"]}]),
    )?;
    let words =
        [&format!("kubernetes://{namespace}/"), "--kubeconfig", &kubeconfig.display().to_string()].map(String::from);
    wait_until("the rule to count, and Endpoints to be left out with a word", LIMIT, || {
        list(&words.each_ref().map(String::as_str)).is_ok_and(|output| {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success() && message.contains("groups in Endpoints are not shown: ")
        })
    })?;
    Server::of_testbed()?.write_kubeconfig(&kubeconfig, &json!({"token": "expired"}))?;
    refused(&kubeconfig, &["-A"], "401")
}

fn refused(kubeconfig: &Path, words: &[&str], about: &str) -> Result<()> {
    let kubeconfig = kubeconfig.display().to_string();
    let output = list(&[words, &["--kubeconfig", &kubeconfig]].concat())?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(77) && message.contains(about), "{words:?}: {:?} {message}", output.status);
    Ok(())
}
