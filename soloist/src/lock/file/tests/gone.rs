//! What is known of a holder that has left no release, and what becomes of its processes.

use super::*;

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
