//! How a contender reaches the API server: as a kubeconfig, and as what a container finds in itself.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::kubeconfig::Server;
use testkit::relay::Relay;

/// One way to the API server, with a token.
pub struct Access {
    folder: TempDir,
    address: SocketAddr,
}

impl Access {
    /// Straight to it.
    pub fn direct(namespace: &str, token: &str) -> Result<Self> {
        let Server { url, authority } = Server::of_testbed()?;
        let address = url.strip_prefix("https://").and_then(|rest| rest.parse().ok());
        let address = address.with_context(|| format!("failed to understand TESTBED_API: {url:?}"))?;
        Self::new(address, &fs::read(authority).context("no authority")?, namespace, token)
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
        let server = Server { url: format!("https://{address}"), authority: path("ca.crt") };
        server.write_kubeconfig(&path("kubeconfig"), &json!({"tokenFile": path("token")}))?;
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
    /// What must stay as long as somebody reads it.
    pub fn into_folder(self) -> TempDir {
        self.folder
    }
}
