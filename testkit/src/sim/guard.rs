//! Guards and workloads: the start gate, the deadline on the member's own clock, stops, kills and proofs; and the check
//! that no two workloads ever run at once.

use std::time::Duration;

use election::{Activation, Claim, Input, Instant, Proof, Record, Release, Token, Version};

use super::clock::{MS, Nanos, nanos};
use super::event::{Delivery, Due, Event};
use super::fault::{Broken, Kind};

use super::tree::{Guard, Life, Tree};
use super::world::{LastEnd, World};

/// SIGKILL to proof, at most: 5 ms and 80 ms for each of 2 GiB.
const PROOF_MAX: Nanos = 165 * MS;

impl World<'_> {
    /// S of this member: how late its guard may be.
    fn lateness_max(&self, member: usize) -> Nanos {
        (u64::from(self.members[member].spec.lease_ms) * MS / 30).max(100 * MS)
    }

    /// Mostly prompt, sometimes as late as allowed.
    fn lateness(&mut self, member: usize) -> Nanos {
        let most = self.lateness_max(member);
        match self.random.below(10) {
            0 => most,
            1 | 2 => self.random.below(most),
            _ => self.random.below(2 * MS),
        }
    }

    fn due(&mut self, delay: Nanos, tree: usize, due: Due) {
        self.after(delay, Event::Tree { tree, due });
    }

    fn report(&mut self, tree: usize, input: Input) {
        let Tree { member, process, .. } = self.trees[tree];
        if self.members[member].process == process {
            let delay = self.random.between(MS / 10, 2 * MS);
            self.after(delay, Event::Deliver { member, process, delivery: Delivery::Order(Box::new(input)) });
        }
    }

    // === orders ===

    pub(super) fn start(
        &mut self,
        member: usize,
        slot: usize,
        local: Instant,
        activation: Activation,
        token: Token,
        kill_at: Instant,
    ) {
        let index = self.trees.len();
        let tree = Tree {
            member,
            process: self.members[member].process,
            slot,
            activation,
            token,
            kill_at,
            check_at: Nanos::MAX,
            grace_until: None,
            life: Life::Waiting,
            guard: Guard::Runs,
            started: None,
            told: false,
            planned: false,
            unguarded: false,
            platform_tells: false,
        };
        self.check_start(local, &tree);
        self.trees.push(tree);
        self.members[member].tree = Some(index);
        let fork = if self.random.chance(50) { self.lateness_max(member) } else { self.random.between(MS / 5, 5 * MS) };
        self.due(fork, index, Due::Gate);
    }

    pub(super) fn extend(&mut self, member: usize, kill_at: Instant) {
        let Some(tree) = self.members[member].tree else { return };
        let Tree { activation, slot, .. } = self.trees[tree];
        let is_allowed =
            self.members[member].allowed[slot].is_some_and(|(of, until)| of == activation && kill_at <= until);
        if !is_allowed {
            self.history.finding(self.now, "the deadline moves beyond what the confirmed sends allow");
        }
        self.trees[tree].kill_at = kill_at;
        self.watch_deadline(tree);
    }

    pub(super) fn stop(&mut self, member: usize, local: Instant, grace: Duration) {
        let Some(tree) = self.members[member].tree else { return };
        let asked = self.members[member].asked;
        let until = self.members[member].clock.when(local + grace);
        let one = &mut self.trees[tree];
        one.planned |= asked;
        let is_first = !std::mem::replace(&mut one.told, true);
        if one.grace_until.is_none_or(|old| until < old) {
            one.grace_until = Some(until);
            let late = self.lateness(member);
            self.at(until + late, Event::Tree { tree, due: Due::Grace });
        }
        if is_first {
            // Most workloads end soon, some take their time, some ignore it.
            let delay = match self.random.below(10) {
                0 => return,
                1 | 2 => self.random.below(nanos(grace) * 2),
                _ => self.random.between(MS, 300 * MS),
            };
            self.due(delay, tree, Due::Ends);
        }
    }

    pub(super) fn kill_told(&mut self, member: usize) {
        let Some(tree) = self.members[member].tree else { return };
        self.trees[tree].told = true;
        self.kill(tree);
    }

    /// SIGKILL to whatever is left.
    pub(super) fn kill(&mut self, tree: usize) {
        match self.trees[tree].life {
            Life::Waiting | Life::Running => {}
            Life::Dying | Life::Gone => return,
        }
        if self.trees[tree].life == Life::Running {
            self.trees[tree].life = Life::Dying;
            let delay = if self.random.chance(200) { PROOF_MAX } else { self.random.between(MS, 20 * MS) };
            self.due(delay, tree, Due::Proof);
        } else {
            self.trees[tree].life = Life::Dying;
            self.due(MS / 2, tree, Due::Proof);
        }
    }

    // === what is due ===

    pub(super) fn tree_due(&mut self, tree: usize, due: Due) {
        let member = self.trees[tree].member;
        let frozen_until = self.members[member].frozen_until;
        if self.now < frozen_until {
            let late = self.lateness(member);
            self.at(frozen_until + late, Event::Tree { tree, due });
            return;
        }
        if self.trees[tree].life == Life::Gone {
            return;
        }
        let guards = self.trees[tree].guard == Guard::Runs;
        match due {
            Due::Gate => self.gate(tree),
            Due::Deadline if guards => self.deadline(tree),
            Due::Grace if guards && self.trees[tree].grace_until.is_some_and(|at| self.now >= at) => self.kill(tree),
            Due::Deadline | Due::Grace => {}
            Due::Ends => self.ends(tree, 143),
            Due::Kill => self.kill(tree),
            Due::Proof => self.proof(tree),
            Due::MissedBeat => self.missed_beat(tree),
        }
    }

    /// The deadline is read again, then the workload is let through.
    fn gate(&mut self, tree: usize) {
        let Tree { member, slot, kill_at, life, told, .. } = self.trees[tree];
        if life != Life::Waiting {
            return;
        }
        if told || self.members[member].clock.read(self.now) >= kill_at {
            return self.kill(tree);
        }
        self.trees[tree].life = Life::Running;
        self.trees[tree].started = Some(self.now);
        self.check_exclusion(tree);
        self.history.starts += 1;
        let before = || self.trees[..tree].iter().rev().filter(|tree| tree.started.is_some());
        let is_first = !before().any(|tree| tree.slot == slot);
        let moves = before().find(|tree| tree.member == member).is_some_and(|tree| tree.slot != slot);
        self.history.moves += u64::from(moves);
        if !is_first && !self.is_failover_expected() {
            self.history.false_failovers += 1;
            self.history.finding(self.now, "the active role moved for no reason");
        }
        if let Some(LastEnd { at, planned }) = self.last_end[slot] {
            self.history.failovers += u64::from(!planned);
            // Where several faults met, none of them can be named.
            let alone = self.scenario.faults.len() == 1;
            self.history.gaps.push((self.last_fault.filter(|_| alone), self.now.saturating_sub(at)));
        }
        self.note(member, |world| format!("## RUNS with token {}", world.trees[tree].token));
        self.watch_deadline(tree);
    }

    fn watch_deadline(&mut self, tree: usize) {
        let Tree { member, kill_at, check_at, .. } = self.trees[tree];
        let at = self.members[member].clock.when(kill_at).max(self.now);
        if at < check_at {
            self.trees[tree].check_at = at;
            let late = self.lateness(member);
            self.at(at + late, Event::Tree { tree, due: Due::Deadline });
        }
    }

    fn deadline(&mut self, tree: usize) {
        let Tree { member, kill_at, .. } = self.trees[tree];
        if self.members[member].clock.read(self.now) < kill_at {
            self.trees[tree].check_at = Nanos::MAX;
            return self.watch_deadline(tree);
        }
        let due = self.members[member].clock.when(kill_at);
        if self.now > due + self.lateness_max(member) {
            self.trees[tree].unguarded = true;
        }
        self.note(member, |_| "## the guard kills on the deadline".to_owned());
        self.kill(tree);
    }

    /// The workload's command ends by itself or after SIGTERM.
    pub(super) fn ends(&mut self, tree: usize, code: i32) {
        if self.trees[tree].life == Life::Running && self.trees[tree].guard == Guard::Runs {
            self.report(tree, Input::Exited { code });
            self.kill(tree);
        }
    }

    fn missed_beat(&mut self, tree: usize) {
        let Tree { member, process, .. } = self.trees[tree];
        if self.members[member].process != process {
            return;
        }
        if !self.members[member].runs(self.now) {
            // Guard and elector are stopped at once: nobody can enforce anything.
            self.trees[tree].unguarded = true;
            let until = self.members[member].stopped_until.max(self.members[member].frozen_until);
            self.at(until, Event::Tree { tree, due: Due::MissedBeat });
            return;
        }
        self.trees[tree].guard = Guard::Dead;
        self.report(tree, Input::GuardLost);
        self.kill(tree);
    }

    fn proof(&mut self, tree: usize) {
        let one = &mut self.trees[tree];
        one.life = Life::Gone;
        let Tree { member, slot, guard, planned, .. } = *one;
        if one.started.is_some() {
            self.last_end[slot] = Some(LastEnd { at: self.now, planned });
        }
        self.note(member, |_| "## nothing of the workload is left".to_owned());
        let released = (self.scenario.local_release && guard == Guard::Runs).then(|| self.release_locally(tree));
        self.report(tree, Input::Gone { proof: Proof::NoChildLeft, released: released.flatten() });
    }

    /// The guard's own release, where the lock lives on the same host.
    fn release_locally(&mut self, tree: usize) -> Option<Version> {
        let slot = self.trees[tree].slot;
        let record = self.registers[slot].record()?;
        let Claim::Held(holder) = &record.claim else { return None };
        if holder.activation != self.trees[tree].activation {
            return None;
        }
        let release = Record {
            claim: Claim::Released(Release {
                member: holder.member.clone(),
                activation: holder.activation,
                attempt: election::Attempt { count: u64::MAX, random: holder.attempt.random },
                proof: Proof::NoChildLeft,
                successor: None,
            }),
            lease: Duration::from_millis(u64::from(self.members[self.trees[tree].member].spec.lease_ms)),
            slots: record.slots,
            paused_until_unix_ms: None,
        };
        let version = self.registers[slot].put(release);
        self.announce(slot);
        Some(version)
    }

    // === checks ===

    fn check_start(&mut self, local: Instant, tree: &Tree) {
        let Tree { member, slot, activation, token, kill_at, .. } = *tree;
        let mut wrong = Vec::new();
        if kill_at <= local {
            wrong.push("a workload is started after its deadline");
        }
        if self.trees.iter().any(|tree| tree.activation == activation) {
            wrong.push("an activation is started twice");
        }
        match self.members[member].allowed[slot] {
            Some((of, until)) if of == activation => {
                if kill_at > until {
                    wrong.push("a workload starts with a deadline beyond what the confirmed sends allow");
                }
            }
            _ => wrong.push("a workload is started before its acquiring write was confirmed"),
        }
        if token.0 <= self.largest_token[slot] && !self.broken.contains(&Broken::StoreRewound) {
            wrong.push("a token is not larger than the one before");
        }
        if slot >= self.members[member].pending.len().min(self.most_slots) {
            wrong.push("a workload is started in a slot beyond the number in the record");
        }
        self.largest_token[slot] = self.largest_token[slot].max(token.0);
        for what in wrong {
            self.history.finding(self.now, what);
        }
    }

    /// Exclusion: at any instant at most one member has a runnable process of its workload in each slot, and no process of
    /// a member is in two.
    fn check_exclusion(&mut self, started: usize) {
        let Tree { slot, member, process, .. } = self.trees[started];
        let runs = |slot: &usize| self.trees.iter().any(|tree| tree.slot == *slot && tree.life == Life::Running);
        self.history.was_full |= (0..self.scenario.slots).all(|slot| runs(&slot));
        for other in 0..self.trees.len() {
            if other == started || !self.trees[other].is_alive() {
                continue;
            }
            if self.trees[other].slot != slot {
                if (self.trees[other].member, self.trees[other].process) == (member, process) {
                    self.history.overlaps += 1;
                    self.history.finding(self.now, "overlap: a member is active in two slots");
                }
                continue;
            }
            match self.excuse(started, other) {
                Some(broken) => {
                    // It ends with the deadline of the older one, at the latest; what else the rules promise is that.
                    let Tree { member, kill_at, .. } = self.trees[other];
                    let last = self.members[member].clock.when(kill_at) + self.lateness_max(member) + PROOF_MAX;
                    self.history.excused.push((broken, last.saturating_sub(self.now)));
                    self.note(member, |_| format!("## overlap, excused: {}", broken.word()));
                }
                None => {
                    self.history.overlaps += 1;
                    let (one, two) = (self.label(self.trees[started].member), self.label(self.trees[other].member));
                    self.history.finding(self.now, format!("overlap: {one} starts while the workload of {two} runs"));
                }
            }
        }
    }

    /// The assumption that was broken before this overlap, if any explains it.
    fn excuse(&self, started: usize, other: usize) -> Option<Broken> {
        // The host slept while it ran, and woke up behind its deadline.
        let unguarded = [started, other].into_iter().any(|tree| {
            let tree = &self.trees[tree];
            let member = &self.members[tree.member];
            let slept = tree.started.is_some_and(|started| member.frozen_until > started);
            tree.unguarded || (slept && member.clock.read(self.now) >= tree.kill_at)
        });
        if unguarded {
            return Some(Broken::GuardNotRunning);
        }
        self.broken.first().copied()
    }

    /// Whether this history holds anything that a healthy holder may lose its role by.
    fn is_failover_expected(&self) -> bool {
        let strong = |kind: Kind| !kind.is_harmless() && !kind.is_within_budget();
        let faults = &self.scenario.faults;
        let within_budget = faults.iter().filter(|fault| fault.kind.is_within_budget()).count();
        faults.iter().any(|fault| strong(fault.kind)) || within_budget > 1
    }
}
