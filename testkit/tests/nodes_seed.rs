//! A Deployment that was made for k8s-await-election, with the Role of that program, as real pods: soloist is the entry
//! point of the image, and nothing else is changed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::history::Span;
use testkit::pods::{LIMIT, NAMESPACE, Pods};
use testkit::wait::within;

/// Called by the name of the program that it stands in for.
const IMAGE: &str = "localhost/soloist-await-test:testbed";
const APP: &str = "my-singleton-with-replicas";

/// Without "watch" a standby looks once in a retry period of 2 s. That program took 14 to 19 s.
const SOON: Duration = Duration::from_secs(5);

fn install(pods: &Pods) -> Result<Span> {
    let rules =
        json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]);
    pods.client().grant(NAMESPACE, APP, &rules)?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/singleton-with-replicas.yml");
    pods.apply(&manifest, |object| {
        let pod = &mut object["spec"]["template"]["spec"];
        pod["serviceAccountName"] = APP.into();
        pod["containers"][0]["image"] = IMAGE.into();
    })?;
    let active = pods.wait_active_after(0, LIMIT)?;
    pods.wait_rolled_out(APP, 5)?;
    Ok(active)
}

/// Who is active after `old`, once everything has settled; whoever came in between came soon.
fn handed_over(pods: &Pods, old: &Span, after: &str) -> Result<Span> {
    pods.wait_active_after(old.token, LIMIT)?;
    pods.wait_rolled_out(APP, 5)?;
    // A rolling update may hand over more than once, the last time when the last old pod is gone already.
    let active = pods.wait_active_after(old.token, LIMIT)?;
    let history = pods.history();
    let worst = history.gaps().into_iter().map(|gap| gap.length).max().context("no handover")?;
    eprintln!("{after}: {} activations so far, the longest gap {worst:?}", history.spans.len());
    within(after, worst, SOON).with_context(|| pods.logs())?;
    Ok(active)
}

#[test]
fn a_deployment_made_for_k8s_await_election_survives_delete_update_and_eviction() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods)?;
    let log = pods.kubectl(&["logs", &first.member])?;
    ensure!(log.contains("long live our new leader"), "{log}");
    ensure!(log.contains("starting command 'my-singleton-server'"), "{log}");

    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = handed_over(&pods, &first, "delete")?;

    pods.kubectl(&["rollout", "restart", &format!("deployment/{APP}")])?;
    let third = handed_over(&pods, &second, "rolling update")?;

    pods.evict(&third.member)?;
    handed_over(&pods, &third, "eviction")?;
    pods.check(4)
}
