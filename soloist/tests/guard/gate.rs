//! Made ready before the lock is granted: what waits at its gate runs when it is granted, and not before.

use std::fs;
use std::time::Duration;

use election::{Activation, Proof};
use nix::sys::signal::Signal;
use soloist::clock::now;
use soloist::workload::process::{ProcessId, carrying, children_of};
use soloist::workload::{Ending, Launch, Workload};
use tokio::time::sleep;

use super::far::each_far;
use super::{Scene, each, send, wait_until};

impl Scene {
    /// Makes `launch` ready, and waits for the child that stands at its gate.
    async fn prepare(&mut self, launch: &Launch) -> ProcessId {
        self.keeper.prepare(launch.preparation.clone());
        self.gated().await
    }

    async fn gated(&mut self) -> ProcessId {
        let guard = self.keeper.guard().pid;
        self.until("the fork", |_| is_at_the_gate(guard).is_some()).await;
        ProcessId::of(is_at_the_gate(guard).unwrap()).unwrap()
    }

    async fn nothing_is_left(&mut self, activation: Activation) {
        let guard = self.keeper.guard().pid;
        self.until("the end of what was discarded", |_| children_of(guard).is_empty()).await;
        if let Some(leaf) = self.base.as_ref().map(|base| base.leaf(activation)) {
            self.until("the leaf's removal", |_| !leaf.exists()).await;
        }
        assert!(self.events.is_empty(), "nobody is told of it: {:?}", self.events);
    }

    fn has_run(&self) -> bool {
        self.dir.path().join("ran").exists()
    }
}

/// The guard's only child, once it waits for a message.
pub(super) fn is_at_the_gate(guard: i32) -> Option<i32> {
    let child = *children_of(guard).first()?;
    let waits_in = fs::read_to_string(format!("/proc/{child}/syscall")).ok()?;
    waits_in.starts_with(&format!("{} ", nix::libc::SYS_recvmsg)).then_some(child)
}

#[tokio::test]
async fn what_is_ready_runs_when_it_is_granted_and_not_before() {
    each(async |scene| {
        let launch = scene.script("echo $SOLOIST_FENCING_TOKEN > $D/ran; exit 5");
        let child = scene.prepare(&launch).await;
        let image = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(image(child.pid), image(scene.keeper.guard().pid), "nothing was executed");
        assert_eq!(carrying(scene.activation), [], "the activation is nobody's yet");
        assert!(!scene.has_run());
        scene.keeper.start(launch, None);
        assert_eq!(scene.gone().await, scene.proof());
        assert_eq!(scene.started(), Some(child.pid), "the same process");
        assert_eq!(scene.exited(), Some(Ending::Code(5)));
        assert_eq!(scene.until_file("ran").await, "42\n");
        fs::remove_file(scene.dir.path().join("ran")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_is_lost_leaves_nothing() {
    each(async |scene| {
        let guard = scene.keeper.guard();
        let lost = scene.script("echo > $D/ran");
        let child = scene.prepare(&lost).await;
        scene.keeper.discard();
        scene.nothing_is_left(lost.preparation.activation).await;
        assert!(!child.is_alive() && !scene.has_run());
        scene.run("exit 3");
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(3)));
        assert_eq!(scene.keeper.guard(), guard, "the guard is not in disorder");
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_does_not_wait_for_the_end_of_the_last() {
    each(async |scene| {
        let lost = scene.script("echo > $D/ran");
        let child = scene.prepare(&lost).await;
        let won = scene.script("exit 4");
        scene.keeper.discard();
        scene.keeper.prepare(won.preparation.clone());
        scene.keeper.start(won, None);
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(4)));
        assert!(!child.is_alive() && !scene.has_run());
        let unprepared = scene.script("exit 5");
        scene.prepare(&lost).await;
        scene.keeper.start(unprepared, None);
        scene.gone().await;
        assert_eq!(scene.exited(), Some(Ending::Code(5)), "what was ready was for another one");
        assert!(!scene.has_run());
    })
    .await;
}

#[tokio::test]
async fn what_is_ready_too_early_does_not_run_too_late() {
    each(async |scene| {
        let mut launch = scene.script("echo > $D/ran");
        let child = scene.prepare(&launch).await;
        launch.kill_at = now();
        scene.keeper.start(launch, None);
        assert_eq!(scene.gone().await, Proof::NeverStarted);
        assert!(!child.is_alive() && !scene.has_run());
    })
    .await;
}

#[tokio::test]
async fn what_waits_at_its_gate_has_no_deadline() {
    each(async |scene| {
        // The deadline of this one stands in the page from then on.
        let mut killed = scene.script("exec sleep 1000");
        killed.kill_at = now() + Duration::from_millis(50);
        scene.keeper.start(killed, None);
        scene.gone().await;
        let launch = scene.script("exit 6");
        let child = scene.prepare(&launch).await;
        sleep(Duration::from_millis(100)).await;
        assert!(child.is_alive());
        scene.keeper.start(launch, None);
        scene.gone().await;
        assert_eq!((scene.started(), scene.exited()), (Some(child.pid), Some(Ending::Code(6))));
    })
    .await;
}

#[tokio::test]
async fn who_is_killed_at_the_gate_is_replaced_and_who_is_stopped_goes_on() {
    each(async |scene| {
        let guard = scene.keeper.guard().pid;
        let launch = scene.script("exit 7");
        let killed = scene.prepare(&launch).await;
        send(killed, Signal::SIGKILL);
        scene.until("the end of the child", |_| children_of(guard).is_empty()).await;
        scene.keeper.start(launch, None);
        assert_eq!(scene.gone().await, scene.proof());
        assert_eq!(scene.exited(), Some(Ending::Code(7)));
        assert_ne!(scene.started(), Some(killed.pid));

        let launch = scene.script("exit 8");
        let stopped = scene.prepare(&launch).await;
        send(stopped, Signal::SIGSTOP);
        scene.until("stop", |_| stopped.is_stopped()).await;
        scene.keeper.start(launch, None);
        scene.gone().await;
        assert_eq!((scene.started(), scene.exited()), (Some(stopped.pid), Some(Ending::Code(8))));
    })
    .await;
}

#[tokio::test]
async fn who_waits_at_the_gate_dies_with_the_guard_and_the_next_guard_serves() {
    each(async |scene| {
        let launch = scene.script("echo > $D/ran; exit 9");
        let child = scene.prepare(&launch).await;
        let former = scene.keeper.guard();
        send(former, Signal::SIGKILL);
        scene.until("both ends", |_| !former.is_alive() && !child.is_alive()).await;
        assert!(!scene.has_run() && scene.events.is_empty(), "{:?}", scene.events);
        scene.keeper.start(launch, None);
        assert_eq!(scene.gone().await, scene.proof());
        assert_eq!(scene.exited(), Some(Ending::Code(9)));
        assert!(!scene.lost());
        fs::remove_file(scene.dir.path().join("ran")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_prepared_child_holds_no_lock_and_dies_with_its_keepers() {
    for both in [false, true] {
        each_far(&[], &[("prepare", "")], async |far| {
            let (child, guard) = (far.process("gated").await, far.process("guard").await);
            assert!(!far.is_unlocked(), "the elector has it");
            if both {
                send(guard, Signal::SIGSTOP);
                send(far.elector, Signal::SIGKILL);
                wait_until("unlock", || far.is_unlocked()).await;
                send(guard, Signal::SIGKILL);
            } else {
                send(far.elector, Signal::SIGKILL);
            }
            wait_until("all ends", || !guard.is_alive() && !child.is_alive()).await;
            assert!(far.is_unlocked() && !far.dir.path().join("daemon").exists());
        })
        .await;
    }
}
