//! The application's side: `soloist run --via PATH -- COMMAND`, the first process of its container.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use election::{Activation, GRACE_IN_A_HURRY, Member, Nonce, Token};
use nix::sys::socket::SockType;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Answer, Hello, VERSION, Word, time_namespace};
use crate::clock;
use crate::elector::Order as Wish;
use crate::error::{Code, Failure};
use crate::patience::jittered;
use crate::signals;
use crate::socket_file;
use crate::workload::cgroup::Base;
use crate::workload::keeper::Keeper;
use crate::workload::line::Line;
use crate::workload::process::ProcessId;
use crate::workload::protocol::{Order, Packet, Prepare, Report};
use crate::workload::sys::Page;
use crate::workload::{Ending, Event, Launch, Preparation, Workload};

/// Between two tries to reach the sidecar: it may not be there yet, or be starting anew. Doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the sidecar may take to let one in.
const WELCOME_LIMIT: Duration = Duration::from_secs(2);

/// How long the last words may take to be sent.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// Wishes that wait. They are taken at once; a burst of signals is all that can queue.
const WISHES_MAX: usize = 16;

/// What the wrapper was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sidecar's socket.
    pub path: PathBuf,
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// What the command gets between SIGTERM and SIGKILL when this container is stopped, and the rest of its tree when the
    /// command ends by itself.
    pub stop_grace: Duration,
    /// Whether to go on as a standby when the command has ended by itself.
    pub stays: bool,
}

/// Runs the command whenever the sidecar says so, until told to leave or until the command ends by itself. Returns the
/// exit code.
///
/// # Errors
/// Not the first process of a PID namespace: what the kernel does with it proves nothing then.
pub fn run(settings: &Settings) -> Result<i32, Failure> {
    let pid = nix::unistd::getpid().as_raw();
    if pid != 1 {
        let what = format!("--via: soloist is process {pid} here, and must be the first one of its container");
        let hint = "make it the entry point (in a shell script: exec soloist ...), without shareProcessNamespace";
        return Err(Failure::new(Code::Configuration, what).hint(hint));
    }
    // One thread: the guard's parent-death signal is bound to the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal("start"))?;
    let code = runtime.block_on(wrap(settings));
    runtime.shutdown_background();
    code
}

async fn wrap(settings: &Settings) -> Result<i32, Failure> {
    let (sender, mut wishes) = mpsc::channel(WISHES_MAX);
    let listening = tokio::spawn(signals::listen(sender).map_err(internal("handle signals"))?);
    let code = loop {
        let sidecar = tokio::select! {
            biased;
            () = asked_to_leave(&mut wishes) => break 0,
            sidecar = reach(&settings.path) => sidecar,
        };
        let mut wrapper = Wrapper::new(settings, sidecar).map_err(internal("start the guard"))?;
        let code = wrapper.work(&mut wishes).await;
        wrapper.keeper.dismiss().await;
        if let Some(code) = code {
            break code;
        }
    };
    listening.abort();
    Ok(code)
}

fn internal(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::new(Code::Internal, format!("failed to {what}: {error}"))
}

/// Nothing runs that other wishes could be for. Cancel safe.
async fn asked_to_leave(wishes: &mut mpsc::Receiver<Wish>) {
    while let Some(wish) = wishes.recv().await {
        if matches!(wish, Wish::Leave | Wish::Hangup) {
            return;
        }
    }
}

/// The sidecar, once it has let this wrapper in.
struct Sidecar {
    line: Line,
    /// The page with the deadline.
    memfd: OwnedFd,
    /// How long a guard may take to answer: what the lease leaves room for.
    patience: Duration,
}

/// Tries until the sidecar lets one in. What stands in the way is said when it changes.
async fn reach(path: &Path) -> Sidecar {
    let mut pause = RETRY.0;
    let mut said = None;
    loop {
        match knock(path).await {
            Ok(sidecar) => {
                tracing::info!("connected to the sidecar");
                return sidecar;
            }
            Err(why) => {
                if said.as_ref() != Some(&why) {
                    tracing::info!("waiting for the sidecar at {}: {why}", path.display());
                    said = Some(why);
                }
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn knock(path: &Path) -> Result<Sidecar, String> {
    let said = |error: io::Error| error.to_string();
    let socket = socket_file::connect(path, SockType::SeqPacket).map_err(said)?;
    let own = ProcessId::own().and_then(|own| own.open()).map_err(said)?.ok_or("it is gone")?;
    let hello = Word::Hello(Hello { version: VERSION, time_namespace: time_namespace() });
    let mut line = Line::new(socket).map_err(said)?;
    if !line.send(Packet::new(&hello, vec![own]).map_err(said)?) {
        return Err("it does not listen".to_owned());
    }
    let answered = async {
        loop {
            line.readable().await;
            if let Some(answer) = line.receive::<Answer>()? {
                return Ok::<_, String>(answer);
            }
        }
    };
    let answer =
        timeout(WELCOME_LIMIT, answered).await.map_err(|_| format!("no answer within {WELCOME_LIMIT:?}"))??;
    match answer {
        (Answer::Welcome { patience }, mut fds) => {
            let memfd = fds.pop().ok_or("it cannot be understood")?;
            Ok(Sidecar { line, memfd, patience })
        }
        (Answer::Refused(why), _) => Err(why),
        (Answer::Order(_), _) => Err("it cannot be understood".to_owned()),
    }
}

/// One conversation with a sidecar, and what outlives it: the workload, up to the deadline.
struct Wrapper<'a> {
    settings: &'a Settings,
    keeper: Keeper,
    page: Page,
    /// Nothing once the sidecar is gone.
    line: Option<Line>,
    prepared: Option<Preparation>,
    runs: bool,
    /// The sidecar has it stopped: its end is no end of this container.
    is_stopped: bool,
    /// How the command has ended by itself, or was ended because this container is being stopped.
    ended: Option<i32>,
    leaves: bool,
    worst: Duration,
}

impl<'a> Wrapper<'a> {
    fn new(settings: &'a Settings, sidecar: Sidecar) -> io::Result<Self> {
        let Sidecar { line, memfd, patience } = sidecar;
        let page = Page::open(memfd.as_fd())?;
        let mut keeper = Keeper::spawn_under(memfd, Base::own())?;
        keeper.set_patience(patience);
        Ok(Self {
            settings,
            keeper,
            page,
            line: Some(line),
            prepared: None,
            runs: false,
            is_stopped: false,
            ended: None,
            leaves: false,
            worst: Duration::ZERO,
        })
    }

    /// Until nothing runs and this process shall end, with its code; or until nothing runs and the sidecar is gone.
    async fn work(&mut self, wishes: &mut mpsc::Receiver<Wish>) -> Option<i32> {
        loop {
            if !self.runs {
                let ended = self.ended.take_if(|_| self.leaves || !self.settings.stays);
                if let Some(code) = ended.or(self.leaves.then_some(0)) {
                    self.say_last_words().await;
                    return Some(code);
                }
                self.line.as_ref()?;
            }
            tokio::select! {
                biased;
                event = self.keeper.next() => self.on_event(event),
                () = readable(&self.line) => self.listen(),
                () = writable(&self.line) => {
                    if let Some(line) = &mut self.line {
                        line.flush();
                    }
                }
                wish = wishes.recv() => self.on_wish(wish),
            }
        }
    }

    async fn say_last_words(&mut self) {
        let sent = async {
            while let Some(line) = self.line.as_mut().filter(|line| line.has_waiting()) {
                line.writable().await;
                line.flush();
            }
        };
        // A sidecar that does not read them sees the end of this process.
        let _ = timeout(LAST_WORDS_LIMIT, sent).await;
    }

    fn say(&mut self, word: &Word) {
        let Some(line) = &mut self.line else { return };
        if !Packet::new(word, Vec::new()).is_ok_and(|packet| line.send(packet)) {
            self.lose_sidecar("it does not listen");
        }
    }

    fn report(&mut self, report: Report) {
        self.say(&Word::Report(report));
    }

    /// A workload that runs goes on: its deadline moves no more.
    fn lose_sidecar(&mut self, why: &str) {
        if self.line.take().is_none() {
            return;
        }
        self.keeper.discard();
        self.prepared = None;
        let rest = self.page.load().since(clock::now());
        match self.runs {
            true => tracing::warn!("the sidecar is gone ({why}): the workload may run for another {rest:?}"),
            false => tracing::info!("the sidecar is gone: {why}"),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Started { pid, containment, memory_locked } => {
                tracing::info!(pid, "the workload runs");
                self.report(Report::Ready { memory_locked });
                self.report(Report::Started { pid, containment });
            }
            Event::Exited(ending) => {
                if !self.is_stopped || self.leaves {
                    self.ended = Some(ending.code());
                }
                self.report(Report::Exited(ending));
            }
            Event::Gone { proof, .. } => {
                tracing::info!("nothing of the workload is left ({})", proof.word());
                self.runs = false;
                self.report(Report::Gone { proof: proof.word().to_owned(), released: None });
            }
            Event::Late(worst) => self.worst = worst,
            Event::Failed(why) => self.report(Report::Failed(why)),
            Event::Stuck(why) => self.report(Report::Stuck(why)),
            Event::GuardLost(why) => {
                tracing::error!("the guard is lost: {why}");
                self.say(&Word::GuardLost(why));
            }
            // Its workload is always there, never out of sight, and not kept warm.
            Event::Absent | Event::Forsaken(_) | Event::Stands { .. } | Event::Fell { .. } => {}
        }
    }

    fn listen(&mut self) {
        while let Some(line) = &self.line {
            match line.receive::<Answer>() {
                Ok(Some((Answer::Order(order), _))) => self.obey(order),
                Ok(None) => return,
                Ok(Some(_)) => return self.lose_sidecar("it cannot be understood"),
                Err(why) => return self.lose_sidecar(&why),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Prepare(prepare) => self.prepare(&prepare),
            Order::Discard => {
                self.prepared = None;
                self.keeper.discard();
            }
            Order::Start(start) => self.start(&start.activation, Token(start.token), start.successor),
            Order::Stop { grace, successor, why } => {
                self.is_stopped = true;
                self.keeper.stop(grace, successor, &why);
            }
            Order::Kill => {
                self.is_stopped = true;
                self.keeper.kill();
            }
            Order::Signal(signal) => self.keeper.signal(signal),
            Order::Ping { sent } => {
                // The deadline may have moved: the guard is asked whether it is there, and looks at the page again.
                self.keeper.extend(self.page.load());
                self.say(&Word::Size(self.keeper.resident_bytes()));
                let worst = u64::try_from(self.worst.as_nanos()).unwrap_or(u64::MAX);
                self.report(Report::Pong { sent, worst });
            }
            // It keeps nothing warm, and holds no lock.
            Order::Stand(_) | Order::Activate(_) | Order::Setup { .. } | Order::Holding { .. } | Order::NotHolding => {
                self.lose_sidecar("it cannot be understood");
            }
        }
    }

    fn prepare(&mut self, prepare: &Prepare) {
        let Some(activation) = Activation::parse(&prepare.activation) else {
            return self.lose_sidecar("it cannot be understood");
        };
        let preparation = Preparation {
            command: self.settings.command.clone(),
            activation,
            // Only the name is for the workload.
            member: Member { name: prepare.member.clone(), nonce: Nonce(0) },
            slot: prepare.slot,
            stop_grace: self.settings.stop_grace,
            local_lock: None,
        };
        self.prepared = Some(preparation.clone());
        self.keeper.prepare(preparation);
    }

    /// See docs/safety.md R14: the guard looks at the deadline once more.
    fn start(&mut self, activation: &str, token: Token, successor: Option<String>) {
        let is_it = |preparation: &Preparation| Activation::parse(activation) == Some(preparation.activation);
        let Some(preparation) = self.prepared.take().filter(is_it).filter(|_| !self.runs) else {
            return self.lose_sidecar("it starts what it did not have made ready");
        };
        self.runs = true;
        self.is_stopped = false;
        self.ended = None;
        let kill_at = self.page.load();
        self.keeper.start(Launch { preparation, token, kill_at, successor }, None);
    }

    fn on_wish(&mut self, wish: Option<Wish>) {
        match wish {
            // Whoever passes signals on has ended: fail closed.
            None | Some(Wish::Leave) => self.leave(),
            Some(Wish::Hangup) if !self.runs => self.leave(),
            Some(Wish::Hangup) => self.keeper.signal(nix::libc::SIGHUP),
            Some(Wish::Signal(signal)) => self.keeper.signal(signal),
            // Nobody here asks for these.
            Some(_) => {}
        }
    }

    /// This container is being stopped. The sidecar hears of it first: nobody shall be told "active" while it stops.
    fn leave(&mut self) {
        let grace = if self.leaves { GRACE_IN_A_HURRY.min(self.settings.stop_grace) } else { self.settings.stop_grace };
        self.leaves = true;
        if self.runs {
            self.report(Report::Exited(Ending::Signal(nix::libc::SIGTERM)));
            self.keeper.stop(grace, None, "the application's container is being stopped");
        }
    }
}

async fn readable(line: &Option<Line>) {
    match line {
        Some(line) => line.readable().await,
        None => std::future::pending().await,
    }
}

/// Pending while nothing waits to be sent.
async fn writable(line: &Option<Line>) {
    match line.as_ref().filter(|line| line.has_waiting()) {
        Some(line) => line.writable().await,
        None => std::future::pending().await,
    }
}
