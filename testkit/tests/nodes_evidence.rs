//! The container of the active one is killed on a real node. The others do not wait for its lease where the kubelet
//! says that it has ended, and its own next run does not either.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::history::Span;
use testkit::pods::{LIMIT, Pods};
use testkit::process;
use testkit::wait::wait_until;

/// Much longer than anything here takes: who waits for it is found out.
const LEASE: Duration = Duration::from_secs(30);

/// From the word to the next workload: a write, a start, and two busy processors.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Two pods of one group on two nodes. `arguments` come before the command.
fn group(pods: &Pods, name: &str, rules: Value, arguments: &[&str]) -> Result<()> {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "annotations": {"soloist.dev/initial": "true"}}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name}]});
    for object in [lease, account, role, binding] {
        pods.create(&object)?;
    }
    for node in ["node1", "node2"] {
        let mut command = vec!["run".to_owned(), format!("--lock=kubernetes:///{name}")];
        command.push(format!("--lease={}s", LEASE.as_secs()));
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        command.extend(["--", "my-app"].map(str::to_owned));
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        pods.create_pod(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-{node}")},
        "spec": {"nodeName": node, "serviceAccountName": name, "containers": [{
            "name": "main", "command": ["/usr/bin/soloist"], "args": command,
            "env": [{"name": "POD_NAME", "valueFrom": from("metadata.name")},
                {"name": "POD_UID", "valueFrom": from("metadata.uid")},
                {"name": "POD_NAMESPACE", "valueFrom": from("metadata.namespace")}],
        }]}}))?;
    }
    Ok(())
}

fn lease_rule(name: &str) -> Value {
    json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name],
        "verbs": ["get", "watch", "update"]})
}

fn wait_ready(pods: &Pods, name: &str) -> Result<Span> {
    for node in ["node1", "node2"] {
        pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{name}-{node}")])?;
    }
    pods.wait_active_after(0, LIMIT)
}

/// What the record says of the holder's container.
fn recorded(pods: &Pods, name: &str) -> Result<Value> {
    let lease: Value = serde_json::from_str(&pods.kubectl(&["get", "lease", name, "-o", "json"])?)?;
    let text = lease["metadata"]["annotations"]["soloist.dev/record"].as_str().context("no record")?;
    let record: Value = serde_json::from_str(text)?;
    Ok(record["backend"]["container"].clone())
}

/// Kills the first process of the container that is active, and with it the container.
fn kill(pods: &Pods, active: &Span) -> Result<()> {
    process::signal(pods.first_process(&active.member)?.pid, Signal::KILL)
}

fn span(pods: &Pods, token: u64) -> Result<Span> {
    pods.history().spans.into_iter().find(|span| span.token == token).context("an activation is lost")
}

fn between(earlier: u64, later: u64) -> Duration {
    Duration::from_nanos(later.saturating_sub(earlier))
}

#[test]
fn the_kubelets_word_ends_the_wait_for_a_killed_container() -> Result<()> {
    let pods = Pods::new()?;
    let rules = json!([
        lease_rule("word"),
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ]);
    group(&pods, "word", rules, &["--evidence=pod"])?;
    let mut active = wait_ready(&pods, "word")?;
    for _ in 0..2 {
        let names_the_run = || {
            recorded(&pods, "word")
                .is_ok_and(|container| container["pod"] == *active.member && container["id"].is_string())
        };
        wait_until("the record names the run", LIMIT, names_the_run).with_context(|| pods.logs())?;
        let end = pods.hear_end_of(&active.member)?;
        kill(&pods, &active)?;
        let next = pods.wait_active_after(active.token, LIMIT)?;
        let (told, last) = (end.told()?, span(&pods, active.token)?.last);
        eprintln!(
            "the kubelet's word {:?} after the last instant; the next one is active {:?} after the word, {:?} in all",
            between(last, told),
            between(told, next.first),
            between(last, next.first)
        );
        ensure!(next.member != active.member, "the container that was killed came first{}", pods.logs());
        ensure!(between(told, next.first) < PROMPT, "not promptly{}", pods.logs());
        let log = pods.kubectl(&["logs", &next.member])?;
        ensure!(log.contains("proven gone (terminated)"), "{log}");
        // The standby of the next round is the container that was killed in this one.
        pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{}", active.member)])?;
        active = next;
    }
    events_tell(&pods, "word", &active)?;
    pods.check(3)
}

/// Events on the Lease and on the pod say who is active and why.
fn events_tell(pods: &Pods, name: &str, active: &Span) -> Result<()> {
    let messages = |object: &str| {
        let selector = format!("--field-selector=involvedObject.name={object},reason=Active");
        pods.kubectl(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"]).unwrap_or_default()
    };
    let are_there =
        || [name, &active.member].iter().all(|object| messages(object).contains("proven gone (terminated)"));
    wait_until("Events", LIMIT, are_there).with_context(|| messages(name))
}

#[test]
fn the_next_run_of_a_killed_container_does_not_wait() -> Result<()> {
    let pods = Pods::new()?;
    group(&pods, "again", json!([lease_rule("again")]), &[])?;
    let active = wait_ready(&pods, "again")?;
    kill(&pods, &active)?;
    let next = pods.wait_active_after(active.token, LIMIT)?;
    let first = pods.first_process(&next.member)?.started_ns()?;
    let last = span(&pods, active.token)?.last;
    eprintln!(
        "the next run began {:?} after the last instant; it is active {:?} later, {:?} in all",
        between(last, first),
        between(first, next.first),
        between(last, next.first)
    );
    ensure!(next.member == active.member, "another container came first{}", pods.logs());
    ensure!(between(first, next.first) < PROMPT, "not promptly{}", pods.logs());
    // Until the kubelet has told of the next run, this is the log of the one before.
    let log = || pods.kubectl(&["logs", &next.member]).unwrap_or_default();
    wait_until("the next run's log", LIMIT, || log().contains("proven gone (restarted)"))
        .with_context(|| pods.logs())?;
    wait_until("the missing rule", LIMIT, || log().contains("no Events are written")).with_context(|| pods.logs())?;
    ensure!(log().matches("no Events are written").count() == 1, "a Role without events costs one line: {}", log());
    pods.check(2)
}
