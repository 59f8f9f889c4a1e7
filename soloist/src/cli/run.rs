//! `soloist run`: one member and its workload.

mod hooks;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args, Command, CommandFactory, Id, ValueEnum};
use election::{OnExit, OnLoss};

use super::membership::{self, Around, Group, StopGrace};
use crate::error::{Code, Failure};
use crate::log;
use crate::settings::{self, Raw, Settings, duration, socket_path, warn_about_unknown_variables};
use crate::workload::via;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    group: Group,
    /// In a container beside a sidecar: run the workload when the sidecar at this socket says so, as PID 1
    #[arg(long, env = "SOLOIST_VIA", value_name = "PATH")]
    via: Option<PathBuf>,
    #[command(flatten)]
    stop: StopGrace,
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
  soloist run --via /soloist/via/app.sock -- ./server
      beside: soloist sidecar --lock kubernetes:///app --via /soloist/via/app.sock
  soloist run --lock ./x.lock -- sh -c 'echo active $SOLOIST_FENCING_TOKEN; exec sleep 1000'
  soloist run --warm --health-exec ./is-ready --notify signal:USR1 -- ./server

The workload finds SOLOIST_FENCING_TOKEN, SOLOIST_ROLE, SOLOIST_MEMBER,
SOLOIST_ACTIVATION and SOLOIST_SLOT in its environment; with --warm only the
role, which is standby, and the member.";

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
            stop_grace: self.stop.stop_grace,
            allow_remote_fs: self.allow_remote_fs,
            is_warm: self.warm,
            command: Some(self.command),
            hooks: self.hooks.raw(),
            ..self.around.raw(self.group)
        };
        Settings::new(raw, on_exit, on_loss)
    }
}

/// The flags that mean something beside `--via`; the sidecar decides all the rest.
const WITH_VIA: [&str; 5] = ["via", "stop_grace", "on_exit", "log_format", "command"];

/// `command` is `run`: with `--via` it takes nothing that the sidecar is to be told.
pub(super) fn alone_with_via(command: Command) -> Command {
    let is_the_sidecars = |id: &&Id| !WITH_VIA.contains(&id.as_str());
    let others: Vec<Id> = command.get_arguments().map(Arg::get_id).filter(is_the_sidecars).cloned().collect();
    command.mut_arg("via", |via| via.conflicts_with_all(others))
}

impl Arguments {
    fn wrapper(self, path: PathBuf) -> Result<via::Settings, Failure> {
        let stays = match self.on_exit {
            OnExitArgument::Exit => false,
            OnExitArgument::Standby => true,
            OnExitArgument::Restart => {
                let what = "--via: got --on-exit restart, but who is next is the sidecar's to decide";
                return Err(Failure::new(Code::Usage, what).hint("exit or standby"));
            }
        };
        let stop_grace = duration("--stop-grace", &self.stop.stop_grace)?;
        socket_path("--via", &path)?;
        settings::check_command(&self.command)?;
        Ok(via::Settings { path, command: self.command, stop_grace, stays })
    }
}

/// Runs one member to its end and returns its exit code; with `--via` the workload of the sidecar's.
pub(super) fn main(mut arguments: Arguments) -> Result<i32, Failure> {
    let format = arguments.around.log_format;
    if let Some(path) = arguments.via.take() {
        let settings = arguments.wrapper(path)?;
        let _flush = log::start(format);
        warn_about_unknown_variables(&super::Cli::command());
        return via::run(&settings);
    }
    membership::take_part(arguments.settings()?, format)
}
