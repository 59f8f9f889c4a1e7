//! Elections beside an application, on a real API server: from the leader's end until every follower names the next one,
//! from the end of an application's container until the next one runs, and what a sidecar costs.

mod named;
mod routed;
mod served;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::leader_elector::Election;

use self::named::{Named, Sign, client_go_round};
use self::routed::Routed;
use crate::lease::raw;
use crate::lease::team::Team;
use crate::peer::Peer;
use crate::register;
use crate::report::{Host, P50_RATIO_MAX, Row, Target, heads, ratio};

/// What the ends of an application and its container are.
const ENDS: [(End, &str); 3] = [
    (End::Term, "application SIGTERM"),
    (End::WorkloadKilled, "application's command killed"),
    (End::ElectorKilled, "application's container killed"),
];

/// What a sidecar may take.
const PSS_MAX_KB: u64 = 8_000;

/// A killed container to the next one's first instant.
const KILLED_MAX_US: u64 = 100_000;

/// Each waits for a poll of the standbys, or for a lease.
const FOREIGN_ROUNDS_MAX: usize = 20;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    host: Host,
    rows: Vec<Row>,
    raw: Vec<Row>,
    /// Of one that tells who leads, and of one with an application behind its socket.
    pss_kb: [u64; 2],
    /// Peers that could not be measured, and why.
    silent: Vec<String>,
    violations: Vec<String>,
    targets: Vec<Target>,
}

/// As many rounds of another program as it follows in, and why no more.
fn of_peer(peer: &Peer, rounds: usize) -> (Vec<u64>, Option<String>) {
    eprintln!("elections of {}, {rounds} rounds", peer.name);
    let mut times = Vec::new();
    let play = || -> Result<()> {
        let mut named = Named::of_peer(peer)?;
        for _ in 0..rounds {
            times.push(named.round(Sign::AllNames)?);
        }
        Ok(())
    };
    let why = { play }().err().map(|error| format!("{error:#}"));
    (times, why)
}

impl Report {
    /// Measures everything, `rounds` of each kind, and `peers` as far as they can do the same.
    pub fn measure(rounds: usize, peers: &[Peer]) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let before = Host::load_now();
        let mut lease = Named::start("lease")?;
        let mut endpoints = Named::start("endpoints")?;
        let mut team = Team::start_beside(&cluster, "bench-beside", Duration::from_secs(15), 3)?;
        let mut routed = Routed::start()?;
        let mut limit = raw(&cluster)?;
        let (mut by_lease, mut by_endpoints, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ready, mut routes) = (Vec::new(), Vec::new());
        let mut gaps = ENDS.map(|_| Vec::with_capacity(rounds));
        for round in 1..=rounds {
            eprintln!("elections beside applications, round {round} of {rounds}");
            by_lease.push(lease.round(Sign::AllNames)?);
            by_endpoints.push(endpoints.round(Sign::AllNames)?);
            ready.push(lease.round(Sign::Ready)?);
            routes.push(routed.round()?.shown);
            for ((end, _), gaps) in ENDS.iter().zip(&mut gaps) {
                gaps.push(team.round(*end)?);
            }
            parts.push(limit.round()?);
        }
        let pss_kb = [lease.pss_kb()?, team.pss_beside_kb()?];
        let mut violations: Vec<String> = team.violations().into_iter().chain(routed.violations()).collect();
        drop((lease, endpoints, team, routed));
        eprintln!("traffic through kube-proxy, {rounds} rounds twice");
        let (served, more) = served::measure(rounds)?;
        violations.extend(more);
        let raw = register::rows(&parts, "PUT");
        let election = Election::new()?;
        let theirs: Result<Vec<u64>> =
            (0..rounds.min(FOREIGN_ROUNDS_MAX)).map(|round| client_go_round(&election, round)).collect();
        let mut rows = vec![
            Row::of_times("SIGTERM to all names, Lease", by_lease),
            Row::of_times("SIGTERM to all names, Endpoints", by_endpoints),
            Row::of_times("SIGTERM to all names, client-go", theirs?),
            Row::of_times("SIGTERM to readiness, Lease", ready),
            Row::of_times("SIGTERM to route shown, Lease", routes),
        ];
        rows.extend(served);
        let mut silent = Vec::new();
        for peer in peers {
            match of_peer(peer, rounds.min(FOREIGN_ROUNDS_MAX)) {
                (times, _) if !times.is_empty() => {
                    rows.push(Row::of_times(&format!("SIGTERM to all names, {}", peer.name), times));
                }
                (_, why) => silent.push(format!("{}: {}", peer.name, why.unwrap_or_default())),
            }
        }
        rows.extend(ENDS.iter().zip(&gaps).map(|((_, name), gaps)| Row::of((*name).to_owned(), gaps)));
        let targets = targets(&rows, &raw, pss_kb, violations.len());
        Ok(Self { host: Host::here("a Lease".to_owned(), before), rows, raw, pss_kb, silent, violations, targets })
    }

    /// Whether everything was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

fn targets(rows: &[Row], raw: &[Row], [tells, bound]: [u64; 2], violations: usize) -> Vec<Target> {
    let limit = register::limit(raw);
    let of_raw = |row: &Row| {
        Target::new(format!("{}: p50 / raw p50", row.name), ratio(row.gap.p50_us, limit.p50_us), P50_RATIO_MAX)
    };
    let mut targets: Vec<Target> = rows.iter().take(1).map(of_raw).collect();
    if let Some(killed) = rows.last() {
        targets.push(Target::new(format!("{}: p99, us", killed.name), killed.gap.p99_us as f64, KILLED_MAX_US as f64));
    }
    let counts = [
        ("PSS of a sidecar that tells, kB", tells, PSS_MAX_KB),
        ("PSS of a sidecar with an application, kB", bound, PSS_MAX_KB),
        ("overlaps and other violations", violations as u64, 0),
    ];
    targets.extend(counts.map(|(what, got, at_most)| Target::new(what, got as f64, at_most as f64)));
    targets
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.host, heads())?;
        for row in self.rows.iter().chain(&self.raw) {
            writeln!(f, "{}", row.to_string().trim_end())?;
        }
        let [tells, bound] = self.pss_kb;
        writeln!(f, "\nPSS: {tells} kB a sidecar that tells, {bound} kB one with an application\n")?;
        for peer in &self.silent {
            writeln!(f, "not measured: {peer}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}
