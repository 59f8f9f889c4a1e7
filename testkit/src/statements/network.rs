//! What networks and busy servers do between a member and its store: never two are active, and the role moves only when
//! it must.
#![expect(missing_docs, reason = "the name of a statement says it")]

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::relay::{Fault, Scope, Which};
use crate::relayed::{LEASE, Placed, View};
use crate::scenario::{LIMIT, check, follow};
use crate::stamp;
use crate::wait::{holds_for, wait_until};

/// D, the point at which a holder that nobody has confirmed kills its workload.
const DEADLINE_MS: u64 = 2630;

/// The fault that was just done to `a` costs it the lease: `b` follows in time, and `a` stands by after `heal`.
fn a_is_overtaken_and_stands_by(pair: View<'_>) -> Result<()> {
    let View { relayed, members, active } = pair;
    let handover = follow(&relayed.group, active, stamp::now())?;
    relayed.came_after_a_lease(&handover, LEASE)?;
    relayed.relay("a")?.heal();
    members[0].wait_standby(LIMIT)?;
    relayed.stays(handover.new.token, LEASE)?;
    check(&relayed.group, 2, active)
}

/// The fault that was just done to `a`, and happens for a few leases, stops nobody.
fn a_stays(pair: View<'_>) -> Result<()> {
    pair.relayed.stays(pair.active.token, LEASE * 3)?;
    ensure!(pair.relayed.relay("a")?.fired() > 0, "the fault never happened");
    pair.relayed.relay("a")?.heal();
    pair.relayed.stays(pair.active.token, LEASE)?;
    pair.relayed.group.check(1, 2)
}

pub fn a_black_hole_of_the_active_one_costs_a_lease<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.black_hole();
    a_is_overtaken_and_stands_by(pair)
}

pub fn a_black_hole_of_the_standby_disturbs_nobody_and_it_takes_over_later<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("b")?.black_hole();
    pair.relayed.stays(pair.active.token, LEASE * 2)?;
    pair.relayed.relay("b")?.heal();
    // What b saw is old; it must see the lease as it is now before it may wait for it.
    pair.relayed.stays(pair.active.token, LEASE * 2)?;
    pair.relayed.relay("a")?.black_hole();
    a_is_overtaken_and_stands_by(pair)
}

pub fn a_black_hole_that_ends_soon_stops_nobody<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    let relay = pair.relayed.relay("a")?;
    let asked = relay.asked("PUT");
    relay.black_hole();
    pair.relayed.stays(pair.active.token, Duration::from_millis(DEADLINE_MS / 3))?;
    relay.heal();
    wait_until("a renewal", LIMIT, || relay.asked("PUT") > asked + 2)?;
    pair.relayed.stays(pair.active.token, LEASE)?;
    pair.relayed.group.check(1, 2)
}

pub fn a_cut_that_lasts_costs_a_lease<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.cut();
    a_is_overtaken_and_stands_by(pair)
}

pub fn answers_that_never_come_extend_nothing<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    let relay = pair.relayed.relay("a")?;
    // The first announcement shares the only connection with the renewals, and would keep it from them.
    let asked = relay.asked("PUT");
    wait_until("renewals", LIMIT, || relay.asked("PUT") > asked + 2)?;
    let stored = pair.relayed.last_sight("a")?;
    relay.hold_answers();
    let handover = follow(&pair.relayed.group, pair.active, stamp::now())?;
    // The one that was on its way when the answers were held may be the only one.
    ensure!(pair.relayed.last_sight("a")? > stored, "no renewal was stored unseen");
    pair.relayed.came_after_a_lease(&handover, LEASE)?;
    // Renewals that landed unseen moved the others' wait, not the holder's deadline.
    let confirmed = handover.old.last;
    ensure!(confirmed < pair.relayed.last_sight("a")? + DEADLINE_MS * 1_000_000, "an unseen renewal was counted");
    relay.heal();
    check(&pair.relayed.group, 2, pair.active)
}

pub fn answers_lost_with_their_connections_are_read_back<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject(Scope::Writes, Fault::LoseAnswer);
    a_stays(pair)
}

/// Does it with 30 to 95 percent of the deadline, a pair for each, side by side.
fn for_parts_of_the_deadline<P: Placed>(test: fn(View<'_>, Duration) -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let one = |percent| test(P::placed()?.view(), Duration::from_millis(DEADLINE_MS * percent / 100));
        let threads = [30, 55, 75, 95].map(|percent| (percent, scope.spawn(move || one(percent))));
        for (percent, thread) in threads {
            let outcome = thread.join().unwrap_or_else(|_| bail!("a thread panicked"));
            outcome.with_context(|| format!("with {percent} % of the deadline"))?;
        }
        Ok(())
    })
}

pub fn answers_later_than_any_attempt_may_take_never_make_two<P: Placed>() -> Result<()> {
    for_parts_of_the_deadline::<P>(|View { relayed, active, .. }, late| {
        let relay = relayed.relay("a")?;
        relay.inject(Scope::All, Fault::Delay(late));
        // As long as changes are told, they make up for the answers; without them, a gives up in time.
        holds_for("nothing overlaps", LEASE * 4, || relayed.group.history().violations().is_empty())?;
        ensure!(relay.fired() > 5, "too few answers were late");
        relay.heal();
        relayed.group.wait_active_after(active.token - 1, LIMIT)?;
        relayed.group.check(1, 2)
    })
}

pub fn everything_late_by_a_part_of_the_deadline_never_makes_two<P: Placed>() -> Result<()> {
    for_parts_of_the_deadline::<P>(|View { relayed, .. }, late| {
        let clean = || relayed.group.history().violations().is_empty();
        let began = stamp::now();
        while Duration::from_nanos(stamp::now() - began) < LEASE * 5 {
            // Answers and what is told of changes wait, and come all at once.
            relayed.relay("a")?.hold_answers();
            holds_for("nothing overlaps", late, clean)?;
            relayed.relay("a")?.heal();
            holds_for("nothing overlaps", Duration::from_millis(50), clean)?;
        }
        wait_until("somebody to be active", LIMIT, || relayed.group.active().is_some())?;
        relayed.group.check(1, 2)
    })
}

pub fn writes_answered_late_but_read_back_in_time_stop_nobody<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject(Scope::Writes, Fault::Delay(Duration::from_millis(DEADLINE_MS * 3 / 10)));
    a_stays(pair)
}

pub fn a_write_that_arrives_twice_is_one<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject(Scope::Writes, Fault::Repeat(Which::First));
    a_stays(pair)
}

pub fn a_conflict_with_the_own_write_is_no_loss<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject(Scope::Writes, Fault::Repeat(Which::Second));
    a_stays(pair)
}

pub fn a_write_that_arrives_leases_later_changes_nothing<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    let relay = pair.relayed.relay("a")?;
    // All renewals are kept; a falls silent for b.
    relay.inject(Scope::Writes, Fault::Hold);
    let handover = follow(&pair.relayed.group, pair.active, stamp::now())?;
    relay.heal();
    pair.members[0].wait_standby(LIMIT)?;
    pair.relayed.stays(handover.new.token, LEASE * 3)?;
    let statuses = relay.deliver_held()?;
    ensure!(!statuses.is_empty() && statuses.iter().all(|status| *status == 409), "delivered late: {statuses:?}");
    pair.relayed.stays(handover.new.token, LEASE * 2)?;
    check(&pair.relayed.group, 2, pair.active)
}

pub fn a_renewal_that_was_held_up_and_overtaken_by_the_next_one_is_refused<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    let relay = pair.relayed.relay("a")?;
    relay.inject_times(Scope::Writes, Fault::Hold, 1);
    wait_until("a write to be held", LIMIT, || relay.held() == 1)?;
    let asked = relay.asked("PUT");
    wait_until("later renewals", LIMIT, || relay.asked("PUT") > asked + 2)?;
    let statuses = relay.deliver_held()?;
    ensure!(statuses == [409], "delivered late: {statuses:?}");
    pair.relayed.stays(pair.active.token, LEASE * 2)?;
    pair.relayed.group.check(1, 2)
}

pub fn a_watch_that_falls_silent_costs_time_and_nothing_else<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    let relay = pair.relayed.relay("b")?;
    relay.inject(Scope::Watches, Fault::Stall);
    relay.cut();
    wait_until("b to lose its connections", LIMIT, || pair.members[1].log().contains("begun anew"))?;
    relay.reconnect();
    wait_until("b to watch in vain", LIMIT, || relay.fired() > 0)?;
    pair.relayed.stays(pair.active.token, LEASE * 3)?;
    pair.members[0].signal(Signal::TERM)?;
    let handover = follow(&pair.relayed.group, pair.active, stamp::now())?;
    handover.came_within(LEASE + Duration::from_secs(1))?;
    check(&pair.relayed.group, 2, pair.active)
}

pub fn throttling_within_the_lease_stops_nobody<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject_times(Scope::All, Fault::throttle(1), 1);
    a_stays(pair)
}

pub fn throttling_for_longer_than_the_lease_ends_the_holder_in_time<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    pair.relayed.relay("a")?.inject(Scope::All, Fault::throttle(60));
    a_is_overtaken_and_stands_by(pair)
}

pub fn thirty_percent_of_errors_make_no_two<P: Placed>() -> Result<()> {
    let pair = &P::placed()?;
    let pair = pair.view();
    for name in ["a", "b"] {
        pair.relayed.relay(name)?.inject(Scope::All, Fault::Fail { percent: 30, seed: 17 });
    }
    holds_for("nothing overlaps", LEASE * 5, || pair.relayed.group.history().violations().is_empty())?;
    ensure!(pair.relayed.relay("a")?.fired() > 5, "too few errors");
    for name in ["a", "b"] {
        pair.relayed.relay(name)?.heal();
    }
    wait_until("somebody to be active", LIMIT, || pair.relayed.group.active().is_some())?;
    pair.relayed.group.check(1, 2)
}
