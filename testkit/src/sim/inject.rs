//! Lets faults happen.

use std::time::Duration;

use election::{Claim, Foreign, Input, Request, Role};

use super::clock::{MS, Nanos};
use super::event::{Delivery, Due, Event, Instead};
use super::fault::{Broken, Kind};
use super::network::{Effect, Window};
use super::scenario::{Fault, Target};
use super::tree::{Guard, Life};
use super::world::World;

/// Restarts of a storm.
const STORM: u32 = 12;

impl World<'_> {
    /// The first effect of a fault.
    pub(super) fn fault_shows(&mut self, kind: Kind) {
        self.history.fired(kind);
        self.last_fault = Some(kind);
        self.history.note(self.now, || format!("!! {kind}"));
    }

    /// A fault begins.
    pub(super) fn inject(&mut self, index: usize) {
        use Kind::*;
        let fault = self.scenario.faults[index].clone();
        let Some(member) = self.hit(fault.target) else { return };
        self.quiet_until(self.now + u64::from(fault.length_ms) * MS);
        match fault.kind {
            WorkloadEnds | WorkloadFails | ElectorKilled | GuardKilled | BothKilled | ContainerKilled | Terminated
            | ElectorStopped | GuardStopped | HostSuspended | RestartStorm | LeaseChanged | Fenced => {
                self.inject_process(index, member, &fault);
            }
            LockDeleted | LockBlanked | LockRenamed | LeaseEdited | LockReplaced | ForeignHolder | LockTouched
            | StoreRewound => self.inject_lock(index, &fault),
            Switchover | Paused | Resumed | OutageInPause | FencedFalsely | HealthFlaps | GuardLate => {
                self.inject_request(index, member, &fault);
            }
            StandbyCloned => self.clone_standby(member),
            LeasesMixed | NameTwice | AllAtOnce | ClocksExtreme => {}
            _ => self.inject_network(member, &fault),
        }
    }

    fn hit(&mut self, target: Target) -> Option<usize> {
        let holder = match self.scenario.slots {
            1 => self.trees.iter().rev().find(|tree| tree.life == Life::Running).map(|tree| tree.member),
            _ => self.any_holder(),
        };
        let count = self.members.len();
        match (target, holder) {
            (Target::Holder, Some(holder)) => Some(holder),
            (Target::Standby, Some(holder)) if count > 1 => Some((holder + 1 + self.random.index(count - 1)) % count),
            (Target::Holder | Target::Standby, _) => Some(self.random.index(count)),
            (Target::Member(index), _) => Some(usize::try_from(index).unwrap_or(0) % count),
        }
    }

    /// Whose workloads run.
    fn holders(&self) -> Vec<usize> {
        self.trees.iter().filter(|tree| tree.life == Life::Running).map(|tree| tree.member).collect()
    }

    /// One of several.
    fn any_holder(&mut self) -> Option<usize> {
        let holders = self.holders();
        (!holders.is_empty()).then(|| self.random.pick(&holders))
    }

    /// The slot whose lock a fault is about.
    fn slot_of(&self, fault: &Fault) -> usize {
        usize::try_from(fault.amount).unwrap_or(0) % self.scenario.slots
    }

    /// The tree of `member`, if it runs.
    fn running(&self, member: usize) -> Option<usize> {
        self.members[member].tree.filter(|tree| self.trees[*tree].life == Life::Running)
    }

    // === processes ===

    fn inject_process(&mut self, index: usize, member: usize, fault: &Fault) {
        let away = u64::from(fault.length_ms) * MS;
        if self.now < self.members[member].frozen_until {
            // Nothing happens on a host that sleeps.
            return;
        }
        match fault.kind {
            Kind::WorkloadEnds | Kind::WorkloadFails => {
                let Some(tree) = self.running(member) else { return };
                self.fault_shows(fault.kind);
                self.ends(tree, i32::from(fault.kind == Kind::WorkloadFails));
            }
            Kind::GuardKilled | Kind::GuardStopped => self.hurt_guard(member, fault),
            Kind::ElectorStopped => {
                if self.members[member].machine.is_some() {
                    self.fault_shows(fault.kind);
                    self.members[member].stopped_until = self.now + away;
                    self.after(away, Event::Resume { member });
                }
            }
            Kind::HostSuspended => {
                self.fault_shows(fault.kind);
                self.members[member].frozen_until = self.now + away;
                self.after(away, Event::Resume { member });
            }
            Kind::Terminated => self.terminate(member, fault.kind, away),
            Kind::LeaseChanged => {
                let lease_ms = self.random.pick(&[3_000, 4_000, 15_000]);
                self.members[member].spec.lease_ms = lease_ms;
                self.longest_lease = self.longest_lease.max(u64::from(lease_ms) * MS);
                self.terminate(member, fault.kind, away);
            }
            Kind::RestartStorm => self.after(0, Event::Again { index, count: 0 }),
            Kind::Fenced => {
                if let Some(tree) = self.running(member) {
                    self.kill_elector(member, away.max(1_000 * MS), true);
                    self.trees[tree].unguarded = false;
                    // Long after the proof, as a careful operator would.
                    self.after(500 * MS, Event::Again { index, count: u32::try_from(tree).unwrap_or(0) });
                }
            }
            _ => {
                if self.members[member].machine.is_some() {
                    self.fault_shows(fault.kind);
                    self.kill_elector(member, away, fault.kind != Kind::ElectorKilled);
                    if fault.kind == Kind::ContainerKilled {
                        self.let_the_platform_tell(member, fault);
                    }
                }
            }
        }
    }

    /// The platform says of what was killed that it is gone, once it is, and wakes who listens.
    fn let_the_platform_tell(&mut self, killed: usize, fault: &Fault) {
        let Some(tree) = self.members[killed].tree else { return };
        self.trees[tree].platform_tells = true;
        for member in (0..self.members.len()).filter(|member| *member != killed) {
            let process = self.members[member].process;
            let delivery = Delivery::Order(Box::new(Input::Changed));
            self.after(u64::from(fault.amount) * 2 * MS, Event::Deliver { member, process, delivery });
        }
    }

    fn terminate(&mut self, member: usize, kind: Kind, away: Nanos) {
        if self.members[member].machine.is_none() {
            return;
        }
        self.fault_shows(kind);
        self.members[member].asked = true;
        self.members[member].away = away;
        self.order(member, Input::Leave);
        if self.random.chance(100) {
            self.order(member, Input::Leave);
        }
    }

    fn hurt_guard(&mut self, member: usize, fault: &Fault) {
        let Some(tree) = self.running(member) else { return };
        if self.trees[tree].guard != Guard::Runs {
            return;
        }
        self.fault_shows(fault.kind);
        if fault.kind == Kind::GuardStopped {
            self.trees[tree].guard = Guard::Stopped;
            self.after(u64::from(fault.length_ms) * MS, Event::Tree { tree, due: Due::MissedBeat });
            return;
        }
        self.trees[tree].guard = Guard::Dead;
        let delay = self.random.between(MS / 10, 5 * MS);
        let process = self.trees[tree].process;
        let delivery = Delivery::Order(Box::new(Input::GuardLost));
        self.after(delay, Event::Deliver { member, process, delivery });
        // The elector, or the kernel where the elector cannot.
        self.after(delay, Event::Tree { tree, due: Due::Kill });
    }

    /// SIGKILL to the elector; with its guard the kernel ends the tree, without it the guard does.
    fn kill_elector(&mut self, member: usize, away: Nanos, with_guard: bool) {
        if let Some(tree) = self.members[member].tree {
            let notices = if with_guard { 0 } else { self.random.between(MS / 10, 5 * MS) };
            if with_guard {
                self.trees[tree].guard = Guard::Dead;
            }
            self.after(notices, Event::Tree { tree, due: Due::Kill });
        }
        self.members[member].end();
        let away = away.max(5 * MS);
        self.after(away, Event::Spawn { member });
        self.quiet_until(self.now + away);
    }

    // === the lock ===

    fn inject_lock(&mut self, index: usize, fault: &Fault) {
        let slot = self.slot_of(fault);
        let Some(mut record) = self.registers[slot].record().cloned() else { return };
        let held = matches!(record.claim, Claim::Held(_));
        let foreign = |holder: Option<&str>, fingerprint| {
            let why = "the digest does not match".to_owned();
            Claim::Foreign(Foreign { holder: holder.map(str::to_owned), fingerprint, why })
        };
        let fingerprint = self.random.draw();
        match fault.kind {
            Kind::LockDeleted => self.registers[slot].delete(),
            Kind::LockBlanked => {
                record.claim = foreign(None, fingerprint);
                self.registers[slot].put(record);
            }
            Kind::LockRenamed => {
                record.claim = foreign(Some("somebody"), fingerprint);
                self.registers[slot].put(record);
            }
            Kind::LeaseEdited if held => {
                record.lease = Duration::from_millis(1);
                self.registers[slot].put(record);
                self.break_assumption(Broken::LeaseEdited);
            }
            Kind::LockReplaced => {
                self.registers[slot].delete();
                if fault.amount < 500 {
                    record.claim = foreign(None, fingerprint);
                }
                self.registers[slot].put(record);
            }
            Kind::StoreRewound => {
                let back = 1 + usize::try_from(fault.amount / 60).unwrap_or(0);
                if !self.registers[slot].rewind(back) {
                    return;
                }
                self.break_assumption(Broken::StoreRewound);
            }
            Kind::ForeignHolder | Kind::LockTouched => return self.after(0, Event::Again { index, count: 0 }),
            _ => return,
        }
        self.after_hand(fault.kind);
        self.fault_shows(fault.kind);
        self.announce(slot);
    }

    /// Somebody who never saw a longer lease cannot wait for it once the record is gone.
    fn after_hand(&mut self, kind: Kind) {
        let varied = self.scenario.faults.iter().any(|fault| fault.kind.varies_leases());
        if kind.is_by_hand() && varied {
            self.break_assumption(Broken::LeaseNotKnown);
        }
    }

    /// The next step of a fault that has several.
    pub(super) fn inject_again(&mut self, index: usize, count: u32) {
        let fault = self.scenario.faults[index].clone();
        match fault.kind {
            Kind::ForeignHolder => self.renew_as_stranger(index, count, &fault),
            Kind::LockTouched => {
                let slot = self.slot_of(&fault);
                // To the end of the history: whoever restarts a timer for it never takes over.
                if let Some(record) = self.registers[slot].record().cloned() {
                    if count == 0 {
                        self.fault_shows(fault.kind);
                    }
                    self.registers[slot].put(record);
                    self.announce(slot);
                }
                let pause = self.longest_lease * u64::from(100 + fault.amount / 4) / 1000;
                self.after(pause, Event::Again { index, count: 1 });
            }
            Kind::RestartStorm => {
                let Some(member) = self.hit(fault.target) else { return };
                if count == 0 {
                    self.fault_shows(fault.kind);
                }
                let with_guard = self.random.chance(500);
                if self.now >= self.members[member].frozen_until {
                    self.kill_elector(member, 5 * MS, with_guard);
                }
                if count < STORM {
                    let pause = self.random.between(10 * MS, 10 * MS + u64::from(fault.length_ms) * MS);
                    self.after(pause, Event::Again { index, count: count + 1 });
                    self.quiet_until(self.now + pause);
                }
            }
            Kind::Fenced => {
                let tree = usize::try_from(count).unwrap_or(0);
                if self.trees[tree].life == Life::Gone && self.fence(tree) {
                    self.fault_shows(fault.kind);
                }
            }
            Kind::OutageInPause => self.outage_in_pause(&fault),
            Kind::Resumed => {
                let Some(member) = self.hit(Target::Holder) else { return };
                if self.request(member, Request::Resume) {
                    self.fault_shows(fault.kind);
                }
            }
            Kind::HealthFlaps => {
                let member = usize::try_from(count).unwrap_or(0);
                self.set_health(member, true);
            }
            _ => {}
        }
    }

    fn renew_as_stranger(&mut self, index: usize, count: u32, fault: &Fault) {
        let slot = self.slot_of(fault);
        let Some(mut record) = self.registers[slot].record().cloned() else { return };
        if count == 0 {
            self.fault_shows(fault.kind);
            self.after_hand(fault.kind);
        }
        let fingerprint = self.random.draw();
        let holder = Some("stranger".to_owned());
        record.claim = Claim::Foreign(Foreign { holder, fingerprint, why: "no annotations of ours".to_owned() });
        self.registers[slot].put(record);
        self.announce(slot);
        let pause = self.longest_lease / 7;
        let began = u64::from(fault.at_ms) * MS;
        if self.now + pause < began + u64::from(fault.length_ms) * MS {
            self.after(pause, Event::Again { index, count: count + 1 });
        }
    }

    // === requests ===

    fn order(&mut self, member: usize, input: Input) {
        let process = self.members[member].process;
        self.after(0, Event::Deliver { member, process, delivery: Delivery::Order(Box::new(input)) });
    }

    /// Whether a member grants a request, asked in this moment. A stopped one does not answer.
    fn request(&mut self, member: usize, request: Request) -> bool {
        if !self.members[member].runs(self.now) {
            return false;
        }
        let hands_over = matches!(request, Request::Switchover { .. });
        let had_asked = std::mem::replace(&mut self.members[member].asked, true);
        let granted = self.step(member, 0, Input::Request(request));
        if !(granted && hands_over) {
            self.members[member].asked = had_asked;
        }
        granted
    }

    fn inject_request(&mut self, index: usize, member: usize, fault: &Fault) {
        let length = u64::from(fault.length_ms);
        match fault.kind {
            Kind::Switchover => {
                let names: Vec<String> = self.members.iter().map(|member| member.spec.name.clone()).collect();
                let to = (fault.amount < 500).then(|| names[self.random.index(names.len())].clone());
                if self.request(member, Request::Switchover { to }) {
                    self.fault_shows(fault.kind);
                }
            }
            Kind::Paused | Kind::Resumed | Kind::OutageInPause => {
                let length = if fault.kind == Kind::OutageInPause { length * 2 } else { length };
                let pause = Request::Pause { length: Duration::from_millis(length), until_unix_ms: 1 };
                if !self.pause(member, fault.kind, &pause) {
                    return;
                }
                self.longest_pause = self.longest_pause.max(length * MS);
                // Its holder may die in it: then the others wait for all of it.
                self.quiet_until(self.now + (length * MS + self.longest_lease) * 12 / 10);
                match fault.kind {
                    Kind::Paused => self.fault_shows(fault.kind),
                    Kind::Resumed => self.after(length * MS / 2, Event::Again { index, count: 0 }),
                    _ => self.after(length * MS / 24, Event::Again { index, count: 0 }),
                }
            }
            Kind::FencedFalsely => {
                if let Some(tree) = self.running(member)
                    && self.fence(tree)
                {
                    self.fault_shows(fault.kind);
                    self.break_assumption(Broken::FencedFalsely);
                }
            }
            Kind::HealthFlaps => {
                if self.members[member].machine.is_some() {
                    self.fault_shows(fault.kind);
                    self.members[member].asked = true;
                    self.set_health(member, false);
                    let count = u32::try_from(member).unwrap_or(0);
                    self.after(length * MS, Event::Again { index, count });
                }
            }
            _ => {
                if self.running(member).is_some() {
                    self.fault_shows(fault.kind);
                    let lease = u64::from(self.members[member].spec.lease_ms);
                    let lateness = Duration::from_millis(lease * u64::from(fault.amount) / 10_000);
                    self.order(member, Input::Measured { lateness, proof: Duration::from_millis(1) });
                }
            }
        }
    }

    /// Whether a pause is granted, where the outage in it is everybody's by the active member of each slot.
    fn pause(&mut self, member: usize, kind: Kind, pause: &Request) -> bool {
        if self.scenario.slots == 1 || kind != Kind::OutageInPause {
            return self.request(member, pause.clone());
        }
        let holders = self.holders();
        let granted = holders.iter().filter(|holder| self.request(**holder, pause.clone())).count();
        if granted < self.scenario.slots && granted > 0 {
            // No outage, and a pause all the same.
            let Request::Pause { length, .. } = pause else { return false };
            let length = super::clock::nanos(*length);
            self.longest_pause = self.longest_pause.max(length);
            self.quiet_until(self.now + (length + self.longest_lease) * 12 / 10);
        }
        granted >= self.scenario.slots
    }

    fn set_health(&mut self, member: usize, healthy: bool) {
        self.members[member].healthy = healthy;
        self.order(member, Input::Health(healthy));
        self.gossip();
    }

    /// An operator tells every standby that the activation of `tree` is gone.
    fn fence(&mut self, tree: usize) -> bool {
        let activation = self.trees[tree].activation;
        let mut granted = false;
        for member in 0..self.members.len() {
            granted |= self.request(member, Request::Fenced { activation });
        }
        granted
    }

    // === the network ===

    fn window(&mut self, kind: Kind, effect: Effect, member: Option<usize>, from: Nanos, length: Nanos) {
        let window = Window { kind, effect, member, from, until: from + length, hit: false };
        self.network.add(self.now, window);
        self.quiet_until(from + length);
        if matches!(effect, Effect::Drop | Effect::Refuse) {
            // A watch that connects again finds out what it has missed, more often than not.
            for one in (0..self.members.len()).filter(|one| member.is_none_or(|only| only == *one)) {
                if self.random.chance(700) {
                    let process = self.members[one].process;
                    let delivery = Delivery::Order(Box::new(Input::Changed));
                    self.at(from + length + MS, Event::Deliver { member: one, process, delivery });
                }
            }
        }
    }

    fn inject_network(&mut self, member: usize, fault: &Fault) {
        let length = u64::from(fault.length_ms) * MS;
        let lease = u64::from(self.members[member].spec.lease_ms) * MS;
        let amount = |most: Nanos| most * u64::from(fault.amount) / 1000;
        let timing = self.members[member].machine.as_ref().map(|machine| *machine.timing());
        let Some(timing) = timing else { return };
        let (limit, deadline) = (super::clock::nanos(timing.attempt_limit()), super::clock::nanos(timing.kill_after()));
        let (effect, everybody) = match fault.kind {
            Kind::Partition => (Effect::Drop, false),
            Kind::RequestsLost => (Effect::RequestLost, false),
            Kind::AnswersLost => (Effect::AnswerLost, false),
            Kind::OneAnswerLost => (Effect::AnswerLostOnce, false),
            Kind::AnswersSlow => (Effect::Delay(limit / 10, limit * 8 / 10), false),
            Kind::AnswersDelayed => (Effect::Delay(deadline * 3 / 10, deadline * 95 / 100), false),
            Kind::WritesRepeated => (Effect::Repeat(lease), fault.amount < 300),
            Kind::WritesLate => (Effect::Late(amount(lease * 4).max(MS)), fault.amount % 10 < 3),
            Kind::Throttled => {
                let ms = u32::try_from(amount(lease * 4) / MS).unwrap_or(u32::MAX);
                (Effect::Say(Instead::Throttled(ms.max(1))), true)
            }
            Kind::Denied => (Effect::Say(Instead::Denied), false),
            Kind::ServerErrors => (Effect::Fail, true),
            Kind::OutageShort => (Effect::Refuse, true),
            Kind::OutageLong if fault.amount < 500 => (Effect::Refuse, true),
            Kind::OutageLong => (Effect::Drop, true),
            Kind::NoticesLost => (Effect::NoticeLost, fault.amount < 500),
            Kind::NoticesLate => (Effect::NoticeLate(amount(lease * 2).max(MS)), fault.amount < 500),
            Kind::NoticesRepeated => (Effect::NoticeRepeated(amount(lease).max(MS)), true),
            Kind::ReadsStale => (Effect::Stale(4), fault.amount < 500),
            _ => return,
        };
        self.window(fault.kind, effect, (!everybody).then_some(member), self.now, length);
    }

    /// First an answer is lost, then everything.
    fn outage_in_pause(&mut self, fault: &Fault) {
        let length = u64::from(fault.length_ms) * MS;
        let first = length / 21;
        self.window(fault.kind, Effect::AnswerLost, None, self.now, first);
        self.window(fault.kind, Effect::Drop, None, self.now + first, length - first);
    }

    /// A copy of a standby: the same name, the same nonce, the same clock; from here on other randomness.
    fn clone_standby(&mut self, member: usize) {
        let one = &self.members[member];
        let stands_by = one.machine.as_ref().is_some_and(|machine| machine.role() == Role::Standby);
        if !stands_by || !one.runs(self.now) || self.members.len() >= 8 + self.scenario.slots {
            return;
        }
        let mut copy = super::member::Member::new(one.spec.clone(), one.clock, one.pending.len());
        copy.machine = one.machine.clone();
        copy.pending.clone_from(&one.pending);
        copy.healthy = one.healthy;
        copy.last_version.clone_from(&one.last_version);
        copy.process = 1;
        let (index, local) = (self.members.len(), one.clock.read(self.now));
        // Its answer reaches the original; the copy hears nothing until its limit.
        let limit = one.machine.as_ref().map(|machine| machine.timing().attempt_limit()).unwrap_or_default();
        let until = one.clock.when(local + limit);
        self.members.push(copy);
        self.fault_shows(Kind::StandbyCloned);
        let waits: Vec<u64> = self.members[index].pending.iter().flatten().map(|pending| pending.op).collect();
        for op in &waits {
            self.at(until, Event::Deliver { member: index, process: 1, delivery: Delivery::Timeout { op: *op } });
        }
        if waits.is_empty() {
            self.step(index, 0, Input::Wake);
        }
    }
}
