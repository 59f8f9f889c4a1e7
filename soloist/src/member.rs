//! One member: its elector, and what is around it. What is around it reads snapshots and hands in orders, and is never
//! waited for.

mod around;
mod routes;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use election::{Absence, Exit, OnExit, Role, Slots};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{BootClock, unix_us};
use crate::commands::Commands;
use crate::controller::gallery::Gallery;
use crate::elector::{Command, Elector, Order, fitness, let_others_go_first};
use crate::entropy::KernelEntropy;
use crate::error::{Code, Failure};
use crate::lock::board::Board;
use crate::lock::consul::{ConsulBoard, ConsulLock, Keys};
use crate::lock::file::{self, Category, FileBoard, FileLock, JointAnnounce, Keepers};
use crate::lock::kubernetes::{KubernetesLock, ObjectName, Witnesses};
use crate::lock::{Lock, LockError};
use crate::metrics::Metrics;
use crate::patience::within;
use crate::route::Route;
use crate::settings::{ConsulPlace, Duty, FilePlace, Place, Settings, of_slot};
use crate::snapshot::{Health, Publisher, Snapshot};
use crate::workload::Workload;
use crate::workload::any::AnyWorkload;
use crate::workload::cgroup::Base;
use crate::workload::keeper::Keeper;
use crate::workload::nothing::{Bars, Nothing};
use crate::workload::process::{ProcessId, boot_id};
use crate::workload::task::{Task, Terms};
use crate::workload::via::{Distant, Door};
use crate::workload::warm::{Guarded, Standing};
use crate::{health, notify, serve, signals};

use self::around::{Around, Lingering, Parts};
use self::routes::Opened;

/// How long the first look at the lock may take with `--fail-fast`.
pub const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Orders that wait for the elector. It takes them at once; a burst of signals is all that can queue.
const ORDERS_MAX: usize = 16;

/// Refuses a lock that cannot be used, before anything is started or written.
///
/// # Errors
/// What was got, what is allowed and how to fix it.
pub fn check(settings: &Settings) -> Result<(), Failure> {
    match &settings.lock {
        Place::File(file) => file::check(&file.path, settings.allow_remote_fs).map_err(refused),
        Place::Kubernetes(_) | Place::Consul(_) => Ok(()),
    }
}

/// Takes part in a group, on a runtime of its own.
///
/// # Errors
/// As [`take_part`].
pub fn run(settings: Settings, front: Front) -> Result<Exit, Failure> {
    on_a_runtime(take_part(settings, front))
}

/// The same as a part of this process, on this thread.
///
/// # Errors
/// As [`take_part`].
pub fn run_within(settings: Settings, front: Front, deed: Deed) -> Result<Exit, Failure> {
    on_a_runtime(take_part_within(settings, front, deed))
}

fn on_a_runtime(member: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    // One thread: small, and the guard's parent-death signal is bound to the thread that starts it.
    // After each task the elector has its turn: what others make of a notice must not keep it waiting.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to start the runtime: {error}")))?;
    let exit = runtime.block_on(member);
    // Threads that wait for a disk or a lock must not keep the process.
    runtime.shutdown_background();
    exit
}

/// Takes part in a group until the machine decides to leave.
///
/// # Errors
/// Something could not be started, or something around the elector ended; the workload is gone then.
pub async fn take_part(settings: Settings, front: Front) -> Result<Exit, Failure> {
    match settings.lock.clone() {
        Place::File(place) => on_a_file(settings, front, place).await,
        Place::Kubernetes(place) => on_a_lease(settings, front, place).await,
        Place::Consul(place) => on_consul(settings, front, *place).await,
    }
}

/// What one way to call soloist adds to a member.
#[derive(Default)]
pub struct Front {
    /// Who gets the group's traffic.
    pub route: Option<Rc<dyn Route>>,
    /// Leaves unless it was active within this.
    pub patience: Option<Duration>,
    /// What this process does itself while the member is active, where it runs nothing.
    pub task: Option<Deed>,
    /// Why it must not be active, while there is a reason, where it runs nothing.
    pub bars: Option<Bars>,
    /// What sends it away, in a process whose signals are none of its business. It listens to signals where there is none.
    pub dismissal: Option<oneshot::Receiver<()>>,
    /// What reads snapshots, with its name. None of them ends before the elector.
    pub readers: Vec<(&'static str, Reader)>,
    /// The groups that it looks after, for whoever asks over HTTP.
    pub groups: Option<Arc<Gallery>>,
}

/// Begins what a member does while it has a term.
pub type Deed = Box<dyn FnOnce(Terms) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>>;

/// Begins to read snapshots.
pub type Reader = Box<dyn FnOnce(watch::Receiver<Snapshot>) -> std::io::Result<Reading>>;

/// Reads snapshots until the elector has ended.
pub type Reading = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

async fn on_a_file(settings: Settings, front: Front, place: FilePlace) -> Result<Exit, Failure> {
    let mut member = Member::start(settings, front, guarded)?;
    let keepers = Keepers {
        elector: ProcessId::own().map_err(internal("read the own start time"))?,
        guard: member.charge.workload.keeper.guard(),
        boot_id: boot_id().map_err(internal("read the boot id"))?,
        cgroup: member.charge.base.clone().filter(|_| member.mark().is_none()),
        tree: member.mark().map(|mark| file::Tree { mark, cgroup: member.charge.base.clone() }),
    };
    let announce = Arc::new(JointAnnounce::of(member.charge.workload.keeper.announcer()));
    let locks = open_files(&member.listening.settings, &place, &keepers)?;
    locks.iter().for_each(|lock| lock.set_announce(announce.clone()));
    let (locks_know, commands_know) =
        (locks.iter().map(FileLock::guard_setter).collect::<Vec<_>>(), member.charge.commands.clone());
    member.charge.workload.keeper.on_replaced(move |guard| {
        locks_know.iter().for_each(|lock_knows| lock_knows(guard));
        commands_know.set_guard(guard);
    });
    let local_locks: Vec<PathBuf> = locks.iter().map(|lock| lock.path().to_owned()).collect();
    member.keep_warm();
    let around_the_lock = AroundTheLock { local_locks, ..around_files(&member.listening.settings, &locks[0])? };
    member.elect(locks, around_the_lock).await
}

fn open_files(settings: &Settings, place: &FilePlace, keepers: &Keepers) -> Result<Vec<FileLock>, Failure> {
    let allow_remote_fs = settings.allow_remote_fs;
    let open = |slot| {
        let path = place.of_slot(slot).path;
        FileLock::open(file::Settings { path, allow_remote_fs, keepers: keepers.clone() }).map_err(refused)
    };
    settings.slots().map(open).collect()
}

fn around_files(settings: &Settings, first: &FileLock) -> Result<AroundTheLock<FileBoard>, Failure> {
    Ok(AroundTheLock {
        board: FileBoard::open(first.path()).map_err(unavailable)?,
        // Members may find the file by different paths.
        name: settings.group.clone(),
        // Whoever holds the flock and finds no record is the first ever.
        absence: Absence::Free,
        can_pause: true,
        local_locks: Vec::new(),
        lingering: Vec::new(),
    })
}

async fn on_a_lease(settings: Settings, front: Front, place: ObjectName) -> Result<Exit, Failure> {
    let mut listening = Listening::start(settings, front)?;
    let Settings { access, timing, asks_kubelet, duty, .. } = &listening.settings;
    let witnesses = Witnesses { kubelet: *asks_kubelet, own_container: !matches!(duty, Duty::Via(_)) };
    let opened = KubernetesLock::open(access.clone(), place.clone(), timing.period(), witnesses).await;
    let mut locks = vec![opened.map_err(misconfigured)?];
    // Handshake and answer are under way while the guard is started: a container that runs anew has no time to lose.
    locks[0].look_ahead();
    let_others_go_first().await;
    for slot in listening.settings.slots().skip(1) {
        let lock = locks[0].of_another(place.of_slot(slot), witnesses);
        locks.push(lock);
    }
    match listening.settings.duty.clone() {
        Duty::Tell => {
            let workload = match listening.front.task.take() {
                Some(deed) => AnyWorkload::Task(Box::new(listening.begin(deed, Task::new()))),
                None => AnyWorkload::Nothing(Nothing::unless(listening.front.bars.take())),
            };
            at_the_lease(Member::of(listening, || Ok(unguarded(workload)))?, locks).await
        }
        Duty::Via(path) => {
            let lateness = listening.settings.timing.lateness();
            let member = Member::of(listening, || distant(&path, lateness))?;
            at_the_lease(member.with(|workload| AnyWorkload::Distant(Box::new(workload))), locks).await
        }
        Duty::Command(_) => {
            let mut member = Member::of(listening, guarded)?;
            member.watch_the_guard();
            member.keep_warm();
            at_the_lease(member.with(|workload| AnyWorkload::Guarded(Box::new(workload))), locks).await
        }
    }
}

async fn at_the_lease<W: Workload>(member: Member<W>, locks: Vec<KubernetesLock>) -> Result<Exit, Failure> {
    let lock = &locks[0];
    // A shorter deadline might not be seen in time by a guard that hangs together with its wrapper.
    let can_pause = !matches!(member.listening.settings.duty, Duty::Via(_));
    let recorder = lock.recorder(member.listening.settings.name.clone());
    let around_the_lock = AroundTheLock {
        board: lock.board(),
        name: format!("{}/{}", lock.place().namespace, lock.place().name),
        absence: Absence::CostsALease,
        can_pause,
        local_locks: Vec::new(),
        lingering: vec![("the recorder of Events", Box::new(|snapshots| Box::pin(recorder.run(snapshots))))],
    };
    member.elect(locks, around_the_lock).await
}

async fn on_consul(settings: Settings, front: Front, place: ConsulPlace) -> Result<Exit, Failure> {
    let mut member = Member::start(settings, front, guarded)?;
    member.watch_the_guard();
    member.keep_warm();
    let (locks, around_the_lock) = open_keys(&member.listening.settings, place);
    member.elect(locks, around_the_lock).await
}

fn open_keys(settings: &Settings, place: ConsulPlace) -> (Vec<ConsulLock>, AroundTheLock<ConsulBoard>) {
    let ConsulPlace { access, prefix, consul_lock_session, .. } = place;
    let mimics_consul_lock = consul_lock_session.is_some();
    if access.is_plaintext() {
        let address = &access.address;
        tracing::warn!("Consul at {address} is asked without TLS: whoever is on the way can change the lock");
    }
    let Settings { timing, name, .. } = settings;
    let open = |slot: u32| {
        let prefix = of_slot(&prefix, slot);
        let session = consul_lock_session.clone().unwrap_or_else(|| format!("soloist {name} at '{prefix}'"));
        ConsulLock::new(access.clone(), Keys::of(&prefix), session, timing.lease(), timing.period())
    };
    let locks: Vec<ConsulLock> = settings.slots().map(open).collect();
    let keep = |lock: &ConsulLock| -> (&'static str, Lingering) {
        let session = lock.session_keeper();
        ("the session", Box::new(move |snapshots| Box::pin(session.run(until_the_end(snapshots)))))
    };
    let around_the_lock = AroundTheLock {
        board: if mimics_consul_lock { locks[0].silent_board() } else { locks[0].board() },
        lingering: locks.iter().map(keep).collect(),
        name: prefix,
        absence: if mimics_consul_lock { Absence::FreeUnlessHeld } else { Absence::CostsALease },
        can_pause: false,
        local_locks: Vec::new(),
    };
    (locks, around_the_lock)
}

/// Takes part as a part of this process: `deed` is what it does with its terms, and it alone says when it is done with
/// one. There is no guard.
///
/// # Errors
/// As [`take_part`].
async fn take_part_within(settings: Settings, front: Front, deed: Deed) -> Result<Exit, Failure> {
    let (place, reserve) = (settings.lock.clone(), settings.timing.grace());
    let mut listening = Listening::start(settings, front)?;
    let task = listening.begin(deed, Task::trusted(reserve));
    let member = Member::of(listening, || Ok(unguarded(task)))?;
    let settings = &member.listening.settings;
    match place {
        Place::File(place) => {
            let own = ProcessId::own().map_err(internal("read the own start time"))?;
            let boot_id = boot_id().map_err(internal("read the boot id"))?;
            // It ends with all that it does: nobody else would have to be ended.
            let keepers = Keepers { elector: own, guard: own, boot_id, cgroup: None, tree: None };
            let locks = open_files(settings, &place, &keepers)?;
            let around_the_lock = around_files(settings, &locks[0])?;
            member.elect(locks, around_the_lock).await
        }
        Place::Kubernetes(place) => {
            let witnesses = Witnesses { kubelet: settings.asks_kubelet, own_container: true };
            let opened = KubernetesLock::open(settings.access.clone(), place, settings.timing.period(), witnesses);
            let lock = opened.await.map_err(misconfigured)?;
            at_the_lease(member, vec![lock]).await
        }
        Place::Consul(place) => {
            let (locks, around_the_lock) = open_keys(settings, *place);
            member.elect(locks, around_the_lock).await
        }
    }
}

/// An order to leave when somebody says so, or is gone.
async fn leave_when_dismissed(dismissal: oneshot::Receiver<()>, orders: mpsc::Sender<Order>) -> anyhow::Result<()> {
    let _ = dismissal.await;
    // Fails only if the elector is gone already.
    let _ = orders.send(Order::Leave).await;
    std::future::pending().await
}

/// One order to leave after `patience`, unless the member has become active or is about to.
async fn leave_unless_active(
    patience: Duration,
    mut snapshots: watch::Receiver<Snapshot>,
    orders: mpsc::Sender<Order>,
) -> anyhow::Result<()> {
    let active = snapshots.wait_for(|snapshot| !matches!(snapshot.role, Role::Standby));
    if tokio::time::timeout(patience, active).await.is_err() {
        // Fails only if the elector is gone already.
        let _ = orders.send(Order::Leave).await;
    }
    std::future::pending().await
}

async fn until_the_end(mut snapshots: watch::Receiver<Snapshot>) {
    while snapshots.changed().await.is_ok() {}
}

/// What belongs to a lock besides the register.
struct AroundTheLock<B> {
    board: B,
    /// What members call it, wherever they run.
    name: String,
    absence: Absence,
    /// The lock file of each slot, where the guard can write the release itself.
    local_locks: Vec<PathBuf>,
    /// Whether the store honours a pause.
    can_pause: bool,
    /// What the lock needs, or tells people, until a moment after the elector's end.
    lingering: Vec<(&'static str, Lingering)>,
}

/// What a member is active for, and what belongs to it.
struct Charge<W> {
    workload: W,
    base: Option<Base>,
    commands: Commands,
}

/// A workload behind a guard, which is started here.
fn guarded() -> Result<Charge<Guarded>, Failure> {
    let base = Base::own();
    let keeper = Keeper::spawn(base.clone()).map_err(internal("start the guard"))?;
    let commands = Commands::new(Some(keeper.guard()));
    Ok(Charge { workload: Guarded::cold(keeper), base, commands })
}

/// What needs no guard.
fn unguarded<W>(workload: W) -> Charge<W> {
    Charge { workload, base: None, commands: Commands::new(None) }
}

/// A workload in another container, behind a socket that is opened here.
fn distant(path: &Path, patience: Duration) -> Result<Charge<Distant>, Failure> {
    let mut workload = Distant::new(Door::open(path)?);
    workload.set_patience(patience);
    Ok(unguarded(workload))
}

/// What every member has, whatever its lock is.
struct Member<W> {
    listening: Listening,
    clock: BootClock,
    charge: Charge<W>,
}

impl Member<Guarded> {
    /// What the processes of a workload that is kept warm are found by, if it is.
    fn mark(&self) -> Option<String> {
        self.listening.settings.warm.map(|_| self.charge.workload.mark())
    }

    /// Keeps the workload warm, where that is wanted.
    fn keep_warm(&mut self) {
        let settings = &self.listening.settings;
        let (Some(warm), Duty::Command(command)) = (settings.warm, &settings.duty) else { return };
        self.charge.workload.keep_warm(Standing {
            command: command.clone(),
            member: settings.name.clone(),
            stop_grace: settings.stop_grace,
            notice: warm.notice,
            leaves_with_it: settings.on_exit == OnExit::Exit,
        });
    }

    /// Nothing else holds the others up while a guard hangs: its lateness is what the lease leaves room for.
    fn watch_the_guard(&mut self) {
        let Charge { workload, commands, .. } = &mut self.charge;
        workload.keeper.set_patience(self.listening.settings.timing.lateness());
        let commands = commands.clone();
        workload.keeper.on_replaced(move |guard| commands.set_guard(guard));
    }
}

/// What listens already, before there is a guard.
struct Listening {
    settings: Settings,
    front: Front,
    http: Option<serve::Bound>,
    around: Around,
    sender: mpsc::Sender<Order>,
    orders: mpsc::Receiver<Order>,
}

impl Listening {
    /// An address that is in use is refused before anything is started.
    fn start(settings: Settings, mut front: Front) -> Result<Self, Failure> {
        let http = settings.http.as_ref().map(serve::bind).transpose()?;
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let mut around = Around::default();
        match front.dismissal.take() {
            Some(dismissal) => around.add("who sends it away", leave_when_dismissed(dismissal, sender.clone())),
            None => around.add("signals", signals::listen(sender.clone()).map_err(internal("handle signals"))?),
        }
        Ok(Self { settings, front, http, around, sender, orders })
    }

    /// Begins what the member does while it has a term.
    fn begin(&mut self, deed: Deed, (task, terms): (Task, Terms)) -> Task {
        self.around.add("what the member is active for", deed(terms));
        task
    }
}

impl<W: Workload> Member<W> {
    /// Starts what listens, and what `charge` needs. Nothing has asked the lock yet.
    fn start(
        settings: Settings,
        front: Front,
        charge: impl FnOnce() -> Result<Charge<W>, Failure>,
    ) -> Result<Self, Failure> {
        Self::of(Listening::start(settings, front)?, charge)
    }

    /// Starts what `charge` needs.
    fn of(listening: Listening, charge: impl FnOnce() -> Result<Charge<W>, Failure>) -> Result<Self, Failure> {
        let clock = BootClock::new().map_err(internal("make a timer"))?;
        Ok(Self { listening, clock, charge: charge()? })
    }

    /// The same with another form of its workload.
    fn with<V>(self, form: impl FnOnce(W) -> V) -> Member<V> {
        let Self { listening, clock, charge: Charge { workload, base, commands } } = self;
        Member { listening, clock, charge: Charge { workload: form(workload), base, commands } }
    }

    /// Takes part in the election over the locks of all slots until the machine decides to leave.
    async fn elect<L: Lock + 'static, B: Board + Send + Sync + 'static>(
        self,
        locks: Vec<L>,
        around_the_lock: AroundTheLock<B>,
    ) -> Result<Exit, Failure> {
        let Self { listening, clock, charge } = self;
        let Listening { settings, front, http, mut around, sender, mut orders } = listening;
        let Charge { workload, base, commands } = charge;
        let AroundTheLock { board, name, absence, can_pause, local_locks, lingering } = around_the_lock;
        if settings.fail_fast {
            first_look(&locks[0]).await?;
        }
        let routes = match routes::open_all(&settings, &name, &mut orders).await {
            Ok(Opened::Ready(routes)) => routes,
            other => {
                drop(workload);
                base.inspect(Base::remove);
                return other.map(|_| Exit::StoodBy);
            }
        };
        let argv = match &settings.duty {
            Duty::Command(argv) => argv.clone(),
            // The application's own.
            Duty::Via(_) | Duty::Tell => Vec::new(),
        };
        let command = Command { argv, stop_grace: settings.stop_grace, local_locks };
        let health = health::before_the_first(settings.health.as_ref());
        let fit = fitness(&health, &workload);
        let slots = Slots::new(&machine_settings(&settings, absence, can_pause, &fit), || KernelEntropy);
        let publisher = first_word(&settings, health, slots.count())?;
        let parts = Parts { settings: &settings, commands: &commands, publisher: &publisher, orders: &sender };
        let mut farewells = around.add_company(&parts, Arc::new(board), slots.member().nonce, lingering)?;
        let metrics = Metrics::default();
        if let Some(http) = http {
            let (lock, groups) = (settings.lock.to_string(), front.groups);
            let serving = http.start(publisher.subscribe(), sender.clone(), metrics.clone(), &lock, groups);
            around.add("http", serving.map_err(internal("serve http"))?);
        }
        if let Some(patience) = front.patience {
            around.add("the patience", leave_unless_active(patience, publisher.subscribe(), sender.clone()));
        }
        for (name, reader) in front.readers {
            around.add(name, reader(publisher.subscribe()).map_err(internal("start what reads snapshots"))?);
        }

        let mut elector = Elector::new(slots, locks, workload, clock, command, orders, publisher).counting(metrics);
        elector = elector.routed(front.route.map_or(routes, |route| vec![route]));
        let exit = around.keep(elector.run(), &sender).await;
        if let Some(base) = base {
            base.remove();
        }
        // Each has a limit of its own. An end by a fault changes nothing any more.
        while farewells.join_next().await.is_some() {}
        exit
    }
}

/// What is known of this member before it has looked at the lock.
fn first_word(settings: &Settings, health: Health, slots: usize) -> Result<Publisher, Failure> {
    let mut first = Snapshot::new(&settings.group, &settings.name, settings.timing.lease(), health, unix_us());
    first.is_warm = settings.warm.is_some();
    if first.is_warm {
        notify::reset_files(&settings.listeners, &first).map_err(|why| Failure::new(Code::Permission, why))?;
    }
    Ok(Publisher::new(first.in_slots(slots)))
}

fn machine_settings(settings: &Settings, absence: Absence, can_pause: bool, health: &Health) -> election::Settings {
    election::Settings {
        name: settings.name.clone(),
        timing: settings.timing,
        stop_grace: settings.stop_grace,
        absence,
        can_pause,
        slots: settings.active,
        on_exit: settings.on_exit,
        on_loss: settings.on_loss,
        healthy: health.healthy,
    }
}

async fn first_look(lock: &impl Lock) -> Result<(), Failure> {
    let unavailable = |error: LockError| {
        Failure::new(Code::Unavailable, error.to_string()).hint("without --fail-fast soloist would wait for it")
    };
    within(FIRST_LOOK, lock.read()).await.map(drop).map_err(unavailable)
}

/// Credentials that cannot be used.
pub fn misconfigured(error: LockError) -> Failure {
    Failure::new(Code::Configuration, error.to_string())
        .hint("--kubeconfig PATH and --context NAME, or run it in a pod with a service account")
}

fn unavailable(error: LockError) -> Failure {
    Failure::new(Code::Unavailable, error.to_string())
}

fn internal(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(Code::Internal, format!("failed to {what}: {error}"))
}

fn refused(refusal: file::Refusal) -> Failure {
    let code = match refusal.category() {
        Category::Permission => Code::Permission,
        Category::Configuration => Code::Configuration,
    };
    Failure::new(code, refusal.to_string())
}
