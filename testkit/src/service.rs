//! The example of the library as a process: a service that elects by itself.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::group::binary;
use crate::wait::within;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the example says.
pub const LEASE: Duration = Duration::from_secs(4);

/// One process of it.
#[derive(Debug)]
pub struct Service {
    /// To wait for.
    pub process: Child,
    lines: Receiver<String>,
}

impl Service {
    /// Starts one over a lock.
    pub fn start(lock: impl AsRef<OsStr>) -> Result<Self> {
        let program = binary("soloist")?.with_file_name("examples").join("leader");
        let mut command = Command::new(&program);
        command.arg(lock.as_ref()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("failed to start {program:?}: make process"))?;
        let output = process.stdout.take().context("its output")?;
        Ok(Self { process, lines: lines_of(output) })
    }

    /// The next line that it says.
    pub fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).with_context(|| format!("waited {PATIENCE:?} in vain for a line"))
    }

    /// Its next line, which has to say that it leads, and with which token.
    pub fn token(&self) -> Result<u64> {
        let line = self.line()?;
        line.strip_prefix("leading with token ").with_context(|| line.clone())?.parse().context(line)
    }

    /// Sends it a signal.
    pub fn send(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).context("its PID")?;
        kill_process(pid, signal).context("failed to send a signal")
    }
}

impl Service {
    /// One that leads, and one that stands by and says nothing for a moment.
    pub fn pair(lock: impl AsRef<OsStr>) -> Result<(Self, u64, Self)> {
        let first = Self::start(&lock)?;
        ensure!(first.line()? == "standing by");
        let token = first.token()?;
        let second = Self::start(&lock)?;
        ensure!(second.line()? == "standing by");
        ensure!(second.lines.recv_timeout(Duration::from_millis(100)).is_err(), "two lead");
        Ok((first, token, second))
    }

    /// What every store has to allow: an end in order hands over without a wait for the lease.
    pub fn hand_over(lock: impl AsRef<OsStr>) -> Result<()> {
        let (mut first, token, second) = Self::pair(lock)?;
        first.send(Signal::TERM)?;
        let began = Instant::now();
        ensure!(second.token()? > token);
        within("the next one to lead", began.elapsed(), LEASE / 2)?;
        ensure!(first.process.wait()?.success());
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}
