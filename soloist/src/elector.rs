//! Drives the machine: the only place that waits for store, clock and workload.

mod clocks;
mod count;
mod line;
mod predecessor;
mod publish;
mod standby;
mod traffic;

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use election::{
    Action, Activation, Claim, Directed, Entropy, Exit, Input, Instant, Output, Plain, Record, Refusal, RefusalKind,
    Request, Role, Seen, Slots, Token, Write, kill_to_proof,
};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, unix_us};
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::route::Route;
use crate::snapshot::{Announcement, Health, Publisher};
use crate::workload::{Event, Launch, Preparation, Workload};

use self::clocks::Clocks;
use self::line::{Line, Operation, Watch, any_of, bounded_write, read, watch};
use self::traffic::{Departure, Traffic};

/// How often everybody else gets a turn before the workload is made ready: from here to the socket, the acquiring write
/// passes through several tasks, and it goes first.
const TURNS_TO_SEND: usize = 8;

/// What to run, as the command line said.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command and its arguments.
    pub argv: Vec<OsString>,
    /// What a tree gets between SIGTERM and SIGKILL when its command ends by itself.
    pub stop_grace: Duration,
    /// The lock file of each slot, where the guard can write the release itself.
    pub local_locks: Vec<PathBuf>,
}

/// What reaches the elector from outside.
#[derive(Debug)]
pub enum Order {
    /// Leave the group; a second time in a hurry.
    Leave,
    /// For the workload, if there is one.
    Signal(i32),
    /// The terminal is gone: for the workload, and a standby leaves.
    Hangup,
    /// Somebody asks for something.
    Request(Petition),
    /// What the health check says now.
    Health(Health),
    /// Why this member's place is about to go away; nothing if it is not any more.
    Leaving(Option<String>),
    /// Who has announced itself beside the lock and is there, this member included.
    Members(Vec<Announcement>),
}

/// A request, and who makes it.
#[derive(Debug)]
pub struct Petition {
    /// What is asked for.
    pub request: Request,
    /// Who asks, for people: a user and a program, or an address.
    pub by: String,
    /// Hears at once whether it is under way, or why not.
    pub answer_to: oneshot::Sender<Result<(), Refusal>>,
}

/// One member at work.
pub struct Elector<E, L, W, C> {
    slots: Slots<E>,
    /// The way to the lock of each slot.
    lines: Vec<Line<L>>,
    workload: W,
    clock: C,
    clocks: Clocks,
    metrics: Metrics,
    command: Command,
    orders: mpsc::Receiver<Order>,
    /// What is under way with each lock.
    operations: Vec<Option<Operation>>,
    /// The answer of the last one, and of which slot, until the machine has it.
    answer: Option<(usize, Input)>,
    watches: Vec<Option<Watch>>,
    /// How many slots the group has, where that was said to be another number than this member was told.
    differs: Option<u32>,
    petition: Option<Petition>,
    /// What was granted last in this activation, and to whom.
    granted: Option<String>,
    publisher: Publisher,
    /// What the health check says.
    checked: Health,
    /// It was said that this member stays active although it is unhealthy.
    stays_unfit: bool,
    /// Why the present activation ends, once it does.
    end: Option<String>,
    traffic: Traffic,
    /// What is being acquired, until the workload was told to get ready for it.
    to_prepare: Option<Activation>,
    /// A workload was started and is not gone.
    runs: bool,
    /// The workload's size is to be looked at.
    measure_due: bool,
    /// The code of a standby that has ended by itself, where the member leaves with it.
    fallen: Option<i32>,
}

impl<E: Entropy, L: Lock + 'static, W: Workload, C: Clock> Elector<E, L, W, C> {
    /// Puts the parts together, with a lock for each slot; nothing happens before [`Elector::run`].
    pub fn new(
        slots: Slots<E>,
        locks: Vec<L>,
        workload: W,
        clock: C,
        command: Command,
        orders: mpsc::Receiver<Order>,
        publisher: Publisher,
    ) -> Self {
        let checked = publisher.newest().health.clone();
        publisher.update(|snapshot| snapshot.health = fitness(&checked, &workload));
        Self {
            operations: locks.iter().map(|_| None).collect(),
            watches: locks.iter().map(|_| None).collect(),
            slots,
            lines: locks.into_iter().map(Line::new).collect(),
            workload,
            clock,
            clocks: Clocks::default(),
            metrics: Metrics::default(),
            command,
            orders,
            answer: None,
            differs: None,
            petition: None,
            granted: None,
            publisher,
            checked,
            stays_unfit: false,
            end: None,
            traffic: Traffic::default(),
            to_prepare: None,
            runs: false,
            measure_due: false,
            fallen: None,
        }
    }

    /// Counts into `metrics`, which somebody reads.
    #[must_use]
    pub fn counting(mut self, metrics: Metrics) -> Self {
        for line in &mut self.lines {
            line.count_into(metrics.clone());
        }
        self.metrics = metrics;
        self
    }

    /// Sends traffic to the active member by `routes`, one for each slot.
    #[must_use]
    pub fn routed(mut self, routes: Vec<Rc<dyn Route>>) -> Self {
        self.traffic = Traffic::of(routes);
        self
    }

    /// Takes part in the election until the machine decides to leave.
    pub async fn run(mut self) -> Exit {
        let (mut slot, mut input) = (0, Input::Wake);
        loop {
            self.lines[slot].note(self.clock.now(), &input);
            self.note_clocks();
            let word = self.word(slot, &input);
            self.note_number(slot, &input);
            let shows_the_lock =
                matches!(input, Input::Read(Ok(_)) | Input::Written { outcome: Write::Written(_), .. });
            let outputs = self.slots.step(self.clock.now(), slot, input);
            // Before anything is done: nobody shall read "active" when the stop has begun.
            self.publish(word, &outputs);
            self.note_unfit();
            self.note_end(&outputs);
            self.count(&outputs);
            self.stand_by();
            // docs/safety.md R19.
            match self.slots.role() {
                Role::Active => {}
                Role::Acquiring => self.traffic.prepare(self.foremost()),
                _ => {
                    self.traffic.leave();
                    self.to_prepare = None;
                    self.workload.discard();
                }
            }
            for (slot, output) in outputs {
                if let Some(exit) = self.perform(slot, output) {
                    return self.settle(exit).await;
                }
            }
            if shows_the_lock {
                self.publish_history();
            }
            (slot, input) = self.next_input().await;
        }
    }

    /// The slot of the own activation, or the first.
    fn foremost(&self) -> usize {
        self.slots.turn().unwrap_or(0)
    }

    /// Nothing is decided by the wall clock. That it was set, or that this machine stood still, people should know.
    fn note_clocks(&mut self) {
        if let Some(apart) = self.clocks.disagree(self.clock.now(), unix_us()) {
            self.metrics.clock_suspicion();
            tracing::warn!(
                "the wall clock moved by {} against the steady one: somebody set it, or this machine stood \
                still unnoticed",
                Plain(apart)
            );
        }
    }

    /// Whoever was told another number than the lock of the first slot says goes by the lock, and says so.
    fn note_number(&mut self, slot: usize, input: &Input) {
        let Input::Read(Ok(Seen { record: Some(Record { claim: Claim::Held(_), slots, .. }), .. })) = input else {
            return;
        };
        if slot != 0 {
            return;
        }
        let differs = (usize::try_from(*slots) != Ok(self.slots.count())).then_some(*slots);
        if let Some(slots) = differs.filter(|_| differs != self.differs) {
            let own = self.slots.count();
            tracing::warn!(
                "the group's record says that {slots} may be active at a time, and this member was started with \
                 --active {own}: it takes no slot beyond the smaller number"
            );
        }
        self.differs = differs;
    }

    /// What stands by first: the role of the member is that of the slot that does not.
    fn count(&mut self, outputs: &[Directed]) {
        let foremost = self.foremost();
        let others = (0..self.lines.len()).filter(|slot| *slot != foremost);
        for slot in others.chain([foremost]) {
            let of_slot = outputs.iter().filter(|(of, _)| *of == slot).map(|(_, output)| output);
            let (now, role) = (self.clock.now(), self.slots.role_in(slot));
            self.lines[slot].count.outputs(now, of_slot, role, self.slots.timing());
        }
    }

    /// Remembers what began a stop: the release comes later, and the history tells why.
    fn note_end(&mut self, outputs: &[Directed]) {
        if self.slots.role() != Role::Stopping {
            self.end = None;
        } else if self.end.is_none() {
            let foremost = self.foremost();
            let begins = |output: &&Output| matches!(output.action, Action::Stop { .. } | Action::Kill);
            let said = |output: &&Output| !output.action.is_routine();
            let own = || outputs.iter().filter(|(slot, _)| *slot == foremost).map(|(_, output)| output);
            let cause = own().find(begins).or_else(|| own().find(said));
            self.end = cause.map(|output| output.reason.clone());
        }
    }

    // === waiting ===

    async fn next_input(&mut self) -> (usize, Input) {
        loop {
            if let Some(input) = self.wait().await {
                return input;
            }
        }
    }

    /// Waits for one thing, of one slot; nothing when it is of no interest to the machine.
    async fn wait(&mut self) -> Option<(usize, Input)> {
        let foremost = self.foremost();
        // What the guard said comes before what the store shows of it.
        if let Some(event) = self.workload.try_next().or_else(|| self.traffic.event()) {
            return self.on_event(event).map(|input| (foremost, input));
        }
        if let Some(answer) = self.answer.take() {
            return Some(answer);
        }
        if let Some(input) = self.measure() {
            return Some((foremost, input));
        }
        self.watch();
        let wakeup = self.slots.next_wakeup();
        let clock = &self.clock;
        let timer = async {
            match wakeup {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = self.workload.next() => self.on_event(event).map(|input| (foremost, input)),
            answer = any_of(&mut self.operations) => {
                self.answer = Some(answer);
                None
            }
            () = let_others_go_first(), if self.to_prepare.is_some() => {
                if let Some(activation) = self.to_prepare.take() {
                    self.workload.prepare(self.preparation(activation));
                }
                None
            }
            order = self.orders.recv() => self.on_order(order).map(|input| (foremost, input)),
            departure = self.traffic.next() => {
                self.depart(departure);
                None
            }
            () = timer => Some((foremost, Input::Wake)),
            (slot, _) = any_of(&mut self.watches) => Some((slot, Input::Changed)),
        }
    }

    /// Nothing is watched while an operation is under way: its answer tells more, and a change of the own making would
    /// wake for nothing.
    fn watch(&mut self) {
        for (slot, line) in self.lines.iter().enumerate() {
            if self.watches[slot].is_none() && self.operations[slot].is_none() {
                let timing = *self.slots.timing();
                self.watches[slot] = Some(watch(Rc::clone(&line.lock), line.last_version, timing));
            }
        }
    }

    /// Once a renewal: what a kill would cost now, if that is more than was assumed.
    fn measure(&mut self) -> Option<Input> {
        if !std::mem::take(&mut self.measure_due) {
            return None;
        }
        let proof = kill_to_proof(self.workload.resident_bytes());
        (proof > self.slots.timing().proof()).then_some(Input::Measured { lateness: Duration::ZERO, proof })
    }

    fn on_event(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Started { pid, containment, memory_locked } => {
                tracing::info!(pid, containment = containment.word(), "the workload runs");
                self.publish_started(pid, containment, memory_locked);
                None
            }
            Event::Exited(ending) => Some(Input::Exited { code: ending.code() }),
            Event::Gone { proof, released } => {
                self.runs = false;
                Some(Input::Gone { proof, released })
            }
            Event::Late(lateness) => {
                Some(Input::Measured { lateness, proof: kill_to_proof(self.workload.resident_bytes()) })
            }
            Event::Failed(why) => {
                tracing::error!("the workload was not started: {why}");
                None
            }
            Event::Stuck(what) => {
                tracing::error!("the workload cannot be killed and is not released: {what}");
                None
            }
            Event::GuardLost(why) => {
                tracing::error!("the guard is lost: {why}");
                Some(Input::GuardLost)
            }
            Event::Stands { pid, containment, memory_locked } => {
                Some(self.note_standby(pid, containment, memory_locked))
            }
            Event::Fell { why, leaves } => Some(self.fall(&why, leaves)),
            Event::Absent => Some(self.fitness()),
            Event::Forsaken(why) => {
                tracing::error!("{why}");
                self.runs = false;
                Some(Input::Forsaken)
            }
        }
    }

    fn on_order(&mut self, order: Option<Order>) -> Option<Input> {
        match order {
            // Whoever sends orders has ended: fail closed.
            None | Some(Order::Leave) => Some(Input::Leave),
            Some(Order::Hangup) if !self.runs => Some(Input::Leave),
            Some(Order::Hangup) => {
                self.workload.signal(nix::libc::SIGHUP);
                None
            }
            Some(Order::Signal(signal)) => {
                if self.runs {
                    self.workload.signal(signal);
                }
                None
            }
            Some(Order::Request(petition)) => {
                let request = petition.request.clone();
                self.petition = Some(petition);
                Some(Input::Request(request))
            }
            Some(Order::Health(health)) => {
                self.checked = health;
                Some(self.fitness())
            }
            Some(Order::Leaving(why)) => {
                self.publisher.update(|snapshot| snapshot.leaving = why);
                None
            }
            Some(Order::Members(members)) => {
                let candidates = candidates(&members);
                self.publisher.update(|snapshot| snapshot.members = members);
                Some(Input::Candidates(candidates))
            }
        }
    }

    /// Who has nothing to start is not fit, whatever the check says.
    fn fitness(&mut self) -> Input {
        let health = fitness(&self.checked, &self.workload);
        let healthy = health.healthy;
        self.publisher.update(|snapshot| snapshot.health = health);
        Input::Health(healthy)
    }

    // === doing ===

    /// Carries out one output; the reason to leave, if that is what it is.
    fn perform(&mut self, slot: usize, output: Output) -> Option<Exit> {
        let Output { action, reason } = output;
        log(&action, &reason, self.slots.role_in(slot), self.numbered(slot));
        let lock = Rc::clone(&self.lines[slot].lock);
        match action {
            Action::Read { limit } => self.ask(slot, read(lock, limit)),
            Action::Write { expected, record, attempt, limit } => {
                self.lines[slot].predecessor.replaced(expected, &record);
                if let (Claim::Held(holder), Role::Acquiring) = (&record.claim, self.slots.role_in(slot)) {
                    self.to_prepare = Some(holder.activation);
                }
                let ends = matches!(record.claim, Claim::Released(_)) && self.foremost() == slot;
                let why = self.end.clone().filter(|_| ends).unwrap_or(reason);
                let withdrawn = ends.then(|| self.traffic.withdrawn());
                let write = async move {
                    if let Some(withdrawn) = withdrawn {
                        withdrawn.await;
                    }
                    lock.write(expected, &record, &why).await
                };
                self.ask(slot, bounded_write(attempt, limit, write));
            }
            Action::StepBack { pause } => lock.step_back(pause),
            Action::Start { activation, token, kill_at, successor } => {
                self.start(slot, activation, token, kill_at, successor);
            }
            Action::Extend { kill_at } => {
                self.traffic.extend(kill_at);
                self.workload.extend(kill_at);
                self.measure_due = true;
            }
            Action::Stop { grace, successor } => self.workload.stop(grace, successor, &reason),
            Action::Kill => self.workload.kill(),
            Action::Answer(answer) => self.answer(answer, &reason),
            Action::Note => {}
            Action::Exit(exit) => return Some(exit),
        }
        None
    }

    fn ask(&mut self, slot: usize, operation: Operation) {
        self.operations[slot] = Some(operation);
        self.watches[slot] = None;
    }

    /// The number of a slot for people, where there are several.
    fn numbered(&self, slot: usize) -> Option<usize> {
        (self.lines.len() > 1).then_some(slot + 1)
    }

    fn answer(&mut self, answer: Result<(), Refusal>, reason: &str) {
        let Some(petition) = self.petition.take() else { return };
        let answer = match (answer, &self.granted) {
            (Ok(()), _) => {
                self.granted = Some(format!("{reason}, asked for by {}", petition.by));
                Ok(())
            }
            // Two at once: the second one is told who was first.
            (Err(Refusal { kind: RefusalKind::Conflict, why }), Some(granted)) => {
                Err(Refusal { kind: RefusalKind::Conflict, why: format!("{why} ({granted})") })
            }
            (refused, _) => refused,
        };
        // Whoever asked may have gone away meanwhile.
        let _ = petition.answer_to.send(answer);
    }

    fn start(
        &mut self,
        slot: usize,
        activation: Activation,
        token: Token,
        kill_at: Instant,
        successor: Option<String>,
    ) {
        let launch = Launch { preparation: self.preparation(activation), token, kill_at, successor };
        self.granted = None;
        self.to_prepare = None;
        let line = &self.lines[slot];
        let before = line.predecessor.of(activation);
        let departure = self.traffic.lead(slot, (launch, line.lock.descriptor()), before);
        self.depart(departure);
    }

    fn preparation(&self, activation: Activation) -> Preparation {
        let slot = self.foremost();
        Preparation {
            command: self.command.argv.clone(),
            activation,
            member: self.slots.member(),
            slot: number(slot),
            stop_grace: self.command.stop_grace,
            local_lock: self.command.local_locks.get(slot).cloned(),
        }
    }

    fn depart(&mut self, departure: Option<Departure>) {
        if let Some((launch, descriptor)) = departure {
            // What was kept warm may be large already.
            self.measure_due = true;
            self.runs = self.workload.has_processes();
            self.workload.start(launch, descriptor);
        }
    }
}

/// The names of those who may take over: first who stays where it is, and of these who has been there longest. The machine
/// leaves out its own.
fn candidates(members: &[Announcement]) -> Vec<String> {
    let mut fit: Vec<&Announcement> = members.iter().filter(|member| member.healthy).collect();
    fit.sort_unstable_by_key(|member| (member.leaving, member.since_unix_ms, &member.name));
    fit.into_iter().map(|member| member.name.clone()).collect()
}

/// The number of a slot for people, who count from 1.
fn number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX).saturating_add(1)
}

/// Lets other tasks begin what they have to, and send it.
pub async fn let_others_go_first() {
    for _ in 0..TURNS_TO_SEND {
        tokio::task::yield_now().await;
    }
}

/// Whether a member may be active: fit is who has something to start, and whose check says so.
pub fn fitness(checked: &Health, workload: &impl Workload) -> Health {
    match workload.absence() {
        Some(why) => Health { healthy: false, why },
        None => checked.clone(),
    }
}

fn log(action: &Action, reason: &str, role: Role, slot: Option<usize>) {
    if action.is_routine() {
        tracing::debug!(%role, slot, "{reason}");
    } else {
        tracing::info!(%role, slot, "{reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::board::contract::member;

    #[test]
    fn who_stays_goes_before_who_waits_longer_and_is_about_to_leave() {
        let announced = |name: &str, since_unix_ms: u64, leaving: bool| Announcement {
            since_unix_ms,
            leaving,
            ..member(name, since_unix_ms.into())
        };
        let unfit = Announcement { healthy: false, ..announced("unfit", 1, false) };
        let members = [announced("first", 1, true), announced("third", 3, false), announced("second", 2, false), unfit];
        assert_eq!(candidates(&members), ["second", "third", "first"]);
    }
}
