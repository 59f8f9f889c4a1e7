//! What the documents show of Consul is run, on a real one.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use testkit::consul_lock::{LIMIT, Site};
use testkit::documents::{needs_consul, shown_lines};
use testkit::group::binary;
use testkit::member::Member;
use testkit::wait::wait_until;

fn run(line: &str) -> Result<Output> {
    let programs = binary("soloist")?.parent().map(Path::to_owned).context("no folder")?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    let mut shell = Command::new("timeout");
    shell.args(["--signal=TERM", "8", "sh", "-c", &format!("exec {line}")]).env("PATH", path).stdin(Stdio::null());
    shell.output().context("failed to run a shell")
}

#[test]
fn every_command_of_the_documents_for_consul_works() -> Result<()> {
    let shown: Vec<_> = shown_lines().into_iter().filter(|(_, line)| needs_consul(line)).collect();
    ensure!(shown.len() >= 2, "{shown:?}");
    // Shown for a Consul on this host, which is where it is; the prefix is the one that is shown.
    let mut site = Site::at("app")?;
    site.group.set("--group", "app");
    let member = Member::spawn(&site.group, "a", &[], &[])?;
    member.wait_active(&site.group, LIMIT)?;
    let second = Member::spawn(&site.group, "b", &[], &[])?;
    second.wait_standby(LIMIT)?;
    for (document, line) in shown {
        let told = || format!("{document}: {line}");
        if line.starts_with("soloist run") {
            let output = run(&line.replace("soloist run", "soloist run --name shown"))?;
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(log.contains("standing by"), "{}: {log}", told());
            continue;
        }
        wait_until(&told(), LIMIT, || run(&line).is_ok_and(|output| output.status.success()))?;
    }
    site.check(1)
}
