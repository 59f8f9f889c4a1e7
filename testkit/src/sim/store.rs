//! The way to the store and back, and what the store does in between.

use std::time::Duration;

use election::{
    Activation, Attempt, Claim, Evidence, Input, Member, Nonce, Proof, Record, Release, Seen, Version, Write,
};

use super::clock::MS;
use super::event::{Back, Call, Delivery, Event, Instead};
use super::fault::Broken;
use super::scenario::Scenario;
use super::tree::{Life, Tree};
use super::world::World;

/// The lock as a first installation finds it where it was shipped as free.
pub(super) fn free_record(scenario: &Scenario) -> Record {
    let nobody = Member { name: "installer".to_owned(), nonce: Nonce(0) };
    Record {
        claim: Claim::Released(Release {
            member: nobody,
            activation: Activation(0),
            attempt: Attempt { count: 0, random: 0 },
            proof: Proof::NeverStarted,
            successor: None,
        }),
        lease: Duration::from_millis(u64::from(scenario.longest_lease_ms())),
        slots: 1,
        paused_until_unix_ms: None,
    }
}

impl World<'_> {
    /// Sends one request on its way.
    pub(super) fn send(&mut self, member: usize, process: u32, slot: usize, op: u64, mut call: Call) {
        let is_write = matches!(call, Call::Write { .. });
        let mut hits = Vec::new();
        let route = self.network.route(&mut self.random, member, self.now, is_write, &mut hits);
        for kind in hits {
            self.fault_shows(kind);
        }
        if let Call::Read { back } = &mut call {
            *back = route.stale;
        }
        if route.refused {
            let why = "connection refused".to_owned();
            let input = match &call {
                Call::Read { .. } => Input::Read(Err(why)),
                Call::Write { attempt, .. } => Input::Written { attempt: *attempt, outcome: Write::Unknown(why) },
            };
            self.answer(member, process, op, MS, input);
        }
        for (there, back) in route.arrivals.into_iter().flatten() {
            if there > 1000 * MS {
                self.quiet_until(self.now + there);
            }
            let request = Box::new(call.clone());
            self.after(there, Event::Arrive { member, process, slot, op, request, back });
        }
    }

    fn answer(&mut self, member: usize, process: u32, op: u64, delay: u64, input: Input) {
        let delivery = Delivery::Answer { op, input: Box::new(input) };
        self.after(delay, Event::Deliver { member, process, delivery });
    }

    /// One request about a slot reaches the store.
    pub(super) fn arrive(&mut self, member: usize, process: u32, slot: usize, op: u64, call: &Call, back: Back) {
        let input = match call {
            Call::Read { back: stale } => Input::Read(match back.instead {
                None if *stale == 0 => Ok(self.with_evidence(self.registers[slot].read())),
                None => Ok(self.with_evidence(self.registers[slot].read_past(*stale))),
                Some(instead) => Err(format!("{instead:?}")),
            }),
            Call::Write { expected, record, attempt } => {
                let outcome = match back.instead {
                    None => self.store(member, slot, *expected, record),
                    Some(Instead::Throttled(ms)) => Write::Throttled(Duration::from_millis(u64::from(ms))),
                    Some(Instead::Denied) => Write::Denied("not allowed".to_owned()),
                    Some(Instead::Failed) => Write::Unknown("500".to_owned()),
                    Some(Instead::FailedAfter) => {
                        self.store(member, slot, *expected, record);
                        Write::Unknown("500".to_owned())
                    }
                };
                Input::Written { attempt: *attempt, outcome }
            }
        };
        if let Some(delay) = back.delay {
            self.answer(member, process, op, delay, input);
        }
    }

    /// What the platform says of the activation that a look shows, be it the present one or not.
    fn with_evidence(&self, mut seen: Seen) -> Seen {
        if let Some(Claim::Held(holder)) = seen.record.as_ref().map(|record| &record.claim) {
            let is_told = |tree: &Tree| tree.activation == holder.activation && tree.platform_tells;
            if self.trees.iter().any(|tree| is_told(tree) && tree.life == Life::Gone) {
                seen.evidence = Evidence::Gone(Proof::Terminated);
            }
        }
        seen
    }

    fn store(&mut self, member: usize, slot: usize, expected: Version, record: &Record) -> Write {
        if let (Claim::Released(release), Some(Claim::Held(holder))) =
            (&record.claim, self.registers[slot].record().map(|record| &record.claim))
            && expected == self.registers[slot].version()
            && holder.activation != release.activation
        {
            self.wrong_release();
        }
        let outcome = self.registers[slot].write(expected, record);
        if let Write::Written(version) = &outcome {
            let version = *version;
            self.note(member, |_| format!("== stored {}.{}", version.incarnation, version.number));
            if slot == 0 {
                self.most_slots = self.most_slots.max(usize::try_from(record.slots).unwrap_or(usize::MAX));
            }
            self.announce(slot);
        }
        outcome
    }

    /// Versions that are used twice, after the store went back, are the one thing that a conditional write cannot tell.
    fn wrong_release(&mut self) {
        if self.broken.contains(&Broken::StoreRewound) {
            self.history.excused.push((Broken::StoreRewound, 0));
        } else {
            self.history.finding(self.now, "the record of one activation is replaced by the release of another");
        }
    }

    /// Tells everybody that the lock of a slot has changed, as far as the network lets it.
    pub(super) fn announce(&mut self, slot: usize) {
        let version = self.registers[slot].version();
        self.history.fold(&[self.now, version.incarnation, version.number]);
        let mut hits = Vec::new();
        for member in 0..self.members.len() {
            if self.members[member].machine.is_none() || slot >= self.members[member].pending.len() {
                continue;
            }
            let process = self.members[member].process;
            for delay in self.network.notices(&mut self.random, member, self.now, &mut hits).into_iter().flatten() {
                self.after(delay, Event::Deliver { member, process, delivery: Delivery::Notice(slot, version) });
            }
        }
        for kind in hits {
            self.fault_shows(kind);
        }
    }
}
