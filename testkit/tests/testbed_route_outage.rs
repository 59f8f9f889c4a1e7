//! Who gets traffic while the API server hangs or dies, for longer than the lease: never two, as watches see it, and
//! whoever is active afterwards. One test at a time, as both share the servers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use testkit::lease_group::LEASE;
use testkit::outage::{BACK, Outage};
use testkit::routed::{ROUTES, Site};
use testkit::scenario::check;
use testkit::wait::holds_for;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the API server away until the active one has given up, and brings it back: both try again then. `sees_all` says
/// whether watches live on meanwhile.
fn traffic_after(verb: &str, sees_all: bool) -> Result<()> {
    let _turn = alone();
    let mut site = Site::new()?;
    let before = site.views()?;
    let (_members, active) = site.pair(&ROUTES)?;
    before.wait("a")?;
    let outage = Outage::begin(&site.cluster, verb, "kube-apiserver")?;
    let group = &site.group.group;
    let during = holds_for("nobody else is active", LEASE * 2, || group.history().spans.len() == 1);
    outage.end()?;
    during?;
    let views = if sees_all { before } else { site.views()? };
    let next = group.wait_active_after(active.token, BACK)?;
    views.wait(&next.member).with_context(|| group.logs())?;
    holds_for("it stays so", LEASE * 2, || views.show(&next.member)).with_context(|| group.logs())?;
    let turns = ["a", next.member.as_str()];
    // The same one may be active again, and the views may have begun after the old one was withdrawn.
    match (sees_all, next.member == "a") {
        (true, false) => views.check(&turns)?,
        (true, true) => views.check(&turns[..1])?,
        (false, _) => views.never_two()?,
    }
    check(group, 2, &active)
}

#[test]
fn an_api_server_that_hangs_never_makes_traffic_go_to_two() -> Result<()> {
    traffic_after("pause", true)
}

#[test]
fn an_api_server_that_was_killed_never_makes_traffic_go_to_two() -> Result<()> {
    traffic_after("kill", false)
}
