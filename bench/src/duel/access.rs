//! How a contender reaches the API server: as a kubeconfig, and as what a container finds in itself.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::relay::Relay;

/// One way to the API server, with a token.
pub struct Access {
    folder: TempDir,
    address: SocketAddr,
}

impl Access {
    /// Straight to it.
    pub fn direct(namespace: &str, token: &str) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let api = variable("TESTBED_API")?;
        let address = api.strip_prefix("https://").and_then(|rest| rest.parse().ok());
        let address = address.with_context(|| format!("failed to understand TESTBED_API: {api:?}"))?;
        let trusted = fs::read(Path::new(&variable("TESTBED_DIR")?).join("pki/ca.crt")).context("no authority")?;
        Self::new(address, &trusted, namespace, token)
    }

    /// By a relay of its own, which can become a black hole.
    pub fn relayed(cluster: &Cluster, namespace: &str, token: &str) -> Result<(Self, Relay)> {
        let relay = cluster.relay(false)?;
        Ok((Self::new(relay.address(), relay.authority().as_bytes(), namespace, token)?, relay))
    }

    fn new(address: SocketAddr, trusted: &[u8], namespace: &str, token: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ca.crt"), trusted)?;
        fs::write(path("token"), token)?;
        fs::write(path("namespace"), namespace)?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "duel",
            "clusters": [{"name": "duel", "cluster": {
                "server": format!("https://{address}"), "certificate-authority": path("ca.crt"),
            }}],
            "users": [{"name": "duel", "user": {"tokenFile": path("token")}}],
            "contexts": [{"name": "duel", "context": {"cluster": "duel", "user": "duel"}}],
        });
        fs::write(path("kubeconfig"), config.to_string())?;
        Ok(Self { folder, address })
    }

    /// For programs that read one.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// What is mounted for programs that only run in a cluster.
    pub fn mounted(&self) -> &Path {
        self.folder.path()
    }

    /// The host and the port that a container finds in its environment.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
