//! Measures soloist on a lock file: how long nobody is active after each kind of end, beside util-linux `flock` and
//! the raw limit in the same run, what a member costs, and how soon it answers over HTTP. `bench --json out/bench.json`; exit code 1 when a target is
//! missed.
#![forbid(unsafe_code)]

mod beat;
mod flock;
mod footprint;
mod handover;
mod http;
mod raw;
mod report;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::report::Report;

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

/// What the processes do that a run starts.
#[derive(Debug, Subcommand)]
enum Role {
    /// The workload: stamps that it is alive.
    #[command(hide = true)]
    Beat {
        /// The folder for the stamps.
        page: PathBuf,
        /// Nobody tells it an activation: it makes one up.
        #[arg(long)]
        untold: bool,
    },
    /// Waits for a lock, writes what an acquiring write writes, and starts the workload.
    #[command(hide = true)]
    Queue {
        /// The lock.
        lock: PathBuf,
        /// The workload's folder.
        page: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let born = testkit::stamp::now();
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Beat { page, untold }) => beat::beat(&page, born, untold).map(|()| ExitCode::SUCCESS),
        Some(Role::Queue { lock, page }) => raw::queue(&lock, &page).map(|()| ExitCode::SUCCESS),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<ExitCode> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 10 } else { 100 });
    let report = Report::measure(rounds, arguments.quick)?;
    println!("{report}");
    if let Some(path) = &arguments.json {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(&report).context("failed to write the report as JSON")?;
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
