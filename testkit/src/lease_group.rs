//! A group on a Lease of the testbed: each member reaches the API server through a relay of its own.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::history::Span;
use crate::member::Member;
use crate::outage::Store;
use crate::relay;
use crate::relayed::{Placed, Relayed, View, settle};

pub use crate::relayed::{BEYOND, LEASE, NAMESPACE};

/// Members that share a Lease.
#[derive(Debug)]
pub struct LeaseGroup {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    relayed: Relayed,
}

impl Deref for LeaseGroup {
    type Target = Relayed;

    fn deref(&self) -> &Relayed {
        &self.relayed
    }
}

impl DerefMut for LeaseGroup {
    fn deref_mut(&mut self) -> &mut Relayed {
        &mut self.relayed
    }
}

impl AsRef<Relayed> for LeaseGroup {
    fn as_ref(&self) -> &Relayed {
        &self.relayed
    }
}

/// Two members in their places: `a` active, `b` standing by.
#[derive(Debug)]
pub struct Pair {
    /// The cluster.
    pub cluster: Cluster,
    /// The group.
    pub group: LeaseGroup,
    /// `a` and `b`.
    pub members: Vec<Member>,
    /// What `a` runs.
    pub active: Span,
}

impl Pair {
    /// As the administrator.
    pub fn start() -> Result<Self> {
        Self::placed()
    }

    /// Each in a PID namespace of its own.
    pub fn start_pid1() -> Result<Self> {
        Self::by(|group, cluster| group.start_pid1(cluster, &["a", "b"]))
    }

    /// By `start`.
    pub fn by(start: impl FnOnce(&mut LeaseGroup, &Cluster) -> Result<(Vec<Member>, Span)>) -> Result<Self> {
        Self::with(LEASE, start)
    }

    fn with(
        lease: Duration,
        start: impl FnOnce(&mut LeaseGroup, &Cluster) -> Result<(Vec<Member>, Span)>,
    ) -> Result<Self> {
        let cluster = Cluster::connect()?;
        let mut group = LeaseGroup::with_lease(&cluster, lease)?;
        let (members, active) = start(&mut group, &cluster)?;
        Ok(Self { cluster, group, members, active })
    }
}

impl LeaseGroup {
    /// A group with the shortest lease and a Lease that is free at first sight.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Self::with_lease(cluster, LEASE)
    }

    /// A group with another lease.
    pub fn with_lease(cluster: &Cluster, lease: Duration) -> Result<Self> {
        let (namespace, name) = (cluster.namespace()?, "app".to_owned());
        cluster.initial_lease(&namespace, &name)?;
        let mut relayed = Relayed::new(lease)?;
        relayed.group.set_lock_url(&format!("kubernetes://{namespace}/{name}"));
        Ok(Self { namespace, lease: name, relayed })
    }

    /// Starts a member as the administrator, behind a relay of its own.
    pub fn spawn(&mut self, cluster: &Cluster, name: &str, options: &[&str]) -> Result<Member> {
        self.spawn_as(cluster, name, &json!({}), &[], options)
    }

    /// Starts a member in a PID namespace of its own.
    pub fn spawn_pid1(&mut self, cluster: &Cluster, name: &str) -> Result<Member> {
        self.spawn_as(cluster, name, &json!({}), &NAMESPACE, &[])
    }

    /// Starts a member with `user` in its kubeconfig: `{}` is the administrator.
    pub fn spawn_as(
        &mut self,
        cluster: &Cluster,
        name: &str,
        user: &Value,
        wrapper: &[&str],
        options: &[&str],
    ) -> Result<Member> {
        if !self.has_relay(name) {
            self.add_relay(cluster, name, user)?;
        }
        let access: [OsString; 2] = ["--kubeconfig".into(), self.kubeconfig(name).into()];
        let starter = self.group.member(name).wrapper(wrapper).options(access);
        starter.options(options.iter().copied()).probe::<&str>(&[])
    }

    /// Makes the relay of a member that is not started yet, and its kubeconfig.
    pub fn add_relay(&mut self, cluster: &Cluster, name: &str, user: &Value) -> Result<()> {
        let relay = cluster.relay(*user == json!({}))?;
        relay.write_kubeconfig(&self.kubeconfig(name), user)?;
        self.insert(name, vec![relay]);
        Ok(())
    }

    /// Starts a member, as the administrator, that knows the API server by a name with several addresses, a relay at
    /// each. Where the name leads stands in a file of its own, see [`LeaseGroup::lead`].
    pub fn spawn_by_name(&mut self, cluster: &Cluster, name: &str, addresses: &[Ipv4Addr]) -> Result<Member> {
        let relays = cluster.relays(addresses)?;
        let first = relays.first().context("no addresses")?;
        first.write_kubeconfig_for(relay::NAME, &self.kubeconfig(name), &json!({}))?;
        self.insert(name, relays);
        self.lead(name, addresses)?;
        let hosts = self.hosts(name).display().to_string();
        // In a mount namespace of its own: nobody else finds the name there.
        let wrapper = ["unshare", "--mount", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#, &hosts];
        self.spawn_as(cluster, name, &json!({}), &wrapper, &[])
    }

    /// Leads the name of the API server, for this member, to these addresses from now on; to none: nobody knows it.
    pub fn lead(&self, name: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        let lines = addresses.iter().map(|address| format!("{address} {}\n", relay::NAME));
        fs::write(self.hosts(name), lines.collect::<String>()).context("failed to write a hosts file")
    }

    fn hosts(&self, name: &str) -> PathBuf {
        self.group.folder().join(format!("{name}.hosts"))
    }

    /// The kubeconfig of a member; its authority lies beside it, see [`Relayed::authority`].
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.group.folder().join(format!("{name}.kubeconfig"))
    }

    /// Starts members, the first active and the others standing by when this returns.
    pub fn start(&mut self, cluster: &Cluster, names: &[&str]) -> Result<(Vec<Member>, Span)> {
        self.settle(names, |group, name| group.spawn(cluster, name, &[]))
    }

    /// The same, each in a PID namespace of its own.
    pub fn start_pid1(&mut self, cluster: &Cluster, names: &[&str]) -> Result<(Vec<Member>, Span)> {
        self.settle(names, |group, name| group.spawn_pid1(cluster, name))
    }

    /// Starts one after the other by `spawn`; the first active and the others standing by when this returns.
    pub fn settle(
        &mut self,
        names: &[&str],
        spawn: impl FnMut(&mut Self, &str) -> Result<Member>,
    ) -> Result<(Vec<Member>, Span)> {
        settle(self, names, spawn)
    }

    /// The Lease as it is.
    pub fn read(&self, cluster: &Cluster) -> Result<Value> {
        let text = cluster.kubectl(&["get", "lease", &self.lease, "-n", &self.namespace, "-o", "json"])?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Merges `patch` into the Lease by hand.
    pub fn patch(&self, cluster: &Cluster, patch: &Value) -> Result<()> {
        let text = patch.to_string();
        cluster.kubectl(&["patch", "lease", &self.lease, "-n", &self.namespace, "--type=merge", "-p", &text])?;
        Ok(())
    }
}

impl Placed for Pair {
    fn with_lease(lease: Duration) -> Result<Self> {
        Self::with(lease, |group, cluster| group.start(cluster, &["a", "b"]))
    }

    fn placed_pid1() -> Result<Self> {
        Self::start_pid1()
    }

    fn view(&self) -> View<'_> {
        View { relayed: &self.group, members: &self.members, active: &self.active }
    }

    fn holder(&self) -> Result<String> {
        let lease = self.group.read(&self.cluster)?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    }

    fn store(&self) -> &dyn Store {
        &self.cluster
    }
}
