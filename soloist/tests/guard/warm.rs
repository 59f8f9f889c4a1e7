//! A standby is started before any activation and told when one is granted: in time, once, and by the guard alone.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use election::{Activation, Proof};
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{SIGUSR1, SIGUSR2};
use nix::sys::signal::Signal;
use soloist::clock::now;
use soloist::workload::cgroup::Base;
use soloist::workload::keeper::Keeper;
use soloist::workload::process::ProcessId;
use soloist::workload::warm::{Guarded, Standing};
use soloist::workload::{Event, Launch, Workload};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Cleanup, GUARD, LIMIT, LONG, TURN, fresh, launch, script, send, try_base, wait_until, with_daemon};

/// Takes note of what it is told, and has a child.
const LISTENER: &str = "trap 'echo told >> $D/told' USR1; trap 'echo other >> $D/told' USR2; env > $D/env.new;
    mv $D/env.new $D/env; sleep 1000 & echo $! > $D/child.new; mv $D/child.new $D/child; while :; do wait; done";

struct Warm {
    guarded: Guarded,
    base: Option<Base>,
    dir: TempDir,
    events: Vec<Event>,
}

/// Plays a scene with a standby of this script, without a cgroup and with one.
async fn each_warm(text: &str, leaves_with_it: bool, test: impl AsyncFn(&mut Warm)) {
    let _turn = TURN.lock().await;
    let with_base = try_base();
    let _cleanup = Cleanup(with_base.clone());
    for base in [None].into_iter().chain(with_base.map(Some)) {
        let dir = TempDir::new().unwrap();
        let command = if text.is_empty() { with_daemon(&dir, LISTENER) } else { script(&dir, text) };
        let mut guarded = Guarded::cold(Keeper::spawn_from(GUARD.into(), base.clone()).unwrap());
        guarded.keep_warm(Standing {
            command,
            member: "alpha".to_owned(),
            stop_grace: Duration::from_millis(50),
            notice: Some(SIGUSR1),
            leaves_with_it,
        });
        let mut warm = Warm { guarded, base, dir, events: Vec::new() };
        test(&mut warm).await;
        warm.leave().await;
    }
}

impl Warm {
    async fn until(&mut self, what: &str, mut condition: impl FnMut(&Warm) -> bool) {
        let end = now() + LIMIT;
        while !condition(self) {
            assert!(now() < end, "{what} did not happen; events: {:?}", self.events);
            if let Ok(event) = timeout(Duration::from_millis(2), self.guarded.next()).await
                && !matches!(event, Event::Late(_))
            {
                self.events.push(event);
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn process(&mut self, name: &str) -> ProcessId {
        let path = self.path(name);
        self.until(name, |_| path.exists()).await;
        ProcessId::of(self.read(name).trim().parse().unwrap()).unwrap()
    }

    /// Waits for the next standby: its main process and its child.
    async fn stands(&mut self) -> (ProcessId, ProcessId) {
        for name in ["child", "env", "told"] {
            let _ = fs::remove_file(self.path(name));
        }
        self.events.clear();
        self.guarded.stand_by();
        self.until("Stands", |warm| warm.pid().is_some()).await;
        let child = self.process("child").await;
        (ProcessId::of(self.pid().unwrap()).unwrap(), child)
    }

    fn pid(&self) -> Option<i32> {
        self.events.iter().find_map(|event| match event {
            Event::Stands { pid, .. } => Some(*pid),
            _ => None,
        })
    }

    fn has(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(what)
    }

    async fn gone(&mut self) -> Proof {
        let is_gone = |event: &Event| matches!(event, Event::Gone { .. });
        self.until("Gone", |warm| warm.has(is_gone)).await;
        match self.events.last() {
            Some(Event::Gone { proof, released: None }) => *proof,
            other => panic!("Gone is the last word, not {other:?}"),
        }
    }

    fn launch(&self) -> Launch {
        // What was made ready means nothing here: the standby is what there is.
        launch(Activation(fresh()), Vec::new())
    }

    fn proof(&self) -> Proof {
        if self.base.is_some() { Proof::CgroupEmpty } else { Proof::NoChildLeft }
    }

    async fn leave(mut self) {
        self.guarded.stand_down(Duration::ZERO);
        self.until("the end of the standby", |warm| !warm.guarded.stands()).await;
        let guard = self.guarded.keeper.guard();
        drop(self.guarded);
        wait_until("the guard's end", || !guard.is_alive()).await;
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(guard.pid), None);
        if let Some(base) = self.base {
            base.remove();
            assert!(!base.path.exists(), "no cgroup stays behind");
        }
    }
}

#[tokio::test]
async fn a_standby_is_told_by_its_signal_and_is_never_one_again() {
    each_warm(LISTENER, false, async |warm| {
        let (standby, child) = warm.stands().await;
        let environment = warm.read("env");
        let mark = format!("SOLOIST_TREE={}", warm.guarded.mark());
        for entry in ["SOLOIST_ROLE=standby", "SOLOIST_MEMBER=alpha", &mark] {
            assert!(environment.lines().any(|line| line == entry), "{entry} in {environment}");
        }
        assert!(!environment.contains("SOLOIST_ACTIVATION") && !environment.contains("SOLOIST_FENCING_TOKEN"));
        let lock = File::create(warm.path("the.lock")).unwrap();
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
        let copy = lock.try_clone().unwrap();
        std::mem::forget(lock);
        warm.guarded.start(warm.launch(), Some(copy.into()));
        warm.until("Started", |warm| warm.has(|event| matches!(event, Event::Started { .. }))).await;
        assert!(
            warm.has(|event| matches!(event, Event::Started { pid, .. } if *pid == standby.pid)),
            "the same process"
        );
        warm.until("the notice", |warm| warm.read("told") == "told\n").await;
        warm.guarded.stop(LONG, None, "switchover");
        assert_eq!(warm.gone().await, warm.proof());
        assert!(!standby.is_alive() && !child.is_alive());
        assert_eq!(warm.guarded.stand_by(), None, "another one is started");
        let (next, _) = warm.stands().await;
        assert_ne!(next, standby);
        assert_eq!(warm.read("told"), "", "it knows of nothing");
    })
    .await;
}

#[tokio::test]
async fn who_would_be_told_too_late_is_not_told_and_ends() {
    each_warm(LISTENER, false, async |warm| {
        let (standby, child) = warm.stands().await;
        let mut late = warm.launch();
        late.kill_at = now();
        warm.guarded.start(late, None);
        assert_eq!(warm.gone().await, warm.proof());
        assert!(!warm.has(|event| matches!(event, Event::Started { .. } | Event::Exited(_))), "{:?}", warm.events);
        assert!(!standby.is_alive() && !child.is_alive());
        assert_eq!(warm.read("told"), "");
    })
    .await;
}

#[tokio::test]
async fn a_standby_that_was_told_ends_at_its_deadline() {
    each_warm("", false, async |warm| {
        let (standby, child) = warm.stands().await;
        let daemon = warm.process("daemon").await;
        let mut brief = warm.launch();
        brief.kill_at = now() + Duration::from_millis(300);
        warm.guarded.start(brief, None);
        warm.guarded.extend(now() + Duration::from_millis(600));
        assert_eq!(warm.gone().await, warm.proof());
        assert_eq!(warm.read("told"), "told\n");
        assert!(!standby.is_alive() && !child.is_alive() && !daemon.is_alive());
        fs::remove_file(warm.path("daemon")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_concerns_an_activation_does_not_touch_a_standby() {
    each_warm(LISTENER, false, async |warm| {
        let (standby, _) = warm.stands().await;
        // While the lock is being acquired, nothing is granted yet.
        warm.guarded.prepare(warm.launch().preparation);
        // As for a launch that waits for its route, and never happens.
        warm.guarded.extend(now());
        warm.guarded.stop(Duration::ZERO, None, "too slow");
        warm.guarded.kill();
        warm.guarded.discard();
        // Only the guard says "active"; whatever else is sent is passed on.
        warm.guarded.signal(SIGUSR1);
        warm.guarded.signal(SIGUSR2);
        warm.until("the other signal", |warm| !warm.read("told").is_empty()).await;
        assert_eq!(warm.read("told"), "other\n");
        assert!(standby.is_alive());
        assert_eq!(warm.guarded.stand_by(), Some(standby.pid));
    })
    .await;
}

#[tokio::test]
async fn a_standby_that_ends_is_missed_and_another_one_takes_its_place_after_a_pause() {
    each_warm(LISTENER, false, async |warm| {
        let (first, child) = warm.stands().await;
        send(first, Signal::SIGKILL);
        let at = now();
        warm.until("Fell", |warm| warm.has(|event| matches!(event, Event::Fell { leaves: None, .. }))).await;
        // Nobody is there who could be told.
        warm.guarded.start(warm.launch(), None);
        assert_eq!(warm.gone().await, Proof::NeverStarted);
        let (second, _) = warm.stands().await;
        assert!(now().since(at) >= Duration::from_secs(1), "it ended soon after its start");
        assert!(!child.is_alive() && second != first);
    })
    .await;
}

#[tokio::test]
async fn a_standby_that_ends_takes_its_member_along_where_that_is_wanted() {
    each_warm(
        "trap 'exit 7' TERM; echo $$ > $D/child.new; mv $D/child.new $D/child; while :; do sleep 0.01; done",
        true,
        async |warm| {
            let (standby, _) = warm.stands().await;
            send(standby, Signal::SIGTERM);
            warm.until("Fell", |warm| warm.has(|event| matches!(event, Event::Fell { leaves: Some(7), .. }))).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_standby_ends_with_its_guard_and_the_next_guard_starts_another() {
    each_warm("", false, async |warm| {
        let (standby, child) = warm.stands().await;
        let daemon = warm.process("daemon").await;
        let guard = warm.guarded.keeper.guard();
        send(guard, Signal::SIGKILL);
        warm.until("Fell", |warm| warm.has(|event| matches!(event, Event::Fell { leaves: None, .. }))).await;
        warm.until("the end of the standby", |warm| !warm.guarded.stands()).await;
        assert!(!standby.is_alive() && !child.is_alive() && !daemon.is_alive());
        fs::remove_file(warm.path("daemon")).unwrap();
        warm.stands().await;
        assert_ne!(warm.guarded.keeper.guard(), guard);
        assert!(!warm.has(|event| matches!(event, Event::Gone { .. } | Event::GuardLost(_))), "{:?}", warm.events);
        fs::remove_file(warm.path("daemon")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_dies_after_it_has_told_ends_the_activation() {
    each_warm(LISTENER, false, async |warm| {
        let (standby, child) = warm.stands().await;
        warm.guarded.start(warm.launch(), None);
        warm.until("the notice", |warm| warm.read("told") == "told\n").await;
        send(warm.guarded.keeper.guard(), Signal::SIGKILL);
        warm.gone().await;
        assert!(warm.has(|event| matches!(event, Event::GuardLost(_))));
        assert!(!standby.is_alive() && !child.is_alive());
    })
    .await;
}
