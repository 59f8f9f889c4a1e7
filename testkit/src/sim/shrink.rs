//! Makes a failing case smaller while it still fails: fewer faults, fewer members, shorter and weaker ones.

use super::campaign::{run_safely, subject};
use super::scenario::Scenario;

/// Runs that a shrink may cost.
const RUNS_MAX: u32 = 400;

/// The smallest case found that fails in the same way: the first finding keeps its sentence.
pub fn shrink(scenario: &Scenario) -> Scenario {
    let mut best = scenario.clone();
    let Some(wanted) = kind_of_failure(&best) else { return best };
    let mut runs = 0;
    loop {
        let smaller = candidates(&best).into_iter().find(|candidate| {
            runs += 1;
            runs <= RUNS_MAX && kind_of_failure(candidate).as_ref() == Some(&wanted)
        });
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// The first finding without its time and names.
fn kind_of_failure(scenario: &Scenario) -> Option<String> {
    run_safely(scenario).findings.first().map(|finding| subject(finding))
}

fn candidates(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        all.push(candidate);
    };
    for index in 0..scenario.faults.len() {
        with(&|candidate| {
            candidate.faults.remove(index);
        });
    }
    for index in 0..scenario.members.len() {
        if scenario.members.len() > 1 {
            with(&|candidate| {
                candidate.members.remove(index);
            });
        }
    }
    for (index, fault) in scenario.faults.iter().enumerate() {
        if fault.length_ms > 100 {
            with(&|candidate| candidate.faults[index].length_ms /= 2);
        }
        if fault.at_ms > 500 {
            with(&|candidate| candidate.faults[index].at_ms -= candidate.faults[index].at_ms / 4);
        }
    }
    for (index, member) in scenario.members.iter().enumerate() {
        if member.rate_ppm != 1_000_000 {
            with(&|candidate| candidate.members[index].rate_ppm = 1_000_000);
        }
        if member.start_ms != 0 {
            with(&|candidate| candidate.members[index].start_ms = 0);
        }
    }
    if scenario.local_release {
        with(&|candidate| candidate.local_release = false);
    }
    all
}
