//! Threads and processes keep each other out, and sleep meanwhile.

use super::*;

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
    command.args(["lock::file::tests::exclusion::other_process", "--exact"]).env("SOLOIST_TEST_LOCK", at(&folder));
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
    command.args(["lock::file::tests::exclusion::other_standby", "--exact"]).env("SOLOIST_TEST_STANDBY", at(&folder));
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
