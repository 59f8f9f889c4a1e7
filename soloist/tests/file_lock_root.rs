//! The file lock on file systems that only root can make: full, read-only. Needs root and mount(8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use election::{Activation, Attempt, Claim, Evidence, Holder, Member, Nonce, Record, Version, Write};
use soloist::lock::Lock;
use soloist::lock::file::{Category, FileLock, Keepers, Refusal, Settings};
use soloist::workload::process::{ProcessId, boot_id};

/// A small tmpfs, unmounted in the end.
struct Mount {
    folder: tempfile::TempDir,
}

fn run(command: &str, arguments: &[&str]) {
    let status = Command::new(command).args(arguments).status().expect("it can be executed");
    assert!(status.success(), "{command} {arguments:?}: {status}; these tests need root");
}

impl Mount {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", folder.path().to_str().unwrap()]);
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self, option: &str) {
        run("mount", &["-o", &format!("remount,{option}"), self.path().to_str().unwrap()]);
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn open(folder: &Path) -> Result<FileLock, Refusal> {
    let own = ProcessId::own().unwrap();
    let keepers = Keepers { elector: own, guard: own, boot_id: boot_id().unwrap(), cgroup: None, tree: None };
    FileLock::open(Settings { path: folder.join("app.lock"), allow_remote_fs: false, keepers })
}

fn held(attempt: u64) -> Record {
    let claim = Claim::Held(Holder {
        member: Member { name: "a".into(), nonce: Nonce(1) },
        activation: Activation(1),
        attempt: Attempt { count: attempt, random: 1 },
        token: None,
    });
    Record { claim, lease: std::time::Duration::from_secs(15), slots: 1, paused_until_unix_ms: None }
}

fn denied(write: Write, expected: &str) {
    assert!(matches!(&write, Write::Denied(why) if why.contains(expected)), "{write:?}");
}

#[tokio::test]
async fn no_activation_on_a_full_disk() {
    let mount = Mount::new("size=64k,mode=755");
    let filler = mount.fill();
    let lock = open(mount.path()).unwrap();
    denied(lock.write(Version::ABSENT, &held(1), "why").await, "No space left");
    assert!(lock.descriptor().is_none());
    let seen = lock.read().await.unwrap();
    assert_eq!((seen.record, seen.evidence), (None, Evidence::None));
    std::fs::remove_file(filler).unwrap();
    assert!(matches!(lock.write(Version::ABSENT, &held(2), "why").await, Write::Written(_)));
}

#[tokio::test]
async fn a_renewal_on_a_full_disk_keeps_the_old_record() {
    let mount = Mount::new("size=64k,mode=755");
    let lock = open(mount.path()).unwrap();
    let Write::Written(version) = lock.write(Version::ABSENT, &held(1), "why").await else { panic!("not written") };
    let filler = mount.fill();
    denied(lock.write(version, &held(2), "why").await, "No space left");
    assert_eq!(lock.read().await.unwrap().version, version);
    std::fs::remove_file(filler).unwrap();
    assert!(matches!(lock.write(version, &held(3), "why").await, Write::Written(_)));
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_denies() {
    let mount = Mount::new("size=64k,mode=755");
    let lock = open(mount.path()).unwrap();
    let Write::Written(version) = lock.write(Version::ABSENT, &held(1), "why").await else { panic!("not written") };
    // Closes what is open for writing, which a read-only mount does not allow.
    drop(lock.descriptor());
    mount.remount("ro");
    denied(lock.write(version, &held(2), "why").await, "Read-only");
    let refusal = open(mount.path()).err().expect("it is refused");
    assert!(matches!(refusal, Refusal::ReadOnly { .. }), "{refusal}");
    assert_eq!(refusal.category(), Category::Permission);
    mount.remount("rw");
    assert!(matches!(lock.write(version, &held(3), "why").await, Write::Written(_)));
}

#[tokio::test]
async fn a_layered_file_system_is_refused_unless_allowed() {
    let mount = Mount::new("size=1m,mode=755");
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(mount.path().join(name)).unwrap();
    }
    let at = |name: &str| mount.path().join(name).to_str().unwrap().to_owned();
    let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    run("mount", &["-t", "overlay", "-o", &options, "overlay", &at("merged")]);
    let refusal = open(Path::new(&at("merged"))).err();
    let own = ProcessId::own().unwrap();
    let keepers = Keepers { elector: own, guard: own, boot_id: boot_id().unwrap(), cgroup: None, tree: None };
    let path = mount.path().join("merged/app.lock");
    let allowed = FileLock::open(Settings { path, allow_remote_fs: true, keepers }).map(drop);
    run("umount", &["-l", &at("merged")]);
    assert!(matches!(refusal, Some(Refusal::RemoteOrLayered { kind: "overlayfs", .. })));
    assert!(allowed.is_ok());
}

/// Not a test by itself: the other user's process of `another_user_is_told_what_is_missing`.
#[test]
fn other_user() {
    let Some(folder) = std::env::var_os("SOLOIST_TEST_FOLDER") else { return };
    let refusal = open(Path::new(&folder)).err().expect("it is refused");
    assert!(matches!(refusal, Refusal::NotWritable { uid: 65534, .. }), "{refusal}");
    assert_eq!(refusal.category(), Category::Permission);
}

#[test]
fn another_user_is_told_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    // Once the folder cannot be written, once only the file.
    for (folder_mode, owner) in [(0o755, "0:0"), (0o755, "65534:65534")] {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(folder_mode)).unwrap();
        run("chown", &[owner, folder.path().to_str().unwrap()]);
        // A copy, since others may not reach the folder where cargo builds.
        let copy = folder.path().join("other-user");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let status = Command::new(&copy)
            .args(["other_user", "--exact"])
            .env("SOLOIST_TEST_FOLDER", folder.path())
            .stdout(Stdio::null())
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .status()
            .expect("it can be executed");
        assert!(status.success(), "{owner}: {status}");
    }
}
