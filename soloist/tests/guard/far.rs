//! The elector dies, hangs, or has a terminal: it is a process of its own here.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use election::Activation;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use soloist::clock::now;
use soloist::lock::file::Announce;
use soloist::workload::Workload;
use soloist::workload::cgroup::{Base, prove_gone};
use soloist::workload::keeper::Keeper;
use soloist::workload::process::{ProcessId, carrying, sweep};
use tempfile::TempDir;

use super::{Cleanup, GUARD, LIMIT, TURN, fresh, gate, launch, send, try_base, wait_until, with_daemon, words};

/// Not a test of its own: an elector in a process of its own, for the tests below. It starts a daemon under a flock
/// and then does what its parent wants to see.
#[tokio::test]
async fn elector_process() {
    let Some(dir) = std::env::var_os("TEST_ELECTOR_DIR").map(PathBuf::from) else { return };
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let base: Option<Base> = serde_json::from_str(&read("base")).unwrap();
    let mut keeper = Keeper::spawn_from(GUARD.into(), base).unwrap();
    fs::write(dir.join("guard"), keeper.guard().pid.to_string()).unwrap();
    if dir.join("hold").exists() {
        keeper.announcer().holding();
        kill(Pid::this(), Signal::SIGSTOP).unwrap();
    }
    let command: Vec<String> = serde_json::from_str(&read("command")).unwrap();
    let mut launch = launch(
        Activation::parse(&read("activation")).unwrap(),
        words(&command.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    if let Ok(ms) = fs::read_to_string(dir.join("deadline")) {
        launch.kill_at = now() + Duration::from_millis(ms.parse().unwrap());
    }
    let lock = File::create(dir.join("the.lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    if dir.join("prepare").exists() {
        keeper.prepare(launch.preparation.clone());
        let guard = keeper.guard().pid;
        wait_until("the fork", || gate::is_at_the_gate(guard).is_some()).await;
        fs::write(dir.join("gated"), gate::is_at_the_gate(guard).unwrap().to_string()).unwrap();
        std::future::pending::<()>().await;
    }
    // A duplicate goes to the guard; closing this one must not unlock, so it is not dropped as a `Flock`.
    let copy = lock.try_clone().unwrap();
    std::mem::forget(lock);
    keeper.start(launch, Some(copy.into()));
    nix::unistd::close(lowest_lock(&dir)).unwrap();
    let mut log = String::new();
    loop {
        let event = keeper.next().await;
        log.push_str(&format!("{event:?}\n"));
        fs::write(dir.join("events.new"), &log).unwrap();
        fs::rename(dir.join("events.new"), dir.join("events")).unwrap();
    }
}

/// The number of the descriptor that is still open on the lock file.
fn lowest_lock(dir: &std::path::Path) -> i32 {
    let is_lock = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|path| path == dir.join("the.lock"));
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten().filter(is_lock);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).min().unwrap()
}

/// An elector in another process, with a daemon under it.
pub(super) struct Far {
    pub(super) dir: TempDir,
    pub(super) base: Option<Base>,
    pub(super) activation: Activation,
    pub(super) process: Child,
    pub(super) elector: ProcessId,
}

impl Far {
    pub(super) async fn play(base: Option<Base>, wrapper: &[&str], files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let activation = Activation(fresh());
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        let command = with_daemon(&dir, "exec sleep 1000");
        let command: Vec<_> = command.iter().map(|word| word.to_str().unwrap()).collect();
        write("command", serde_json::to_string(&command).unwrap());
        write("base", serde_json::to_string(&base).unwrap());
        write("activation", activation.to_string());
        for (name, text) in files {
            write(name, (*text).to_owned());
        }
        let test = std::env::current_exe().unwrap();
        let mut words = wrapper.iter().map(OsString::from).chain([test.into_os_string()]);
        let process = Command::new(words.next().unwrap())
            .args(words)
            .args(["--exact", "far::elector_process", "--test-threads", "1"])
            .env("TEST_ELECTOR_DIR", dir.path())
            .stdout(File::create(dir.path().join("out")).unwrap())
            .spawn()
            .unwrap();
        let elector = ProcessId::of(i32::try_from(process.id()).unwrap()).unwrap();
        Self { dir, base, activation, process, elector }
    }

    pub(super) async fn read(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        wait_until(name, || fs::read_to_string(&path).is_ok_and(|text| !text.is_empty())).await;
        fs::read_to_string(path).unwrap()
    }

    pub(super) async fn process(&self, name: &str) -> ProcessId {
        ProcessId::of(self.read(name).await.parse().unwrap()).unwrap()
    }

    pub(super) async fn until_event(&self, part: &str) -> String {
        let path = self.dir.path().join("events");
        wait_until(part, || fs::read_to_string(&path).is_ok_and(|text| text.contains(part))).await;
        fs::read_to_string(path).unwrap()
    }

    pub(super) fn is_unlocked(&self) -> bool {
        let lock = File::open(self.dir.path().join("the.lock")).unwrap();
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok()
    }

    pub(super) async fn leave(mut self) {
        let _ = self.elector.kill(LIMIT);
        self.process.wait().unwrap();
        sweep(self.activation, LIMIT);
        if let Some(base) = &self.base {
            wait_until("the base's removal", || {
                base.remove();
                !base.path.exists()
            })
            .await;
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Plays with an elector in another process, without a cgroup and with one.
pub(super) async fn each_far(wrapper: &[&str], files: &[(&str, &str)], test: impl AsyncFn(&mut Far)) {
    let _turn = TURN.lock().await;
    let with_base = try_base();
    let _cleanup = Cleanup(with_base.clone());
    for base in [None].into_iter().chain(with_base.map(Some)) {
        let mut far = Far::play(base, wrapper, files).await;
        test(&mut far).await;
        far.leave().await;
    }
}

#[tokio::test]
async fn when_the_elector_is_killed_the_guard_ends_the_tree() {
    each_far(&[], &[], async |far| {
        let (daemon, guard) = (far.process("daemon").await, far.process("guard").await);
        assert!(!far.is_unlocked());
        send(far.elector, Signal::SIGKILL);
        wait_until("the guard's end", || !guard.is_alive()).await;
        assert!(!daemon.is_alive());
        assert_eq!(carrying(far.activation), []);
        assert!(far.is_unlocked());
    })
    .await;
}

#[tokio::test]
async fn a_stopped_elector_loses_its_workload_and_its_lock_at_the_deadline() {
    each_far(&[], &[("deadline", "1500")], async |far| {
        let (daemon, guard) = (far.process("daemon").await, far.process("guard").await);
        send(far.elector, Signal::SIGSTOP);
        wait_until("stop", || far.elector.is_stopped()).await;
        wait_until("the daemon's end", || !daemon.is_alive()).await;
        wait_until("unlock", || far.is_unlocked()).await;
        assert!(far.elector.is_stopped() && guard.is_alive());
        send(far.elector, Signal::SIGCONT);
        far.until_event("Started").await;
        far.until_event("Gone").await;
    })
    .await;
}

#[tokio::test]
async fn an_elector_that_is_stopped_while_it_holds_a_lock_is_killed() {
    each_far(&[], &[("hold", "")], async |far| {
        let guard = far.process("guard").await;
        wait_until("the elector's end", || !far.elector.is_alive()).await;
        wait_until("the guard's end", || !guard.is_alive()).await;
    })
    .await;
}

#[tokio::test]
async fn when_both_keepers_die_at_once_the_cgroup_still_proves_it() {
    each_far(&[], &[], async |far| {
        let (daemon, guard) = (far.process("daemon").await, far.process("guard").await);
        // Stopped first, so that neither can react to the other's end.
        send(guard, Signal::SIGSTOP);
        send(far.elector, Signal::SIGKILL);
        send(guard, Signal::SIGKILL);
        wait_until("both ends", || !guard.is_alive() && !far.elector.is_alive()).await;
        let Some(base) = &far.base else {
            assert!(daemon.is_alive(), "only its environment tells what it belongs to");
            assert_eq!(sweep(far.activation, LIMIT).left, []);
            return;
        };
        assert!(prove_gone(base, far.activation, LIMIT).unwrap());
        assert!(!daemon.is_alive());
    })
    .await;
}

#[tokio::test]
async fn pid_1_of_a_namespace_proves_that_it_is_empty() {
    let works = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no PID namespaces here");
    }
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    each_far(&unshare, &[("deadline", "1500")], async |far| {
        far.until_event("PidNamespace").await;
        // Somebody comes in from outside: neither a child nor in the cgroup, and not allowed to stay either.
        let init = fs::read_to_string(format!("/proc/{0}/task/{0}/children", far.process.id())).unwrap();
        let mut stranger = Command::new("nsenter").args(["-t", init.trim(), "-p", "sleep", "1000"]).spawn().unwrap();
        let events = far.until_event("Gone").await;
        assert!(events.contains("Gone { proof: NamespaceEmpty"), "{events}");
        assert!(!stranger.wait().unwrap().success());
    })
    .await;
}

/// The terminal's own end, and an elector whose controlling terminal is the other one.
#[tokio::test]
async fn the_workload_has_the_terminal_and_cannot_be_suspended_by_it() {
    let _turn = TURN.lock().await;
    let pty = nix::pty::openpty(None, None).unwrap();
    let name = nix::unistd::ttyname(&pty.slave).unwrap();
    // The shell opens the terminal as the leader of a new session, and so gets it.
    let login = format!("exec <{}; exec \"$@\"", name.display());
    let wrapper = ["setsid", "sh", "-c", &login, "sh"];
    let mut far = Far::play(None, &wrapper, &[]).await;
    let daemon = far.process("daemon").await;
    let foreground = || nix::unistd::tcgetpgrp(&pty.master).unwrap().as_raw();
    wait_until("foreground", || foreground() != far.elector.pid).await;
    let main = ProcessId::of(foreground()).unwrap();
    far.until_event(&format!("Started {{ pid: {}", main.pid)).await;
    // A shell that is just starting a command cannot be stopped as a whole.
    wait_until("exec", || fs::read(format!("/proc/{}/comm", main.pid)).is_ok_and(|name| name == b"sleep\n")).await;
    for _ in 0..3 {
        nix::unistd::write(&pty.master, b"\x1a").unwrap();
        wait_until("resumption", || main.is_alive() && !main.is_stopped()).await;
    }
    nix::unistd::write(&pty.master, b"\x03").unwrap();
    far.until_event("Gone").await;
    far.until_event("Exited(Signal(2))").await;
    assert!(!daemon.is_alive());
    assert_eq!(foreground(), far.elector.pid, "the elector has its terminal back");
    let _ = far.process.try_wait();
    far.leave().await;
}
