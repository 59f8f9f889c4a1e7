//! The servers of a store are away for a while, for everybody.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::consul::Consul;
use crate::root::service;
use crate::wait::wait_until;

/// Longer than a server takes to come back and be found again.
pub const BACK: Duration = Duration::from_secs(30);

/// What members keep their lock in.
pub trait Store: Debug {
    /// Whether it answers.
    fn is_ready(&self) -> bool;
}

impl Store for Cluster {
    fn is_ready(&self) -> bool {
        self.kubectl(&["get", "--raw", "/readyz"]).is_ok()
    }
}

impl Store for Consul {
    fn is_ready(&self) -> bool {
        self.takes_writes()
    }
}

/// What is stopped and not started again by the test is started when this is dropped.
#[derive(Debug)]
pub struct Outage<'a> {
    store: &'a dyn Store,
    server: &'static str,
    verb: &'static str,
    is_over: bool,
}

impl<'a> Outage<'a> {
    /// Does `pause` or `kill` to one of the servers.
    pub fn begin(store: &'a dyn Store, verb: &str, server: &'static str) -> Result<Self> {
        service(verb, server)?;
        Ok(Self { store, server, verb: if verb == "pause" { "resume" } else { "start" }, is_over: false })
    }

    /// Brings it back, and waits until the store is ready.
    pub fn end(mut self) -> Result<()> {
        self.is_over = true;
        self.bring_back()
    }

    fn bring_back(&self) -> Result<()> {
        service(self.verb, self.server)?;
        wait_until("the store to be ready", BACK, || self.store.is_ready())
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.bring_back();
        }
    }
}
