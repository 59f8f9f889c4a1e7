//! How a program finds an API server, and who it is there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// An API server, or what stands for it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub url: String,
    /// The file with the certificate of who vouches for it.
    pub authority: PathBuf,
}

impl Server {
    /// The testbed's, with nothing in between.
    pub fn of_testbed() -> Result<Self> {
        let url = testbed("TESTBED_API")?.into_string();
        let url = url.map_err(|url| anyhow::anyhow!("failed to understand TESTBED_API: {url:?}"))?;
        Ok(Self { url, authority: Path::new(&testbed("TESTBED_DIR")?).join("pki/ca.crt") })
    }

    /// Writes a kubeconfig for it, with `user` as the credentials: `{}`, or such as `{"tokenFile": PATH}`.
    pub fn write_kubeconfig(&self, path: &Path, user: &Value) -> Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "member",
            "clusters": [{"name": "testbed", "cluster": {"server": self.url, "certificate-authority": self.authority}}],
            "users": [{"name": "member", "user": user}],
            "contexts": [{"name": "member", "context": {"cluster": "testbed", "user": "member"}}],
        });
        fs::write(path, config.to_string()).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// What the testbed says in the environment.
pub(crate) fn testbed(variable: &str) -> Result<OsString> {
    std::env::var_os(variable).with_context(|| format!("{variable} is not set"))
}
