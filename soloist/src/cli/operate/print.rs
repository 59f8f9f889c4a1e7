//! Output: tables for people, JSON for programs; times with their age; colours on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use jiff::{SignedDuration, Timestamp};
use rustix::termios::Winsize;
use serde::Serialize;
use serde_json::Number;

use crate::spell;
pub(in crate::cli) use crate::spell::{from_to_us, ms, time_or_mark as time};

/// The version of all JSON that the verbs print; a field that changes its meaning would raise it.
pub(in crate::cli) const SCHEMA: u32 = 1;

/// How the result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Format {
    /// For people; coloured on a terminal.
    Table,
    /// One JSON object.
    Json,
}

impl Format {
    /// Prints a result. Nobody is left to tell if the output is closed.
    pub fn print(self, result: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self {
            Format::Table => text(),
            Format::Json => serde_json::to_string_pretty(result).unwrap_or_default(),
        };
        let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    }

    /// Tells a person who watches how far it is.
    pub fn progress(self, what: &str) {
        if self == Format::Table && std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr().lock(), "  {what} ...");
        }
    }
}

/// What a word shall look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Colour {
    Good,
    Bad,
}

/// The text in colour, where standard output is a terminal and NO_COLOR is not set.
pub(in crate::cli) fn coloured(text: &str, colour: Colour) -> String {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if !is_wanted || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    match colour {
        Colour::Good => format!("\x1b[1;32m{text}\x1b[0m"),
        Colour::Bad => format!("\x1b[1;31m{text}\x1b[0m"),
    }
}

/// How many columns the terminal has, where standard output is one. A terminal that does not know says 0.
pub(in crate::cli) fn width() -> Option<usize> {
    size().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// How many lines it has.
pub(in crate::cli) fn height() -> Option<usize> {
    size().map(|size| usize::from(size.ws_row)).filter(|lines| *lines > 0)
}

fn size() -> Option<Winsize> {
    rustix::termios::tcgetwinsize(std::io::stdout()).ok()
}

/// Columns without any lines, no wider than the terminal.
pub(in crate::cli) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let whole = columns(header, &rows, None);
    match width() {
        Some(width) if is_wider(&whole, width) => fitted(header, &rows, width),
        _ => whole,
    }
}

/// In narrower columns than these, on the average, nobody can read.
const COLUMN_MIN: usize = 10;

/// With lines broken within the columns, or else one value on a line.
fn fitted<const N: usize>(header: [&str; N], rows: &[[String; N]], width: usize) -> String {
    if width >= N * COLUMN_MIN {
        let narrow = columns(header, rows, Some(width));
        if !is_wider(&narrow, width) {
            return narrow;
        }
    }
    let label = header.iter().map(|name| name.len()).max().unwrap_or_default();
    let record = |row: &[String; N]| {
        let shown = header.iter().zip(row).filter(|(_, value)| !value.is_empty());
        shown.map(|(name, value)| format!("{name:<label$}  {}", value.trim())).collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(record).collect::<Vec<_>>().join("\n\n")
}

fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    }
    table.set_header(header);
    table.add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

fn is_wider(text: &str, width: usize) -> bool {
    text.lines().any(|line| line.chars().count() > width)
}

/// How long observers wait, as `/status` says it too.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Lease {
    seconds: Option<Number>,
    #[serde(skip)]
    length: Duration,
}

impl Lease {
    pub fn new(length: Duration) -> Self {
        Self { seconds: spell::seconds(length), length }
    }

    pub fn text(&self) -> String {
        span(self.length)
    }
}

/// A time for people: seconds will do.
pub(in crate::cli) fn short_time(unix_us: u64) -> String {
    let timestamp = i64::try_from(unix_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    timestamp.map_or_else(|| "?".to_owned(), |timestamp| format!("{timestamp:.0}"))
}

/// A time for people, and how long ago that was.
pub(in crate::cli) fn time_and_age(unix_us: u64, now_unix_us: u64) -> String {
    format!("{} ({} ago)", short_time(unix_us), since_then(unix_us, now_unix_us))
}

/// How long ago a wall-clock time was; nothing less than now, because clocks differ.
pub(in crate::cli) fn since_then(unix_us: u64, now_unix_us: u64) -> String {
    span(Duration::from_micros(now_unix_us.saturating_sub(unix_us)))
}

/// A length of time for people: three digits or so will do.
pub(in crate::cli) fn span(length: Duration) -> String {
    let ms = length.as_millis();
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    if ms < 10_000 {
        return format!("{}s", (ms / 100) as f64 / 10.0);
    }
    let whole = SignedDuration::from_secs(i64::try_from(length.as_secs()).unwrap_or(i64::MAX));
    format!("{whole:#}")
}

/// A length of time to the millisecond, in seconds.
pub(in crate::cli) fn exactly(length: Duration) -> String {
    let ms = length.as_millis();
    let fraction = format!("{:03}", ms % 1_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{}s", ms / 1_000),
        digits => format!("{}.{digits}s", ms / 1_000),
    }
}

/// A word of a shell's command line.
pub(in crate::cli) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@' | '%' | '+');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_age() {
        let at = 1_700_000_000_250_000;
        assert_eq!(time(at), "2023-11-14T22:13:20.250000Z");
        assert_eq!(time_and_age(at, at + 754_000_000), "2023-11-14T22:13:20Z (12m 34s ago)");
        assert_eq!(time_and_age(at, at + 1_500_000), "2023-11-14T22:13:20Z (1.5s ago)");
        assert_eq!(since_then(at, at - 1), "0ms", "a clock that went back is no reason to wonder");
    }

    #[test]
    fn lengths_are_told_to_the_millisecond() {
        let told = [0, 50, 1_810, 11_111, 15_000].map(|ms| exactly(Duration::from_millis(ms)));
        assert_eq!(told, ["0s", "0.05s", "1.81s", "11.111s", "15s"]);
    }

    #[test]
    fn a_terminal_of_any_width_gets_something_that_can_be_read() {
        let long = "there is no record of an active member, and nobody has been here since";
        let rows = [["a".to_owned(), long.to_owned()], ["b-1".to_owned(), String::new()]];
        for width in 0..120 {
            let text = fitted(["member", "reason"], &rows, width);
            assert!(width < 20 || !is_wider(&text, width) || text.starts_with("member  a\n"), "{width}: {text}");
            for word in long.split(' ').chain(["b-1"]) {
                assert!(text.contains(word), "{width}: {word}: {text}");
            }
        }
        assert_eq!(fitted(["member", "why"], &[["a".to_owned(), String::new()]], 5), "member  a");
    }

    #[test]
    fn words_with_odd_letters_are_quoted() {
        assert_eq!(quoted("/srv/app.lock"), "/srv/app.lock");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
