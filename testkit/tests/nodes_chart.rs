//! The chart, installed in one command, as real pods: an eviction of the active one is a handover.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testkit::helm::{Chart, values};
use testkit::pods::{LEASE, LIMIT, NAMESPACE, Pods};

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// The release, until the test ends.
struct Installed(Chart);

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
    let chart = Chart::new(NAMESPACE, "my-chart")?;
    let values = values(
        0,
        &json!({
            // As it is released: no shell, and not root.
            "image": {"repository": "localhost/soloist-plain-test", "tag": "testbed"},
            "application": {
                "image": "localhost/soloist-test:testbed",
                "volumeMounts": [{"name": "stamps", "mountPath": "/stamps"}],
            },
            "volumes": [{"name": "stamps", "hostPath": {"path": pods.stamps()}}],
            "lease": format!("{}s", LEASE.as_secs()),
        }),
    )?;
    chart.helm("install", &values, &["--wait", "--timeout=60s"])?;
    let _installed = Installed(chart);
    let first = pods.wait_active_after(0, LIMIT)?;
    let log = pods.kubectl(&["logs", &first.member])?;
    ensure!(log.contains("active with token") && !log.contains("waiting"), "{log}");

    pods.evict(&first.member)?;
    let second = pods.wait_active_after(first.token, LIMIT)?;
    let last = pods.history().spans.into_iter().find(|span| span.token == first.token).map_or(0, |span| span.last);
    let gap = Duration::from_nanos(second.first.saturating_sub(last));
    eprintln!("eviction: gap {gap:?}");
    ensure!(gap < PROMPT, "the gap was {gap:?}{}", pods.logs());
    pods.check(2)
}
