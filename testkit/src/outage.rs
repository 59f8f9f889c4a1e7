//! The API server or its store is away for a while, for everybody.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::wait::wait_until;

/// Longer than a server takes to come back and be found again.
pub const BACK: Duration = Duration::from_secs(30);

/// What is stopped and not started again by the test is started when this is dropped.
#[derive(Debug)]
pub struct Outage<'a> {
    cluster: &'a Cluster,
    server: &'static str,
    verb: &'static str,
    is_over: bool,
}

impl<'a> Outage<'a> {
    /// Does `pause` or `kill` to one of the servers.
    pub fn begin(cluster: &'a Cluster, verb: &str, server: &'static str) -> Result<Self> {
        cluster.service(verb, server)?;
        Ok(Self { cluster, server, verb: if verb == "pause" { "resume" } else { "start" }, is_over: false })
    }

    /// Brings it back, and waits until the API server is ready.
    pub fn end(mut self) -> Result<()> {
        self.is_over = true;
        self.bring_back()
    }

    fn bring_back(&self) -> Result<()> {
        self.cluster.service(self.verb, self.server)?;
        wait_until("the API server to be ready", BACK, || self.cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok())
    }
}

impl Drop for Outage<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.bring_back();
        }
    }
}
