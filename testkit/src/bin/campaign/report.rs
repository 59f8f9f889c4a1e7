//! What a campaign found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use testkit::ends::End;
use testkit::history::{History, Span, Violation};
use testkit::quantiles::Quantiles;

use crate::rounds::Round;

/// What a campaign found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What draws the same order again.
    pub seed: u64,
    /// How many times the active one was ended.
    pub rounds: usize,
    /// How many activations stamped.
    pub activations: usize,
    /// Activations that nobody asked for by ending one: the first aside, each end leads to one.
    pub uncalled: usize,
    /// Pairs of activations that were alive at once.
    pub overlaps: Vec<String>,
    /// Other violations: tokens out of order.
    pub disorders: Vec<String>,
    /// Processes that were there when the next one was active.
    pub left_behind: Vec<String>,
    /// Kinds of end that never happened: a campaign without them proves less than it says.
    pub never: Vec<String>,
    /// By kind of end.
    pub kinds: Vec<Kind>,
}

/// One kind of end.
#[derive(Debug, Serialize)]
pub struct Kind {
    /// What it is called.
    pub name: String,
    /// How many times it happened.
    pub n: usize,
    /// From the last stamp of the old activation to the first of the new one.
    pub from_last_stamp: Quantiles,
    /// From the event to the first stamp of the new one.
    pub from_event: Quantiles,
}

impl Report {
    /// Checks `history` and sums up `rounds`.
    pub fn of(history: &History, rounds: &[Round], left_behind: &[String], seed: u64) -> Self {
        let spans: BTreeMap<u64, &Span> = history.spans.iter().map(|span| (span.token, span)).collect();
        let kinds: Vec<Kind> = End::ALL.iter().filter_map(|end| kind(*end, rounds, &spans)).collect();
        let happened = |end: &End| rounds.iter().any(|round| round.end == *end);
        let (overlaps, disorders): (Vec<_>, Vec<_>) =
            history.violations().into_iter().partition(|one| matches!(one, Violation::Overlap { .. }));
        let texts = |violations: Vec<Violation>| violations.iter().map(ToString::to_string).collect();
        Self {
            seed,
            rounds: rounds.len(),
            activations: history.spans.len(),
            uncalled: history.spans.len().saturating_sub(rounds.len() + 1),
            overlaps: texts(overlaps),
            disorders: texts(disorders),
            left_behind: left_behind.to_vec(),
            never: End::ALL.iter().filter(|end| !happened(end)).map(ToString::to_string).collect(),
            kinds,
        }
    }

    /// Whether it found nothing and saw everything.
    pub fn is_clean(&self) -> bool {
        let found = [&self.overlaps, &self.disorders, &self.left_behind, &self.never];
        found.iter().all(|list| list.is_empty()) && self.activations > self.rounds
    }
}

fn kind(end: End, rounds: &[Round], spans: &BTreeMap<u64, &Span>) -> Option<Kind> {
    let mut from_last_stamp = Vec::new();
    let mut from_event = Vec::new();
    for round in rounds.iter().filter(|round| round.end == end) {
        let (old, new) = (spans.get(&round.old)?, spans.get(&round.new)?);
        from_last_stamp.push(new.first.saturating_sub(old.last));
        from_event.push(new.first.saturating_sub(round.at));
    }
    let n = from_event.len();
    let quantiles = (Quantiles::of(from_last_stamp), Quantiles::of(from_event));
    (n > 0).then(|| Kind { name: end.to_string(), n, from_last_stamp: quantiles.0, from_event: quantiles.1 })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = "      p50      p99      max";
        writeln!(f, "{:<18}{:>6}   gap from last stamp, ms       gap from event, ms", "end", "n")?;
        writeln!(f, "{:<18}{:>6}{heads}  {heads}", "", "")?;
        for kind in &self.kinds {
            writeln!(f, "{:<18}{:>6}{}  {}", kind.name, kind.n, kind.from_last_stamp, kind.from_event)?;
        }
        for line in [&self.overlaps, &self.disorders].into_iter().flatten() {
            writeln!(f, "VIOLATION: {line}")?;
        }
        for line in &self.left_behind {
            writeln!(f, "LEFT BEHIND: {line}")?;
        }
        for kind in &self.never {
            writeln!(f, "INVALID: never happened: {kind}")?;
        }
        write!(
            f,
            "{} rounds, {} activations ({} uncalled), {} overlaps, {} tokens out of order, {} processes left behind, seed {}",
            self.rounds,
            self.activations,
            self.uncalled,
            self.overlaps.len(),
            self.disorders.len(),
            self.left_behind.len(),
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::stamp::{Identity, Slot};

    fn slot(token: u64, first: u64, last: u64) -> Slot {
        let identity = Identity { token, activation: token.into(), member: "a".to_owned() };
        Slot { identity, pid: 1, label: "main".to_owned(), first, last, stamps: 10 }
    }

    fn rounds() -> Vec<Round> {
        let ends = End::ALL.iter().zip(1_u64..);
        ends.map(|(end, old)| Round { end: *end, at: old * 10_000_000, old, new: old + 1 }).collect()
    }

    fn history(early_ns: u64) -> History {
        let slots =
            (1..=11).map(|token| slot(token, token * 10_000_000 - early_ns, (token + 1) * 10_000_000 - 2_000_000));
        History::of(slots.collect())
    }

    #[test]
    fn a_clean_campaign_is_clean_and_measured() {
        let report = Report::of(&history(0), &rounds(), &[], 1);
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.kinds.len(), report.kinds[0].n, report.uncalled), (10, 1, 0));
        assert_eq!(report.kinds[0].from_last_stamp, Quantiles { p50_us: 2000, p99_us: 2000, max_us: 2000 });
        assert_eq!(report.kinds[0].from_event.max_us, 10_000);
    }

    #[test]
    fn an_overlap_a_leftover_or_a_missing_kind_is_not_clean() {
        assert_eq!(Report::of(&history(3_000_000), &rounds(), &[], 1).overlaps.len(), 10);
        assert!(!Report::of(&history(0), &rounds(), &["17".to_owned()], 1).is_clean());
        let report = Report::of(&history(0), &rounds()[1..], &[], 1);
        assert_eq!(report.never, ["workload crashes"]);
        assert!(!report.is_clean());
    }
}
