//! One round: two members, an event for the active one, and what the commands of both stamp.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use election::Entropy;
use rustix::process::Signal;
use serde::Serialize;
use soloist::entropy::KernelEntropy;
use tempfile::TempDir;
use testkit::history::{History, Span};
use testkit::relay::Relay;
use testkit::stamp;
use testkit::wait::wait_for;

use super::arena::{Arena, Contender, NAMES, Seat, Start};
use super::member::Member;
use crate::beat;

/// What happens to the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// It is asked to stop.
    Term,
    /// Its command is killed.
    Crash,
    /// Its first process is killed, as when a container is.
    Killed,
    /// Its first process is stopped; the command runs on unless somebody ends it.
    Stopped,
    /// Nothing passes between it and the API server any more.
    BlackHole,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Term, Self::Crash, Self::Killed, Self::Stopped, Self::BlackHole];

    /// Whether the old one may release: the lease is not waited for then.
    pub fn leaves_a_chance(self) -> bool {
        matches!(self, Self::Term | Self::Crash)
    }

    /// How often the commands stamp.
    pub fn pace(self) -> Duration {
        if self.leaves_a_chance() { beat::PACE } else { SLOW_PACE }
    }

    /// How long both are watched after the next one has begun.
    fn watched(self) -> Duration {
        match self {
            Self::Stopped | Self::BlackHole => OVERLAP_WATCHED,
            _ => Duration::from_millis(500),
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Term => "SIGTERM",
            Self::Crash => "command killed",
            Self::Killed => "wrapper killed",
            Self::Stopped => "wrapper stopped",
            Self::BlackHole => "black hole",
        })
    }
}

/// Between two stamps while somebody waits for a lease: many do side by side, and milliseconds do not count.
const SLOW_PACE: Duration = Duration::from_millis(1);
/// An overlap that lasts for this long has no end as far as this goes.
pub const OVERLAP_WATCHED: Duration = Duration::from_secs(10);
/// The phase of the event between two renewals is any.
const RETRY_PERIOD_MS: u64 = 2_000;
/// Longer than any of them waits for.
const LIMIT: Duration = Duration::from_secs(120);
/// The old one has stamped this recently: it is alive.
const FRESH: Duration = Duration::from_millis(100);

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How long nobody was active.
    pub gap_ns: u64,
    /// How long two were, if they were.
    pub overlap_ns: u64,
    /// Whether they still were when nobody looked any longer.
    pub is_endless: bool,
}

/// Two members.
pub struct Pair {
    folder: TempDir,
    /// The members go before what they need.
    seats: Vec<(Member, Seat)>,
    workload: Vec<String>,
}

impl Pair {
    /// The first one active, the second one standing by.
    pub fn start<A: Arena>(arena: &A, contender: &A::Contender, pace: Duration, is_relayed: bool) -> Result<Self> {
        let (lock, folder) = (arena.free_lock()?, tempfile::tempdir_in("/dev/shm")?);
        let mut workload = beat::paced(folder.path(), pace)?;
        workload.extend((!contender.tells_a_token()).then(|| "--untold".to_owned()));
        let mut seats = Vec::new();
        for (index, name) in NAMES.iter().enumerate() {
            let start = Start { index, lock: &lock, workload: &workload, is_relayed };
            let seat = arena.seat(contender, &start)?;
            let member = Member::start(&seat.words, &folder.path().join(format!("{name}.log")))?;
            seats.push((member, seat));
            let first = wait_for("the first one to be active", LIMIT, || newest(folder.path()));
            first.with_context(|| format!("{contender}: {}", log(folder.path(), name)))?;
        }
        sleep(A::SETTLE);
        Ok(Self { folder, seats, workload })
    }

    /// The one that was started first, which is active, or the other one.
    fn seat(&self, is_active: bool) -> Result<&(Member, Seat)> {
        self.seats.get(usize::from(!is_active)).context("no such member")
    }

    /// The same without what it needs.
    pub fn member(&self, is_active: bool) -> Result<&Member> {
        self.seat(is_active).map(|(member, _)| member)
    }

    /// What it reaches the store by.
    pub fn relay(&self, is_active: bool) -> Result<&Relay> {
        self.seat(is_active)?.1.relay.as_ref().context("no relay")
    }

    /// The program of its command.
    pub fn workload(&self) -> &str {
        self.workload.first().map_or("", String::as_str)
    }

    /// Lets it happen to the active one at any moment between two renewals, and looks at what follows.
    pub fn round(&self, event: Event) -> Result<Outcome> {
        sleep(Duration::from_millis(KernelEntropy.bits() % RETRY_PERIOD_MS));
        let old = newest(self.folder.path()).context("nobody is active")?;
        let member = self.member(true)?;
        match event {
            Event::Term => member.signal(Signal::TERM)?,
            Event::Crash => member.crash_command(self.workload())?,
            Event::Killed => member.signal(Signal::KILL)?,
            Event::Stopped => member.signal(Signal::STOP)?,
            Event::BlackHole => self.relay(true)?.black_hole(),
        }
        let is_next = |span: &Span| span.activation != old.activation;
        let find = || newest(self.folder.path()).filter(is_next);
        let next = wait_for("the next one", LIMIT, find).with_context(|| log(self.folder.path(), "b"))?;
        sleep(event.watched());
        let spans = History::of(stamp::read_page(self.folder.path())).spans;
        let now = stamp::now();
        let old = spans.into_iter().find(|span| span.activation == old.activation).context("its stamps are lost")?;
        Ok(Outcome {
            gap_ns: next.first.saturating_sub(old.last),
            overlap_ns: old.last.saturating_sub(next.first),
            is_endless: now.saturating_sub(old.last) < u64::try_from(FRESH.as_nanos())?,
        })
    }
}

/// The activation that began last.
fn newest(page: &Path) -> Option<Span> {
    History::of(stamp::read_page(page)).spans.into_iter().max_by_key(|span| span.first)
}

fn log(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
}
