//! One member of a contender, as PID 1 of namespaces of its own.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;
use testkit::lease_group;
use testkit::process::{self, Process};
use testkit::wait::wait_for;

use crate::footprint::pss_of;
use crate::steps::LIMIT;

/// A member at work; everything of it ends when it is dropped.
pub struct Member {
    /// Outside the namespaces.
    outer: Child,
}

impl Member {
    /// Starts it. What it says goes to `log`.
    pub fn start(words: &[OsString], log: &Path) -> Result<Self> {
        let [program, arguments @ ..] = lease_group::NAMESPACE;
        let log = File::create(log)?;
        let outer = Command::new(program)
            .args(arguments)
            .arg("--kill-child")
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("failed to start a member")?;
        Ok(Self { outer })
    }

    /// Its first process.
    fn first(&self) -> Result<Process> {
        let own = i32::try_from(self.outer.id())?;
        let find = || process::tree(own).into_iter().find(|process| process.parent == own);
        wait_for("the first process", LIMIT, find)
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.first()?.pid, signal)
    }

    /// Kills the command that it runs.
    pub fn crash_command(&self, workload: &str) -> Result<()> {
        let first = self.first()?.pid;
        let command = process::tree(first).into_iter().find(|process| process.called() == workload);
        process::signal(command.context("its command does not run")?.pid, Signal::KILL)
    }

    /// What its own processes keep in memory, without its command.
    pub fn pss_kb(&self, workload: &str) -> Result<u64> {
        let own = process::tree(self.first()?.pid).into_iter().filter(|process| process.called() != workload);
        own.map(|process| pss_of(process.pid)).sum()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its first process gets SIGKILL then, and everything in the namespace ends with that, also what is stopped.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}
