//! `sim`: runs simulated histories, prints what came of them, shrinks what failed.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use testkit::sim::{Campaign, Kind, Scenario, report_json, report_table, run, run_campaign, shrink};

/// Simulates groups of members on virtual time, under every fault; leaves with 1 if a rule was broken or a fault never
/// fired.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many histories
    #[arg(long, default_value_t = 10_000)]
    histories: u64,
    /// The seed of the first; each further one counts up
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds of faults
    #[arg(long = "fault", value_delimiter = ',', value_parser = kind)]
    faults: Vec<Kind>,
    /// How many members may be active at a time
    #[arg(long, default_value_t = 1)]
    slots: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Also write the report to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Replay one case, as JSON or as a seed with its slots, and print all that happened
    #[arg(long)]
    case: Option<String>,
    /// List the kinds of faults
    #[arg(long = "faults")]
    list: bool,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::parse(name).ok_or_else(|| format!("no fault is called {name}; --faults lists them"))
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        Kind::ALL.iter().for_each(|kind| println!("{kind}"));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(case) = &arguments.case {
        return replay(case, arguments.slots);
    }
    let Arguments { histories, seed, slots, jobs, .. } = arguments;
    let campaign = &Campaign { histories, seed, only: arguments.faults, slots, jobs };
    let begun = std::time::Instant::now();
    let total = run_campaign(campaign);
    print!("{}", report_table(campaign, &total));
    println!("\n{:.1} s with {} threads", begun.elapsed().as_secs_f64(), campaign.jobs);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report_json(campaign, &total))?;
        std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))?;
    }
    for (scenario, findings) in &total.failures {
        println!("\nseed {} failed:", scenario.seed);
        findings.iter().for_each(|finding| println!("  {finding}"));
        println!("  as small as it gets, a line for testkit/regressions/sim.txt:");
        println!("{}", serde_json::to_string(&shrink(scenario))?);
    }
    let sound = total.failed == 0;
    let valid = total.never_fired(campaign).is_empty();
    Ok(if sound && valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(case: &str, slots: usize) -> Result<ExitCode> {
    let scenario: Scenario = match case.parse() {
        Ok(seed) => Scenario::of(seed, &[]).in_slots(slots),
        Err(_) => serde_json::from_str(case).context("failed to read the case")?,
    };
    println!("{}", serde_json::to_string(&scenario)?);
    let history = run(&scenario, true);
    history.trace.iter().flatten().for_each(|line| println!("{line}"));
    println!("hash {:016x}, starts {}, failovers {}", history.hash, history.starts, history.failovers);
    history.findings.iter().for_each(|finding| println!("FINDING {finding}"));
    Ok(if history.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
