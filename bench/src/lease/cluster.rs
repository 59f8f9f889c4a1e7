//! The API server of the testbed, and what the bench prepares there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use soloist::clock::unix_us;
use soloist::lock::board::ANNOUNCEMENT_LIFE;
use soloist::snapshot::Announcement;
use testkit::cluster::Cluster;

/// The namespace in which the testbed writes down every request.
pub const AUDITED: &str = "audited";

/// The namespace for everything else.
pub const QUIET: &str = "default";

/// A service account with the documented role for one Lease in [`AUDITED`]; its kubeconfig.
pub fn account(cluster: &Cluster, name: &str, lease: &str) -> Result<PathBuf> {
    cluster.account(AUDITED, name, lease, &["get", "watch", "update"])?;
    let token = cluster.token(AUDITED, name)?;
    let folder = testbed("TESTBED_DIR")?;
    let authority = folder.join("pki/ca.crt");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {
            "server": testbed("TESTBED_API")?, "certificate-authority": authority,
        }}],
        "users": [{"name": "bench", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": AUDITED}}],
    });
    let path = folder.join(format!("{name}.kubeconfig"));
    std::fs::write(&path, config.to_string()).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// Who has announced itself on a Lease, as long as that counts.
pub fn members(cluster: &Cluster, namespace: &str, lease: &str) -> Result<Vec<String>> {
    let path = r"jsonpath={.metadata.annotations.soloist\.dev/members}";
    let text = cluster.kubectl(&["--namespace", namespace, "get", "lease", lease, "--output", path])?;
    let members: Vec<Announcement> = match text.is_empty() {
        true => Vec::new(),
        false => serde_json::from_str(&text).context("failed to understand the members")?,
    };
    let since_ms = |then: u64| Duration::from_millis((unix_us() / 1000).saturating_sub(then));
    let counts = |member: &Announcement| since_ms(member.at_unix_ms) < ANNOUNCEMENT_LIFE;
    Ok(members.into_iter().filter(counts).map(|member| member.name).collect())
}

/// Where every request in the namespace [`AUDITED`] is written down.
pub fn audit_log() -> Result<PathBuf> {
    Ok(testbed("TESTBED_DIR")?.join("logs/audit.log"))
}

fn testbed(variable: &str) -> Result<PathBuf> {
    Ok(std::env::var_os(variable).with_context(|| format!("{variable} is not set"))?.into())
}
