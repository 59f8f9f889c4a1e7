//! What came of black holes, as a table and as JSON.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use testkit::history::Violation;
use testkit::quantiles::Quantiles;

use crate::black_holes::{Hole, Outcome};

/// What came of black holes.
#[derive(Debug, Serialize)]
pub struct HolesReport {
    /// What the members keep their lock in.
    pub store: &'static str,
    /// The members' program: its folder says how it was built.
    pub soloist: PathBuf,
    /// The lease.
    pub lease_ms: u128,
    /// How many groups ran side by side.
    pub groups: usize,
    /// How many black holes there were.
    pub n: usize,
    /// How many activations stamped.
    pub activations: usize,
    /// Pairs of activations that were alive at once.
    pub overlaps: Vec<String>,
    /// Other violations: tokens out of order.
    pub disorders: Vec<String>,
    /// Processes that were there when the next one was active.
    pub left_behind: Vec<String>,
    /// Black holes after which the next one came more than a lease and 500 ms after the last sight of the old one.
    pub late: usize,
    /// The same, sooner than a lease.
    pub early: usize,
    /// Black holes that came when the old one had given up already and released.
    pub released: usize,
    /// From the last sight of the old one to the first stamp of the next.
    pub from_last_sight: Quantiles,
    /// From the black hole to the first stamp of the next one.
    pub from_event: Quantiles,
    /// From the last stamp of the old one to the first of the next one.
    pub from_last_stamp: Quantiles,
    /// The shortest of these, in microseconds.
    pub closest_us: u64,
}

impl HolesReport {
    /// Checks and sums up.
    pub fn of(outcomes: &[Outcome], store: &'static str, soloist: PathBuf, lease: Duration) -> Self {
        let violations = outcomes.iter().flat_map(|outcome| outcome.history.violations());
        let (overlaps, disorders): (Vec<_>, Vec<_>) =
            violations.partition(|one| matches!(one, Violation::Overlap { .. }));
        let texts = |violations: Vec<Violation>| violations.iter().map(ToString::to_string).collect();
        let holes: Vec<Hole> = outcomes.iter().flat_map(|outcome| outcome.holes.clone()).collect();
        let times = |from: fn(&Hole) -> u64| -> Vec<u64> {
            holes.iter().map(|hole| hole.new_first.saturating_sub(from(hole))).collect()
        };
        let count = |is: fn(&Hole, Duration) -> bool| holes.iter().filter(|hole| is(hole, lease)).count();
        Self {
            store,
            soloist,
            lease_ms: lease.as_millis(),
            groups: outcomes.len(),
            n: holes.len(),
            activations: outcomes.iter().map(|outcome| outcome.history.spans.len()).sum(),
            overlaps: texts(overlaps),
            disorders: texts(disorders),
            left_behind: outcomes.iter().flat_map(|outcome| outcome.left_behind.clone()).collect(),
            late: count(Hole::is_late),
            early: count(Hole::is_early),
            released: count(|hole, _| hole.is_released),
            from_last_sight: Quantiles::of(times(Hole::last_sight)),
            from_event: Quantiles::of(times(|hole| hole.at)),
            closest_us: times(|hole| hole.old_last).into_iter().min().unwrap_or(0) / 1000,
            from_last_stamp: Quantiles::of(times(|hole| hole.old_last)),
        }
    }

    /// Whether it found nothing and saw everything.
    pub fn is_clean(&self) -> bool {
        let found = [&self.overlaps, &self.disorders, &self.left_behind];
        found.iter().all(|list| list.is_empty())
            && self.late + self.early == 0
            && self.n > 0
            && self.activations >= self.n + self.groups
    }
}

impl fmt::Display for HolesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40}      p50      p99      max", "gap to the first stamp of the next one, ms")?;
        writeln!(f, "{:<42}{}", "from the last sight of the old one", self.from_last_sight)?;
        writeln!(f, "{:<42}{}", "from the black hole", self.from_event)?;
        writeln!(f, "{:<42}{}", "from the last stamp of the old one", self.from_last_stamp)?;
        for line in [&self.overlaps, &self.disorders].into_iter().flatten() {
            writeln!(f, "VIOLATION: {line}")?;
        }
        for line in &self.left_behind {
            writeln!(f, "LEFT BEHIND: {line}")?;
        }
        write!(
            f,
            "{} black holes in {} groups on {} with a lease of {} ms and {}, {} overlaps, {} tokens out of order, \
             {} processes left behind, {} late, {} early, {} released before, closest {} us",
            self.n,
            self.groups,
            self.store,
            self.lease_ms,
            self.soloist.display(),
            self.overlaps.len(),
            self.disorders.len(),
            self.left_behind.len(),
            self.late,
            self.early,
            self.released,
            self.closest_us
        )
    }
}

#[cfg(test)]
mod tests {
    use testkit::history::History;
    use testkit::stamp::{Identity, Slot};

    use super::*;

    const LEASE: Duration = Duration::from_secs(4);
    const SECOND: u64 = 1_000_000_000;

    fn slot(token: u64, first: u64, last: u64) -> Slot {
        let identity = Identity { token, activation: token.into(), member: "a".to_owned() };
        Slot { identity, pid: 1, label: "main".to_owned(), first, last, stamps: 10 }
    }

    fn outcome(new_first: u64) -> Outcome {
        let hole = Hole {
            is_released: false,
            at: 11 * SECOND,
            last_renewal: 10 * SECOND,
            last_sent: 10 * SECOND,
            watched: 0,
            old_last: 12 * SECOND,
            new_first,
        };
        let slots = vec![slot(1, SECOND, 12 * SECOND), slot(2, new_first, 30 * SECOND)];
        Outcome { holes: vec![hole], history: History::of(slots), left_behind: Vec::new() }
    }

    fn report(outcomes: &[Outcome]) -> HolesReport {
        HolesReport::of(outcomes, "Consul", "soloist".into(), LEASE)
    }

    #[test]
    fn a_gap_of_a_lease_is_clean_and_measured() {
        let report = report(&[outcome(14 * SECOND), outcome(14 * SECOND)]);
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.n, report.activations, report.from_last_sight.max_us), (2, 4, 4_000_000));
        assert_eq!((report.from_event.p50_us, report.closest_us), (3_000_000, 2_000_000));
    }

    #[test]
    fn who_watches_only_after_the_last_renewal_waits_from_then_on() {
        let mut late = outcome(15 * SECOND);
        late.holes[0].watched = 11 * SECOND;
        let report = report(&[late]);
        assert_eq!((report.late, report.early, report.from_last_sight.max_us), (0, 0, 4_000_000));
    }

    #[test]
    fn what_is_early_late_or_alive_at_once_is_not_clean() {
        assert_eq!(report(&[outcome(13 * SECOND)]).early, 1);
        assert_eq!(report(&[outcome(15 * SECOND)]).late, 1);
        assert_eq!(report(&[outcome(12 * SECOND)]).overlaps.len(), 1);
        assert!(!report(&[outcome(13 * SECOND)]).is_clean());
        assert!(!report(&[]).is_clean(), "nothing happened");
    }
}
