//! The floor for a container that runs anew: a process that is executed, connects, reads the Lease, writes it, and does
//! nothing else. The same client stack and records as soloist's.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use soloist::lock::Lock;
use soloist::lock::kubernetes::{Access, KubernetesLock, ObjectName, Witnesses};
use testkit::cluster::Cluster;
use testkit::stamp;

use super::{PERIOD, QUIET};
use crate::register::{released, written};

/// The Lease that is written.
const NAME: &str = "fresh";

/// What a run of the process needs.
pub struct Fresh;

impl Fresh {
    /// Makes its Lease.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        cluster.initial_lease(QUIET, NAME)?;
        Ok(Self)
    }

    /// Runs the process once. Nanoseconds from before it is executed until its write is answered.
    pub fn round(&self) -> Result<u64> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let began = stamp::now();
        let output = Command::new(own).arg("fresh").stderr(Stdio::inherit()).output().context("failed to run it")?;
        ensure!(output.status.success(), "it failed: {}", output.status);
        let ended: u64 = String::from_utf8(output.stdout)?.trim().parse().context("failed to read when it ended")?;
        Ok(ended.saturating_sub(began))
    }
}

/// What the process does: it says when its write was answered.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = ObjectName::lease(QUIET, NAME);
        let lock = KubernetesLock::open(Access::default(), place, PERIOD, Witnesses::OWN_CONTAINER).await?;
        let seen = lock.read().await?;
        written(lock.write(seen.version, &released(1), "raw").await)?;
        println!("{}", stamp::now());
        Ok(())
    })
}
