//! The controller of active and standby pods, on a real API server without kubelets: from the news of a deletion to both
//! labels, from the end of the leading controller to the next one, and what tens of thousands of pods cost.

mod scale;
mod traffic;
mod world;

use std::fmt;
use std::fs::File;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use soloist::clock;
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::group::binary;
use testkit::stamp;
use testkit::wait::{wait_for, wait_until};

use self::scale::Scale;
use self::traffic::Traffic;
use self::world::{World, delete_pod, is_active, make_namespace, make_pod, two_writes};
use crate::peer::Peer;
use crate::report::{Host, P50_RATIO_MAX, Row, Target, heads, ratio};
use crate::steps::LIMIT;
use crate::{lease, register};

const NAMESPACE: &str = "bench-controller";
const P99_RATIO_MAX: f64 = 3.0;
/// From the call that deletes the active pod to the slice that has the next one.
const SLICE_MAX_MS: f64 = 50.0;
/// What the leading controller may take with 20,000 pods.
const RESIDENT_MAX_KB: u64 = 120_000;
/// From its start to its first write for a group that needs one, with as many.
const READY_MAX_MS: u64 = 10_000;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    host: Host,
    rows: Vec<Row>,
    raw: Vec<Row>,
    traffic: Vec<Row>,
    scale: Scale,
    violations: Vec<String>,
    targets: Vec<Target>,
}

/// A controller, until this is dropped.
pub struct Controller {
    child: Child,
    log: std::path::PathBuf,
}

impl Controller {
    /// Starts one that looks after all pods of a [`World`].
    pub fn start(folder: &TempDir, name: &str) -> Result<Self> {
        let log = folder.path().join(format!("{name}.log"));
        let mut command = Command::new(binary("soloist")?);
        command.args(["controller", "--selector", world::SELECTOR, "--name", name]);
        command.args(["--lock", "kubernetes://default/bench-controller"]);
        let file = File::create(&log).context("failed to make a log")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Ok(Self { child: child.context("failed to start a controller")?, log })
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it began to lead, in nanoseconds of CLOCK_BOOTTIME, as its log says.
    pub fn leads_since(&self) -> Result<u64> {
        let at = || {
            let log = std::fs::read_to_string(&self.log).ok()?;
            let line = log.lines().find(|line| line.contains("leading with the term"))?;
            line.split_whitespace().next()?.parse::<Timestamp>().ok()
        };
        let at = wait_for("a controller to lead", LIMIT, at)?;
        let at_us = u64::try_from(at.as_microsecond()).context("a time before 1970")?;
        Ok(stamp::now().saturating_sub(clock::unix_us().saturating_sub(at_us) * 1000))
    }

    /// Waits until it stands by.
    pub fn wait_standby(&self) -> Result<()> {
        let says = || std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains("standing by"));
        wait_until("a controller to stand by", LIMIT, says)
    }

    /// Asks it to leave, and waits for that: when it was asked.
    pub fn leave(mut self) -> Result<u64> {
        let at = stamp::now();
        self.signal(Signal::TERM)?;
        self.child.wait().context("failed to wait for a controller")?;
        Ok(at)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no PID")?;
        kill_process(pid, signal).context("failed to signal a controller")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Report {
    /// Measures `rounds` of each kind, `peers` as far as they can do the same, and so many groups of two pods at once.
    pub fn measure(rounds: usize, groups: usize, peers: &[Peer]) -> Result<Self> {
        let (cluster, before) = (Cluster::connect()?, Host::load_now());
        cluster.initial_lease("default", "bench-controller")?;
        let folder = TempDir::new().context("failed to make a folder")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let raw = lease::raw_limit(&cluster, rounds)?;
        let handovers = handovers(&folder, rounds)?;
        let (mut rows, mut violations) = runtime.block_on(failovers(&folder, rounds))?;
        rows.push(Row::of_times("SIGTERM of the leader to the next term", handovers));
        let Traffic { rows: traffic, violations: more } = Traffic::measure(&cluster, &folder, rounds, peers)?;
        violations.extend(more);
        let (scale, more) = runtime.block_on(Scale::measure(&folder, groups))?;
        violations.extend(more);
        let targets = targets(&rows, &raw, &traffic, &scale, violations.len());
        Ok(Self { host: Host::here("a Lease".to_owned(), before), rows, raw, traffic, scale, violations, targets })
    }

    /// Whether everything was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

/// From SIGTERM of one to the term of the other.
fn handovers(folder: &TempDir, rounds: usize) -> Result<Vec<u64>> {
    let mut leader = Controller::start(folder, "h0")?;
    leader.leads_since()?;
    let mut times = Vec::with_capacity(rounds);
    for round in 1..=rounds {
        eprintln!("controllers, round {round} of {rounds}");
        let next = Controller::start(folder, &format!("h{round}"))?;
        next.wait_standby()?;
        // Until it has announced itself, and can be named as the successor.
        std::thread::sleep(crate::steps::SETTLE);
        let asked = leader.leave()?;
        times.push(next.leads_since()?.saturating_sub(asked));
        leader = next;
    }
    leader.leave().map(|_| times)
}

/// From the news that the active pod is being deleted, or is gone, to the label of the next one, beside two writes.
async fn failovers(folder: &TempDir, rounds: usize) -> Result<(Vec<Row>, Vec<String>)> {
    let mut world = World::open().await?;
    let api = std::sync::Arc::clone(&world.api);
    make_namespace(&api, NAMESPACE).await?;
    let controller = Controller::start(folder, "failovers")?;
    controller.leads_since()?;
    make_pod(&api, NAMESPACE, "p0", 0).await?;
    let mut active = world.wait(is_active).await?.pod.name;
    let (mut by_deletion, mut by_force, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds * 2 {
        eprintln!("failovers, round {round} of {}", rounds * 2);
        let next = format!("p{round}");
        make_pod(&api, NAMESPACE, &next, round).await?;
        let is_settled = |pod: &soloist::controller::pod::Pod| pod.name == next && pod.is_ready;
        world.wait(is_settled).await?;
        writes.push(two_writes(&api, NAMESPACE, &next).await?);
        let is_forced = round % 2 == 0;
        let called = stamp::now();
        delete_pod(&api, NAMESPACE, &active, is_forced).await?;
        let mut news = None;
        let done = loop {
            let told = world.next().await?;
            if told.pod.name == active && told.pod.is_deleting {
                news.get_or_insert(told.at);
            }
            if told.pod.name == next && is_active(&told.pod) {
                break told.at;
            }
        };
        match is_forced {
            true => by_force.push(done - called),
            false => by_deletion.push(done.saturating_sub(news.context("nobody told of the deletion")?)),
        }
        if !is_forced {
            delete_pod(&api, NAMESPACE, &active, true).await?;
        }
        active = next;
    }
    delete_pod(&api, NAMESPACE, &active, true).await?;
    controller.leave()?;
    let rows = vec![
        Row::of_times("deletion told to both labels told", by_deletion),
        Row::of_times("forced delete called to label told", by_force),
        Row::of_times("two PUTs of a pod", writes),
    ];
    Ok((rows, std::mem::take(&mut world.violations)))
}

fn targets(rows: &[Row], raw: &[Row], traffic: &[Row], scale: &Scale, violations: usize) -> Vec<Target> {
    let mut targets = Vec::new();
    if let [deletion, _, writes, handover] = rows {
        let limit = register::limit(raw);
        targets.extend([
            Target::new("both labels: p50 / two PUTs", ratio(deletion.gap.p50_us, writes.gap.p50_us), P50_RATIO_MAX),
            Target::new("both labels: p99 / two PUTs", ratio(deletion.gap.p99_us, writes.gap.p99_us), P99_RATIO_MAX),
            Target::new("own handover: p50 / raw p50", ratio(handover.gap.p50_us, limit.p50_us), P50_RATIO_MAX),
        ]);
    }
    if let [slice, ..] = traffic {
        let ms = slice.gap.p50_us as f64 / 1000.0;
        targets.push(Target::new("slice moved after the delete call, p50 in ms", ms, SLICE_MAX_MS));
    }
    let counts = [
        ("resident memory of the leader, kB", scale.resident_kb, RESIDENT_MAX_KB),
        ("from its start until it is ready, ms", scale.ready_ms, READY_MAX_MS),
        ("two pods of a group labelled as active", violations as u64, 0),
    ];
    targets.extend(counts.map(|(what, got, at_most)| Target::new(what, got as f64, at_most as f64)));
    targets
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.host, heads())?;
        for row in self.rows.iter().chain(&self.raw).chain(&self.traffic) {
            writeln!(f, "{}", row.to_string().trim_end())?;
        }
        writeln!(f, "\n{}\n", self.scale)?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}
