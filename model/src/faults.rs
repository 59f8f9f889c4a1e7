//! What can go wrong and what can be asked for, when, and what it does.

use std::sync::Arc;

use election::{Activation, Claim, Input, Request as Wish, Version, Write};

use crate::instance::{Act, Ask, Fault};
use crate::member::{Flight, Member, Report, Request};
use crate::run::member;
use crate::state::State;
use crate::store::Stray;
use crate::time::{PROOF_TICKS, TICK};
use crate::workload::Guard;
use crate::world::{Step, World};

impl World {
    /// The faults that can happen now.
    pub(crate) fn fault_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.faults_left == 0 {
            return;
        }
        for fault in self.instance.faults {
            if matches!(fault, Fault::Outage(_)) {
                if state.members.iter().any(|member| member.cut_until.is_none()) {
                    steps.push(Step::Fault(*fault, 0));
                }
                continue;
            }
            let can = |index: &usize| can_befall(&state.members[*index], *fault, state);
            steps.extend((0..state.members.len()).filter(can).map(|index| Step::Fault(*fault, index)));
        }
    }

    /// What a stranger can do now.
    pub(crate) fn act_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.acts_left == 0 {
            return;
        }
        let claim = state.store.record.as_ref().map(|record| &record.claim);
        for act in self.instance.acts {
            let can = match act {
                Act::Delete => claim.is_some(),
                Act::Blank | Act::Usurp => !matches!(claim, None | Some(Claim::Foreign(_))),
                Act::Rewind(back) => state.store.earlier(*back).is_some_and(|version| all_know_newer(state, version)),
                Act::Restore(back) => state.store.earlier(*back).is_some(),
            };
            if can {
                steps.push(Step::Act(*act));
            }
        }
    }

    /// A stranger changes the lock.
    pub(crate) fn act_of_a_stranger(&self, state: &mut State, act: Act) {
        state.acts_left -= 1;
        state.idle = 0;
        let store = Arc::make_mut(&mut state.store);
        match act {
            Act::Delete => store.delete(),
            Act::Blank => store.overwrite(None),
            Act::Usurp => store.overwrite(Some("stranger")),
            Act::Rewind(back) => store.rewind(back, false),
            Act::Restore(back) => store.rewind(back, true),
        }
    }

    /// Something goes wrong.
    pub(crate) fn fault(&self, state: &mut State, fault: Fault, index: usize) {
        state.faults_left -= 1;
        state.idle = 0;
        let tick = state.tick;
        match fault {
            Fault::LoseRequest => fly(state, index, Flight::Lost),
            Fault::HoldRequest => fly(state, index, Flight::Held),
            Fault::LoseReply => self.serve_but(state, index, |_| Flight::Lost),
            Fault::HoldReply => self.serve_but(state, index, Flight::Answered),
            Fault::Duplicate => self.duplicate(state, index),
            Fault::Refuse => self.refuse(state, index, Write::Denied("refused".to_owned())),
            Fault::Throttle => self.refuse(state, index, Write::Throttled(TICK)),
            Fault::LoseNotice => member(state, index).told = Some(state.store.version),
            Fault::Crash => self.crash(state, index),
            Fault::Stop(ticks) => member(state, index).stopped_until = Some(tick + ticks),
            Fault::GuardDies => {
                let member = member(state, index);
                member.guard.die(tick + PROOF_TICKS);
                member.reports.push(Report::GuardLost);
            }
            Fault::WorkloadEnds => self.ends(state, index),
            Fault::Unwell(ticks) => {
                member(state, index).unwell_until = Some(tick + ticks);
                self.feed(state, index, Input::Health(false));
            }
            Fault::Cut(ticks) => cut(state, index, tick + ticks),
            Fault::Outage(ticks) => (0..state.members.len()).for_each(|index| cut(state, index, tick + ticks)),
        }
    }

    fn serve_but(&self, state: &mut State, index: usize, flight: impl FnOnce(Input) -> Flight) {
        let answer = self.served(state, index);
        if let Some(answer) = answer {
            fly(state, index, flight(answer));
        }
    }

    fn duplicate(&self, state: &mut State, index: usize) {
        let operation = state.members[index].operation.as_ref().map(|operation| operation.request.clone());
        if let Some(Request::Write { expected, record, .. }) = operation {
            self.serve(state, index);
            let until = state.tick + self.instance.late_ticks;
            Arc::make_mut(&mut state.store).strays.push(Stray { expected, record, until });
        }
    }

    fn refuse(&self, state: &mut State, index: usize, outcome: Write) {
        let input = match state.members[index].operation.as_ref().map(|operation| &operation.request) {
            Some(Request::Write { attempt, .. }) => Input::Written { attempt: *attempt, outcome },
            _ => Input::Read(Err("refused".to_owned())),
        };
        self.answer(state, index, input);
    }

    /// The process dies, and the kernel kills the workload with it.
    fn crash(&self, state: &mut State, index: usize) {
        let tick = state.tick;
        self.abandon(state, index);
        let restarts_after = self.instance.restarts_after;
        let member = member(state, index);
        member.restart_at = restarts_after.map(|ticks| tick + ticks);
        if member.guard.is_up() {
            member.guard = Guard::Idle;
            member.orphan_until = Some(tick + PROOF_TICKS);
        }
    }

    /// The requests that can be made now.
    pub(crate) fn ask_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.asks_left == 0 {
            return;
        }
        for ask in self.instance.asks {
            let can = |index: &usize| match ask {
                Ask::Leave => state.members[*index].is_awake(),
                Ask::Fence => state.members[*index].is_awake() && is_fenced(state),
                _ => Self::is_active(state, *index),
            };
            steps.extend((0..state.members.len()).filter(can).map(|index| Step::Ask(*ask, index)));
        }
    }

    /// An operator asks for something.
    pub(crate) fn ask(&self, state: &mut State, ask: Ask, index: usize) {
        state.asks_left -= 1;
        state.idle = 0;
        let input = match ask {
            Ask::Switchover => Input::Request(Wish::Switchover { to: None }),
            Ask::Pause(ticks) => {
                Input::Request(Wish::Pause { length: TICK * u32::from(ticks), until_unix_ms: u64::from(ticks) })
            }
            Ask::Resume => Input::Request(Wish::Resume),
            Ask::Leave => Input::Leave,
            Ask::Fence => match held(state) {
                Some(activation) => Input::Request(Wish::Fenced { activation }),
                None => Input::Wake,
            },
        };
        self.feed(state, index, input);
    }
}

/// Whether the holder in the lock can never run again: its process is gone, and so is its workload. A process that is
/// alive may have acquired the lock without knowing it yet.
fn is_fenced(state: &State) -> bool {
    let Some(Claim::Held(holder)) = state.store.record.as_ref().map(|record| &record.claim) else { return false };
    let mut machines = state.members.iter().filter_map(|member| member.machine.as_ref());
    state.up() == 0 && machines.all(|machine| machine.member() != holder.member)
}

fn held(state: &State) -> Option<Activation> {
    match state.store.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Held(holder)) => Some(holder.activation),
        _ => None,
    }
}

/// Whether every process can tell that `version` is of the past.
fn all_know_newer(state: &State, version: Version) -> bool {
    let mut members = state.members.iter().filter(|member| member.machine.is_some());
    members.all(|member| member.books.knows_newer(version))
}

fn fly(state: &mut State, index: usize, flight: Flight) {
    if let Some(operation) = &mut member(state, index).operation {
        operation.flight = flight;
    }
}

/// What is on its way when the line breaks is lost.
fn cut(state: &mut State, index: usize, until: u16) {
    let member = member(state, index);
    member.cut_until = Some(until);
    if let Some(operation) = member.operation.as_mut().filter(|operation| operation.flight == Flight::Sent) {
        operation.flight = Flight::Lost;
    }
}

fn can_befall(member: &Member, fault: Fault, state: &State) -> bool {
    let sent = member.operation.as_ref().filter(|operation| operation.flight == Flight::Sent);
    let is_write = sent.is_some_and(|operation| matches!(operation.request, Request::Write { .. }));
    match fault {
        Fault::LoseRequest | Fault::HoldReply | Fault::Refuse | Fault::Throttle => sent.is_some(),
        Fault::HoldRequest => sent.is_some(),
        // A read whose answer is lost is a read that is lost.
        Fault::LoseReply | Fault::Duplicate => is_write,
        Fault::LoseNotice => member.is_awake() && member.is_to_be_told(state.store.version),
        Fault::Crash => member.machine.is_some(),
        Fault::Stop(_) => member.is_awake(),
        Fault::GuardDies | Fault::WorkloadEnds => matches!(member.guard, Guard::Running { .. }),
        Fault::Unwell(_) => member.is_awake() && member.unwell_until.is_none(),
        Fault::Cut(_) | Fault::Outage(_) => member.machine.is_some() && member.cut_until.is_none(),
    }
}
