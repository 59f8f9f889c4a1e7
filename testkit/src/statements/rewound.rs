//! A store is put back to an older state, as from a backup, while a group uses it.
#![expect(missing_docs, reason = "the name of a statement says it")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::relayed::{Placed, View};
use crate::scenario::{LIMIT, check};
use crate::stamp;
use crate::wait::{holds_for, wait_until, within};

/// Long enough for the servers to be back while the holder still holds: D is 8 s.
const LEASE: Duration = Duration::from_secs(12);

/// So many renewals are forgotten.
const FORGOTTEN: u64 = 4;

/// How long the holder lives on once the store is back: until it looks.
const NOTICED: Duration = Duration::from_secs(3);

pub fn a_store_that_went_back_ends_the_holder_and_costs_everybody_a_lease<P: Placed>() -> Result<()> {
    let pair = P::with_lease(LEASE)?;
    let View { relayed, members, active } = pair.view();
    let (group, relay) = (&relayed.group, relayed.relay("a")?);
    let backup = group.folder().join("backup");
    pair.store().keep(&backup)?;
    let asked = relay.asked("PUT");
    wait_until("renewals", LIMIT, || relay.asked("PUT") > asked + FORGOTTEN)?;

    let began = stamp::now();
    pair.store().put_back(&backup)?;
    let back = stamp::now();
    let next = group.wait_active_after(active.token, LEASE * 4)?;
    let spans = group.history().spans;
    let old = spans.iter().find(|span| span.token == active.token).context("the first one is lost")?;
    let after = |instant: u64| Duration::from_nanos(instant.saturating_sub(began));
    let told = format!(
        "the store was back after {:?}; the old one ended after {:?}, the next one is {} after {:?}\n{}",
        after(back),
        after(old.last),
        next.member,
        after(next.first),
        group.logs()
    );
    ensure!(after(old.last) < after(back) + NOTICED, "it went on: {told}");
    let waited = Duration::from_nanos(next.first.saturating_sub(old.last));
    ensure!(waited >= LEASE / 2, "a release was believed: {told}");
    within("the next one to be active", after(next.first), after(back) + LEASE * 2).with_context(|| told.clone())?;
    eprintln!("{told}");
    holds_for("it stays so", LEASE / 2, || group.history().spans.len() == 2)?;
    for member in members {
        ensure!(member.elector_pid().is_ok(), "{} has ended: {told}", member.name());
    }
    check(group, 2, active)
}
