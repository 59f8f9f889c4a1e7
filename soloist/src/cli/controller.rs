//! `soloist controller`: active and standby pods by label.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, CommandFactory, ValueEnum};
use election::{OnExit, OnLoss};

use super::access::Arguments as AccessArguments;
use crate::controller::{
    self,
    gallery::Gallery,
    group::{Handover, PromoteAfter},
};
use crate::error::Failure;
use crate::lock::kubernetes::Access;
use crate::log;
use crate::member::{self, Front};
use crate::settings::controller::{Raw as RawController, controller};
use crate::settings::{Raw, Settings, warn_about_unknown_variables};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The pods that it looks after, by labels that stay; all that fit in a namespace are a group
    #[arg(long, env = "SOLOIST_SELECTOR", required_unless_present_any = ["declared", "print_crd"], value_name = "KEY=VALUE")]
    selector: Option<String>,
    /// Look after the groups that are declared by objects of the kind ActiveStandby, each with settings of its own
    #[arg(
        long,
        env = "SOLOIST_DECLARED",
        conflicts_with_all = ["selector", "group", "active", "label", "promote_after", "handover", "critical",
            "critical_env", "delete_grace", "notify"]
    )]
    declared: bool,
    /// Print the definition of the kind ActiveStandby, for kubectl apply -f -
    #[arg(long)]
    print_crd: bool,
    /// Only in this namespace; several times, or several with commas between [default: all]
    #[arg(long = "namespace", env = "SOLOIST_NAMESPACE", value_delimiter = ',', value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// The Lease in each namespace that records who is active [default: the value of the first label of --selector]
    #[arg(long, env = "SOLOIST_GROUP", value_name = "NAME")]
    group: Option<String>,
    /// How many pods of a group are active
    #[arg(long, env = "SOLOIST_ACTIVE", default_value_t = 1, value_name = "N")]
    active: u32,
    /// The label that says which part a pod plays: KEY, or KEY=ACTIVE|STANDBY
    #[arg(long, env = "SOLOIST_LABEL", default_value = "role", value_name = "LABEL")]
    label: String,
    /// When another pod may become active: when the one before is being deleted or gone, or when the kubelet has said that
    /// all its containers have ended
    #[arg(long, env = "SOLOIST_PROMOTE_AFTER", default_value = "removed", value_name = "WHEN")]
    promote_after: PromoteAfterArgument,
    /// Whether a pod that is being deleted loses its label at once, or when another one may have it
    #[arg(long, env = "SOLOIST_HANDOVER", default_value = "drain-first", value_name = "ORDER")]
    handover: HandoverArgument,
    /// A container without which its pod is of no use: when it ends, another pod becomes active and this one is deleted;
    /// several times, or several with commas between
    #[arg(long, env = "SOLOIST_CRITICAL", value_delimiter = ',', value_name = "CONTAINER")]
    critical: Vec<String>,
    /// The same for containers with this variable in their environment
    #[arg(long, env = "SOLOIST_CRITICAL_ENV", default_value = "pwcriticality=critical", value_name = "NAME=VALUE")]
    critical_env: String,
    /// What such a pod gets to end, in seconds [default: its own grace]
    #[arg(long, env = "SOLOIST_DELETE_GRACE", value_name = "SECONDS")]
    delete_grace: Option<u32>,
    /// How a pod hears that it is active, on a port of its own: udp:PORT, udp:PORT/PAYLOAD, or http:PORT/PATH
    #[arg(long, env = "SOLOIST_NOTIFY", value_name = "TARGET")]
    notify: Option<String>,
    /// The file with the bearer token that http targets expect
    #[arg(long, env = "SOLOIST_NOTIFY_TOKEN_FILE", value_name = "PATH")]
    notify_token_file: Option<PathBuf>,
    /// The lock among controllers: kubernetes://NAMESPACE/NAME
    #[arg(long, env = "SOLOIST_LOCK", default_value = "kubernetes:///soloist-controller", value_name = "URL")]
    lock: String,
    /// This controller's name [default: POD_NAME, else the hostname]
    #[arg(long, env = "SOLOIST_NAME")]
    name: Option<String>,
    /// How long the others wait for a controller that is silent
    #[arg(long, env = "SOLOIST_LEASE", allow_hyphen_values = true, default_value = "15s", value_name = "DURATION")]
    lease: String,
    #[command(flatten)]
    access: AccessArguments,
    /// Serve HTTP: a page with all groups, which controller leads, why, and metrics; ADDR is 127.0.0.1:9090, [::1]:0 or unix:PATH
    #[arg(long, env = "SOLOIST_HTTP", value_name = "ADDR")]
    http: Option<String>,
    /// The file with the token that requests over TCP must bring
    #[arg(long, env = "SOLOIST_HTTP_TOKEN_FILE", value_name = "PATH")]
    http_token_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, env = "SOLOIST_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: log::Format,
}

const EXAMPLES: &str = "\
Examples:
  soloist controller --selector app=hapod
      one pod with app=hapod in each namespace is role=active, the others are role=standby
  soloist controller --selector app=db --namespace prod --promote-after stopped
      nobody becomes active before the containers of the one before have ended
  soloist controller --print-crd | kubectl apply -f -
  soloist controller --declared
      each ActiveStandby object is a group with settings of its own
  soloist controller --selector app=hapod --notify udp:10001/GoActive --critical main
  kubectl annotate pod app-7 soloist.dev/become-active=true
      that pod becomes active as soon as it is ready

At most one pod is published as active. That at most one acts so takes --promote-after
stopped, or a member of the group in each pod: soloist run.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PromoteAfterArgument {
    Removed,
    Stopped,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HandoverArgument {
    DrainFirst,
    StopFirst,
}

impl Arguments {
    fn settings(self) -> Result<(Settings, controller::Settings), Failure> {
        let access: Access = self.access.into();
        let duties = RawController {
            selector: self.selector,
            namespaces: self.namespaces,
            group: self.group,
            active: self.active,
            label: self.label,
            promote_after: match self.promote_after {
                PromoteAfterArgument::Removed => PromoteAfter::Removed,
                PromoteAfterArgument::Stopped => PromoteAfter::Stopped,
            },
            handover: match self.handover {
                HandoverArgument::DrainFirst => Handover::DrainFirst,
                HandoverArgument::StopFirst => Handover::StopFirst,
            },
            critical: self.critical,
            critical_env: self.critical_env,
            delete_grace_s: self.delete_grace,
            notify: self.notify,
            token_file: self.notify_token_file,
        };
        let duties = controller(duties, access.clone())?;
        let raw = Raw {
            lock: Some(self.lock),
            name: self.name,
            lease: self.lease,
            stop_grace: "1s".to_owned(),
            access,
            http: self.http,
            http_token_file: self.http_token_file,
            hands_over_on_eviction: true,
            ..Raw::default()
        };
        Ok((Settings::new(raw, OnExit::Standby, OnLoss::Standby)?, duties))
    }
}

/// Takes part until it is sent away, and returns its exit code.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    if arguments.print_crd {
        use std::io::Write as _;
        // Nobody is left to tell if that is closed.
        let _ = std::io::stdout().lock().write_all(controller::declared::DEFINITION.as_bytes());
        return Ok(0);
    }
    let format = arguments.log_format;
    let (settings, mut duties) = arguments.settings()?;
    let groups = settings.http.is_some().then(Arc::<Gallery>::default);
    duties.gallery.clone_from(&groups);
    let _flush = log::start(format);
    warn_about_unknown_variables(&super::Cli::command());
    let front = Front { task: Some(controller::deed(duties)), groups, ..Front::default() };
    member::run(settings, front).map(|_| 0)
}
