//! examples/kubernetes/singleton-service.yml with real pods: soloist in the place of k8s-await-election writes the
//! Endpoints of a Service, the cluster mirrors them into a slice, and kube-proxy follows that. Who answers meanwhile.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use testkit::history::Span;
use testkit::pods::{CutOff, LIMIT, NAMESPACE, Pods, Traffic};
use testkit::traffic::View;
use testkit::wait::wait_until;

const APP: &str = "my-singleton";

/// A short lease, as that program is told it.
const TIMES: [(&str, &str); 3] = [("LEASE_DURATION", "4"), ("RENEW_DEADLINE", "3"), ("RETRY_PERIOD", "1")];

fn install(pods: &Pods) -> Result<Span> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes/singleton-service.yml");
    pods.apply(&example, |object| {
        if let Some(variables) = object.pointer_mut("/spec/template/spec/containers/0/env") {
            let times =
                TIMES.map(|(name, value)| json!({"name": format!("K8S_AWAIT_ELECTION_{name}"), "value": value}));
            variables.as_array_mut().into_iter().for_each(|variables| variables.extend(times.clone()));
        }
    })?;
    let active = pods.wait_active_after(0, LIMIT)?;
    pods.wait_rolled_out(APP, 2)?;
    Ok(active)
}

fn watch(pods: &Pods, node: &str) -> Result<Traffic> {
    let endpoints = View::of_endpoints(pods.client(), NAMESPACE, APP)?;
    Ok(Traffic::watch(pods, node, &[APP])?.and(endpoints))
}

/// The activation after `old`, once its pod answers.
fn next(pods: &Pods, traffic: &Traffic, old: &Span, after: &str) -> Result<Span> {
    pods.wait_active_after(old.token, LIMIT)?;
    pods.wait_rolled_out(APP, 2)?;
    // One that was active in between may be gone with its pod.
    let new = pods.wait_active_after(old.token, LIMIT)?;
    traffic.wait(&new).with_context(|| pods.logs())?;
    traffic.check(pods, after)?;
    Ok(new)
}

/// How often the only container of a pod was started anew.
fn restarts(pods: &Pods, pod: &str) -> Result<u32> {
    let path = "jsonpath={.status.containerStatuses[0].restartCount}";
    pods.kubectl(&["get", "pod", pod, "-o", path])?.parse().context("no count")
}

#[test]
fn only_the_active_pod_of_the_stand_in_answers_at_the_address_of_its_service() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods)?;
    let traffic = watch(&pods, "node1")?;
    traffic.wait(&first)?;

    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = next(&pods, &traffic, &first, "delete")?;

    pods.crash_command(&second)?;
    let third = next(&pods, &traffic, &second, "crash")?;
    drop(traffic);

    let lost = pods.node_of(&third.member)?;
    let traffic = watch(&pods, &pods.wait_elsewhere(&third.member)?)?;
    traffic.wait(&third)?;
    let (runs, cut) = (restarts(&pods, &third.member)?, CutOff::new(&lost)?);
    let fourth = pods.wait_active_after(third.token, LIMIT)?;
    traffic.wait(&fourth)?;
    drop(cut);
    // The one that was cut off has found out, and takes nothing back.
    let is_told = || restarts(&pods, &third.member).is_ok_and(|now| now > runs);
    wait_until("the kubelet to tell of its next run", LIMIT, is_told).with_context(|| pods.logs())?;
    traffic.check(&pods, "loss of a node")?;
    pods.check(4)
}
