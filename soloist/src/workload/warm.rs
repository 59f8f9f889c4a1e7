//! A workload that is warm when its member becomes active: it runs as a standby, and is told.
//!
//! To the elector it looks like any other: started when an activation is granted, and gone with a proof. What is started
//! then is nothing but the knowledge of it. A workload that has it is never a standby again; it ends, and another one is
//! started.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Entropy, Instant, Nonce, Proof};

use super::keeper::Keeper;
use super::{Ending, Event, Launch, Preparation, Workload};
use crate::clock;
use crate::entropy::KernelEntropy;

/// A standby that ended sooner than this after its start is not started again at once.
const QUICK_END: Duration = Duration::from_secs(10);

/// The pause after the first such end; twice as long after each further one in a row, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is started as a standby.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// The own member's name.
    pub member: String,
    /// How long the rest of a tree gets between SIGTERM and SIGKILL when the command ends by itself.
    pub stop_grace: Duration,
    /// The signal by which it is told that it is active, if there is one.
    pub notice: Option<i32>,
    /// Whether the member leaves with a standby that ends by itself.
    pub leaves_with_it: bool,
}

/// A workload behind a guard: started when its member becomes active, or kept warm until then.
pub struct Guarded {
    /// The elector's handle to the guard.
    pub keeper: Keeper,
    /// What its processes are found by, where they run before there is an activation.
    mark: Nonce,
    warm: Option<Warm>,
}

impl Guarded {
    /// Starts the workload with its activation.
    pub fn cold(keeper: Keeper) -> Self {
        let [high, low] = [KernelEntropy.bits(), KernelEntropy.bits()];
        Self { keeper, mark: Nonce(u128::from(high) << 64 | u128::from(low)), warm: None }
    }

    /// What the processes of a standby are found by when both keepers are gone.
    pub fn mark(&self) -> String {
        self.mark.to_string()
    }

    /// Keeps the workload warm from now on. Nothing is started before the member stands by.
    pub fn keep_warm(&mut self, standing: Standing) {
        let state = State::Absent { wanted: false };
        let (pause, start_at) = (None, Instant::default());
        self.warm = Some(Warm { standing, state, pause, start_at, is_down: false, events: VecDeque::new() });
    }

    /// Whether an activation is under way: what concerns one must not touch a standby.
    fn is_active(&self) -> bool {
        self.warm.as_ref().is_none_or(|warm| matches!(warm.state, State::Active))
    }

    /// When the next standby is due.
    fn due(&self) -> Option<Instant> {
        let warm = self.warm.as_ref()?;
        matches!(warm.state, State::Absent { wanted: true }).then_some(warm.start_at)
    }

    /// Starts a standby where one is due.
    fn begin(&mut self) {
        if self.due().is_none_or(|due| clock::now() < due) {
            return;
        }
        let Some(warm) = &mut self.warm else { return };
        match self.keeper.stand(&warm.standing, &self.mark.to_string()) {
            Ok(()) => warm.state = State::Standby(Standby::new()),
            Err(error) => {
                tracing::warn!("failed to start the standby workload: {error}");
                warm.pause_before_the_next();
            }
        }
    }
}

/// A workload that is kept warm.
struct Warm {
    standing: Standing,
    state: State,
    /// How long the last pause was, while standbys end soon after their start.
    pause: Option<Duration>,
    /// Not before this.
    start_at: Instant,
    /// The member leaves: no other one is started.
    is_down: bool,
    events: VecDeque<Event>,
}

enum State {
    /// Nothing of it is there. The next one is started where it is wanted.
    Absent { wanted: bool },
    /// It is there, and was never told that it is active.
    Standby(Standby),
    /// It may have been told.
    Active,
}

/// One standby.
struct Standby {
    started: Instant,
    /// Its PID, once it runs.
    pid: Option<i32>,
    /// It has ended, or is about to.
    fallen: bool,
}

impl Standby {
    fn new() -> Self {
        Self { started: clock::now(), pid: None, fallen: false }
    }

    /// Whether it could be told.
    fn is_up(&self) -> Option<i32> {
        self.pid.filter(|_| !self.fallen)
    }
}

impl Warm {
    fn pause_before_the_next(&mut self) {
        let pause = self.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
        (self.pause, self.start_at) = (Some(pause), clock::now() + pause);
    }

    /// Takes in what the keeper says.
    fn hear(&mut self, event: Event) {
        let State::Standby(standby) = &mut self.state else {
            let is_gone = matches!(event, Event::Gone { .. });
            self.events.push_back(event);
            if is_gone {
                self.state = State::Absent { wanted: false };
                self.events.push_back(Event::Absent);
            }
            return;
        };
        match event {
            Event::Started { pid, containment, memory_locked } => {
                standby.pid = Some(pid);
                self.events.push_back(Event::Stands { pid, containment, memory_locked });
            }
            Event::Exited(ending) => self.fall(&said(ending), Some(ending)),
            Event::GuardLost(why) => self.fall(&why, None),
            // Killed with its tree, before anybody could see how it ended.
            Event::Gone { .. } => {
                self.fall("it was ended", None);
                self.state = State::Absent { wanted: !self.is_down };
            }
            other => self.events.push_back(other),
        }
    }

    /// The standby has ended, or is about to.
    fn fall(&mut self, why: &str, ending: Option<Ending>) {
        let State::Standby(standby) = &mut self.state else { return };
        if std::mem::replace(&mut standby.fallen, true) || self.is_down {
            return;
        }
        if clock::now().since(standby.started) < QUICK_END {
            self.pause_before_the_next();
        } else {
            (self.pause, self.start_at) = (None, Instant::default());
        }
        let leaves = ending.filter(|_| self.standing.leaves_with_it).map(Ending::code);
        self.events.push_back(Event::Fell { why: format!("the standby workload is gone: {why}"), leaves });
    }

    /// The activation ends without having begun: nobody was told.
    fn never_told(&mut self, why: &str) {
        self.events.push_back(Event::Failed(why.to_owned()));
        self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
    }
}

fn said(ending: Ending) -> String {
    match ending {
        Ending::Code(code) => format!("it ended by itself with code {code}"),
        Ending::Signal(signal) => format!("it ended by signal {signal}"),
        Ending::NotStarted(code) => format!("it could not be started ({code})"),
    }
}

impl Workload for Guarded {
    fn absence(&self) -> Option<String> {
        let is_there = match &self.warm.as_ref()?.state {
            State::Absent { .. } => false,
            State::Standby(standby) => standby.is_up().is_some(),
            State::Active => true,
        };
        (!is_there).then(|| "the workload does not stand by".to_owned())
    }

    fn prepare(&mut self, preparation: Preparation) {
        if self.warm.is_none() {
            self.keeper.prepare(preparation);
        }
    }

    fn discard(&mut self) {
        self.keeper.discard();
    }

    fn start(&mut self, launch: Launch, descriptor: Option<OwnedFd>) {
        let Some(warm) = &mut self.warm else { return self.keeper.start(launch, descriptor) };
        match &warm.state {
            State::Standby(standby) if standby.is_up().is_some() => match self.keeper.activate(launch, descriptor) {
                Ok(()) => {
                    warm.state = State::Active;
                    warm.pause = None;
                }
                Err(error) => warm.never_told(&error.to_string()),
            },
            _ => warm.never_told("there is no standby to be told"),
        }
    }

    fn extend(&mut self, kill_at: Instant) {
        if self.is_active() {
            self.keeper.extend(kill_at);
        }
    }

    fn stop(&mut self, grace: Duration, successor: Option<String>, why: &str) {
        if self.is_active() {
            self.keeper.stop(grace, successor, why);
        }
    }

    fn kill(&mut self) {
        if self.is_active() {
            self.keeper.kill();
        }
    }

    fn signal(&mut self, signal: i32) {
        self.keeper.signal(signal);
    }

    fn stand_by(&mut self) -> Option<i32> {
        let warm = self.warm.as_mut()?;
        match &mut warm.state {
            State::Absent { wanted } => {
                *wanted = !warm.is_down;
                self.begin();
                None
            }
            State::Standby(standby) => standby.is_up(),
            State::Active => None,
        }
    }

    fn stand_down(&mut self, grace: Duration) {
        let Some(warm) = &mut self.warm else { return };
        warm.is_down = true;
        match &mut warm.state {
            State::Absent { wanted } => *wanted = false,
            State::Standby(_) => self.keeper.stop(grace, None, "the member leaves"),
            State::Active => {}
        }
    }

    fn stands(&self) -> bool {
        self.warm.as_ref().is_some_and(|warm| matches!(warm.state, State::Standby(_)))
    }

    fn resident_bytes(&self) -> u64 {
        self.keeper.resident_bytes()
    }

    fn try_next(&mut self) -> Option<Event> {
        let Some(warm) = &mut self.warm else { return self.keeper.try_next() };
        while warm.events.is_empty() {
            let event = self.keeper.try_next()?;
            warm.hear(event);
        }
        warm.events.pop_front()
    }

    async fn next(&mut self) -> Event {
        loop {
            let due = self.due();
            let Some(warm) = &mut self.warm else { return self.keeper.next().await };
            if let Some(event) = warm.events.pop_front() {
                return event;
            }
            tokio::select! {
                biased;
                event = self.keeper.next() => warm.hear(event),
                () = clock::sleep_until(due) => self.begin(),
            }
        }
    }
}
