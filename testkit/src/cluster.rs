//! The Kubernetes of the testbed, as its administrator.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use soloist::clock::unix_us;
use soloist::lock::board::ANNOUNCEMENT_LIFE;
use soloist::snapshot::Announcement;

use crate::kubectl::Kubectl;
use crate::relay::{Relay, Upstream};
use crate::scenario::LIMIT;
use crate::wait::wait_until;

/// The API server that `testbed/run control-plane` has started around this process.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    config: kube::Config,
}

impl Cluster {
    /// The one that the environment names.
    pub fn connect() -> Result<Self> {
        let kubectl = Kubectl::find("TESTBED_API", "this test needs a real API server: make cluster")?;
        let kubeconfig = std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let file = Kubeconfig::read_from(kubeconfig).context("failed to read the testbed's kubeconfig")?;
        let config = runtime.block_on(kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()));
        Ok(Self { kubectl, config: config.context("failed to use the testbed's kubeconfig")? })
    }

    /// A namespace that nobody has used in this run.
    pub fn namespace(&self) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
        Ok(name)
    }

    /// What `kubectl` prints; fails if it does.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.kubectl.run(words)
    }

    /// For what asks the API server itself.
    pub fn config(&self) -> kube::Config {
        self.config.clone()
    }

    /// For what runs `kubectl` itself.
    pub fn client(&self) -> &Kubectl {
        &self.kubectl
    }

    /// As [`Kubectl::apply`].
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl.apply(object)
    }

    /// Makes the kind ActiveStandby known, as the program prints it.
    pub fn define(&self) -> Result<()> {
        self.kubectl.run_with(&["apply", "--server-side", "-f", "-"], soloist::controller::declared::DEFINITION)?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/activestandbys.soloist.dev"])?;
        // What is established is served a moment later.
        let is_served = || self.kubectl(&["get", "activestandbys.soloist.dev", "--all-namespaces"]).is_ok();
        wait_until("the kind to be served", LIMIT, is_served)
    }

    /// As [`Kubectl::initial_lease`].
    pub fn initial_lease(&self, namespace: &str, name: &str) -> Result<()> {
        self.kubectl.initial_lease(namespace, name)
    }

    /// A ServiceAccount that may do what `verbs` say with one Lease of its namespace.
    pub fn account(&self, namespace: &str, account: &str, lease: &str, verbs: &[&str]) -> Result<()> {
        let rule = json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease], "verbs": verbs,
        });
        self.grant(namespace, account, &json!([rule]))
    }

    /// As [`Kubectl::grant`].
    pub fn grant(&self, namespace: &str, account: &str, rules: &Value) -> Result<()> {
        self.kubectl.grant(namespace, account, rules)
    }

    /// As [`Kubectl::token`].
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        self.kubectl.token(namespace, account)
    }

    /// Who has announced itself on a Lease, as long as that counts.
    pub fn announced(&self, namespace: &str, lease: &str) -> Result<Vec<Announcement>> {
        let path = r"jsonpath={.metadata.annotations.soloist\.dev/members}";
        let text = self.kubectl(&["--namespace", namespace, "get", "lease", lease, "--output", path])?;
        let members: Vec<Announcement> = match text.is_empty() {
            true => Vec::new(),
            false => serde_json::from_str(&text).context("failed to understand the members")?,
        };
        let since = |then: u64| Duration::from_millis((unix_us() / 1000).saturating_sub(then));
        Ok(members.into_iter().filter(|member| since(member.at_unix_ms) < ANNOUNCEMENT_LIFE).collect())
    }

    /// A relay before the API server; the member behind it is the administrator, or who its token says.
    pub fn relay(&self, as_administrator: bool) -> Result<Relay> {
        Relay::start(Upstream::of(&self.config, as_administrator)?)
    }

    /// A relay at this address.
    pub fn relay_at(&self, address: SocketAddr) -> Result<Relay> {
        Relay::start_at(address, Upstream::of(&self.config, true)?)
    }

    /// A relay at each address, for one member that is the administrator.
    pub fn relays(&self, addresses: &[Ipv4Addr]) -> Result<Vec<Relay>> {
        Relay::several(addresses, &Upstream::of(&self.config, true)?)
    }

    /// Does something to one of the servers: `kill`, `start`, `pause`, `resume`.
    pub fn service(&self, verb: &str, server: &str) -> Result<()> {
        crate::root::service(verb, server)
    }
}

/// A program that the testbed was built of.
///
/// # Errors
/// This does not run in a testbed.
pub fn program(name: &str) -> Result<PathBuf> {
    let programs = std::env::var_os("TESTBED_BIN").context("TESTBED_BIN is not set: this runs in a testbed only")?;
    Ok(PathBuf::from(programs).join(name))
}
