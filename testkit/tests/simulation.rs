//! Ten thousand simulated histories, the cases that failed once, and the simulator's own promises.

use testkit::sim::{Campaign, Kind, Scenario, report_table, run, run_campaign, run_safely};

const HISTORIES: u64 = 10_000;
const SLOTS_HISTORIES: u64 = 1_000;

fn campaign(seed: u64) -> Campaign {
    Campaign { histories: HISTORIES, seed, only: Vec::new(), slots: 1, jobs: 2 }
}

#[test]
fn no_history_breaks_a_rule_and_every_fault_fires() {
    let campaign = campaign(1);
    let total = run_campaign(&campaign);
    let table = report_table(&campaign, &total);
    let seeds: Vec<_> = total.failures.iter().map(|(scenario, findings)| (scenario.seed, findings)).collect();
    assert_eq!(total.overlaps, 0, "{table}\n{seeds:?}");
    assert_eq!(total.false_failovers, 0, "{table}\n{seeds:?}");
    assert_eq!(total.failed, 0, "{table}\n{seeds:?}");
    assert_eq!(total.never_fired(&campaign), [], "{table}");
    assert!(total.failovers > HISTORIES / 10, "too few failovers to say anything\n{table}");
}

#[test]
fn never_more_are_active_than_there_are_slots_and_in_the_end_as_many() {
    for slots in [2, 3, 5] {
        let campaign = Campaign { histories: SLOTS_HISTORIES, slots, ..campaign(20) };
        let total = run_campaign(&campaign);
        let table = report_table(&campaign, &total);
        let seeds: Vec<_> = total.failures.iter().map(|(scenario, findings)| (scenario.seed, findings)).collect();
        assert_eq!((total.overlaps, total.false_failovers, total.failed), (0, 0, 0), "{table}\n{seeds:?}");
        assert_eq!(total.never_fired(&campaign), [], "{table}");
        assert_eq!(total.full, SLOTS_HISTORIES, "in each history all slots are taken at some moment\n{table}");
        assert!(total.failovers > SLOTS_HISTORIES / 2, "too few failovers to say anything\n{table}");
        assert!(total.moves > SLOTS_HISTORIES / 20, "too few moves to say anything\n{table}");
    }
}

#[test]
fn cases_that_failed_once_hold() {
    for (number, line) in include_str!("../regressions/sim.txt").lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let scenario: Scenario = serde_json::from_str(line).expect("a scenario on each line");
        let history = run_safely(&scenario);
        assert!(history.findings.is_empty(), "line {}: {:?}", number + 1, history.findings);
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..300 {
        let scenario = Scenario::of(seed, &[]);
        let (once, again) = (run(&scenario, false), run(&scenario, true));
        assert_eq!(once.hash, again.hash, "seed {seed}");
        let line = serde_json::to_string(&scenario).expect("scenarios can be written");
        let read: Scenario = serde_json::from_str(&line).expect("and read");
        assert_eq!(run(&read, false).hash, once.hash, "seed {seed}, written and read again");
    }
}

#[test]
fn number_of_threads_changes_nothing() {
    let one = run_campaign(&Campaign { histories: 200, jobs: 1, ..campaign(5) });
    let three = run_campaign(&Campaign { histories: 200, jobs: 3, ..campaign(5) });
    assert_eq!((one.hash, one.starts, one.steps), (three.hash, three.starts, three.steps));
}

#[test]
fn each_kind_of_fault_can_be_had_alone() {
    for kind in Kind::ALL {
        let campaign = Campaign { histories: 60, only: vec![*kind], ..campaign(9) };
        let total = run_campaign(&campaign);
        assert_eq!(total.never_fired(&campaign), [], "{kind}");
        assert_eq!(Kind::parse(kind.word()), Some(*kind));
    }
}

/// An operator who is wrong, a host that sleeps over its deadline: what the promise does not cover is seen and counted apart.
#[test]
fn broken_assumptions_are_counted_and_not_hidden() {
    for kind in [Kind::FencedFalsely, Kind::HostSuspended] {
        let total = run_campaign(&Campaign { histories: 1_000, only: vec![kind], ..campaign(3) });
        assert!(total.excused.iter().any(|(count, _)| *count > 0), "{kind}");
        assert_eq!(total.overlaps, 0, "{kind}");
    }
}
