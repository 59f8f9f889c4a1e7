//! The elector's handle to its guard.
//!
//! Guard and elector watch each other. The guard ends the workload when the elector is gone; the keeper ends it when
//! the guard is gone, and kills a guard that does not answer. Orders are put into a socket and never wait.

use std::collections::VecDeque;
use std::ffi::OsString;
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
use tokio::io::unix::AsyncFd;

use super::attention::{Attention, PATIENCE};
use super::cgroup::Base;
use super::line::Line;
use super::process::{ProcessId, failed};
use super::protocol::{Order, Packet, Parcel, Prepare, Report, Stand, Start};
use super::size::resident_bytes_below;
use super::sys::{self, Page};
use super::terminal::Terminal;
use super::tree::{self, Step, Sweep, Tree};
use super::warm::Standing;
use super::{Event, Launch, Preparation, Workload, guard};
use crate::clock;
use crate::lock::file::Announce;
use crate::lock::history::sentence;

/// An elector that is stopped this long while it holds a lock is killed by its guard.
const HOLDING_CHECK: Duration = Duration::from_secs(1);

/// A guard that lived shorter than this is not replaced at once.
const GUARD_LIFE_MIN: Duration = Duration::from_secs(1);

/// Starts, stops and watches the guard, which starts and stops the workload.
pub struct Keeper {
    executable: PathBuf,
    base: Option<Base>,
    /// The page with the deadline, where it is somebody else's.
    lent: Option<OwnedFd>,
    own: ProcessId,
    attention: Attention,
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
    terminal: Option<Terminal>,
}

/// A guard process.
#[derive(Debug)]
struct Guard {
    child: Child,
    id: ProcessId,
    end: AsyncFd<OwnedFd>,
    line: Line,
    page: Page,
    /// Why it was given up, once it was.
    given_up: Option<String>,
    started: Instant,
}

impl Keeper {
    /// Starts a guard. Call on the main thread of a current_thread runtime: the guard is told when that thread ends.
    pub fn spawn(base: Option<Base>) -> io::Result<Self> {
        Self::spawn_from(PathBuf::from("/proc/self/exe"), base)
    }

    /// As [`Keeper::spawn`], with another binary of this program as the guard.
    pub fn spawn_from(executable: PathBuf, base: Option<Base>) -> io::Result<Self> {
        Self::of(executable, base, None)
    }

    /// As [`Keeper::spawn`], for somebody else's deadline: only who made the page behind `memfd` moves it.
    pub(super) fn spawn_under(memfd: OwnedFd, base: Option<Base>) -> io::Result<Self> {
        Self::of(PathBuf::from("/proc/self/exe"), base, Some(memfd))
    }

    fn of(executable: PathBuf, base: Option<Base>, lent: Option<OwnedFd>) -> io::Result<Self> {
        // When the guard dies, its children become ours.
        prctl::set_child_subreaper(true).map_err(|errno| failed("become a subreaper", errno.into()))?;
        sys::heed_children();
        let own = ProcessId::own()?;
        let guard = Guard::spawn(&executable, own, base.as_ref(), lent.as_ref())?;
        let announcer = Announcer::default();
        announcer.set_line(guard.line.as_fd())?;
        Ok(Self {
            executable,
            base,
            lent,
            own,
            attention: Attention::new(PATIENCE),
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

    /// Ends a guard that has nothing to guard, and waits for its end.
    pub(super) async fn dismiss(mut self) {
        let Some(Guard { mut child, end, line, .. }) = self.guard.take() else { return };
        *self.announcer.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        drop(line);
        if tokio::time::timeout(PATIENCE, end.readable()).await.is_err() {
            let _ = child.kill();
        }
        let _ = child.wait();
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
        self.attention.set_patience(patience);
    }

    /// Tells the guard, from any thread, when the elector holds a lock that others wait for.
    pub fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// A guard that died with nothing to guard is replaced when there is something to guard again.
    fn ensure_guard(&mut self) -> io::Result<()> {
        if self.guard.is_none() {
            let guard = Guard::spawn(&self.executable, self.own, self.base.as_ref(), self.lent.as_ref())?;
            self.announcer.set_line(guard.line.as_fd())?;
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
        if self.guard.as_ref().is_some_and(|guard| guard.given_up.is_none()) {
            self.attention.asks(sent);
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
            slot: preparation.slot,
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
    pub(super) fn stand(&mut self, standing: &Standing, mark: &str) -> io::Result<()> {
        if self.run.is_some() || self.ending.is_some() {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "failed to start a standby: the last is not gone yet",
            ));
        }
        let leaf = Activation(u128::from(self.stood));
        let parcel = Parcel { lock_path: OsString::new(), command: standing.command.clone() };
        let stand = Order::Stand(Stand {
            leaf: leaf.to_string(),
            member: standing.member.clone(),
            mark: mark.to_owned(),
            stop_grace: standing.stop_grace,
            notice: standing.notice,
        });
        let packet = Packet::new(&stand, vec![parcel.pack()?])?;
        self.ensure_guard()?;
        let Some(guard) = &mut self.guard else { return Err(ErrorKind::NotFound.into()) };
        guard.send(packet);
        self.stood += 1;
        self.run = Some(Running { leaf, main: None, terminal: Terminal::of(self.own.pid) });
        Ok(())
    }

    /// Makes the standby the active one.
    pub(super) fn activate(&mut self, launch: Launch, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let start = Order::Activate(Start::of(&launch, descriptor.is_some()));
        let lock_path = launch.preparation.local_lock.map(PathBuf::into_os_string).unwrap_or_default();
        let parcel = Parcel { lock_path, command: Vec::new() }.pack()?;
        let packet = Packet::new(&start, [parcel].into_iter().chain(descriptor).collect())?;
        let (Some(_), Some(guard)) = (&self.run, &mut self.guard) else { return Err(ErrorKind::NotFound.into()) };
        // See docs/safety.md R14: the guard reads it before it tells the standby.
        guard.page.store(launch.kill_at);
        guard.send(packet);
        self.attention.runs_until(launch.kill_at, clock::now());
        self.ask();
        Ok(())
    }

    fn look(&mut self) {
        let now = clock::now();
        if self.attention.is_to_ask(now) {
            self.ask();
        }
        if self.attention.is_over(now)
            && let Some(guard) = &mut self.guard
        {
            guard.give_up(&format!("it did not answer for {:?}", self.attention.patience()));
            self.attention.forget();
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
                    self.attention.runs_no_more();
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
        self.attention.answered(sent);
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
        self.attention.forget();
        self.attention.runs_no_more();
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
        let look_at = self.attention.look_at();
        let Some(guard) = &self.guard else { return std::future::pending().await };
        let talks = guard.given_up.is_none();
        tokio::select! {
            biased;
            _ = guard.line.readable(), if talks => self.listen(),
            _ = guard.end.readable() => self.bury_guard(),
            _ = guard.line.writable(), if talks && guard.line.has_waiting() => {
                if let Some(guard) = &mut self.guard {
                    guard.line.flush();
                }
            }
            () = clock::sleep_until(look_at) => {
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
        let run = Running { leaf: launch.preparation.activation, main: None, terminal: Terminal::of(self.own.pid) };
        let kill_at = launch.kill_at;
        match self.try_start(launch, descriptor) {
            Ok(()) => {
                self.run = Some(run);
                self.attention.runs_until(kill_at, clock::now());
                self.ask();
            }
            Err(error) => {
                self.events.push_back(Event::GuardLost(error.to_string()));
                self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
            }
        }
    }

    fn extend(&mut self, kill_at: Instant) {
        let (Some(_), Some(guard)) = (&self.run, &self.guard) else { return };
        guard.page.store(kill_at);
        self.attention.runs_until(kill_at, clock::now());
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

impl Guard {
    fn spawn(executable: &PathBuf, own: ProcessId, base: Option<&Base>, lent: Option<&OwnedFd>) -> io::Result<Self> {
        let page = match lent {
            Some(memfd) => Page::open(memfd.as_fd()).and_then(|page| Ok((page, memfd.try_clone()?))),
            None => Page::create(),
        };
        let (page, memfd) = page.map_err(|error| failed("share memory with the guard", error))?;
        let (socket, inherited) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut command = Command::new(executable);
        command.arg0(guard::NAME).arg(inherited.as_raw_fd().to_string()).process_group(0);
        sys::leave_open(&mut command, inherited.as_fd());
        sys::restore_descriptor_limit(&mut command);
        let setup = Packet::new(&Order::Setup { elector: own, base: base.cloned() }, vec![memfd])?;
        setup.send(socket.as_fd())?;
        let line = Line::new(socket)?;
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
        Ok(Self { child, id, end, line, page, given_up: None, started: clock::now() })
    }

    fn send(&mut self, packet: Packet) {
        if !self.line.send(packet) {
            self.give_up("it does not take orders");
        }
    }

    /// The next report; nothing while there is none. An error is the end of the conversation.
    fn receive(&self) -> Result<Option<Report>, String> {
        if self.given_up.is_some() {
            return Ok(None);
        }
        Ok(self.line.receive::<Report>()?.map(|(report, _)| report))
    }

    /// Kills it. What it was guarding is ended when it is dead: two keepers must not work on one tree.
    fn give_up(&mut self, why: &str) {
        if self.given_up.is_none() {
            self.given_up = Some(why.to_owned());
            self.line.forget();
            let _ = self.child.kill();
        }
    }
}
