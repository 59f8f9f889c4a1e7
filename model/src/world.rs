//! The group as stateright's [`Model`]: which steps are possible, and what each leads to.

use std::sync::Arc;

use election::{Activation, Attempt, Member as Name, Nonce, Proof, Release, Timing, TimingError};
use stateright::{Model, Property};

use crate::instance::{Act, Ask, Fault, Instance};
use crate::member::{Flight, Member};
use crate::properties;
use crate::state::{Flags, State};
use crate::store::Store;
use crate::time::{self, Clock};

/// One instance, ready to explore.
#[derive(Clone, Debug)]
pub struct World {
    /// What is explored.
    pub instance: Instance,
    /// Every member's durations.
    pub timing: Timing,
    /// Prints what the machines say: for reading one path.
    pub is_loud: bool,
    clocks: Vec<Clock>,
}

/// One step of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Time passes. Only when nothing is due.
    Tick,
    /// A member wakes because it is due.
    Wake(usize),
    /// A member's request reaches the store and, unless the member is stopped, its answer the member.
    Serve(usize),
    /// An answer that was held up arrives.
    Deliver(usize),
    /// A member stops waiting for an answer.
    TimeOut(usize),
    /// A member hears that the lock has changed.
    Notice(usize),
    /// A process hears from its guard.
    Report(usize),
    /// A workload ends after SIGTERM.
    Ends(usize),
    /// A write that the network held is applied.
    Lands(usize),
    /// Something goes wrong at this member, or at all.
    Fault(Fault, usize),
    /// Somebody who is not of the group changes the lock.
    Act(Act),
    /// Somebody asks this member for something.
    Ask(Ask, usize),
}

impl World {
    /// Prepares `instance`.
    ///
    /// # Errors
    /// The model's durations break the inequality.
    pub fn new(instance: Instance) -> Result<Self, TimingError> {
        let clocks = instance.rates.iter().enumerate().map(|(index, rate)| Clock::new(*rate, index)).collect();
        Ok(Self { instance, timing: time::timing()?, is_loud: false, clocks })
    }

    /// The clock of the `index`th member.
    pub(crate) fn clock(&self, index: usize) -> Clock {
        self.clocks[index]
    }

    fn first_state(&self) -> State {
        let gone = Release {
            member: Name { name: "z".to_owned(), nonce: Nonce(1) },
            activation: Activation(1),
            attempt: Attempt { count: 1, random: 1 },
            proof: Proof::NoChildLeft,
            successor: None,
        };
        let mut state = State {
            tick: 0,
            members: self.clocks.iter().map(|_| Arc::new(Member::new())).collect(),
            store: Arc::new(Store::new((!self.instance.is_absent).then_some(gone), self.instance.rewinds())),
            faults_left: self.instance.fault_budget,
            acts_left: self.instance.act_budget,
            asks_left: self.instance.ask_budget,
            idle: 0,
            token: Instance::FIRST_TOKEN,
            broken: Flags::default(),
            marks: Flags::default(),
        };
        for index in 0..self.clocks.len() {
            self.boot(&mut state, index);
            while !self.instance.is_race && state.members[index].operation.is_some() {
                self.serve(&mut state, index);
            }
        }
        state
    }

    /// A wake-up of a member to which nothing else can happen at this moment. It touches nothing but the member, so
    /// every order of it and the steps of others leads to the same state: one order is enough.
    fn lone_wake(&self, state: &State) -> Option<usize> {
        let is_lone = |index: &usize| {
            let member = &state.members[*index];
            member.is_awake()
                && member.operation.is_none()
                && member.reports.is_empty()
                && !member.is_to_be_told(state.store.version)
                && member.is_due(self.clock(*index).at(state.tick))
        };
        (0..state.members.len()).find(is_lone)
    }

    /// Steps of one member that cost no fault. Returns whether one of them must come before time moves on.
    fn member_steps(&self, state: &State, index: usize, steps: &mut Vec<Step>) -> bool {
        let member = &state.members[index];
        let now = self.clock(index).at(state.tick);
        let before = steps.len();
        let mut is_sent = false;
        let mut optional = 0;
        if let Some(operation) = &member.operation {
            is_sent = operation.flight == Flight::Sent;
            let is_over = operation.limit <= now;
            match &operation.flight {
                Flight::Sent => steps.push(Step::Serve(index)),
                Flight::Held => steps.push(Step::Serve(index)),
                Flight::Answered(_) if member.is_awake() => steps.push(Step::Deliver(index)),
                Flight::Answered(_) | Flight::Lost => {}
            }
            if is_over && !is_sent && member.is_awake() {
                steps.push(Step::TimeOut(index));
            } else if !is_sent {
                optional = steps.len() - before;
            }
        }
        if member.is_awake() {
            if !is_sent && member.is_to_be_told(state.store.version) {
                steps.push(Step::Notice(index));
            }
            if !member.reports.is_empty() {
                steps.push(Step::Report(index));
            }
            if member.is_due(now) {
                steps.push(Step::Wake(index));
            }
        }
        let is_urgent = steps.len() - before > optional;
        if matches!(member.guard, crate::workload::Guard::Stopping { .. }) {
            steps.push(Step::Ends(index));
        }
        is_urgent
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if let Some(index) = self.lone_wake(state) {
            return steps.push(Step::Wake(index));
        }
        let mut is_urgent = false;
        for index in 0..state.members.len() {
            is_urgent |= self.member_steps(state, index, steps);
        }
        let lands = |stray: &crate::store::Stray| stray.expected == state.store.version;
        steps.extend((0..state.store.strays.len()).filter(|index| lands(&state.store.strays[*index])).map(Step::Lands));
        if state.tick < self.instance.window {
            self.fault_steps(state, steps);
            self.act_steps(state, steps);
            self.ask_steps(state, steps);
        }
        if !is_urgent && state.tick < self.instance.horizon {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        if self.is_loud {
            println!("tick {:2}: {step:?}", state.tick);
        }
        match step {
            Step::Tick => self.tick(&mut state),
            Step::Wake(index) => self.wake(&mut state, index),
            Step::Serve(index) => self.serve(&mut state, index),
            Step::Deliver(index) => self.deliver(&mut state, index),
            Step::TimeOut(index) => self.time_out(&mut state, index),
            Step::Notice(index) => self.notice(&mut state, index),
            Step::Report(index) => self.report(&mut state, index),
            Step::Ends(index) => self.ends(&mut state, index),
            Step::Lands(index) => self.lands(&mut state, index),
            Step::Fault(fault, index) => self.fault(&mut state, fault, index),
            Step::Act(act) => self.act_of_a_stranger(&mut state, act),
            Step::Ask(ask, index) => self.ask(&mut state, ask, index),
        }
        self.enforce(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(&self.instance)
    }
}
