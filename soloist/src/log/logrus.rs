//! Lines as logrus writes them, for those who replace a program that did: `time="..." level=info msg="..." key=value`.

use std::fmt::{self, Write};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::fields::Fields;

/// One line.
#[derive(Debug)]
pub struct Line(String);

impl Line {
    /// A line with its message.
    pub fn new(level: &str, message: &str) -> Self {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        Self(format!("time=\"{now}\" level={level}")).with("msg", message)
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = if is_plain(value) { write!(self.0, " {key}={value}") } else { write!(self.0, " {key}={value:?}") };
        self
    }

    /// Writes it to stderr at once.
    pub fn print(&self) {
        use std::io::Write as _;
        // Nobody is left to tell if that is closed.
        let _ = writeln!(std::io::stderr().lock(), "{}", self.0);
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What needs no quotes.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte))
}

/// Writes every event of the program as such a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logrus;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Logrus {
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let fields = Fields::of(event);
        let line = Line::new(level(*event.metadata().level()), &fields.message);
        let line = fields.others.iter().fold(line, |line, (key, value)| line.with(key, value));
        writeln!(writer, "{line}")
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn without_time(line: &str) -> &str {
        let (time, rest) = line.split_once("Z\" ").unwrap();
        assert!(time.starts_with("time=\"20"), "{line}");
        rest
    }

    #[test]
    fn lines_are_quoted_only_where_they_must_be() {
        let line = Line::new("info", "running k8s-await-election").with("version", "0.1.0").to_string();
        assert_eq!(without_time(&line), "level=info msg=\"running k8s-await-election\" version=0.1.0");
        let line = Line::new("fatal", "x").with("err", "a \"b\"\nc").with("empty", "").to_string();
        assert_eq!(without_time(&line), r#"level=fatal msg=x err="a \"b\"\nc" empty="#);
    }

    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_of_the_program_look_alike() {
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Logrus).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pid = 7, role = %"active", "the workload runs");
        });
        let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
        assert_eq!(without_time(&text), "level=warning msg=\"the workload runs\" pid=7 role=active\n");
    }
}
