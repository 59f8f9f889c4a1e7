//! The driver of a machine on virtual time: what a real one does with a clock, a store and a guard.
//!
//! One operation at a time; an attempt that runs into its limit is answered as unknown, a read as an error; a change
//! notice becomes an input; orders to the guard are carried out at once. A real driver could stand here instead.

use election::{Action, Claim, Exit, Input, Instant, Output, Record, Role, Version, Write};

use super::clock::{MS, Nanos};
use super::event::{Call, Delivery, Event};
use super::fault::Kind;
use super::member::{Pending, Sent, kill_after};
use super::world::World;

/// A wake-up that leads to nothing and asks for another in the same moment, so often, is a busy loop.
const IDLE_WAKES_MAX: u32 = 4;

impl World<'_> {
    /// Something reaches the elector of the present process, or waits until that runs on.
    pub(super) fn deliver(&mut self, member: usize, delivery: Delivery) {
        if self.members[member].machine.is_none() {
            return;
        }
        if !self.members[member].runs(self.now) {
            self.members[member].backlog.push(delivery);
            return;
        }
        match delivery {
            Delivery::Wake(generation) if generation == self.members[member].wake => {
                self.step(member, 0, Input::Wake);
            }
            Delivery::Wake(_) => {}
            Delivery::Notice(slot, version) => {
                if self.members[member].last_version[slot] != version {
                    self.step(member, slot, Input::Changed);
                }
            }
            Delivery::Answer { op, input } => {
                if let Some((slot, _)) = self.members[member].settle(op) {
                    self.step(member, slot, *input);
                }
            }
            Delivery::Timeout { op } => {
                if let Some((slot, pending)) = self.members[member].settle(op) {
                    let why = "no answer within the limit".to_owned();
                    let input = match pending.attempt {
                        Some(attempt) => Input::Written { attempt, outcome: Write::Unknown(why) },
                        None => Input::Read(Err(why)),
                    };
                    self.step(member, slot, input);
                }
            }
            Delivery::Order(input) if *input == Input::Changed => {
                for slot in 0..self.members[member].pending.len() {
                    self.step(member, slot, Input::Changed);
                }
            }
            Delivery::Order(input) => {
                self.step(member, 0, *input);
            }
        }
    }

    /// A stopped elector runs on: everything that waited reaches it, in an order that only its kernel knows.
    pub(super) fn resume(&mut self, member: usize) {
        if !self.members[member].runs(self.now) {
            return;
        }
        let ranks = [self.random.draw(), self.random.draw(), self.random.draw(), self.random.draw()];
        let mut backlog = std::mem::take(&mut self.members[member].backlog);
        backlog.sort_by_key(|delivery| match delivery {
            Delivery::Wake(_) => ranks[0],
            Delivery::Answer { .. } => ranks[1],
            Delivery::Timeout { .. } => ranks[2],
            Delivery::Notice(..) | Delivery::Order(_) => ranks[3],
        });
        let process = self.members[member].process;
        self.note(member, |_| format!("runs on, with {} inputs waiting", backlog.len()));
        for delivery in backlog {
            self.at(self.now, Event::Deliver { member, process, delivery });
        }
    }

    /// One input for the machine of a slot, and everything that it wants done. True where it granted a request.
    pub(super) fn step(&mut self, member: usize, mut slot: usize, input: Input) -> bool {
        let local = self.members[member].clock.read(self.now);
        if let Input::Gone { .. } = &input
            && let Some(tree) = self.members[member].tree
        {
            slot = self.trees[tree].slot;
            let activation = self.trees[tree].activation;
            self.members[member].gone.push(activation);
        }
        self.members[member].hear(slot, &input);
        self.note(member, |_| format!("<- {}", brief(&input)));
        let (is_wake, is_request) = (input == Input::Wake, matches!(input, Input::Request(_)));
        let Some(machine) = self.members[member].machine.as_mut() else { return false };
        let outputs = machine.step(local, slot, input);
        self.history.steps += 1;
        self.history.fold(&[self.now, member as u64, outputs.len() as u64]);
        let answers = outputs.iter().filter(|(_, output)| matches!(output.action, Action::Answer(_))).count();
        if answers != usize::from(is_request) {
            self.history.finding(self.now, format!("{answers} answers to one input"));
        }
        self.check_wakes(member, local, is_wake && outputs.is_empty());
        let granted = outputs.iter().any(|(_, output)| output.action == Action::Answer(Ok(())));
        for (slot, output) in outputs {
            self.carry_out(member, slot, local, output);
        }
        self.check_stop_is_kept(member);
        self.schedule_wake(member);
        granted
    }

    fn carry_out(&mut self, member: usize, slot: usize, local: Instant, output: Output) {
        self.note(member, |_| format!("-> {:?}: {}", output.action, output.reason));
        self.history.fold_text(&output.reason);
        if output.reason.is_empty() {
            self.history.finding(self.now, format!("no reason is given for {:?}", output.action));
        }
        match output.action {
            Action::Read { limit } => {
                let due = self.members[member].clock.when(local + limit);
                self.call(member, slot, None, due, Call::Read { back: 0 });
            }
            Action::Write { expected, record, attempt, limit } => {
                self.check_write(member, slot, local, expected, &record, attempt);
                let due = self.members[member].clock.when(local + limit);
                self.call(member, slot, Some(attempt), due, Call::Write { expected, record, attempt });
            }
            Action::Start { activation, token, kill_at, .. } => {
                self.start(member, slot, local, activation, token, kill_at);
            }
            Action::Extend { kill_at } => self.extend(member, kill_at),
            Action::Stop { grace, .. } => self.stop(member, local, grace),
            Action::Kill => self.kill_told(member),
            Action::Exit(exit) => self.exit(member, exit),
            Action::StepBack { .. } | Action::Answer(_) | Action::Note => {}
        }
    }

    /// Sends one request and sets its limit.
    fn call(&mut self, member: usize, slot: usize, attempt: Option<election::Attempt>, due: Nanos, call: Call) {
        self.ops += 1;
        let op = self.ops;
        if self.members[member].pending[slot].replace(Pending { op, attempt }).is_some() {
            self.history.finding(self.now, "two operations at a time");
        }
        let process = self.members[member].process;
        self.at(due, Event::Deliver { member, process, delivery: Delivery::Timeout { op } });
        self.send(member, process, slot, op, call);
    }

    fn exit(&mut self, member: usize, exit: Exit) {
        self.check_exit(member, exit);
        let away = self.members[member].away.max(20 * MS + self.random.below(400 * MS));
        self.members[member].away = 0;
        self.members[member].end();
        self.after(away, Event::Spawn { member });
        self.quiet_until(self.now + away);
        self.gossip();
    }

    /// Tells every member who else is there and healthy.
    pub(super) fn gossip(&mut self) {
        let mut names: Vec<String> = Vec::with_capacity(self.members.len());
        for member in self.members.iter().filter(|member| member.machine.is_some() && member.healthy) {
            names.push(member.spec.name.clone());
        }
        for member in 0..self.members.len() {
            if self.members[member].machine.is_none() {
                continue;
            }
            let process = self.members[member].process;
            let delivery = Delivery::Order(Box::new(Input::Candidates(names.clone())));
            let delay = self.random.between(MS, 50 * MS);
            self.after(delay, Event::Deliver { member, process, delivery });
        }
    }

    fn schedule_wake(&mut self, member: usize) {
        let one = &mut self.members[member];
        let Some(machine) = &one.machine else { return };
        let wanted = machine.next_wakeup().map(|local| one.clock.when(local).max(self.now));
        if wanted == one.wake_at && wanted.is_some_and(|at| at > self.now) {
            return;
        }
        one.wake += 1;
        one.wake_at = wanted;
        let (process, generation) = (one.process, one.wake);
        if let Some(at) = wanted {
            // Timers of a real driver are never early and often a little late.
            let late = self.random.below(2 * MS);
            self.at(at + late, Event::Deliver { member, process, delivery: Delivery::Wake(generation) });
        }
    }

    // === checks ===

    fn check_wakes(&mut self, member: usize, local: Instant, led_to_nothing: bool) {
        let one = &mut self.members[member];
        let wants = one.machine.as_ref().and_then(|machine| machine.next_wakeup());
        if led_to_nothing && wants.is_some_and(|at| at <= local) {
            one.idle_wakes += 1;
        } else {
            one.idle_wakes = 0;
        }
        if one.idle_wakes > IDLE_WAKES_MAX {
            one.idle_wakes = 0;
            self.history.finding(self.now, "the machine asks to be woken at once, again and again");
        }
    }

    /// A stop that was ordered is kept to: the same activation never counts as active again.
    fn check_stop_is_kept(&mut self, member: usize) {
        let one = &self.members[member];
        let (Some(machine), Some(tree)) = (&one.machine, one.tree) else { return };
        let tree = &self.trees[tree];
        let is_back = machine.activation().is_some_and(|(activation, ..)| activation == tree.activation);
        if tree.told && is_back && machine.role() == Role::Active && tree.process == one.process {
            self.history.finding(self.now, "an activation that was told to stop counts as active again");
        }
    }

    /// What may be sent, recomputed from what the simulator saw of this process.
    fn check_write(
        &mut self,
        member: usize,
        slot: usize,
        local: Instant,
        expected: Version,
        record: &Record,
        attempt: election::Attempt,
    ) {
        let (activation, lease) = match &record.claim {
            Claim::Held(holder) => (holder.activation, Some(record.lease)),
            Claim::Released(release) => (release.activation, None),
            // A mark of an absent lock claims nothing.
            Claim::Vacant(_) => return,
            Claim::Foreign(_) => return self.history.finding(self.now, "a member writes a foreign record"),
        };
        let one = &mut self.members[member];
        let tree = one.tree.filter(|tree| self.trees[*tree].activation == activation);
        let sent = Sent { slot, attempt, activation, at: local, lease, expected, confirmed: false, unknown: false };
        one.sent.push(sent);
        let Some(tree) = tree.map(|tree| &self.trees[tree]) else { return };
        match lease {
            Some(lease) if tree.is_alive() && tree.kill_at > local + kill_after(lease) => {
                self.history.finding(self.now, "a lease is sent that does not cover the deadline in force");
            }
            None if !one.gone.contains(&activation) => {
                self.history.finding(self.now, "an activation is released before its end was proven");
            }
            _ => {}
        }
    }

    fn check_exit(&mut self, member: usize, exit: Exit) {
        let one = &self.members[member];
        if one.tree.is_some_and(|tree| self.trees[tree].process == one.process && self.trees[tree].is_alive()) {
            self.history.finding(self.now, format!("a member leaves ({exit:?}) and its workload runs"));
        }
        // Where versions can come back, or reads are old, nobody can know.
        let unclear = [Kind::ReadsStale, Kind::LockDeleted, Kind::LockReplaced, Kind::StoreRewound];
        if unclear.iter().any(|kind| self.scenario.has(*kind)) {
            return;
        }
        let open = one.sent.iter().any(|sent| {
            let settled = one.sent.iter().any(|other| other.activation == sent.activation && other.confirmed);
            let register = &self.registers[sent.slot];
            let current = register.record().map(|record| &record.claim);
            let landed = matches!(current, Some(Claim::Held(holder)) if holder.attempt == sent.attempt);
            sent.unknown && !settled && (landed || register.version() == sent.expected)
        });
        if open {
            self.history.finding(self.now, "a member leaves while its acquiring write is unresolved");
        }
    }
}

/// One line for the trace.
fn brief(input: &Input) -> String {
    match input {
        Input::Read(Ok(seen)) => {
            let claim = match seen.record.as_ref().map(|record| &record.claim) {
                None => "absent".to_owned(),
                Some(Claim::Held(holder)) => format!("held by {} attempt {}", holder.member.name, holder.attempt),
                Some(Claim::Released(release)) => format!("released by {}", release.member.name),
                Some(Claim::Vacant(vacancy)) => format!("marked as vacant by {}", vacancy.member.name),
                Some(Claim::Foreign(foreign)) => format!("foreign {:?}", foreign.holder),
            };
            format!("read {}.{} {claim}", seen.version.incarnation, seen.version.number)
        }
        other => format!("{other:?}"),
    }
}
