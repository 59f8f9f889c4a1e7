//! Drives the machine: the only place that waits for store, clock and workload.

mod count;
mod predecessor;
mod publish;
mod standby;
mod traffic;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use election::{
    Action, Activation, Attempt, Claim, Entropy, Exit, Input, Instant, Machine, Output, Refusal, RefusalKind, Request,
    Role, Seen, Token, Version, Write, kill_to_proof,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::lock::{Lock, LockError};
use crate::metrics::Metrics;
use crate::patience::within;
use crate::route::Route;
use crate::snapshot::{Announcement, Health, Publisher};
use crate::workload::{Event, Launch, Preparation, Workload};

use self::count::Count;
use self::predecessor::Predecessor;
use self::traffic::{Departure, Traffic};

/// How often everybody else gets a turn before the workload is made ready: from here to the socket, the acquiring write
/// passes through several tasks, and it goes first.
const TURNS_TO_SEND: usize = 8;

/// Randomness of the kernel, asked for each time: a cloned process draws other bits.
/// See docs/safety.md R10.
#[derive(Clone, Copy, Debug)]
pub struct KernelEntropy;

impl Entropy for KernelEntropy {
    fn bits(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel's pool is up before any process of ours: this loops only over interruptions by signals.
        while rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) != Ok(bytes.len()) {}
        u64::from_ne_bytes(bytes)
    }
}

/// What to run, as the command line said.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command and its arguments.
    pub argv: Vec<OsString>,
    /// What a tree gets between SIGTERM and SIGKILL when its command ends by itself.
    pub stop_grace: Duration,
    /// The lock file, where the guard can write the release itself.
    pub local_lock: Option<PathBuf>,
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

/// A store operation under way, as the input that it will become.
type Operation = Pin<Box<dyn Future<Output = Input>>>;

/// A watch for changes under way.
type Watch = Pin<Box<dyn Future<Output = Result<(), LockError>>>>;

/// One member at work.
pub struct Elector<E, L, W, C> {
    machine: Machine<E>,
    lock: Rc<L>,
    workload: W,
    clock: C,
    command: Command,
    orders: mpsc::Receiver<Order>,
    operation: Option<Operation>,
    /// The answer of the last one, until the machine has it.
    answer: Option<Input>,
    watch: Option<Watch>,
    /// The version that the last answer named; changes are counted from here.
    last_version: Version,
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
    count: Count,
    traffic: Traffic,
    predecessor: Predecessor,
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
    /// Puts the parts together; nothing happens before [`Elector::run`].
    pub fn new(
        machine: Machine<E>,
        lock: L,
        workload: W,
        clock: C,
        command: Command,
        orders: mpsc::Receiver<Order>,
        publisher: Publisher,
    ) -> Self {
        let checked = publisher.newest().health.clone();
        publisher.update(|snapshot| snapshot.health = fitness(&checked, &workload));
        Self {
            machine,
            lock: Rc::new(lock),
            workload,
            clock,
            command,
            orders,
            operation: None,
            answer: None,
            watch: None,
            last_version: Version::ABSENT,
            petition: None,
            granted: None,
            publisher,
            checked,
            stays_unfit: false,
            end: None,
            count: Count::new(Metrics::default()),
            traffic: Traffic::default(),
            predecessor: Predecessor::default(),
            to_prepare: None,
            runs: false,
            measure_due: false,
            fallen: None,
        }
    }

    /// Counts into `metrics`, which somebody reads.
    #[must_use]
    pub fn counting(mut self, metrics: Metrics) -> Self {
        self.count = Count::new(metrics);
        self
    }

    /// Sends traffic to the active member by `route`.
    #[must_use]
    pub fn routed(mut self, route: Rc<dyn Route>) -> Self {
        self.traffic = Traffic::of(route);
        self
    }

    /// Takes part in the election until the machine decides to leave.
    pub async fn run(mut self) -> Exit {
        let mut input = Input::Wake;
        loop {
            self.note_version(&input);
            self.predecessor.note(&input);
            self.publish_answer(&input);
            let shows_the_lock =
                matches!(input, Input::Read(Ok(_)) | Input::Written { outcome: Write::Written(_), .. });
            self.count.input(self.clock.now(), &input);
            let outputs = self.machine.step(self.clock.now(), input);
            // Before anything is done: nobody shall read "active" when the stop has begun.
            self.publish(&outputs);
            self.note_unfit();
            self.note_end(&outputs);
            self.count.outputs(self.clock.now(), &outputs, self.machine.role(), self.machine.timing());
            self.stand_by();
            // docs/safety.md R19.
            match self.machine.role() {
                Role::Active => {}
                Role::Acquiring => self.traffic.prepare(),
                _ => {
                    self.traffic.leave();
                    self.to_prepare = None;
                    self.workload.discard();
                }
            }
            for output in outputs {
                if let Some(exit) = self.perform(output) {
                    return self.settle(exit).await;
                }
            }
            if shows_the_lock {
                self.publish_previous();
            }
            input = self.next_input().await;
        }
    }

    fn note_version(&mut self, input: &Input) {
        match input {
            Input::Read(Ok(Seen { version, .. }))
            | Input::Written { outcome: Write::Written(version), .. }
            | Input::Gone { released: Some(version), .. } => self.last_version = *version,
            _ => {}
        }
    }

    /// Remembers what began a stop: the release comes later, and the history tells why.
    fn note_end(&mut self, outputs: &[Output]) {
        if self.machine.role() != Role::Stopping {
            self.end = None;
        } else if self.end.is_none() {
            let begins = |output: &&Output| matches!(output.action, Action::Stop { .. } | Action::Kill);
            let said = |output: &&Output| !output.action.is_routine();
            let cause = outputs.iter().find(begins).or_else(|| outputs.iter().find(said));
            self.end = cause.map(|output| output.reason.clone());
        }
    }

    // === waiting ===

    async fn next_input(&mut self) -> Input {
        loop {
            if let Some(input) = self.wait().await {
                return input;
            }
        }
    }

    /// Waits for one thing; nothing when it is of no interest to the machine.
    async fn wait(&mut self) -> Option<Input> {
        // What the guard said comes before what the store shows of it.
        if let Some(event) = self.workload.try_next().or_else(|| self.traffic.event()) {
            return self.on_event(event);
        }
        if let Some(input) = self.answer.take().or_else(|| self.measure()) {
            return Some(input);
        }
        // Nothing is watched while an operation is under way: its answer tells more, and a change of the own making
        // would wake for nothing.
        if self.watch.is_none() && self.operation.is_none() {
            self.watch = Some(watch(Rc::clone(&self.lock), self.last_version, *self.machine.timing()));
        }
        let wakeup = self.machine.next_wakeup();
        let clock = &self.clock;
        let timer = async {
            match wakeup {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            event = self.workload.next() => self.on_event(event),
            input = pending_or(&mut self.operation) => {
                self.operation = None;
                self.answer = Some(input);
                None
            }
            () = let_others_go_first(), if self.to_prepare.is_some() => {
                if let Some(activation) = self.to_prepare.take() {
                    self.workload.prepare(self.preparation(activation));
                }
                None
            }
            order = self.orders.recv() => self.on_order(order),
            departure = self.traffic.next() => {
                self.depart(departure);
                None
            }
            () = timer => Some(Input::Wake),
            _ = pending_or(&mut self.watch) => {
                self.watch = None;
                Some(Input::Changed)
            }
        }
    }

    /// Once a renewal: what a kill would cost now, if that is more than was assumed.
    fn measure(&mut self) -> Option<Input> {
        if !std::mem::take(&mut self.measure_due) {
            return None;
        }
        let proof = kill_to_proof(self.workload.resident_bytes());
        (proof > self.machine.timing().proof()).then_some(Input::Measured { lateness: Duration::ZERO, proof })
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
    fn perform(&mut self, output: Output) -> Option<Exit> {
        let Output { action, reason } = output;
        log(&action, &reason, self.machine.role());
        match action {
            Action::Read { limit } => self.operation = Some(read(Rc::clone(&self.lock), limit)),
            Action::Write { expected, record, attempt, limit } => {
                self.predecessor.replaced(expected, &record);
                if let (Claim::Held(holder), Role::Acquiring) = (&record.claim, self.machine.role()) {
                    self.to_prepare = Some(holder.activation);
                }
                let lock = Rc::clone(&self.lock);
                let is_release = matches!(record.claim, Claim::Released(_));
                let why = self.end.clone().filter(|_| is_release).unwrap_or(reason);
                let withdrawn = is_release.then(|| self.traffic.withdrawn());
                let write = async move {
                    if let Some(withdrawn) = withdrawn {
                        withdrawn.await;
                    }
                    lock.write(expected, &record, &why).await
                };
                self.operation = Some(bounded_write(attempt, limit, write));
            }
            Action::StepBack { pause } => self.lock.step_back(pause),
            Action::Start { activation, token, kill_at, successor } => {
                self.start(activation, token, kill_at, successor);
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
        if self.operation.is_some() {
            self.watch = None;
        }
        None
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

    fn start(&mut self, activation: Activation, token: Token, kill_at: Instant, successor: Option<String>) {
        let launch = Launch { preparation: self.preparation(activation), token, kill_at, successor };
        self.granted = None;
        self.to_prepare = None;
        let before = self.predecessor.of(activation);
        let departure = self.traffic.lead((launch, self.lock.descriptor()), before);
        self.depart(departure);
    }

    fn preparation(&self, activation: Activation) -> Preparation {
        Preparation {
            command: self.command.argv.clone(),
            activation,
            member: self.machine.member(),
            stop_grace: self.command.stop_grace,
            local_lock: self.command.local_lock.clone(),
        }
    }

    fn depart(&mut self, departure: Option<Departure>) {
        if let Some((launch, descriptor)) = departure {
            self.runs = self.workload.has_processes();
            self.workload.start(launch, descriptor);
        }
    }
}

/// The names of those who may take over: first who stays where it is, and of these who has been there longest. The machine
/// leaves out its own.
fn candidates(members: &[Announcement]) -> Vec<String> {
    let mut fit: Vec<&Announcement> = members.iter().filter(|member| member.healthy).collect();
    fit.sort_by_key(|member| (member.leaving, member.since_unix_ms, &member.name));
    fit.into_iter().map(|member| member.name.clone()).collect()
}

/// The future in the slot, or one that never ends.
async fn pending_or<T>(slot: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Lets other tasks begin what they have to, and send it.
pub async fn let_others_go_first() {
    for _ in 0..TURNS_TO_SEND {
        tokio::task::yield_now().await;
    }
}

fn read<L: Lock + 'static>(lock: Rc<L>, limit: Duration) -> Operation {
    Box::pin(async move { Input::Read(within(limit, lock.read()).await.map_err(|error| error.to_string())) })
}

// docs/safety.md R12: no answer in time is an unknown outcome.
fn bounded_write(attempt: Attempt, limit: Duration, write: impl Future<Output = Write> + 'static) -> Operation {
    Box::pin(async move {
        let outcome = match timeout(limit, write).await {
            Ok(outcome) => outcome,
            Err(_) => Write::Unknown(format!("no answer within {limit:?}")),
        };
        Input::Written { attempt, outcome }
    })
}

/// Watches the lock; where that fails, a look each period stands in for it.
fn watch<L: Lock + 'static>(lock: Rc<L>, since: Version, timing: election::Timing) -> Watch {
    Box::pin(async move {
        let result = lock.changed(since).await;
        if let Err(error) = &result {
            tracing::warn!("{error}; looking each {:?} instead", timing.period());
            tokio::time::sleep(timing.period()).await;
        }
        result
    })
}

/// Whether a member may be active: fit is who has something to start, and whose check says so.
pub fn fitness(checked: &Health, workload: &impl Workload) -> Health {
    match workload.absence() {
        Some(why) => Health { healthy: false, why },
        None => checked.clone(),
    }
}

fn log(action: &Action, reason: &str, role: Role) {
    if action.is_routine() {
        tracing::debug!(%role, "{reason}");
    } else {
        tracing::info!(%role, "{reason}");
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
