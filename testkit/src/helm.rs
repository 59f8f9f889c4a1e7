//! The chart, and the program that installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::documents::root;
use crate::kubectl::Kubectl;

/// Values with which each mode is whole: the pods that the manifests in `examples/` have.
pub const MODES: [(&str, &str); 4] = [
    ("gatekeeper", r#"{"application": {"image": "registry.example/my-app:1", "command": ["my-app"]}}"#),
    ("sidecar", r#"{"application": {"image": "registry.example/my-app:1", "args": ["--port=8080"]}}"#),
    ("controller", r#"{"controller": {"selector": "app=hapod", "critical": ["main"]}}"#),
    ("controller", r#"{"controller": {"declared": true}}"#),
];

/// The chart of this repository, as one release.
#[derive(Clone, Debug)]
pub struct Chart {
    helm: PathBuf,
    chart: PathBuf,
    namespace: String,
    release: String,
}

impl Chart {
    /// A release that is not there yet.
    ///
    /// # Errors
    /// There is no helm.
    pub fn new(namespace: &str, release: &str) -> Result<Self> {
        let helm = std::env::var_os("HELM").context("HELM is not set: make cluster")?;
        let chart = root().join("charts/soloist");
        Ok(Self { helm: helm.into(), chart, namespace: namespace.to_owned(), release: release.to_owned() })
    }

    /// The same of another chart.
    #[must_use]
    pub fn at(&self, chart: &Path) -> Self {
        Self { chart: chart.to_owned(), ..self.clone() }
    }

    /// Runs one of `install`, `upgrade`, `template` with these values; what it printed, or why not.
    pub fn helm(&self, verb: &str, values: &Value, options: &[&str]) -> Result<String> {
        let file = tempfile::Builder::new().suffix(".json").tempfile()?;
        std::fs::write(file.path(), values.to_string())?;
        let mut command = Command::new(&self.helm);
        command.arg(verb).args((verb != "lint").then_some(&self.release)).arg(&self.chart);
        command.args(["--namespace", &self.namespace, "--values"]).arg(file.path()).args(options);
        self.output(command)
    }

    /// Takes it away, as users do: its Lease stays.
    pub fn uninstall(&self) -> Result<()> {
        let mut command = Command::new(&self.helm);
        command.args(["uninstall", &self.release, "--namespace", &self.namespace, "--wait"]);
        self.output(command).map(drop)
    }

    /// Takes it away, with all that belongs to it.
    pub fn remove(&self, kubectl: &Kubectl) -> Result<()> {
        self.uninstall()?;
        let selector = format!("app.kubernetes.io/instance={}", self.release);
        kubectl.run(&["--namespace", &self.namespace, "delete", "lease", "--selector", &selector]).map(drop)
    }

    /// What would be installed, object by object.
    pub fn objects(&self, kubectl: &Kubectl, values: &Value) -> Result<Vec<Value>> {
        let file = tempfile::Builder::new().suffix(".yml").tempfile()?;
        std::fs::write(file.path(), self.helm("template", values, &[])?)?;
        kubectl.objects(file.path())
    }

    fn output(&self, mut command: Command) -> Result<String> {
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {command:?}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{}{said}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }
}

/// The values of a mode with more of them.
pub fn values(number: usize, more: &Value) -> Result<Value> {
    let (mode, text) = MODES[number];
    let mut values: Value = serde_json::from_str(text)?;
    values["mode"] = mode.into();
    merge(&mut values, more);
    Ok(values)
}

fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (key, value) in more {
                merge(values.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (values, more) => *values = more.clone(),
    }
}
