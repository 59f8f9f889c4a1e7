//! A whole run, as a table and as JSON.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::Serialize;
use testkit::ends::End;
use testkit::quantiles::Quantiles;

use crate::flock::Flocks;
use crate::footprint::Footprint;
use crate::handover::Trio;
use crate::http::Http;
use crate::raw::{Parts, Raw};
use crate::steps::Gap;

/// The ends that are measured by turns with the others' and with the raw limit, with the default lease.
const ENDS: [End; 4] = [End::Term, End::WorkloadKilled, End::ElectorKilled, End::GuardKilled];

/// A standby of a stopped elector waits for its deadline: a short lease makes that bearable.
const SHORT_LEASE: &str = "2s";

const RATIO_MAX: f64 = 3.0;
const KEEPER_KILLED_MAX_US: u64 = 20_000;
/// What a member's two keepers may take.
pub const PSS_MAX_KB: u64 = 12_000;
/// What the release binary may take.
pub const BINARY_MAX_BYTES: u64 = 8_000_000;
/// How much longer than the raw limit a handover over a store may take at p50.
pub const P50_RATIO_MAX: f64 = 1.5;
/// How much longer than a lease the next one may take where only that tells.
pub const AFTER_LEASE_MAX: Duration = Duration::from_millis(500);
const WAKEUPS_MAX: f64 = 60.0;
const ANSWER_MAX_US: u64 = 1_000;
const VERB_MAX_US: u64 = 50_000;
const CROWDED_RATIO_MAX: f64 = 1.5;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it ran.
    pub host: Host,
    /// How long nobody was active.
    pub gaps: Vec<Row>,
    /// The raw limit and its parts.
    pub raw: Vec<Row>,
    /// What a member costs.
    pub footprint: Footprint,
    /// Answers over HTTP, and handovers while many listen.
    pub http: Http,
    /// What must never be; a run with one of these measured nothing.
    pub violations: Vec<String>,
    /// What had to be reached.
    pub targets: Vec<Target>,
}

/// Where a run took place, and how busy that was.
#[derive(Debug, Serialize)]
pub struct Host {
    /// Its kernel.
    pub kernel: String,
    /// How many processors a process may use.
    pub processors: usize,
    /// Type of the file system of the lock, as statfs(2) names it.
    pub file_system: String,
    /// Load of the last minute before and after.
    pub load: [String; 2],
}

/// One measured thing.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// How often.
    pub n: usize,
    /// From the last instant of the old one; of a part of the raw limit: from its begin to its end.
    pub gap: Quantiles,
    /// From the signal that ended the old one, where there was one.
    pub from_event: Option<Quantiles>,
}

/// One thing that had to be reached.
#[derive(Debug, Serialize)]
pub struct Target {
    /// What it is about.
    pub what: String,
    /// What was measured.
    pub got: f64,
    /// What is allowed.
    pub at_most: f64,
    /// Whether that is so.
    pub met: bool,
}

impl Target {
    /// Whether `got` is at most `at_most`.
    pub fn new(what: impl Into<String>, got: f64, at_most: f64) -> Self {
        Self { what: what.into(), got, at_most, met: got <= at_most }
    }
}

/// How many times as long.
pub fn ratio(us: u64, limit_us: u64) -> f64 {
    us as f64 / limit_us.max(1) as f64
}

impl Report {
    /// Measures everything, `rounds` handovers of each kind among it.
    pub fn measure(rounds: usize, quick: bool) -> Result<Self> {
        let before = Host::load_now();
        let mut trio = Trio::start("15s", &[])?;
        let file_system = file_system(&trio)?;
        let (mut gaps, raw) = by_turns(&mut trio, rounds)?;
        let mut violations = trio.violations();
        drop(trio);

        let mut short = Trio::start(SHORT_LEASE, &[])?;
        let mut stopped = Vec::with_capacity(rounds);
        for round in 1..=rounds {
            eprintln!("{}, round {round} of {rounds}", End::ElectorStopped);
            stopped.push(short.round(End::ElectorStopped)?);
        }
        gaps.push(Row::of(format!("soloist: {}, lease {SHORT_LEASE}", End::ElectorStopped), &stopped));
        violations.extend(short.violations());
        drop(short);

        let footprint = Footprint::measure(rounds, Duration::from_secs(if quick { 10 } else { 60 }))?;
        let http = Http::measure(rounds)?;
        violations.extend(http.violations.iter().cloned());
        let host = Host::here(file_system, before);
        let mut targets = targets(&gaps, &raw, &footprint, &violations);
        targets.extend(http_targets(&http));
        Ok(Self { host, gaps, raw, footprint, http, violations, targets })
    }

    /// Whether everything was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

/// Everything that is compared, by turns: what else the host does meets all of it alike.
fn by_turns(trio: &mut Trio, rounds: usize) -> Result<(Vec<Row>, Vec<Row>)> {
    let mut flocks = Flocks::start(&trio.group)?;
    let limit = Raw::start(&trio.group)?;
    let mut soloist = ENDS.map(|_| Vec::with_capacity(rounds));
    let signals = [("SIGTERM to the command", Signal::TERM), ("command killed", Signal::KILL)];
    let mut flock = signals.map(|_| Vec::with_capacity(rounds));
    let mut parts = Vec::with_capacity(rounds);
    for round in 1..=rounds {
        eprintln!("handovers, round {round} of {rounds}");
        for (end, gaps) in ENDS.iter().zip(&mut soloist) {
            gaps.push(trio.round(*end)?);
        }
        for ((_, signal), gaps) in signals.iter().zip(&mut flock) {
            gaps.push(flocks.round(*signal)?);
        }
        parts.push(limit.round()?);
    }
    let mut rows: Vec<Row> =
        ENDS.iter().zip(&soloist).map(|(end, gaps)| Row::of(format!("soloist: {end}"), gaps)).collect();
    rows.extend(signals.iter().zip(&flock).map(|((name, _), gaps)| Row::of(format!("flock: {name}"), gaps)));
    Ok((rows, raw_rows(&parts)))
}

impl Row {
    /// Times of one kind, in nanoseconds.
    pub fn of_times(name: &str, times: Vec<u64>) -> Self {
        Self { name: name.to_owned(), n: times.len(), gap: Quantiles::of(times), from_event: None }
    }

    /// Gaps of one kind.
    pub fn of(name: String, gaps: &[Gap]) -> Self {
        let quantiles = |of: fn(&Gap) -> u64| Quantiles::of(gaps.iter().map(of).collect());
        let from_event = Some(quantiles(|gap| gap.from_event_ns));
        Self { name, n: gaps.len(), gap: quantiles(|gap| gap.from_last_ns), from_event }
    }
}

fn raw_rows(parts: &[Parts]) -> Vec<Row> {
    type Part = fn(&Parts) -> u64;
    let columns: [(&str, Part); 5] = [
        ("raw limit", |part| part.total_ns),
        ("  release written", |part| part.release_ns),
        ("  flock to wake-up", |part| part.wake_ns),
        ("  counter and record written", |part| part.acquire_ns),
        ("  fork and exec", |part| part.start_ns),
    ];
    let row = |(name, of): (&str, Part)| Row {
        name: name.to_owned(),
        n: parts.len(),
        gap: Quantiles::of(parts.iter().map(of).collect()),
        from_event: None,
    };
    columns.map(row).into()
}

fn targets(gaps: &[Row], raw: &[Row], footprint: &Footprint, violations: &[String]) -> Vec<Target> {
    let limit = raw.first().map_or(0, |row| row.gap.p50_us).max(1) as f64;
    let mut targets = Vec::new();
    for (end, row) in ENDS.iter().zip(gaps) {
        let p50 = row.gap.p50_us;
        targets.push(match end {
            End::ElectorKilled | End::GuardKilled => {
                Target::new(format!("{end}: p50, us"), p50 as f64, KEEPER_KILLED_MAX_US as f64)
            }
            _ => Target::new(format!("{end}: p50 / raw limit"), p50 as f64 / limit, RATIO_MAX),
        });
    }
    let counts = [
        ("PSS of elector and guard, active, kB", footprint.pss_active_kb, PSS_MAX_KB),
        ("PSS of elector and guard, standby, kB", footprint.pss_standby_kb, PSS_MAX_KB),
        ("binary, bytes", footprint.binary_bytes, BINARY_MAX_BYTES),
        ("overlaps and other violations", violations.len() as u64, 0),
    ];
    targets.extend(counts.map(|(what, got, at_most)| Target::new(what, got as f64, at_most as f64)));
    targets.push(Target::new("wake-ups of an idle standby per minute", footprint.wakeups_per_minute, WAKEUPS_MAX));
    targets
}

fn http_targets(http: &Http) -> Vec<Target> {
    let p99 =
        |row: &Row, at_most: u64| Target::new(format!("{}: p99, us", row.name), row.gap.p99_us as f64, at_most as f64);
    let [alone, crowded, _] = http.gaps.each_ref().map(|row| row.gap.p50_us.max(1) as f64);
    let mut targets: Vec<Target> = http.answers.iter().map(|row| p99(row, ANSWER_MAX_US)).collect();
    targets.push(p99(&http.verb, VERB_MAX_US));
    targets.push(Target::new("p50 with 1,000 on the active / p50 without", crowded / alone, CROWDED_RATIO_MAX));
    targets
}

impl Host {
    /// This one, now that the run is over; `before` is the load at its start.
    pub fn here(file_system: String, before: String) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        Self { kernel, processors, file_system, load: [before, Self::load_now()] }
    }

    /// Load of the last minute.
    pub fn load_now() -> String {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        text.split(' ').next().unwrap_or_default().to_owned()
    }
}

fn file_system(trio: &Trio) -> Result<String> {
    let kind = rustix::fs::statfs(trio.group.folder()).context("failed to look at the lock's file system")?.f_type;
    Ok(match kind {
        0xEF53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        other => format!("{other:#x}"),
    })
}

/// Above the rows of a table.
pub fn heads() -> String {
    let of_three = "      p50      p99      max";
    let above = format!("{:<38}{:>5}{:>27}{:>29}", "", "", "gap from last instant, ms", "from the signal, ms");
    format!("{above}\n{:<38}{:>5}{of_three}  {of_three}", "", "n")
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processors, file_system, load: [before, after] } = self;
        write!(f, "Linux {kernel}, {processors} processors, {file_system}, load {before} to {after}")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<38}{:>5}", self.name, self.n)?;
        for quantiles in [Some(&self.gap), self.from_event.as_ref()].into_iter().flatten() {
            for us in [quantiles.p50_us, quantiles.p99_us, quantiles.max_us] {
                write!(f, "{:>9.2}", us as f64 / 1000.0)?;
            }
            write!(f, "  ")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "ok" } else { "MISSED" };
        let digits = if self.at_most < 100.0 { 2 } else { 0 };
        write!(f, "{:<64}{:>10.digits$}  at most {:>9}  {verdict}", self.what, self.got, self.at_most)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.host, heads())?;
        for row in self.gaps.iter().chain(&self.raw) {
            writeln!(f, "{}", row.to_string().trim_end())?;
        }
        let start = Row {
            name: "start, lock free".into(),
            n: self.footprint.starts,
            gap: self.footprint.start,
            from_event: None,
        };
        writeln!(f, "{}", start.to_string().trim_end())?;
        for row in self.http.gaps.iter().chain(&self.http.answers).chain([&self.http.verb]) {
            writeln!(f, "{}", row.to_string().trim_end())?;
        }
        writeln!(f)?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        write!(f, "\nflock promises less: no fencing token, no record of who is active, no end of what hangs.")
    }
}
