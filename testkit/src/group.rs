//! A group of members under test: its folders, its lock, and who of it is active.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::executable;
use crate::history::{History, Span};
use crate::member::Starter;
use crate::process::{self, Process};
use crate::stamp;
use crate::wait::wait_for;

/// Who has stamped this recently is alive; stamps come every tenth of a millisecond.
const FRESH: Duration = Duration::from_millis(2);

/// So long a lease that a busy machine costs nobody the lock.
pub const UNHURRIED: Duration = Duration::from_secs(15);

/// The environment variable that marks every process of a group, so that none is left behind.
pub const MARK: &str = "TESTKIT_GROUP";

/// A group, alone in two private folders; everything of it is killed when this is dropped.
#[derive(Debug)]
pub struct Group {
    folder: TempDir,
    // In memory where there is such a place: a probe that waits for a disk does not stamp.
    probes: TempDir,
    lock: PathBuf,
    /// A lock that is no file.
    url: Option<String>,
    settings: BTreeMap<&'static str, String>,
    binaries: Option<PathBuf>,
    fresh: Duration,
    started: AtomicU32,
    slots: u32,
}

impl Group {
    /// A group in which nobody waits for a lease.
    pub fn unhurried() -> Result<Self> {
        let mut group = Self::new()?;
        group.set("--lease", &format!("{}s", UNHURRIED.as_secs()));
        Ok(group)
    }

    /// A group with a lease of 2 s, which is nearly the shortest, and its lock in a folder of its own.
    pub fn new() -> Result<Self> {
        let folder = private_folder(&std::env::temp_dir())?;
        let memory = Path::new("/dev/shm");
        let probes = private_folder(if memory.is_dir() { memory } else { folder.path() })?;
        fs::create_dir_all(probes.path().join("slots/old")).context("failed to create the probe page")?;
        let settings = [("--group", "test"), ("--lease", "2s"), ("--stop-grace", "1s")];
        Ok(Self {
            lock: folder.path().join("app.lock"),
            url: None,
            settings: settings.into_iter().map(|(option, value)| (option, value.to_owned())).collect(),
            binaries: None,
            fresh: FRESH,
            started: AtomicU32::new(0),
            slots: 1,
            folder,
            probes,
        })
    }

    /// Every member gets `option` with this value; replaces the group's own.
    pub fn set(&mut self, option: &'static str, value: &str) {
        self.settings.insert(option, value.to_owned());
    }

    /// So many members may be active.
    pub fn set_slots(&mut self, count: u32) -> Result<()> {
        for slot in 2..=count {
            fs::create_dir_all(self.page_of(slot)).context("failed to create a probe page")?;
        }
        self.slots = count;
        self.set("--active", &count.to_string());
        Ok(())
    }

    /// How many members may be active.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Puts the lock elsewhere.
    pub fn set_lock(&mut self, lock: PathBuf) {
        self.lock = lock;
    }

    /// Takes a lock that is no file.
    pub fn set_lock_url(&mut self, url: &str) {
        self.url = Some(url.to_owned());
    }

    /// Counts a workload that stamped within `fresh` as alive: for probes that are starved on purpose.
    pub fn set_fresh(&mut self, fresh: Duration) {
        self.fresh = fresh;
    }

    /// Lets members run as `uid`: hands the folders over, and copies the binaries to where that user reaches them.
    pub fn give_to(&mut self, uid: u32) -> Result<()> {
        let binaries = self.folder.path().join("bin");
        fs::create_dir_all(&binaries).context("failed to create a folder for binaries")?;
        for name in ["soloist", "probe"] {
            executable::copy(&binary(name)?, &binaries.join(name))?;
        }
        let page = self.page();
        for path in [self.folder.path(), &binaries, self.probes.path(), &page, &page.join("old")] {
            chown(path, Some(uid), Some(uid)).with_context(|| format!("failed to hand over {}", path.display()))?;
        }
        self.binaries = Some(binaries);
        Ok(())
    }

    /// The lock file, unless the lock is none.
    pub(crate) fn lock_file(&self) -> Option<&Path> {
        self.url.is_none().then_some(&self.lock)
    }

    /// The lock file.
    pub fn lock(&self) -> &Path {
        &self.lock
    }

    /// The group's own folder, for whatever a test keeps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that probes are given.
    pub fn probe_dir(&self) -> &Path {
        self.probes.path()
    }

    fn page(&self) -> PathBuf {
        self.page_of(1)
    }

    fn page_of(&self, slot: u32) -> PathBuf {
        stamp::page(self.probe_dir(), slot)
    }

    /// One of our binaries, where members of this group reach it.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        match &self.binaries {
            Some(folder) => Ok(folder.join(name)),
            None => binary(name),
        }
    }

    /// The options that say which lock, which group and how long.
    pub fn options(&self) -> Vec<OsString> {
        let lock = self.url.as_ref().map_or_else(|| self.lock.clone().into_os_string(), OsString::from);
        let mut options = vec!["--lock".into(), lock];
        for (option, value) in &self.settings {
            options.extend([OsString::from(option), value.into()]);
        }
        options
    }

    /// Describes a member that is to be started.
    pub fn member(&self, name: &str) -> Starter<'_> {
        Starter::new(self, name)
    }

    /// What the lock says: `PATH.record`.
    pub fn record(&self) -> Option<serde_json::Value> {
        let mut path = self.lock.clone().into_os_string();
        path.push(".record");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Everything that was stamped until now.
    pub fn history(&self) -> History {
        History::read(&self.page())
    }

    /// Everything that was stamped in one slot until now.
    pub fn history_of(&self, slot: u32) -> History {
        History::read(&self.page_of(slot))
    }

    /// Checks all that was stamped, see [`History::check_soon`].
    ///
    /// # Errors
    /// What was found, with what the members said.
    pub fn check(&self, activations: usize, stamps: u64) -> Result<()> {
        History::check_soon(|| self.history(), activations, stamps)
            .with_context(|| format!("{}{}", self.history(), self.logs()))
    }

    /// The newest activation, if a process of it is alive at this moment.
    pub fn active(&self) -> Option<Span> {
        self.active_in(1)
    }

    /// The same of one slot.
    pub fn active_in(&self, slot: u32) -> Option<Span> {
        let page = self.page_of(slot);
        let newest = History::of(stamp::read_page(&page)).spans.into_iter().max_by_key(|span| span.token)?;
        let since = stamp::now().saturating_sub(newest.last);
        (Duration::from_nanos(since) < self.fresh).then_some(newest)
    }

    /// Waits until somebody is active with a token larger than `token`.
    pub fn wait_active_after(&self, token: u64, limit: Duration) -> Result<Span> {
        self.wait_active_in(1, token, limit)
    }

    /// The same in one slot.
    pub fn wait_active_in(&self, slot: u32, token: u64, limit: Duration) -> Result<Span> {
        let newer = || self.active_in(slot).filter(|span| span.token > token);
        wait_for(&format!("an activation after token {token} in slot {slot}"), limit, newer)
            .with_context(|| format!("stamped until now:\n{}{}", self.history_of(slot), self.logs()))
    }

    /// Moves the slots of activations before `token` out of the way of [`Group::active`]. Their processes, should one
    /// be left, go on stamping them there.
    pub fn archive_before(&self, token: u64) -> Result<()> {
        for entry in fs::read_dir(self.page()).context("failed to list the probe page")?.flatten() {
            let name = entry.file_name();
            let of = name.to_string_lossy().split('-').next().and_then(|number| number.parse::<u64>().ok());
            if of.is_some_and(|of| of < token) {
                fs::rename(entry.path(), self.page().join("old").join(name)).context("failed to archive a slot")?;
            }
        }
        Ok(())
    }

    /// Makes the command of this activation end by itself, with `code`.
    pub fn end_workload(&self, active: &Span, code: i32) -> Result<()> {
        let path = self.probe_dir().join(format!("exit-{}", active.token));
        fs::write(&path, code.to_string()).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Everything of this group that can still run: members, guards, workloads.
    pub fn processes(&self) -> Vec<Process> {
        process::all().into_iter().filter(|process| process.is_alive() && self.owns(process)).collect()
    }

    fn owns(&self, process: &Process) -> bool {
        process.carries(&format!("{MARK}={}", self.folder.path().display()))
    }

    /// Tells a member from an earlier one of the same name.
    pub(crate) fn next_serial(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the log and the output of a member go.
    pub(crate) fn log_path(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{kind}"))
    }

    /// Why the member of an activation says that it was allowed to start it.
    pub fn reason_of(&self, span: &Span) -> Option<String> {
        let log = fs::read(self.log_path(&span.member, "log")).ok()?;
        let marker = format!("active with token {}: ", span.token);
        let log = String::from_utf8_lossy(&log).into_owned();
        log.lines().find_map(|line| line.split_once(&marker).map(|(_, reason)| reason.to_owned()))
    }

    /// The last lines of all logs, for messages.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                text.push_str(&format!("--- {}\n{}\n", path.display(), last_lines(&path, 20)));
            }
        }
        text
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        process::kill_all(|process| self.owns(process));
    }
}

fn private_folder(parent: &Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("soloist-test-").tempdir_in(parent);
    folder.with_context(|| format!("failed to create a folder in {}", parent.display()))
}

fn last_lines(path: &Path, count: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| line.len() < 2000).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// One of our binaries: `SOLOIST_BIN`, or what cargo built next to the running test.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let ("soloist", Some(path)) = (name, std::env::var_os("SOLOIST_BIN")) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("failed to find the running test")?;
    // A test lies in target/PROFILE/deps, a binary in target/PROFILE.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    let package = if name == "soloist" { "soloist" } else { "testkit" };
    match found {
        Some(path) => Ok(path),
        None => bail!("failed to find {name} near {}: run `cargo build -p {package}` first", own.display()),
    }
}
