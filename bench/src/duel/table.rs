//! The table of a duel, as Markdown and as JSON.

use std::fmt;

use serde::Serialize;
use testkit::quantiles::Quantiles;

use super::contender::Contender;
use super::cost::Cost;
use super::round::{Event, OVERLAP_WATCHED, Outcome};
use crate::report::Host;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Where it ran.
    pub host: Host,
    /// Two PUTs and one watch delivery, and how often that was measured.
    pub raw: (Quantiles, usize),
    /// One for each event and contender.
    pub rows: Vec<Row>,
    /// What each costs.
    pub costs: Vec<Cost>,
}

/// One event that happened to one contender again and again.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What happened.
    pub event: Event,
    /// To whom.
    pub contender: Contender,
    /// How often.
    pub n: usize,
    /// How long nobody was active.
    pub gap: Quantiles,
    /// How often two were at once.
    pub overlaps: usize,
    /// For how long at most.
    pub overlap_max_us: u64,
    /// How often they still were when nobody looked any longer.
    pub endless: usize,
}

impl Row {
    /// Sums outcomes up.
    pub fn of(event: Event, contender: &Contender, outcomes: &[Outcome]) -> Self {
        let longest = outcomes.iter().map(|outcome| outcome.overlap_ns).max().unwrap_or(0);
        Self {
            event,
            contender: contender.clone(),
            n: outcomes.len(),
            gap: Quantiles::of(outcomes.iter().map(|outcome| outcome.gap_ns).collect()),
            overlaps: outcomes.iter().filter(|outcome| outcome.overlap_ns > 0).count(),
            overlap_max_us: longest / 1000,
            endless: outcomes.iter().filter(|outcome| outcome.is_endless).count(),
        }
    }

    fn overlap(&self) -> String {
        match (self.overlaps, self.endless) {
            (0, _) => "none".to_owned(),
            (count, 0) => format!("{count}, up to {} s", seconds(self.overlap_max_us)),
            (count, endless) => format!("{count}, {endless} longer than {} s", OVERLAP_WATCHED.as_secs()),
        }
    }
}

impl Table {
    /// Whether soloist never had two at once.
    pub fn is_met(&self) -> bool {
        self.rows.iter().filter(|row| row.contender.is_quick()).all(|row| row.overlaps == 0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (raw, n) = &self.raw;
        writeln!(f, "{}\n", self.host)?;
        writeln!(
            f,
            "Raw limit, two PUTs and one watch delivery: p50 {} s, p99 {} s, max {} s, n={n}.\n",
            seconds(raw.p50_us),
            seconds(raw.p99_us),
            seconds(raw.max_us)
        )?;
        writeln!(f, "| event | who | n | nobody active, s: p50 | p99 | max | two at once |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let Quantiles { p50_us, p99_us, max_us } = row.gap;
            let [p50, p99, max] = [p50_us, p99_us, max_us].map(seconds);
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
            let minute = |count: u64| format!("{:.0}", count as f64 * 60.0 / cost.watched_seconds.max(1) as f64);
            let [active, standby] = [&cost.active, &cost.standby].map(|requests| minute(requests.all()));
            writeln!(
                f,
                "| {} | {} | {} | {active} | {standby} |",
                cost.contender,
                megabytes(cost.pss_active_kb),
                megabytes(cost.pss_standby_kb)
            )?;
        }
        Ok(())
    }
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
