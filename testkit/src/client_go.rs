//! Members of client-go's election: `client-go-member` of the testbed, which runs a command while it leads.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::cluster::program;
use crate::process::{self, Process};
use crate::wait::{wait_for, wait_until};

/// The lease of these members, and what follows from it.
pub const LEASE: Duration = Duration::from_secs(4);
/// For how long a leader tries to renew.
pub const RENEW_DEADLINE: Duration = Duration::from_millis(2500);
/// Between two tries.
pub const RETRY_PERIOD: Duration = Duration::from_millis(500);
/// The longest pause between two tries of a standby: its jitter adds up to 1.2 periods.
pub const POLL_MAX: Duration = Duration::from_millis(1100);
const LIMIT: Duration = Duration::from_secs(40);

/// The command line of a member of the election `name`; options and the command are to follow.
pub fn command(namespace: &str, name: &str, identity: &str) -> Result<Command> {
    let mut command = Command::new(program("client-go-member")?);
    command.args(["-namespace", namespace, "-name", name, "-identity", identity]);
    for (option, value) in
        [("-lease-duration", LEASE), ("-renew-deadline", RENEW_DEADLINE), ("-retry-period", RETRY_PERIOD)]
    {
        command.args([option, &format!("{}ms", value.as_millis())]);
    }
    Ok(command)
}

/// One member; killed when this is dropped.
#[derive(Debug)]
pub struct ClientGo {
    name: String,
    child: Child,
    log: PathBuf,
}

impl ClientGo {
    /// Starts a member, which logs into `folder`, and waits until it knows who leads.
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let log = folder.join(name).with_extension(OsStr::new("log"));
        let file = File::create(&log)?;
        let child =
            command.stdout(file.try_clone()?).stderr(file).spawn().context("failed to start client-go-member")?;
        let member = Self { name: name.to_owned(), child, log };
        wait_until("it to know who leads", LIMIT, || member.log().contains("the leader is"))
            .with_context(|| member.log())?;
        Ok(member)
    }

    /// What it and its command wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ever seen `name` lead.
    pub fn has_seen(&self, name: &str) -> bool {
        self.log().contains(&format!("the leader is {name:?}"))
    }

    /// Whether it has ever led.
    pub fn has_led(&self) -> bool {
        self.has_seen(&self.name)
    }

    fn pid(&self) -> Result<i32> {
        Ok(self.child.id().try_into()?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal)
    }

    /// The same to its command and all below it, last what is lowest. What has ended meanwhile, by what is above it, needs
    /// no signal.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        for one in process::tree(self.pid()?) {
            let sent = process::signal(one.pid, signal);
            if Process::read(one.pid).is_some_and(|process| process.is_alive()) {
                sent?;
            }
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let log = self.log.clone();
        wait_for("it to end", LIMIT, || self.child.try_wait().ok().flatten())
            .with_context(|| fs::read_to_string(log).unwrap_or_default())
    }

    /// Sends it away in peace.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        ensure!(self.wait()?.success(), "{}", self.log());
        Ok(())
    }
}

impl Drop for ClientGo {
    fn drop(&mut self) {
        // One that has ended is only to be reaped.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
