//! The flags of every member, whether it runs something or not.

pub(super) mod health;
mod notify;

use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};
use election::Exit;

use super::access::Arguments as AccessArguments;
use crate::error::{Code, Failure};
use crate::log;
use crate::member::{self, Front};
use crate::settings::{Duty, FilePlace, Place, Raw, Settings, consul_service, warn_about_unknown_variables};

/// Which group, and who in it.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Group {
    /// The lock: a path, file:///path/app.lock, kubernetes://NAMESPACE/NAME, consul://HOST:PORT/PREFIX (consuls:// with
    /// TLS), or consul:///PREFIX for the Consul of the CONSUL_* environment
    #[arg(long, env = "SOLOIST_LOCK", value_name = "URL")]
    lock: Option<String>,
    /// The group's name; without --lock the lock is GROUP.lock in the state folder
    #[arg(long, env = "SOLOIST_GROUP")]
    group: Option<String>,
    /// This member's name [default: POD_NAME, else the hostname and the PID]
    #[arg(long, env = "SOLOIST_NAME")]
    name: Option<String>,
    #[command(flatten)]
    lease: Lease,
    /// How many members may be active at a time, each in a slot with a lock of its own: the one of --lock, and the same
    /// with .2, .3 and so on behind it; 1 to 64
    #[arg(long, env = "SOLOIST_ACTIVE", allow_hyphen_values = true, value_name = "N")]
    active: Option<String>,
}

/// What all other durations follow from.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Lease {
    /// How long the others wait for an active member that is silent
    #[arg(long, env = "SOLOIST_LEASE", allow_hyphen_values = true, default_value = "15s", value_name = "DURATION")]
    pub(super) lease: String,
}

/// How a planned stop goes.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct StopGrace {
    /// What the workload gets between SIGTERM and SIGKILL on a planned stop
    #[arg(
        long,
        env = "SOLOIST_STOP_GRACE",
        allow_hyphen_values = true,
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(super) stop_grace: String,
}

/// How the lock is reached, and who hears of the member.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Around {
    #[command(flatten)]
    access: AccessArguments,
    /// For a lock on Kubernetes: whose word ends the wait for a dead member's lease, besides a release; pod: the
    /// kubelet's, from the status of the member's pod, which needs watch on pods
    #[arg(long, env = "SOLOIST_EVIDENCE", value_name = "WHOSE")]
    evidence: Option<EvidenceArgument>,
    /// Leave with 69 when the lock cannot be read at the start
    #[arg(long, env = "SOLOIST_FAIL_FAST")]
    fail_fast: bool,
    /// Serve HTTP: who is active, why, metrics, and requests; ADDR is 127.0.0.1:9090, [::1]:0 or unix:PATH
    #[arg(long, env = "SOLOIST_HTTP", value_name = "ADDR")]
    http: Option<String>,
    /// The file with the token that requests over TCP must bring
    #[arg(long, env = "SOLOIST_HTTP_TOKEN_FILE", value_name = "PATH")]
    http_token_file: Option<PathBuf>,
    /// In a pod, for a lock on Kubernetes: hand over when the pod is being deleted or evicted, without waiting for SIGTERM,
    /// and let others go first while the node is being emptied; needs watch on pods, and on nodes for the latter
    #[arg(long, env = "SOLOIST_HANDOVER_ON", default_value = "eviction", value_name = "WHAT")]
    handover_on: HandoverArgument,
    /// Send traffic to the active member alone, through Kubernetes: endpoint-slice:SERVICE, endpoints:SERVICE, or
    /// pod-label:KEY on the members' pods, with the values active and standby or as in KEY=ACTIVE|STANDBY; or through
    /// Consul: consul-service:NAME, of which each member is an instance with the tag active or standby; several times, or
    /// several with commas between
    #[arg(long = "route", env = "SOLOIST_ROUTE", value_delimiter = ',', value_name = "ROUTE")]
    routes: Vec<String>,
    /// For consul-service: the path that a healthy instance answers with 2xx
    #[arg(long, env = "SOLOIST_CONSUL_CHECK_HTTP", value_name = "PATH")]
    consul_check_http: Option<String>,
    /// For consul-service: how often that is asked [default: 10s]
    #[arg(long, env = "SOLOIST_CONSUL_CHECK_INTERVAL", allow_hyphen_values = true, value_name = "DURATION")]
    consul_check_interval: Option<String>,
    /// For consul-service: the port on which the instance answers
    #[arg(long, env = "SOLOIST_CONSUL_SERVICE_PORT", value_name = "PORT")]
    consul_service_port: Option<u16>,
    /// For consul-service: where the instance answers [default: POD_IP, else the agent's own address]
    #[arg(long, env = "SOLOIST_CONSUL_SERVICE_ADDRESS", value_name = "ADDRESS")]
    consul_service_address: Option<String>,
    /// How log lines look
    #[arg(long, env = "SOLOIST_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: log::Format,
    // Last, because a heading holds for all that follows it.
    #[command(flatten)]
    health: health::Arguments,
    #[command(flatten)]
    notify: notify::Arguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EvidenceArgument {
    Pod,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HandoverArgument {
    Eviction,
    None,
}

impl Around {
    /// What a member of `group` was told, but for its workload.
    pub(super) fn raw(self, group: Group) -> Raw {
        Raw {
            lock: group.lock,
            group: group.group,
            name: group.name,
            lease: group.lease.lease,
            active: group.active,
            allow_plaintext: self.access.allow_plaintext,
            notify: self.notify.raw(),
            access: self.access.into(),
            asks_kubelet: matches!(self.evidence, Some(EvidenceArgument::Pod)),
            fail_fast: self.fail_fast,
            http: self.http,
            http_token_file: self.http_token_file,
            hands_over_on_eviction: matches!(self.handover_on, HandoverArgument::Eviction),
            routes: self.routes,
            consul_service: consul_service::Raw {
                check_http: self.consul_check_http,
                check_interval: self.consul_check_interval,
                port: self.consul_service_port,
                address: self.consul_service_address,
            },
            health: self.health.raw(),
            ..Raw::default()
        }
    }
}

/// Runs one member to its end and returns its exit code.
pub(super) fn take_part(settings: Settings, format: log::Format) -> Result<i32, Failure> {
    member::check(&settings)?;
    let _flush = log::start(format);
    warn_about_unknown_variables(&super::Cli::command());
    if let Place::File(FilePlace { path, is_default: true }) = &settings.lock {
        tracing::info!("the lock is {}", path.display());
    }
    let runs_it_itself = matches!(settings.duty, Duty::Command(_));
    Ok(match member::run(settings, Front::default())? {
        Exit::StoodBy => 0,
        Exit::Workload(code) if runs_it_itself => code,
        // It was another container's, which ends with it.
        Exit::Workload(_) => 0,
        Exit::LeaseLost => Code::Lost as i32,
    })
}
