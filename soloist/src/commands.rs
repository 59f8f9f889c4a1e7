//! Short commands of the user's, health checks and hooks: bounded in time and in what they say, waited for by nobody
//! but the task that asked.
//!
//! The elector is a child subreaper. When the guard dies, the keeper kills and reaps every child of the elector, and
//! a guard below PID 1 kills all that it sees. So a command may be killed by somebody else and its status be gone:
//! it is waited for by pidfd, and such an end says nothing about the command. What a command left behind becomes a
//! child of the elector when its parents end; the reaper collects it, and never the guard, whose status is the keeper's.

mod output;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::getpid;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::workload::process::{ProcessId, children_of};
use crate::workload::{die_with_parent, restore_descriptor_limit, watch};
use output::Output;

/// What runs a line.
const SHELL: &str = "/bin/sh";

/// How long a killed command may take to die before it is left to the reaper.
const DEATH_LIMIT: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// For `/bin/sh -c`.
    pub line: String,
    /// Variables that it gets besides the member's own; `None` takes one away.
    pub environment: Vec<(&'static str, Option<String>)>,
    /// When it is killed with all of its process group.
    pub limit: Duration,
}

/// How a command ended, and the beginning of what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub how: How,
    /// The first kilobytes of standard output and error, as one line for people.
    pub said: String,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed because its time was up.
    TimedOut(Duration),
    /// There is no shell to run it.
    NoShell(String),
    /// Nobody can say: it was killed along with a workload's tree, or the host had no process to spare.
    Unknown(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Code(code) => write!(f, "ended with code {code}")?,
            How::Signal(signal) => write!(f, "ended by signal {signal}")?,
            How::TimedOut(limit) => write!(f, "killed, because it took longer than {limit:?}")?,
            How::NoShell(why) | How::Unknown(why) => f.write_str(why)?,
        }
        if self.said.is_empty() { Ok(()) } else { write!(f, ": {}", self.said) }
    }
}

/// Runs commands, and knows which children of this process are whose.
#[derive(Clone, Debug)]
pub struct Commands(Arc<Mutex<Family>>);

#[derive(Debug)]
struct Family {
    /// The keeper waits for this one, if there is one.
    guard: Option<i32>,
    /// Commands that are waited for by who asked.
    running: HashSet<i32>,
}

impl Commands {
    /// For a member with this guard. Commands must be run on the main thread of a current_thread runtime: the kernel
    /// ends them with the thread that started them.
    pub fn new(guard: Option<ProcessId>) -> Self {
        let guard = guard.map(|guard| guard.pid);
        Self(Arc::new(Mutex::new(Family { guard, running: HashSet::new() })))
    }

    /// Takes in that the guard was replaced.
    pub fn set_guard(&self, guard: ProcessId) {
        self.family().guard = Some(guard.pid);
    }

    fn family(&self) -> MutexGuard<'_, Family> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects what commands left behind, whenever a child ends.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn reaper(&self) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let mut child_ended = signal(SignalKind::child())?;
        let commands = self.clone();
        Ok(async move {
            while child_ended.recv().await.is_some() {
                commands.reap_strays();
            }
            Ok(())
        })
    }

    fn reap_strays(&self) {
        let family = self.family();
        let is_stray = |pid: &i32| Some(*pid) != family.guard && !family.running.contains(pid);
        for pid in children_of(getpid().as_raw()).into_iter().filter(is_stray).filter_map(Pid::from_raw) {
            // Nothing happens to one that lives.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }

    /// Runs a command to its end, at most for its time. Dropped before, it kills it.
    pub async fn run(&self, call: &Call) -> Ended {
        let (running, mut output) = match self.start(call) {
            Ok(started) => started,
            Err(error) => return Ended { how: not_started(&error), said: String::new() },
        };
        let in_time = tokio::select! {
            biased;
            () = running.ended() => true,
            never = output.drain() => match never {},
            () = sleep(call.limit) => false,
        };
        // What is left of its group ends with it, also after an end of its own.
        running.kill();
        if !in_time {
            // One that hangs in the kernel is left to the reaper.
            let _ = timeout(DEATH_LIMIT, running.ended()).await;
        }
        let how = if in_time { running.how() } else { How::TimedOut(call.limit) };
        Ended { how, said: output.said() }
    }

    fn start(&self, call: &Call) -> io::Result<(Running, Output)> {
        let (reader, writer) = io::pipe()?;
        let output = Output::new(reader.into())?;
        let mut command = Command::new(SHELL);
        command.arg("-c").arg(&call.line).process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        for (name, value) in &call.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        die_with_parent(&mut command);
        restore_descriptor_limit(&mut command);
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(watch) {
            Ok(end) => {
                self.family().running.insert(pid.as_raw_pid());
                Ok((Running { commands: self.clone(), pid, end }, output))
            }
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }
}

/// A host that has no process or descriptor to spare says nothing about the command.
fn not_started(error: &io::Error) -> How {
    let why = format!("failed to start {SHELL}: {error}");
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => How::NoShell(why),
        _ => How::Unknown(why),
    }
}

/// A command that was started and is not reaped.
#[derive(Debug)]
struct Running {
    commands: Commands,
    pid: Pid,
    end: AsyncFd<OwnedFd>,
}

impl Running {
    /// Returns when it is dead. Cancel safe.
    async fn ended(&self) {
        // Fails only when the runtime ends.
        let _ = self.end.readable().await;
    }

    fn wait(&self, more: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        waitid(WaitId::PidFd(self.end.get_ref().as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | more)
    }

    /// Kills it with its group. As long as nobody has reaped it, a group of this number can only be its own.
    fn kill(&self) {
        if self.wait(WaitIdOptions::NOWAIT).is_ok() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Reaps it, if nobody else has.
    fn how(&self) -> How {
        let killed = || How::Unknown("killed from outside".to_owned());
        let Ok(Some(status)) = self.wait(WaitIdOptions::empty()) else { return killed() };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => How::Code(code),
            // Not by soloist's timer: with the workload's tree, or because the host ran out of memory.
            (None, Some(signal)) if signal == Signal::KILL.as_raw() => killed(),
            (None, Some(signal)) => How::Signal(signal),
            (None, None) => killed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait(WaitIdOptions::empty());
        // One that is still dying is a stray from here on.
        self.commands.family().running.remove(&self.pid.as_raw_pid());
    }
}

#[cfg(test)]
mod tests;
