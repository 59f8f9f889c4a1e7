//! `consul lock`, the real program and soloist under its name, with a workload that stamps its life.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::consul::Consul;
use crate::executable;
use crate::group::{Group, MARK, binary};
use crate::history::Span;
use crate::lease_group::NAMESPACE;
use crate::process;
use crate::relay::Relay;
use crate::wait::wait_for;

/// Longer than anything takes that works, and that waits for no session of Consul.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The lease of soloist, under whatever name.
pub const LEASE: Duration = Duration::from_secs(4);

/// The file of the authority that certified a relay.
const AUTHORITY: &str = "authority.pem";

/// What the command of the real program does first: the number of the lock's last change is its token.
const STAMP: &str = r#"#!/bin/sh
token=$("$CONSUL" kv get -detailed "$1/.lock" | sed -n 's/^ModifyIndex *//p')
export SOLOIST_FENCING_TOKEN="$token" SOLOIST_MEMBER="$2" SOLOIST_ACTIVATION=$(printf '%032x' "$token")
exec "$3" --dir "$4" --pace-us 500
"#;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Consul's own.
    Theirs,
    /// soloist, called as `consul`.
    Ours,
}

/// One lock, and everybody who wants it.
#[derive(Debug)]
pub struct Site {
    /// Where the lock is.
    pub consul: Consul,
    /// What the lock's key begins with.
    pub prefix: String,
    /// Where they stamp; members of soloist run start here, too.
    pub group: Group,
    /// What is before Consul for those who are started from now on.
    address: Option<String>,
}

impl Site {
    /// A prefix that nobody has used in this run.
    ///
    /// # Errors
    /// There is no Consul.
    pub fn new() -> Result<Self> {
        let consul = Consul::connect()?;
        let prefix = consul.prefix();
        Self::on(consul, prefix)
    }

    /// Another place for the same lock: its own folders, and its own stamps.
    ///
    /// # Errors
    /// There is no Consul.
    pub fn at(prefix: &str) -> Result<Self> {
        Self::on(Consul::connect()?, prefix.to_owned())
    }

    fn on(consul: Consul, prefix: String) -> Result<Self> {
        let mut group = Group::new()?;
        group.set_lock_url(&format!("consul:///{prefix}"));
        group.set("--lease", "4s");
        group.set_fresh(Duration::from_millis(50));
        symlink(binary("soloist")?, group.folder().join("consul"))?;
        let script = group.folder().join("stamp");
        executable::write(&script, STAMP)?;
        Ok(Self { consul, prefix, group, address: None })
    }

    /// Puts a relay before Consul for those who are started from now on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn relay(&mut self) -> Result<Relay> {
        let relay = self.consul.relay()?;
        fs::write(self.group.folder().join(AUTHORITY), relay.authority()).context("failed to write an authority")?;
        self.address = Some(format!("https://{}", relay.address()));
        Ok(relay)
    }

    /// The program.
    pub fn program(&self, kind: Kind) -> PathBuf {
        match kind {
            Kind::Theirs => self.consul.program().to_owned(),
            Kind::Ours => self.group.folder().join("consul"),
        }
    }

    /// `consul lock` with these words, marked as one of this group.
    pub fn command(&self, kind: Kind, words: &[&str]) -> Command {
        let mut command = Command::new(self.program(kind));
        self.mark(&mut command).arg("lock").args(words);
        command
    }

    fn mark<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(address) = &self.address {
            command.env("CONSUL_HTTP_ADDR", address).env("CONSUL_CACERT", self.group.folder().join(AUTHORITY));
        }
        command.env(MARK, self.group.folder()).env("SOLOIST_LEASE", format!("{}s", LEASE.as_secs()))
    }

    /// Starts `consul lock` with a workload that stamps as `name`, in a PID namespace of its own: what kills the program
    /// kills its command, as in a container.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn contend(&self, kind: Kind, name: &str, options: &[&str]) -> Result<Contender> {
        let folder = self.group.folder();
        let (script, probe) = (folder.join("stamp"), self.group.binary("probe")?);
        let mut command = Command::new(NAMESPACE[0]);
        self.mark(&mut command).args(&NAMESPACE[1..]).arg(self.program(kind)).args([
            "lock",
            "-verbose",
            "-shell=false",
        ]);
        command.args(options).args([&self.prefix]).args([&script]).args([&self.prefix, name]);
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.arg(probe).arg(self.group.probe_dir()).stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
        let child = command.spawn().context("failed to start consul lock")?;
        Ok(Contender { name: name.to_owned(), child, log })
    }

    /// The activation of whoever is called so, once it is the active one.
    ///
    /// # Errors
    /// It is not within `limit`.
    pub fn wait_active(&self, name: &str, limit: Duration) -> Result<Span> {
        let own = || self.group.active().filter(|span| span.member == name);
        wait_for(&format!("{name} to be active"), limit, own).with_context(|| self.group.logs())
    }

    /// The names of all keys under the prefix.
    ///
    /// # Errors
    /// Consul does not answer.
    pub fn keys(&self) -> Result<Vec<String>> {
        let under = format!("{}/", self.prefix);
        Ok(self.consul.run(&["kv", "get", "-keys", "-recurse", &under])?.lines().map(str::to_owned).collect())
    }

    /// Nothing overlapped, and there were so many activations.
    ///
    /// # Errors
    /// Something did, or there were fewer.
    pub fn check(&self, activations: usize) -> Result<()> {
        self.group.check(activations, 2)
    }
}

/// `consul lock` at work.
#[derive(Debug)]
pub struct Contender {
    /// What it stamps as.
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Contender {
    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The program itself: the first process of its namespace.
    ///
    /// # Errors
    /// It is gone.
    pub fn pid(&self) -> Result<i32> {
        let all = process::tree(self.child.id().try_into()?);
        let first = all.iter().find(|process| process.command.get(1).is_some_and(|word| word == "lock"));
        Ok(first.with_context(|| format!("it is gone: {}", self.log()))?.pid)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let log = self.log.clone();
        wait_for("consul lock to end", LIMIT, || self.child.try_wait().ok().flatten())
            .with_context(|| fs::read_to_string(log).unwrap_or_default())
    }

    /// Ends it by SIGTERM; its command must end with it.
    ///
    /// # Errors
    /// It does not.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // One that has ended is only to be reaped. The namespace ends with what is killed here.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
