//! The workloads, which are the program `beat`, and what they have stamped.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::history::{History, Span};
use testkit::stamp;

/// Between two stamps: a gap is known to about a tenth of a millisecond, and a core has nearly nothing to do.
pub const PACE: Duration = Duration::from_micros(100);

/// How a workload is started.
pub fn command(page: &Path) -> Result<Vec<String>> {
    paced(page, PACE)
}

/// How one is started that stamps at `pace`.
pub fn paced(page: &Path, pace: Duration) -> Result<Vec<String>> {
    let program = std::env::current_exe().context("failed to find this program")?.with_file_name("beat");
    ensure!(program.is_file(), "failed to find {}: run `cargo build -p bench` first", program.display());
    let mut words: Option<Vec<String>> =
        [program.as_path(), page].map(|word| word.to_str().map(str::to_owned)).into_iter().collect();
    if let Some(words) = &mut words {
        words.push(pace.as_micros().to_string());
    }
    words.context("failed to name this program and its folder: not UTF-8")
}

/// The activation with the largest token on a page.
pub fn newest(page: &Path) -> Option<Span> {
    History::of(stamp::read_page(page)).spans.into_iter().max_by_key(|span| span.token)
}

/// The activation with this token, as far as it has stamped.
pub fn with_token(page: &Path, token: u64) -> Result<Span> {
    let span = History::of(stamp::read_page(page)).spans.into_iter().find(|span| span.token == token);
    span.with_context(|| format!("the stamps of token {token} are lost"))
}
