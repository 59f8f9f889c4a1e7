//! Groups of which several members may be active: never more than so many, never two in one slot, and no member in two,
//! whatever becomes of requests, processes and workloads.

use std::time::Duration;

use election::{
    Absence, Action, Activation, Entropy, Evidence, Input, Instant, OnExit, OnLoss, Output, Proof, Record, Role, Seen,
    Settings, Slots, Timing, TimingError, Version, Write,
};

const HISTORIES: u64 = 1_000;
const STEPS: u64 = 400;
const LEASE: Duration = Duration::from_secs(4);

/// A small generator (splitmix64): the same seed gives the same history.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Entropy for Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or_default()
    }
}

/// One slot's lock.
#[derive(Default)]
struct Register {
    number: u64,
    record: Option<Record>,
}

impl Register {
    fn version(&self) -> Version {
        if self.record.is_some() { Version { incarnation: 1, number: self.number } } else { Version::ABSENT }
    }

    fn write(&mut self, expected: Version, record: Record) -> Write {
        if expected != self.version() {
            return Write::Conflict;
        }
        self.number += 1;
        self.record = Some(record);
        Write::Written(self.version())
    }
}

/// A workload that runs, in one slot.
struct Run {
    slot: usize,
    activation: Activation,
    kill_at: Instant,
}

struct Member {
    slots: Slots<Dice>,
    /// What is to be done about each slot's lock.
    asked: Vec<Option<Action>>,
    run: Option<Run>,
}

struct Group {
    dice: Dice,
    now: Instant,
    registers: Vec<Register>,
    members: Vec<Member>,
    /// Writes that were given up and may land at any later time.
    late: Vec<(usize, Version, Record)>,
    limit: u32,
    timing: Timing,
    starts: u64,
    most: usize,
}

fn settings(name: &str, slots: u32, timing: Timing) -> Settings {
    Settings {
        name: name.to_owned(),
        timing,
        stop_grace: Duration::from_secs(1),
        absence: Absence::CostsALease,
        can_pause: true,
        slots,
        on_exit: OnExit::Standby,
        on_loss: OnLoss::Standby,
        healthy: true,
    }
}

impl Group {
    fn new(seed: u64, limit: u32, members: usize, timing: Timing) -> Self {
        let mut group = Self {
            dice: Dice(seed),
            now: Instant::from_nanos(1_000_000_000_000),
            registers: (0..limit).map(|_| Register::default()).collect(),
            members: Vec::new(),
            late: Vec::new(),
            limit,
            timing,
            starts: 0,
            most: 0,
        };
        for index in 0..members {
            let member = group.process(index, limit);
            group.members.push(member);
            group.step(index, 0, Input::Wake);
        }
        group
    }

    fn process(&mut self, index: usize, slots: u32) -> Member {
        let mut seeds = Dice(self.dice.bits());
        let settings = settings(["a", "b", "c", "d", "e", "f", "g", "h"][index], slots, self.timing);
        let slots = Slots::new(&settings, || Dice(seeds.bits()));
        Member { asked: vec![None; slots.count()], slots, run: None }
    }

    fn step(&mut self, index: usize, slot: usize, input: Input) {
        let member = &mut self.members[index];
        let outputs = member.slots.step(self.now, slot, input);
        let busy = (0..member.slots.count()).filter(|slot| member.slots.role_in(*slot) != Role::Standby);
        assert!(busy.count() <= 1, "one slot at a time");
        let mut ends = false;
        for (slot, Output { action, .. }) in outputs {
            match action {
                Action::Stop { .. } | Action::Kill => ends = true,
                Action::Read { .. } | Action::Write { .. } => {
                    assert!(self.members[index].asked[slot].replace(action).is_none(), "one operation for each slot");
                }
                Action::Start { activation, kill_at, .. } => self.start(index, Run { slot, activation, kill_at }),
                Action::Extend { kill_at } => {
                    if let Some(run) = &mut self.members[index].run {
                        run.kill_at = kill_at;
                    }
                }
                _ => {}
            }
        }
        if ends {
            self.end(index);
        }
    }

    fn start(&mut self, index: usize, run: Run) {
        self.starts += 1;
        let own = self.members[index].run.as_ref().map(|run| run.activation);
        assert_eq!(own, None, "a member runs one workload");
        let in_slot = self.members.iter().filter_map(|member| member.run.as_ref()).any(|other| other.slot == run.slot);
        assert!(!in_slot, "two in one slot");
        self.members[index].run = Some(run);
        let running = self.members.iter().filter(|member| member.run.is_some()).count();
        assert!(running <= self.limit as usize, "{running} run, allowed are {}", self.limit);
        self.most = self.most.max(running);
    }

    /// The guards: no workload outlives its deadline.
    fn kill_what_is_due(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].run.as_ref().is_some_and(|run| self.now >= run.kill_at) {
                self.end(index);
            }
        }
    }

    fn end(&mut self, index: usize) {
        if self.members[index].run.take().is_some() {
            self.step(index, 0, Input::Exited { code: 1 });
            self.step(index, 0, Input::Gone { proof: Proof::NoChildLeft, released: None });
        }
    }

    /// An operation under way is answered, or not: the request, the answer or both are lost, or late.
    fn answer(&mut self, index: usize, slot: usize, fate: u64) {
        let Some(asked) = self.members[index].asked[slot].take() else { return };
        let register = &mut self.registers[slot];
        let input = match asked {
            Action::Write { expected, record, attempt, .. } => {
                let outcome = match fate {
                    0 => Write::Unknown("lost".to_owned()),
                    1 => {
                        register.write(expected, record);
                        Write::Unknown("the answer is lost".to_owned())
                    }
                    2 => {
                        self.late.push((slot, expected, record));
                        Write::Unknown("late".to_owned())
                    }
                    3 => Write::Denied("not now".to_owned()),
                    _ => register.write(expected, record),
                };
                Input::Written { attempt, outcome }
            }
            _ if fate == 0 => Input::Read(Err("lost".to_owned())),
            _ => {
                let (version, record) = (register.version(), register.record.clone());
                Input::Read(Ok(Seen { version, record, evidence: Evidence::None }))
            }
        };
        self.step(index, slot, input);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.kill_what_is_due();
        for index in 0..self.members.len() {
            self.step(index, 0, Input::Wake);
        }
    }

    fn happen(&mut self) {
        let index = self.dice.index(self.members.len());
        let slot = self.dice.index(self.registers.len());
        match self.dice.below(56) {
            0..16 => {
                let fate = self.dice.below(10);
                self.answer(index, slot, fate);
            }
            16..24 => self.step(index, slot, Input::Changed),
            24..30 => self.step(index, 0, Input::Wake),
            30..32 => {
                let names = ["a", "b", "c", "d", "e", "f", "g", "h"].map(str::to_owned).to_vec();
                self.step(index, 0, Input::Candidates(names));
            }
            32..40 => {
                let time = Duration::from_millis(self.dice.below(400));
                self.pass(time);
            }
            40..43 => {
                if let Some((slot, expected, record)) = self.late.pop() {
                    self.registers[slot].write(expected, record);
                }
            }
            43..46 => self.end(index),
            46..49 => {
                let healthy = self.dice.below(2) == 0;
                self.step(index, 0, Input::Health(healthy));
            }
            49 => {
                self.registers[slot].record = None;
            }
            50 => self.step(index, 0, Input::GuardLost),
            // A process ends with its workload, and another one starts.
            51 => {
                self.members[index] = self.process(index, self.limit);
                self.step(index, 0, Input::Wake);
            }
            _ => {}
        }
    }

    /// Everything is answered and time passes: as many are active as may be.
    fn recover(&mut self) {
        for index in 0..self.members.len() {
            self.step(index, 0, Input::Health(true));
        }
        let wanted = self.members.len().min(self.limit as usize);
        let running = |group: &Self| group.members.iter().filter(|member| member.run.is_some()).count();
        for _ in 0..1_000 {
            if running(self) == wanted {
                return;
            }
            self.pass(Duration::from_millis(50));
            for index in 0..self.members.len() {
                for slot in 0..self.registers.len() {
                    match self.members[index].asked[slot] {
                        Some(_) => self.answer(index, slot, u64::MAX),
                        None => self.step(index, slot, Input::Changed),
                    }
                }
            }
        }
        assert!(running(self) == wanted, "{} of {wanted} are active", running(self));
    }
}

fn play(limit: u32) -> Result<(), TimingError> {
    let timing = Timing::new(LEASE, None)?;
    let (mut starts, mut full) = (0, 0);
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let members = 2 + dice.index(6);
        let mut group = Group::new(dice.bits(), limit, members, timing);
        for _ in 0..STEPS {
            group.happen();
        }
        group.recover();
        starts += group.starts;
        full += u64::from(group.most == limit as usize);
    }
    assert!(starts > HISTORIES * 2 && full > HISTORIES / 10, "{starts} starts, {full} full");
    Ok(())
}

#[test]
fn never_more_than_two_of_two() -> Result<(), TimingError> {
    play(2)
}

#[test]
fn never_more_than_three_of_three() -> Result<(), TimingError> {
    play(3)
}

#[test]
fn never_more_than_five_of_five() -> Result<(), TimingError> {
    play(5)
}
