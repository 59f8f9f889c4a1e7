//! Ends the active one of three real members again and again, in every way there is, and checks that never two were
//! alive: `campaign --rounds 1000 --json report.json`. Exit code 1 on any overlap, token disorder, process left behind
//! or kind of end that never happened.
#![forbid(unsafe_code)]

mod deck;
mod report;
mod rounds;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::report::Report;
use crate::rounds::Campaign;

/// What a campaign is told.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many times the active one is ended.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// The members' lease.
    #[arg(long, default_value = "2s")]
    lease: String,
    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the same order of ends and workloads again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut campaign = Campaign::start(&arguments.lease, arguments.seed)?;
    for round in 1..=arguments.rounds {
        let done = campaign.round().with_context(|| format!("failed in round {round}, seed {}", arguments.seed))?;
        eprintln!("round {round}: {done}");
    }
    let report = Report::of(&campaign.group.history(), &campaign.rounds, &campaign.left_behind, arguments.seed);
    println!("{report}");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&report).context("failed to write the report as JSON")?;
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
