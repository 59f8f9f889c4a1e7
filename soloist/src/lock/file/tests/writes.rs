//! What a write does, what it leaves alone, and what is known of one that failed.

use super::*;

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
