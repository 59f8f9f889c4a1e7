//! A node ends as by a loss of power: kubelet, runtime and all processes of its pods at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::pods::{Failover, Pair, Pods};

const LEASE: Duration = Duration::from_secs(4);

#[test]
fn a_node_without_power_costs_a_lease_and_its_pod_stands_by_when_it_is_back() -> Result<()> {
    let pods = Pods::new()?;
    let active = Pair::new("power", LEASE).start(&pods)?;
    let Failover { node, loss, .. } = Failover::of(&pods, "power", LEASE, &active)?;

    loss.end()?;
    let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    pods.kubectl(&["wait", again, "--timeout=90s", &format!("pod/{}", active.member)])?;
    let ready = "--for=condition=Ready";
    pods.kubectl(&["wait", ready, "--timeout=90s", &format!("node/{node}"), &format!("pod/{}", active.member)])?;
    let log = pods.wait_said(&active.member, "role=standby")?;
    ensure!(!log.contains("role=active"), "{log}");
    pods.check(2)
}
