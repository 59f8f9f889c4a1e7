//! The API server of the testbed: what an administrator prepares there.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// The namespace in which the testbed writes down every request.
pub const AUDITED: &str = "audited";

/// An administrator's access.
pub struct Cluster {
    kubectl: PathBuf,
    folder: PathBuf,
    server: String,
}

impl Cluster {
    /// The one that this runs beside.
    pub fn of_the_testbed() -> Result<Self> {
        let variable =
            |name: &str| std::env::var(name).context("no real API server is there: run this by make bench-lease");
        let cluster = Self {
            kubectl: variable("KUBECTL")?.into(),
            folder: variable("TESTBED_DIR")?.into(),
            server: variable("TESTBED_API")?,
        };
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
        Ok(cluster)
    }

    /// A Lease that nobody has used yet, so that the first member starts at once; as `--lock` names it.
    pub fn free_lease(&self, namespace: &str, name: &str) -> Result<String> {
        self.apply(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": namespace, "name": name, "annotations": {"soloist.dev/initial": "true"}},
        }))?;
        Ok(format!("kubernetes://{namespace}/{name}"))
    }

    /// Who has announced itself on a Lease.
    pub fn members(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Member {
            name: String,
        }
        let path = r"jsonpath={.metadata.annotations.soloist\.dev/members}";
        let text = self.kubectl(&["--namespace", namespace, "get", "lease", name, "--output", path], "")?;
        let members: Vec<Member> = match text.is_empty() {
            true => Vec::new(),
            false => serde_json::from_str(&text).context("failed to understand the members")?,
        };
        Ok(members.into_iter().map(|member| member.name).collect())
    }

    /// A service account with the documented role for one Lease; its kubeconfig.
    pub fn account(&self, name: &str, lease: &str) -> Result<PathBuf> {
        let metadata = json!({"namespace": AUDITED, "name": name});
        self.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))?;
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease],
                    "verbs": ["get", "watch", "update"]},
                {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            ],
        }))?;
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": AUDITED, "name": name}],
        }))?;
        let token = self.kubectl(&["--namespace", AUDITED, "create", "token", name], "")?;
        let authority = self.folder.join("pki/ca.crt");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": self.server, "certificate-authority": authority}}],
            "users": [{"name": "bench", "user": {"token": token.trim()}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench", "namespace": AUDITED}}],
        });
        let path = self.folder.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    /// Where every request in the namespace [`AUDITED`] is written down.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("logs/audit.log")
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl(&["apply", "--filename", "-"], &object.to_string()).map(|_| ())
    }

    fn kubectl(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to start {}", self.kubectl.display()))?;
        child.stdin.take().context("kubectl without input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output().context("failed to wait for kubectl")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {} failed: {}", words.join(" "), message.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
