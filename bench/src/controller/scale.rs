//! Tens of thousands of pods: what the leading controller takes, how soon it is ready, and failovers of many groups within
//! a second.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use soloist::route::api::Api;
use tempfile::TempDir;
use testkit::quantiles::Quantiles;
use testkit::stamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Controller;
use super::world::{HANDS, World, delete_pod, is_active, make_namespace, make_pod};

/// So many groups fail within a second.
const FAILED: usize = 100;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Scale {
    /// Groups of two pods.
    pub groups: usize,
    /// From its start to the first label that a new leader wrote.
    pub ready_ms: u64,
    /// Its resident memory then, and its largest.
    pub resident_kb: u64,
    /// How long the first controller took to make a pod of each group active.
    pub first_labels_s: u64,
    /// From the call that deletes an active pod to the label of the next.
    pub failovers: Quantiles,
    /// How many of them.
    pub n: usize,
}

impl Scale {
    /// Makes `groups` groups, has them labelled, starts another controller, and has some fail.
    pub async fn measure(folder: &TempDir, groups: usize) -> Result<(Self, Vec<String>)> {
        let mut world = World::open().await?;
        make_groups(&world.api, groups).await?;
        let began = Instant::now();
        let first = Controller::start(folder, "scale-1")?;
        for count in 0..groups {
            world.wait(|pod| pod.namespace.starts_with("scale-") && is_active(pod)).await?;
            if count % 1000 == 0 {
                eprintln!("{count} of {groups} groups have an active pod");
            }
        }
        let first_labels_s = began.elapsed().as_secs();
        first.leave()?;

        // What fails while nobody leads is what a new leader finds.
        let api = Arc::clone(&world.api);
        delete_pod(&api, &namespace(0), &pod(0), false).await?;
        let started = stamp::now();
        let second = Controller::start(folder, "scale-2")?;
        let told =
            world.wait(|pod| pod.namespace == namespace(0) && pod.name == self::pod(1) && is_active(pod)).await?;
        let ready_ms = (told.at - started) / 1_000_000;

        let failovers = fail(&mut world, 1..groups.min(FAILED + 1)).await?;
        let n = failovers.len();
        let resident_kb = resident_kb(second.pid())?;
        second.leave()?;
        let failovers = Quantiles::of(failovers);
        let scale = Self { groups, ready_ms, resident_kb, first_labels_s, failovers, n };
        Ok((scale, std::mem::take(&mut world.violations)))
    }
}

fn namespace(group: usize) -> String {
    format!("scale-{group}")
}

fn pod(number: usize) -> String {
    format!("p{number}")
}

async fn make_groups(api: &Arc<Api>, groups: usize) -> Result<()> {
    let mut hands: JoinSet<Result<()>> = JoinSet::new();
    for group in 0..groups {
        if group % 1000 == 0 {
            eprintln!("{group} of {groups} groups are made");
        }
        if hands.len() >= HANDS {
            hands.join_next().await.context("no hand")???;
        }
        let api = Arc::clone(api);
        hands.spawn(async move {
            make_namespace(&api, &namespace(group)).await?;
            make_pod(&api, &namespace(group), &pod(0), 0).await?;
            make_pod(&api, &namespace(group), &pod(1), 1).await
        });
    }
    while let Some(made) = hands.join_next().await {
        made??;
    }
    Ok(())
}

/// Deletes the active pods of these groups within a second: how long each took.
async fn fail(world: &mut World, groups: std::ops::Range<usize>) -> Result<Vec<u64>> {
    let count = groups.len();
    let began = Instant::now();
    let mut calls: JoinSet<Result<(usize, u64)>> = JoinSet::new();
    for (at, group) in groups.enumerate() {
        let api = Arc::clone(&world.api);
        let when = began + Duration::from_secs(1) * u32::try_from(at)? / u32::try_from(count)?;
        calls.spawn(async move {
            sleep_until(when).await;
            let called = stamp::now();
            delete_pod(&api, &namespace(group), &pod(0), false).await?;
            Ok((group, called))
        });
    }
    let mut labelled = std::collections::BTreeMap::new();
    while labelled.len() < count {
        let told = world.wait(|pod| pod.name == self::pod(1) && is_active(pod)).await?;
        labelled.entry(told.pod.namespace).or_insert(told.at);
    }
    let mut times = Vec::with_capacity(count);
    while let Some(call) = calls.join_next().await {
        let (group, called) = call??;
        let at = labelled.get(&namespace(group)).context("a group is missing")?;
        times.push(at - called);
    }
    Ok(times)
}

/// The most that a process has taken.
fn resident_kb(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("no such process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    line.split_whitespace().next().and_then(|text| text.parse().ok()).context("no number")
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, ready_ms, resident_kb, first_labels_s, failovers, n } = self;
        writeln!(f, "{groups} groups of two pods: the first labels took {first_labels_s} s")?;
        writeln!(f, "a new leader: first label after {ready_ms} ms, at most {resident_kb} kB resident")?;
        write!(f, "{n} groups that fail within a second: {failovers} (p50, p99, max in ms)")
    }
}
