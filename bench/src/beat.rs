//! The workload: stamps that it is alive, and dies of whatever signal comes.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::history::{History, Span};
use testkit::stamp::{self, Identity, Stamper};

/// Between two stamps: a gap is known to about a tenth of a millisecond, and a core has nearly nothing to do.
const PACE: Duration = Duration::from_micros(100);

/// Stamps for ever.
pub fn beat(page: &Path, born: u64, untold: bool) -> Result<()> {
    let identity = if untold { made_up(born) } else { Identity::from_env()? };
    let mut stamper = Stamper::claim(page, &identity, "main", born)?;
    loop {
        stamper.stamp()?;
        sleep(PACE);
    }
}

/// Under a tool that hands out no tokens, the later one has the larger number.
fn made_up(born: u64) -> Identity {
    Identity { token: born, activation: born.into(), member: "untold".to_owned() }
}

/// How a workload is started.
pub fn command(page: &Path) -> Result<Vec<String>> {
    let own = std::env::current_exe().context("failed to find this program")?;
    let words = [own.to_str(), Some("beat"), page.to_str()];
    let words: Option<Vec<String>> = words.into_iter().map(|word| word.map(str::to_owned)).collect();
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
