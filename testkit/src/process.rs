//! Looks at processes through /proc, and ends them by identity: through a pidfd, after another look, so that a PID
//! that was used again is not hit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What /proc says about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its PID, seen from here.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub state: char,
    /// Its process group.
    pub group: i32,
    /// The foreground process group of its terminal; -1 without one.
    pub foreground: i32,
    /// The name of its executable, as the kernel keeps it.
    pub name: String,
    /// Its command line; empty for a zombie.
    pub command: Vec<String>,
}

impl Process {
    /// Reads it; nothing if it is gone.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and brackets: what counts follows the last one.
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<i32>().ok();
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut command: Vec<String> = words.collect();
        command.pop();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: number(1)?,
            group: number(2)?,
            foreground: number(5)?,
            name: head.split_once('(')?.1.to_owned(),
            command,
        })
    }

    /// Whether it can still run: a zombie only waits to be reaped.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// The first word of its command line.
    pub fn called(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Whether `text` is in one of the words of its command line.
    pub fn mentions(&self, text: &str) -> bool {
        self.command.iter().any(|word| word.contains(text))
    }

    /// A line of its status page, such as `SigBlk`.
    pub fn status(&self, key: &str) -> Option<String> {
        let page = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        page.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// When it started, in nanoseconds of CLOCK_BOOTTIME, to a clock tick.
    pub fn started_ns(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("it is gone")?;
        let (_, rest) = stat.rsplit_once(") ").context("a status line of another form")?;
        let ticks: u64 = rest.split(' ').nth(19).context("no start time")?.parse()?;
        Ok(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
    }

    /// Whether it has `path` open.
    pub fn has_open(&self, path: &Path) -> bool {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return false;
        };
        entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target: PathBuf| target == path)
    }

    /// Whether its environment holds `text`.
    pub fn carries(&self, text: &str) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == text.as_bytes())
    }
}

/// All processes that are visible from here.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// `root` and everything below it, itself first.
pub fn tree(root: i32) -> Vec<Process> {
    let everyone = all();
    let mut found: Vec<Process> = everyone.iter().filter(|process| process.pid == root).cloned().collect();
    let mut at = 0;
    while let Some(parent) = found.get(at).map(|process| process.pid) {
        found.extend(everyone.iter().filter(|process| process.parent == parent).cloned());
        at += 1;
    }
    found
}

/// Sends a signal to a process that this test knows.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("0 is no process")?;
    rustix::process::kill_process(pid, signal).with_context(|| format!("failed to send {signal:?} to {pid:?}"))
}

/// Kills all processes that `is_ours`, again and again until there is none, but not for ever: one that sleeps
/// uninterruptibly may need its file system thawed first.
pub fn kill_all(is_ours: impl Fn(&Process) -> bool) {
    for _ in 0..200 {
        let ours: Vec<Process> = all().into_iter().filter(|process| process.is_alive() && is_ours(process)).collect();
        if ours.is_empty() {
            return;
        }
        for process in ours {
            kill_if(process.pid, &is_ours);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The pidfd pins the process before the second look: what is looked at is what is killed.
fn kill_if(pid: i32, is_ours: &impl Fn(&Process) -> bool) {
    let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return;
    };
    if Process::read(pid).is_some_and(|process| is_ours(&process)) {
        // It may have ended meanwhile, which is what was wanted.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;
    use std::process::{Child, Command};
    use std::time::Duration;

    #[test]
    fn a_process_finds_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::read(own).unwrap();
        assert!(process.is_alive() && process.called().contains("testkit"));
        assert!(tree(own).first().is_some_and(|first| first.pid == own));
        assert!(all().iter().any(|one| one.pid == own));
        assert!(process.status("SigIgn").is_some_and(|mask| mask.len() == 16));
    }

    /// A process that shows its own command line already: `spawn` returns when the kernel has begun to execute it,
    /// an instant before.
    fn sleeper(time: &str) -> Child {
        let child = Command::new("sleep").arg(time).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let is_there = || Process::read(pid).is_some_and(|process| process.mentions(time));
        wait_until("the command line", Duration::from_secs(30), is_there).unwrap();
        child
    }

    #[test]
    fn only_what_is_ours_is_killed() {
        let (mut ours, mut other) = (sleeper("1000.25"), sleeper("1000.75"));
        kill_all(|process| process.called() == "sleep" && process.mentions("1000.25"));
        let is_gone = || ours.try_wait().unwrap().is_some_and(|status| !status.success());
        wait_until("the end of what is ours", Duration::from_secs(30), is_gone).unwrap();
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
