//! The raw limit: what a handover over a lock file costs when nobody checks anything. The same writes to the disk, a
//! process that waits in flock(2), and the same workload.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;
use testkit::group::{Group, MARK};
use testkit::stamp::{self, Identity};
use testkit::{process, wait};

use crate::beat;
use crate::steps::{LIMIT, SETTLE, is_asleep};

/// As long as a record of soloist.
const RECORD_BYTES: usize = 700;

/// One raw handover, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Writing a release: a record replaced, durably.
    pub release_ns: u64,
    /// From closing the flocked file to the waiter's return from flock(2).
    pub wake_ns: u64,
    /// Acquiring: a counter and a record, durably.
    pub acquire_ns: u64,
    /// From there to the workload's first instant: fork and exec.
    pub start_ns: u64,
    /// All of it.
    pub total_ns: u64,
}

/// Where raw handovers happen.
pub struct Raw {
    page: TempDir,
    lock: PathBuf,
    mark: PathBuf,
}

impl Raw {
    /// In the group's folder, which is on the same disk then.
    pub fn start(group: &Group) -> Result<Self> {
        let page = tempfile::tempdir_in(group.probe_dir()).context("failed to create a page")?;
        Ok(Self { page, lock: group.folder().join("raw.lock"), mark: group.folder().to_owned() })
    }

    /// Hands over once, to a process that waits.
    pub fn round(&self) -> Result<Parts> {
        let lock = open(&self.lock)?;
        lock.lock().context("failed to take the raw lock")?;
        let mut waiter = self.spawn_waiter()?;
        sleep(SETTLE);

        let begin = stamp::now();
        replace_record(&self.lock)?;
        let released = stamp::now();
        drop(lock);
        let first = wait::wait_for("the raw workload", LIMIT, || beat::newest(self.page.path()))?;

        // The waiter ends with its workload.
        let pid = first.slots.first().context("an activation without a process")?.pid;
        process::signal(i32::try_from(pid)?, Signal::KILL)?;
        waiter.wait().context("failed to reap the raw waiter")?;
        let mut said = String::new();
        waiter.stdout.take().context("a waiter without output")?.read_to_string(&mut said)?;
        self.clear()?;
        let times: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [woken, written] = times[..] else { bail!("failed to understand the raw waiter: {said:?}") };
        Ok(Parts {
            release_ns: released - begin,
            wake_ns: woken.saturating_sub(released),
            acquire_ns: written.saturating_sub(woken),
            start_ns: first.first.saturating_sub(written),
            total_ns: first.first.saturating_sub(begin),
        })
    }

    fn spawn_waiter(&self) -> Result<Child> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(own);
        command.arg("queue").arg(&self.lock).arg(self.page.path()).env(MARK, &self.mark);
        let waiter = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("failed to start a waiter")?;
        sleep(SETTLE);
        wait::wait_until("the raw waiter to wait", LIMIT, || is_asleep(waiter.id()))?;
        Ok(waiter)
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(self.page.path()).context("failed to list the page")?.flatten() {
            fs::remove_file(entry.path()).context("failed to remove a slot")?;
        }
        Ok(())
    }
}

/// The waiting process.
pub fn queue(lock: &Path, page: &Path) -> Result<()> {
    let file = open(lock)?;
    file.lock().context("failed to wait for the raw lock")?;
    let woken = stamp::now();
    file.write_all_at(format!("{woken:020}\n").as_bytes(), 0).context("failed to write the counter")?;
    file.sync_all().context("failed to sync the counter")?;
    replace_record(lock)?;
    let written = stamp::now();
    let mut workload = start_workload(page, written)?;
    println!("{woken} {written}");
    workload.wait().context("failed to wait for the workload")?;
    Ok(())
}

fn start_workload(page: &Path, token: u64) -> Result<Child> {
    let words = beat::command(page)?;
    let (program, arguments) = words.split_first().context("no command to start")?;
    let identity = Identity { token, activation: token.into(), member: "raw".to_owned() };
    let mut command = Command::new(program);
    command.args(arguments).env("SOLOIST_FENCING_TOKEN", token.to_string());
    command.env("SOLOIST_ACTIVATION", format!("{:032x}", identity.activation)).env("SOLOIST_MEMBER", identity.member);
    command.stdout(Stdio::null()).spawn().context("failed to start the raw workload")
}

fn open(lock: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock);
    file.with_context(|| format!("failed to open {}", lock.display()))
}

/// What every write of a record costs at least: a new file, durable, renamed over the old one, durably.
fn replace_record(lock: &Path) -> Result<()> {
    let (record, temporary) = (lock.with_extension("record"), lock.with_extension("new"));
    let folder = lock.parent().context("a lock without a folder")?;
    let mut file = File::create(&temporary).context("failed to create a raw record")?;
    file.write_all(&[b'x'; RECORD_BYTES]).context("failed to write a raw record")?;
    file.sync_all().context("failed to sync a raw record")?;
    fs::rename(&temporary, &record).context("failed to rename a raw record")?;
    File::open(folder).and_then(|folder| folder.sync_all()).context("failed to sync the folder")
}
