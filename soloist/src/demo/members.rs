//! The three members of the demo: real processes of this very binary.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ends::End;
use super::watch::{Active, socket};
use crate::workload::guard;
use crate::workload::process::children_of;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a member gets to leave at the end.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// The group at work.
pub(super) struct Members {
    folder: PathBuf,
    lease: Duration,
    running: Vec<(&'static str, Child)>,
}

impl Members {
    pub fn start(folder: &Path, lease: Duration) -> Result<Self> {
        let mut members = Self { folder: folder.to_owned(), lease, running: Vec::new() };
        for name in NAMES {
            let child = members.spawn(name)?;
            members.running.push((name, child));
        }
        Ok(members)
    }

    fn spawn(&self, name: &str) -> Result<Child> {
        let program = std::env::current_exe().context("failed to find the own binary")?;
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let mut command = Command::new(&program);
        command.arg("run").arg("--lock").arg(self.folder.join("demo.lock"));
        command.args(["--name", name, "--stop-grace", "2s", "--lease"]).arg(format!("{}ms", self.lease.as_millis()));
        command.arg("--http").arg(format!("unix:{}", socket(&self.folder, name).display()));
        command.arg("--").arg(&program).arg("demo-server").arg(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("failed to start member {name}"))
    }

    /// Ends the active member; returns the time just before.
    pub fn end(&mut self, active: &Active, end: End) -> Result<Timestamp> {
        let member = self.running.iter().find(|(name, _)| *name == active.member);
        let (_, child) = member.with_context(|| format!("failed to find member {}", active.member))?;
        let elector = Pid::from_raw(child.id().cast_signed());
        // Looked up first, so that nothing slow lies between the instant and the signal.
        let guard = guard_of(elector.as_raw()).context("failed to find the guard")?;
        let event = Timestamp::now();
        match end {
            End::Term => kill(elector, Signal::SIGTERM),
            End::Crash => kill(Pid::from_raw(active.pid), Signal::SIGABRT),
            End::ElectorKilled => kill(elector, Signal::SIGKILL),
            End::GuardKilled => kill(Pid::from_raw(guard), Signal::SIGKILL),
            End::ElectorStopped => kill(elector, Signal::SIGSTOP),
        }
        .with_context(|| format!("failed to end {}", active.member))?;
        Ok(event)
    }

    /// Puts the member that was ended in this way back: continues it, or starts it again once it has left.
    pub fn repair(&mut self, ended: &str, end: End) -> Result<()> {
        let place = self.running.iter().position(|(name, _)| *name == ended);
        let place = place.with_context(|| format!("failed to find member {ended}"))?;
        let (name, child) = &mut self.running[place];
        match end {
            End::ElectorStopped => {
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGCONT);
            }
            // It stands by again by itself.
            End::GuardKilled => {}
            // The next one may be active before this one has quite left.
            End::Term | End::Crash | End::ElectorKilled => wait_for_end(child, Instant::now() + LEAVE_LIMIT),
        }
        // Also an elector that was stopped in the middle of a write: its guard kills it, for it holds up the others.
        if !matches!(child.try_wait(), Ok(None)) {
            let name = *name;
            self.running[place].1 = self.spawn(name)?;
        }
        Ok(())
    }

    /// Asks all to leave, standbys first, and waits for them.
    pub fn stop(&mut self) {
        for (_, child) in &self.running {
            let pid = Pid::from_raw(child.id().cast_signed());
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGTERM);
        }
        let limit = Instant::now() + LEAVE_LIMIT;
        for (_, child) in &mut self.running {
            wait_for_end(child, limit);
            if matches!(child.try_wait(), Ok(None)) {
                // Its guard ends the workload.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        self.running.clear();
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The child that runs under the guard's name.
fn guard_of(elector: i32) -> Option<i32> {
    children_of(elector).into_iter().find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(guard::NAME.as_bytes()))
    })
}

fn wait_for_end(child: &mut Child, limit: Instant) {
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(5));
    }
}
