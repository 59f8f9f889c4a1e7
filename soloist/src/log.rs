//! Logs: one line a change, to stderr, never in the way.

mod fields;
pub mod klog;
pub mod logrus;

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::klog::Klog;
use self::logrus::Logrus;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// As logrus writes it: for the front doors of programs that use it.
    #[value(skip)]
    Logrus,
    /// As glog and klog write it: for the same reason.
    #[value(skip)]
    Klog,
}

/// Lines that wait for a reader who does not read; more are dropped.
const LINES_MAX: usize = 1_000;

/// Starts logging. Lines go through a bounded queue to a thread of their own: a reader who has stopped costs lines,
/// never a renewal. `SOLOIST_LOG` filters, as `info` does by default. The guard flushes when it is dropped.
pub fn start(format: Format) -> WorkerGuard {
    start_at(format, LevelFilter::INFO)
}

/// The same for a program that says nothing as long as nothing is wrong.
pub fn start_quietly(format: Format) -> WorkerGuard {
    start_at(format, LevelFilter::WARN)
}

fn start_at(format: Format, default: LevelFilter) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(std::io::stderr());
    let wanted = std::env::var("SOLOIST_LOG").ok().and_then(|wanted| wanted.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(default));
    let writer = writer.with_max_level(tracing::Level::TRACE);
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_target(false).with_writer(writer);
    match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().with(filter).init(),
        Format::Json => builder.json().flatten_event(true).finish().with(filter).init(),
        Format::Logrus => builder.with_ansi(false).event_format(Logrus).finish().with(filter).init(),
        Format::Klog => builder.with_ansi(false).event_format(Klog).finish().with(filter).init(),
    }
    guard
}
