//! The file lock as a whole.

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
async fn a_flock_that_was_stolen_by_deleting_is_unproven_and_kills_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    written(first.write(Version::ABSENT, &held(unique(0xA1), 1), "why").await);
    let mut child = worker(unique(0xA1), first.descriptor());
    fs::remove_file(at(&folder)).unwrap();
    let second = open(&folder);
    assert_eq!(free(&second).await.evidence, Evidence::Unproven);
    assert!(child.0.try_wait().unwrap().is_none(), "its keepers live, they see to it");
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
async fn a_free_flock_without_release_is_unproven_and_swept_once() {
    let folder = tempfile::tempdir().unwrap();
    let version = abandoned(&folder, unique(0xB1), dead_keepers()).await;
    let mut left = worker(unique(0xB1), None);
    let lock = open(&folder);
    assert_eq!(free(&lock).await.evidence, Evidence::Unproven);
    left.0.wait().unwrap();
    let mut second = worker(unique(0xB1), None);
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::Unproven);
    assert!(second.0.try_wait().unwrap().is_none(), "one look sweeps");
    written(lock.write(version, &held(unique(0xB2), 1), "why").await);
    second.0.wait().unwrap();
}

#[tokio::test]
async fn what_is_left_of_a_warm_workload_is_swept_by_its_mark() {
    let folder = tempfile::tempdir().unwrap();
    let mark = unique(0xB3).to_string();
    let tree = Some(Tree { mark: mark.clone(), cgroup: None });
    abandoned(&folder, unique(0xB4), Keepers { tree, ..dead_keepers() }).await;
    let standby = |mark: &str| {
        let mut command = Command::new("sleep");
        command.arg("1000").env(process::MARK, mark);
        started(&mut command, format!("{}={mark}", process::MARK))
    };
    let (mut left, mut other) = (standby(&mark), standby("another"));
    let lock = open(&folder);
    assert_eq!(free(&lock).await.evidence, Evidence::Unproven);
    left.0.wait().unwrap();
    assert!(other.0.try_wait().unwrap().is_none(), "it belongs to somebody else");
}

#[tokio::test]
async fn an_earlier_boot_is_proof() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = Keepers { boot_id: "00000000-0000-0000-0000-000000000000".into(), ..own_keepers() };
    let version = abandoned(&folder, 1, earlier).await;
    let lock = open(&folder);
    assert_eq!(free(&lock).await.evidence, Evidence::Gone(Proof::Rebooted));
    written(lock.write(version, &held(2, 1), "why").await);
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::None, "the own activation needs no evidence");
}

#[tokio::test]
async fn another_host_is_no_earlier_boot() {
    let record = codec_document(1);
    let other = Keepers { boot_id: "another".into(), ..own_keepers() };
    let mut document = record;
    other.store(&mut document).unwrap();
    let evidence = |remote| evidence::gather(&document, Activation(1), &own_keepers(), remote).evidence;
    assert_eq!(evidence(false), Evidence::Gone(Proof::Rebooted));
    assert_eq!(evidence(true), Evidence::Unproven);
}

fn codec_document(activation: u128) -> crate::lock::codec::Document {
    let record = held(activation, 1);
    crate::lock::codec::Document {
        record,
        version: Some(1),
        history: Vec::new(),
        backend: Default::default(),
        unknown: Default::default(),
    }
}

#[tokio::test]
async fn a_holder_that_does_not_renew_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // One process is elector, guard and workload: it has the flock and is stopped.
    let path = at(&folder);
    File::create(&path).unwrap();
    let flocked = open(&folder);
    let standby = open(&folder);
    assert_eq!(standby.read().await.unwrap().evidence, Evidence::Busy);
    let child = Started::from(Command::new("sleep").arg("1000"));
    let id = ProcessId::of(child.0.id() as i32).unwrap();
    flocked.shared.known().keepers = Keepers { elector: id, guard: id, ..own_keepers() };
    let version = written(flocked.write(Version::ABSENT, &held(unique(0xC1), 1), "why").await);
    let workload = worker(unique(0xC1), flocked.descriptor());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id.pid), nix::sys::signal::Signal::SIGSTOP).unwrap();

    // The first try ends it; the read after it says how well that is known.
    assert_eq!(standby.write(version, &held(unique(0xC2), 1), "why").await, Write::Conflict);
    assert_eq!(standby.read().await.unwrap().evidence, Evidence::Unproven);
    let taken = written(standby.write(version, &held(unique(0xC2), 1), "why").await);
    assert!(taken.number > version.number);
    for mut killed in [child, workload] {
        killed.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_holder_that_cannot_be_killed_keeps_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    let version = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    let descriptor = first.descriptor();
    let answer = second.write(version, &held(2, 1), "why").await;
    assert!(matches!(&answer, Write::Denied(why) if why.contains("lslocks")), "{answer:?}");
    assert_eq!(second.read().await.unwrap().version, version);
    drop(descriptor);
    assert_eq!(free(&second).await.evidence, Evidence::Unproven);
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

#[tokio::test]
async fn fields_of_others_survive_every_write() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let mut edited = fields(&folder);
    edited["note"] = "keep me".into();
    edited["backend"]["future"] = 5.into();
    fs::write(beside(&folder, ".record"), edited.to_string()).unwrap();
    let survives = |when: &str| {
        let now = fields(&folder);
        assert_eq!((&now["note"], &now["backend"]["future"]), (&"keep me".into(), &5.into()), "{when}");
        assert!(now["backend"]["keepers"]["boot_id"].is_string());
    };
    let renewed = written(lock.write(acquired, &held(1, 2), "why").await);
    survives("renewal");
    let ended = release_after_proof(lock.path(), Activation(1), Proof::NoChildLeft, None, "why").unwrap().unwrap();
    assert!(ended.number > renewed.number);
    survives("the guard's release");
    assert_eq!(free(&lock).await.version, ended);
    let acquired = written(lock.write(ended, &held(2, 1), "why").await);
    survives("acquiring write");
    written(lock.write(acquired, &released(2), "why").await);
    survives("release");
}

#[tokio::test]
async fn what_cannot_be_read_is_foreign_and_compared_by_content() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(beside(&folder, ".record"), "one").unwrap();
    let lock = open(&folder);
    let one = lock.read().await.unwrap();
    assert!(matches!(one.record.as_ref().unwrap().claim, Claim::Foreign(_)));
    assert_eq!(lock.read().await.unwrap(), one, "the same content has the same version");
    fs::write(beside(&folder, ".record"), "two").unwrap();
    assert_eq!(lock.write(one.version, &held(1, 1), "why").await, Write::Conflict);
    let two = lock.read().await.unwrap();
    assert!(two.version.number > one.version.number);
    let acquired = written(lock.write(two.version, &held(1, 1), "why").await);
    assert!(acquired.number > two.version.number);
    // Edited under the holder: it may write again by compare-and-set.
    fs::write(beside(&folder, ".record"), "three").unwrap();
    let three = lock.read().await.unwrap();
    assert!(three.version.number > acquired.number);
    written(lock.write(three.version, &held(1, 2), "why").await);
    assert!(fields(&folder)["backend"]["keepers"].is_object());
}

#[tokio::test]
async fn a_write_does_not_wait_long_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let busy = WriteLock::take(&lock.shared.paths, Duration::ZERO).unwrap();
    let start = Instant::now();
    let write = lock.write(Version::ABSENT, &held(1, 1), "why").await;
    assert!(matches!(&write, Write::Denied(why) if why.contains("busy")), "{write:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    drop(busy);
    written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
}

#[tokio::test]
async fn what_is_not_the_holders_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    let acquired = written(first.write(Version::ABSENT, &held(1, 1), "why").await);
    assert!(matches!(second.write(acquired, &released(2), "why").await, Write::Denied(_)));
    assert!(matches!(second.write(acquired, &held(1, 2), "why").await, Write::Denied(_)), "a clone of the holder");
    let foreign = election::Foreign { holder: None, fingerprint: 0, why: String::new() };
    let record = Record { claim: Claim::Foreign(foreign), ..held(1, 1) };
    assert!(matches!(first.write(acquired, &record, "why").await, Write::Denied(_)));
    let record = Record { lease: Duration::ZERO, ..held(1, 2) };
    assert!(matches!(first.write(acquired, &record, "why").await, Write::Denied(_)));
    assert_eq!(second.read().await.unwrap().version, acquired);
}

#[tokio::test]
async fn a_denied_acquiring_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    fs::create_dir(beside(&folder, ".record.new")).unwrap();
    let write = lock.write(Version::ABSENT, &held(1, 1), "why").await;
    assert!(matches!(write, Write::Denied(_)), "{write:?}");
    assert!(lock.descriptor().is_none());
    assert_eq!(lock.read().await.unwrap().record, None);
    assert_eq!(fs::read_to_string(at(&folder)).unwrap(), format!("{:020}\n", 1), "it is counted before it may be used");
    fs::remove_dir(beside(&folder, ".record.new")).unwrap();
    let acquired = written(lock.write(Version::ABSENT, &held(1, 2), "why").await);
    assert_eq!(acquired.number, 2, "a token that may have been used is not used again");
}

#[tokio::test]
async fn an_unknown_acquiring_write_is_settled_by_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    // As after an error behind the rename.
    let unsettle = || lock.shared.known().own.as_mut().unwrap().settled = false;
    unsettle();
    assert!(lock.descriptor().is_none(), "not before it is known");
    lock.read().await.unwrap();
    let descriptor = lock.descriptor().unwrap();
    unsettle();
    let renewed = written(lock.write(acquired, &held(1, 2), "why").await);
    assert_eq!(token(&lock.read().await.unwrap()), acquired.number, "it was a renewal");
    drop(descriptor);
    written(lock.write(renewed, &released(1), "why").await);
}

#[tokio::test]
async fn an_unknown_acquiring_write_that_did_not_land_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    lock.shared.known().own.as_mut().unwrap().settled = false;
    fs::remove_file(beside(&folder, ".record")).unwrap();
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::None, "the flock is kept");
    let again = written(lock.write(Version::ABSENT, &held(1, 2), "why").await);
    assert!(again.number > acquired.number);
    assert_eq!(token(&lock.read().await.unwrap()), again.number, "with a new token");
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

#[tokio::test]
async fn threads_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (active, last_token) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let members = (0..4u128).map(|member| {
        let lock = open(&folder);
        let (active, last_token) = (Arc::clone(&active), Arc::clone(&last_token));
        async move {
            for turn in 0..5u128 {
                let activation = 1 + member * 100 + turn;
                let acquired = loop {
                    let seen = free(&lock).await;
                    match lock.write(seen.version, &held(activation, 1), "why").await {
                        Write::Written(version) => break version,
                        Write::Conflict | Write::Gone => {}
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(active.fetch_add(1, Ordering::SeqCst), 0, "two are active");
                let earlier = last_token.swap(acquired.number as usize, Ordering::SeqCst);
                assert!(acquired.number as usize > earlier);
                let descriptor = lock.descriptor().unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                active.fetch_sub(1, Ordering::SeqCst);
                release_after_proof(lock.path(), Activation(activation), Proof::NoChildLeft, None, "why")
                    .unwrap()
                    .unwrap();
                drop(descriptor);
            }
        }
    });
    let members: Vec<_> = members.map(tokio::spawn).collect();
    for member in members {
        member.await.unwrap();
    }
}

/// Not a test by itself: the other process of `processes_exclude_each_other`.
#[tokio::test]
async fn other_process() {
    let Some(path) = std::env::var_os("SOLOIST_TEST_LOCK") else { return };
    let settings = Settings { path: path.into(), allow_remote_fs: false, keepers: own_keepers() };
    let lock = FileLock::open(settings).unwrap();
    written(lock.write(Version::ABSENT, &held(unique(0xD1), 1), "why").await);
    let _descriptor = lock.descriptor();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn processes_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    lock.step_back(Duration::from_secs(1));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["lock::file::tests::other_process", "--exact"]).env("SOLOIST_TEST_LOCK", at(&folder));
    let child = Started::from(command.stdout(Stdio::null()));
    let version = tokio::time::timeout(SOON, async {
        loop {
            let seen = lock.read().await.unwrap();
            if seen.version != Version::ABSENT {
                assert_eq!(seen.evidence, Evidence::Busy);
                return seen.version;
            }
            lock.changed(seen.version).await.unwrap();
        }
    });
    let version = version.await.expect("the other process acquires");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(lock.read().await.unwrap().evidence, Evidence::Busy);
    drop(child);
    assert_eq!(free(&lock).await.evidence, Evidence::Unproven);
    written(lock.write(version, &held(unique(0xD2), 1), "why").await);
}

/// Not a test by itself: the other process of `an_idle_standby_sleeps`.
#[tokio::test]
async fn other_standby() {
    let Some(path) = std::env::var_os("SOLOIST_TEST_STANDBY") else { return };
    let settings = Settings { path: path.into(), allow_remote_fs: false, keepers: own_keepers() };
    let lock = FileLock::open(settings).unwrap();
    let seen = lock.read().await.unwrap();
    lock.changed(seen.version).await.unwrap();
    panic!("nothing changes");
}

/// How often the threads of a process have gone to sleep.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok()).map(of).sum()
}

/// Whether a process has a thread that queues for a flock.
fn queues(pid: u32) -> bool {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.any(|task| fs::read_to_string(task.unwrap().path().join("comm")).is_ok_and(|name| name.trim() == "flock"))
}

#[tokio::test]
async fn an_idle_standby_sleeps() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["lock::file::tests::other_standby", "--exact"]).env("SOLOIST_TEST_STANDBY", at(&folder));
    let mut child = Started::from(command.stdout(Stdio::null()));
    // Until it has come to rest: a second without any change.
    let limit = Instant::now() + SOON;
    loop {
        let before = sleeps(child.0.id());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if queues(child.0.id()) && sleeps(child.0.id()) == before {
            break;
        }
        assert!(Instant::now() < limit, "it never comes to rest");
    }
    assert!(child.0.try_wait().unwrap().is_none(), "it still stands by");
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_does_not_keep_the_flock() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "why").await);
    // As a slow write has it.
    let flock = lock.shared.queue.won().unwrap().unwrap();
    let descriptor = lock.descriptor().expect("a copy");
    assert!(descriptor.as_fd().try_clone_to_owned().is_ok());
    drop((flock, descriptor));
    let ended = written(lock.write(acquired, &released(1), "why").await);
    assert_eq!(free(&lock).await.version, ended);
}

#[tokio::test]
async fn history_tells_who_was_active_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let lock = open(&folder);
    let history = || codec::decode(&fs::read(beside(&folder, ".record")).unwrap()).history;
    let acquired = written(lock.write(Version::ABSENT, &held(1, 1), "acquiring: nobody was there").await);
    let renewed = written(lock.write(acquired, &held(1, 2), "renewing").await);
    assert_eq!(history().len(), 1);
    let ended = written(lock.write(renewed, &released(1), "asked to leave: stopping the workload").await);
    free(&lock).await;
    let second = written(lock.write(ended, &held(2, 1), "acquiring: member-1 released").await);
    release_after_proof(lock.path(), Activation(2), Proof::NoChildLeft, None, "the elector was gone").unwrap().unwrap();
    let told: Vec<_> =
        history().into_iter().map(|change| (change.token, change.member, change.why, change.end)).collect();
    let entry = |token: Version, member: &str, why: &str, end: &str| {
        (Some(token.number), member.to_owned(), why.to_owned(), Some(end.to_owned()))
    };
    let expected = [
        entry(acquired, "member-1", "nobody was there", "asked to leave"),
        entry(second, "member-2", "member-1 released", "the elector was gone"),
    ];
    assert_eq!(told, expected);
    assert!(history().iter().all(|change| change.until_us.is_some_and(|until| until >= change.from_us)));
}

#[tokio::test]
async fn who_left_no_release_is_ended_by_its_successor_in_the_history() {
    let folder = tempfile::tempdir().unwrap();
    let version = abandoned(&folder, 1, dead_keepers()).await;
    let lock = open(&folder);
    free(&lock).await;
    written(lock.write(version, &held(2, 1), "acquiring: member-1 is proven gone").await);
    let look = crate::lock::board::Board::look(&FileBoard::open(&at(&folder)).unwrap()).await.unwrap();
    let ends: Vec<_> = look.history.iter().map(|change| (change.end.as_deref(), change.until_us)).collect();
    assert_eq!(ends, [(Some("no release: member-1 is proven gone"), None), (None, None)]);
}
