//! Measures soloist on a lock file: how long nobody is active after each kind of end, beside util-linux `flock` and
//! the raw limit in the same run, what a member costs, and how soon it answers over HTTP. `bench --json out/bench.json`; exit code 1 when a target is
//! missed. `bench lease` does as much on a Lease, `bench consul` on a key of Consul, inside the testbed.
#![forbid(unsafe_code)]

mod beat;
mod contain;
mod controller;
mod duel;
mod flock;
mod footprint;
mod growth;
mod handover;
mod http;
mod lease;
mod notices;
mod peer;
mod raw;
mod register;
mod report;
mod sidecar;
mod steps;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use serde::Serialize;

use crate::contain::Contain;

/// How many rounds of each kind a duel has: most of them wait for a lease.
const DUEL_ROUNDS: usize = 20;

/// The same on Consul for what takes milliseconds: what waits for a lease has fewer.
const CONSUL_ROUNDS: usize = 50;

/// How many handovers are measured beside so many groups.
const GROWTH_ROUNDS: usize = 50;

/// What a run is told.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many handovers of each kind [default: 100; with --quick 10].
    #[arg(long)]
    rounds: Option<usize>,
    /// A tenth of everything: to see whether it works.
    #[arg(long)]
    quick: bool,
    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What to measure instead, and what the processes do that a run starts.
#[derive(Debug, Subcommand)]
enum Role {
    /// On a Lease of Kubernetes: inside `testbed/run control-plane`
    Lease,
    /// Beside what people use instead, on one API server: inside `testbed/run control-plane`
    Duel {
        /// Another program that takes what k8s-await-election takes, as NAME=PATH; may be given again.
        #[arg(long = "peer")]
        peers: Vec<peer::Peer>,
    },
    /// With the election in a container of its own: inside `testbed/run control-plane`
    Sidecar {
        /// Another program that takes what leader-elector takes, as NAME=PATH; may be given again.
        #[arg(long = "peer")]
        peers: Vec<peer::Peer>,
    },
    /// The controller of active and standby pods: inside `testbed/run control-plane`
    Controller {
        /// How many groups of two pods there are at once.
        #[arg(long, default_value_t = 10_000)]
        groups: usize,
        /// Another program that takes what icr takes, as NAME=PATH; may be given again.
        #[arg(long = "peer")]
        peers: Vec<peer::Peer>,
    },
    /// Beside the real `consul lock`, on one Consul: inside `testbed/run consul`
    Consul,
    /// Waits for a lock, writes what an acquiring write writes, and starts the workload.
    #[command(hide = true)]
    Queue {
        /// The lock.
        lock: PathBuf,
        /// The workload's folder.
        page: PathBuf,
    },
    /// Connects, reads a Lease and writes it.
    #[command(hide = true)]
    Fresh,
    /// From the decision that a member is active to the notice at a warm workload
    Notices,
    /// What many groups cost one API server: inside `testbed/run control-plane`
    Growth,
    /// Makes what follows the first process of a container: mounts what a kubelet mounts, and notes the instant.
    #[command(hide = true)]
    Contain(Contain),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let all_rounds = arguments.rounds();
    match arguments.role {
        Some(Role::Queue { lock, page }) => raw::queue(&lock, &page).map(|()| ExitCode::SUCCESS),
        Some(Role::Contain(contained)) => contained.execute(),
        Some(Role::Fresh) => lease::fresh::run().map(|()| ExitCode::SUCCESS),
        Some(Role::Duel { peers }) => {
            let table = duel::kubernetes::measure(arguments.rounds.unwrap_or(DUEL_ROUNDS), arguments.quick, peers)?;
            tell(&table, arguments.json.as_deref(), table.is_met())
        }
        Some(Role::Consul) => {
            let table = duel::consul::measure(arguments.rounds.unwrap_or(CONSUL_ROUNDS), arguments.quick)?;
            tell(&table, arguments.json.as_deref(), table.is_met())
        }
        Some(Role::Notices) => {
            let notices = notices::Notices::measure(all_rounds)?;
            tell(&notices, arguments.json.as_deref(), notices.is_met())
        }
        Some(Role::Sidecar { peers }) => {
            let report = sidecar::Report::measure(all_rounds, &peers)?;
            tell(&report, arguments.json.as_deref(), report.is_met())
        }
        Some(Role::Controller { groups, peers }) => {
            let report = controller::Report::measure(all_rounds, groups, &peers)?;
            tell(&report, arguments.json.as_deref(), report.is_met())
        }
        Some(Role::Growth) => {
            let growth = growth::Growth::measure(arguments.rounds.unwrap_or(GROWTH_ROUNDS), arguments.quick)?;
            tell(&growth, arguments.json.as_deref(), growth.is_met())
        }
        Some(Role::Lease) => {
            let report = lease::Report::measure(all_rounds, arguments.quick)?;
            tell(&report, arguments.json.as_deref(), report.is_met())
        }
        None => {
            let report = report::Report::measure(all_rounds, arguments.quick)?;
            tell(&report, arguments.json.as_deref(), report.is_met())
        }
    }
}

impl Arguments {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 10 } else { 100 })
    }
}

fn tell(report: &(impl Display + Serialize), json: Option<&Path>, is_met: bool) -> Result<ExitCode> {
    println!("{report}");
    if let Some(path) = json {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(report).context("failed to write the report as JSON")?;
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
