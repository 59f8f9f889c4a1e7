//! The sidecar's side: a workload whose guard is behind a socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Activation, Instant, Proof};
use tokio::io::unix::AsyncFd;

use super::door::{Door, Guest, refuse};
use super::{Answer, Word};
use crate::clock;
use crate::lock::history::sentence;
use crate::workload::attention::{Attention, PATIENCE};
use crate::workload::line::Line;
use crate::workload::protocol::{Order, Packet, Prepare, Report, Start};
use crate::workload::sys::{self, Page};
use crate::workload::{Ending, Event, Launch, Preparation, Workload};

/// How long the end of the wrapper's process may come after the end of its connection. The kernel closes the connection
/// first, and then kills all that is left in the container.
const ENDING_LIMIT: Duration = Duration::from_secs(5);

/// A workload in another container.
///
/// Where the wrapper's process is gone, so is everything in its PID namespace. Where it is not, but does not speak any
/// more, its guard keeps to the deadline in the page, and nothing is known here: the member leaves without a release.
pub struct Distant {
    door: Door,
    attention: Attention,
    peer: Option<Peer>,
    /// What the wrapper was told to make ready.
    prepared: Option<Activation>,
    /// An activation was started and is not gone.
    runs: bool,
    worst: Duration,
    memory_locked: bool,
    events: VecDeque<Event>,
}

/// The wrapper that has come in.
struct Peer {
    line: Line,
    /// Readable when its process is gone, and all others of its PID namespace with it.
    end: AsyncFd<OwnedFd>,
    page: Page,
    resident_bytes: u64,
    /// Its connection has ended while something ran: until when its process may take to end.
    ending_until: Option<Instant>,
}

impl Peer {
    fn welcome(guest: Guest, patience: Duration) -> io::Result<Self> {
        let Guest { mut line, end } = guest;
        // A page of its own: no deadline of an earlier wrapper's means anything to it.
        let (page, memfd) = Page::create()?;
        let end = sys::watch(end)?;
        if !line.send(Packet::new(&Answer::Welcome { patience }, vec![memfd])?) {
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(Self { line, end, page, resident_bytes: 0, ending_until: None })
    }

    fn talks(&self) -> bool {
        self.ending_until.is_none()
    }
}

/// What there is to look at.
enum Woken {
    Heard,
    Writable,
    Ended,
    Time,
    Guest(Guest),
}

impl Distant {
    /// Waits for a wrapper at `door`.
    pub fn new(door: Door) -> Self {
        Self {
            door,
            attention: Attention::new(PATIENCE),
            peer: None,
            prepared: None,
            runs: false,
            worst: Duration::ZERO,
            memory_locked: false,
            events: VecDeque::new(),
        }
    }

    /// How long the wrapper may take to answer before it counts as lost.
    pub fn set_patience(&mut self, patience: Duration) {
        self.attention.set_patience(patience);
    }

    fn order(&mut self, order: Order) {
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.talks()) else { return };
        let sent = Packet::new(&Answer::Order(order), Vec::new()).is_ok_and(|packet| peer.line.send(packet));
        if !sent {
            self.forsake("it does not take orders");
        }
    }

    fn ask(&mut self) {
        let sent = clock::now();
        self.order(Order::Ping { sent: sent.as_nanos() });
        if self.peer.as_ref().is_some_and(Peer::talks) {
            self.attention.asks(sent);
        }
    }

    fn look(&mut self) {
        let now = clock::now();
        if self.peer.as_ref().and_then(|peer| peer.ending_until).is_some_and(|until| now >= until) {
            return self.forsake("it closed the connection, and its process lives on");
        }
        if self.attention.is_to_ask(now) {
            self.ask();
        }
        if self.attention.is_over(now) {
            self.forsake(&format!("it did not answer for {:?}", self.attention.patience()));
        }
    }

    /// Takes in what the wrapper has said so far.
    fn listen(&mut self) {
        while let Some(peer) = self.peer.as_ref().filter(|peer| peer.talks()) {
            match peer.line.receive::<Word>() {
                Ok(Some((word, _))) => self.hear(word),
                Ok(None) => return,
                Err(why) => return self.hang_up(&why),
            }
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Report(report) => self.hear_report(report),
            Word::GuardLost(why) => self.events.push_back(Event::GuardLost(why)),
            Word::Size(bytes) => {
                if let Some(peer) = &mut self.peer {
                    peer.resident_bytes = bytes;
                }
            }
            Word::Hello(_) => self.hang_up("it cannot be understood"),
        }
    }

    fn hear_report(&mut self, report: Report) {
        match report {
            Report::Ready { memory_locked } => self.memory_locked = memory_locked,
            Report::Started { pid, containment } => {
                self.events.push_back(Event::Started { pid, containment, memory_locked: self.memory_locked });
            }
            Report::Exited(ending) => self.events.push_back(Event::Exited(ending)),
            Report::Failed(why) => self.events.push_back(Event::Failed(why)),
            Report::Stuck(why) => self.events.push_back(Event::Stuck(why)),
            Report::Pong { sent, worst } => {
                self.attention.answered(Instant::from_nanos(sent));
                let worst = Duration::from_nanos(worst);
                if worst > self.worst {
                    self.worst = worst;
                    self.events.push_back(Event::Late(worst));
                }
            }
            Report::Gone { proof, .. } => match Proof::parse(&proof).filter(|_| self.runs) {
                Some(proof) => self.gone(proof),
                None => self.hang_up("it cannot be understood"),
            },
        }
    }

    fn gone(&mut self, proof: Proof) {
        self.runs = false;
        self.attention.runs_no_more();
        self.events.push_back(Event::Gone { proof, released: None });
    }

    /// There will be no more words of it. While something runs, the end of its process is waited for.
    fn hang_up(&mut self, why: &str) {
        self.attention.forget();
        self.attention.runs_no_more();
        if !self.runs {
            return self.part(why);
        }
        tracing::warn!("the application's container is silent: {why}");
        if let Some(peer) = &mut self.peer {
            peer.line.forget();
            peer.ending_until.get_or_insert(clock::now() + ENDING_LIMIT);
        }
    }

    /// Nothing of it runs, and nothing can be started any more.
    fn part(&mut self, why: &str) {
        self.prepared = None;
        if self.peer.take().is_some() {
            tracing::info!("the application is gone: {why}");
            self.events.push_back(Event::Absent);
        }
    }

    /// Its process is gone, and all others of its PID namespace with it.
    /// See docs/safety.md R4.
    fn bury(&mut self) {
        // Its last words may still be in the socket.
        self.listen();
        if self.runs {
            self.events.push_back(Event::Exited(Ending::Signal(nix::libc::SIGKILL)));
            self.gone(Proof::NamespaceEmpty);
        }
        self.attention.forget();
        self.part("its container has ended");
    }

    /// Whether anything of it runs will never be known here. Its guard keeps to the deadline, which nobody moves now.
    /// See docs/safety.md R4.
    fn forsake(&mut self, why: &str) {
        self.attention.forget();
        self.attention.runs_no_more();
        if self.runs {
            self.events.push_back(Event::Forsaken(format!("the application's container is lost: {why}")));
        }
        self.part(why);
    }

    /// One wrapper at a time: who comes while another one is there is sent away.
    fn let_in(&mut self, mut guest: Guest) {
        if self.peer.is_some() || self.runs {
            return refuse(&mut guest.line, "another application is connected already");
        }
        match Peer::welcome(guest, self.attention.patience()) {
            Ok(peer) => {
                tracing::info!("an application is connected");
                self.peer = Some(peer);
                // It was told nothing yet.
                self.prepared = None;
                self.events.push_back(Event::Absent);
            }
            Err(error) => tracing::warn!("failed to let an application in: {error}"),
        }
    }

    /// Waits for something to look at. Cancel safe.
    async fn wait(&mut self) -> Woken {
        let ending = self.peer.as_ref().and_then(|peer| peer.ending_until);
        let look_at = self.attention.look_at().into_iter().chain(ending).min();
        let Some(peer) = &self.peer else { return Woken::Guest(self.door.next().await) };
        let talks = peer.talks();
        tokio::select! {
            biased;
            () = peer.line.readable(), if talks => Woken::Heard,
            _ = peer.end.readable() => Woken::Ended,
            () = peer.line.writable(), if talks && peer.line.has_waiting() => Woken::Writable,
            () = clock::sleep_until(look_at) => Woken::Time,
            guest = self.door.next() => Woken::Guest(guest),
        }
    }

    fn attend(&mut self, woken: Woken) {
        match woken {
            Woken::Heard => self.listen(),
            Woken::Ended => self.bury(),
            Woken::Writable => {
                if let Some(peer) = &mut self.peer {
                    peer.line.flush();
                }
            }
            Woken::Time => {
                // Whatever has come while nobody listened counts first.
                self.listen();
                self.look();
            }
            Woken::Guest(guest) => self.let_in(guest),
        }
    }
}

impl Workload for Distant {
    fn absence(&self) -> Option<String> {
        let is_there = self.peer.as_ref().is_some_and(Peer::talks);
        (!is_there).then(|| format!("no application is connected to {}", self.door.path().display()))
    }

    fn prepare(&mut self, preparation: Preparation) {
        if self.runs || self.prepared == Some(preparation.activation) {
            return;
        }
        self.discard();
        self.prepared = Some(preparation.activation);
        self.order(Order::Prepare(Prepare {
            activation: preparation.activation.to_string(),
            member: preparation.member.name,
            slot: preparation.slot,
            stop_grace: preparation.stop_grace,
        }));
    }

    fn discard(&mut self) {
        if self.prepared.take().is_some() {
            self.order(Order::Discard);
        }
    }

    fn start(&mut self, launch: Launch, _descriptor: Option<OwnedFd>) {
        if self.runs {
            // docs/safety.md R1.
            tracing::error!("failed to start: the last activation is not gone yet");
            return self.kill();
        }
        let (kill_at, token, successor) = (launch.kill_at, launch.token.0, launch.successor);
        let activation = launch.preparation.activation.to_string();
        self.prepare(launch.preparation);
        self.prepared = None;
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.talks()) else {
            self.events.push_back(Event::GuardLost("no application is connected".to_owned()));
            self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
            return;
        };
        self.runs = true;
        peer.page.store(kill_at);
        self.attention.runs_until(kill_at, clock::now());
        self.order(Order::Start(Start { activation, token, successor, locked: false }));
        self.ask();
    }

    fn extend(&mut self, kill_at: Instant) {
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.talks() && self.runs) else { return };
        peer.page.store(kill_at);
        self.attention.runs_until(kill_at, clock::now());
        self.ask();
    }

    fn stop(&mut self, grace: Duration, successor: Option<String>, why: &str) {
        if self.runs {
            self.order(Order::Stop { grace, successor, why: sentence(why) });
            self.ask();
        }
    }

    fn kill(&mut self) {
        if self.runs {
            self.order(Order::Kill);
            self.ask();
        }
    }

    fn signal(&mut self, signal: i32) {
        if self.runs {
            self.order(Order::Signal(signal));
        }
    }

    fn resident_bytes(&self) -> u64 {
        self.peer.as_ref().filter(|_| self.runs).map_or(0, |peer| peer.resident_bytes)
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
            let woken = self.wait().await;
            self.attend(woken);
        }
    }
}
