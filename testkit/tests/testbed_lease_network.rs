//! What networks and busy servers do between a member and its API server: never two are active, and the role moves
//! only when it must.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::lease_group::{AHEAD, BEYOND, LEASE, Pair};
use testkit::relay::{Fault, Scope};
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::wait_until;

testkit::state!(network, Pair:
    a_black_hole_of_the_active_one_costs_a_lease,
    a_black_hole_of_the_standby_disturbs_nobody_and_it_takes_over_later,
    a_black_hole_that_ends_soon_stops_nobody,
    a_cut_that_lasts_costs_a_lease,
    answers_that_never_come_extend_nothing,
    answers_lost_with_their_connections_are_read_back,
    answers_later_than_any_attempt_may_take_never_make_two,
    everything_late_by_a_part_of_the_deadline_never_makes_two,
    writes_answered_late_but_read_back_in_time_stop_nobody,
    a_write_that_arrives_twice_is_one,
    a_conflict_with_the_own_write_is_no_loss,
    a_write_that_arrives_leases_later_changes_nothing,
    a_renewal_that_was_held_up_and_overtaken_by_the_next_one_is_refused,
    a_watch_that_falls_silent_costs_time_and_nothing_else,
    throttling_within_the_lease_stops_nobody,
    throttling_for_longer_than_the_lease_ends_the_holder_in_time,
    thirty_percent_of_errors_make_no_two,
);

#[test]
fn changes_told_out_of_order_and_again_let_nobody_in_early() -> Result<()> {
    let pair = &Pair::start()?;
    for name in ["a", "b"] {
        let relay = pair.group.relay(name)?;
        relay.inject(Scope::Watches, Fault::Disorder);
        relay.end_connections();
        wait_until("the watch to be begun anew", LIMIT, || relay.fired() > 0)?;
    }
    pair.group.stays(pair.active.token, LEASE * 3)?;
    pair.group.relay("a")?.black_hole();
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    let waited = Duration::from_nanos(handover.new.first.saturating_sub(pair.group.last_sight("a")?));
    ensure!(waited + AHEAD >= LEASE, "too early, after {waited:?}");
    // The last change may have been held back, and is seen only by a look when a lease is over.
    ensure!(waited <= LEASE * 2 + BEYOND, "too late, after {waited:?}");
    pair.group.relay("a")?.heal();
    pair.members[0].wait_standby(LIMIT)?;
    check(&pair.group.group, 2, &pair.active)
}
