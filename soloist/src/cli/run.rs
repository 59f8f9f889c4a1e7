//! `soloist run`: one member and its workload.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, ValueEnum};
use election::{Absence, Exit, Machine, Nonce, OnExit, OnLoss};
use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::clock::BootClock;
use crate::elector::{Command, Elector, KernelEntropy, Order};
use crate::error::{Code, Failure};
use crate::lock::Lock;
use crate::lock::file::{self, Category, FileLock, Keepers};
use crate::log;
use crate::settings::{Raw, Settings, warn_about_unknown_variables};
use crate::workload::cgroup::Base;
use crate::workload::keeper::Keeper;
use crate::workload::process::{ProcessId, boot_id};

/// How long the first look at the lock may take with `--fail-fast`.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Orders that wait for the elector. It takes them at once; a burst of signals is all that can queue.
const ORDERS_MAX: usize = 16;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The lock: a path, or file:///path/app.lock
    #[arg(long, env = "SOLOIST_LOCK", value_name = "URL")]
    lock: Option<String>,
    /// The group's name; without --lock the lock is GROUP.lock in the state folder
    #[arg(long, env = "SOLOIST_GROUP")]
    group: Option<String>,
    /// This member's name [default: POD_NAME, else the hostname and the PID]
    #[arg(long, env = "SOLOIST_NAME")]
    name: Option<String>,
    /// How long the others wait for an active member that is silent
    #[arg(long, env = "SOLOIST_LEASE", allow_hyphen_values = true, default_value = "15s", value_name = "DURATION")]
    lease: String,
    /// What the workload gets between SIGTERM and SIGKILL on a planned stop
    #[arg(
        long,
        env = "SOLOIST_STOP_GRACE",
        allow_hyphen_values = true,
        default_value = "10s",
        value_name = "DURATION"
    )]
    stop_grace: String,
    /// When the workload ends by itself: release and leave with its code, start it anew here, or stand by
    #[arg(long, env = "SOLOIST_ON_EXIT", default_value = "exit", value_name = "WHAT")]
    on_exit: OnExitArgument,
    /// When the lease is lost: contend again, or leave with 75
    #[arg(long, env = "SOLOIST_ON_LOSS", default_value = "standby", value_name = "WHAT")]
    on_loss: OnLossArgument,
    /// Take a lock file on a remote or layered file system, where every host must see the same flock
    #[arg(long, env = "SOLOIST_ALLOW_REMOTE_FS")]
    allow_remote_fs: bool,
    /// Leave with 69 when the lock cannot be read at the start
    #[arg(long, env = "SOLOIST_FAIL_FAST")]
    fail_fast: bool,
    /// How log lines look
    #[arg(long, env = "SOLOIST_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: log::Format,
    /// The workload and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  soloist run --lock ./app.lock -- ./server --port 8080
  soloist run --group app --lease 5s --on-exit restart -- ./server
  soloist run --lock ./x.lock -- sh -c 'echo active $SOLOIST_FENCING_TOKEN; exec sleep 1000'

The workload finds SOLOIST_FENCING_TOKEN, SOLOIST_ROLE, SOLOIST_MEMBER and
SOLOIST_ACTIVATION in its environment.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnExitArgument {
    Exit,
    Restart,
    Standby,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnLossArgument {
    Standby,
    Exit,
}

impl Arguments {
    fn settings(self) -> Result<Settings, Failure> {
        let on_exit = match self.on_exit {
            OnExitArgument::Exit => OnExit::Exit,
            OnExitArgument::Restart => OnExit::Restart,
            OnExitArgument::Standby => OnExit::Standby,
        };
        let on_loss = match self.on_loss {
            OnLossArgument::Standby => OnLoss::Standby,
            OnLossArgument::Exit => OnLoss::Exit,
        };
        let raw = Raw {
            lock: self.lock,
            group: self.group,
            name: self.name,
            lease: self.lease,
            stop_grace: self.stop_grace,
            allow_remote_fs: self.allow_remote_fs,
            fail_fast: self.fail_fast,
            command: self.command,
        };
        Settings::new(raw, on_exit, on_loss)
    }
}

/// Runs one member to its end and returns its exit code.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    let format = arguments.log_format;
    let settings = arguments.settings()?;
    file::check(&settings.lock, settings.allow_remote_fs).map_err(refused)?;
    let _flush = log::start(format);
    warn_about_unknown_variables(&super::Cli::command());
    if settings.lock_is_default {
        tracing::info!("the lock is {}", settings.lock.display());
    }
    // One thread: small, and the guard's parent-death signal is bound to the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to start the runtime: {error}")))?;
    let exit = runtime.block_on(take_part(settings));
    // Threads that wait for a disk or a lock must not keep the process.
    runtime.shutdown_background();
    Ok(match exit? {
        Exit::StoodBy => 0,
        Exit::Workload(code) => code,
        Exit::LeaseLost => Code::Lost as i32,
    })
}

async fn take_part(settings: Settings) -> Result<Exit, Failure> {
    let internal = |what: &'static str| {
        move |error: std::io::Error| Failure::new(Code::Internal, format!("failed to {what}: {error}"))
    };
    let orders = listen().map_err(internal("handle signals"))?;
    let clock = BootClock::new().map_err(internal("make a timer"))?;
    let base = contain();
    let mut keeper = Keeper::spawn(base.clone()).map_err(internal("start the guard"))?;
    let keepers = Keepers {
        elector: ProcessId::own().map_err(internal("read the own start time"))?,
        guard: keeper.guard(),
        boot_id: boot_id().map_err(internal("read the boot id"))?,
        cgroup: base.clone(),
    };
    let lock_settings =
        file::Settings { path: settings.lock.clone(), allow_remote_fs: settings.allow_remote_fs, keepers };
    let lock = FileLock::open(lock_settings).map_err(refused)?;
    lock.set_announce(Arc::new(keeper.announcer()));
    keeper.on_replaced(lock.guard_setter());
    if settings.fail_fast {
        first_look(&lock).await?;
    }
    let command = Command {
        argv: settings.command.clone(),
        stop_grace: settings.stop_grace,
        local_lock: Some(lock.path().to_owned()),
    };
    let machine = Machine::new(machine_settings(&settings), KernelEntropy);
    let exit = Elector::new(machine, lock, keeper, clock, command, orders).run().await;
    if let Some(base) = base {
        base.remove();
    }
    Ok(exit)
}

fn machine_settings(settings: &Settings) -> election::Settings {
    election::Settings {
        name: settings.name.clone(),
        timing: settings.timing,
        stop_grace: settings.stop_grace,
        // Whoever holds the flock and finds no record is the first ever.
        absence: Absence::Free,
        on_exit: settings.on_exit,
        on_loss: settings.on_loss,
    }
}

/// A cgroup of its own where one is writable; elsewhere the subreapers do what they can.
fn contain() -> Option<Base> {
    let mut entropy = KernelEntropy;
    let high = election::Entropy::bits(&mut entropy);
    let low = election::Entropy::bits(&mut entropy);
    match Base::create(Nonce(u128::from(high) << 64 | u128::from(low))) {
        Ok(base) => Some(base),
        Err(error) => {
            tracing::debug!("no cgroup of our own: {error}");
            None
        }
    }
}

async fn first_look(lock: &impl Lock) -> Result<(), Failure> {
    let result = match tokio::time::timeout(FIRST_LOOK, lock.read()).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {FIRST_LOOK:?}"),
    };
    Err(Failure::new(Code::Unavailable, result).hint("without --fail-fast soloist would wait for it"))
}

fn refused(refusal: file::Refusal) -> Failure {
    let code = match refusal.category() {
        Category::Permission => Code::Permission,
        Category::Configuration => Code::Configuration,
    };
    Failure::new(code, refusal.to_string())
}

/// Turns signals into orders, on a task that ends with the elector.
fn listen() -> std::io::Result<mpsc::Receiver<Order>> {
    let (sender, receiver) = mpsc::channel(ORDERS_MAX);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut window = signal(SignalKind::window_change())?;
    let ignored = ignore_terminal_stops()?;
    tokio::spawn(async move {
        let _ignored = ignored;
        loop {
            let order = tokio::select! {
                _ = terminate.recv() => Order::Leave,
                _ = interrupt.recv() => Order::Leave,
                _ = hangup.recv() => Order::Hangup,
                _ = user1.recv() => Order::Signal(libc::SIGUSR1),
                _ = user2.recv() => Order::Signal(libc::SIGUSR2),
                _ = window.recv() => Order::Signal(libc::SIGWINCH),
            };
            if sender.send(order).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// A stopped elector would cost the role, so the terminal cannot stop it: a handler that does nothing.
fn ignore_terminal_stops() -> std::io::Result<[Signal; 3]> {
    let handle = |number| signal(SignalKind::from_raw(number));
    Ok([handle(libc::SIGTSTP)?, handle(libc::SIGTTIN)?, handle(libc::SIGTTOU)?])
}
