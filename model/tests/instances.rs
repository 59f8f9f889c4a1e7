//! Every small instance holds, and is as large as it was: a space that shrinks unnoticed proves less.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

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
    holds("messages", 60_327);
}

#[test]
fn one_small_fault_stops_nothing() {
    holds("one small fault", 1_551);
}

#[test]
fn two_deaths() {
    holds("deaths", 773_406);
}

#[test]
fn two_partitions() {
    holds("partitions", 509_221);
}

#[test]
fn deleted_lock() {
    holds("deleted", 142_134);
}

#[test]
fn lock_deleted_twice() {
    holds("deleted twice", 944_815);
}

#[test]
fn writes_of_strangers() {
    holds("strangers", 360_037);
}

#[test]
fn lock_that_goes_back_in_sight_of_all() {
    holds("rewound", 415_533);
}

#[test]
fn requests_and_a_fault() {
    holds("requests", 324_986);
}

#[test]
fn releases_by_the_guard() {
    holds("guard releases", 779_695);
}

#[test]
fn pauses_and_outages() {
    holds("pauses", 1_001_123);
}

#[test]
fn pause_that_is_ended_early() {
    holds("resumed", 318_083);
}

#[test]
fn failing_health_checks() {
    holds("health", 263_210);
}

#[test]
fn three_members_start_at_once() {
    holds("race of three", 55_503);
}

#[test]
fn first_lock_of_a_group() {
    holds("first lock", 7_253);
}

#[test]
fn three_members_and_a_switchover() {
    holds("three", 513_963);
}

#[test]
fn restored_store_breaks_exclusion() {
    breaks_exclusion("restored from a backup");
}
