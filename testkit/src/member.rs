//! A real member: `soloist run` with a workload, started, found and ended.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::group::{Group, MARK};
use crate::history::Span;
use crate::process::{self, Process};
use crate::wait::{wait_for, wait_until};

/// Marks every process of one member.
const MEMBER_MARK: &str = "TESTKIT_MEMBER";

/// Microseconds between two stamps: a few hundred processes of this pace leave room on two cores.
const PACE_US: &str = "100";

/// How long a guard gets to clean up after its elector.
const CLEAN_UP: Duration = Duration::from_millis(300);

/// Describes a member that is to be started.
#[derive(Debug)]
pub struct Starter<'a> {
    group: &'a Group,
    name: String,
    via: Option<PathBuf>,
    wrapper: Vec<OsString>,
    probe_wrapper: Vec<OsString>,
    options: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    stdin: Stdio,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl<'a> Starter<'a> {
    pub(crate) fn new(group: &'a Group, name: &str) -> Self {
        Self {
            group,
            name: name.to_owned(),
            via: None,
            wrapper: Vec::new(),
            probe_wrapper: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            stdin: Stdio::null(),
            stdout: None,
            stderr: None,
        }
    }

    /// More options of `soloist run`.
    #[must_use]
    pub fn options<I: IntoIterator<Item: Into<OsString>>>(mut self, options: I) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves the election to the sidecar at this socket.
    #[must_use]
    pub fn via(mut self, path: &Path) -> Self {
        self.via = Some(path.to_owned());
        self
    }

    /// Starts soloist by another command, such as `setpriv ... --`.
    #[must_use]
    pub fn wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.wrapper.extend(wrapper.into_iter().map(Into::into));
        self
    }

    /// Has soloist start the probe by another command, which must execute it in its place.
    #[must_use]
    pub fn probe_wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.probe_wrapper.extend(wrapper.into_iter().map(Into::into));
        self
    }

    /// Connects stdin; it is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = stdin;
        self
    }

    /// Connects stdout, instead of to a file.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Connects stderr, instead of to the log file.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = Some(stderr);
        self
    }

    /// Starts the member with the probe as its workload.
    pub fn probe<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Result<Member> {
        let mut command = std::mem::take(&mut self.probe_wrapper);
        command.extend([self.group.binary("probe")?.into_os_string(), "--dir".into()]);
        command.extend([self.group.probe_dir().into(), "--pace-us".into(), PACE_US.into()]);
        command.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        self.run(&command)
    }

    /// Starts the member with any command as its workload.
    pub fn run<S: AsRef<OsStr>>(self, workload: &[S]) -> Result<Member> {
        let mut words: Vec<OsString> = match &self.via {
            // All else is the sidecar's.
            Some(path) => vec!["run".into(), "--via".into(), path.into()],
            None => ["run".into()].into_iter().chain(self.as_member()).collect(),
        };
        words.extend(self.options.iter().cloned());
        words.push("--".into());
        words.extend(workload.iter().map(|word| word.as_ref().to_owned()));
        self.spawn(&words)
    }

    /// Starts a sidecar, whose workload is run by another container via `path`.
    pub fn sidecar(self, path: &Path) -> Result<Member> {
        let mut words: Vec<OsString> = ["sidecar".into()].into_iter().chain(self.as_member()).collect();
        words.extend(["--via".into(), path.into()]);
        words.extend(self.options.iter().cloned());
        self.spawn(&words)
    }

    /// Starts something else than a member: these words, and the options.
    pub fn call<S: AsRef<OsStr>>(self, words: &[S]) -> Result<Member> {
        let mut words: Vec<OsString> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        words.extend(self.options.iter().cloned());
        self.spawn(&words)
    }

    fn as_member(&self) -> Vec<OsString> {
        let mut options = self.group.options();
        options.extend(["--name".into(), self.name.clone().into()]);
        options
    }

    fn spawn(self, arguments: &[OsString]) -> Result<Member> {
        let mut words = self.wrapper;
        words.push(self.group.binary("soloist")?.into_os_string());
        words.extend_from_slice(arguments);
        let (program, arguments) = words.split_first().context("no command to start")?;
        let (log, output) = (self.group.log_path(&self.name, "log"), self.group.log_path(&self.name, "out"));
        let mark = format!("{}/{}/{}", self.group.folder().display(), self.name, self.group.next_serial());
        let mut command = Command::new(program);
        command.args(arguments).env(MARK, self.group.folder()).env(MEMBER_MARK, &mark).envs(self.variables);
        command.stdin(self.stdin).stdout(or_file(self.stdout, &output)?).stderr(or_file(self.stderr, &log)?);
        let log_before = fs::metadata(&log).map_or(0, |file| usize::try_from(file.len()).unwrap_or(0));
        let child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Member {
            name: self.name,
            mark: format!("{MEMBER_MARK}={mark}"),
            child,
            log,
            log_before,
            lock: self.group.lock_file().map(Path::to_owned),
        })
    }
}

fn or_file(chosen: Option<Stdio>, path: &Path) -> Result<Stdio> {
    match chosen {
        Some(stdio) => Ok(stdio),
        None => {
            let file = File::options().create(true).append(true).open(path);
            Ok(file.with_context(|| format!("failed to open {}", path.display()))?.into())
        }
    }
}

/// A member that was started; everything of it is killed when this is dropped.
#[derive(Debug)]
pub struct Member {
    name: String,
    mark: String,
    child: Child,
    log: PathBuf,
    /// What earlier members of this name had logged, in bytes.
    log_before: usize,
    lock: Option<PathBuf>,
}

impl Member {
    /// Starts a member with the probe as its workload.
    pub fn spawn(group: &Group, name: &str, options: &[&str], probe: &[&str]) -> Result<Self> {
        group.member(name).options(options.iter().copied()).probe(probe)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The writing end of its stdin, if that is a pipe.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until it is the active one, by what its workload stamps.
    pub fn wait_active(&self, group: &Group, limit: Duration) -> Result<Span> {
        let own = || group.active().filter(|span| span.member == self.name);
        wait_for(&format!("{} to be active", self.name), limit, own)
            .with_context(|| format!("stamped until now:\n{}{}", group.history(), group.logs()))
    }

    /// Whether it queues for the lock: its elector has the file open, which an active one's has not; on another lock
    /// its log says so last.
    pub fn is_standby(&self) -> bool {
        match &self.lock {
            Some(lock) => self.elector().is_some_and(|elector| elector.has_open(lock)),
            None => self.role().is_some_and(|role| role == "standby"),
        }
    }

    /// The role that its log told last.
    pub fn role(&self) -> Option<String> {
        let log = self.own_log();
        let (_, role) = log.rsplit_once(" role=")?;
        role.split_whitespace().next().map(str::to_owned)
    }

    /// What it has logged, without what earlier members of its name have.
    pub fn own_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_before..).unwrap_or_default()).into_owned()
    }

    /// Waits until it queues for the lock.
    pub fn wait_standby(&self, limit: Duration) -> Result<()> {
        wait_until(&format!("{} to queue for the lock", self.name), limit, || self.is_standby())
            .with_context(|| format!("its log:\n{}", self.log()))
    }

    /// Everything of it that can still run: elector, guard, workload, and what was put around them.
    pub fn processes(&self) -> Vec<Process> {
        process::all().into_iter().filter(|process| process.is_alive() && process.carries(&self.mark)).collect()
    }

    fn elector(&self) -> Option<Process> {
        let root = i32::try_from(self.child.id()).ok()?;
        let is_soloist = |process: &Process| Path::new(process.called()).file_name() == Some(OsStr::new("soloist"));
        process::tree(root).into_iter().find(|process| process.is_alive() && is_soloist(process))
    }

    /// The PID of its elector.
    pub fn elector_pid(&self) -> Result<i32> {
        let elector = self.elector().with_context(|| format!("{} has no elector\n{}", self.name, self.log()))?;
        Ok(elector.pid)
    }

    /// The PID of its guard.
    pub fn guard_pid(&self) -> Result<i32> {
        let is_guard = |process: &Process| process.called().starts_with("soloist-guard");
        let guard = self.processes().into_iter().find(is_guard);
        Ok(guard.with_context(|| format!("{} has no guard\n{}", self.name, self.log()))?.pid)
    }

    /// The PIDs of its workload: every process that was told an activation.
    pub fn workload_pids(&self, active: &Span) -> Vec<i32> {
        let told = format!("SOLOIST_ACTIVATION={:032x}", active.activation);
        self.processes().into_iter().filter(|process| process.carries(&told)).map(|process| process.pid).collect()
    }

    /// The PID of the command itself, seen from outside of any PID namespace.
    pub fn command_pid(&self, active: &Span) -> Result<i32> {
        let guard = self.guard_pid()?;
        // Orphans of the tree are the guard's children too; a probe knows its descendants by a label.
        let is_command = |one: &Process| one.parent == guard && !one.mentions("--label");
        let told = format!("SOLOIST_ACTIVATION={:032x}", active.activation);
        // One that is warm was started before there was an activation.
        let belongs = |one: &Process| one.carries(&told) || one.carries("SOLOIST_ROLE=standby");
        let command = self.processes().into_iter().find(|one| is_command(one) && belongs(one)).map(|one| one.pid);
        command.with_context(|| format!("{} has no command running\n{}", self.name, self.log()))
    }

    /// Sends a signal to its elector.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.elector_pid()?, signal)
    }

    /// How it ended, if it did.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("failed to look after {}", self.name))
    }

    /// Waits until it ended, and says how.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let (name, log) = (self.name.clone(), self.log.clone());
        wait_for(&format!("{name} to end"), limit, || self.child.try_wait().ok().flatten())
            .with_context(|| format!("its log:\n{}", fs::read_to_string(log).unwrap_or_default()))
    }

    /// Waits until it ended by itself, and returns its exit code.
    pub fn wait_exit_code(&mut self, limit: Duration) -> Result<i32> {
        let status = self.wait_exit(limit)?;
        let code = status.code();
        code.with_context(|| format!("{} was killed by signal {:?}\n{}", self.name, status.signal(), self.log()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // The guard outlives its elector by a few milliseconds and cleans up; killed at once, it leaves a cgroup.
        if let Some(elector) = self.elector() {
            let _ = process::signal(elector.pid, Signal::KILL);
            let _ = wait_until("the guard to clean up", CLEAN_UP, || self.processes().is_empty());
        }
        process::kill_all(|process| process.carries(&self.mark));
        // Reaped here, for a long campaign starts thousands.
        let _ = self.child.try_wait();
    }
}
