//! The guard as a real process: everything that it must survive, with a cgroup and without one.
#![allow(clippy::unwrap_used, clippy::panic)]

// Beside this file they would be tests of their own.
#[path = "guard/far.rs"]
mod far;
#[path = "guard/gate.rs"]
mod gate;
#[path = "guard/warm.rs"]
mod warm;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use election::{Activation, Member, Nonce, Proof, Token};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use soloist::clock::now;
use soloist::workload::cgroup::Base;
use soloist::workload::keeper::Keeper;
use soloist::workload::process::{ProcessId, carrying, sweep};
use soloist::workload::{Containment, Ending, Event, Launch, Preparation, Workload};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const GUARD: &str = env!("CARGO_BIN_EXE_soloist");

/// What must happen, happens within this.
const LIMIT: Duration = Duration::from_secs(20);

const LONG: Duration = Duration::from_secs(600);

/// A keeper whose guard is lost ends all children of its process: tests of this file take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How many activations there were in this process.
static COUNT: AtomicU64 = AtomicU64::new(1);

/// A daemon that does everything to get away: two forks, a session of its own, no descriptors, deaf to polite signals.
const DAEMON: &str = r#"use POSIX; POSIX::close($_) for 3..255; exit if fork; setsid(); exit if fork;
$SIG{TERM} = $SIG{HUP} = $SIG{INT} = "IGNORE"; open F, ">", "$ARGV[0].new"; print F $$; close F;
rename "$ARGV[0].new", $ARGV[0]; sleep 1000 while 1"#;

struct Scene {
    keeper: Keeper,
    base: Option<Base>,
    dir: TempDir,
    activation: Activation,
    events: Vec<Event>,
}

fn fresh() -> u128 {
    numbered(COUNT.fetch_add(1, Ordering::Relaxed))
}

fn numbered(count: u64) -> u128 {
    u128::from(std::process::id()) << 64 | u128::from(count)
}

/// A cgroup, where this machine lets us have one.
fn try_base() -> Option<Base> {
    Base::create(Nonce(fresh())).map_err(|error| eprintln!("no cgroup: {error}")).ok()
}

/// Removes its own cgroup, and no other, also when the test fails; and then whatever a broken guard has left.
struct Cleanup(Option<Base>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for count in 1..COUNT.load(Ordering::Relaxed) {
                sweep(Activation(numbered(count)), LIMIT);
            }
        }
        if let Some(base) = &self.0 {
            base.remove();
        }
    }
}

/// Plays a scene without a cgroup and, where that is possible, with one.
async fn each(test: impl AsyncFn(&mut Scene)) {
    let _turn = TURN.lock().await;
    let with_base = try_base();
    let _cleanup = Cleanup(with_base.clone());
    let without = [None].into_iter();
    for base in without.chain(with_base.map(Some)) {
        let keeper = Keeper::spawn_from(GUARD.into(), base.clone()).unwrap();
        let dir = TempDir::new().unwrap();
        let mut scene = Scene { keeper, base, dir, activation: Activation(fresh()), events: Vec::new() };
        test(&mut scene).await;
        scene.leave().await;
    }
}

fn launch(activation: Activation, command: Vec<OsString>) -> Launch {
    let preparation = Preparation {
        command,
        activation,
        member: Member { name: "alpha".to_owned(), nonce: Nonce(9) },
        slot: 1,
        stop_grace: Duration::from_millis(50),
        local_lock: None,
    };
    Launch { preparation, token: Token(42), kill_at: now() + LONG, successor: None }
}

/// A script with its directory as `$D`.
fn script(dir: &TempDir, text: &str) -> Vec<OsString> {
    let text = format!("D='{}'; {text}", dir.path().display());
    vec!["sh".into(), "-c".into(), text.into()]
}

/// A script that continues when the daemon is there.
fn with_daemon(dir: &TempDir, rest: &str) -> Vec<OsString> {
    let wait = "while [ ! -e \"$D/daemon\" ]; do sleep 0.01; done";
    script(dir, &format!("perl -e '{DAEMON}' \"$D/daemon\"; {wait}; {rest}"))
}

impl Scene {
    fn launch(&mut self, command: Vec<OsString>) -> Launch {
        self.activation = Activation(fresh());
        self.events.clear();
        launch(self.activation, command)
    }

    fn script(&mut self, text: &str) -> Launch {
        self.launch(script(&self.dir, text))
    }

    fn run(&mut self, text: &str) {
        let launch = self.script(text);
        self.keeper.start(launch, None);
    }

    fn run_with_daemon(&mut self, rest: &str) {
        let _ = fs::remove_file(self.dir.path().join("daemon"));
        let launch = self.launch(with_daemon(&self.dir, rest));
        self.keeper.start(launch, None);
    }

    /// Drives the keeper until `condition` holds.
    async fn until(&mut self, what: &str, mut condition: impl FnMut(&Scene) -> bool) {
        let end = now() + LIMIT;
        while !condition(self) {
            assert!(now() < end, "{what} did not happen; events: {:?}", self.events);
            if let Ok(event) = timeout(Duration::from_millis(2), self.keeper.next()).await
                && !matches!(event, Event::Late(_))
            {
                self.events.push(event);
            }
        }
    }

    async fn until_file(&mut self, name: &str) -> String {
        let path = self.dir.path().join(name);
        self.until(name, |_| path.exists()).await;
        fs::read_to_string(path).unwrap()
    }

    async fn daemon(&mut self) -> ProcessId {
        ProcessId::of(self.until_file("daemon").await.parse().unwrap()).unwrap()
    }

    /// Waits for `Gone` and checks what it claims.
    async fn gone(&mut self) -> Proof {
        let is_gone = |event: &Event| matches!(event, Event::Gone { .. });
        self.until("Gone", |scene| scene.events.iter().any(is_gone)).await;
        assert_eq!(carrying(self.activation), [], "nothing of the activation is left");
        if let Some(base) = &self.base {
            assert!(!base.leaf(self.activation).exists(), "the leaf is removed");
        }
        match self.events.last() {
            Some(Event::Gone { proof, released: None }) => *proof,
            other => panic!("Gone is the last word, not {other:?}"),
        }
    }

    fn started(&self) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Started { pid, .. } => Some(*pid),
            _ => None,
        })
    }

    fn exited(&self) -> Option<Ending> {
        self.events.iter().find_map(|event| match event {
            Event::Exited(ending) => Some(*ending),
            _ => None,
        })
    }

    fn lost(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::GuardLost(_)))
    }

    /// The proof that is due here after a run.
    fn proof(&self) -> Proof {
        if self.base.is_some() { Proof::CgroupEmpty } else { Proof::NoChildLeft }
    }

    /// Nothing stays behind: the guard ends with its elector's socket.
    async fn leave(self) {
        sweep(self.activation, LIMIT);
        let guard = self.keeper.guard();
        drop(self.keeper);
        wait_until("the guard's end", || !guard.is_alive()).await;
        let _ = nix::sys::wait::waitpid(Pid::from_raw(guard.pid), None);
        if let Some(base) = self.base {
            base.remove();
            assert!(!base.path.exists(), "no cgroup stays behind");
        }
    }
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = now() + LIMIT;
    while !condition() {
        assert!(now() < end, "{what} did not happen");
        sleep(Duration::from_millis(1)).await;
    }
}

fn send(process: ProcessId, signal: Signal) {
    kill(Pid::from_raw(process.pid), signal).unwrap();
}

fn words(command: &[&str]) -> Vec<OsString> {
    command.iter().map(OsString::from).collect()
}

// === How a command starts and ends ===

#[tokio::test]
async fn a_command_runs_with_its_environment_and_the_lock_and_its_code_comes_back() {
    each(async |scene| {
        let lock = File::create(scene.dir.path().join("the.lock")).unwrap();
        let launch =
            scene.script("env > $D/env; ls -l /proc/self/fd > $D/fds; cat /proc/self/status > $D/status; exit 7");
        scene.keeper.start(launch, Some(lock.into()));
        assert_eq!(scene.gone().await, scene.proof());
        let containment = if scene.base.is_some() { Containment::Cgroup } else { Containment::Subreaper };
        assert!(matches!(scene.events[0], Event::Started { containment: c, .. } if c == containment));
        assert_eq!(scene.exited(), Some(Ending::Code(7)));
        assert_eq!(scene.events.len(), 3, "{:?}", scene.events);
        let environment = scene.until_file("env").await;
        let activation = format!("SOLOIST_ACTIVATION={}", scene.activation);
        for entry in ["SOLOIST_FENCING_TOKEN=42", "SOLOIST_ROLE=active", "SOLOIST_MEMBER=alpha", &activation] {
            assert!(environment.lines().any(|line| line == entry), "{entry} in {environment}");
        }
        let fds = scene.until_file("fds").await;
        assert!(fds.lines().any(|line| line.contains(" 200 -> ") && line.ends_with("the.lock")), "{fds}");
        assert!(!fds.contains("socket:[") && !fds.contains("memfd:") && !fds.contains("pidfd"), "{fds}");
        let status = scene.until_file("status").await;
        for mask in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
            assert!(status.contains(mask), "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_guard_serves_one_activation_after_another() {
    each(async |scene| {
        let guard = scene.keeper.guard();
        for code in 0..5 {
            scene.run(&format!("exit {code}"));
            scene.gone().await;
            assert_eq!(scene.exited(), Some(Ending::Code(code)));
        }
        assert_eq!(scene.keeper.guard(), guard);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_126_and_what_is_not_there_is_127() {
    each(async |scene| {
        for (command, code) in [("/nonexistent/command", 127), ("no-such-command-anywhere", 127), ("/etc/passwd", 126)]
        {
            let launch = scene.launch(words(&[command]));
            scene.keeper.start(launch, None);
            scene.gone().await;
            assert_eq!(scene.exited(), Some(Ending::NotStarted(code)), "{command}");
            assert_eq!(scene.started(), None);
        }
    })
    .await;
}

#[tokio::test]
async fn arguments_may_be_many_and_hold_any_byte() {
    each(async |scene| {
        let odd = OsString::from_vec(b"a\xff\xfe b\n".to_vec());
        let mut launch =
            scene.script("printf %s \"$0\" > $D/odd; n=0; for a; do n=$((n+${#a})); done; echo $n > $D/sum");
        launch.preparation.command.push(odd.clone());
        launch.preparation.command.extend((0..24).map(|_| OsString::from("x".repeat(64 * 1024))));
        scene.keeper.start(launch, None);
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(0)));
        assert_eq!(fs::read(scene.dir.path().join("odd")).unwrap(), odd.as_bytes());
        assert_eq!(scene.until_file("sum").await.trim(), (24 * 64 * 1024).to_string());
    })
    .await;
}

#[tokio::test]
async fn after_the_deadline_nothing_starts() {
    each(async |scene| {
        let mut launch = scene.script("echo > $D/ran");
        launch.kill_at = now();
        scene.keeper.start(launch, None);
        assert_eq!(scene.gone().await, Proof::NeverStarted);
        assert_eq!(scene.events.len(), 1, "{:?}", scene.events);
        assert!(!scene.dir.path().join("ran").exists());
    })
    .await;
}

#[tokio::test]
async fn where_a_cgroup_was_promised_nothing_starts_outside_of_it() {
    each(async |scene| {
        let Some(base) = scene.base.clone() else { return };
        base.remove();
        scene.run("echo > $D/ran");
        assert_eq!(scene.gone().await, Proof::NeverStarted);
        assert_eq!(scene.exited(), Some(Ending::NotStarted(70)));
        assert!(!scene.dir.path().join("ran").exists());
    })
    .await;
}

#[tokio::test]
async fn signals_are_passed_on() {
    each(async |scene| {
        scene.run("trap 'exit 9' USR1; echo > $D/ready; while :; do sleep 0.01; done");
        scene.until_file("ready").await;
        fs::remove_file(scene.dir.path().join("ready")).unwrap();
        scene.keeper.signal(Signal::SIGUSR1 as i32);
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(9)));
    })
    .await;
}

// === Stopping ===

#[tokio::test]
async fn a_polite_command_stops_at_once() {
    each(async |scene| {
        scene.run("trap 'exit 3' TERM; echo > $D/ready; while :; do sleep 0.01; done");
        scene.until_file("ready").await;
        fs::remove_file(scene.dir.path().join("ready")).unwrap();
        scene.keeper.stop(LONG, None, "told to");
        assert_eq!(scene.gone().await, scene.proof());
        assert_eq!(scene.exited(), Some(Ending::Code(3)));
    })
    .await;
}

#[tokio::test]
async fn a_deaf_command_gets_its_grace_and_a_later_stop_only_shortens() {
    each(async |scene| {
        for graces_ms in [&[300][..], &[600_000, 300], &[300, 600_000]] {
            let _ = fs::remove_file(scene.dir.path().join("ready"));
            scene.run("trap '' TERM; echo > $D/ready; while :; do sleep 0.01; done");
            scene.until_file("ready").await;
            let begin = now();
            for grace in graces_ms {
                scene.keeper.stop(Duration::from_millis(*grace), None, "told to");
            }
            scene.gone().await;
            assert!(now().since(begin) >= Duration::from_millis(300));
            assert_eq!(scene.exited(), Some(Ending::Signal(9)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_command() {
    each(async |scene| {
        scene.run_with_daemon("exit 4");
        let daemon = scene.daemon().await;
        scene.gone().await;
        assert!(!daemon.is_alive());
        assert_eq!(scene.exited(), Some(Ending::Code(4)));
    })
    .await;
}

#[tokio::test]
async fn stopped_and_traced_processes_are_killed_with_the_rest() {
    each(async |scene| {
        scene.run_with_daemon("strace -f -o /dev/null sleep 1000 & sleep 1000");
        let daemon = scene.daemon().await;
        send(daemon, Signal::SIGSTOP);
        scene.until("stop", |_| daemon.is_stopped()).await;
        let main = scene.started().unwrap();
        kill(Pid::from_raw(main), Signal::SIGSTOP).unwrap();
        scene.keeper.kill();
        scene.gone().await;
        assert!(!daemon.is_alive());
    })
    .await;
}

#[tokio::test]
async fn a_storm_of_forks_is_beaten() {
    // Each generation is a new session and has a new PID; the wide one also leaves a sleeper behind each time.
    let chain = "cat > $D/chain <<'E'\n\
                 [ $1 -gt 0 ] || exit 0; [ $1 -gt 2900 ] || : > $D/blows; setsid sh $0 $(($1 - 1)) & exit 0\nE\n\
                 export D; sh $D/chain 3000; sleep 1000";
    let wide = "i=0; while [ $i -lt 2000 ]; do setsid sleep 1000 & i=$((i+1)); [ $i -ne 100 ] || : > $D/blows; done; sleep 1000";
    each(async |scene| {
        for storm in [chain, wide] {
            let _ = fs::remove_file(scene.dir.path().join("blows"));
            scene.run(storm);
            scene.until_file("blows").await;
            scene.keeper.kill();
            assert_eq!(scene.gone().await, scene.proof());
        }
    })
    .await;
}

// === The deadline ===

#[tokio::test]
async fn the_deadline_kills_unless_it_moves() {
    each(async |scene| {
        let begin = now();
        let ms = |ms| begin + Duration::from_millis(ms);
        let mut launch = scene.script("trap '' TERM; while :; do sleep 0.01; done");
        launch.kill_at = ms(300);
        scene.keeper.start(launch, None);
        scene.until("start", |scene| scene.started().is_some()).await;
        scene.keeper.extend(ms(600));
        scene.until("time", |_| now() >= ms(200)).await;
        scene.keeper.extend(ms(800));
        scene.gone().await;
        assert!(now() >= ms(800), "not before the last deadline");
        assert!(now() < ms(1800), "and soon after it: {:?}", now().since(ms(800)));
        assert_eq!(scene.exited(), None, "the lease was lost; the command did not end by itself");
    })
    .await;
}

#[tokio::test]
async fn the_deadline_can_come_nearer() {
    each(async |scene| {
        scene.run("exec sleep 1000");
        scene.until("start", |scene| scene.started().is_some()).await;
        scene.keeper.extend(now() + Duration::from_millis(50));
        scene.gone().await;
        assert!(!scene.lost());
    })
    .await;
}

#[tokio::test]
async fn a_guard_with_nothing_to_guard_sleeps() {
    each(async |scene| {
        let switches = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
        };
        scene.run("exit 0");
        scene.gone().await;
        let pid = scene.keeper.guard().pid;
        wait_until("sleep", || fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|w| w.contains("poll")))
            .await;
        let before = switches(pid);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(switches(pid), before);
    })
    .await;
}

// === The guard dies, hangs ===

#[tokio::test]
async fn when_the_guard_is_killed_the_elector_ends_the_tree() {
    each(async |scene| {
        scene.run_with_daemon("sleep 1000");
        let daemon = scene.daemon().await;
        let former = scene.keeper.guard();
        send(former, Signal::SIGKILL);
        assert_eq!(scene.gone().await, scene.proof());
        assert!(scene.lost() && !daemon.is_alive());
        scene.run("exit 5");
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(5)), "a new guard serves");
        assert_ne!(scene.keeper.guard(), former);
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_does_not_answer_is_killed_and_the_tree_with_it() {
    each(async |scene| {
        scene.keeper.set_patience(Duration::from_millis(200));
        scene.run_with_daemon("sleep 1000");
        let (daemon, guard) = (scene.daemon().await, scene.keeper.guard());
        send(guard, Signal::SIGSTOP);
        scene.keeper.extend(now() + LONG);
        scene.gone().await;
        assert!(scene.lost() && !daemon.is_alive() && !guard.is_alive());
    })
    .await;
}

#[tokio::test]
async fn a_stopped_guard_is_found_out_at_the_deadline() {
    each(async |scene| {
        let patience = Duration::from_millis(200);
        scene.keeper.set_patience(patience);
        scene.run_with_daemon("sleep 1000");
        let daemon = scene.daemon().await;
        let deadline = now() + Duration::from_millis(500);
        scene.keeper.extend(deadline);
        scene.until("time", |_| now() >= deadline - patience / 2).await;
        send(scene.keeper.guard(), Signal::SIGSTOP);
        scene.gone().await;
        assert!(scene.lost() && !daemon.is_alive());
        assert!(now().since(deadline) < patience * 5, "{:?}", now().since(deadline));
    })
    .await;
}

#[tokio::test]
async fn an_idle_guard_that_dies_is_replaced() {
    each(async |scene| {
        let former = scene.keeper.guard();
        send(former, Signal::SIGKILL);
        scene.until("its end", |_| !former.is_alive()).await;
        let _ = timeout(Duration::from_millis(50), scene.keeper.next()).await;
        scene.run("exit 6");
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(6)));
        assert!(!scene.lost());
    })
    .await;
}
