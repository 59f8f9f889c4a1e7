//! The testbed's kubectl, which is the administrator.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The program, and with it a cluster.
#[derive(Clone, Debug)]
pub struct Kubectl(PathBuf);

impl Kubectl {
    /// The one that the environment names, if it also has `variable`: else `cure` is what to do about it.
    pub fn find(variable: &str, cure: &str) -> Result<Self> {
        let program = std::env::var_os("KUBECTL").filter(|_| std::env::var_os(variable).is_some());
        Ok(Self(PathBuf::from(program.with_context(|| cure.to_owned())?)))
    }

    /// The program itself, for what runs on.
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }

    /// What it prints; fails if it does.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        self.run_with(words, "")
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = self.command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to run {}", self.0.display()))?;
        // Closed behind the input, so that kubectl finds its end.
        child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {} failed: {}", words.join(" "), message.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a manifest says, object by object.
    pub fn objects(&self, manifest: &Path) -> Result<Vec<Value>> {
        let path = manifest.display().to_string();
        let text = self.run(&["create", "--dry-run=client", "-o", "json", "-f", &path])?;
        let mut objects = Vec::new();
        for object in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            objects.extend(items(object?));
        }
        Ok(objects)
    }

    /// Creates or changes an object.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], &object.to_string()).map(drop)
    }

    /// A Lease that is free at first sight, as manifests bring it along.
    pub fn initial_lease(&self, namespace: &str, name: &str) -> Result<()> {
        let metadata = json!({"name": name, "namespace": namespace, "annotations": {"soloist.dev/initial": "true"}});
        self.apply(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}))
    }

    /// A ServiceAccount that may do what `rules` say in its namespace.
    pub fn grant(&self, namespace: &str, account: &str, rules: &Value) -> Result<()> {
        let metadata = json!({"name": account, "namespace": namespace});
        let group = "rbac.authorization.k8s.io";
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": rules},
            {"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]},
        ]}))
    }

    /// A new token of a ServiceAccount.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        Ok(self.run(&["create", "token", account, "-n", namespace])?.trim().to_owned())
    }
}

/// The objects of a list, or the object itself.
fn items(mut object: Value) -> Vec<Value> {
    match object["items"].take() {
        Value::Array(items) => items,
        _ => {
            // Asking for what is not there leaves a null behind.
            object.as_object_mut().map(|fields| fields.remove("items"));
            vec![object]
        }
    }
}
