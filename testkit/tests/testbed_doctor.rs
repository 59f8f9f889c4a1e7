//! `soloist doctor` finds missing rules and unfit pods on a real API server.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::group::{Group, binary};
use testkit::kubeconfig::Server;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::{wait_for, wait_until};

fn doctor(namespace: &str, words: &[&str]) -> Result<Output> {
    let lock = format!("kubernetes://{namespace}/app");
    let mut command = Command::new(binary("soloist")?);
    command.args(["doctor", "--probes", "5", "-o", "json", "--lock", &lock]).args(words);
    command.output().context("failed to run soloist")
}

fn examined(namespace: &str, words: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let output = doctor(namespace, words)?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), report["findings"].as_array().cloned().unwrap_or_default()))
}

fn all<'a>(findings: &'a [Value], check: &str, level: &str) -> Vec<&'a str> {
    let found = findings.iter().filter(|finding| finding["check"] == check && finding["level"] == level);
    found.filter_map(|finding| finding["found"].as_str()).collect()
}

/// Two members with the names of pods, which are only looked at.
fn two(cluster: &Cluster, namespace: &str, command: &Value) -> Result<(Group, Vec<Member>)> {
    cluster.initial_lease(namespace, "app")?;
    // What a controller makes that does not run here.
    let metadata = json!({"name": "default", "namespace": namespace});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))?;
    for name in ["a", "b"] {
        let metadata = json!({"name": name, "namespace": namespace, "labels": {"app": "app"}});
        let spec = json!({"terminationGracePeriodSeconds": 5, "nodeName": "none",
            "containers": [{"name": "app", "image": "none", "command": command}]});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))?;
    }
    let mut group = Group::new()?;
    group.set("--lease", "4s");
    group.set_lock_url(&format!("kubernetes://{namespace}/app"));
    let first = Member::spawn(&group, "a", &[], &[])?;
    first.wait_active(&group, LIMIT)?;
    let second = Member::spawn(&group, "b", &[], &[])?;
    wait_until("both to announce themselves", LIMIT, || {
        examined(namespace, &[]).is_ok_and(|(_, findings)| all(&findings, "members", "ok") == ["a, b"])
    })?;
    Ok((group, vec![first, second]))
}

#[test]
fn rules_that_are_missing_are_named_and_the_clock_and_the_latency_are_measured() -> Result<()> {
    let cluster = Cluster::connect()?;
    let namespace = cluster.namespace()?;
    cluster.initial_lease(&namespace, "app")?;
    let checks = ["lock", "timing", "latency", "permissions", "clock"];
    let is_well = || {
        let (code, findings) = examined(&namespace, &[]).ok()?;
        let are_ok = checks.iter().all(|check| all(&findings, check, "ok").len() == 1);
        (code == Some(0) && are_ok).then_some(())
    };
    // It has something to say of a machine that is late.
    wait_for("nothing to complain of", LIMIT, is_well).with_context(|| format!("{:?}", examined(&namespace, &[])))?;

    cluster.account(&namespace, "looker", "app", &["get"])?;
    let token = cluster.token(&namespace, "looker")?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("config");
    Server::of_testbed()?.write_kubeconfig(&kubeconfig, &json!({"token": token}))?;
    let (code, findings) = examined(&namespace, &["--kubeconfig", &path(&kubeconfig)])?;
    assert_eq!((code, all(&findings, "permissions", "problem")), (Some(1), vec!["may not update leases"]));
    assert_eq!(all(&findings, "permissions", "ok"), ["may get leases"]);
    assert_eq!(all(&findings, "permissions", "warning").len(), 3, "{findings:?}");
    Ok(())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn pods_with_a_shell_a_short_grace_and_a_service_for_all_are_found() -> Result<()> {
    let cluster = Cluster::connect()?;
    let namespace = cluster.namespace()?;
    let command = json!(["sh", "-c", "soloist run --route endpoint-slice:web -- server"]);
    let (_group, _members) = two(&cluster, &namespace, &command)?;
    let metadata = json!({"name": "all", "namespace": namespace});
    let spec = json!({"selector": {"app": "app"}, "ports": [{"port": 80}]});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))?;

    let (code, findings) = examined(&namespace, &[])?;
    assert_eq!(code, Some(1), "{findings:?}");
    for (check, level) in [("pid-1", "problem"), ("grace", "problem"), ("service", "warning")] {
        ensure!(!all(&findings, check, level).is_empty(), "{check}: {findings:?}");
    }
    let (_, findings) = examined(&namespace, &["--stop-grace", "1s"])?;
    ensure!(all(&findings, "grace", "problem").is_empty(), "{findings:?}");
    ensure!(findings.iter().all(|finding| finding["level"] == "ok" || finding["fix"].is_string()), "{findings:?}");
    Ok(())
}
