//! The controller's plan, on random histories of everything around it: never more active pods than wanted, whatever is
//! late, lost, deposed or edited by hand, and as many as wanted afterwards.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use testkit::sim_controller::{History, MUST_HAPPEN, Rules, run};

/// Histories, unless `HISTORIES` chooses another number; each has another seed.
const HISTORIES: u64 = 4_000;

/// Histories in which what goes without a rule must be found.
const SEARCHED: u64 = 30_000;

fn histories() -> u64 {
    std::env::var("HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(HISTORIES)
}

/// A finding without its step and the names in it.
fn subject(finding: &str) -> String {
    let what = finding.split_once(": ").map_or(finding, |(_, what)| what);
    what.split([':', '[', '{']).next().unwrap_or(what).chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// How often each sort of finding was there, and the first history in full.
fn told(failed: &[(u64, String)]) -> String {
    let mut sorts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (seed, finding) in failed {
        sorts.entry(subject(finding)).or_insert((0, *seed)).0 += 1;
    }
    let first = failed.first().map(|(seed, _)| run(*seed, Rules::ALL, true)).unwrap_or_default();
    let table: Vec<String> =
        sorts.iter().map(|(sort, (count, seed))| format!("{count:>7}  {sort}  (first: seed {seed})")).collect();
    format!("{}\n{}", first.trace.unwrap_or_default().join("\n"), table.join("\n"))
}

#[test]
fn never_more_are_active_than_wanted_and_as_many_afterwards() -> Result<()> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in 0..histories() {
        let History { findings, counts: these, .. } = run(seed, Rules::ALL, false);
        failed.extend(findings.into_iter().take(1).map(|finding| (seed, finding)));
        for (what, count) in these {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{counts:#?}");
    ensure!(failed.is_empty(), "{}", told(&failed));
    let never: Vec<&&str> = MUST_HAPPEN.iter().filter(|what| !counts.contains_key(**what)).collect();
    ensure!(never.is_empty(), "this never happened, so nothing was shown of it: {never:?}");
    Ok(())
}

/// What is found first without a rule.
fn found_without(rules: Rules) -> Result<String> {
    let found = (0..SEARCHED).find_map(|seed| run(seed, rules, false).findings.into_iter().next());
    found.with_context(|| format!("nothing is found in {SEARCHED} histories without it: {rules:?}"))
}

#[test]
fn each_rule_of_the_loop_around_the_plan_is_needed() -> Result<()> {
    let all = Rules::ALL;
    let without = [
        Rules { checks_its_term: false, ..all },
        Rules { quotes_the_version: false, ..all },
        Rules { quotes_the_record: false, ..all },
        Rules { settles: false, ..all },
        Rules { distrusts_unknown: false, ..all },
    ];
    for rules in without {
        println!("{rules:?}: {}", found_without(rules)?);
    }
    Ok(())
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..64 {
        assert_eq!(run(seed, Rules::ALL, true), run(seed, Rules::ALL, true), "seed {seed}");
    }
}
