//! The flags of notices.

use std::path::PathBuf;

use clap::Args;

use crate::settings::notify::Raw;

#[derive(Debug, Args)]
#[command(next_help_heading = "Notices")]
#[group(skip)]
pub(super) struct Arguments {
    /// Who is told, each time, that this member is active or stands by: http://HOST:PORT/PATH (until it answers with 2xx),
    /// udp:HOST:PORT (a hint), udp:HOST:PORT/PAYLOAD (this text, once a promotion), file:PATH, exec:LINE (for /bin/sh, until
    /// it ends with 0), or with --warm signal:USR1 (to the workload, once it is active); several times, or several with
    /// commas between
    #[arg(long = "notify", env = "SOLOIST_NOTIFY", value_delimiter = ',', value_name = "LISTENER")]
    listeners: Vec<String>,
    /// The file with the token that requests to listeners bring
    #[arg(long, env = "SOLOIST_NOTIFY_TOKEN_FILE", value_name = "PATH")]
    notify_token_file: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn raw(self) -> Raw {
        Raw { targets: self.listeners, token_file: self.notify_token_file }
    }
}
