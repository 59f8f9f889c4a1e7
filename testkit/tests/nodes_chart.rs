//! The chart, installed in one command, as real pods: an eviction of the active one is a handover.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::helm::{Chart, values};
use testkit::pods::{LEASE, LIMIT, NAMESPACE, Pods};
use testkit::wait::{wait_for, within};

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// The release, until the test ends.
struct Installed(Chart);

impl Installed {
    /// As it is released: no shell, and not root.
    fn new(number: usize, release: &str, more: &Value) -> Result<Self> {
        let mut values = values(number, more)?;
        values["image"] = json!({"repository": "localhost/soloist-plain-test", "tag": "testbed"});
        values["lease"] = format!("{}s", LEASE.as_secs()).into();
        let chart = Chart::new(NAMESPACE, release)?;
        chart.helm("install", &values, &["--wait", "--timeout=60s"])?;
        Ok(Self(chart))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = self.0.uninstall() {
            eprintln!("something is left in the cluster: {error:#}");
        }
    }
}

#[test]
fn an_eviction_after_an_installation_is_a_handover() -> Result<()> {
    let pods = Pods::new()?;
    let application = json!({
        "application": {
            "image": "localhost/soloist-test:testbed",
            "volumeMounts": [{"name": "stamps", "mountPath": "/stamps"}],
        },
        "volumes": [{"name": "stamps", "hostPath": {"path": pods.stamps()}}],
    });
    let _installed = Installed::new(0, "my-chart", &application)?;
    let first = pods.wait_active_after(0, LIMIT)?;
    let log = pods.wait_said(&first.member, "active with token")?;
    ensure!(!log.contains("waiting"), "{log}");

    pods.evict(&first.member)?;
    let second = pods.wait_active_after(first.token, LIMIT)?;
    let last = pods.history().spans.into_iter().find(|span| span.token == first.token).map_or(0, |span| span.last);
    let gap = Duration::from_nanos(second.first.saturating_sub(last));
    eprintln!("eviction: gap {gap:?}");
    within("the next one after an eviction", gap, PROMPT).with_context(|| pods.logs())?;
    pods.check(2)
}

/// Waits until exactly one pod of the application is labelled as active, and another one than this.
fn wait_labelled(pods: &Pods, app: &str, other_than: &str) -> Result<String> {
    let selector = format!("app={app},role=active");
    let one = || {
        let names = pods.kubectl(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].metadata.name}"]).ok()?;
        let mut names = names.split_ascii_whitespace();
        let first = names.next().filter(|name| names.next().is_none() && *name != other_than)?;
        Some(first.to_owned())
    };
    wait_for("one active pod", LIMIT, one).with_context(|| pods.logs())
}

#[test]
fn labels_move_under_the_policies_that_only_let_soloist_write_them() -> Result<()> {
    let pods = Pods::new()?;
    let application =
        json!({"image": "localhost/soloist-test:testbed", "command": ["sleep"], "args": ["1000"], "healthPath": ""});
    let sidecars =
        Installed::new(1, "my-warm", &json!({"application": application, "terminationGracePeriodSeconds": 2}))?;
    let first = wait_labelled(&pods, "my-warm", "")?;
    pods.evict(&first)?;
    wait_labelled(&pods, "my-warm", &first)?;
    drop(sidecars);

    let _controller = Installed::new(2, "my-controller", &json!({"controller": {"critical": []}}))?;
    let container = json!({"name": "main", "image": "localhost/soloist-test:testbed", "command": ["sleep", "1000"]});
    pods.create(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hapod"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "hapod"}},
        "template": {"metadata": {"labels": {"app": "hapod"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}}}))?;
    let first = wait_labelled(&pods, "hapod", "")?;
    pods.evict(&first)?;
    wait_labelled(&pods, "hapod", &first)?;
    Ok(())
}
