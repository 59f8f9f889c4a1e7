//! The guard: a process of its own between elector and workload. It kills the workload when it is told to, when the
//! deadline passes, and when the elector is gone, and it proves that nothing is left.
//!
//! It is this binary under another name. One thread, one loop, no runtime: all signals are blocked and read from a
//! descriptor, all deadlines are one timer, nothing that it does waits for anybody. It never logs and never touches
//! stdio, because a pipe that nobody reads would stop it. With nothing to guard it does not wake up.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use election::Instant;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{Pid, getppid, setpgid};

use super::process::ProcessId;
use super::protocol::{self, Order, Packet, Parcel, Prepare, Report, Stand};
use super::run::{Run, Site};
use super::{sys, tree};
use crate::clock;

/// The name under which this binary is the guard.
pub const NAME: &str = "soloist-guard";

/// What the kernel sends to the guard when the elector's main thread ends. Blocked and read like every other signal.
const ELECTOR_DIED: Signal = Signal::SIGUSR2;

/// Between two looks at an elector that holds a lock for longer than it said.
const HOLDING_PACE: Duration = Duration::from_millis(250);

/// Packets that one turn of the loop takes, so that orders cannot keep it from its deadlines.
const ORDERS_MAX: usize = 64;

/// Orders that may wait until what was discarded is gone.
const HELD_MAX: usize = 64;

/// Runs the guard until the elector is gone and nothing is left to guard.
pub fn main() -> ExitCode {
    match Guard::enter() {
        Ok(mut guard) => {
            guard.work();
            ExitCode::SUCCESS
        }
        // There is nobody to tell: the elector sees the end of the socket.
        Err(_) => ExitCode::from(70),
    }
}

struct Guard {
    socket: OwnedFd,
    elector: ProcessId,
    elector_end: OwnedFd,
    signals: SignalFd,
    timer: TimerFd,
    /// What the timer is set to.
    armed: Option<Instant>,
    site: Site,
    run: Option<Run>,
    /// What was ordered for the next activation while the discarded one is not gone yet.
    held: VecDeque<(Order, Vec<OwnedFd>)>,
    /// Until when the elector may be stopped in peace, while it holds a lock.
    holding_until: Option<Instant>,
    /// The elector is gone or has closed the socket.
    orphaned: bool,
    /// The worst lateness so far.
    late: Duration,
    reports: VecDeque<Packet>,
}

/// What woke the guard up.
#[derive(Default)]
struct Woken {
    socket: bool,
    elector: bool,
    signals: bool,
    timer: bool,
    outcome: bool,
}

impl Guard {
    /// From exec to readiness. The order matters: signals first, then the ways to hear that the elector is gone.
    fn enter() -> io::Result<Self> {
        SigSet::all().thread_block()?;
        let number = std::env::args().nth(1).and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "failed to find the socket"))?;
        let socket = sys::inherited(number)?;
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        sys::heed_children();
        prctl::set_child_subreaper(true)?;
        prctl::set_pdeathsig(ELECTOR_DIED)?;
        let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let (elector, base, page) = await_setup(&socket)?;
        let gone = || io::Error::new(ErrorKind::NotFound, "failed to find the elector: it is gone");
        let elector_end = elector.open()?.ok_or_else(gone)?;
        // It may have died before the signal was asked for.
        if getppid().as_raw() != elector.pid {
            return Err(gone());
        }
        let namespace = tree::is_namespace_of(elector.pid);
        let mut guard = Self {
            socket,
            elector,
            elector_end,
            signals,
            timer,
            armed: None,
            site: Site { elector: elector.pid, base, namespace, page },
            run: None,
            held: VecDeque::new(),
            holding_until: None,
            orphaned: false,
            late: Duration::ZERO,
            reports: VecDeque::new(),
        };
        guard.report(&Report::Ready { memory_locked: sys::lock_memory().is_ok() });
        Ok(guard)
    }

    fn work(&mut self) {
        loop {
            self.flush();
            if self.orphaned && self.run.is_none() {
                break;
            }
            self.arm();
            let woken = self.wait();
            self.attend(&woken);
            self.tick(clock::now());
        }
        if let Some(base) = &self.site.base {
            base.remove();
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> Woken {
        let outcome = self.run.as_ref().and_then(Run::outcome);
        let mut talk = PollFlags::POLLIN;
        talk.set(PollFlags::POLLOUT, !self.reports.is_empty());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        // What has come to its end stays readable for ever.
        if !self.orphaned {
            fds.push(PollFd::new(self.elector_end.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(self.socket.as_fd(), talk));
        }
        fds.extend(outcome.map(|outcome| PollFd::new(outcome, PollFlags::POLLIN)));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            return Woken::default();
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = |present: bool| present && ready.next().unwrap_or(false);
        Woken {
            signals: next(true),
            timer: next(true),
            elector: next(!self.orphaned),
            socket: next(!self.orphaned),
            outcome: next(outcome.is_some()),
        }
    }

    fn attend(&mut self, woken: &Woken) {
        let now = clock::now();
        if woken.timer {
            self.note_timer(now);
        }
        if woken.signals {
            self.read_signals(now);
        }
        if woken.elector {
            self.orphan();
        }
        if woken.socket && !self.orphaned {
            self.take_orders();
        }
        if let Some(run) = self.run.as_mut().filter(|_| woken.outcome) {
            run.look_at_outcome();
        }
    }

    /// Does what is due. The page is read here, at the last moment.
    /// See docs/safety.md R13.
    fn tick(&mut self, now: Instant) {
        self.watch_holder(now);
        let Some(run) = &mut self.run else { return };
        run.tick(now, self.site.page.load());
        // The elector hears how the command ended before it can see a release in the lock.
        self.report_run();
        if self.run.as_mut().is_some_and(|run| run.finish(now)) {
            self.report_run();
            self.run = None;
            self.obey_held();
        }
    }

    fn report_run(&mut self) {
        let reports = self.run.as_mut().map(Run::take_reports).unwrap_or_default();
        for report in &reports {
            self.report(report);
        }
        self.flush();
    }

    /// An elector that is stopped while it holds a lock keeps everybody out: it must go.
    fn watch_holder(&mut self, now: Instant) {
        if self.holding_until.is_none_or(|until| now < until) || self.orphaned {
            return;
        }
        self.holding_until = Some(now + HOLDING_PACE);
        if self.elector.is_stopped() {
            let _ = self.elector.kill(Duration::ZERO);
        }
    }

    /// Sets the one timer to what is due next, or not at all.
    fn arm(&mut self) {
        let run = self.run.as_ref().and_then(|run| run.wake_at(self.site.page.load()));
        let holding = self.holding_until.filter(|_| !self.orphaned);
        let wake = [run, holding].into_iter().flatten().min();
        if wake == self.armed {
            return;
        }
        self.armed = wake;
        let _ = match wake {
            // Zero would disarm the timer instead of firing it.
            Some(at) => self.timer.set(
                Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at.as_nanos().max(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.timer.unset(),
        };
    }

    fn note_timer(&mut self, now: Instant) {
        let mut count = [0u8; 8];
        let _ = nix::unistd::read(&self.timer, &mut count);
        if let Some(due) = self.armed.take() {
            self.note_lateness(now.since(due));
        }
    }

    /// Once the tree is being killed, being late for something else says nothing about deadlines.
    fn note_lateness(&mut self, late: Duration) {
        if !self.run.as_ref().is_some_and(Run::is_ending) {
            self.late = self.late.max(late);
        }
    }

    fn read_signals(&mut self, now: Instant) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            // All but these mean nothing here: to stop the workload, talk to the elector.
            if i32::try_from(signal.ssi_signo) == Ok(ELECTOR_DIED as i32) && getppid().as_raw() != self.elector.pid {
                self.orphan();
            }
        }
        // Ends of children are looked at whatever the signal: several of them can be merged into one.
        if let Some(run) = &mut self.run {
            run.look_at_children(now);
        }
    }

    // docs/safety.md R13: the elector is gone.
    fn orphan(&mut self) {
        self.orphaned = true;
        self.reports.clear();
        self.held.clear();
        if let Some(run) = &mut self.run {
            run.kill(clock::now(), "the elector was gone");
        }
    }

    fn take_orders(&mut self) {
        for _ in 0..ORDERS_MAX {
            match protocol::receive::<Order>(self.socket.as_fd()) {
                Ok(Some((order, fds))) => self.obey(order, fds),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
                // Closed, or an elector that cannot be understood: to go on guarding for it would be a guess.
                Ok(None) | Err(_) => return self.orphan(),
            }
        }
    }

    fn obey(&mut self, order: Order, fds: Vec<OwnedFd>) {
        if self.orphaned {
            return;
        }
        let now = clock::now();
        if self.run.as_ref().is_some_and(Run::is_discarded) && order.is_for_a_run() {
            self.held.push_back((order, fds));
            if self.held.len() > HELD_MAX {
                self.orphan();
            }
            return;
        }
        match (order, &mut self.run) {
            (Order::Ping { sent }, _) => {
                self.note_lateness(now.since(Instant::from_nanos(sent)));
                let worst = u64::try_from(self.late.as_nanos()).unwrap_or(u64::MAX);
                self.report(&Report::Pong { sent, worst });
            }
            (Order::Holding { until }, _) => self.holding_until = Some(Instant::from_nanos(until)),
            (Order::NotHolding, _) => self.holding_until = None,
            (Order::Prepare(prepare), None) => self.prepare(&prepare, fds),
            (Order::Start(start), Some(run)) if run.awaits(&start.activation) => {
                run.start(&start, fds.into_iter().next(), &self.site);
            }
            (Order::Stand(stand), None) => self.stand(&stand, fds),
            (Order::Activate(start), Some(run)) if run.is_standby() => {
                if !run.activate(start, fds, &self.site) {
                    self.orphan();
                }
            }
            (Order::Discard, Some(run)) => run.discard(now),
            (Order::Stop { grace, successor, why }, Some(run)) => run.stop(grace, successor, why, now),
            (Order::Kill, Some(run)) => run.kill(now, "the elector had it killed"),
            (Order::Signal(signal), Some(run)) => run.signal(signal),
            // An order that has crossed the end of its activation on the way.
            (Order::Stop { .. } | Order::Kill | Order::Signal(_) | Order::Discard | Order::Activate(_), None) => {}
            // Two at once, one that was not made ready, or setting up twice: an elector in disorder. Nothing may run
            // under it.
            (Order::Prepare(_) | Order::Stand(_) | Order::Activate(_), Some(_))
            | (Order::Start(_) | Order::Setup { .. }, _) => self.orphan(),
        }
    }

    /// What was discarded is gone.
    fn obey_held(&mut self) {
        for (order, fds) in std::mem::take(&mut self.held) {
            self.obey(order, fds);
        }
    }

    fn prepare(&mut self, prepare: &Prepare, fds: Vec<OwnedFd>) {
        self.begin(fds, |parcel, site| Run::prepare(prepare, parcel, site));
    }

    fn stand(&mut self, stand: &Stand, fds: Vec<OwnedFd>) {
        self.begin(fds, |parcel, site| Run::stand(stand, parcel, site));
    }

    fn begin(&mut self, fds: Vec<OwnedFd>, begin: impl FnOnce(Parcel, &Site) -> Option<Run>) {
        let parcel = fds.into_iter().next().ok_or(ErrorKind::InvalidData.into()).and_then(Parcel::unpack);
        match parcel.ok().and_then(|parcel| begin(parcel, &self.site)) {
            Some(run) => self.run = Some(run),
            None => self.orphan(),
        }
    }

    fn report(&mut self, report: &Report) {
        if self.orphaned {
            return;
        }
        match Packet::new(report, Vec::new()) {
            Ok(packet) => self.reports.push_back(packet),
            Err(_) => self.orphan(),
        }
    }

    /// Sends what the socket takes. What it does not take waits until the elector reads again.
    fn flush(&mut self) {
        while let Some(packet) = self.reports.front() {
            match packet.send(self.socket.as_fd()) {
                Ok(()) => drop(self.reports.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.orphan(),
            }
        }
    }
}

/// Waits for the first packet. If the elector dies instead, the socket ends.
fn await_setup(socket: &OwnedFd) -> io::Result<(ProcessId, Option<super::cgroup::Base>, sys::Page)> {
    let socket = socket.as_fd();
    while poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], PollTimeout::NONE) == Err(Errno::EINTR) {}
    let (order, fds) = protocol::receive::<Order>(socket)?.ok_or(ErrorKind::UnexpectedEof)?;
    let (Order::Setup { elector, base }, Some(memfd)) = (order, fds.into_iter().next()) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "failed to understand the first packet"));
    };
    Ok((elector, base, sys::Page::open(memfd.as_fd())?))
}
