//! `soloist history`: who was active when, why, and how it ended.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::operate::print::{SCHEMA, from_to_us, ms, span, table, time};
use super::operate::{self, Target, asking};
use crate::error::Failure;
use crate::lock::history::Change;

#[derive(Debug, Args)]
#[command(after_help = "\
The lock keeps the last changes, at most 32. The gap is the time from the proof
that nothing of the one before was left to the write that made this one active,
in milliseconds; '-' where the end was not proven.

Examples:
  soloist history --lock ./app.lock
  soloist history --lock ./app.lock --output json")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
}

/// Prints the last changes.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    let target = arguments.place.target_to_look_at()?;
    let look = operate::block_on(async { asking::readable(asking::look(&target.board_of_slot().await?).await?) })?;
    let history = History::of(&target, &look.history);
    arguments.place.output.print(&history, || history.text());
    Ok(0)
}

/// The changes, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct History {
    schema: u32,
    group: String,
    lock: String,
    changes: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    fencing_token: Option<u64>,
    member: String,
    from: String,
    until: Option<String>,
    duration_ms: Option<f64>,
    gap_ms: Option<f64>,
    why: String,
    end: Option<String>,
}

impl History {
    fn of(target: &Target, changes: &[Change]) -> Self {
        let before = std::iter::once(None).chain(changes.iter().map(Some));
        Self {
            schema: SCHEMA,
            group: target.group.clone(),
            lock: target.lock.to_string(),
            changes: changes.iter().zip(before).map(|(change, before)| Entry::of(change, before)).collect(),
        }
    }

    fn text(&self) -> String {
        if self.changes.is_empty() {
            return "the lock keeps no changes yet".to_owned();
        }
        let header = ["token", "member", "from", "until", "duration", "gap ms", "why", "end"];
        table(header, self.changes.iter().map(Entry::row))
    }
}

/// From the proven end of one to the next, in milliseconds.
pub(super) fn gap_ms(before: &Change, change: &Change) -> Option<f64> {
    before.until_us.map(|until| ms(from_to_us(until, change.from_us)))
}

impl Entry {
    fn of(change: &Change, before: Option<&Change>) -> Self {
        Self {
            fencing_token: change.token,
            member: change.member.clone(),
            from: time(change.from_us),
            until: change.until_us.map(time),
            duration_ms: change.until_us.map(|until| ms(from_to_us(change.from_us, until))),
            gap_ms: before.and_then(|before| gap_ms(before, change)),
            why: change.why.clone(),
            end: change.end.clone(),
        }
    }

    fn row(&self) -> [String; 8] {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let duration = self.duration_ms.map(|ms| span(Duration::from_millis(ms.max(0.0) as u64)));
        [
            or_dash(self.fencing_token.map(|token| token.to_string())),
            self.member.clone(),
            self.from.clone(),
            or_dash(self.until.clone()),
            or_dash(duration),
            or_dash(self.gap_ms.map(|gap| format!("{gap:.1}"))),
            self.why.clone(),
            or_dash(self.end.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{change, target_at};
    use super::*;

    const T: u64 = 1_700_000_000_000_000;

    fn history(changes: &[Change]) -> History {
        History::of(&target_at("/srv/app.lock"), changes)
    }

    #[test]
    fn the_gap_is_told_where_the_end_was_proven() {
        let changes = [
            change("a", 1, T, Some(T + 2_000_000)),
            change("b", 2, T + 2_008_500, None),
            change("a", 3, T + 9_000_000, None),
        ];
        let history = history(&changes);
        let gaps: Vec<Option<f64>> = history.changes.iter().map(|entry| entry.gap_ms).collect();
        assert_eq!(gaps, [None, Some(8.5), None]);
        assert_eq!(history.changes[0].duration_ms, Some(2_000.0));
        let text = history.text();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..6], ["2", "b", "2023-11-14T22:13:22.008500Z", "-", "-", "8.5"], "{text}");
        let json = serde_json::to_value(&history).unwrap();
        assert_eq!((&json["schema"], &json["changes"][1]["gap_ms"]), (&1.into(), &8.5.into()));
    }

    #[test]
    fn nothing_has_happened_yet() {
        assert_eq!(history(&[]).text(), "the lock keeps no changes yet");
    }
}
