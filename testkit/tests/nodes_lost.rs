//! A node ends as by a loss of power: kubelet, runtime and all processes of its pods at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::lease_group::BEYOND;
use testkit::pods::{LIMIT, Pair, Pods, PowerLoss};
use testkit::wait::wait_until;

const LEASE: Duration = Duration::from_secs(4);

/// As much later than the standby may kubectl hear of a renewal, on a busy machine.
const LATER: Duration = Duration::from_millis(300);

#[test]
fn a_node_without_power_costs_a_lease_and_its_pod_stands_by_when_it_is_back() -> Result<()> {
    let pods = Pods::new()?;
    let active = Pair::new("power", LEASE).start(&pods)?;
    let renewals = pods.hear_renewals("power")?;
    let last_sight = || renewals.last_change(&format!("{} ", active.member));
    wait_until("a renewal", LIMIT, || last_sight().is_some())?;
    let node = pods.node_of(&active.member)?;
    let loss = PowerLoss::new(&node)?;
    let next = pods.wait_active_after(active.token, LIMIT)?;
    let last_sight = last_sight().context("no renewal was heard")?;
    let waited = Duration::from_nanos(next.first.saturating_sub(last_sight));
    eprintln!("a node without power: the next one is active {waited:?} after the last sight");
    ensure!(next.member != active.member, "the pod of the dead node came first{}", pods.logs());
    ensure!(waited + LATER >= LEASE, "too early, after {waited:?}{}", pods.logs());
    ensure!(waited <= LEASE + BEYOND, "too late, after {waited:?}{}", pods.logs());

    loss.end()?;
    let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    pods.kubectl(&["wait", again, "--timeout=90s", &format!("pod/{}", active.member)])?;
    let ready = "--for=condition=Ready";
    pods.kubectl(&["wait", ready, "--timeout=90s", &format!("node/{node}"), &format!("pod/{}", active.member)])?;
    let log = pods.kubectl(&["logs", &active.member])?;
    ensure!(log.contains("role=standby") && !log.contains("role=active"), "{log}");
    pods.check(2)
}
