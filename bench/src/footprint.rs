//! What a member costs: memory, size, time to start, and how often it wakes up while it stands by.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::Serialize;
use testkit::group::{Group, binary};
use testkit::member::Member;
use testkit::quantiles::Quantiles;
use testkit::stamp;

use crate::handover;
use crate::steps::{LIMIT, SETTLE};

/// After this, what a start needed once is given back.
const CALM: Duration = Duration::from_secs(2);

/// Threads that end take their counts along, so they are read this often.
const LOOK: Duration = Duration::from_millis(500);

/// What a member costs.
#[derive(Debug, Serialize)]
pub struct Footprint {
    /// Of elector and guard together, alone on the host: nobody shares the binary's pages.
    pub pss_active_kb: u64,
    /// Of a standby's elector and guard together, beside the active one.
    pub pss_standby_kb: u64,
    /// Size of the binary.
    pub binary_bytes: u64,
    /// How many starts.
    pub starts: usize,
    /// From exec to the workload's first instant, with a free lock.
    pub start: Quantiles,
    /// How long the standby was watched.
    pub watched_seconds: u64,
    /// How often a thread of a standby's elector or guard went to sleep in a minute.
    pub wakeups_per_minute: f64,
}

impl Footprint {
    /// Measures all of it, `starts` starts among it.
    pub fn measure(starts: usize, watch: Duration) -> Result<Self> {
        let binary_bytes = fs::metadata(binary("soloist")?).context("failed to look at soloist")?.len();
        let start = start_times(starts)?;
        let group = handover::group("15s")?;
        let active = handover::spawn(&group, "active", &[])?;
        active.wait_active(&group, LIMIT)?;
        sleep(CALM);
        let pss_active_kb = pss_kb(&active)?;
        let standby = handover::spawn(&group, "standby", &[])?;
        standby.wait_standby(LIMIT)?;
        sleep(CALM);
        let pss_standby_kb = pss_kb(&standby)?;
        let wakeups_per_minute = wakeups(&standby, watch)?;
        Ok(Self {
            pss_active_kb,
            pss_standby_kb,
            binary_bytes,
            starts,
            start: Quantiles::of(start),
            watched_seconds: watch.as_secs(),
            wakeups_per_minute,
        })
    }
}

fn start_times(count: usize) -> Result<Vec<u64>> {
    let group = handover::group("15s")?;
    let mut times = Vec::with_capacity(count);
    let mut last = 0;
    for _ in 0..count {
        let (time, token) = start_once(&group, last)?;
        group.archive_before(token + 1)?;
        times.push(time);
        last = token;
    }
    Ok(times)
}

fn start_once(group: &Group, last: u64) -> Result<(u64, u64)> {
    let at = stamp::now();
    let mut member = handover::spawn(group, "alone", &[])?;
    let active = group.wait_active_after(last, LIMIT)?;
    sleep(SETTLE);
    member.signal(Signal::TERM)?;
    member.wait_exit(LIMIT)?;
    Ok((active.first.saturating_sub(at), active.token))
}

fn keepers(member: &Member) -> Result<[i32; 2]> {
    Ok([member.elector_pid()?, member.guard_pid()?])
}

/// Memory of elector and guard together; pages that others map count in part.
pub fn pss_kb(member: &Member) -> Result<u64> {
    keepers(member)?.into_iter().map(pss_of).sum()
}

/// Memory of one process.
pub fn pss_of(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    number_of(&page, "Pss:").with_context(|| format!("failed to find Pss in {path}"))
}

/// The number in a line such as `Pss:   123 kB`.
fn number_of(page: &str, key: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

/// Voluntary context switches of all threads of both keepers, for a minute's worth.
fn wakeups(standby: &Member, watch: Duration) -> Result<f64> {
    let pids = keepers(standby)?;
    let before = switches(&pids);
    let mut now = before.clone();
    let start = Instant::now();
    while start.elapsed() < watch {
        sleep(LOOK);
        now.extend(switches(&pids));
    }
    let count: u64 = now.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0)).sum();
    Ok(count as f64 * 60.0 / start.elapsed().as_secs_f64())
}

/// By thread.
fn switches(pids: &[i32]) -> BTreeMap<String, u64> {
    let threads = |pid: &i32| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let count = |thread: &Path| {
        let page = fs::read_to_string(thread.join("status")).ok()?;
        number_of(&page, "voluntary_ctxt_switches:")
    };
    let counted = pids.iter().flat_map(threads).map(|entry| entry.path());
    counted.filter_map(|thread| Some((thread.display().to_string(), count(&thread)?))).collect()
}
