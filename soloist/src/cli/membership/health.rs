//! The flags of the health check.

use clap::Args;

use crate::settings::health::{FALL, INTERVAL, RISE, Raw, START, TIMEOUT};

#[derive(Debug, Args)]
#[command(next_help_heading = "Health check")]
#[group(skip)]
pub(in crate::cli) struct Arguments {
    /// A line for /bin/sh that succeeds when this member may be active; asked on active and standby
    #[arg(long, env = "SOLOIST_HEALTH_EXEC", value_name = "LINE")]
    health_exec: Option<String>,
    /// Asked while the own workload runs; 200 to 299 is healthy [http://HOST:PORT/PATH, http://unix:SOCKET:/PATH]
    #[arg(long, env = "SOLOIST_HEALTH_HTTP", value_name = "URL")]
    health_http: Option<String>,
    /// From one check to the next
    #[arg(
        long,
        env = "SOLOIST_HEALTH_INTERVAL",
        allow_hyphen_values = true,
        default_value = INTERVAL,
        value_name = "DURATION"
    )]
    health_interval: String,
    /// How long one check may take
    #[arg(
        long,
        env = "SOLOIST_HEALTH_TIMEOUT",
        allow_hyphen_values = true,
        default_value = TIMEOUT,
        value_name = "DURATION"
    )]
    health_timeout: String,
    /// So many successes in a row make an unhealthy member healthy
    #[arg(long, env = "SOLOIST_HEALTH_RISE", default_value_t = RISE, value_name = "COUNT")]
    health_rise: u32,
    /// So many failures in a row make a healthy member unhealthy
    #[arg(long, env = "SOLOIST_HEALTH_FALL", default_value_t = FALL, value_name = "COUNT")]
    health_fall: u32,
    /// After the start of the workload, failures do not count for so long, or until the first success
    #[arg(
        long,
        env = "SOLOIST_HEALTH_START",
        allow_hyphen_values = true,
        default_value = START,
        value_name = "DURATION"
    )]
    health_start: String,
}

impl Arguments {
    pub(in crate::cli) fn raw(self) -> Raw {
        Raw {
            exec: self.health_exec,
            http: self.health_http,
            interval: self.health_interval,
            timeout: self.health_timeout,
            rise: self.health_rise,
            fall: self.health_fall,
            start: self.health_start,
        }
    }
}
