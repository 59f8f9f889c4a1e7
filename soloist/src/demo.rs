//! The main job, seen: three members, a small real workload, and everything that can happen to the active one.
//!
//! The workload is a server that appends what a client sends it to a journal, each line with its fencing token. The
//! journal refuses smaller tokens. Who is active and how long a handover took is what the members say at `/events`.
//! Whether they speak the truth is judged without them: each server stamps a file all the time, so that the instants at
//! which the old one was last alive and the new one first are known to a fraction of a millisecond.

mod client;
mod ends;
mod journal;
mod life;
mod members;
mod report;
mod screen;
mod server;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use report::Report;
pub use screen::Style;
pub use server::main as serve;

use client::Client;
use ends::End;
use journal::Journal;
use life::Life;
use members::Members;
use report::Round;
use screen::Screen;
use watch::Watch;

/// Longer than any takeover of the demo can last; then something is broken.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);

/// What a person can see between two rounds.
const PAUSE: Duration = Duration::from_millis(250);

/// What the demo does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the active one is ended.
    pub rounds: u32,
    /// The members' lease.
    pub lease: Duration,
}

/// Runs the demo in a folder of its own, which is gone afterwards. Ends early when `stop` is set.
///
/// # Errors
/// Something could not be started, or nobody took over.
pub fn run(plan: Plan, style: Style, stop: &Arc<AtomicBool>) -> Result<Report> {
    let folder = Folder::create()?;
    let journal = Journal::open(folder.path())?;
    let client = Client::start(folder.path());
    let mut screen = Screen::new(style, plan);
    let watch = Watch::start(folder.path(), &members::NAMES)?;
    let mut members = Members::start(folder.path(), plan.lease)?;
    let mut report = Report::default();

    let mut active = watch.wait_for_active(0, TAKEOVER_LIMIT, stop)?;
    for number in 0..plan.rounds {
        screen.show(&watch, &active, &report, &client);
        pause(stop);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let end = End::of_round(number);
        screen.announce(number, end, &active);
        let event = members.end(&active, end)?;
        let next = watch.wait_for_active(active.token, TAKEOVER_LIMIT, stop).with_context(|| {
            let (round, kept) = (number + 1, keep(folder.path()).unwrap_or_default());
            format!("after round {round}: {end} of {}; the members' logs are in {kept}", active.member)
        })?;
        report.push(Round::of(number, end, event, &active, &next));
        screen.handed_over(&report);
        members.repair(&active.member, end)?;
        active = next;
    }
    members.stop();
    let acknowledged = client.stop();
    report.judge(&Life::all(folder.path()), &journal, &acknowledged)?;
    screen.finish(&report);
    Ok(report)
}

/// Saves the logs from the folder that is about to be removed.
fn keep(folder: &Path) -> Result<String> {
    let kept = folder.with_extension("failed");
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    Ok(kept.display().to_string())
}

fn pause(stop: &AtomicBool) {
    let end = Instant::now() + PAUSE;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A private folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("soloist-demo-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("failed to create the folder {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left-overs in the temporary folder are no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
