//! Every small instance holds, and is as large as it was: a space that shrinks unnoticed proves less.

use model::{Instance, beyond, explore, small};

fn named(instances: Vec<Instance>, name: &str) -> Instance {
    instances.into_iter().find(|instance| instance.name == name).unwrap()
}

fn holds(name: &str, states: usize) {
    let outcome = explore(named(small(), name), 1).unwrap();
    assert_eq!(outcome.failed, vec![], "broken; `cargo run -p model -- '{name}'` narrates it");
    assert!(outcome.missed.is_empty(), "never reached: {:?}", outcome.missed);
    assert_eq!(outcome.states, states, "another number of states in {:?}", outcome.took);
}

/// An assumption is broken, and exclusion with it.
fn breaks_exclusion(name: &str) {
    let outcome = explore(named(beyond(), name), 1).unwrap();
    assert!(outcome.failed.iter().any(|(rule, _)| *rule == "exclusion"), "{outcome:?}");
}

#[test]
fn faults_of_two_messages() {
    holds("messages", 62_458);
}

#[test]
fn one_small_fault_stops_nothing() {
    holds("one small fault", 1_240);
}

#[test]
fn two_deaths() {
    holds("deaths", 641_133);
}

#[test]
fn two_partitions() {
    holds("partitions", 505_393);
}

#[test]
fn deleted_lock() {
    holds("deleted", 154_748);
}

#[test]
fn lock_deleted_twice() {
    holds("deleted twice", 1_004_198);
}

#[test]
fn writes_of_strangers() {
    holds("strangers", 365_403);
}

#[test]
fn lock_that_goes_back_in_sight_of_all() {
    holds("rewound", 457_177);
}

#[test]
fn requests_and_a_fault() {
    holds("requests", 327_126);
}

#[test]
fn releases_by_the_guard() {
    holds("guard releases", 777_736);
}

#[test]
fn pauses_and_outages() {
    holds("pauses", 863_922);
}

#[test]
fn failing_health_checks() {
    holds("health", 256_028);
}

#[test]
fn three_members_start_at_once() {
    holds("race of three", 49_467);
}

#[test]
fn first_lock_of_a_group() {
    holds("first lock", 7_244);
}

#[test]
fn three_members_and_a_switchover() {
    holds("three", 531_710);
}

#[test]
fn restored_store_breaks_exclusion() {
    breaks_exclusion("restored from a backup");
}
