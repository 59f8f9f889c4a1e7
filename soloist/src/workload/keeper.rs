//! The elector's handle to its guard.
//!
//! Guard and elector watch each other. The guard ends the workload when the elector is gone; the keeper ends it when
//! the guard is gone, and kills a guard that does not answer. Orders are put into a socket and never wait.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use election::{Activation, Instant, Proof, Version};
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cgroup::Base;
use super::process::{ProcessId, failed};
use super::protocol::{self, Order, Packet, Parcel, Prepare, Report, Stand, Start};
use super::size::resident_bytes_below;
use super::sys::{self, Page};
use super::terminal::Terminal;
use super::tree::{self, Step, Sweep, Tree};
use super::warm::Standing;
use super::{Event, Launch, Preparation, Workload, guard};
use crate::clock;
use crate::lock::file::Announce;
use crate::lock::history::sentence;

/// How long the guard may take to answer, unless the elector says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// The patience is counted in so many parts. A part that the elector itself slept through (stopped, suspended, frozen
/// together with the guard) counts once, however long it was.
const PATIENCE_PARTS: u32 = 4;

/// Orders that may wait for a guard which does not read; with more it is as good as dead.
const ORDERS_MAX: usize = 256;

/// An elector that is stopped this long while it holds a lock is killed by its guard.
const HOLDING_CHECK: Duration = Duration::from_secs(1);

/// A guard that lived shorter than this is not replaced at once.
const GUARD_LIFE_MIN: Duration = Duration::from_secs(1);

/// Starts, stops and watches the guard, which starts and stops the workload.
pub struct Keeper {
    executable: PathBuf,
    base: Option<Base>,
    own: ProcessId,
    patience: Duration,
    guard: Option<Guard>,
    last_guard: ProcessId,
    /// What the guard was told to make ready.
    prepared: Option<Activation>,
    /// How many standbys were started: the number of each names its cgroup.
    stood: u64,
    run: Option<Running>,
    /// The guard is gone and the elector ends the tree itself.
    ending: Option<(Tree, Sweep, Option<Terminal>)>,
    worst: Duration,
    memory_locked: bool,
    announcer: Announcer,
    on_replaced: Option<Box<dyn Fn(ProcessId)>>,
    events: VecDeque<Event>,
}

/// The line to whichever guard there is, for threads that take a lock. A stopped process cannot speak, so it is said
/// before, and straight into the socket.
#[derive(Clone, Debug, Default)]
pub struct Announcer(Arc<Mutex<Option<OwnedFd>>>);

impl Announcer {
    fn set_line(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let line = socket.try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        Ok(())
    }

    fn say(&self, order: &Order) {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(line), Ok(packet)) = (line.as_ref(), Packet::new(order, Vec::new())) {
            // A guard that does not listen any more is found out by its handle.
            let _ = packet.send(line.as_fd());
        }
    }
}

impl Announce for Announcer {
    fn holding(&self) {
        self.say(&Order::Holding { until: (clock::now() + HOLDING_CHECK).as_nanos() });
    }

    fn not_holding(&self) {
        self.say(&Order::NotHolding);
    }
}

/// What the keeper knows of the activation that runs.
#[derive(Debug)]
struct Running {
    /// Names its cgroup.
    leaf: Activation,
    main: Option<i32>,
    kill_at: Instant,
    /// When the guard is asked whether it is there, apart from extensions; a standby has no deadline that it could miss.
    check_at: Option<Instant>,
    terminal: Option<Terminal>,
}

/// A guard process.
#[derive(Debug)]
struct Guard {
    child: Child,
    id: ProcessId,
    end: AsyncFd<OwnedFd>,
    socket: AsyncFd<OwnedFd>,
    page: Page,
    orders: VecDeque<Packet>,
    /// The ping that is not answered yet, if any: when it was sent.
    asked: Option<Asked>,
    /// Why it was given up, once it was.
    given_up: Option<String>,
    started: Instant,
}

/// A question to the guard.
#[derive(Debug)]
struct Asked {
    /// The newest ping; its answer settles all.
    sent: Instant,
    /// When the present part of the patience is over.
    look_at: Instant,
    parts_left: u32,
}

impl Keeper {
    /// Starts a guard. Call on the main thread of a current_thread runtime: the guard is told when that thread ends.
    pub fn spawn(base: Option<Base>) -> io::Result<Self> {
        Self::spawn_from(PathBuf::from("/proc/self/exe"), base)
    }

    /// As [`Keeper::spawn`], with another binary of this program as the guard.
    pub fn spawn_from(executable: PathBuf, base: Option<Base>) -> io::Result<Self> {
        // When the guard dies, its children become ours.
        prctl::set_child_subreaper(true).map_err(|errno| failed("become a subreaper", errno.into()))?;
        sys::heed_children();
        let own = ProcessId::own()?;
        let guard = Guard::spawn(&executable, own, base.as_ref())?;
        let announcer = Announcer::default();
        announcer.set_line(guard.socket.as_fd())?;
        Ok(Self {
            executable,
            base,
            own,
            patience: PATIENCE,
            last_guard: guard.id,
            guard: Some(guard),
            prepared: None,
            stood: 0,
            run: None,
            ending: None,
            worst: Duration::ZERO,
            memory_locked: false,
            announcer,
            on_replaced: None,
            events: VecDeque::new(),
        })
    }

    /// The guard that is, or was last.
    pub fn guard(&self) -> ProcessId {
        self.last_guard
    }

    /// Calls `tell` with each guard that replaces one that died.
    pub fn on_replaced(&mut self, tell: impl Fn(ProcessId) + 'static) {
        self.on_replaced = Some(Box::new(tell));
    }

    /// How long the guard may take to answer before it is killed.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Tells the guard, from any thread, when the elector holds a lock that others wait for.
    pub fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// A guard that died with nothing to guard is replaced when there is something to guard again.
    fn ensure_guard(&mut self) -> io::Result<()> {
        if self.guard.is_none() {
            let guard = Guard::spawn(&self.executable, self.own, self.base.as_ref())?;
            self.announcer.set_line(guard.socket.as_fd())?;
            self.last_guard = guard.id;
            if let Some(tell) = &self.on_replaced {
                tell(guard.id);
            }
            self.guard = Some(guard);
        }
        Ok(())
    }

    fn order(&mut self, order: &Order, fds: Vec<OwnedFd>) {
        let Some(guard) = &mut self.guard else { return };
        match Packet::new(order, fds) {
            Ok(packet) => guard.send(packet),
            Err(error) => guard.give_up(&error.to_string()),
        }
    }

    /// Asks the guard whether it is there, and to look at the page again.
    fn ask(&mut self) {
        let sent = clock::now();
        self.order(&Order::Ping { sent: sent.as_nanos() }, Vec::new());
        let patience = self.patience;
        if let Some(guard) = &mut self.guard {
            let part = patience / PATIENCE_PARTS;
            match &mut guard.asked {
                // Asking again does not give it more time.
                Some(asked) => asked.sent = sent,
                None => guard.asked = Some(Asked { sent, look_at: sent + part, parts_left: PATIENCE_PARTS }),
            }
        }
    }

    fn try_prepare(&mut self, preparation: Preparation) -> io::Result<()> {
        let activation = preparation.activation;
        if self.prepared == Some(activation) {
            return Ok(());
        }
        self.discard();
        let lock_path = preparation.local_lock.map(PathBuf::into_os_string);
        let parcel = Parcel { lock_path: lock_path.unwrap_or_default(), command: preparation.command };
        let prepare = Order::Prepare(Prepare {
            activation: activation.to_string(),
            member: preparation.member.name,
            stop_grace: preparation.stop_grace,
        });
        let packet = Packet::new(&prepare, vec![parcel.pack()?])?;
        self.ensure_guard()?;
        let Some(guard) = &mut self.guard else { return Err(ErrorKind::NotFound.into()) };
        guard.send(packet);
        self.prepared = Some(activation);
        Ok(())
    }

    fn try_start(&mut self, launch: Launch, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let start = Order::Start(Start::of(&launch, descriptor.is_some()));
        self.try_prepare(launch.preparation)?;
        let packet = Packet::new(&start, descriptor.into_iter().collect())?;
        let Some(guard) = &mut self.guard else { return Err(ErrorKind::NotFound.into()) };
        guard.page.store(launch.kill_at);
        guard.send(packet);
        self.prepared = None;
        Ok(())
    }

    /// Starts a standby. It ends with [`Event::Gone`] as an activation does.
    pub(super) fn stand(&mut self, standing: &Standing) -> io::Result<()> {
        if self.run.is_some() || self.ending.is_some() {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "failed to start a standby: the last is not gone yet",
            ));
        }
        let leaf = Activation(u128::from(self.stood));
        let lock_path = standing.local_lock.clone().map(PathBuf::into_os_string).unwrap_or_default();
        let parcel = Parcel { lock_path, command: standing.command.clone() };
        let stand = Order::Stand(Stand {
            leaf: leaf.to_string(),
            member: standing.member.clone(),
            mark: standing.mark.clone(),
            stop_grace: standing.stop_grace,
            notice: standing.notice,
        });
        let packet = Packet::new(&stand, vec![parcel.pack()?])?;
        self.ensure_guard()?;
        let Some(guard) = &mut self.guard else { return Err(ErrorKind::NotFound.into()) };
        guard.send(packet);
        self.stood += 1;
        let terminal = Terminal::of(self.own.pid);
        self.run = Some(Running { leaf, main: None, kill_at: Instant::default(), check_at: None, terminal });
        Ok(())
    }

    /// Makes the standby the active one.
    pub(super) fn activate(&mut self, launch: Launch, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let start = Order::Activate(Start::of(&launch, descriptor.is_some()));
        let packet = Packet::new(&start, descriptor.into_iter().collect())?;
        let (Some(run), Some(guard)) = (&mut self.run, &mut self.guard) else { return Err(ErrorKind::NotFound.into()) };
        // See docs/safety.md R14: the guard reads it before it tells the standby.
        guard.page.store(launch.kill_at);
        guard.send(packet);
        run.kill_at = launch.kill_at;
        run.check_at = Some(run.next_check(clock::now(), self.patience));
        self.ask();
        Ok(())
    }

    /// When the guard must be looked at, whatever it says by itself.
    fn look_at(&self) -> Option<Instant> {
        let asked = self.guard.as_ref()?.asked.as_ref().map(|asked| asked.look_at);
        let check = self.run.as_ref().and_then(|run| run.check_at);
        [asked, check].into_iter().flatten().min()
    }

    fn look(&mut self) {
        let now = clock::now();
        let patience = self.patience;
        if let Some(run) = self.run.as_mut().filter(|run| run.check_at.is_some_and(|at| now >= at)) {
            run.check_at = Some(run.next_check(now, patience));
            self.ask();
        }
        let part = self.patience / PATIENCE_PARTS;
        let Some(guard) = &mut self.guard else { return };
        let Some(asked) = guard.asked.as_mut().filter(|asked| now >= asked.look_at) else { return };
        asked.parts_left = asked.parts_left.saturating_sub(1);
        asked.look_at = now + part;
        if asked.parts_left == 0 {
            guard.give_up(&format!("it did not answer for {:?}", self.patience));
        }
    }

    /// Takes in what the guard has said so far.
    fn listen(&mut self) {
        while let Some(guard) = &mut self.guard {
            match guard.receive() {
                Ok(Some(report)) => self.hear(report),
                Ok(None) => return,
                Err(why) => return guard.give_up(&why),
            }
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Ready { memory_locked } => self.memory_locked = memory_locked,
            Report::Started { pid, containment } => {
                if let Some(run) = &mut self.run {
                    run.main = Some(pid);
                }
                self.events.push_back(Event::Started { pid, containment, memory_locked: self.memory_locked });
            }
            Report::Exited(ending) => self.events.push_back(Event::Exited(ending)),
            Report::Failed(why) => self.events.push_back(Event::Failed(why)),
            Report::Stuck(why) => self.events.push_back(Event::Stuck(why)),
            Report::Pong { sent, worst } => self.hear_pong(Instant::from_nanos(sent), Duration::from_nanos(worst)),
            Report::Gone { proof, released } => match Proof::parse(&proof) {
                Some(proof) => {
                    self.run = None;
                    let released = released.map(|(incarnation, number)| Version { incarnation, number });
                    self.events.push_back(Event::Gone { proof, released });
                }
                None => {
                    if let Some(guard) = &mut self.guard {
                        guard.give_up("it cannot be understood");
                    }
                }
            },
        }
    }

    fn hear_pong(&mut self, sent: Instant, worst: Duration) {
        if let Some(guard) = &mut self.guard
            && guard.asked.as_ref().is_some_and(|asked| asked.sent <= sent)
        {
            guard.asked = None;
        }
        if worst > self.worst {
            self.worst = worst;
            self.events.push_back(Event::Late(worst));
        }
    }

    /// The guard process has ended: what it was guarding ends here, too.
    /// See docs/safety.md R13.
    fn bury_guard(&mut self) {
        // Its last words may still be in the socket, the proof among them.
        self.listen();
        // What waits at its gate dies with the guard.
        self.prepared = None;
        let Some(mut guard) = self.guard.take() else { return };
        let how = guard.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let Some(run) = self.run.take() else {
            // With nothing to guard it is replaced at once, unless it cannot even start: `start` tries again then.
            if clock::now().since(guard.started) > GUARD_LIFE_MIN
                && let Err(error) = self.ensure_guard()
            {
                tracing::warn!("{error}");
            }
            return;
        };
        let why = guard.given_up.unwrap_or(how);
        self.events.push_back(Event::GuardLost(format!("the guard is gone: {why}")));
        let tree = Tree {
            namespace: tree::is_namespace_of(self.own.pid),
            leaf: self.base.as_ref().and_then(|base| base.open_leaf(run.leaf)),
            main: run.main,
        };
        self.ending = Some((tree, Sweep::new(clock::now()), run.terminal));
    }

    /// One step of ending the tree without a guard. Cancel safe: what is done is done, the rest is in `self`.
    async fn end_tree(&mut self) {
        let Some((tree, sweep, terminal)) = &mut self.ending else { return };
        let rest = sweep.next_at().since(clock::now());
        // The runtime's timers round up: what is due would wait a millisecond.
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        match sweep.step(tree, &mut |_, _| {}) {
            Step::Wait => {}
            Step::Stuck(why) => self.events.push_back(Event::Stuck(why)),
            Step::Gone(proof) => {
                if let Some(leaf) = &tree.leaf {
                    leaf.remove();
                }
                if let (Some(terminal), Some(main)) = (terminal, tree.main) {
                    terminal.restore(main);
                }
                self.ending = None;
                self.events.push_back(Event::Gone { proof, released: None });
            }
        }
    }

    /// Waits until the guard says something, ends, takes more orders, or is due to be looked at.
    async fn await_guard(&mut self) {
        let look_at = self.look_at();
        let Some(guard) = &self.guard else { return std::future::pending().await };
        let talks = guard.given_up.is_none();
        tokio::select! {
            biased;
            _ = guard.socket.readable(), if talks => self.listen(),
            _ = guard.end.readable() => self.bury_guard(),
            _ = guard.socket.writable(), if talks && !guard.orders.is_empty() => {
                if let Some(guard) = &mut self.guard {
                    guard.flush();
                }
            }
            () = sleep_until(look_at), if look_at.is_some() => {
                // Whatever has come while nobody listened counts first.
                self.listen();
                self.look();
            }
        }
    }
}

impl Workload for Keeper {
    fn prepare(&mut self, preparation: Preparation) {
        if self.run.is_some() || self.ending.is_some() {
            return;
        }
        if let Err(error) = self.try_prepare(preparation) {
            // It is tried again when it must be.
            tracing::debug!("failed to make the workload ready: {error}");
        }
    }

    fn discard(&mut self) {
        if self.prepared.take().is_some() {
            self.order(&Order::Discard, Vec::new());
        }
    }

    fn start(&mut self, launch: Launch, descriptor: Option<OwnedFd>) {
        if self.run.is_some() || self.ending.is_some() {
            // docs/safety.md R1.
            // Two at once must never be. The one that is there ends, the other one does not begin.
            tracing::error!("failed to start: the last activation is not gone yet");
            return self.kill();
        }
        let now = clock::now();
        let mut run = Running {
            leaf: launch.preparation.activation,
            main: None,
            kill_at: launch.kill_at,
            check_at: None,
            terminal: Terminal::of(self.own.pid),
        };
        run.check_at = Some(run.next_check(now, self.patience));
        match self.try_start(launch, descriptor) {
            Ok(()) => {
                self.run = Some(run);
                self.ask();
            }
            Err(error) => {
                self.events.push_back(Event::GuardLost(error.to_string()));
                self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
            }
        }
    }

    fn extend(&mut self, kill_at: Instant) {
        let (now, patience) = (clock::now(), self.patience);
        let (Some(run), Some(guard)) = (&mut self.run, &self.guard) else { return };
        guard.page.store(kill_at);
        run.kill_at = kill_at;
        run.check_at = Some(run.next_check(now, patience));
        self.ask();
    }

    fn stop(&mut self, grace: Duration, successor: Option<String>, why: &str) {
        if self.run.is_some() {
            self.order(&Order::Stop { grace, successor, why: sentence(why) }, Vec::new());
            self.ask();
        }
    }

    fn kill(&mut self) {
        if self.run.is_some() {
            self.order(&Order::Kill, Vec::new());
            self.ask();
        }
    }

    fn signal(&mut self, signal: i32) {
        if self.run.is_some() {
            self.order(&Order::Signal(signal), Vec::new());
        }
    }

    fn resident_bytes(&self) -> u64 {
        if self.run.is_some() { resident_bytes_below(self.last_guard.pid) } else { 0 }
    }

    fn try_next(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.listen();
        }
        self.events.pop_front()
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.ending.is_some() {
                self.end_tree().await;
            } else {
                self.await_guard().await;
            }
        }
    }
}

impl Running {
    /// The guard is asked shortly before and at the deadline, so that one which has just been stopped is found out
    /// within the patience, and again and again after it, until the tree is gone.
    fn next_check(&self, now: Instant, patience: Duration) -> Instant {
        let checks = [self.kill_at - patience, self.kill_at];
        checks.into_iter().find(|check| *check > now).unwrap_or(now + patience)
    }
}

impl Guard {
    fn spawn(executable: &PathBuf, own: ProcessId, base: Option<&Base>) -> io::Result<Self> {
        let (page, memfd) = Page::create().map_err(|error| failed("share memory with the guard", error))?;
        let (socket, inherited) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut command = Command::new(executable);
        command.arg0(guard::NAME).arg(inherited.as_raw_fd().to_string()).process_group(0);
        sys::leave_open(&mut command, inherited.as_fd());
        sys::restore_descriptor_limit(&mut command);
        let setup = Packet::new(&Order::Setup { elector: own, base: base.cloned() }, vec![memfd])?;
        setup.send(socket.as_fd())?;
        let socket = sys::watch(socket)?;
        let mut child = command.spawn().map_err(|error| failed("start the guard", error))?;
        // From here on a failure drops the socket, and the guard ends by itself.
        let watched = i32::try_from(child.id()).map_err(io::Error::other).and_then(|pid| {
            let id = ProcessId::of(pid)?;
            let end = id.open()?.ok_or(ErrorKind::NotFound)?;
            Ok((id, sys::watch(end)?))
        });
        let (id, end) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(failed("watch the guard", error));
            }
        };
        Ok(Self {
            child,
            id,
            end,
            socket,
            page,
            orders: VecDeque::new(),
            asked: None,
            given_up: None,
            started: clock::now(),
        })
    }

    fn send(&mut self, packet: Packet) {
        self.orders.push_back(packet);
        self.flush();
        if self.orders.len() > ORDERS_MAX {
            self.give_up("it does not take orders");
        }
    }

    fn flush(&mut self) {
        while let Some(packet) = self.orders.front() {
            // The socket is asked, not the runtime's memory of it: an order must be on its way when this returns.
            let sent = or_clear(packet.send(self.socket.as_fd()), || {
                self.socket.try_io(Interest::WRITABLE, |socket| packet.send(socket.as_fd()))
            });
            match sent {
                Ok(()) => drop(self.orders.pop_front()),
                // Also what it says of a guard that is gone: its end is watched elsewhere.
                Err(_) => return,
            }
        }
    }

    /// The next report; nothing while there is none. An error is the end of the conversation.
    fn receive(&self) -> Result<Option<Report>, String> {
        if self.given_up.is_some() {
            return Ok(None);
        }
        let received = or_clear(protocol::receive::<Report>(self.socket.as_fd()), || {
            self.socket.try_io(Interest::READABLE, |socket| protocol::receive::<Report>(socket.as_fd()))
        });
        match received {
            Ok(Some((report, _))) => Ok(Some(report)),
            Ok(None) => Err("it closed the connection".to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Kills it. What it was guarding is ended when it is dead: two keepers must not work on one tree.
    fn give_up(&mut self, why: &str) {
        if self.given_up.is_none() {
            self.given_up = Some(why.to_owned());
            self.orders.clear();
            self.asked = None;
            let _ = self.child.kill();
        }
    }
}

/// Tries again through the runtime when it would have to wait, so that the runtime learns that and waits, too.
fn or_clear<T>(first: io::Result<T>, again: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match first {
        Err(error) if error.kind() == ErrorKind::WouldBlock => again(),
        other => other,
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep(at.since(clock::now())).await;
    }
}
