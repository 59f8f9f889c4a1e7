//! `soloist run`: one member and its workload.

mod hooks;

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use election::{OnExit, OnLoss};

use super::membership::{self, Around, Group};
use crate::error::Failure;
use crate::settings::{Raw, Settings};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    group: Group,
    /// What the workload gets between SIGTERM and SIGKILL on a planned stop
    #[arg(
        long,
        env = "SOLOIST_STOP_GRACE",
        allow_hyphen_values = true,
        default_value = "10s",
        value_name = "DURATION"
    )]
    stop_grace: String,
    /// When the workload ends by itself: release and leave with its code, start it anew here, or stand by
    #[arg(long, env = "SOLOIST_ON_EXIT", default_value = "exit", value_name = "WHAT")]
    on_exit: OnExitArgument,
    /// When the lease is lost: contend again, or leave with 75
    #[arg(long, env = "SOLOIST_ON_LOSS", default_value = "standby", value_name = "WHAT")]
    on_loss: OnLossArgument,
    /// Take a lock file on a remote or layered file system, where every host must see the same flock
    #[arg(long, env = "SOLOIST_ALLOW_REMOTE_FS")]
    allow_remote_fs: bool,
    /// Start the workload while this member stands by, and tell it when it is active; needs a health check, and --notify
    /// or --http by which it hears of it
    #[arg(long, env = "SOLOIST_WARM")]
    warm: bool,
    #[command(flatten)]
    around: Around,
    /// The workload and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    // Last, because a heading holds for all that follows it.
    #[command(flatten)]
    hooks: hooks::Arguments,
}

const EXAMPLES: &str = "\
Examples:
  soloist run --lock ./app.lock -- ./server --port 8080
  soloist run --lock kubernetes://prod/app -- ./server
  soloist run --group app --lease 5s --on-exit restart -- ./server
  soloist run --lock ./x.lock -- sh -c 'echo active $SOLOIST_FENCING_TOKEN; exec sleep 1000'
  soloist run --warm --health-exec ./is-ready --notify signal:USR1 -- ./server

The workload finds SOLOIST_FENCING_TOKEN, SOLOIST_ROLE, SOLOIST_MEMBER and
SOLOIST_ACTIVATION in its environment; with --warm only the role, which is
standby, and the member.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnExitArgument {
    Exit,
    Restart,
    Standby,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnLossArgument {
    Standby,
    Exit,
}

impl Arguments {
    fn settings(self) -> Result<Settings, Failure> {
        let on_exit = match self.on_exit {
            OnExitArgument::Exit => OnExit::Exit,
            OnExitArgument::Restart => OnExit::Restart,
            OnExitArgument::Standby => OnExit::Standby,
        };
        let on_loss = match self.on_loss {
            OnLossArgument::Standby => OnLoss::Standby,
            OnLossArgument::Exit => OnLoss::Exit,
        };
        let raw = Raw {
            stop_grace: self.stop_grace,
            allow_remote_fs: self.allow_remote_fs,
            is_warm: self.warm,
            command: Some(self.command),
            hooks: self.hooks.raw(),
            ..self.around.raw(self.group)
        };
        Settings::new(raw, on_exit, on_loss)
    }
}

/// Runs one member to its end and returns its exit code.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    let format = arguments.around.log_format;
    membership::take_part(arguments.settings()?, format)
}
