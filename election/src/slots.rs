//! One member's part in a group of which several may be active: a machine for each slot, and one turn among them.
//!
//! Each slot has a lock of its own, and its machine knows nothing of the others. Only the slot that has the turn may
//! acquire, and it keeps the turn until it stands by again: so no member is in two slots, and a write whose outcome
//! nobody knows is resolved before another slot is tried. The others are told that this member may not be active, as by
//! an unhealthy check, before anything else reaches them.
//! See docs/safety.md R20.

use std::time::Duration;

use crate::clock::Instant;
use crate::io::{Action, Input, Output, Request, Role, Vigil};
use crate::machine::{Entropy, Machine, Settings};
use crate::record::{Activation, Member, Nonce, Token};
use crate::timing::{LEASE_MAX, Timing};

/// The platform's own lock of a slot that is not this member's to take is left to others for so long, or until the turn
/// is over.
const AWAY: Duration = LEASE_MAX;

/// An output, and the slot whose lock it is about, counted from 0.
pub type Directed = (usize, Output);

/// The machines of one member, one for each slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slots<E> {
    /// At least one.
    machines: Vec<Machine<E>>,
    /// What each was told, besides what its lock says.
    told: Vec<Told>,
    /// The slot that is acquiring, active or stopping.
    turn: Option<usize>,
    /// The slot whose activation has ended, while this member leaves everything to others for that.
    rests: Option<usize>,
    /// How many slots there are, as the record of the first one says.
    agreed: u32,
    healthy: bool,
    candidates: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Told {
    may_be_active: bool,
    candidates: Vec<String>,
    /// The platform's own lock was left to others.
    is_away: bool,
}

impl<E: Entropy> Slots<E> {
    /// A member that has not looked at any lock yet, in as many slots as `settings` say. Each machine has randomness of
    /// its own.
    pub fn new(settings: &Settings, mut entropy: impl FnMut() -> E) -> Self {
        let mut first = entropy();
        let nonce = Nonce(u128::from(first.bits()) << 64 | u128::from(first.bits()));
        let mut machines = vec![Machine::with_nonce(settings.clone(), nonce, first)];
        for _ in 1..settings.slots {
            let waiting = Settings { healthy: false, ..settings.clone() };
            machines.push(Machine::with_nonce(waiting, nonce, entropy()));
        }
        let told = |machine: usize| Told {
            may_be_active: settings.healthy && machine == 0,
            candidates: Vec::new(),
            is_away: false,
        };
        Self {
            told: (0..machines.len()).map(told).collect(),
            machines,
            turn: None,
            rests: None,
            agreed: 1,
            healthy: settings.healthy,
            candidates: Vec::new(),
        }
    }

    /// Takes one input at `now` and returns what to do, in order, each with its slot. What is not about a lock reaches
    /// the machine that it concerns, whatever `slot` says.
    ///
    /// As for [`Machine::step`]; at most one read or write is under way for each slot.
    pub fn step(&mut self, now: Instant, slot: usize, input: Input) -> Vec<Directed> {
        if let (0, Input::Read(Ok(seen))) = (slot, &input) {
            self.agreed = seen.record.as_ref().map_or(1, |record| record.slots);
        }
        if let [only] = &mut self.machines[..] {
            return only.step(now, input).into_iter().map(|output| (0, output)).collect();
        }
        let mut outputs = Vec::new();
        match input {
            Input::Wake => {
                for slot in 0..self.machines.len() {
                    self.advance(now, slot, Input::Wake, &mut outputs);
                }
            }
            Input::Health(healthy) => self.healthy = healthy,
            Input::Candidates(names) => self.candidates = names,
            Input::Changed | Input::Read(_) | Input::Written { .. } => self.advance(now, slot, input, &mut outputs),
            Input::Request(ref request) => {
                let slot = self.concerned(request);
                self.advance(now, slot, input, &mut outputs);
            }
            Input::Exited { .. }
            | Input::Gone { .. }
            | Input::GuardLost
            | Input::Forsaken
            | Input::Measured { .. }
            | Input::Leave => {
                self.advance(now, self.turn.unwrap_or(0), input, &mut outputs);
            }
        }
        self.settle(now, &mut outputs);
        self.share_candidates(now, &mut outputs);
        outputs
    }

    /// The slot that a request is about: the own one, or the one whose holder is to be taken for ended.
    fn concerned(&self, request: &Request) -> usize {
        let fenced = || match request {
            Request::Fenced { activation } => self.machines.iter().position(|machine| machine.sees(*activation)),
            _ => None,
        };
        self.turn.or_else(fenced).unwrap_or(0)
    }

    fn advance(&mut self, now: Instant, slot: usize, input: Input, outputs: &mut Vec<Directed>) {
        self.drive(now, slot, input, outputs);
        self.settle(now, outputs);
    }

    /// One step of one machine, and what it means for the turn.
    fn drive(&mut self, now: Instant, slot: usize, input: Input, outputs: &mut Vec<Directed>) {
        let before = self.machines[slot].role();
        let is_away = self.told[slot].is_away;
        // Who is away for longer does not come back for a machine that wants to stay away for a moment.
        let counts = |output: &Output| !(is_away && matches!(output.action, Action::StepBack { .. }));
        let stepped = self.machines[slot].step(now, input).into_iter().filter(counts);
        outputs.extend(stepped.map(|output| (slot, output)));
        if self.machines[slot].role() != Role::Standby {
            assert!(self.turn.is_none_or(|turn| turn == slot), "a member is in one slot at a time");
            self.turn = Some(slot);
            self.rests = None;
        } else if self.turn == Some(slot) {
            self.turn = None;
            // A try that failed costs nobody anything; an end does, and others go first.
            self.rests = matches!(before, Role::Active | Role::Stopping).then_some(slot);
            let timing = *self.machines[slot].timing();
            self.machines.iter_mut().for_each(|machine| machine.adopt(timing));
        }
    }

    /// Whether this member may try to be active in this slot, or is.
    fn is_open(&self, slot: usize) -> bool {
        match self.turn.or(self.rests) {
            Some(taken) => taken == slot,
            None => u32::try_from(slot).is_ok_and(|slot| slot < self.agreed),
        }
    }

    /// Tells each machine whether it may be active. Whoever may not hears it before anybody hears that it may.
    fn settle(&mut self, now: Instant, outputs: &mut Vec<Directed>) {
        // Who starts anew goes on in its own slot: what that says now comes first.
        let is_over = |machine: &Machine<E>| machine.has_looked() && now >= machine.holds_back_until();
        if self.rests.is_some_and(|slot| is_over(&self.machines[slot])) {
            self.rests = None;
        }
        while let Some((slot, may_be_active)) = self.untold() {
            self.queue_or_leave(now, slot, outputs);
            self.told[slot].may_be_active = may_be_active;
            self.drive(now, slot, Input::Health(may_be_active), outputs);
        }
        for slot in 0..self.machines.len() {
            self.queue_or_leave(now, slot, outputs);
        }
    }

    /// While a slot is not this member's to take, the platform's own lock of it goes past it.
    fn queue_or_leave(&mut self, now: Instant, slot: usize, outputs: &mut Vec<Directed>) {
        let is_away = !self.is_open(slot);
        if std::mem::replace(&mut self.told[slot].is_away, is_away) == is_away {
            return;
        }
        let (pause, reason) =
            if is_away { (AWAY, "not this member's slot now") } else { (Duration::ZERO, "free to try") };
        if !is_away {
            self.machines[slot].comes_back(now);
        }
        outputs.push((slot, Output { action: Action::StepBack { pause }, reason: reason.to_owned() }));
    }

    /// A machine that does not know yet whether it may be active.
    fn untold(&self) -> Option<(usize, bool)> {
        let wanted = |slot: usize| (slot, self.healthy && self.is_open(slot));
        let is_news = |(slot, may): &(usize, bool)| self.told[*slot].may_be_active != *may;
        (0..self.machines.len()).map(wanted).filter(is_news).min_by_key(|(slot, may)| (*may, *slot))
    }

    /// Whoever holds another slot is no successor in this one.
    fn share_candidates(&mut self, now: Instant, outputs: &mut Vec<Directed>) {
        let holders: Vec<Option<Member>> = self.machines.iter().map(Machine::holder).collect();
        for slot in 0..self.machines.len() {
            let is_elsewhere = |name: &String| {
                let others = holders.iter().enumerate().filter(|(other, _)| *other != slot);
                others.filter_map(|(_, holder)| holder.as_ref()).any(|holder| holder.name == *name)
            };
            let fit: Vec<String> = self.candidates.iter().filter(|name| !is_elsewhere(name)).cloned().collect();
            if self.told[slot].candidates != fit {
                self.told[slot].candidates.clone_from(&fit);
                self.advance(now, slot, Input::Candidates(fit), outputs);
            }
        }
    }

    /// When [`Slots::step`] wants to be called again with [`Input::Wake`], if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let rests = self.rests.map(|slot| &self.machines[slot]).filter(|machine| machine.has_looked());
        let rested = rests.map(Machine::holds_back_until);
        self.machines.iter().map(Machine::next_wakeup).chain([rested]).flatten().min()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.machines.len()
    }

    /// How many there are as the record of the first slot says.
    pub fn agreed(&self) -> u32 {
        self.agreed
    }

    /// The slot that this member acquires, or is active in, or was until the lock says so.
    pub fn turn(&self) -> Option<usize> {
        match &self.machines[..] {
            [only] => (only.role() != Role::Standby).then_some(0),
            _ => self.turn,
        }
    }

    /// The machine that is not standing by, or the first one.
    fn foremost(&self) -> &Machine<E> {
        &self.machines[self.turn.unwrap_or(0)]
    }

    /// The part that this member plays now.
    pub fn role(&self) -> Role {
        self.foremost().role()
    }

    /// The part that it plays in one slot.
    pub fn role_in(&self, slot: usize) -> Role {
        self.machines[slot].role()
    }

    /// Name and nonce.
    pub fn member(&self) -> Member {
        self.foremost().member()
    }

    /// The durations in force.
    pub fn timing(&self) -> &Timing {
        self.foremost().timing()
    }

    /// See [`Machine::activation`].
    pub fn activation(&self) -> Option<(Activation, Token, Instant)> {
        self.foremost().activation()
    }

    /// See [`Machine::vigil`].
    pub fn vigil(&self) -> Option<Vigil> {
        self.machines.iter().find_map(Machine::vigil)
    }
}
