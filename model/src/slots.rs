//! A group of which several members may be active, with [`election::Slots`] as it ships: every order in which answers
//! come, with a few of them lost, late or without effect, processes that die and workloads that end.
//!
//! All clocks are right here and guards are prompt: what becomes of a single lock otherwise is what the other instances
//! are for. Here it is about the turn that a member has among its slots.

use std::time::Duration;

use election::{
    Absence, Action, Activation, Attempt, Claim, Evidence, Input, Instant, Member as Name, Nonce, OnExit, OnLoss,
    Output, Proof, Record, Release, Role, Seen, Settings, Slots, Timing, TimingError, Version, Write,
};
use stateright::{Model, Property};

use crate::member::Draws;

const LEASE: Duration = Duration::from_secs(4);
/// Time passes in steps of this: a renewal period, nearly.
const TICK: Duration = Duration::from_millis(500);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A small group, ready to explore.
#[derive(Clone, Debug)]
pub struct SlotGroup {
    /// How many members may be active.
    pub slots: usize,
    /// How many members there are, at most three.
    pub members: usize,
    /// What may go wrong, all together.
    pub faults: u8,
    /// How long it goes on.
    pub ticks: u8,
    timing: Timing,
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As it should.
    Done,
    /// It never reaches the store.
    Lost,
    /// The store does it, and nobody hears of it.
    Unheard,
    /// The store does it once nobody waits any more.
    Late,
}

/// One step of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The operation of a member in a slot ends.
    Answer(usize, usize, Fate),
    /// A write that was given up reaches the store.
    Lands,
    /// A member hears that a lock has changed.
    Notice(usize, usize),
    /// A workload ends by itself.
    Ends(usize),
    /// A process dies, and its workload with it; another one starts.
    Dies(usize),
    /// Time passes. Only when nothing else is due.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Register {
    version: Version,
    record: Option<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    machines: Slots<Draws>,
    asked: Vec<Option<Action>>,
    /// What each lock was when the machine saw it last.
    seen: Vec<Version>,
    /// What runs, in which slot, and until when at the latest.
    run: Option<(usize, Activation, Instant)>,
    starts: u8,
}

/// The group at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    tick: u8,
    registers: Vec<Register>,
    members: Vec<Member>,
    late: Option<(usize, Version, Record)>,
    faults_left: u8,
    changes: u8,
    /// A workload was started beside one that ran in its slot, or by a member that ran one.
    is_broken: bool,
}

impl State {
    fn running(&self) -> usize {
        self.members.iter().filter(|member| member.run.is_some()).count()
    }
}

impl SlotGroup {
    /// Prepares a group.
    ///
    /// # Errors
    /// The lease does not hold.
    pub fn new(slots: usize, members: usize, faults: u8, ticks: u8) -> Result<Self, TimingError> {
        Ok(Self { slots, members: members.min(NAMES.len()), faults, ticks, timing: Timing::new(LEASE, None)? })
    }

    /// Those that take too long for a test.
    ///
    /// # Errors
    /// As [`SlotGroup::new`].
    pub fn deep() -> Result<[Self; 2], TimingError> {
        Ok([Self::new(2, 3, 1, 5)?, Self::new(2, 2, 3, 5)?])
    }

    /// What it is called.
    pub fn name(&self) -> String {
        let Self { slots, members, faults, ticks, .. } = self;
        format!("slots {slots}/{members}, {faults} faults, {ticks} ticks")
    }

    fn now(&self, tick: u8) -> Instant {
        Instant::from_nanos(1_000_000_000_000) + TICK * u32::from(tick)
    }

    fn process(&self, index: usize, starts: u8) -> Member {
        let settings = Settings {
            name: NAMES[index].to_owned(),
            timing: self.timing,
            stop_grace: TICK,
            absence: Absence::CostsALease,
            can_pause: true,
            slots: u32::try_from(self.slots).unwrap_or(1),
            on_exit: OnExit::Standby,
            on_loss: OnLoss::Standby,
            healthy: true,
        };
        let range = u64::try_from((self.timing.period() / 10).as_nanos()).unwrap_or(u64::MAX);
        // Every machine has draws of its own.
        let mut drawn = 0;
        let machines = Slots::new(&settings, || {
            drawn += 1;
            Draws::new(index * 10 + drawn, starts, range)
        });
        let none = vec![Version::ABSENT; self.slots];
        Member { machines, asked: vec![None; self.slots], seen: none, run: None, starts }
    }

    fn feed(&self, state: &mut State, index: usize, slot: usize, input: Input) {
        if let Input::Read(Ok(Seen { version, .. })) | Input::Written { outcome: Write::Written(version), .. } = &input
        {
            state.members[index].seen[slot] = *version;
        }
        let outputs = state.members[index].machines.step(self.now(state.tick), slot, input);
        let mut ends = false;
        for (slot, Output { action, .. }) in outputs {
            match action {
                Action::Read { .. } | Action::Write { .. } => state.members[index].asked[slot] = Some(action),
                Action::Start { activation, kill_at, .. } => {
                    let shares = |member: &Member| member.run.is_some_and(|(of, ..)| of == slot);
                    state.is_broken |= state.members[index].run.is_some() || state.members.iter().any(shares);
                    state.members[index].run = Some((slot, activation, kill_at));
                    state.changes = state.changes.saturating_add(1);
                }
                Action::Extend { kill_at } => {
                    if let Some(run) = &mut state.members[index].run {
                        run.2 = kill_at;
                    }
                }
                Action::Stop { .. } | Action::Kill => ends = true,
                _ => {}
            }
        }
        if ends {
            self.end(state, index);
        }
    }

    fn end(&self, state: &mut State, index: usize) {
        if state.members[index].run.take().is_some() {
            self.feed(state, index, 0, Input::Exited { code: 1 });
            self.feed(state, index, 0, Input::Gone { proof: Proof::NoChildLeft, released: None });
        }
    }

    fn write(state: &mut State, slot: usize, expected: Version, record: Record) -> Write {
        let register = &mut state.registers[slot];
        if register.version != expected {
            return Write::Conflict;
        }
        register.version.number += 1;
        register.record = Some(record);
        Write::Written(register.version)
    }

    fn answer(&self, state: &mut State, index: usize, slot: usize, fate: Fate) {
        let Some(asked) = state.members[index].asked[slot].take() else { return };
        let input = match asked {
            Action::Write { expected, record, attempt, .. } => {
                let unknown = || Write::Unknown("no answer".to_owned());
                let outcome = match fate {
                    Fate::Done => Self::write(state, slot, expected, record),
                    Fate::Lost => unknown(),
                    Fate::Unheard => {
                        Self::write(state, slot, expected, record);
                        unknown()
                    }
                    Fate::Late => {
                        state.late = Some((slot, expected, record));
                        unknown()
                    }
                };
                Input::Written { attempt, outcome }
            }
            _ if fate == Fate::Done => {
                let Register { version, record } = state.registers[slot].clone();
                Input::Read(Ok(Seen { version, record, evidence: Evidence::None }))
            }
            _ => Input::Read(Err("no answer".to_owned())),
        };
        self.feed(state, index, slot, input);
    }

    fn pass(&self, state: &mut State) {
        state.tick += 1;
        let now = self.now(state.tick);
        for index in 0..self.members {
            if state.members[index].run.is_some_and(|(.., kill_at)| now >= kill_at) {
                self.end(state, index);
            }
        }
        for index in 0..self.members {
            if state.members[index].machines.next_wakeup().is_some_and(|at| now >= at) {
                self.feed(state, index, 0, Input::Wake);
            }
        }
    }
}

/// How a lock of a first installation looks that was shipped as free.
fn free(slots: usize) -> Register {
    let release = Release {
        member: Name { name: "z".to_owned(), nonce: Nonce(1) },
        activation: Activation(1),
        attempt: Attempt { count: 1, random: 1 },
        proof: Proof::NeverStarted,
        successor: None,
    };
    let slots = u32::try_from(slots).unwrap_or(1);
    let record = Record { claim: Claim::Released(release), lease: LEASE, slots, paused_until_unix_ms: None };
    Register { version: Version { incarnation: 1, number: 1 }, record: Some(record) }
}

impl Model for SlotGroup {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            tick: 0,
            registers: vec![free(self.slots); self.slots],
            members: (0..self.members).map(|index| self.process(index, 0)).collect(),
            late: None,
            faults_left: self.faults,
            changes: 0,
            is_broken: false,
        };
        for index in 0..self.members {
            self.feed(&mut state, index, 0, Input::Wake);
        }
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let may_fail = state.faults_left > 0;
        let mut is_quiet = true;
        for (index, member) in state.members.iter().enumerate() {
            for slot in 0..self.slots {
                if let Some(asked) = &member.asked[slot] {
                    is_quiet = false;
                    steps.push(Step::Answer(index, slot, Fate::Done));
                    if may_fail {
                        steps.push(Step::Answer(index, slot, Fate::Lost));
                    }
                    if may_fail && matches!(asked, Action::Write { .. }) {
                        steps.extend([Fate::Unheard, Fate::Late].map(|fate| Step::Answer(index, slot, fate)));
                    }
                } else if member.seen[slot] != state.registers[slot].version {
                    is_quiet = false;
                    steps.push(Step::Notice(index, slot));
                }
            }
            if may_fail && member.run.is_some() {
                steps.extend([Step::Ends(index), Step::Dies(index)]);
            }
        }
        if state.late.is_some() {
            steps.push(Step::Lands);
        }
        if is_quiet && state.tick < self.ticks {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Answer(index, slot, fate) => {
                state.faults_left -= u8::from(fate != Fate::Done);
                self.answer(&mut state, index, slot, fate);
            }
            Step::Lands => {
                let (slot, expected, record) = state.late.take()?;
                Self::write(&mut state, slot, expected, record);
            }
            Step::Notice(index, slot) => {
                state.members[index].seen[slot] = state.registers[slot].version;
                self.feed(&mut state, index, slot, Input::Changed);
            }
            Step::Ends(index) => {
                state.faults_left -= 1;
                self.end(&mut state, index);
            }
            Step::Dies(index) => {
                state.faults_left -= 1;
                state.members[index] = self.process(index, state.members[index].starts + 1);
                self.feed(&mut state, index, 0, Input::Wake);
            }
            Step::Tick => self.pass(&mut state),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one in each slot, and one slot for each", |_, state: &State| !state.is_broken),
            Property::always("never more than may be", |group: &Self, state: &State| state.running() <= group.slots),
            Property::always("one turn for each member", |group: &Self, state: &State| {
                let is_busy = |member: &Member, slot: usize| member.machines.role_in(slot) != Role::Standby;
                let busy = |member: &Member| (0..group.slots).filter(|slot| is_busy(member, *slot)).count();
                state.members.iter().all(|member| busy(member) <= 1)
            }),
            Property::sometimes("every slot is taken", |group: &Self, state: &State| {
                state.running() == group.slots.min(group.members)
            }),
            Property::sometimes("a slot changes hands", |group: &Self, state: &State| {
                usize::from(state.changes) > group.slots.min(group.members)
            }),
        ]
    }
}
