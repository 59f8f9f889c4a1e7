//! The environment: what is required, what may be left out, and what is refused.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use election::{OnExit, OnLoss};

use super::Fatal;
use crate::lock::kubernetes::{Access, check_lease};
use crate::route::check_address;
use crate::route::endpoints::{Target, ports};
use crate::settings::{Raw, Settings, is_label, is_member_name, is_subdomain};

/// What all names begin with.
const PREFIX: &str = "K8S_AWAIT_ELECTION_";

/// What the command gets between SIGTERM and SIGKILL.
const STOP_GRACE: &str = "10s";

/// Renewals are spread by so much: in tenths of the retry period.
const JITTER_TENTHS: u64 = 12;

/// An election that is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What people call this election.
    pub(super) name: String,
    namespace: String,
    lock: String,
    identity: String,
    lease: Duration,
    /// Where the status is served, if it is.
    pub(super) status: Option<String>,
    /// Which Endpoints are published, if any are.
    pub(super) endpoints: Option<Target>,
}

/// Looks a variable up.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Nothing where no election is wanted.
///
/// # Errors
/// The first thing that is missing or wrong.
pub(super) fn read(variables: Variables<'_>) -> Result<Option<Wanted>, Fatal> {
    if optional(variables, "ENABLED").is_none() {
        return Ok(None);
    }
    // What is missing is named in this order.
    let [name, lock, namespace, identity] =
        ["NAME", "LOCK_NAME", "LOCK_NAMESPACE", "IDENTITY"].map(|name| required(variables, name));
    let (name, lock, namespace, identity) = (name?, lock?, namespace?, identity?);
    let endpoints = endpoints(variables)?;
    expanded("NAME", &name)?;
    check("LOCK_NAME", &lock, is_subdomain, SUBDOMAIN)?;
    check("LOCK_NAMESPACE", &namespace, is_label, LABEL)?;
    check("IDENTITY", &identity, is_member_name, MEMBER)?;
    let lease = lease(variables)?;
    Ok(Some(Wanted {
        name,
        namespace,
        lock,
        identity,
        lease,
        status: optional(variables, "STATUS_ENDPOINT"),
        endpoints,
    }))
}

impl Wanted {
    /// The member that this asks for.
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub(super) fn settings(&self, access: Access, command: Vec<OsString>) -> Result<Settings, Fatal> {
        let raw = Raw {
            lock: Some(format!("kubernetes://{}/{}", self.namespace, self.lock)),
            name: Some(self.identity.clone()),
            lease: format!("{}s", self.lease.as_secs()),
            stop_grace: STOP_GRACE.to_owned(),
            access,
            command: Some(command),
            ..Raw::default()
        };
        Settings::new(raw, OnExit::Exit, OnLoss::Exit).map_err(|failure| {
            // Where there is no flag, the variable is to be named.
            Fatal::run(failure.message.replace("--lease", &full("LEASE_DURATION")))
        })
    }
}

/// How the API server is reached: from within the cluster. Where there is none, `KUBECONFIG` will do.
///
/// # Errors
/// Neither is there.
pub(super) fn access(variables: &dyn Fn(&str) -> Option<OsString>) -> Result<Access, String> {
    let is_set = |name: &str| variables(name).filter(|value| !value.is_empty());
    if is_set("KUBERNETES_SERVICE_HOST").is_some() && is_set("KUBERNETES_SERVICE_PORT").is_some() {
        return Ok(Access { pod_only: true, ..Access::default() });
    }
    if is_set("KUBECONFIG").is_some() {
        return Ok(Access::default());
    }
    Err("failed to read cluster config: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and \
         KUBERNETES_SERVICE_PORT must be defined"
        .to_owned())
}

const LABEL: &str = "a-z, 0-9 and '-', at most 63, first and last no '-'";
const SUBDOMAIN: &str = "a-z, 0-9, '-' and '.', at most 253, first and last a letter or digit";
const MEMBER: &str = "letters, digits, '-', '.', '_', at most 253, first and last a letter or digit";

fn full(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A variable that is empty counts as not there.
fn optional(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(&full(name)).filter(|value| !value.is_empty())
}

fn required(variables: Variables<'_>, name: &str) -> Result<String, Fatal> {
    optional(variables, name)
        .ok_or_else(|| Fatal::runner(format!("config: missing required environment variable: '{}'", full(name))))
}

fn wrong(name: &str, value: &str, why: &str) -> Fatal {
    Fatal::runner(format!("config: {}={value:?} {why}", full(name)))
}

/// Kubernetes leaves `$(VAR)` as it is where VAR is defined later, or not at all.
fn expanded(name: &str, value: &str) -> Result<(), Fatal> {
    if value.contains("$(") {
        return Err(wrong(name, value, "contains a variable that nobody expanded: define that one before it"));
    }
    Ok(())
}

fn check(name: &str, value: &str, is_valid: fn(&str) -> bool, allowed: &str) -> Result<(), Fatal> {
    expanded(name, value)?;
    if is_valid(value) { Ok(()) } else { Err(wrong(name, value, &format!("is not allowed: {allowed}"))) }
}

/// The Endpoints of the Service that is named, if one is. Without it, nothing that describes them matters.
fn endpoints(variables: Variables<'_>) -> Result<Option<Target>, Fatal> {
    let Some(service) = optional(variables, "SERVICE_NAME") else { return Ok(None) };
    let json = optional(variables, "SERVICE_PORTS_JSON").unwrap_or_default();
    let ports = ports::parse(&json).map_err(|why| Fatal::runner(format!("failed to parse ports from env: {why}")))?;
    check("SERVICE_NAME", &service, is_label, LABEL)?;
    let given = |name: &str| {
        let missing = || Fatal::runner(format!("config: {} needs '{}'", full("SERVICE_NAME"), full(name)));
        optional(variables, name).ok_or_else(missing)
    };
    let namespace = given("SERVICE_NAMESPACE")?;
    check("SERVICE_NAMESPACE", &namespace, is_label, LABEL)?;
    let text = given("POD_IP")?;
    expanded("POD_IP", &text)?;
    let address: IpAddr =
        text.parse().map_err(|_| wrong("POD_IP", &text, "is not an IP address: status.podIP of the pod is one"))?;
    check_address(address).map_err(|why| wrong("POD_IP", &text, &format!("is of no use: {why}")))?;
    let node = optional(variables, "NODE_NAME");
    if let Some(node) = &node {
        check("NODE_NAME", node, is_subdomain, SUBDOMAIN)?;
    }
    Ok(Some(Target { namespace, service, address, node, ports }))
}

/// The lease. The other two durations follow from it; they are held against each other as the other program does.
fn lease(variables: Variables<'_>) -> Result<Duration, Fatal> {
    let lease = seconds(variables, "LEASE_DURATION", 15)?;
    let deadline = seconds(variables, "RENEW_DEADLINE", 10)?;
    let retry = seconds(variables, "RETRY_PERIOD", 2)?;
    let refuse = |why: &str| Err(Fatal::run(format!("failed to create leader elector: {why}")));
    if lease <= deadline {
        return refuse("leaseDuration must be greater than renewDeadline");
    }
    if deadline.saturating_mul(10) <= retry.saturating_mul(JITTER_TENTHS) {
        return refuse("renewDeadline must be greater than retryPeriod*JitterFactor");
    }
    for (value, what) in [(lease, "leaseDuration"), (deadline, "renewDeadline"), (retry, "retryPeriod")] {
        if value == 0 {
            return refuse(&format!("{what} must be greater than zero"));
        }
    }
    let lease = Duration::from_secs(lease);
    check_lease(lease).map_err(|why| wrong("LEASE_DURATION", &lease.as_secs().to_string(), &why))?;
    Ok(lease)
}

fn seconds(variables: Variables<'_>, name: &str, default: u64) -> Result<u64, Fatal> {
    match optional(variables, name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| wrong(name, &text, &format!("is not whole seconds, such as {default}"))),
    }
}

#[cfg(test)]
mod tests;
