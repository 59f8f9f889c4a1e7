//! What must hold on every store, said once for two members in their places.

pub mod authority;
pub mod ends;
pub mod network;
pub mod outage;
pub mod rewound;
pub mod slots;

/// Makes a test of each statement of a module, for one kind of pair: `state!(network, Pair)`.
#[macro_export]
macro_rules! state {
    (authority, $pair:ty) => {
        $crate::state!(authority, $pair: an_authority_that_is_replaced_stops_nobody_and_is_verified);
    };
    (ends, $pair:ty) => {
        $crate::state!(ends, $pair:
            sigterm_hands_over_by_proof,
            a_crash_of_the_workload_hands_over_by_proof,
            killing_the_workload_hands_over_by_proof,
            killing_the_guard_hands_over_by_proof,
            killing_the_elector_costs_a_lease,
            killing_both_keepers_costs_a_lease,
            a_stopped_elector_costs_a_lease,
            a_stopped_guard_is_overtaken,
            a_stopped_elector_that_wakes_up_touches_nothing_of_the_next_one,
            without_a_namespace_of_its_own_the_guard_survives_the_elector_and_ends_the_workload,
        );
    };
    (network, $pair:ty) => {
        $crate::state!(network, $pair:
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
    };
    (rewound, $pair:ty) => {
        $crate::state!(rewound, $pair: a_store_that_went_back_ends_the_holder_and_costs_everybody_a_lease);
    };
    ($about:ident, $pair:ty: $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() -> anyhow::Result<()> {
            $crate::statements::$about::$name::<$pair>()
        })*
    };
}
