//! What many groups cost one API server: requests a second, and how soon a handover is done beside all the others.
//! Within `testbed/run control-plane`.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::quantiles::Quantiles;

use crate::lease::team::Team;
use crate::report::Host;

/// So many groups of two.
const COUNTS: [usize; 4] = [1, 10, 100, 200];
const LEASE: Duration = Duration::from_secs(15);
/// As many are started at once as the processors can bear.
const STARTERS: usize = 4;
/// Hundreds of workloads are to cost nothing themselves: the instant of a signal is what counts here.
const PACE: Duration = Duration::from_millis(20);
/// After this nobody starts or announces anything any more.
const CALM: Duration = Duration::from_secs(10);

/// All steps.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// Where it ran.
    pub host: Host,
    /// From few groups to many.
    pub steps: Vec<Step>,
}

/// So many groups.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Groups of two.
    pub groups: usize,
    /// Requests for Leases in a second, by verb, while nothing happens.
    pub requests_per_second: BTreeMap<String, f64>,
    /// Writes of one group in an hour.
    pub writes_per_group_hour: f64,
    /// How many handovers were measured.
    pub n: usize,
    /// From SIGTERM of an active one to the first instant of the next.
    pub handover: Quantiles,
    /// What must never be.
    pub violations: Vec<String>,
}

impl Growth {
    /// Adds groups step by step, `rounds` handovers in each.
    pub fn measure(rounds: usize, quick: bool) -> Result<Self> {
        let (cluster, before) = (Cluster::connect()?, Host::load_now());
        let watch = Duration::from_secs(if quick { 5 } else { 30 });
        let (mut teams, mut steps) = (Vec::new(), Vec::new());
        for groups in COUNTS {
            eprintln!("{groups} groups");
            teams.extend(start(&cluster, teams.len()..groups)?);
            sleep(CALM);
            steps.push(Step::measure(&cluster, &mut teams, rounds, watch)?);
        }
        Ok(Self { host: Host::here("a Lease".to_owned(), before), steps })
    }

    /// Whether never two were active.
    pub fn is_met(&self) -> bool {
        self.steps.iter().all(|step| step.violations.is_empty())
    }
}

impl Step {
    fn measure(cluster: &Cluster, teams: &mut [Team<'_>], rounds: usize, watch: Duration) -> Result<Self> {
        let (earlier, start) = (requests(cluster)?, Instant::now());
        sleep(watch);
        let (later, seconds) = (requests(cluster)?, start.elapsed().as_secs_f64());
        let rate = |(verb, count): (&String, &u64)| {
            let new = count - earlier.get(verb).unwrap_or(&0);
            (verb.clone(), new as f64 / seconds)
        };
        let requests_per_second: BTreeMap<String, f64> =
            later.iter().map(rate).filter(|(_, rate)| *rate > 0.0).collect();
        let groups = teams.len();
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let team = teams.get_mut(round % groups).context("no group")?;
            times.push(team.round(End::Term)?.from_event_ns);
        }
        let writes = requests_per_second.get("PUT").copied().unwrap_or(0.0);
        Ok(Self {
            groups,
            writes_per_group_hour: writes * 3600.0 / groups as f64,
            requests_per_second,
            n: times.len(),
            handover: Quantiles::of(times),
            violations: teams.iter().flat_map(Team::violations).collect(),
        })
    }
}

fn start(cluster: &Cluster, numbers: std::ops::Range<usize>) -> Result<Vec<Team<'_>>> {
    let numbers: Vec<usize> = numbers.collect();
    let start_some = |part: &[usize]| -> Result<Vec<Team<'_>>> {
        part.iter().map(|number| Team::start(cluster, &format!("growth-{number}"), LEASE, 2, PACE)).collect()
    };
    let all: Result<Vec<Vec<Team<'_>>>> = std::thread::scope(|scope| {
        let parts = numbers.chunks(numbers.len().div_ceil(STARTERS).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || start_some(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a starter panicked"))).collect()
    });
    Ok(all?.into_iter().flatten().collect())
}

/// How many requests for Leases the API server has answered, by verb.
fn requests(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let page = cluster.kubectl(&["get", "--raw", "/metrics"])?;
    for line in page.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| line.split_once(&format!("{name}=\""))?.1.split('"').next();
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        if let (Some("leases"), Some(verb), Some(value)) = (label("resource"), label("verb"), value) {
            *counts.entry(verb.to_owned()).or_default() += value as u64;
        }
    }
    Ok(counts)
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.host)?;
        writeln!(
            f,
            "| groups of two | requests a second | writes an hour and group | n | handover, ms: p50 | p99 | max |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for step in &self.steps {
            let requests: Vec<String> =
                step.requests_per_second.iter().map(|(verb, rate)| format!("{rate:.1} {verb}")).collect();
            let Quantiles { p50_us, p99_us, max_us } = step.handover;
            let [p50, p99, max] = [p50_us, p99_us, max_us].map(|us| format!("{:.1}", us as f64 / 1000.0));
            let (groups, writes, n) = (step.groups, step.writes_per_group_hour, step.n);
            writeln!(f, "| {groups} | {} | {writes:.0} | {n} | {p50} | {p99} | {max} |", requests.join(", "))?;
        }
        for violation in self.steps.iter().flat_map(|step| &step.violations) {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        Ok(())
    }
}
