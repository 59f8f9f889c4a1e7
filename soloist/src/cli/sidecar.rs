//! `soloist sidecar`: one member without a workload, for an application in another container that asks or is told.

use clap::Args;
use election::{OnExit, OnLoss};

use super::membership::{self, Around, Group};
use crate::error::{Code, Failure};
use crate::settings::{Raw, Settings};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    around: Around,
}

const EXAMPLES: &str = "\
Examples:
  soloist sidecar --lock kubernetes:///app --http 127.0.0.1:9090
      the application asks http://127.0.0.1:9090/active: 200 while it is the active one, else 503
  soloist sidecar --lock kubernetes:///app --notify http://127.0.0.1:8080/role
      the application is told of each change
  soloist sidecar --lock kubernetes:///app --http 127.0.0.1:9090 --health-http http://127.0.0.1:8080/ready
      only an application that says that it is ready stands, and becomes active

It runs nothing and stops nothing: at most one member says at a time that it is active. Where two
must never run, let soloist run the command.";

/// Nothing is ever stopped for so long here; the settings want to know.
const STOP_GRACE: &str = "1s";

impl Arguments {
    fn settings(self) -> Result<Settings, Failure> {
        let raw = Raw { stop_grace: STOP_GRACE.to_owned(), command: None, ..self.around.raw(self.group) };
        let settings = Settings::new(raw, OnExit::Standby, OnLoss::Standby)?;
        if settings.http.is_none() && settings.listeners.is_empty() && settings.routes.is_empty() {
            let what = "nobody would hear who is active: there is no --http, no --notify and no --route";
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
