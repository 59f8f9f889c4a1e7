//! What happens to a member without a fault: its process steps, its guard acts, its requests are served.

use std::sync::Arc;

use election::{Absence, Action, Activation, Attempt, Claim, Input, Instant, Machine, OnExit, OnLoss, Proof, Record};
use election::{Release, Role, Settings, Version, Write};

use crate::member::{Draws, Flight, Member, Operation, Report, Request};
use crate::state::{Flags, State, broken, mark};
use crate::store::{Replaced, Stray};
use crate::time::{LEASE, PROOF_TICKS, TICK};
use crate::workload::Guard;
use crate::world::World;

/// The members' names.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// How a member is written to: its present copy, made unique.
pub(crate) fn member(state: &mut State, index: usize) -> &mut Member {
    Arc::make_mut(&mut state.members[index])
}

impl World {
    fn set(&self, state: &mut State, marks: Flags) {
        state.marks = state.marks.and(marks.within(self.instance.marks));
    }

    /// A new process of a member starts.
    pub(crate) fn boot(&self, state: &mut State, index: usize) {
        let settings = Settings {
            name: NAMES[index].to_owned(),
            timing: self.timing,
            stop_grace: TICK * 2,
            absence: Absence::CostsALease,
            can_pause: true,
            slots: 1,
            on_exit: OnExit::Standby,
            on_loss: OnLoss::Standby,
            healthy: true,
        };
        let range = u64::try_from((self.timing.period() / 10).as_nanos()).unwrap_or(u64::MAX);
        let others = (0..state.members.len()).filter(|other| *other != index).map(|other| NAMES[other].to_owned());
        let others = Input::Candidates(others.collect());
        let member = member(state, index);
        member.machine = Some(Machine::new(settings, Draws::new(index, member.starts, range)));
        member.starts += 1;
        member.books.forget();
        self.feed(state, index, Input::Wake);
        self.feed(state, index, others);
    }

    /// Lets the process of a member take one input, and does what it says.
    pub(crate) fn feed(&self, state: &mut State, index: usize, input: Input) {
        let now = self.clock(index).at(state.tick);
        let member = member(state, index);
        let Some(machine) = &mut member.machine else { return };
        member.books.learn(machine.activation().map(|(activation, ..)| activation), &input);
        member.told = answered(&input).or(member.told);
        let outputs = machine.step(now, input);
        for output in &outputs {
            if self.is_loud {
                println!("    {} at {now}: {:?} ({})", NAMES[index], output.action, output.reason);
            }
            self.act(state, index, now, &output.action);
        }
        self.audit(state, index);
    }

    fn act(&self, state: &mut State, index: usize, now: Instant, action: &Action) {
        match action {
            Action::Read { limit } => self.send(state, index, Request::Read, now + *limit),
            Action::Write { expected, record, attempt, limit } => {
                self.audit_write(state, index, now, action);
                let request = Request::Write { expected: *expected, record: record.clone(), attempt: *attempt };
                self.send(state, index, request, now + *limit);
            }
            Action::Start { activation, token, kill_at, .. } => {
                let member = member(state, index);
                let is_new = member.books.start(*activation);
                member.guard = Guard::Running { activation: *activation, kill_at: *kill_at };
                let came_back = if member.starts > 1 { mark::CAME_BACK } else { Flags::default() };
                if !is_new || *token <= state.token {
                    state.broken = state.broken.and(broken::TOKEN);
                }
                state.token = state.token.max(*token);
                let took_over = took_over(&state.store.replaced, NAMES[index]);
                self.set(state, came_back.and(took_over));
            }
            Action::Extend { kill_at } => member(state, index).guard.extend(*kill_at),
            Action::Stop { grace, .. } => {
                self.excuse(state);
                member(state, index).guard.stop(now + *grace);
            }
            Action::Kill => {
                self.excuse(state);
                let gone_at = state.tick + PROOF_TICKS;
                member(state, index).guard.kill(gone_at);
            }
            Action::Exit(_) => self.exit(state, index),
            Action::StepBack { .. } | Action::Answer(_) | Action::Note => {}
        }
    }

    /// A stop needs an excuse, and in a steady instance there is none.
    fn excuse(&self, state: &mut State) {
        if self.instance.is_steady {
            state.broken = state.broken.and(broken::INTERRUPTED);
        }
    }

    fn exit(&self, state: &mut State, index: usize) {
        if state.members[index].guard.is_up() {
            state.broken = state.broken.and(broken::EXIT);
        }
        self.abandon(state, index);
        self.set(state, mark::LEFT);
    }

    /// A process is no more. What it sent may still arrive.
    pub(crate) fn abandon(&self, state: &mut State, index: usize) {
        let until = state.tick + self.instance.late_ticks;
        let member = member(state, index);
        member.machine = None;
        member.stopped_until = None;
        member.unwell_until = None;
        member.told = None;
        member.reports.clear();
        let Some(operation) = member.operation.take() else { return };
        self.stray(state, operation, until);
    }

    /// Keeps a write that has not arrived yet in the network.
    fn stray(&self, state: &mut State, operation: Operation, until: u16) {
        if matches!(operation.flight, Flight::Sent | Flight::Held)
            && let Request::Write { expected, record, .. } = operation.request
        {
            Arc::make_mut(&mut state.store).strays.push(Stray { expected, record, until });
        }
    }

    fn send(&self, state: &mut State, index: usize, request: Request, limit: Instant) {
        let member = member(state, index);
        let flight = if member.cut_until.is_some() { Flight::Lost } else { Flight::Sent };
        if member.operation.replace(Operation { request, limit, flight }).is_some() {
            state.broken = state.broken.and(broken::TWO_OPERATIONS);
        }
    }

    // === the audit ===

    fn audit_write(&self, state: &mut State, index: usize, now: Instant, action: &Action) {
        let Action::Write { expected, record, attempt, .. } = action else { return };
        let books = &mut member(state, index).books;
        let mut found = Flags::default();
        if !books.allows(record) {
            found = found.and(broken::PROOF);
        }
        if books.has_lost(record) {
            found = found.and(broken::AFTER_LOSS);
        }
        if let Claim::Held(holder) = &record.claim {
            let good_for = self.timing.for_lease(record.lease).map_or(self.timing.kill_after(), |t| t.kill_after());
            books.send(holder.activation, *attempt, *expected, now, good_for);
        }
        state.broken = state.broken.and(found);
    }

    /// Neither the machine nor its guard may go by a deadline that no confirmed send allows.
    fn audit(&self, state: &mut State, index: usize) {
        let member = &state.members[index];
        let Some(activation) = member.guard.activation() else { return };
        let Some(good_until) = member.books.good_until(activation) else { return };
        let believed = member.machine.as_ref().and_then(Machine::activation).map(|(_, _, kill_at)| kill_at);
        if believed.into_iter().chain(member.guard.kills_at()).any(|kill_at| kill_at > good_until) {
            state.broken = state.broken.and(broken::DEADLINE);
        }
    }

    // === steps ===

    pub(crate) fn wake(&self, state: &mut State, index: usize) {
        let now = self.clock(index).at(state.tick);
        let before = state.members[index].machine.clone();
        self.feed(state, index, Input::Wake);
        let after = &state.members[index];
        if after.is_due(now) && after.machine == before {
            state.broken = state.broken.and(broken::STUCK);
        }
    }

    /// The request under way reaches the store, and its answer the member.
    pub(crate) fn serve(&self, state: &mut State, index: usize) {
        if let Some(answer) = self.served(state, index) {
            self.answer(state, index, answer);
        }
    }

    /// What the store answers to the request under way.
    pub(crate) fn served(&self, state: &mut State, index: usize) -> Option<Input> {
        match state.members[index].operation.as_ref()?.request.clone() {
            Request::Read => Some(Input::Read(Ok(state.store.read()))),
            Request::Write { expected, record, attempt } => {
                let before = state.store.record.as_ref().map(|record| &record.claim);
                let was_absent = matches!(before, None | Some(Claim::Vacant(_)));
                let outcome = Arc::make_mut(&mut state.store).write(expected, record);
                if was_absent && matches!(outcome, Write::Written(_)) && state.members[index].is_up() {
                    self.set(state, mark::RECREATED);
                }
                Some(Input::Written { attempt, outcome })
            }
        }
    }

    /// The answer to the request under way arrives, or waits where the process is stopped.
    pub(crate) fn answer(&self, state: &mut State, index: usize, answer: Input) {
        let member = member(state, index);
        if member.is_awake() {
            member.operation = None;
            self.feed(state, index, answer);
        } else if let Some(operation) = &mut member.operation {
            operation.flight = Flight::Answered(answer);
        }
    }

    pub(crate) fn deliver(&self, state: &mut State, index: usize) {
        if let Some(Operation { flight: Flight::Answered(answer), .. }) = member(state, index).operation.take() {
            self.feed(state, index, answer);
        }
    }

    pub(crate) fn time_out(&self, state: &mut State, index: usize) {
        let Some(operation) = member(state, index).operation.take() else { return };
        let why = "no answer in time".to_owned();
        let input = match &operation.request {
            Request::Read => Input::Read(Err(why)),
            Request::Write { attempt, .. } => Input::Written { attempt: *attempt, outcome: Write::Unknown(why) },
        };
        let until = state.tick + self.instance.late_ticks;
        self.stray(state, operation, until);
        self.feed(state, index, input);
    }

    pub(crate) fn notice(&self, state: &mut State, index: usize) {
        let version = state.store.version;
        member(state, index).told = Some(version);
        self.feed(state, index, Input::Changed);
    }

    pub(crate) fn report(&self, state: &mut State, index: usize) {
        let member = member(state, index);
        let input = match member.reports.remove(0) {
            Report::Exited => Input::Exited { code: 0 },
            Report::Gone(activation, released) => {
                member.books.prove(activation);
                Input::Gone { proof: Proof::NoChildLeft, released }
            }
            Report::GuardLost => Input::GuardLost,
        };
        self.feed(state, index, input);
    }

    /// The command has ended, and with it the whole tree.
    pub(crate) fn ends(&self, state: &mut State, index: usize) {
        member(state, index).reports.push(Report::Exited);
        self.gone(state, index);
    }

    fn gone(&self, state: &mut State, index: usize) {
        let guard = std::mem::replace(&mut member(state, index).guard, Guard::Idle);
        let Some(activation) = guard.activation() else { return };
        let is_alive = !matches!(guard, Guard::Dying { is_guarded: false, .. });
        let releases = self.instance.guard_releases && is_alive;
        let released = if releases { self.guard_releases(state, activation) } else { None };
        member(state, index).reports.push(Report::Gone(activation, released));
    }

    /// The guard writes the release, into the record that still names the activation.
    fn guard_releases(&self, state: &mut State, activation: Activation) -> Option<Version> {
        let Some(Claim::Held(holder)) = state.store.record.as_ref().map(|record| &record.claim) else { return None };
        if holder.activation != activation {
            return None;
        }
        let member = holder.member.clone();
        let attempt = Attempt { count: 0, random: 0 };
        let release = Release { member, activation, attempt, proof: Proof::NoChildLeft, successor: None };
        let record = Record { claim: Claim::Released(release), lease: LEASE, slots: 1, paused_until_unix_ms: None };
        let expected = state.store.version;
        match Arc::make_mut(&mut state.store).write(expected, record) {
            Write::Written(version) => Some(version),
            _ => None,
        }
    }

    pub(crate) fn lands(&self, state: &mut State, index: usize) {
        let store = Arc::make_mut(&mut state.store);
        let stray = store.strays.remove(index);
        if let Write::Written(_) = store.write(stray.expected, stray.record) {
            state.idle = 0;
            self.set(state, mark::LANDED_LATE);
        }
    }

    pub(crate) fn tick(&self, state: &mut State) {
        state.tick += 1;
        let is_led = state.up() > 0;
        let is_able = state.members.iter().any(|member| member.is_able());
        state.idle = if is_led || !is_able { 0 } else { state.idle + 1 };
        if (0..state.members.len()).any(|index| self.outlives_an_outage(state, index)) {
            self.set(state, mark::PAUSED_OUTAGE);
        }
    }

    /// Whether only a pause lets this workload run on without a line to the store.
    fn outlives_an_outage(&self, state: &State, index: usize) -> bool {
        let member = &state.members[index];
        let Guard::Running { activation, .. } = member.guard else { return false };
        let confirmed = member.books.confirmed_at(activation);
        let now = self.clock(index).at(state.tick);
        member.cut_until.is_some() && confirmed.is_some_and(|at| now > at + self.timing.kill_after())
    }

    /// Does what is due at the latest at this tick: before anything else, as nothing can be later.
    pub(crate) fn enforce(&self, state: &mut State) {
        for index in 0..state.members.len() {
            self.enforce_guard(state, index);
            self.enforce_ends(state, index);
        }
        let tick = state.tick;
        if !state.store.strays.is_empty() {
            Arc::make_mut(&mut state.store).prune(tick);
        }
    }

    fn enforce_guard(&self, state: &mut State, index: usize) {
        let (tick, clock) = (state.tick, self.clock(index));
        if state.members[index].guard.kills_at().is_some_and(|due| clock.last_tick_for(due) <= tick) {
            member(state, index).guard.kill(tick + PROOF_TICKS);
            self.set(state, mark::GUARD_KILLED);
        }
        if matches!(state.members[index].guard, Guard::Dying { gone_at, .. } if gone_at <= tick) {
            self.gone(state, index);
        }
    }

    /// Ends what a fault left in force until now.
    fn enforce_ends(&self, state: &mut State, index: usize) {
        let tick = state.tick;
        let is_over = |until: Option<u16>| until.is_some_and(|until| until <= tick);
        let present = &state.members[index];
        if is_over(present.orphan_until) {
            member(state, index).orphan_until = None;
        }
        let present = &state.members[index];
        if is_over(present.stopped_until) {
            member(state, index).stopped_until = None;
        }
        let present = &state.members[index];
        if is_over(present.cut_until) {
            member(state, index).cut_until = None;
        }
        let present = &state.members[index];
        if is_over(present.unwell_until) && present.is_awake() {
            member(state, index).unwell_until = None;
            self.feed(state, index, Input::Health(true));
        }
        let present = &state.members[index];
        if is_over(present.restart_at) {
            member(state, index).restart_at = None;
            self.boot(state, index);
        }
    }

    /// Whether a member leads now and may be asked for something.
    pub(crate) fn is_active(state: &State, index: usize) -> bool {
        let member = &state.members[index];
        member.is_awake() && member.machine.as_ref().is_some_and(|machine| machine.role() == Role::Active)
    }
}

/// The version that an answer is about.
fn answered(input: &Input) -> Option<Version> {
    match input {
        Input::Read(Ok(seen)) => Some(seen.version),
        Input::Written { outcome: Write::Written(version), .. } => Some(*version),
        _ => None,
    }
}

/// What it means that `name` starts, given what its acquiring write replaced.
fn took_over(replaced: &Replaced, name: &str) -> Flags {
    match replaced {
        Replaced::Held => mark::FAILED_OVER,
        Replaced::Released(Some(successor)) if successor == name => mark::SWITCHED,
        Replaced::Nothing => mark::TOOK_ABSENT,
        Replaced::Foreign => mark::TOOK_FOREIGN,
        Replaced::Released(_) => Flags::default(),
    }
}
