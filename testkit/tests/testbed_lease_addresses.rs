//! The API server has a name and several addresses: one of them swallows everything, the name cannot be looked up, or it
//! leads to somebody else. And its certificates come from another authority than before.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::cluster::Cluster;
use testkit::history::Span;
use testkit::lease_group::{LEASE, LeaseGroup, Pair};
use testkit::relay::{Authority, Relay};
use testkit::root::Swallowed;
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until};

/// Two addresses that no other test uses.
fn two(network: u8) -> [Ipv4Addr; 2] {
    [1, 2].map(|host| Ipv4Addr::new(127, 77, network, host))
}

/// Which of the servers gets the writes of a member.
fn in_use(relays: &[Relay]) -> Result<usize> {
    let before: Vec<u64> = relays.iter().map(|relay| relay.asked("PUT")).collect();
    let busy = || relays.iter().zip(&before).position(|(relay, before)| relay.asked("PUT") > before + 1);
    wait_for("a server to get renewals", LIMIT, busy)
}

/// The member that was first stays active for `time`.
fn stays(group: &LeaseGroup, active: &Span, time: Duration) -> Result<()> {
    holds_for("nobody else becomes active", time, || group.group.history().spans.len() == 1)
        .with_context(|| group.group.logs())?;
    wait_until("a stamp", LIMIT, || group.group.active().is_some_and(|span| span.token == active.token))
        .with_context(|| group.group.logs())
}

/// `a` by name at these addresses, and active; `b` stands by behind a relay of its own.
fn a_by_name(addresses: &[Ipv4Addr]) -> Result<Pair> {
    Pair::by(|group, cluster| {
        group.settle(&["a", "b"], |group, name| match name {
            "a" => group.spawn_by_name(cluster, name, addresses),
            _ => group.spawn(cluster, name, &[]),
        })
    })
}

#[test]
fn an_address_that_swallows_everything_costs_the_holder_nothing() -> Result<()> {
    let addresses = two(1);
    let Pair { group, active, .. } = &a_by_name(&addresses)?;
    let relays = group.relays("a")?;
    for _ in 0..2 {
        let before = in_use(relays)?;
        let swallowed = Swallowed::new(addresses[before])?;
        stays(group, active, LEASE * 2)?;
        let after = in_use(relays)?;
        ensure!(after != before, "renewals went to the address that swallows them");
        drop(swallowed);
    }
    group.group.history().check(1, 2)
}

#[test]
fn an_address_that_swallows_everything_is_not_in_the_way_of_a_takeover() -> Result<()> {
    let addresses = two(2);
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    let _swallowed = Swallowed::new(addresses[0])?;
    let (_members, active) = group.settle(&["a", "b"], |group, name| match name {
        "b" => group.spawn_by_name(&cluster, name, &addresses),
        _ => group.spawn(&cluster, name, &[]),
    })?;
    stays(&group, &active, LEASE * 2)?;
    group.relay("a")?.black_hole();
    let handover = follow(&group.group, &active, stamp::now())?;
    group.came_after_a_lease(&handover, LEASE)?;
    group.relay("a")?.heal();
    check(&group.group, 2, &active)
}

#[test]
fn a_name_that_nobody_knows_any_more_stops_nobody() -> Result<()> {
    let Pair { group, active, .. } = &a_by_name(&two(3))?;
    group.lead("a", &[])?;
    for _ in 0..2 {
        // Whatever was connected must find the way again, by what the name led to before.
        group.relays("a")?.iter().for_each(Relay::end_connections);
        stays(group, active, LEASE)?;
    }
    group.group.history().check(1, 2)
}

#[test]
fn a_name_that_leads_to_somebody_else_ends_the_holder_in_time() -> Result<()> {
    let (addresses, [elsewhere, _]) = (two(4), two(5));
    let Pair { cluster, group, members, active } = &a_by_name(&addresses)?;
    // The same port, and another authority.
    let port = group.relay("a")?.address().port();
    let other = cluster.relay_at((elsewhere, port).into())?;
    group.lead("a", &[elsewhere])?;
    group.relays("a")?.iter().for_each(Relay::end_connections);
    let handover = follow(&group.group, active, stamp::now())?;
    group.came_after_a_lease(&handover, LEASE)?;
    ensure!(other.requests().is_empty(), "somebody else was asked: {:?}", other.requests());
    ensure!(members[0].log().contains("certificate"), "not said why: {}", members[0].log());
    group.lead("a", &addresses)?;
    members[0].wait_standby(LIMIT)?;
    check(&group.group, 2, active)
}

/// Replaces what a member trusts, as the kubelet does it: the new file takes the place of the old one.
fn trust(group: &LeaseGroup, name: &str, authorities: &[&str]) -> Result<()> {
    let path = group.kubeconfig(name).with_extension("ca");
    let new = path.with_extension("new");
    fs::write(&new, authorities.concat())?;
    fs::rename(new, path).context("failed to replace an authority")
}

#[test]
fn an_authority_that_is_replaced_stops_nobody_and_is_verified() -> Result<()> {
    let Pair { group, members, active, .. } = &Pair::start()?;
    let new = Authority::new()?;
    for name in ["a", "b"] {
        let relay = group.relay(name)?;
        trust(group, name, &[relay.authority(), &new.pem()])?;
    }
    stays(group, active, LEASE / 4)?;
    for name in ["a", "b"] {
        // The server starts again with a certificate of the new authority.
        let relay = group.relay(name)?;
        relay.certify_by(&new);
        relay.end_connections();
    }
    stays(group, active, LEASE)?;
    for name in ["a", "b"] {
        trust(group, name, &[&new.pem()])?;
        group.relay(name)?.end_connections();
    }
    stays(group, active, LEASE)?;
    // An authority that is not in the file is not believed.
    let relay = group.relay("a")?;
    let asked = relay.asked("PUT");
    relay.certify_by(&Authority::new()?);
    relay.end_connections();
    let handover = follow(&group.group, active, stamp::now())?;
    group.came_after_a_lease(&handover, LEASE)?;
    ensure!(relay.asked("PUT") <= asked + 1, "asked a server that is not trusted");
    relay.certify_by(&new);
    members[0].wait_standby(LIMIT)?;
    check(&group.group, 2, active)
}
