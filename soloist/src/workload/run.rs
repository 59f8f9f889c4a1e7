//! One activation in the guard: from the fork to the proof that nothing is left.
//!
//! It is made ready while the lock is being acquired, up to a child that waits at a gate. What the grant tells opens the
//! gate. Without a grant the child ends at the gate, and nothing is said of it.
//!
//! A standby that is kept warm has no gate: it runs, and the grant of an activation makes it the active one.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use election::{Activation, Instant, Proof};
use nix::errno::Errno;
use nix::libc::{SIGCONT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH};

use super::Ending;
use super::cgroup::{Base, Leaf};
use super::protocol::{Parcel, Prepare, ROLE, Report, Stand, Start, TOKEN, environment};
use super::sys::{self, Gated, Image, Page};
use super::terminal::Terminal;
use super::tree::{Step, Sweep, Tree, reap_all};
use crate::clock;
use crate::error::Code;
use crate::lock::file::release_after_proof;

/// Between two SIGCONT for a workload that the terminal stops again and again (reading it in the background).
const RESUME_PACE: Duration = Duration::from_secs(1);

/// Between two tries to write the release while somebody else is writing, and how long that is tried.
const RELEASE_PACE: Duration = Duration::from_millis(10);
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// No deadline: later than anything.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Where the guard stands: the same for all of its activations.
#[derive(Debug)]
pub(super) struct Site {
    pub elector: i32,
    pub base: Option<Base>,
    pub namespace: bool,
    pub page: Page,
}

/// One activation.
#[derive(Debug)]
pub(super) struct Run {
    activation: Activation,
    tree: Tree,
    /// The command, until it is executed.
    image: Option<Image>,
    /// The child that waits at its gate, until that is opened.
    gated: Option<Gated>,
    /// Why there is none.
    unprepared: Option<io::Error>,
    /// Whether it runs from the start, as a standby; what was made ready waits at its gate.
    is_warm: bool,
    /// The signal by which a standby is told that it is active, and which means nothing else.
    notice: Option<i32>,
    /// Whether the activation was granted.
    granted: bool,
    /// The lock: closed only after the proof and after the release.
    lock: Option<OwnedFd>,
    release: Option<PathBuf>,
    successor: Option<String>,
    /// Why it ends, for the history; the first reason counts.
    end: Option<String>,
    stop_grace: Duration,
    /// The command's name as it was given.
    name: OsString,
    terminal: Option<Terminal>,
    /// How exec went, while that is not known.
    outcome: Option<OwnedFd>,
    /// Whether the gate was opened: before that, nothing of the user's can have run.
    opened: bool,
    /// Whether the main process is not reaped yet.
    main_lives: bool,
    stopping: bool,
    /// SIGKILL on this instant; the page has its own.
    kill_at: Option<Instant>,
    /// When the main process may be continued, and whether it waits for that.
    resume_at: Instant,
    suspended: bool,
    /// The deadline passed while the command ran.
    expired: bool,
    stage: Stage,
    reports: Vec<Report>,
}

/// How far the end has come.
#[derive(Debug)]
enum Stage {
    /// Not decided, or only asked for.
    Running,
    /// Everything is being killed.
    Sweeping(Sweep),
    /// Nothing is left; the release may be outstanding.
    Proven { proof: Proof, retry_at: Instant, give_up_at: Instant },
}

impl Run {
    /// Makes the command ready. What is not possible is told when it is to be started.
    pub(super) fn prepare(prepare: &Prepare, parcel: Parcel, site: &Site) -> Option<Self> {
        let mut run = Self::new(Activation::parse(&prepare.activation)?, prepare.stop_grace, &parcel, site);
        let variables = environment(std::env::vars_os(), &prepare.variables());
        let image = Image::new(parcel.command, variables.into_iter(), TOKEN);
        run.unprepared = image.and_then(|image| run.fork(image, site)).err();
        Some(run)
    }

    /// Starts the command as a standby. If that is not possible, the run ends without it.
    pub(super) fn stand(stand: &Stand, parcel: Parcel, site: &Site) -> Option<Self> {
        let mut run = Self::new(Activation::parse(&stand.leaf)?, stand.stop_grace, &parcel, site);
        (run.is_warm, run.notice) = (true, stand.notice);
        let variables = environment(std::env::vars_os(), &stand.variables());
        let image = Image::new(parcel.command, variables.into_iter(), ROLE);
        let opened = image.and_then(|image| run.fork(image, site)).and_then(|()| run.open("standby", site));
        if let Err(error) = opened {
            run.fail(&error);
        }
        Some(run)
    }

    fn new(activation: Activation, stop_grace: Duration, parcel: &Parcel, site: &Site) -> Self {
        Self {
            activation,
            tree: Tree { namespace: site.namespace, leaf: None, main: None },
            image: None,
            gated: None,
            unprepared: None,
            is_warm: false,
            notice: None,
            granted: false,
            lock: None,
            release: parcel.release(),
            successor: None,
            end: None,
            stop_grace,
            name: parcel.command.first().cloned().unwrap_or_default(),
            terminal: None,
            outcome: None,
            opened: false,
            main_lives: false,
            stopping: false,
            kill_at: None,
            resume_at: Instant::default(),
            suspended: false,
            expired: false,
            stage: Stage::Running,
            reports: Vec::new(),
        }
    }

    /// Forks a child up to its gate, where it can be killed.
    fn fork(&mut self, mut image: Image, site: &Site) -> io::Result<()> {
        if let Some(base) = site.base.as_ref().filter(|_| self.tree.leaf.is_none()) {
            self.tree.leaf = Some(base.create_leaf(self.activation)?);
        }
        let cgroup = self.tree.leaf.as_ref().map(Leaf::open).transpose()?;
        let gated = sys::fork_gated(&mut image, cgroup.as_ref().map(AsFd::as_fd))?;
        self.tree.main = Some(gated.pid);
        self.main_lives = true;
        // With a base, everybody else takes an empty leaf as proof: outside of it nothing may ever start.
        if let Some(leaf) = self.tree.leaf.as_ref().filter(|_| !gated.placed) {
            leaf.add(gated.pid)?;
        }
        self.image = Some(image);
        self.gated = Some(gated);
        Ok(())
    }

    /// Whether this is what was made ready for `activation`, and nothing has become of it yet.
    pub(super) fn awaits(&self, activation: &str) -> bool {
        self.is_gated() && !self.is_ending() && Activation::parse(activation) == Some(self.activation)
    }

    /// Whether it was never granted and is about to be gone: nothing can be ordered from it any more.
    pub(super) fn is_discarded(&self) -> bool {
        self.is_gated() && self.is_ending()
    }

    /// Whether its child may not run yet.
    fn is_gated(&self) -> bool {
        !self.granted && !self.is_warm
    }

    /// Whether it stands by, or is about to end as a standby.
    pub(super) fn is_standby(&self) -> bool {
        !self.granted && self.is_warm
    }

    /// The activation was granted: starts the command. If that is not possible or too late, the run ends without it.
    pub(super) fn start(&mut self, start: &Start, lock: Option<OwnedFd>, site: &Site) {
        self.granted = true;
        self.lock = lock;
        self.successor.clone_from(&start.successor);
        if let Err(error) = self.pass_gate(start, site) {
            self.fail(&error);
        }
        if !self.opened {
            self.kill(clock::now(), "the workload was not started");
        }
    }

    /// The command was not even tried.
    fn fail(&mut self, error: &io::Error) {
        self.reports.push(Report::Failed(error.to_string()));
        self.reports.push(Report::Exited(Ending::NotStarted(Code::Internal as i32)));
        self.kill(clock::now(), "the workload was not started");
    }

    /// The standby's activation was granted. From here on it ends as any other; whether it may still be told is decided
    /// at the last moment.
    /// See docs/safety.md R14.
    ///
    /// False where that cannot be understood.
    pub(super) fn activate(&mut self, start: Start, fds: Vec<OwnedFd>, site: &Site) -> bool {
        let mut fds = fds.into_iter();
        let parcel = fds.next().and_then(|memfd| Parcel::unpack(memfd).ok());
        let (Some(activation), Some(parcel)) = (Activation::parse(&start.activation), parcel) else { return false };
        self.granted = true;
        (self.activation, self.successor, self.lock) = (activation, start.successor, fds.next());
        self.release = parcel.release();
        self.tell(start.locked, site);
        true
    }

    fn tell(&mut self, locked: bool, site: &Site) {
        if self.is_ending() || self.stopping || !self.main_lives {
            return;
        }
        if locked && self.lock.is_none() {
            self.reports.push(Report::Failed("failed to take over the lock: no descriptor came".to_owned()));
            return self.kill(clock::now(), "the workload was not told");
        }
        let now = clock::now();
        if now >= site.page.load() {
            self.expired = true;
            return self.kill(now, "the deadline passed before the workload was told");
        }
        let Some(main) = self.tree.main else { return };
        if let Some(signal) = self.notice {
            let _ = sys::send_signal(main, signal);
        }
        self.reports.push(Report::Started { pid: main, containment: self.tree.containment() });
    }

    /// Looks at the deadline at the last moment, and only then lets the child execute.
    /// See docs/safety.md R14.
    fn pass_gate(&mut self, start: &Start, site: &Site) -> io::Result<()> {
        if start.locked && self.lock.is_none() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "failed to take over the lock: no descriptor came"));
        }
        if let Some(error) = self.unprepared.take() {
            return Err(error);
        }
        // Somebody has killed the child at its gate: another one is as good.
        if let Some(image) = self.image.take_if(|_| !self.main_lives) {
            self.fork(image, site)?;
        }
        if clock::now() >= site.page.load() {
            return Ok(());
        }
        self.open(&start.token.to_string(), site)
    }

    /// Lets the child execute, with `word` for what was left blank.
    fn open(&mut self, word: &str, site: &Site) -> io::Result<()> {
        let Some(gated) = self.gated.take() else { return Err(ErrorKind::NotFound.into()) };
        self.terminal = Terminal::of(site.elector);
        if let Some(terminal) = &self.terminal {
            terminal.lend(gated.pid);
        }
        self.outcome = Some(gated.open(word, self.lock.as_ref().map(AsFd::as_fd))?);
        self.opened = true;
        self.image = None;
        Ok(())
    }

    /// The activation was not granted: the child ends at its gate.
    pub(super) fn discard(&mut self, now: Instant) {
        self.gated = None;
        self.kill(now, "the lock was not acquired");
    }

    /// The descriptor that tells how exec went, while that is of interest.
    pub(super) fn outcome(&self) -> Option<BorrowedFd<'_>> {
        self.outcome.as_ref().map(AsFd::as_fd)
    }

    /// Whether the tree is being killed.
    pub(super) fn is_ending(&self) -> bool {
        !matches!(self.stage, Stage::Running)
    }

    /// SIGTERM now, SIGKILL after `grace`; again only to shorten.
    pub(super) fn stop(&mut self, grace: Duration, successor: Option<String>, why: String, now: Instant) {
        self.shorten(now + grace);
        if self.stopping || !self.main_lives {
            return;
        }
        self.stopping = true;
        self.successor = successor;
        self.end.get_or_insert(why);
        // A stopped process would never see the signal.
        self.signal_group(SIGTERM);
        self.signal_group(SIGCONT);
    }

    /// SIGKILL now.
    pub(super) fn kill(&mut self, now: Instant, why: &str) {
        if self.is_ending() {
            return;
        }
        self.end.get_or_insert_with(|| why.to_owned());
        if self.main_lives && !self.stopping {
            self.successor = None;
        }
        self.stage = Stage::Sweeping(Sweep::new(now));
    }

    /// Passes a signal on to the main process; a new window size to its whole group. The one that says "active" is not
    /// anybody's to send.
    pub(super) fn signal(&self, signal: i32) {
        match self.tree.main {
            _ if self.notice == Some(signal) => {}
            Some(_) if signal == SIGWINCH => self.signal_group(signal),
            Some(main) if self.main_lives => drop(sys::send_signal(main, signal)),
            _ => {}
        }
    }

    /// As long as the main process is not reaped, its group's number cannot change hands.
    fn signal_group(&self, signal: i32) {
        if let Some(main) = self.tree.main.filter(|_| self.main_lives) {
            let _ = sys::send_signal(-main, signal);
        }
    }

    fn shorten(&mut self, kill_at: Instant) {
        self.kill_at = Some(self.kill_at.map_or(kill_at, |before| before.min(kill_at)));
    }

    /// When [`Run::tick`] has something to do, given the deadline in the page.
    pub(super) fn wake_at(&self, deadline: Instant) -> Option<Instant> {
        match &self.stage {
            Stage::Sweeping(sweep) => Some(sweep.next_at()),
            Stage::Proven { retry_at, .. } => Some(*retry_at),
            Stage::Running => {
                let deadline = self.own_deadline(deadline);
                let kill_at = self.kill_at.map_or(deadline, |kill_at| kill_at.min(deadline));
                let wake_at = if self.suspended { kill_at.min(self.resume_at) } else { kill_at };
                (wake_at < NEVER).then_some(wake_at)
            }
        }
    }

    /// Before the grant, the deadline in the page is not its own.
    fn own_deadline(&self, deadline: Instant) -> Instant {
        if self.granted { deadline } else { NEVER }
    }

    /// Exec has succeeded or failed.
    pub(super) fn look_at_outcome(&mut self) {
        let Some(result) = self.outcome.as_ref().and_then(sys::exec_outcome) else { return };
        self.outcome = None;
        match (result, self.tree.main) {
            (Ok(()), Some(pid)) => self.reports.push(Report::Started { pid, containment: self.tree.containment() }),
            (Err(errno), _) => {
                let code = exec_code(errno, &self.name);
                self.reports.push(Report::Exited(Ending::NotStarted(code)));
                // What the child's end would report is not the command's.
                self.main_lives = false;
                self.kill(clock::now(), "the command could not be executed");
            }
            (Ok(()), None) => {}
        }
    }

    /// Some child has ended or was stopped.
    pub(super) fn look_at_children(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Sweeping(sweep) => sweep.hurry(now),
            Stage::Proven { .. } => {}
            Stage::Running => {
                self.look_at_stop(now);
                self.reap(now);
            }
        }
    }

    /// A suspended singleton would hold the lock and do nothing, so the terminal cannot suspend it.
    fn look_at_stop(&mut self, now: Instant) {
        let Some(main) = self.tree.main.filter(|_| self.main_lives) else { return };
        if matches!(sys::stopped_by(main), Some(SIGTSTP | SIGTTIN | SIGTTOU)) {
            self.suspended = true;
            self.resume(now);
        }
    }

    fn resume(&mut self, now: Instant) {
        if self.suspended && now >= self.resume_at {
            self.suspended = false;
            self.resume_at = now + RESUME_PACE;
            self.signal_group(SIGCONT);
        }
    }

    fn reap(&mut self, now: Instant) {
        let main = self.tree.main;
        let mut ending = None;
        let none_left = reap_all(&mut |pid, how| {
            if Some(pid) == main {
                ending = Some(how);
            }
        });
        if let Some(ending) = ending {
            self.main_ended(ending);
            if self.is_gated() {
                self.gated = None;
                return;
            }
            if !none_left && !self.is_ending() {
                self.tree.terminate();
                self.shorten(now + self.stop_grace);
            }
        }
        if none_left && !self.is_ending() {
            match self.tree.proof() {
                Some(proof) => self.proven(proof, now),
                // Injected into the cgroup or the namespace, by whomever: not a child, but not allowed to stay.
                None => self.kill(now, "the workload left processes behind"),
            }
        }
    }

    fn main_ended(&mut self, ending: Ending) {
        self.look_at_outcome();
        if std::mem::replace(&mut self.main_lives, false) && self.opened && !self.expired {
            self.reports.push(Report::Exited(ending));
            self.end.get_or_insert_with(|| format!("the workload ended by itself with code {}", ending.code()));
        }
    }

    fn proven(&mut self, proof: Proof, now: Instant) {
        let proof = if self.opened { proof } else { Proof::NeverStarted };
        self.stage = Stage::Proven { proof, retry_at: now, give_up_at: now + RELEASE_LIMIT };
    }

    /// Does what is due before the end.
    pub(super) fn tick(&mut self, now: Instant, deadline: Instant) {
        let deadline = self.own_deadline(deadline);
        if !self.is_ending() {
            self.resume(now);
            if now >= self.kill_at.map_or(deadline, |kill_at| kill_at.min(deadline)) {
                // Nobody asked for it and the command did not end: the lease is lost, and that is what the elector hears.
                self.expired = self.kill_at.is_none() && self.main_lives;
                self.kill(now, "the deadline passed");
            }
        }
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) {
        let Stage::Sweeping(sweep) = &mut self.stage else { return };
        if now < sweep.next_at() {
            return;
        }
        let mut ending = None;
        let main = self.tree.main;
        let step = sweep.step(&self.tree, &mut |pid, how| {
            if Some(pid) == main {
                ending = Some(how);
            }
        });
        if let Some(ending) = ending {
            self.main_ended(ending);
        }
        match step {
            Step::Gone(proof) => self.proven(proof, now),
            Step::Stuck(why) => self.reports.push(Report::Stuck(why)),
            Step::Wait => {}
        }
    }

    /// After the proof: the release, then the lock, then the report, in this order. True when the run is over and all
    /// that it held is let go.
    /// See docs/safety.md R4.
    pub(super) fn finish(&mut self, now: Instant) -> bool {
        let is_gated = self.is_gated();
        let Stage::Proven { proof, retry_at, give_up_at } = &mut self.stage else { return false };
        if now < *retry_at {
            return false;
        }
        if let (Some(terminal), Some(main)) = (self.terminal.take(), self.tree.main) {
            terminal.restore(main);
        }
        if let Some(leaf) = self.tree.leaf.take() {
            leaf.remove();
        }
        if is_gated {
            return true;
        }
        let release = self.release.as_deref();
        let end = self.end.as_deref().unwrap_or("the workload ended");
        let written =
            release.map(|path| release_after_proof(path, self.activation, *proof, self.successor.clone(), end));
        let released = match written {
            // Somebody else is writing. Should that be a stopped elector, the guard sees to it between two tries.
            Some(Err(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && now < *give_up_at =>
            {
                *retry_at = clock::now() + RELEASE_PACE;
                return false;
            }
            // Without a release of the guard's the elector writes its own, or the others wait.
            Some(Err(_)) | None => None,
            Some(Ok(version)) => version.map(|version| (version.incarnation, version.number)),
        };
        self.lock = None;
        self.reports.push(Report::Gone { proof: proof.word().to_owned(), released });
        true
    }

    /// What there is to report since the last call.
    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }
}

/// 127 for a command that is not there, 126 for one that is. A search that met a closed folder on its way ends with
/// EACCES although it found nothing.
fn exec_code(errno: Errno, name: &OsStr) -> i32 {
    let is_there = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        name.as_bytes().contains(&b'/') || std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    match errno {
        Errno::ENOENT => 127,
        Errno::EACCES if !is_there() => 127,
        _ => 126,
    }
}
