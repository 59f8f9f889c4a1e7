//! The example of the library, as two processes over one lock file.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::group::binary;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the example says.
const LEASE: Duration = Duration::from_secs(4);

struct Service {
    process: Child,
    lines: Receiver<String>,
}

impl Service {
    fn start(lock: &Path) -> Result<Self> {
        let program = binary("soloist")?.with_file_name("examples").join("leader");
        let mut command = Command::new(&program);
        command.arg(lock).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("failed to start {program:?}: make process"))?;
        let output = process.stdout.take().context("its output")?;
        Ok(Self { process, lines: lines_of(output) })
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("it says nothing")
    }

    fn token(&self) -> Result<u64> {
        let line = self.line()?;
        line.strip_prefix("leading with token ").with_context(|| line.clone())?.parse().context(line)
    }

    fn send(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).context("its PID")?;
        kill_process(pid, signal).context("failed to send a signal")
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

/// One that leads, and one that stands by.
fn pair(lock: &Path) -> Result<(Service, u64, Service)> {
    let first = Service::start(lock)?;
    ensure!(first.line()? == "standing by");
    let token = first.token()?;
    let second = Service::start(lock)?;
    ensure!(second.line()? == "standing by");
    Ok((first, token, second))
}

#[test]
fn a_service_that_ends_in_order_hands_over_without_a_wait() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut first, token, second) = pair(&folder.path().join("app.lock"))?;
    ensure!(second.lines.recv_timeout(Duration::from_millis(100)).is_err(), "two lead");
    first.send(Signal::TERM)?;
    let began = Instant::now();
    ensure!(second.token()? > token);
    ensure!(began.elapsed() < LEASE, "{:?}", began.elapsed());
    ensure!(first.process.wait()?.success());
    Ok(())
}

#[test]
fn a_service_that_is_killed_costs_a_lease_and_one_that_is_stopped_is_ended() -> Result<()> {
    for signal in [Signal::KILL, Signal::STOP] {
        let folder = tempfile::tempdir()?;
        let (mut first, token, second) = pair(&folder.path().join("app.lock"))?;
        first.send(signal)?;
        let began = Instant::now();
        ensure!(second.token()? > token);
        // The last renewal may have been half a second before the signal.
        ensure!(began.elapsed() > LEASE / 2, "{signal:?}: {:?}", began.elapsed());
        ensure!(!first.process.wait()?.success(), "{signal:?}: it goes on");
    }
    Ok(())
}
