//! What members ask of Consul while nothing happens, by the requests that came by a relay.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::consul::Consul;
use testkit::consul_group::{Choice, ConsulGroup};
use testkit::consul_lock::{Kind, LEASE, LIMIT, Site};
use testkit::relay::Relay;
use testkit::wait::{holds_for, wait_until};

/// Many renewals, and less than a query waits for.
const WINDOW: Duration = Duration::from_secs(20);
/// The least number of renewals in it: three of a lease.
const RENEWALS: u64 = WINDOW.as_secs() * 2 / LEASE.as_secs();

/// How many queries came by `relay` while it carried that many renewals.
fn queries(relay: &Relay, mut is_active: impl FnMut() -> bool) -> Result<u64> {
    let count = || (relay.asked("WATCH") + relay.asked("GET"), relay.asked("PUT"));
    // What a start costs is over then.
    let before = count();
    wait_until("renewals", LIMIT, || relay.asked("PUT") > before.1 + 2)?;
    let begun = count();
    holds_for("nothing happens", WINDOW, &mut is_active)?;
    let ended = count();
    eprintln!("{:?} in {WINDOW:?}", relay.requests());
    ensure!(ended.1 - begun.1 >= RENEWALS, "{} writes are not enough to count by", ended.1 - begun.1);
    Ok(ended.0 - begun.0)
}

/// It posts nothing, and Consul answers a query for nothing whenever any key changes.
#[test]
fn an_active_stand_in_is_not_told_of_its_own_renewals() -> Result<()> {
    let mut site = Site::new()?;
    let relay = site.relay()?;
    let _holder = site.contend(Kind::Ours, "o", &[])?;
    let active = site.wait_active("o", LIMIT)?;
    let asked = queries(&relay, || site.group.history().spans.len() == 1)?;
    // The one that is answered because others write, until the trace is there, and its next one.
    ensure!(asked <= 2, "{asked} queries\n{active}");
    ensure!(site.keys()?.len() == 1, "keys that `consul lock` has not: {:?}", site.keys()?);
    site.check(1)
}

#[test]
fn an_active_member_is_not_told_of_its_own_renewals() -> Result<()> {
    let consul = Consul::connect()?;
    let mut group = ConsulGroup::new(&consul)?;
    let member = group.spawn(&consul, "a", Choice::default())?;
    member.wait_active(&group.group, LIMIT)?;
    let asked = queries(group.relay("a")?, || group.group.history().spans.len() == 1)?;
    ensure!(asked <= 2, "{asked} queries");
    group.group.check(1, 2)
}
