//! A workload that only exists in a ledger, and a guard that keeps its deadline to the letter.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use election::{Instant, Proof, Token};
use soloist::clock::Clock;
use soloist::workload::{Ending, Event, Launch, Preparation, Workload};
use tokio::time::Instant as True;

use super::{Dice, Directory, VirtualClock, World};

/// Who ran when, in true time.
#[derive(Debug, Default)]
pub struct Ledger {
    running: Vec<(String, Token)>,
    /// Activations so far.
    pub activations: u64,
    /// Pairs that ran at the same instant.
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
    largest: Token,
}

impl Ledger {
    fn start(&mut self, member: &str, token: Token) {
        for (other, its) in &self.running {
            self.overlaps.push(format!("{member} started with token {token} while {other} ran with token {its}"));
        }
        self.disorders += u64::from(token <= self.largest);
        self.largest = self.largest.max(token);
        self.activations += 1;
        self.running.push((member.to_owned(), token));
    }

    fn end(&mut self, token: Token) {
        self.running.retain(|(_, running)| *running != token);
    }

    /// Whether somebody runs now.
    pub fn is_led(&self) -> bool {
        !self.running.is_empty()
    }
}

struct Running {
    token: Token,
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
        if let Some(run) = self.run.take() {
            self.ledger.borrow_mut().end(run.token);
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
        let is_published = self.directory.borrow().entry == Some((self.member.clone(), launch.token));
        let mut ledger = self.ledger.borrow_mut();
        ledger.unpublished += u64::from(!is_published);
        ledger.start(&self.member, launch.token);
        // One in three ends by itself within a minute.
        let ends_at = self.dice.one_in(3).then(|| True::now() + Duration::from_millis(self.dice.below(60_000)));
        let (token, kill_at) = (launch.token, launch.kill_at);
        self.run = Some(Running { token, kill_at, ends_at, code: 3, exited: false });
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
        let token = run.token;
        self.run = None;
        self.ledger.borrow_mut().end(token);
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
