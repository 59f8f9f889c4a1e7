//! The testbed's kubectl, which is the administrator.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

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
}
