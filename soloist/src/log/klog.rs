//! Lines as glog and klog write them, for those who replace a program that did:
//! `I0217 05:35:12.569830       7 leaderelection.go:215] message`. Times are UTC.

use std::fmt;
use std::panic::Location;
use std::path::Path;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;

/// Writes why the program ends to stderr, at once.
#[track_caller]
pub fn fatal(message: &str) {
    use std::io::Write as _;
    let place = Location::caller();
    // Nobody is left to tell if that is closed.
    let _ = writeln!(std::io::stderr().lock(), "{}{message}", head('F', place.file(), place.line()));
}

/// What each line begins with.
fn head(severity: char, file: &str, line: u32) -> String {
    let now = jiff::Timestamp::now().strftime("%m%d %H:%M:%S%.6f");
    let file = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    format!("{severity}{now} {:>7} {file}:{line}] ", std::process::id())
}

/// Writes every event of the program as such a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Klog;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Klog {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (fields, of) = (Fields::of(event), event.metadata());
        let severity = match *of.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            Level::INFO | Level::DEBUG | Level::TRACE => 'I',
        };
        let head = head(severity, of.file().unwrap_or_default(), of.line().unwrap_or_default());
        write!(writer, "{head}{}", fields.message)?;
        for (name, value) in &fields.others {
            write!(writer, " {name}={value}")?;
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_as_people_know_them() {
        let line = head('I', "a/b/leader.rs", 215);
        let (time, rest) = line.split_at("I0217 05:35:12.569830".len());
        assert!(time.starts_with('I') && time.as_bytes()[5] == b' ' && time.as_bytes()[14] == b'.', "{line}");
        assert_eq!(rest, format!(" {:>7} leader.rs:215] ", std::process::id()));
    }
}
