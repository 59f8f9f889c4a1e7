//! Handovers of util-linux `flock`: three of `flock LOCK -c COMMAND`, one of which has the lock.
//!
//! It promises less: nothing is written down, so there is no fencing token and nobody knows who is active; what the
//! command has forked keeps the lock, or goes on without it if it closed the descriptor; a `flock` that is killed leaves its
//! command running unwatched; and one that hangs is waited for without end.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use testkit::group::{Group, MARK};
use testkit::{process, stamp, wait};

use crate::beat;
use crate::steps::{Gap, LIMIT, SETTLE, is_asleep};

/// Three of them. The group that lends its folder also kills what is left of them.
pub struct Flocks {
    page: TempDir,
    lock: PathBuf,
    mark: PathBuf,
    children: Vec<Child>,
    last: u64,
}

impl Flocks {
    /// Starts three, with the lock in the group's folder.
    pub fn start(group: &Group) -> Result<Self> {
        let page = tempfile::tempdir_in(group.probe_dir()).context("failed to create a page")?;
        let (lock, mark) = (group.folder().join("flock.lock"), group.folder().to_owned());
        let mut flocks = Self { page, lock, mark, children: Vec::new(), last: 0 };
        for _ in 0..3 {
            let child = flocks.spawn()?;
            flocks.children.push(child);
        }
        Ok(flocks)
    }

    fn spawn(&self) -> Result<Child> {
        let quoted: Vec<String> = beat::command(self.page.path())?.iter().map(|word| format!("'{word}'")).collect();
        let mut command = Command::new("flock");
        command.arg(&self.lock).args(["-c", &format!("exec {} --untold", quoted.join(" "))]);
        command.env(MARK, &self.mark).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("failed to start flock, which is part of util-linux")
    }

    /// Ends the active command by this signal, and waits for the next.
    pub fn round(&mut self, signal: Signal) -> Result<Gap> {
        self.wait_ready()?;
        let page = self.page.path();
        let newer = |than: u64| move || beat::newest(page).filter(|span| span.token > than);
        let active = wait::wait_for("a command under flock", LIMIT, newer(self.last))?;
        sleep(SETTLE);
        let pid = active.slots.first().context("an activation without a process")?.pid;
        let at = stamp::now();
        process::signal(i32::try_from(pid)?, signal)?;
        let next = wait::wait_for("the next command under flock", LIMIT, newer(active.token))?;
        let old = beat::with_token(page, active.token)?;
        for slot in &old.slots {
            let name = format!("{}-{}-{}", slot.identity.token, slot.pid, slot.label);
            std::fs::remove_file(page.join(name)).context("failed to remove a slot")?;
        }
        self.last = active.token;
        Ok(Gap { from_last_ns: next.first.saturating_sub(old.last), from_event_ns: next.first.saturating_sub(at) })
    }

    /// Three again, with nothing to do. One that ends lets go of its lock before it can be seen to have ended.
    fn wait_ready(&mut self) -> Result<()> {
        wait::wait_for("flock to wait", LIMIT, || {
            let refilled = self.refill();
            let ready = refilled.is_err() || self.children.iter().all(|child| is_asleep(child.id()));
            ready.then_some(refilled)
        })?
    }

    fn refill(&mut self) -> Result<()> {
        for index in 0..self.children.len() {
            if self.children[index].try_wait().context("failed to look after flock")?.is_some() {
                self.children[index] = self.spawn()?;
            }
        }
        Ok(())
    }
}

impl Drop for Flocks {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended is only to be reaped.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
