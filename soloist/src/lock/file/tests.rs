//! The file lock as a whole.

mod exclusion;
mod gone;
mod writes;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use election::{Proof, Token};
use tempfile::TempDir;

use super::store::WriteLock;
use super::*;
use crate::lock::codec;
use crate::lock::contract::{self, free, held, released, written};
use crate::workload::process;

/// Longer than anything here needs.
const SOON: Duration = Duration::from_secs(10);

fn own_keepers() -> Keepers {
    let own = ProcessId::own().unwrap();
    Keepers { elector: own, guard: own, boot_id: process::boot_id().unwrap(), cgroup: None, tree: None }
}

/// Keepers that have died.
fn dead_keepers() -> Keepers {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let id = ProcessId::of(child.id() as i32).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    Keepers { elector: id, guard: id, ..own_keepers() }
}

fn at(folder: &TempDir) -> PathBuf {
    folder.path().join("app.lock")
}

fn open_with(folder: &TempDir, keepers: Keepers) -> FileLock {
    FileLock::open(Settings { path: at(folder), allow_remote_fs: false, keepers }).unwrap()
}

fn open(folder: &TempDir) -> FileLock {
    open_with(folder, own_keepers())
}

fn beside(folder: &TempDir, suffix: &str) -> PathBuf {
    folder.path().join(format!("app.lock{suffix}"))
}

fn fields(folder: &TempDir) -> serde_json::Value {
    serde_json::from_slice(&fs::read(beside(folder, ".record")).unwrap()).unwrap()
}

fn token(seen: &Seen) -> u64 {
    match &seen.record.as_ref().unwrap().claim {
        Claim::Held(holder) => holder.token.unwrap().0,
        other => panic!("not held: {other:?}"),
    }
}

/// Of this run only: a sweep finds the processes of every run on this host.
fn unique(activation: u128) -> u128 {
    u128::from(std::process::id()) << 64 | activation
}

/// A process that is ended with the test, however that ends.
struct Started(Child);

impl Started {
    fn from(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that carries an activation, and holds the lock file where it is given one.
fn worker(activation: u128, lock: Option<OwnedFd>) -> Started {
    let mut command = Command::new("sleep");
    command.arg("1000").env("SOLOIST_ACTIVATION", Activation(activation).to_string());
    if let Some(lock) = lock {
        command.stdin(Stdio::from(lock));
    }
    started(&mut command, process::entry_of(Activation(activation)))
}

/// A process that carries this entry in its environment.
fn started(command: &mut Command, entry: String) -> Started {
    let child = Started::from(command);
    // The environment changes with exec only.
    let end = Instant::now() + SOON;
    let entries = [entry];
    while !process::carrying_any(&entries).iter().any(|found| found.pid == child.0.id() as i32) {
        assert!(Instant::now() < end, "it carries {entries:?}");
        std::thread::yield_now();
    }
    child
}

/// An activation whose flock is free, without a release, and kept by `keepers`.
async fn abandoned(folder: &TempDir, activation: u128, keepers: Keepers) -> Version {
    let lock = open_with(folder, keepers);
    assert_eq!(free(&lock).await.evidence, Evidence::None);
    written(lock.write(Version::ABSENT, &held(activation, 1), "why").await)
}

#[tokio::test]
async fn keeps_the_contract() {
    // The folders outlive the locks.
    let folders = std::cell::RefCell::new(Vec::new());
    contract::suite(async || {
        let folder = tempfile::tempdir().unwrap();
        let pair = (open(&folder), open(&folder));
        folders.borrow_mut().push(folder);
        pair
    })
    .await;
}

#[tokio::test]
async fn a_free_lock_starts_at_once_and_a_second_member_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    assert_eq!(first.read().await.unwrap().evidence, Evidence::None);
    assert_eq!(second.read().await.unwrap().evidence, Evidence::Busy);
    assert_eq!(second.write(Version::ABSENT, &held(2, 1), "why").await, Write::Conflict);
    assert!(first.descriptor().is_none(), "nothing has been acquired yet");
}

#[tokio::test]
async fn the_token_is_the_version_of_the_acquiring_write() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    assert_eq!(token(&lock.read().await.unwrap()), acquired.number);
    assert_eq!(fs::read_to_string(at(&folder)).unwrap(), format!("{:020}\n", acquired.number));
    let renewed = written(lock.write(acquired, &held(1, 2), "why").await);
    assert_eq!(token(&lock.read().await.unwrap()), acquired.number, "a renewal keeps it");
    assert_eq!(renewed.number, acquired.number + 1);
    assert_eq!(fs::read_to_string(at(&folder)).unwrap(), format!("{:020}\n", acquired.number));

    let mut named = held(2, 1);
    if let Claim::Held(holder) = &mut named.claim {
        holder.token = Some(Token(77));
    }
    let ended = written(lock.write(renewed, &released(1), "why").await);
    free(&lock).await;
    written(lock.write(ended, &named, "why").await);
    assert_eq!(lock.read().await.unwrap().record, Some(named), "a token that is given is kept");
}

#[tokio::test]
async fn tokens_grow_when_the_record_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for activation in 1..4 {
        // Each time another process, which remembers nothing.
        let lock = open(&folder);
        free(&lock).await;
        let acquired = written(lock.write(Version::ABSENT, &held(activation, 1), "why").await);
        assert!(acquired.number > last);
        last = acquired.number;
        written(lock.write(acquired, &held(activation, 2), "why").await);
        fs::remove_file(beside(&folder, ".record")).unwrap();
    }
}

#[tokio::test]
async fn tokens_grow_within_a_process_when_everything_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let ended = written(lock.write(acquired, &released(1), "why").await);
    for suffix in ["", ".record", ".write"] {
        fs::remove_file(beside(&folder, suffix)).unwrap();
    }
    assert_eq!(free(&lock).await.version, Version::ABSENT);
    let again = written(lock.write(Version::ABSENT, &held(2, 1), "why").await);
    assert!(again.number > ended.number);
}

#[tokio::test]
async fn a_lock_file_that_is_deleted_renamed_or_replaced_is_lost() {
    for way in ["deleted", "renamed", "replaced"] {
        let folder = tempfile::tempdir().unwrap();
        let lock = open(&folder);
        let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
        let descriptor = lock.descriptor().unwrap();
        let seen = lock.read().await.unwrap();
        let spoil = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match way {
                "deleted" => fs::remove_file(at(&folder)).unwrap(),
                "renamed" => fs::rename(at(&folder), folder.path().join("other")).unwrap(),
                _ => {
                    fs::write(folder.path().join("new"), "").unwrap();
                    fs::rename(folder.path().join("new"), at(&folder)).unwrap();
                }
            }
        };
        let woken = tokio::time::timeout(SOON, async { tokio::join!(lock.changed(seen.version), spoil) });
        woken.await.expect("the holder hears of it").0.unwrap();
        let write = lock.write(acquired, &held(1, 2), "why").await;
        assert!(matches!(write, Write::Lost(_)), "{way}: {write:?}");
        drop(descriptor);
        written(lock.write(acquired, &released(1), "why").await);
    }
}

#[tokio::test]
async fn a_deleted_record_is_written_again_by_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let _descriptor = lock.descriptor().unwrap();
    fs::remove_file(beside(&folder, ".record")).unwrap();
    assert_eq!(lock.write(acquired, &held(1, 2), "why").await, Write::Gone);
    assert_eq!(lock.read().await.unwrap().version, Version::ABSENT);
    let again = written(lock.write(Version::ABSENT, &held(1, 3), "why").await);
    assert!(again.number > acquired.number);
    assert_eq!(fs::read_to_string(at(&folder)).unwrap(), format!("{:020}\n", acquired.number), "no new token");
}

#[tokio::test]
async fn the_descriptor_alone_holds_the_lock_and_its_end_wakes_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    let version = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let descriptor = first.descriptor().unwrap();
    assert!(first.descriptor().is_none(), "once only");
    drop(first);
    let seen = second.read().await.unwrap();
    assert_eq!((seen.version, seen.evidence), (version, Evidence::Busy));
    assert!(tokio::time::timeout(Duration::from_millis(100), second.changed(version)).await.is_err());
    drop(descriptor);
    tokio::time::timeout(SOON, second.changed(version)).await.expect("woken by the flock").unwrap();
    assert_ne!(second.read().await.unwrap().evidence, Evidence::Busy);
}

#[tokio::test]
async fn the_guard_releases_and_the_holder_queues_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    let mut record = held(1, 1);
    record.lease = Duration::from_millis(7_300);
    let acquired = written(first.write(Version::ABSENT, &record, "why").await);
    let descriptor = first.descriptor().unwrap();
    let path = first.path().to_owned();
    let release =
        |activation| release_after_proof(&path, Activation(activation), Proof::CgroupEmpty, Some("b".into()), "why");

    assert_eq!(release(2).unwrap(), None, "not the holder");
    let ended = release(1).unwrap().unwrap();
    assert!(ended.number > acquired.number);
    assert_eq!(release(1).unwrap(), None, "once only");
    drop(descriptor);

    let seen = free(&second).await;
    let stored = seen.record.unwrap();
    assert_eq!(stored.lease, record.lease);
    match stored.claim {
        Claim::Released(release) => {
            assert_eq!((release.activation, release.proof), (Activation(1), Proof::CgroupEmpty));
            assert_eq!(release.attempt, election::Attempt { count: 1, random: 7 });
            assert_eq!(release.successor.as_deref(), Some("b"));
        }
        other => panic!("not released: {other:?}"),
    }
    // The holder learns of it by looking, and stands by again.
    assert_eq!(first.read().await.unwrap().evidence, Evidence::Busy);
    drop(second);
    assert_eq!(free(&first).await.version, ended);
}

#[derive(Default)]
struct Heard(Mutex<Vec<bool>>);

impl Announce for Heard {
    fn holding(&self) {
        self.0.lock().unwrap().push(true);
    }
    fn not_holding(&self) {
        self.0.lock().unwrap().push(false);
    }
}

#[tokio::test]
async fn what_is_held_is_announced() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let heard = Arc::new(Heard::default());
    let told = || std::mem::take(&mut *heard.0.lock().unwrap());
    lock.set_announce(heard.clone());
    assert_eq!(told(), [true], "the flock was won before");
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    assert!(told().is_empty(), "still held");
    let descriptor = lock.descriptor();
    assert_eq!(told(), [false]);
    let renewed = written(lock.write(acquired, &held(1, 2), "why").await);
    assert_eq!(told(), [true, false], "the write lock");
    drop(descriptor);
    written(lock.write(renewed, &released(1), "why").await);
    free(&lock).await;
    assert_eq!(told().last(), Some(&true), "queued and won again");
    lock.step_back(SOON);
    assert_eq!(told(), [false]);
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::Busy);
}

#[test]
fn looking_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let seen = look(&at(&folder)).unwrap();
    assert_eq!((seen.version, seen.record), (Version::ABSENT, None));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fs::write(beside(&folder, ".record"), "text").unwrap();
    let seen = look(&at(&folder)).unwrap();
    assert!(seen.version.number > 0);
    assert!(matches!(seen.record.unwrap().claim, Claim::Foreign(_)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(look(Path::new("/")), Err(LockError::Unavailable(_))));
}

#[tokio::test]
async fn a_folder_that_is_gone_is_no_absent_lock() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let settings = Settings { path: folder.join("app.lock"), allow_remote_fs: false, keepers: own_keepers() };
    let lock = FileLock::open(settings).unwrap();
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    fs::rename(&folder, parent.path().join("moved")).unwrap();
    assert!(matches!(lock.read().await, Err(LockError::Unavailable(_))));
    assert!(matches!(lock.write(acquired, &held(1, 2), "why").await, Write::Denied(_)));
}
