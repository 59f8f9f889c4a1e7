//! `soloist history`: who was active when, why, and how it ended.

use std::time::Duration;

use clap::Args;

use super::operate::print::{span, table};
use super::operate::{self, Target, asking};
use crate::chronicle::{Chronicle, Entry};
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
    let chronicle = chronicle(&target, &look.history);
    arguments.place.output.print(&chronicle, || text(&chronicle));
    Ok(0)
}

fn chronicle(target: &Target, changes: &[Change]) -> Chronicle {
    Chronicle::new(&target.group, target.lock.to_string(), changes)
}

fn text(chronicle: &Chronicle) -> String {
    if chronicle.changes.is_empty() {
        return "the lock keeps no changes yet".to_owned();
    }
    let header = ["token", "member", "from", "until", "duration", "gap ms", "why", "end"];
    table(header, chronicle.changes.iter().map(row))
}

fn row(entry: &Entry) -> [String; 8] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let duration = entry.duration_ms.map(|ms| span(Duration::from_millis(ms.max(0.0) as u64)));
    [
        or_dash(entry.fencing_token.map(|token| token.to_string())),
        entry.member.clone(),
        entry.from.clone(),
        or_dash(entry.until.clone()),
        or_dash(duration),
        or_dash(entry.gap_ms.map(|gap| format!("{gap:.1}"))),
        entry.why.clone(),
        or_dash(entry.end.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{change, target_at};
    use super::*;

    const T: u64 = 1_700_000_000_000_000;

    fn history(changes: &[Change]) -> Chronicle {
        chronicle(&target_at("/srv/app.lock"), changes)
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
        let text = text(&history);
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..6], ["2", "b", "2023-11-14T22:13:22.008500Z", "-", "-", "8.5"], "{text}");
        let json = serde_json::to_value(&history).unwrap();
        assert_eq!((&json["schema"], &json["changes"][1]["gap_ms"]), (&1.into(), &8.5.into()));
    }

    #[test]
    fn nothing_has_happened_yet() {
        assert_eq!(text(&history(&[])), "the lock keeps no changes yet");
    }
}
