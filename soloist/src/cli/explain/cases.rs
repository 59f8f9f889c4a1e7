//! What happens after each kind of failure, phase by phase: what the machine waits for, from `Timing`, and what stores
//! and hosts take, as it was measured.

use std::ops::Add;
use std::time::Duration;

use election::{FOREIGN_FACTOR, Timing};

use crate::lock::consul;
use crate::settings::Store;
use crate::settings::health::Rules;
use crate::workload::GUARD_PATIENCE;

/// Everything that the lengths follow from.
pub(super) struct Terms {
    pub store: Store,
    pub timing: Timing,
    pub stop_grace: Duration,
    pub health: Rules,
}

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub best: Duration,
    pub typical: Duration,
    pub worst: Duration,
}

/// A part of the time after an event.
pub(super) struct Phase {
    pub what: &'static str,
    pub length: Range,
}

/// An event, and what follows until the next command runs.
pub(super) struct Case {
    /// For programs.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    pub phases: Vec<Phase>,
}

impl Range {
    fn new(best: Duration, typical: Duration, worst: Duration) -> Self {
        Self { best, typical, worst }
    }

    /// Nothing as a rule.
    fn at_most(worst: Duration) -> Self {
        Self { worst, ..Self::default() }
    }

    fn exactly(length: Duration) -> Self {
        Self::new(length, length, length)
    }

    /// Anything between, as it comes.
    fn between(best: Duration, worst: Duration) -> Self {
        Self::new(best, (best + worst) / 2, worst)
    }
}

impl Add for Range {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.best + other.best, self.typical + other.typical, self.worst + other.worst)
    }
}

impl Case {
    /// All phases, one after the other.
    pub fn total(&self) -> Range {
        self.phases.iter().fold(Range::default(), |sum, phase| sum + phase.length)
    }
}

/// What the store takes for release, notice and acquiring write, with the next command's exec: without soloist, and with
/// it, at the median on an idle store. docs/measurements.md and docs/comparison.md say how that was measured.
fn handover_us(store: Store) -> [u64; 2] {
    match store {
        Store::File => [3_200, 6_400],
        Store::Kubernetes => [9_200, 12_800],
        Store::Consul => [2_300, 5_900],
    }
}

/// From the kill of a container's first process to the first instant of its next run, and to the kubelet's word: the
/// shortest and the usual, measured with one kubelet.
const NEXT_RUN_MS: [u64; 2] = [900, 1_900];
const KUBELETS_WORD_MS: [u64; 2] = [100, 900];

fn phase(what: &'static str, length: Range) -> Phase {
    Phase { what, length }
}

impl Terms {
    /// Everything that can happen to a group over this store.
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = self.orderly();
        cases.extend(match self.store {
            Store::File => self.of_a_file(),
            Store::Kubernetes => self.of_kubernetes(),
            Store::Consul => self.of_consul(),
        });
        cases.extend(self.of_the_store());
        cases
    }

    /// What ends with a release by the member itself, over every store.
    fn orderly(&self) -> Vec<Case> {
        let Rules { interval, timeout, fall, .. } = self.health;
        let unhealthy = Range::between(interval * fall.saturating_sub(1), interval * fall + timeout);
        let asked = Range::between(GUARD_PATIENCE, GUARD_PATIENCE + self.timing.period());
        let stopped = phase("the command ends, within --stop-grace", self.stop());
        let rest = phase("what it has forked ends, within --stop-grace", self.stop());
        let killed = || phase("the elector kills the tree and proves it", self.kill());
        let case = |name, what, phases: Vec<Phase>| self.followed(name, what, phases);
        vec![
            case("planned", "switchover, SIGTERM, eviction, rolling update", vec![stopped]),
            case("command-ended", "the command ends or crashes", vec![rest]),
            case(
                "unhealthy",
                "the command hangs, and a health check says so",
                vec![
                    phase("--health-fall checks in a row fail", unhealthy),
                    phase("the command ends, within --stop-grace", self.stop()),
                ],
            ),
            case("guard-killed", "the guard is killed", vec![killed()]),
            case("guard-hung", "the guard hangs or is stopped", vec![phase("it does not answer", asked), killed()]),
        ]
    }

    fn of_a_file(&self) -> Vec<Case> {
        let deadline = phase("the deadline passes", self.deadline());
        let killed = || phase("the guard kills the tree and proves it", self.kill());
        let killed_late = phase("the guard kills the tree and proves it", self.kill_at_the_deadline());
        let replaced =
            phase("the next renewal finds another file", Range::between(Duration::ZERO, self.timing.period()));
        let freed = phase("the kernel frees the lock, unless a child keeps it", Range::at_most(self.timing.lease()));
        let next = phase("the next member kills the cgroup and proves it", self.kill());
        vec![
            self.followed("elector-killed", "the elector is killed", vec![killed()]),
            self.followed("elector-hung", "the elector hangs or is stopped", vec![deadline, killed_late]),
            self.taken_over("both-killed-cgroup", "both are killed, with a writable cgroup", vec![freed, next]),
            self.taken_over("both-killed", "both are killed, without one", vec![self.rest_of_the_lease()]),
            self.followed("lock-replaced", "the lock file is deleted or replaced", vec![replaced, self.loss()]),
        ]
    }

    fn of_kubernetes(&self) -> Vec<Case> {
        let lease = self.timing.lease();
        let container = |[best, typical]: [u64; 2]| {
            Range::new(Duration::from_millis(best), Duration::from_millis(typical).min(lease), lease)
        };
        let next_run = phase("the kubelet runs it anew, else the lease", container(NEXT_RUN_MS));
        let word = phase("the kubelet says so, else the lease", container(KUBELETS_WORD_MS));
        let mut cases = vec![
            self.taken_over("container-killed", "the container is killed", vec![next_run]),
            self.taken_over("container-killed-evidence", "the same with --evidence pod", vec![word]),
        ];
        cases.extend(self.waited_for());
        cases
    }

    fn of_consul(&self) -> Vec<Case> {
        let notice = phase("the next renewal is refused", Range::between(Duration::ZERO, self.timing.period()));
        let delay = phase("Consul gives the key to nobody", Range::exactly(consul::lock_delay(self.timing.lease())));
        let mut cases = vec![self.taken_over(
            "elector-killed",
            "the elector is killed, or it and the guard",
            vec![self.rest_of_the_lease()],
        )];
        cases.extend(self.waited_for());
        cases.push(self.taken_over(
            "session-lost",
            "Consul ends the holder's session",
            vec![notice, self.loss(), delay],
        ));
        cases
    }

    /// What nobody else hears of, over a network: the holder ends by its own clock, the others by theirs.
    fn waited_for(&self) -> Vec<Case> {
        let timing = &self.timing;
        let (lease, kill_after, grace) = (timing.lease(), timing.kill_after(), timing.grace());
        let loss = kill_after - grace;
        let killed = self.kill_at_the_deadline().worst;
        let rest = |from: Duration, ended: Duration| {
            let whole = lease - from;
            phase("the others wait for the rest of the lease", Range::new(whole, whole, whole.saturating_sub(ended)))
        };
        vec![
            self.taken_over(
                "elector-hung",
                "the elector hangs or is stopped",
                vec![
                    phase("the deadline passes", self.deadline()),
                    phase("the guard kills the tree", Range::at_most(killed)),
                    rest(kill_after, killed),
                ],
            ),
            self.taken_over(
                "cut-off",
                "the holder is cut off from the store",
                vec![
                    phase("the command runs on until D-G", Range::between(loss.saturating_sub(timing.period()), loss)),
                    phase("SIGTERM, and SIGKILL after G at the latest", Range::at_most(grace + killed)),
                    rest(loss, grace + killed),
                ],
            ),
            self.taken_over("node-lost", "the node is lost", vec![self.rest_of_the_lease()]),
        ]
    }

    /// What happens to the store itself.
    fn of_the_store(&self) -> Vec<Case> {
        let timing = &self.timing;
        let lease = timing.lease();
        let again = Range::between(Duration::ZERO, timing.period() + timing.attempt_limit());
        let waits = |what, length| vec![phase(what, Range::exactly(length))];
        vec![
            self.followed(
                "outage-over",
                "the store answers again, after the command was stopped",
                vec![phase("it is asked again", again)],
            ),
            self.taken_over(
                "record-lost",
                "the record is deleted or rewound, and its holder is gone",
                waits("the longest lease known", lease),
            ),
            self.taken_over(
                "record-foreign",
                "the record is unreadable or somebody else's",
                waits("three times the longest lease known", lease * FOREIGN_FACTOR),
            ),
        ]
    }

    /// A planned stop. SIGKILL after the grace may be as late as the guard.
    fn stop(&self) -> Range {
        Range::at_most(self.stop_grace + self.kill_at_the_deadline().worst)
    }

    /// SIGKILL at once.
    fn kill(&self) -> Range {
        Range::at_most(self.timing.proof())
    }

    /// SIGKILL when a timer of the guard's ends.
    fn kill_at_the_deadline(&self) -> Range {
        Range::at_most(self.timing.lateness() + self.timing.proof())
    }

    /// A stop because the lock is lost.
    fn loss(&self) -> Phase {
        let killed = self.kill_at_the_deadline().worst;
        phase("the command is stopped", Range::at_most(self.timing.grace() + killed))
    }

    /// The last renewal may have been sent up to a period ago.
    fn deadline(&self) -> Range {
        let kill_after = self.timing.kill_after();
        Range::between(kill_after.saturating_sub(self.timing.period()), kill_after)
    }

    fn rest_of_the_lease(&self) -> Phase {
        let lease = self.timing.lease();
        phase("the lease, from its last renewal on", Range::between(lease.saturating_sub(self.timing.period()), lease))
    }

    /// With a release.
    fn followed(&self, name: &'static str, what: &'static str, mut phases: Vec<Phase>) -> Case {
        let [best, typical] = handover_us(self.store).map(Duration::from_micros);
        // A named successor that does not come costs the courtesy.
        let worst = self.timing.attempt_limit() * 2 + self.timing.courtesy();
        phases.push(phase("release, notice, acquiring write, exec", Range::new(best, typical, worst)));
        Case { name, what, phases }
    }

    /// Without a release.
    fn taken_over(&self, name: &'static str, what: &'static str, mut phases: Vec<Phase>) -> Case {
        let [best, typical] = handover_us(self.store).map(|us| Duration::from_micros(us / 2));
        phases.push(phase("acquiring write, exec", Range::new(best, typical, self.timing.attempt_limit())));
        Case { name, what, phases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::health::{Raw, rules};

    fn terms(store: Store, seconds: u64) -> Terms {
        let timing = Timing::new(Duration::from_secs(seconds), None).unwrap();
        Terms { store, timing, stop_grace: Duration::from_secs(10), health: rules(&Raw::default()).unwrap() }
    }

    const STORES: [Store; 3] = [Store::File, Store::Kubernetes, Store::Consul];

    fn total(terms: &Terms, name: &str) -> Range {
        terms.cases().iter().find(|case| case.name == name).unwrap_or_else(|| panic!("{name}")).total()
    }

    #[test]
    fn best_is_never_longer_than_typical_nor_that_than_worst() {
        for store in STORES {
            for seconds in [4, 15, 60] {
                for case in terms(store, seconds).cases() {
                    for length in case.phases.iter().map(|phase| phase.length).chain([case.total()]) {
                        let is_sorted = length.best <= length.typical && length.typical <= length.worst;
                        // What the holder takes longer for, the others do not wait longer for.
                        let is_the_rest = length.best == length.typical && length.worst < length.best;
                        assert!(is_sorted || is_the_rest, "{store} {seconds} {}: {length:?}", case.name);
                    }
                    assert!(case.total().best <= case.total().worst, "{store} {seconds} {}", case.name);
                }
            }
        }
    }

    #[test]
    fn names_tell_cases_apart() {
        for store in STORES {
            let cases = terms(store, 15).cases();
            let mut names: Vec<&str> = cases.iter().map(|case| case.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), cases.len(), "{store}");
        }
    }

    #[test]
    fn what_nobody_hears_of_costs_the_lease() {
        for store in [Store::Kubernetes, Store::Consul] {
            let terms = terms(store, 15);
            for name in ["elector-hung", "cut-off", "node-lost"] {
                let total = total(&terms, name);
                let takeover = terms.timing.attempt_limit();
                assert_eq!(total.worst, Duration::from_secs(15) + takeover, "{store} {name}");
                assert!(total.best >= Duration::from_secs(13) && total.best < total.worst, "{store} {name}: {total:?}");
            }
        }
    }

    #[test]
    fn a_planned_stop_costs_milliseconds_and_at_worst_the_grace() {
        let total = total(&terms(Store::File, 15), "planned");
        assert!(total.typical < Duration::from_millis(10), "{total:?}");
        assert!(total.worst > Duration::from_secs(10) && total.worst < Duration::from_secs(15), "{total:?}");
    }

    #[test]
    fn the_kubelet_never_costs_more_than_the_lease() {
        let total = total(&terms(Store::Kubernetes, 4), "container-killed");
        assert!(total.worst < Duration::from_secs(5) && total.typical < Duration::from_secs(3), "{total:?}");
    }
}
