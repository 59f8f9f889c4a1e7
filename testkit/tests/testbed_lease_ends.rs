//! However the active member of a group on a Lease ends, the next one is active in time, and never while the old one
//! still is.

use testkit::lease_group::Pair;

testkit::state!(ends, Pair:
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
