//! A workload that only exists in a ledger, and a guard that keeps its deadline to the letter.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use election::{Instant, Proof, Token};
use soloist::clock::Clock;
use soloist::workload::{Ending, Event, Launch, Preparation, Workload};
use tokio::time::Instant as True;

use super::{Dice, Directory, VirtualClock, World};

/// One time of being active.
#[derive(Debug)]
struct Run {
    member: String,
    slot: u32,
    token: Token,
}

/// Who ran when, in true time.
#[derive(Debug, Default)]
pub struct Ledger {
    running: Vec<Run>,
    /// Activations so far.
    pub activations: u64,
    /// Pairs that ran at the same instant in one slot, or in two slots for one member.
    pub overlaps: Vec<String>,
    /// Activations whose token was not larger than all before.
    pub disorders: u64,
    /// Activations that began while traffic did not go to them.
    pub unpublished: u64,
    /// Who has made a workload ready that was neither started nor given up.
    pub ready: BTreeSet<String>,
    /// How often one was made ready.
    pub preparations: u64,
    /// How often one was made ready while the last one was still there.
    pub hasty: u64,
    /// How often a member showed something and took it back at once.
    pub flickers: u64,
    /// How many ran at the same instant, at most.
    pub most: usize,
    largest: BTreeMap<u32, Token>,
}

impl Ledger {
    fn start(&mut self, member: &str, slot: u32, token: Token) {
        for Run { member: other, slot: its_slot, token: its } in &self.running {
            if *its_slot == slot || other == member {
                self.overlaps.push(format!(
                    "{member} started in slot {slot} with token {token} while {other} ran in slot {its_slot} with token {its}"
                ));
            }
        }
        let largest = self.largest.entry(slot).or_default();
        self.disorders += u64::from(token <= *largest);
        *largest = token.max(*largest);
        self.activations += 1;
        self.running.push(Run { member: member.to_owned(), slot, token });
        self.most = self.most.max(self.running.len());
    }

    fn end(&mut self, member: &str) {
        self.running.retain(|run| run.member != member);
    }

    /// How many run now.
    pub fn leaders(&self) -> usize {
        self.running.len()
    }
}

struct Running {
    kill_at: Instant,
    /// When the command ends by itself, or after SIGTERM.
    ends_at: Option<True>,
    code: i32,
    exited: bool,
}

/// One member's workload and its guard.
pub struct VirtualWorkload {
    member: String,
    clock: VirtualClock,
    ledger: Rc<RefCell<Ledger>>,
    directory: Rc<RefCell<Directory>>,
    dice: Dice,
    run: Option<Running>,
}

impl VirtualWorkload {
    /// Nothing runs yet.
    pub fn new(member: &str, clock: VirtualClock, world: &World, dice: Dice) -> Self {
        let (ledger, directory) = (Rc::clone(&world.ledger), Rc::clone(&world.directory));
        Self { member: member.to_owned(), clock, ledger, directory, dice, run: None }
    }

    fn end_by(&mut self, at: True) {
        if let Some(run) = &mut self.run {
            run.ends_at = Some(run.ends_at.map_or(at, |earlier| earlier.min(at)));
        }
    }
}

impl Drop for VirtualWorkload {
    /// A member that is gone has no workload: as in a PID namespace.
    fn drop(&mut self) {
        self.discard();
        if self.run.take().is_some() {
            self.ledger.borrow_mut().end(&self.member);
        }
    }
}

impl Workload for VirtualWorkload {
    fn prepare(&mut self, _preparation: Preparation) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.preparations += 1;
        ledger.hasty += u64::from(self.run.is_some());
        ledger.ready.insert(self.member.clone());
    }

    fn discard(&mut self) {
        self.ledger.borrow_mut().ready.remove(&self.member);
    }

    fn start(&mut self, launch: Launch, _descriptor: Option<OwnedFd>) {
        self.discard();
        let slot = launch.preparation.slot;
        let published = self.directory.borrow().entries.get(&slot).cloned();
        let is_published = published == Some((self.member.clone(), launch.token));
        let mut ledger = self.ledger.borrow_mut();
        ledger.unpublished += u64::from(!is_published);
        ledger.start(&self.member, slot, launch.token);
        // One in three ends by itself within a minute.
        let ends_at = self.dice.one_in(3).then(|| True::now() + Duration::from_millis(self.dice.below(60_000)));
        self.run = Some(Running { kill_at: launch.kill_at, ends_at, code: 3, exited: false });
    }

    fn extend(&mut self, kill_at: Instant) {
        if let Some(run) = &mut self.run {
            run.kill_at = kill_at;
        }
    }

    fn stop(&mut self, grace: Duration, _successor: Option<String>, _why: &str) {
        let most = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let takes = Duration::from_millis(self.dice.below(most + 1));
        self.end_by(True::now() + takes);
    }

    fn kill(&mut self) {
        self.end_by(True::now());
    }

    fn signal(&mut self, _signal: i32) {}

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn try_next(&mut self) -> Option<Event> {
        let run = self.run.as_mut()?;
        let is_over = run.ends_at.is_some_and(|at| at <= True::now()) || run.kill_at <= self.clock.now();
        if !is_over {
            return None;
        }
        if !std::mem::replace(&mut run.exited, true) {
            return Some(Event::Exited(Ending::Code(run.code)));
        }
        self.run = None;
        self.ledger.borrow_mut().end(&self.member);
        Some(Event::Gone { proof: Proof::NoChildLeft, released: None })
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            match &self.run {
                None => std::future::pending().await,
                Some(run) => {
                    let deadline = self.clock.true_instant(run.kill_at);
                    tokio::time::sleep_until(run.ends_at.map_or(deadline, |at| at.min(deadline))).await;
                }
            }
        }
    }
}
