//! The same on a Lease of a real API server, within `testbed/run control-plane`: handovers beside the raw limit on that
//! server, memory, and what members ask of the server while nothing happens.

pub mod fresh;
mod pods;
mod proofs;
pub mod requests;
pub mod team;
pub mod visible;

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use soloist::lock::kubernetes::{Access, KubernetesLock, ObjectName, Witnesses};
use testkit::audit::AUDITED;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::binary;

use self::fresh::Fresh;
use self::proofs::{Restart, Word};
use self::requests::{Footprint, PER_MINUTE_MAX};
use self::team::Team;
use self::visible::Visible;
use crate::register::Raw;
use crate::report::{AFTER_LEASE_MAX, BINARY_MAX_BYTES, Host, P50_RATIO_MAX, PSS_MAX_KB, Row, Target, heads, ratio};
use crate::{beat, register};

/// The namespace for everything that is not counted.
pub const QUIET: &str = "default";

/// The ends after which a proof is there at once, measured by turns with the raw limit.
const ENDS: [End; 2] = [End::Term, End::WorkloadKilled];

/// One that ends, one that takes over, and one more, as three are usual.
const SIZE: usize = 3;

/// Nothing is left of a member whose PID 1 is killed, so the others wait for its lease: a short one is bearable.
const SHORT_LEASE: Duration = Duration::from_secs(4);
const KILLED_ROUNDS_MAX: usize = 20;

const P99_RATIO_MAX: f64 = 3.0;
/// Of a PUT and its notice.
const ROUTE_RATIO_MAX: f64 = 1.5;
/// How often a lock looks that may not watch: never here.
const PERIOD: Duration = Duration::from_secs(2);

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it ran.
    pub host: Host,
    /// How long nobody was active.
    pub gaps: Vec<Row>,
    /// How long it takes from the proof that a killed container is gone.
    pub proofs: Vec<Row>,
    /// The raw limit and its parts.
    pub raw: Vec<Row>,
    /// For each kind of route, from the decision to a watch that shows it, and a raw write with its delivery.
    pub routes: Vec<[Row; 2]>,
    /// What members cost and ask for.
    pub footprint: Footprint,
    /// What must never be.
    pub violations: Vec<String>,
    /// What had to be reached.
    pub targets: Vec<Target>,
}

impl Report {
    /// Measures everything, `rounds` handovers of each kind among it.
    pub fn measure(rounds: usize, quick: bool) -> Result<Self> {
        let cluster = Cluster::connect()?;
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
        let before = Host::load_now();
        let Turns { mut gaps, proofs, raw, mut violations } = Turns::take(&cluster, rounds)?;

        let mut short = Team::start(&cluster, "bench-short", SHORT_LEASE, SIZE, beat::PACE)?;
        let mut killed = Vec::new();
        for round in 1..=rounds.min(KILLED_ROUNDS_MAX) {
            eprintln!("{}, round {round}", End::ElectorKilled);
            killed.push(short.round(End::ElectorKilled)?);
        }
        gaps.push(Row::of(format!("PID 1 killed, lease {} s", SHORT_LEASE.as_secs()), &killed));
        violations.extend(short.violations());
        drop(short);

        let visible = Visible::measure(rounds)?;
        violations.extend(visible.violations);
        let routes = visible.rows;
        let footprint = Footprint::measure(&cluster, Duration::from_secs(if quick { 10 } else { 60 }))?;
        let binary_bytes = std::fs::metadata(binary("soloist")?).context("failed to look at soloist")?.len();
        let mut targets = targets(&gaps, &proofs, &raw, &footprint, binary_bytes, &violations);
        targets.extend(routes.iter().map(route_target));
        let host = Host::here("a Lease".to_owned(), before);
        Ok(Self { host, gaps, proofs, raw, routes, footprint, violations, targets })
    }

    /// Whether everything was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

/// Everything that is compared, by turns: what else the host does meets all of it alike.
struct Turns {
    gaps: Vec<Row>,
    proofs: Vec<Row>,
    raw: Vec<Row>,
    violations: Vec<String>,
}

impl Turns {
    fn take(cluster: &Cluster, rounds: usize) -> Result<Self> {
        let mut team = Team::start(cluster, "bench-15", Duration::from_secs(15), SIZE, beat::PACE)?;
        let (mut restart, mut word) = (Restart::start(cluster)?, Word::start(cluster)?);
        let fresh = Fresh::start(cluster)?;
        let mut limit = raw(cluster)?;
        let mut soloist = ENDS.map(|_| Vec::with_capacity(rounds));
        let (mut restarted, mut floor, mut told, mut parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            eprintln!("handovers on a Lease, round {round} of {rounds}");
            for (end, gaps) in ENDS.iter().zip(&mut soloist) {
                gaps.push(team.round(*end)?);
            }
            restarted.push(restart.round()?);
            floor.push(fresh.round()?);
            told.push(word.round()?);
            parts.push(limit.round()?);
            sleep(Duration::from_millis(10));
        }
        let mut raw = register::rows(&parts, "PUT");
        raw.push(Row::of_times("a process: executed, TLS, GET, PUT", floor));
        let proofs = vec![
            Row::of_times("container killed: from the next run's first instruction", restarted),
            Row::of_times("container killed: from the kubelet's word", told),
        ];
        Ok(Self {
            gaps: ENDS.iter().zip(&soloist).map(|(end, gaps)| Row::of(format!("soloist: {end}"), gaps)).collect(),
            proofs,
            raw,
            violations: [team.violations(), restart.violations(), word.violations()].concat(),
        })
    }
}

/// What the raw limit is measured with.
pub fn raw(cluster: &Cluster) -> Result<Raw<KubernetesLock>> {
    let (namespace, name) = (QUIET, "raw");
    cluster.initial_lease(namespace, name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let open = || {
        let place = ObjectName::lease(namespace, name);
        runtime.block_on(KubernetesLock::open(Access::default(), place, PERIOD, Witnesses::OWN_CONTAINER))
    };
    let two = [open()?, open()?];
    Raw::start(runtime, two)
}

/// The raw limit alone.
pub fn raw_limit(cluster: &Cluster, rounds: usize) -> Result<Vec<Row>> {
    let mut limit = raw(cluster)?;
    let parts: Result<Vec<_>> = (0..rounds).map(|_| limit.round()).collect();
    Ok(register::rows(&parts?, "PUT"))
}

fn targets(
    gaps: &[Row],
    proofs: &[Row],
    raw: &[Row],
    footprint: &Footprint,
    binary_bytes: u64,
    violations: &[String],
) -> Vec<Target> {
    let limit = register::limit(raw);
    let mut targets = Vec::new();
    for (end, row) in ENDS.iter().zip(gaps) {
        targets.push(Target::new(format!("{end}: p50 / raw p50"), ratio(row.gap.p50_us, limit.p50_us), P50_RATIO_MAX));
        targets.push(Target::new(format!("{end}: p99 / raw p99"), ratio(row.gap.p99_us, limit.p99_us), P99_RATIO_MAX));
    }
    for row in proofs {
        targets.push(Target::new(
            format!("{}: p50 / raw p50", row.name),
            ratio(row.gap.p50_us, limit.p50_us),
            P50_RATIO_MAX,
        ));
    }
    if let Some(killed) = gaps.get(ENDS.len()) {
        let at_most = (SHORT_LEASE + AFTER_LEASE_MAX).as_micros() as f64;
        targets.push(Target::new("PID 1 killed: max, us", killed.gap.max_us as f64, at_most));
    }
    let Footprint { active, standby, watched_seconds, .. } = footprint;
    let scale = *watched_seconds as f64 / 60.0;
    let counts = [
        ("PSS of elector and guard, active, kB", footprint.pss_active_kb as f64, PSS_MAX_KB as f64),
        ("PSS of elector and guard, standby, kB", footprint.pss_standby_kb as f64, PSS_MAX_KB as f64),
        ("binary, bytes", binary_bytes as f64, BINARY_MAX_BYTES as f64),
        ("overlaps and other violations", violations.len() as f64, 0.0),
        ("standby: watches at once", standby.open_watches as f64, 1.0),
        ("standby: requests beside the watch", standby.others() as f64, PER_MINUTE_MAX),
        ("active: PUTs", active.puts as f64, (footprint.renewals_per_minute() * scale).ceil() + 1.0),
        ("active: requests beside PUTs and the watch", (active.others() - active.puts) as f64, PER_MINUTE_MAX),
    ];
    targets.extend(counts.map(|(what, got, at_most)| Target::new(what, got, at_most)));
    targets
}

/// What a route has to reach beside its raw write.
pub fn route_target([route, raw]: &[Row; 2]) -> Target {
    let got = ratio(route.gap.p50_us, raw.gap.p50_us);
    Target::new(format!("{}: p50 / raw p50", route.name), got, ROUTE_RATIO_MAX)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.host, heads())?;
        for row in self.gaps.iter().chain(&self.proofs).chain(&self.raw).chain(self.routes.iter().flatten()) {
            writeln!(f, "{}", row.to_string().trim_end())?;
        }
        writeln!(f, "\n{}\n", self.footprint)?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}
