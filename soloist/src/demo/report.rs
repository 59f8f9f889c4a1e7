//! What the demo saw: rounds, gaps, overlaps, lost entries.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;
use serde::Serialize;

use super::ends::End;
use super::journal::Journal;
use super::life::Life;
use super::watch::Active;

/// One handover.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Counts from 1.
    pub round: u32,
    /// What was done to the active one.
    pub end: End,
    /// Who was active before.
    pub from: String,
    /// Who is active after.
    pub to: String,
    /// The new one's fencing token.
    pub token: u64,
    /// From the proof that nothing of the old workload was left until the new one ran, in milliseconds, by the
    /// members' own word; nothing if nobody could say when the old one ended.
    pub gap_ms: Option<f64>,
    /// From the event until the new workload ran, in milliseconds.
    pub since_event_ms: f64,
}

impl Round {
    pub(super) fn of(number: u32, end: End, event: Timestamp, old: &Active, next: &Active) -> Self {
        let ms = |from: Timestamp| next.since.duration_since(from).as_secs_f64() * 1e3;
        Self {
            round: number + 1,
            end,
            from: old.member.clone(),
            to: next.member.clone(),
            token: next.token,
            gap_ms: next.previous_until.map(ms),
            since_event_ms: ms(event),
        }
    }
}

/// Everything the demo saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The handovers in order.
    pub rounds: Vec<Round>,
    /// Pairs of servers that were alive at the same instant.
    pub overlaps: u64,
    /// Servers that came later and had no larger token.
    pub tokens_out_of_order: u64,
    /// Numbers that the client got acknowledged.
    pub acknowledged: u64,
    /// Acknowledged numbers that are not in the journal.
    pub lost: u64,
    /// Appends that the journal refused because of a smaller token.
    pub refused: u64,
}

impl Report {
    pub(super) fn push(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// Whether nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.overlaps == 0 && self.tokens_out_of_order == 0 && self.lost == 0
    }

    /// Counts over everything that all servers and the journal wrote.
    pub(super) fn judge(&mut self, lives: &[Life], journal: &Journal, acknowledged: &[u64]) -> Result<()> {
        let (overlaps, disorder) = count(lives);
        (self.overlaps, self.tokens_out_of_order) = (overlaps, disorder);
        let stored = journal.sequences()?;
        self.acknowledged = acknowledged.len() as u64;
        self.lost = acknowledged.iter().filter(|sequence| !stored.contains(sequence)).count() as u64;
        self.refused = journal.refused();
        Ok(())
    }

    /// A row for each kind of end.
    pub fn table(&self) -> Table {
        let mut by_end: BTreeMap<End, Vec<&Round>> = BTreeMap::new();
        for round in &self.rounds {
            by_end.entry(round.end).or_default().push(round);
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["what ended the active one", "n", "gap p50 ms", "gap max ms", "since event p50", "max ms"]);
        for (end, rounds) in by_end {
            let gaps: Vec<f64> = rounds.iter().filter_map(|round| round.gap_ms).collect();
            let since: Vec<f64> = rounds.iter().map(|round| round.since_event_ms).collect();
            let cell = |value: f64| format!("{value:.1}");
            let (gap, since) = (middle_and_max(gaps), middle_and_max(since));
            let row = [cell(gap.0), cell(gap.1), cell(since.0), cell(since.1)];
            let [a, b, c, d] = row;
            table.add_row([end.to_string(), rounds.len().to_string(), a, b, c, d]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// One line with all counts.
    pub fn verdict(&self) -> String {
        format!(
            "{} handovers, {} overlaps, {} tokens out of order, {} entries acknowledged, {} lost, {} stale appends refused",
            self.rounds.len(),
            self.overlaps,
            self.tokens_out_of_order,
            self.acknowledged,
            self.lost,
            self.refused
        )
    }
}

/// Pairs that overlap, and neighbours in time whose tokens do not grow.
fn count(lives: &[Life]) -> (u64, u64) {
    let mut lives: Vec<&Life> = lives.iter().collect();
    lives.sort_unstable_by_key(|life| life.first);
    let mut overlaps = 0;
    for (index, later) in lives.iter().enumerate() {
        overlaps += lives[..index].iter().filter(|earlier| earlier.last >= later.first).count() as u64;
    }
    let disorder = lives.windows(2).filter(|pair| pair[1].token <= pair[0].token).count() as u64;
    (overlaps, disorder)
}

fn middle_and_max(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).copied().unwrap_or_default();
    (middle, values.last().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(token: u64, first: u64, last: u64) -> Life {
        Life { token, first, last }
    }

    #[test]
    fn overlap_and_disorder_are_counted() {
        assert_eq!(count(&[life(1, 0, 10), life(2, 11, 20)]), (0, 0));
        assert_eq!(count(&[life(1, 0, 10), life(2, 10, 20)]), (1, 0));
        assert_eq!(count(&[life(1, 0, 100), life(2, 10, 20), life(3, 30, 40)]), (2, 0));
        assert_eq!(count(&[life(2, 0, 10), life(1, 11, 20)]), (0, 1));
    }
}
