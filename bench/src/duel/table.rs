//! The table of a duel, as Markdown and as JSON.

use std::fmt;

use serde::Serialize;
use testkit::quantiles::Quantiles;

use super::arena::Contender;
use super::cost::Cost;
use super::round::{Event, OVERLAP_WATCHED, Outcome};
use crate::report::{self, Host, Target};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Table<C> {
    /// Where it ran.
    pub host: Host,
    /// The raw limit and its parts.
    pub raw: Vec<report::Row>,
    /// What routes take from the decision until they are seen, where the store has any, beside a raw write each.
    pub routes: Vec<report::Row>,
    /// One for each event and contender.
    pub rows: Vec<Row<C>>,
    /// What each costs.
    pub costs: Vec<Cost<C>>,
    /// What had to be reached.
    pub targets: Vec<Target>,
}

/// One event that happened to one contender again and again.
#[derive(Debug, Serialize)]
pub struct Row<C> {
    /// What happened.
    pub event: Event,
    /// To whom.
    pub contender: C,
    /// How often.
    pub n: usize,
    /// How long nobody was active.
    pub gap: Quantiles,
    /// How often two were at once.
    pub overlaps: usize,
    /// For how long.
    pub overlap: Quantiles,
    /// How often they still were when nobody looked any longer.
    pub endless: usize,
}

impl<C: Contender> Row<C> {
    /// Sums outcomes up.
    pub fn of(event: Event, contender: &C, outcomes: &[Outcome]) -> Self {
        Self {
            event,
            contender: contender.clone(),
            n: outcomes.len(),
            gap: Quantiles::of(outcomes.iter().map(|outcome| outcome.gap_ns).collect()),
            overlaps: outcomes.iter().filter(|outcome| outcome.overlap_ns > 0).count(),
            overlap: Quantiles::of(outcomes.iter().map(|outcome| outcome.overlap_ns).collect()),
            endless: outcomes.iter().filter(|outcome| outcome.is_endless).count(),
        }
    }

    fn overlap(&self) -> String {
        match (self.overlaps, self.endless) {
            (0, _) => "none".to_owned(),
            (count, 0) => format!("{count}, up to {} s", seconds(self.overlap.max_us)),
            (count, endless) => format!("{count}, {endless} longer than {} s", OVERLAP_WATCHED.as_secs()),
        }
    }
}

impl<C> Table<C> {
    /// Whether everything was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

impl<C: Contender> fmt::Display for Table<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.host)?;
        for (what, rows) in [("raw limit", &self.raw), ("route", &self.routes)] {
            if !rows.is_empty() {
                write_times(f, what, rows)?;
            }
        }
        writeln!(f, "| event | who | n | nobody active, s: p50 | p99 | max | two at once |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let [p50, p99, max] = all_seconds(&row.gap);
            writeln!(
                f,
                "| {} | {} | {} | {p50} | {p99} | {max} | {} |",
                row.event,
                row.contender,
                row.n,
                row.overlap()
            )?;
        }
        writeln!(f, "\n| who | PSS, MB: active | standby | requests a minute: active | standby |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for cost in &self.costs {
            let megabytes = |kb: u64| format!("{:.1}", kb as f64 / 1000.0);
            let [active, standby] = [&cost.active, &cost.standby].map(|requests| {
                let kinds = requests.iter().map(|(kind, count)| format!("{:.0} {kind}", cost.per_minute(*count)));
                kinds.collect::<Vec<_>>().join(", ")
            });
            writeln!(
                f,
                "| {} | {} | {} | {active} | {standby} |",
                cost.contender,
                megabytes(cost.pss_active_kb),
                megabytes(cost.pss_standby_kb)
            )?;
        }
        writeln!(f)?;
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}

fn write_times(f: &mut fmt::Formatter<'_>, what: &str, rows: &[report::Row]) -> fmt::Result {
    writeln!(f, "| {what} | n | s: p50 | p99 | max |\n|---|---|---|---|---|")?;
    for row in rows {
        let [p50, p99, max] = all_seconds(&row.gap);
        writeln!(f, "| {} | {} | {p50} | {p99} | {max} |", row.name.trim(), row.n)?;
    }
    writeln!(f)
}

fn all_seconds(quantiles: &Quantiles) -> [String; 3] {
    let Quantiles { p50_us, p99_us, max_us } = *quantiles;
    [p50_us, p99_us, max_us].map(seconds)
}

/// With as many digits as mean something.
fn seconds(microseconds: u64) -> String {
    match microseconds {
        0..1_000_000 => format!("{:.4}", microseconds as f64 / 1e6),
        _ => format!("{:.1}", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duel::consul::Contender;

    fn outcome(gap_ns: u64, overlap_ns: u64, is_endless: bool) -> Outcome {
        Outcome { gap_ns, overlap_ns, is_endless }
    }

    #[test]
    fn a_row_counts_what_must_not_be() {
        let second = 1_000_000_000;
        let outcomes = [outcome(second, 0, false), outcome(0, 2 * second, false), outcome(0, 9 * second, true)];
        let row = Row::of(Event::Stopped, &Contender::Soloist, &outcomes);
        assert_eq!((row.n, row.overlaps, row.endless, row.gap.max_us), (3, 2, 1, 1_000_000));
        assert_eq!(row.overlap(), "2, 1 longer than 10 s");
        assert_eq!(Row::of(Event::Stopped, &Contender::Soloist, &outcomes[..2]).overlap(), "1, up to 2.0 s");
        assert_eq!(Row::of(Event::Term, &Contender::Soloist, &outcomes[..1]).overlap(), "none");
    }
}
