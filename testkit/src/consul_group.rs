//! A group on a key of the testbed's Consul: each member reaches it through a relay of its own, with TLS.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::consul::{Consul, Entry};
use crate::history::Span;
use crate::member::Member;
use crate::outage::Store;
use crate::relayed::{LEASE, NAMESPACE, Placed, Relayed, View, settle};

/// Members that share a key.
#[derive(Debug)]
pub struct ConsulGroup {
    /// What the names of its keys begin with.
    pub prefix: String,
    relayed: Relayed,
}

impl Deref for ConsulGroup {
    type Target = Relayed;

    fn deref(&self) -> &Relayed {
        &self.relayed
    }
}

impl DerefMut for ConsulGroup {
    fn deref_mut(&mut self) -> &mut Relayed {
        &mut self.relayed
    }
}

impl AsRef<Relayed> for ConsulGroup {
    fn as_ref(&self) -> &Relayed {
        &self.relayed
    }
}

/// What differs from one member to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// What is put before its command.
    pub wrapper: &'a [&'a str],
    /// More options.
    pub options: &'a [&'a str],
    /// More variables of its environment.
    pub variables: &'a [(&'a str, &'a str)],
}

impl ConsulGroup {
    /// A group with a short lease and a key that nobody has used.
    pub fn new(consul: &Consul) -> Result<Self> {
        Self::with_lease(consul, LEASE)
    }

    /// A group with another lease.
    pub fn with_lease(consul: &Consul, lease: Duration) -> Result<Self> {
        Ok(Self { prefix: consul.prefix(), relayed: Relayed::new(lease)? })
    }

    /// Makes the relay of a member that is not started yet.
    pub fn add_relay(&mut self, consul: &Consul, name: &str) -> Result<()> {
        let relay = consul.relay()?;
        fs::write(self.authority(name), relay.authority()).context("failed to write an authority")?;
        self.insert(name, vec![relay]);
        Ok(())
    }

    /// Starts a member behind a relay of its own.
    pub fn spawn(&mut self, consul: &Consul, name: &str, choice: Choice<'_>) -> Result<Member> {
        if !self.has_relay(name) {
            self.add_relay(consul, name)?;
        }
        let lock = format!("consuls://{}/{}", self.relay(name)?.address(), self.prefix);
        self.group.set_lock_url(&lock);
        let mut starter = self.group.member(name).wrapper(choice.wrapper).options(choice.options);
        starter = starter.variable("CONSUL_CACERT", self.authority(name));
        for (name, value) in choice.variables {
            starter = starter.variable(name, value);
        }
        starter.probe::<&str>(&[])
    }

    /// Starts members, the first active and the others standing by when this returns.
    pub fn start(&mut self, consul: &Consul, names: &[&str]) -> Result<(Vec<Member>, Span)> {
        settle(self, names, |group, name| group.spawn(consul, name, Choice::default()))
    }

    /// The lock's key, which must be there.
    pub fn entry(&self, consul: &Consul) -> Result<Entry> {
        consul.lock(&self.prefix)?.context("the key is gone")
    }
}

/// Two members in their places: `a` active, `b` standing by.
#[derive(Debug)]
pub struct Pair {
    /// Where the key is.
    pub consul: Consul,
    /// The group.
    pub group: ConsulGroup,
    /// `a` and `b`.
    pub members: Vec<Member>,
    /// What `a` runs.
    pub active: Span,
}

impl Pair {
    /// By `start`.
    pub fn by(start: impl FnOnce(&mut ConsulGroup, &Consul) -> Result<(Vec<Member>, Span)>) -> Result<Self> {
        Self::on(Consul::connect()?, LEASE, start)
    }

    /// The same where the Consul is another one, and with this lease.
    pub fn on(
        consul: Consul,
        lease: Duration,
        start: impl FnOnce(&mut ConsulGroup, &Consul) -> Result<(Vec<Member>, Span)>,
    ) -> Result<Self> {
        let mut group = ConsulGroup::with_lease(&consul, lease)?;
        let (members, active) = start(&mut group, &consul)?;
        Ok(Self { consul, group, members, active })
    }
}

impl Placed for Pair {
    fn with_lease(lease: Duration) -> Result<Self> {
        Self::on(Consul::connect()?, lease, |group, consul| group.start(consul, &["a", "b"]))
    }

    fn placed_pid1() -> Result<Self> {
        let choice = Choice { wrapper: &NAMESPACE, ..Choice::default() };
        Self::by(|group, consul| settle(group, &["a", "b"], |group, name| group.spawn(consul, name, choice)))
    }

    fn view(&self) -> View<'_> {
        View { relayed: &self.group, members: &self.members, active: &self.active }
    }

    fn holder(&self) -> Result<String> {
        let record = self.group.entry(&self.consul)?.json();
        Ok(record["claim"]["member"]["name"].as_str().unwrap_or_default().to_owned())
    }

    fn store(&self) -> &dyn Store {
        &self.consul
    }
}
