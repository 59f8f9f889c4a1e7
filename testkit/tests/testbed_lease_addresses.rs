//! The API server has a name and several addresses: one of them swallows everything, the name cannot be looked up, or it
//! leads to somebody else. And its certificates come from another authority than before.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use testkit::cluster::Cluster;
use testkit::lease_group::{LEASE, LeaseGroup, Pair};
use testkit::relay::Relay;
use testkit::root::Swallowed;
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::wait_for;

testkit::state!(authority, Pair);

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
        group.stays(active.token, LEASE * 2)?;
        let after = in_use(relays)?;
        ensure!(after != before, "renewals went to the address that swallows them");
        drop(swallowed);
    }
    group.group.check(1, 2)
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
    group.stays(active.token, LEASE * 2)?;
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
        group.stays(active.token, LEASE)?;
    }
    group.group.check(1, 2)
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
