//! `soloist demo`: the main job, seen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use crate::demo::{self, Plan, Style};
use crate::error::{Code, Failure};
use crate::settings;

#[derive(Debug, Args)]
#[command(after_help = "\
Three members share a lock file. The active one is ended again and again:
SIGTERM, a crash of its workload, SIGKILL of its elector, SIGKILL of its guard,
SIGSTOP of its elector. Leaves with 0 if no two were ever active together and
no acknowledged entry of the journal is lost, else with 1.

Examples:
  soloist demo
  soloist demo --rounds 100 --json > report.json")]
pub(super) struct Arguments {
    /// How often the active one is ended
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// The members' lease
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    lease: String,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// The demo's folder
    folder: PathBuf,
}

/// The workload of the demo; started by its members.
pub(super) fn serve(arguments: &ServerArguments) -> Result<i32, Failure> {
    demo::serve(&arguments.folder).map(|()| 0).map_err(Failure::from)
}

/// Runs the demo; 1 if it saw what must never be.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    let timing = settings::timing(&arguments.lease)?;
    let plan = Plan { rounds: arguments.rounds, lease: timing.lease() };
    let style = if arguments.json { Style::Json } else { Style::People };
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to start the runtime: {error}")))?;
    let report = runtime.block_on(async move {
        let mut demo = tokio::task::spawn_blocking(move || demo::run(plan, style, &interrupted));
        tokio::select! {
            report = &mut demo => report,
            _ = tokio::signal::ctrl_c() => {
                stop.store(true, Ordering::Relaxed);
                demo.await
            }
        }
    });
    let report = report.map_err(|error| Failure::new(Code::Internal, format!("the demo ended badly: {error}")))??;
    Ok(if report.is_clean() { 0 } else { Code::No as i32 })
}
