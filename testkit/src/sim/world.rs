//! The loop: takes what is due first, lets it happen, until the history is over.
//!
//! A history is over when everything that went wrong is repaired and some member has been active for longer than a
//! lease since; or when that has not come about within a bound, which is a finding.

use std::collections::BinaryHeap;

use super::clock::{Clock, MS, Nanos};
use super::event::{Call, Delivery, Event, Scheduled};
use super::fault::{Broken, Kind};
use super::history::History;
use super::member::Member;
use super::network::Network;
use super::random::{Kernel, Random};
use super::register::Register;
use super::scenario::Scenario;
use super::tree::{Life, Tree};

/// A history that takes more events than this runs in circles.
const EVENTS_MAX: u64 = 400_000;

/// How the last activation ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastEnd {
    pub at: Nanos,
    pub planned: bool,
}

/// The state of one history.
pub(super) struct World<'a> {
    pub scenario: &'a Scenario,
    pub now: Nanos,
    queue: BinaryHeap<Scheduled>,
    order: u64,
    pub random: Random,
    pub kernel: Kernel,
    /// The lock of each slot.
    pub registers: Vec<Register>,
    pub network: Network,
    pub members: Vec<Member>,
    pub trees: Vec<Tree>,
    pub history: History,
    pub broken: Vec<Broken>,
    /// The last end in each slot.
    pub last_end: Vec<Option<LastEnd>>,
    pub last_fault: Option<Kind>,
    /// The largest token in each slot.
    pub largest_token: Vec<u64>,
    /// The most slots that a record of the first one has ever said there are.
    pub most_slots: usize,
    pub faults_left: usize,
    /// Everything is repaired from here on.
    pub quiet_from: Nanos,
    pub longest_lease: Nanos,
    /// The longest pause that was granted: observers that saw it go on counting with it.
    pub longest_pause: Nanos,
    pub ops: u64,
}

/// Runs one scenario to its end.
pub fn run(scenario: &Scenario, with_trace: bool) -> History {
    let mut world = World::new(scenario, with_trace);
    world.begin();
    world.turn();
    world.finish()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, with_trace: bool) -> Self {
        let mut offsets = Random::stream(scenario.seed, 2);
        let members = scenario.members.iter().enumerate().map(|(member, spec)| {
            let offset = 1_000_000 * MS + offsets.below(1_000_000 * MS);
            Member::new(spec.clone(), Clock::new(offset, spec.rate_ppm), scenario.told(member))
        });
        Self {
            scenario,
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            random: Random::stream(scenario.seed, 3),
            kernel: Kernel::new(Random::stream(scenario.seed, 4)),
            registers: vec![Register::default(); scenario.locks()],
            network: Network::default(),
            members: members.collect(),
            trees: Vec::new(),
            history: History::new(with_trace),
            broken: Vec::new(),
            last_end: vec![None; scenario.locks()],
            last_fault: None,
            largest_token: vec![0; scenario.locks()],
            most_slots: 1,
            faults_left: scenario.faults.len(),
            quiet_from: 0,
            longest_lease: u64::from(scenario.longest_lease_ms()) * MS,
            longest_pause: 0,
            ops: 0,
        }
    }

    fn begin(&mut self) {
        if self.scenario.free {
            let free = super::store::free_record(self.scenario);
            for register in &mut self.registers {
                register.put(free.clone());
            }
        }
        for member in 0..self.members.len() {
            let start = u64::from(self.members[member].spec.start_ms) * MS;
            self.at(start, Event::Spawn { member });
            self.quiet_until(start);
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            self.at(u64::from(fault.at_ms) * MS, Event::Fault { index });
            self.quiet_until(u64::from(fault.at_ms) * MS);
        }
        for kind in [Kind::LeasesMixed, Kind::NameTwice, Kind::AllAtOnce, Kind::ClocksExtreme] {
            // These are in force from the start.
            if self.scenario.has(kind) {
                self.history.fired(kind);
                self.last_fault = Some(kind);
            }
        }
    }

    /// Puts `event` into the queue.
    pub fn at(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        self.queue.push(Scheduled { at: at.max(self.now), order: self.order, event });
    }

    /// Puts `event` into the queue, `delay` from now.
    pub fn after(&mut self, delay: Nanos, event: Event) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Nothing is expected of the group before `at`.
    pub fn quiet_until(&mut self, at: Nanos) {
        self.quiet_from = self.quiet_from.max(at);
    }

    /// Remembers that an assumption of the promise no longer holds.
    pub fn break_assumption(&mut self, broken: Broken) {
        if !self.broken.contains(&broken) {
            self.broken.push(broken);
        }
    }

    fn turn(&mut self) {
        let mut events = 0;
        while let Some(next) = self.queue.pop() {
            self.now = next.at;
            if self.is_over() {
                break;
            }
            events += 1;
            if events > EVENTS_MAX {
                self.history.finding(self.now, "the history does not come to an end");
                break;
            }
            self.happen(next.event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Spawn { member } => self.spawn(member),
            Event::Deliver { member, process, delivery } => {
                if self.members[member].process == process {
                    self.deliver(member, delivery);
                }
            }
            Event::Arrive { member, process, slot, op, request, back } => {
                let call: Call = *request;
                self.arrive(member, process, slot, op, &call, back);
            }
            Event::Resume { member } => self.resume(member),
            Event::Tree { tree, due } => self.tree_due(tree, due),
            Event::Fault { index } => {
                self.faults_left -= 1;
                self.inject(index);
            }
            Event::Again { index, count } => self.inject_again(index, count),
        }
    }

    /// How long after the last repair some member must be active: the lease may be seen late once (a lost notice), is
    /// then waited out, three times over where the record was a stranger's, once more where the lock went back or away.
    fn bound(&self) -> Nanos {
        let any = |wanted: fn(Kind) -> bool| self.scenario.faults.iter().any(|fault| wanted(fault.kind));
        let mut leases = 3;
        if any(Kind::leaves_foreign_record) {
            leases += 3;
        }
        if any(|kind| matches!(kind, Kind::LockDeleted | Kind::LockReplaced | Kind::StoreRewound))
            || !self.scenario.free
        {
            leases += 2;
        }
        let grace = self.scenario.members.iter().map(|spec| u64::from(spec.stop_grace_ms)).max().unwrap_or(0);
        (self.longest_lease + self.longest_pause) * leases * 10 / 9 + grace * MS * 10 / 9 + self.longest_lease
    }

    fn is_over(&mut self) -> bool {
        if self.faults_left > 0 || self.now < self.quiet_from {
            return false;
        }
        let settled = self.longest_lease * 5 / 4;
        let since = |tree: &Tree| tree.started.unwrap_or(self.now).max(self.quiet_from);
        let running: Vec<&Tree> = (0..self.scenario.slots).filter_map(|slot| self.running_in(slot)).collect();
        let wanted = self.scenario.slots.min(self.scenario.members.len());
        if running.iter().filter(|tree| self.now > since(tree) + settled).count() >= wanted {
            return true;
        }
        if self.now <= self.quiet_from + self.bound() {
            return false;
        }
        let missing = wanted.saturating_sub(running.len());
        if missing > 0 {
            let bound = self.bound() / MS;
            let who = if self.scenario.slots == 1 { "no member is" } else { "not so many members as may be are" };
            self.history.finding(self.now, format!("{who} active {bound} ms after everything was repaired"));
        }
        true
    }

    /// The newest tree that runs in a slot.
    fn running_in(&self, slot: usize) -> Option<&Tree> {
        // Of several slots, one may run on while others are started anew again and again.
        self.trees.iter().rev().find(|tree| tree.slot == slot && tree.life == Life::Running)
    }

    fn finish(mut self) -> History {
        if self.history.steps == 0 || (self.queue.is_empty() && self.faults_left > 0) {
            self.history.finding(self.now, "nothing happens any more");
        }
        self.history.length = self.now;
        self.history.fold(&[self.now, self.history.steps, self.history.starts]);
        self.history
    }

    fn spawn(&mut self, member: usize) {
        if self.members[member].machine.is_some() {
            return;
        }
        let kernel = self.kernel.clone();
        if !self.members[member].spawn(&kernel) {
            self.history.finding(self.now, "a lease of the scenario does not hold");
            return;
        }
        self.note(member, |world| format!("starts as process {}", world.members[member].process));
        self.gossip();
        let wake = self.members[member].wake;
        let process = self.members[member].process;
        self.at(self.now, Event::Deliver { member, process, delivery: Delivery::Wake(wake) });
    }

    /// How a member is called in the trace.
    pub fn label(&self, member: usize) -> String {
        format!("{}[{member}]", self.members[member].spec.name)
    }
}

impl World<'_> {
    /// One line about a member for the trace.
    pub fn note(&mut self, member: usize, line: impl FnOnce(&Self) -> String) {
        if self.history.trace.is_some() {
            let line = format!("{} {}", self.label(member), line(self));
            self.history.note(self.now, || line);
        }
    }
}
