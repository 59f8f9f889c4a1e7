//! Ends the active one of three real members again and again, in every way there is, and checks that never two were
//! alive: `campaign --rounds 1000 --json report.json`. Exit code 1 on any overlap, token disorder, process left behind
//! or kind of end that never happened. With `--lock kubernetes` the active ones of groups on a Lease are cut off from
//! the API server instead.
#![forbid(unsafe_code)]

mod black_holes;
mod deck;
mod holes_report;
mod report;
mod rounds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use election::Timing;
use serde::Serialize;
use soloist::settings;
use testkit::group::binary;

use crate::black_holes::Outcome;
use crate::holes_report::HolesReport;
use crate::report::Report;
use crate::rounds::Campaign;

/// What a campaign is told.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many times the active one is ended.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Where the members' lock is.
    #[arg(long, value_enum, default_value_t = Lock::File)]
    lock: Lock,
    /// The members' lease [default: 2s, on servers 4s].
    #[arg(long)]
    lease: Option<String>,
    /// On servers: how many groups run side by side.
    #[arg(long, default_value_t = 6)]
    groups: usize,
    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the same order of ends and workloads again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lock {
    /// A file; the active one is ended in every way.
    File,
    /// A Lease of the testbed; the active one is cut off.
    Kubernetes,
    /// A key of the testbed's Consul; the active one is cut off.
    Consul,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_clean = match arguments.lock {
        Lock::File => ends(&arguments)?,
        Lock::Kubernetes => holes(&arguments, "Kubernetes", black_holes::run::<testkit::lease_group::Pair>)?,
        Lock::Consul => holes(&arguments, "Consul", black_holes::run::<testkit::consul_group::Pair>)?,
    };
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ends(arguments: &Arguments) -> Result<bool> {
    let mut campaign = Campaign::start(arguments.lease.as_deref().unwrap_or("2s"), arguments.seed)?;
    for round in 1..=arguments.rounds {
        let done = campaign.round().with_context(|| format!("failed in round {round}, seed {}", arguments.seed))?;
        eprintln!("round {round}: {done}");
    }
    let report = Report::of(&campaign.group.history(), &campaign.rounds, &campaign.left_behind, arguments.seed);
    println!("{report}");
    write_json(arguments.json.as_deref(), &report)?;
    Ok(report.is_clean())
}

/// What makes the holes: so many, in so many groups.
type Holes = fn(usize, usize, &Timing, u64) -> Result<Vec<Outcome>>;

fn holes(arguments: &Arguments, store: &'static str, run: Holes) -> Result<bool> {
    let timing = settings::timing(arguments.lease.as_deref().unwrap_or("4s"))?;
    let outcomes = run(arguments.rounds, arguments.groups, &timing, arguments.seed)?;
    let report = HolesReport::of(&outcomes, store, binary("soloist")?, timing.lease());
    println!("{report}");
    write_json(arguments.json.as_deref(), &report)?;
    Ok(report.is_clean())
}

fn write_json(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).context("failed to write the report as JSON")?;
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
