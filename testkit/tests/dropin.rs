//! Called as k8s-await-election, as far as no API server is needed.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::group::binary;

/// The binary under the other program's name, in a folder of its own.
struct DropIn {
    folder: TempDir,
}

impl DropIn {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        symlink(binary("soloist")?, folder.path().join("k8s-await-election")).context("failed to link")?;
        Ok(Self { folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("k8s-await-election")
    }

    /// Called with these variables and no other ones of it.
    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.path());
        command.args(arguments).stdin(Stdio::null());
        for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
            command.env_remove(name);
        }
        for (name, value) in variables {
            let name = if name.starts_with("KUBE") { (*name).to_owned() } else { format!("K8S_AWAIT_ELECTION_{name}") };
            command.env(name, value);
        }
        command
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
        self.command(arguments, variables).output().context("failed to run")
    }

    /// A cluster whose API server nobody reaches.
    fn kubeconfig(&self) -> Result<String> {
        let path = self.folder.path().join("config");
        let text = "{apiVersion: v1, kind: Config, current-context: a, users: [{name: u, user: {token: t}}],
            clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'}}],
            contexts: [{name: a, context: {cluster: c, user: u}}]}";
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

const WANTED: [(&str, &str); 5] =
    [("ENABLED", "1"), ("NAME", "n"), ("LOCK_NAME", "l"), ("LOCK_NAMESPACE", "default"), ("IDENTITY", "a")];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends with 1 and a fatal line that says this.
fn refused(output: &Output, message: &str) -> Result<()> {
    let log = text(&output.stderr);
    ensure!(output.status.code() == Some(1), "{:?}\n{log}", output.status);
    let last = log.lines().last().unwrap_or_default();
    ensure!(last.contains(" level=fatal ") && last.contains(message), "{message} is not in {last}");
    Ok(())
}

#[test]
fn without_an_election_it_becomes_the_command() -> Result<()> {
    let dropin = DropIn::new()?;
    for enabled in [&[][..], &[("ENABLED", "")][..]] {
        // The command finds its own PID to be that of the process that was started, and standard input as it was.
        let script = "echo $$ \"$@\"; cat; exit 7";
        let mut child = dropin
            .command(&["sh", "-c", script, "x", "a b", "--c"], enabled)
            .stdin(fs::File::open("/proc/self/comm")?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        let read = std::io::read_to_string(child.stdout.take().context("no output")?)?;
        let status = child.wait()?;
        ensure!(status.code() == Some(7), "{status}");
        let (first, rest) = read.split_once('\n').context("no line")?;
        ensure!(first == format!("{pid} a b --c"), "{first}");
        ensure!(!rest.is_empty(), "nothing came through standard input");
    }
    Ok(())
}

#[test]
fn without_an_election_a_signal_reaches_the_command_alone() -> Result<()> {
    let dropin = DropIn::new()?;
    let mut child = dropin.command(&["sleep", "1000"], &[]).stderr(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id())?;
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    testkit::wait::wait_until("the command", std::time::Duration::from_secs(10), || name() == "sleep\n")?;
    child.kill()?;
    ensure!(child.wait()?.code().is_none(), "killed by the signal itself");
    Ok(())
}

#[test]
fn a_command_that_cannot_be_executed_is_fatal() -> Result<()> {
    let dropin = DropIn::new()?;
    for command in ["no-such-command-anywhere", "/no/such/file", "--help", ""] {
        refused(&dropin.run(&[command], &[])?, "failed to run")?;
    }
    Ok(())
}

#[test]
fn a_command_is_needed() -> Result<()> {
    let dropin = DropIn::new()?;
    for variables in [&[][..], &WANTED[..]] {
        let output = dropin.run(&[], variables)?;
        refused(&output, "Need at least one argument to run")?;
        ensure!(text(&output.stderr).contains("msg=\"running k8s-await-election\" version="));
    }
    Ok(())
}

#[test]
fn what_is_missing_is_named_first_and_ends_with_1() -> Result<()> {
    let dropin = DropIn::new()?;
    for (at, (name, _)) in WANTED.iter().enumerate().skip(1) {
        let output = dropin.run(&["true"], &WANTED[..at])?;
        let full = format!("K8S_AWAIT_ELECTION_{name}");
        refused(&output, &format!("config: missing required environment variable: '{full}'"))?;
        refused(&output, "msg=\"failed to create runner\"")?;
    }
    Ok(())
}

#[test]
fn it_needs_a_cluster() -> Result<()> {
    let dropin = DropIn::new()?;
    refused(&dropin.run(&["true"], &WANTED)?, "failed to read cluster config")?;
    let mut variables = WANTED.to_vec();
    variables.extend([("KUBERNETES_SERVICE_HOST", "192.0.2.1"), ("KUBERNETES_SERVICE_PORT", "443")]);
    refused(&dropin.run(&["true"], &variables)?, "/var/run/secrets/kubernetes.io/serviceaccount")
}

#[test]
fn a_status_port_in_use_ends_it() -> Result<()> {
    let dropin = DropIn::new()?;
    let held = TcpListener::bind("127.0.0.1:0")?;
    let (address, kubeconfig) = (held.local_addr()?.to_string(), dropin.kubeconfig()?);
    let mut variables = WANTED.to_vec();
    variables.extend([("STATUS_ENDPOINT", address.as_str()), ("KUBECONFIG", kubeconfig.as_str())]);
    refused(&dropin.run(&["true"], &variables)?, "Address already in use")
}

#[test]
fn relations_of_durations_are_checked_as_of_old() -> Result<()> {
    let dropin = DropIn::new()?;
    let mut variables = WANTED.to_vec();
    variables.push(("LEASE_DURATION", "10"));
    refused(&dropin.run(&["true"], &variables)?, "failed to create leader elector")
}

#[test]
fn the_verb_does_the_same_as_the_name() -> Result<()> {
    let output = Command::new(binary("soloist")?).args(["k8s-await-election", "sh", "-c", "exit 7"]).output()?;
    ensure!(output.status.code() == Some(7), "{output:?}");
    let output = Command::new(binary("soloist")?).args(["k8s-await-election", "--version"]).output()?;
    refused(&output, "failed to run")
}
