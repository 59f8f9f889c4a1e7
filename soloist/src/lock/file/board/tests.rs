use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::lock::board::Wish;
use crate::lock::board::contract::{self, asked, member};

const SOON: Duration = Duration::from_secs(10);

fn at(folder: &TempDir) -> PathBuf {
    folder.path().join("app.lock")
}

fn open(folder: &TempDir) -> FileBoard {
    FileBoard::open(&at(folder)).unwrap()
}

async fn names(board: &FileBoard) -> Vec<String> {
    board.look().await.unwrap().members.into_iter().map(|member| member.name).collect()
}

#[tokio::test]
async fn keeps_the_contract() {
    // The folders outlive the boards.
    let folders = std::cell::RefCell::new(Vec::new());
    contract::suite(async || {
        let folder = tempfile::tempdir().unwrap();
        let pair = (open(&folder), open(&folder));
        folders.borrow_mut().push(folder);
        pair
    })
    .await;
    for folder in folders.into_inner() {
        let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let odd: Vec<_> = left.filter(|name| name.to_string_lossy().contains(".new")).collect();
        assert!(odd.is_empty(), "temporary files are left: {odd:?}");
    }
}

#[tokio::test]
async fn reading_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    let look = board.look().await.unwrap();
    assert_eq!((look.seen.version, look.members.len(), look.history.len()), (election::Version::ABSENT, 0, 0));
    assert_eq!(board.asked().await.unwrap(), None);
    assert_eq!(board.answered("x").await.unwrap(), None);
    assert!(board.changed().await.unwrap().any());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(FileBoard::open(&folder.path().join("missing/app.lock")).is_err());
}

#[tokio::test]
async fn files_of_others_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    board.announce(&member("a", 1)).await.unwrap();
    let place = |nonce: u128| folder.path().join("app.lock.members").join(file_name(&Nonce(nonce).to_string()));
    let text = |announcement: &Announcement| serde_json::to_string(announcement).unwrap();
    fs::write(place(2), "").unwrap();
    fs::write(place(3), [0xff; 100]).unwrap();
    fs::write(place(4), "x".repeat(100_000)).unwrap();
    fs::write(place(5), text(&member("b", 1))).unwrap();
    fs::write(place(6), text(&member("../b", 6))).unwrap();
    fs::write(place(7), text(&Announcement { role: "\u{1b}[2J".into(), ..member("b", 7) })).unwrap();
    symlink(place(1), place(8)).unwrap();
    fs::create_dir(place(9)).unwrap();
    nix::unistd::mkfifo(&place(10), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(folder.path().join("app.lock.members/readme"), "hello").unwrap();
    assert_eq!(names(&board).await, ["a"]);
    // Without a writer only the clock tells.
    fs::write(place(11), text(&member("b", 11))).unwrap();
    assert_eq!(names(&board).await, ["a", "b"]);
    board.announce(&member("a", 1)).await.unwrap();
    assert!(place(3).exists() && place(8).exists(), "what is not ours is not removed");
}

#[tokio::test]
async fn a_crowd_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    let path = folder.path().join("app.lock.members");
    make_folder(&path).unwrap();
    for nonce in 0..MEMBERS_MAX as u128 + 20 {
        let text = serde_json::to_string(&member("a", nonce)).unwrap();
        fs::write(path.join(file_name(&Nonce(nonce).to_string())), text).unwrap();
    }
    assert_eq!(names(&board).await.len(), MEMBERS_MAX);
}

#[tokio::test]
async fn a_member_that_dies_disappears_at_once_and_its_end_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    board.announce(&member("a", 1)).await.unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let process = ProcessId::of(child.id() as i32).unwrap();
    let other = open(&folder);
    other.files.own.get_or_init(|| Some(Writer { process, ..Writer::own().unwrap() }));
    other.announce(&member("b", 2)).await.unwrap();
    while tokio::time::timeout(Duration::from_millis(50), board.changed()).await.is_ok() {}
    assert_eq!(names(&board).await, ["a", "b"]);
    child.kill().unwrap();
    let heard = tokio::time::timeout(SOON, board.changed()).await.expect("it is heard").unwrap();
    assert!(heard.members);
    assert_eq!(names(&board).await, ["a"]);
    child.wait().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), board.changed()).await.is_err(), "once");
    // Whoever announces next clears it away.
    board.announce(&member("a", 1)).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join("app.lock.members")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_pid_of_another_boot_or_namespace_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    let gone = Writer { process: ProcessId { pid: i32::MAX, start_ticks: 1 }, ..Writer::own().unwrap() };
    for (nonce, writer) in [
        (1, gone.clone()),
        (2, Writer { boot_id: "another".into(), ..gone.clone() }),
        (3, Writer { pid_namespace: "pid:[1]".into(), ..gone }),
    ] {
        let posted = Posted { announcement: member(&format!("m{nonce}"), nonce), writer: Some(writer) };
        make_folder(&board.files.paths.members).unwrap();
        let path = board.files.paths.members.join(file_name(&posted.announcement.nonce));
        fs::write(path, serde_json::to_string(&posted).unwrap()).unwrap();
    }
    assert_eq!(names(&board).await, ["m2", "m3"]);
}

#[tokio::test]
async fn a_renewal_is_no_change_of_the_members() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    board.announce(&member("a", 1)).await.unwrap();
    while tokio::time::timeout(Duration::from_millis(50), board.changed()).await.is_ok() {}
    let new = folder.path().join("app.lock.record.new");
    fs::write(&new, "{}").unwrap();
    fs::rename(new, folder.path().join("app.lock.record")).unwrap();
    let heard = tokio::time::timeout(SOON, board.changed()).await.expect("it is heard").unwrap();
    assert_eq!(heard, Changes { lock: true, ..Changes::default() });
}

#[tokio::test]
async fn a_folder_that_was_removed_is_made_and_heard_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(&folder), open(&folder));
    first.announce(&member("a", 1)).await.unwrap();
    while tokio::time::timeout(Duration::from_millis(50), second.changed()).await.is_ok() {}
    fs::remove_dir_all(folder.path().join("app.lock.members")).unwrap();
    assert!(tokio::time::timeout(SOON, second.changed()).await.expect("it is heard").unwrap().members);
    assert!(names(&second).await.is_empty());
    first.announce(&member("a", 1)).await.unwrap();
    second.announce(&member("b", 2)).await.unwrap();
    let heard = async { while !second.changed().await.unwrap().members {} };
    tokio::time::timeout(SOON, heard).await.expect("it is heard");
    assert_eq!(names(&second).await, ["a", "b"]);
}

#[tokio::test]
async fn what_is_in_the_way_of_requests_and_members_is_said_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    let request = folder.path().join("app.lock.request");
    for garbage in ["", "{}", "null", &"x".repeat(100_000)] {
        fs::write(&request, garbage).unwrap();
        assert_eq!(board.asked().await.unwrap(), None, "{garbage:.10}");
    }
    assert_eq!(board.ask(&asked("one", Wish::Resume)).await.unwrap(), Asking::Up, "garbage makes room");
    fs::remove_file(&request).unwrap();
    symlink(folder.path().join("target"), &request).unwrap();
    assert!(board.asked().await.is_err());
    assert!(board.ask(&asked("two", Wish::Resume)).await.is_err());
    assert!(!folder.path().join("target").exists());
    fs::write(folder.path().join("app.lock.members"), "no folder").unwrap();
    assert!(board.announce(&member("a", 1)).await.is_err());
    assert!(board.look().await.is_err());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[tokio::test]
async fn a_request_that_was_answered_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    let (one, two) = (asked("one", Wish::Resume), asked("two", Wish::Resume));
    board.ask(&one).await.unwrap();
    // The answer is there, and whoever gave it was killed before it could take the request down.
    let request = folder.path().join("app.lock.request");
    let left = fs::read(&request).unwrap();
    board.answer(&Answer { id: "one".into(), by: "a".into(), refusal: None }).await.unwrap();
    fs::write(&request, left).unwrap();
    assert_eq!(board.ask(&two).await.unwrap(), Asking::Up);
    assert_eq!(board.asked().await.unwrap(), Some(two));
    fs::write(folder.path().join("app.lock.answer"), "garbage").unwrap();
    assert_eq!(board.answered("one").await.unwrap(), None);
}

#[tokio::test]
async fn who_may_read_may_look() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).announce(&member("a", 1)).await.unwrap();
    let members = folder.path().join("app.lock.members");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&members) & 0o022 & !0o020, 0, "not writable for everybody");
    let file = fs::read_dir(&members).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&file) & 0o002, 0);
    assert_eq!(mode(&file) & 0o400, 0o400);
}

#[tokio::test]
async fn what_nobody_would_read_is_not_announced() {
    let folder = tempfile::tempdir().unwrap();
    let board = open(&folder);
    for odd in [
        Announcement { name: "a b".into(), ..member("a", 1) },
        Announcement { nonce: "../x".into(), ..member("a", 1) },
        Announcement { why: Some("line\nbreak".into()), ..member("a", 1) },
        Announcement { version: "x".repeat(10_000), ..member("a", 1) },
    ] {
        assert!(board.announce(&odd).await.is_err(), "{odd:?}");
    }
    board.withdraw("../../x").await.unwrap();
    assert!(names(&board).await.is_empty());
}
