//! The servers of a store are away for a while, for everybody.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::consul::Consul;
use crate::root::{run, service};
use crate::wait::wait_until;

/// Longer than a server takes to come back and be found again.
pub const BACK: Duration = Duration::from_secs(30);

/// What members keep their lock in.
pub trait Store: Debug {
    /// Whether it answers.
    fn is_ready(&self) -> bool;

    /// Makes a backup there.
    fn keep(&self, backup: &Path) -> Result<()>;

    /// Puts it back, and waits until the store is ready.
    fn put_back(&self, backup: &Path) -> Result<()>;
}

impl Store for Cluster {
    fn is_ready(&self) -> bool {
        self.kubectl(&["get", "--raw", "/readyz"]).is_ok()
    }

    fn keep(&self, backup: &Path) -> Result<()> {
        let etcd = Outage::begin(self, "pause", "etcd")?;
        let copied = run(&["cp".as_ref(), "-a".as_ref(), etcd_data()?.as_os_str(), backup.as_os_str()]);
        etcd.end()?;
        copied
    }

    /// The API server remembers what etcd has forgotten, so it starts anew as well.
    fn put_back(&self, backup: &Path) -> Result<()> {
        for server in ["kube-apiserver", "etcd"] {
            service("kill", server)?;
        }
        let data = etcd_data()?;
        fs::remove_dir_all(&data).context("failed to remove what etcd had stored")?;
        run(&["cp".as_ref(), "-a".as_ref(), backup.as_os_str(), data.as_os_str()])?;
        for server in ["etcd", "kube-apiserver"] {
            service("start", server)?;
        }
        wait_until("the API server", BACK, || self.is_ready())
    }
}

fn etcd_data() -> Result<PathBuf> {
    Ok(PathBuf::from(std::env::var_os("TESTBED_DIR").context("no TESTBED_DIR")?).join("etcd"))
}

impl Store for Consul {
    fn is_ready(&self) -> bool {
        self.takes_writes()
    }

    fn keep(&self, backup: &Path) -> Result<()> {
        self.snapshot("save", backup)
    }

    fn put_back(&self, backup: &Path) -> Result<()> {
        self.snapshot("restore", backup)
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
