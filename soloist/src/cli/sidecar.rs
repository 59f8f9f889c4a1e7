//! `soloist sidecar`: one member for an application in another container, which asks, is told, or is run from here.

use std::path::PathBuf;

use clap::Args;
use election::{OnExit, OnLoss};

use super::membership::{self, Around, Group, StopGrace};
use crate::error::{Code, Failure};
use crate::settings::{Duty, Raw, Settings};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    around: Around,
    /// Have the application's command run by `soloist run --via` in its own container: PATH is a socket on a volume
    #[arg(long, env = "SOLOIST_VIA", value_name = "PATH")]
    via: Option<PathBuf>,
    #[command(flatten)]
    stop: StopGrace,
}

const EXAMPLES: &str = "\
Examples:
  soloist sidecar --lock kubernetes:///app --http 127.0.0.1:9090
      the application asks http://127.0.0.1:9090/active: 200 while it is the active one, else 503
  soloist sidecar --lock kubernetes:///app --notify http://127.0.0.1:8080/role
      the application is told of each change
  soloist sidecar --lock kubernetes:///app --http 127.0.0.1:9090 --health-http http://127.0.0.1:8080/ready
      only an application that says that it is ready stands, and becomes active
  soloist sidecar --lock kubernetes:///app --via /soloist/via/app.sock
      the application's container runs: soloist run --via /soloist/via/app.sock -- COMMAND

Without --via it stops nothing: at most one member says that it is active.";

impl Arguments {
    fn settings(self) -> Result<Settings, Failure> {
        let raw = Raw { stop_grace: self.stop.stop_grace, via: self.via, ..self.around.raw(self.group) };
        let settings = Settings::new(raw, OnExit::Standby, OnLoss::Standby)?;
        let is_heard = settings.http.is_some() || !settings.listeners.is_empty() || !settings.routes.is_empty();
        if settings.duty == Duty::Tell && !is_heard {
            let what = "nobody would hear who is active: there is no --via, no --http, no --notify and no --route";
            return Err(Failure::new(Code::Configuration, what).hint("add --http 127.0.0.1:9090"));
        }
        Ok(settings)
    }
}

/// Runs one member to its end and returns its exit code.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    let format = arguments.around.log_format;
    membership::take_part(arguments.settings()?, format)
}
