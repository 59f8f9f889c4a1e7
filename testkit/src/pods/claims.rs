//! Which pods' sidecars say that their own pod leads, each asked a thousand times a second.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::answers::{Manner, Sampler, Turn};

/// Where leader-elector answers.
const PORT: u16 = 4040;

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Claims {
    /// The node that is asked from.
    node: String,
    samplers: BTreeMap<String, Sampler>,
}

impl Claims {
    /// Asks nobody yet.
    pub fn from(node: &str) -> Self {
        Self { node: node.to_owned(), samplers: BTreeMap::new() }
    }

    /// Asks this pod as well from now on.
    pub fn add(&mut self, pod: &str, address: IpAddr) -> Result<()> {
        let sampler = Sampler::start(&self.node, SocketAddr::new(address, PORT), Manner::Leader)?;
        self.samplers.insert(pod.to_owned(), sampler);
        Ok(())
    }

    /// When this pod said so, of what was asked from `since` on.
    pub fn turn(&self, pod: &str, since: u64) -> Option<Turn> {
        self.samplers.get(pod)?.turn(pod, since)
    }

    /// How long nobody said so from `since` on, when it went from `old` to `new`; fails if a third one said so, or two at
    /// once did.
    pub fn handover(&self, since: u64, old: &str, new: &str) -> Result<Duration> {
        let third =
            self.samplers.keys().find(|pod| ![old, new].contains(&pod.as_str()) && self.turn(pod, since).is_some());
        ensure!(third.is_none(), "{third:?} said that it leads, between {old} and {new}");
        let entered = self.turn(new, since).with_context(|| format!("{new} does not say that it leads"))?;
        match self.turn(old, since).filter(|_| old != new) {
            Some(left) => left.until(&entered).with_context(|| format!("{old} {left:?} and {new} {entered:?}")),
            None => Ok(Duration::ZERO),
        }
    }
}
