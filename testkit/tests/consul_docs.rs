//! What the documents show of Consul is run, on a real one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::consul_lock::{LIMIT, Site};
use testkit::documents::{needs_consul, root, shown_lines};
use testkit::executable;
use testkit::group::binary;
use testkit::member::Member;
use testkit::service::Service;
use testkit::unit::Unit;
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

/// A host with the unit of the package and the file of the example.
struct Host(Child);

impl Host {
    fn start(folder: &Path, name: &str) -> Result<Self> {
        let unit = Unit::read(&root().join("packaging/soloist@.service"))?;
        let script = unit.script("db", &root().join("examples/host/db.env"))?;
        let installed = binary("soloist")?.display().to_string();
        let database = folder.join("db").display().to_string();
        // Two hosts have two names, and nobody waits for the lease of a first installation here.
        let script = format!("export SOLOIST_NAME={name} SOLOIST_LEASE=5s\n{script}")
            .replace("/usr/bin/soloist", &installed)
            .replace("/usr/local/bin/db", &database);
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::null()).stderr(log);
        Ok(Self(shell.spawn().context("failed to run a shell")?))
    }

    fn send(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.0.id().cast_signed()).context("its PID")?;
        kill_process(pid, signal).context("failed to send a signal")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.send(Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn two_hosts_with_the_file_of_the_example_are_one_group() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (told, database) = (folder.path().join("told"), folder.path().join("db"));
    let script = format!("#!/bin/sh\necho $SOLOIST_MEMBER $* >>{}\nexec sleep 1000\n", told.display());
    executable::write(&database, &script)?;
    let begun = |name: &str| {
        let line = format!("{name} --data /var/lib/db\n");
        wait_until(&format!("{name} to run the database"), LIMIT, || {
            fs::read_to_string(&told).is_ok_and(|told| told.ends_with(&line))
        })
    };
    let first = Host::start(folder.path(), "host-1")?;
    begun("host-1")?;
    let second = Host::start(folder.path(), "host-2")?;
    let stands_by =
        || fs::read_to_string(folder.path().join("host-2.log")).is_ok_and(|log| log.contains("standing by"));
    wait_until("host-2 to stand by", LIMIT, stands_by)?;
    first.send(Signal::TERM)?;
    begun("host-2")?;
    let told = fs::read_to_string(&told)?;
    ensure!(told.lines().count() == 2, "{told}");
    drop(second);
    Ok(())
}

#[test]
fn two_services_with_the_library_hand_over_without_a_wait() -> Result<()> {
    Service::hand_over("consul:///library")
}
