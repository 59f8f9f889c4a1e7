//! Many histories, on several threads, and what came of all of them together.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fault::{Broken, Kind};
use super::history::History;
use super::scenario::Scenario;
use super::world::run;

/// Failing cases that are kept of each sort.
const FAILURES_MAX: u64 = 3;

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How many histories.
    pub histories: u64,
    /// The seed of the first; the others follow from it.
    pub seed: u64,
    /// Only these kinds of faults, all of them in each history; any where there is none.
    pub only: Vec<Kind>,
    /// How many members may be active at a time.
    pub slots: usize,
    /// Threads.
    pub jobs: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Histories that were run.
    pub histories: u64,
    /// Inputs that machines took.
    pub steps: u64,
    /// True time that passed in them, in milliseconds.
    pub virtual_ms: u64,
    /// Workloads that were started.
    pub starts: u64,
    /// Histories in which a member was active in each slot at the same moment.
    pub full: u64,
    /// Starts of a member in another slot than the one that it was active in before.
    pub moves: u64,
    /// Starts after an unplanned end.
    pub failovers: u64,
    /// Failovers for no reason.
    pub false_failovers: u64,
    /// Two workloads at once, under all assumptions.
    pub overlaps: u64,
    /// Two workloads at once after an assumption was broken: how often and for how long at most, in milliseconds.
    pub excused: Vec<(u64, u64)>,
    /// How often each kind of fault had an effect.
    pub fired: Vec<u64>,
    /// Gaps in microseconds for each kind of fault.
    pub gaps: Vec<Vec<u32>>,
    /// Exclusive or over the hashes of all histories.
    pub hash: u64,
    /// Histories with a finding.
    pub failed: u64,
    /// What was first found in them, and how often.
    pub findings: BTreeMap<String, u64>,
    /// Some of them, with what was found.
    pub failures: Vec<(Scenario, Vec<String>)>,
}

impl Total {
    fn new() -> Self {
        let kinds = Kind::ALL.len();
        Self {
            excused: vec![(0, 0); Broken::ALL.len()],
            fired: vec![0; kinds],
            gaps: vec![Vec::new(); kinds],
            ..Self::default()
        }
    }

    fn add(&mut self, scenario: Scenario, history: History) {
        self.histories += 1;
        self.steps += history.steps;
        self.virtual_ms += history.length / 1_000_000;
        self.starts += history.starts;
        self.full += u64::from(history.was_full);
        self.moves += history.moves;
        self.failovers += history.failovers;
        self.false_failovers += history.false_failovers;
        self.overlaps += history.overlaps;
        self.hash ^= history.hash.wrapping_mul(scenario.seed | 1);
        for (broken, length) in history.excused {
            let (count, longest) = &mut self.excused[broken as usize];
            *count += 1;
            *longest = (*longest).max(length / 1_000_000);
        }
        for (index, fired) in history.fired.iter().enumerate() {
            self.fired[index] += u64::from(*fired);
        }
        for (kind, gap) in history.gaps {
            if let Some(kind) = kind {
                self.gaps[kind.index()].push(u32::try_from(gap / 1000).unwrap_or(u32::MAX));
            }
        }
        if !history.findings.is_empty() {
            self.failed += 1;
            let count = self.findings.entry(subject(&history.findings[0])).or_default();
            *count += 1;
            if *count <= FAILURES_MAX {
                self.failures.push((scenario, history.findings));
            }
        }
    }

    fn merge(&mut self, other: Total) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.virtual_ms += other.virtual_ms;
        self.starts += other.starts;
        self.full += other.full;
        self.moves += other.moves;
        self.failovers += other.failovers;
        self.false_failovers += other.false_failovers;
        self.overlaps += other.overlaps;
        self.hash ^= other.hash;
        self.failed += other.failed;
        for (mine, theirs) in self.excused.iter_mut().zip(other.excused) {
            *mine = (mine.0 + theirs.0, mine.1.max(theirs.1));
        }
        for (mine, theirs) in self.fired.iter_mut().zip(other.fired) {
            *mine += theirs;
        }
        for (mine, theirs) in self.gaps.iter_mut().zip(other.gaps) {
            mine.extend(theirs);
        }
        for (what, count) in other.findings {
            *self.findings.entry(what).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|(scenario, _)| scenario.seed);
    }

    /// The kinds of `campaign` that never had an effect: with any of these the run says nothing.
    pub fn never_fired(&self, campaign: &Campaign) -> Vec<Kind> {
        let wanted = |kind: &Kind| campaign.only.is_empty() || campaign.only.contains(kind);
        Kind::ALL.iter().copied().filter(wanted).filter(|kind| self.fired[kind.index()] == 0).collect()
    }
}

/// A finding without its time and without the names in it.
pub fn subject(finding: &str) -> String {
    let what = finding.split_once(": ").map_or(finding, |(_, what)| what);
    let what = what.split(": ").next().unwrap_or(what);
    what.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// Runs one scenario; a machine that panics is a finding like any other.
pub fn run_safely(scenario: &Scenario) -> History {
    match catch_unwind(AssertUnwindSafe(|| run(scenario, false))) {
        Ok(history) => history,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let mut history = History::new(false);
            history.finding(0, format!("panic: {}", text.unwrap_or_default()));
            history
        }
    }
}

/// Runs all of it.
pub fn run_campaign(campaign: &Campaign) -> Total {
    let jobs = campaign.jobs.max(1);
    let mut total = Total::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|job| scope.spawn(move || run_share(campaign, job, jobs))).collect();
        for thread in threads {
            match thread.join() {
                Ok(share) => total.merge(share),
                Err(_) => total.failed += 1,
            }
        }
    });
    for gaps in &mut total.gaps {
        gaps.sort_unstable();
    }
    total
}

fn run_share(campaign: &Campaign, job: u64, jobs: u64) -> Total {
    let mut total = Total::new();
    let mut index = job;
    while index < campaign.histories {
        let scenario = Scenario::of(campaign.seed.wrapping_add(index), &campaign.only).in_slots(campaign.slots);
        let history = run_safely(&scenario);
        total.add(scenario, history);
        index += jobs;
    }
    total
}
