//! Tells the rest of the program how this member stands.

use std::time::Duration;

use election::{Action, Attempt, Claim, Directed, Entropy, Input, Instant, Output, Record, Role, Seen, Write};

use super::{Elector, number};
use crate::clock::{Clock, unix_us};
use crate::lock::Lock;
use crate::snapshot::{Holder, Snapshot, Tenure, Workload as State};
use crate::workload::{Containment, Workload};

impl<E: Entropy, L: Lock + 'static, W: Workload, C: Clock> Elector<E, L, W, C> {
    /// Who was active when, as the lock keeps it. Nothing depends on it, and it takes a while to read.
    pub(super) fn publish_history(&self) {
        let history = self.lines[self.foremost()].lock.history();
        self.publisher.update(|snapshot| {
            if *snapshot.history != *history {
                snapshot.history = history.into();
            }
        });
    }

    pub(super) fn publish_started(&self, pid: i32, containment: Containment, memory_locked: bool) {
        self.publisher.update(|snapshot| {
            // A stop may have crossed the report.
            snapshot.workload = match snapshot.workload {
                State::Starting => {
                    let since_unix_us = unix_us();
                    snapshot.note_running(since_unix_us);
                    State::Running { pid, since_unix_us }
                }
                _ => State::Stopping { pid: Some(pid) },
            };
            snapshot.containment = Some(containment);
            snapshot.memory_locked = Some(memory_locked);
        });
    }

    /// The PID of the workload that stands by, or that there is none.
    pub(super) fn publish_standby(&self, pid: Option<i32>) {
        self.publisher.update(|snapshot| {
            snapshot.workload = match (pid, snapshot.workload) {
                (Some(pid), State::Warm { pid: before, since_unix_us }) if pid == before => {
                    State::Warm { pid, since_unix_us }
                }
                (Some(pid), _) => State::Warm { pid, since_unix_us: unix_us() },
                (None, State::Warm { .. }) => State::None,
                (None, other) => other,
            };
        });
    }

    /// What an answer says by itself; `publish` tells it together with what the machine makes of it.
    pub(super) fn word(&self, slot: usize, input: &Input) -> Word {
        let (at, is_foremost) = (self.clock.now(), slot == self.foremost());
        match input {
            Input::Read(Ok(Seen { record, .. })) => Word::Read {
                slot,
                at,
                is_foremost,
                holder: record.as_ref().and_then(holder),
                attempt: record.as_ref().and_then(attempt),
                lease: record.as_ref().map(|record| record.lease),
                paused_until_unix_ms: record.as_ref().and_then(|record| record.paused_until_unix_ms),
            },
            Input::Written { outcome: Write::Written(_), .. } => Word::Written { at },
            Input::Exited { .. } => Word::Exited,
            Input::Gone { .. } => Word::Gone,
            _ => Word::Nothing,
        }
    }

    /// Where a step of the machine has led, and the answer that it was about: at once, so that nobody is shown a holder
    /// that the lock has let go of and the machine has not, gone and back.
    pub(super) fn publish(&self, word: Word, outputs: &[Directed]) {
        let (role, turn, foremost) = (self.slots.role(), self.slots.turn(), self.foremost());
        let timing = self.slots.timing();
        let has_processes = self.workload.has_processes();
        self.publisher.update(|snapshot| {
            word.apply(snapshot);
            if snapshot.role != role {
                snapshot.play(role, unix_us());
            }
            snapshot.vigil = self.slots.vigil();
            snapshot.due = self.slots.next_wakeup();
            snapshot.tenure = self.slots.activation().map(|(activation, token, kill_at)| Tenure {
                activation,
                token,
                stop_at: kill_at - timing.grace(),
                kill_at,
            });
            snapshot.slot = turn.map(number);
            if let (Some(tenure), Role::Active | Role::Stopping) = (snapshot.tenure, role) {
                snapshot.holder = Some(Holder {
                    name: snapshot.name.clone(),
                    activation: Some(tenure.activation),
                    token: Some(tenure.token),
                });
                if let Some(shown) = snapshot.slots.get_mut(foremost) {
                    shown.clone_from(&snapshot.holder);
                }
            }
            for (slot, Output { action, reason }) in outputs {
                match action {
                    Action::Start { .. } if has_processes => snapshot.workload = State::Starting,
                    Action::Stop { .. } | Action::Kill if has_processes => {
                        snapshot.workload = State::Stopping { pid: snapshot.workload.pid() };
                    }
                    Action::Write { record, .. } if *slot == foremost => {
                        snapshot.lease = record.lease;
                        snapshot.paused_until_unix_ms = record.paused_until_unix_ms;
                    }
                    _ => {}
                }
                if !action.is_routine() {
                    snapshot.reason.clone_from(reason);
                }
            }
        });
    }

    /// An unhealthy member that is active stays so where nobody else could take over. Said once, until that changes.
    pub(super) fn note_unfit(&mut self) {
        let snapshot = self.publisher.newest();
        let unfit = snapshot.role == Role::Active && !snapshot.health.healthy && !snapshot.another_is_fit();
        let why = snapshot.health.why.clone();
        drop(snapshot);
        if unfit && !self.stays_unfit {
            let reason = format!("unhealthy, but no other member is fit: staying active ({why})");
            tracing::warn!("{reason}");
            self.publisher.update(|snapshot| snapshot.reason = reason);
        }
        self.stays_unfit = unfit;
    }
}

/// What an answer says by itself.
pub(super) enum Word {
    /// What the lock of a slot says.
    Read {
        slot: usize,
        at: Instant,
        is_foremost: bool,
        holder: Option<Holder>,
        attempt: Option<Attempt>,
        lease: Option<Duration>,
        paused_until_unix_ms: Option<u64>,
    },
    /// The lock has stored something.
    Written { at: Instant },
    /// The command has ended.
    Exited,
    /// Nothing of the workload is left.
    Gone,
    /// Nothing that anybody is told.
    Nothing,
}

impl Word {
    fn apply(self, snapshot: &mut Snapshot) {
        match self {
            Self::Read { slot, at, is_foremost, holder, attempt, lease, paused_until_unix_ms } => {
                snapshot.store_answered = Some(at);
                if let Some(shown) = snapshot.slots.get_mut(slot) {
                    shown.clone_from(&holder);
                }
                if !is_foremost {
                    return;
                }
                snapshot.holder = holder;
                if attempt != snapshot.heard.map(|(attempt, _)| attempt) {
                    snapshot.heard = attempt.map(|attempt| (attempt, at));
                }
                snapshot.paused_until_unix_ms = paused_until_unix_ms;
                snapshot.lease = lease.unwrap_or(snapshot.lease);
            }
            Self::Written { at } => snapshot.store_answered = Some(at),
            Self::Exited => snapshot.workload = State::Stopping { pid: snapshot.workload.pid() },
            Self::Gone => snapshot.workload = State::None,
            Self::Nothing => {}
        }
    }
}

/// The attempt that a record is the trace of, where it names a member.
fn attempt(record: &Record) -> Option<Attempt> {
    match &record.claim {
        Claim::Held(holder) => Some(holder.attempt),
        _ => None,
    }
}

/// Whom a record names, if anybody.
fn holder(record: &Record) -> Option<Holder> {
    match &record.claim {
        Claim::Held(holder) => {
            Some(Holder { name: holder.member.name.clone(), activation: Some(holder.activation), token: holder.token })
        }
        Claim::Foreign(foreign) => {
            let name = foreign.holder.clone()?;
            Some(Holder { name, activation: None, token: None })
        }
        Claim::Released(_) | Claim::Vacant(_) => None,
    }
}
