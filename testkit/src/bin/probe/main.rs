//! The workload of the process tests: stamps that it is alive, and behaves as badly as it is told to.
//!
//! `probe --dir DIR --mode setsid+close-fds --mode exit-after=200 --code 3`. Every process that comes of it stamps a
//! slot of its own in `DIR/slots`. The command itself also ends when a file `DIR/exit-TOKEN` holds an exit code, and takes
//! more and more memory once a file `DIR/leak-TOKEN` holds a number of MiB.
#![forbid(unsafe_code)]

mod family;
mod habits;
mod mode;
mod warm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::prctl;
use testkit::stamp::{self, Identity, Stamper};

use crate::family::Trait;
use crate::mode::Mode;

/// How often the command looks whether it should end.
const LOOK: Duration = Duration::from_millis(1);

/// What a probe is told.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Folder of the group: slots in DIR/slots, and what the modes write.
    #[arg(long)]
    dir: PathBuf,
    /// Microseconds between two stamps; 0: as fast as it goes.
    #[arg(long, default_value_t = 0)]
    pace_us: u64,
    /// What else to do; repeatable. Traits joined by + start one descendant with all of them.
    #[arg(long, value_parser = Mode::parse)]
    mode: Vec<Mode>,
    /// Stand by, and stamp only after SIGUSR1, as the activation that is then recorded beside this lock file.
    #[arg(long)]
    warm: Option<PathBuf>,
    /// Exit code of `exit-after` and `daemon`.
    #[arg(long, default_value_t = 0)]
    code: i32,
    /// Given to descendants, which may have no environment left.
    #[arg(long, hide = true, value_parser = |text: &str| Identity::parse(text).map_err(|error| error.to_string()))]
    identity: Option<Identity>,
    /// Given to descendants: what they are called in their slot.
    #[arg(long, hide = true, default_value = "main")]
    label: String,
    /// Given to descendants: how to get away.
    #[arg(long, hide = true, value_delimiter = '+')]
    traits: Vec<Trait>,
    /// Given to the children of a fork storm: stamp the shared slot of this number for a moment and end.
    #[arg(long, hide = true)]
    brief: Option<u32>,
    /// Given to one descendant: start such children, at most this many at a time.
    #[arg(long, hide = true)]
    storm: Option<u32>,
    /// Given to one descendant: write and sync this file without end.
    #[arg(long, hide = true)]
    write: Option<PathBuf>,
}

/// The slot that this activation is in; the first one where nothing is said.
fn variable_slot() -> u32 {
    std::env::var("SOLOIST_SLOT").ok().and_then(|slot| slot.parse().ok()).unwrap_or(1)
}

fn main() -> Result<ExitCode> {
    let mut born = stamp::now();
    let arguments = Arguments::parse();
    prctl::set_timerslack(1).context("failed to ask for exact timers")?;
    if family::fork_again(&arguments)? {
        return Ok(ExitCode::SUCCESS);
    }
    family::get_away(&arguments.traits)?;
    let identity = match (&arguments.identity, &arguments.warm) {
        (Some(identity), _) => identity.clone(),
        (None, Some(lock)) => {
            warm::stand_by(&arguments.dir)?;
            born = stamp::now();
            warm::identity(lock)?
        }
        (None, None) => Identity::from_env()?,
    };
    let page = stamp::page(&arguments.dir, variable_slot());
    if let Some(number) = arguments.brief {
        let stamper = Stamper::share(&page, &identity, &format!("storm{number}"), born)?;
        return habits::live_briefly(stamper);
    }
    let stamper = Stamper::claim(&page, &identity, &arguments.label, born)?;
    if arguments.label == "main" {
        command(&arguments, &identity, stamper)
    } else {
        descendant(&arguments, &identity, stamper)
    }
}

/// The command itself: starts what the modes ask for, then stamps until it should end.
fn command(arguments: &Arguments, identity: &Identity, mut stamper: Stamper) -> Result<ExitCode> {
    for mode in &arguments.mode {
        mode.start(arguments, identity)?;
    }
    let told = |what: &str| std::fs::read_to_string(arguments.dir.join(format!("{what}-{}", identity.token))).ok();
    let mut leaks = false;
    let ends_after = arguments.mode.iter().find_map(Mode::ends_after);
    let start = std::time::Instant::now();
    let mut looked = start;
    loop {
        stamper.stamp()?;
        pace(arguments);
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = std::time::Instant::now();
        if ends_after.is_some_and(|limit| start.elapsed() >= limit) {
            return Ok(exit_code(arguments.code));
        }
        if let Some(code) = told("exit").and_then(|text| text.trim().parse().ok()) {
            return Ok(exit_code(code));
        }
        if !leaks && let Some(size) = told("leak").and_then(|text| text.trim().parse().ok()) {
            leaks = true;
            habits::leak(size);
        }
    }
}

/// One of its descendants: stamps for ever.
fn descendant(arguments: &Arguments, identity: &Identity, mut stamper: Stamper) -> Result<ExitCode> {
    if let Some(file) = arguments.write.clone() {
        habits::write_and_sync(file);
    }
    if let Some(width) = arguments.storm {
        habits::storm(arguments.clone(), identity.clone(), width);
    }
    loop {
        stamper.stamp()?;
        pace(arguments);
    }
}

fn pace(arguments: &Arguments) {
    if arguments.pace_us > 0 {
        std::thread::sleep(Duration::from_micros(arguments.pace_us));
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
