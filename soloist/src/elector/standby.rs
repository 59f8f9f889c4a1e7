//! A workload that is kept warm, while its member stands by: started, missed, and ended when the member leaves.

use std::time::Duration;

use election::{Entropy, Exit, GRACE_IN_A_HURRY, Input, Role};

use super::{Elector, Order};
use crate::clock::Clock;
use crate::lock::Lock;
use crate::workload::{Containment, Workload};

impl<E: Entropy, L: Lock + 'static, W: Workload, C: Clock> Elector<E, L, W, C> {
    /// Sees to it that a standby has its workload, where that is kept warm.
    pub(super) fn stand_by(&mut self) {
        if self.slots.role() == Role::Standby {
            let pid = self.workload.stand_by();
            self.runs = self.workload.stands();
            self.publish_standby(pid);
        }
    }

    /// There is somebody who could be told.
    pub(super) fn note_standby(&mut self, pid: i32, containment: Containment, memory_locked: bool) -> Input {
        tracing::info!(pid, containment = containment.word(), "the workload stands by");
        self.runs = true;
        self.publisher.update(|snapshot| {
            snapshot.containment = Some(containment);
            snapshot.memory_locked = Some(memory_locked);
        });
        if self.slots.role() == Role::Standby {
            self.publish_standby(Some(pid));
        }
        self.fitness()
    }

    /// A member without its standby is not fit. The health check begins anew with the next one.
    pub(super) fn fall(&mut self, why: &str, leaves: Option<i32>) -> Input {
        tracing::warn!("{why}");
        self.publish_standby(None);
        let unfit = self.fitness();
        self.fallen = leaves;
        if leaves.is_some() { Input::Leave } else { unfit }
    }

    /// What is left to do when the machine has decided to leave.
    pub(super) async fn settle(mut self, exit: Exit) -> Exit {
        self.stand_down().await;
        self.traffic.settle().await;
        match (exit, self.fallen) {
            (Exit::StoodBy, Some(code)) => Exit::Workload(code),
            _ => exit,
        }
    }

    /// Ends what stands by, and waits until nothing of it is left.
    async fn stand_down(&mut self) {
        let grace = self.command.stop_grace;
        self.workload.stand_down(grace);
        let mut listens = true;
        while self.workload.stands() {
            tokio::select! {
                biased;
                event = self.workload.next() => drop(self.on_event(event)),
                order = self.orders.recv(), if listens => match order {
                    Some(Order::Leave) => self.workload.stand_down(grace.min(GRACE_IN_A_HURRY)),
                    Some(_) => {}
                    // Whoever sends orders has ended.
                    None => {
                        listens = false;
                        self.workload.stand_down(Duration::ZERO);
                    }
                },
            }
        }
    }
}
