//! The flags of the hooks.

use clap::Args;

use crate::settings::hooks::{Raw, TIMEOUT};

#[derive(Debug, Args)]
#[command(next_help_heading = "Hooks")]
#[group(skip)]
pub(super) struct Arguments {
    /// A line for /bin/sh that is run when the workload runs
    #[arg(long, env = "SOLOIST_ON_ACTIVE", value_name = "LINE")]
    on_active: Option<String>,
    /// A line for /bin/sh that is run when this member stands by: at its start, and after it was active
    #[arg(long, env = "SOLOIST_ON_STANDBY", value_name = "LINE")]
    on_standby: Option<String>,
    /// A line for /bin/sh that is run when the stop of the workload begins
    #[arg(long, env = "SOLOIST_ON_STOP", value_name = "LINE")]
    on_stop: Option<String>,
    /// How long one hook may take
    #[arg(
        long,
        env = "SOLOIST_HOOK_TIMEOUT",
        allow_hyphen_values = true,
        default_value = TIMEOUT,
        value_name = "DURATION"
    )]
    hook_timeout: String,
}

impl Arguments {
    pub(super) fn raw(self) -> Raw {
        Raw {
            on_active: self.on_active,
            on_standby: self.on_standby,
            on_stop: self.on_stop,
            timeout: self.hook_timeout,
        }
    }
}
