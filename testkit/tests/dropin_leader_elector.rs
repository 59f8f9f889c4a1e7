//! Called as leader-elector, as far as no API server is needed.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use testkit::group::binary;
use testkit::leader_elector::DropIn;

fn run(dropin: &DropIn, called: &str, flags: &[&str]) -> Result<Output> {
    dropin.command(called, flags, None).output().context("failed to run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends as glog's Fatal does, with a line that says this.
fn fatal(output: &Output, message: &str) -> Result<()> {
    let log = stderr(output);
    ensure!(output.status.code() == Some(255), "{:?}\n{log}", output.status);
    let last = log.lines().last().unwrap_or_default();
    ensure!(last.starts_with('F') && last.contains("] ") && last.contains(message), "{message} is not in {last}");
    Ok(())
}

/// A cluster whose API server nobody reaches.
fn nowhere(dropin: &DropIn) -> Result<PathBuf> {
    let path = dropin.folder().join("config");
    let text = "{apiVersion: v1, kind: Config, current-context: a, users: [{name: u, user: {token: t}}],
        clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}],
        contexts: [{name: a, context: {cluster: c, user: u}}]}";
    fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn an_election_is_needed_whatever_it_is_called() -> Result<()> {
    let dropin = DropIn::new()?;
    for called in ["leader-elector", "server"] {
        fatal(&run(&dropin, called, &["--http=0.0.0.0:4040"])?, "] --election cannot be empty")?;
        fatal(&run(&dropin, called, &["--id="])?, "] --id cannot be empty")?;
    }
    let output = Command::new(binary("soloist")?).arg("leader-elector").output()?;
    fatal(&output, "] --election cannot be empty")
}

#[test]
fn flags_that_cannot_be_read_end_it_with_2_and_the_usage() -> Result<()> {
    let dropin = DropIn::new()?;
    for (flags, message) in [
        (&["--election=e", "--port=1"][..], "unknown flag: --port"),
        (&["--election=e", "--lock-kind=x"], "invalid argument \"x\" for --lock-kind"),
        (&["--help"], ""),
    ] {
        let output = run(&dropin, "server", flags)?;
        let text = stderr(&output);
        ensure!(output.status.code() == Some(2), "{output:?}");
        ensure!(text.starts_with(message) && text.contains("Usage of elector --election=<name>"), "{text}");
    }
    Ok(())
}

#[test]
fn what_will_never_work_is_fatal_at_the_start() -> Result<()> {
    let dropin = DropIn::new()?;
    let at = |flags: &[&str]| run(&dropin, "server", &[&["--election=e", "--id=a"], flags].concat());
    fatal(&at(&["--ttl=3s"])?, "--ttl 3s")?;
    fatal(&at(&["--use-cluster-credentials"])?, "/var/run/secrets/kubernetes.io/serviceaccount")?;
    let held = TcpListener::bind("127.0.0.1:0")?;
    let http = format!("--http={}", held.local_addr()?);
    fatal(&at(&[&http])?, "Address already in use")
}

#[test]
fn an_api_server_that_is_away_is_waited_for_and_nobody_is_named_meanwhile() -> Result<()> {
    let dropin = DropIn::new()?;
    let elector = dropin.start("a", &["--election=e", "--initial-wait=true"], Some(&nowhere(&dropin)?))?;
    for path in ["/", "/any/path?x=y"] {
        ensure!(elector.ask(path)? == r#"{"name":""}"#, "{path}");
    }
    ensure!(elector.ask("/isLeader")? == r#"{"isLeader": false}"#);
    ensure!(elector.log().contains("] --initial-wait has no meaning and is ignored"), "{}", elector.log());
    ensure!(elector.out().is_empty(), "nothing is known: {}", elector.out());
    elector.terminate()
}
