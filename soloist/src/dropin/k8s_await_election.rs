//! k8s-await-election: waits for a Lease, then runs one command. Settings come from the environment.

mod environment;
mod status;
mod voice;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;

use election::Exit;
use tokio::sync::watch;

use self::environment::Wanted;
use self::voice::Voice;
use super::go;
use crate::error::Failure;
use crate::log::logrus::Line;
use crate::log::{self, Format};
use crate::member::{self, Front, Reader};
use crate::route::Route;
use crate::route::endpoints::Endpoints;
use crate::snapshot::Snapshot;

/// The name of the program that this stands in for.
pub const NAME: &str = "k8s-await-election";

/// Everything but success.
const FAILED: i32 = 1;

/// Why it ends with [`FAILED`]: the message that people know, and the error beside it.
#[derive(Debug, PartialEq, Eq)]
struct Fatal {
    message: &'static str,
    error: String,
}

impl Fatal {
    /// The environment is wrong.
    fn runner(error: impl Into<String>) -> Self {
        Self { message: "failed to create runner", error: error.into() }
    }

    /// It began, and ended badly.
    fn run(error: impl Into<String>) -> Self {
        Self { message: "failed to run", error: error.into() }
    }
}

impl From<Failure> for Fatal {
    /// Hints speak of flags, and here are none.
    fn from(failure: Failure) -> Self {
        Self::run(failure.message)
    }
}

/// Runs `command`, with or without an election, and returns the exit code.
pub fn main(command: Vec<OsString>) -> i32 {
    Line::new("info", "running k8s-await-election").with("version", env!("CARGO_PKG_VERSION")).print();
    if command.is_empty() {
        Line::new("fatal", "Need at least one argument to run").print();
        return FAILED;
    }
    match work(command) {
        Ok(()) => 0,
        Err(Fatal { message, error }) => {
            Line::new("fatal", message).with("err", &error).print();
            FAILED
        }
    }
}

fn work(command: Vec<OsString>) -> Result<(), Fatal> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    match environment::read(&variable)? {
        Some(wanted) => contend(wanted, command),
        None => Err(replace_self(&command)),
    }
}

/// Without an election this process becomes the command. Returns only if that fails.
fn replace_self(command: &[OsString]) -> Fatal {
    let [program, arguments @ ..] = command else { return Fatal::run("no command") };
    let error = Command::new(program).args(arguments).exec();
    Fatal::run(format!("exec: {program:?}: {error}"))
}

fn contend(wanted: Wanted, command: Vec<OsString>) -> Result<(), Fatal> {
    let voice = Voice::new(&command);
    let endpoints = wanted.endpoints.clone();
    let access = environment::access(&|name| std::env::var_os(name)).map_err(Fatal::run)?;
    let settings = wanted.settings(access.clone(), command)?;
    let (lock, name) = (settings.lock.to_string(), &wanted.name);
    Line::new("info", "waiting to be elected")
        .with("name", name)
        .with("lock", &lock)
        .with("id", &settings.name)
        .print();
    let mut readers: Vec<(&'static str, Reader)> =
        vec![("log lines", Box::new(|snapshots| Ok(voice.follow(snapshots))))];
    match &wanted.status {
        Some(address) => readers.push(("the status endpoint", status(address)?)),
        None => Line::new("info", "no status endpoint specified, will not be created").print(),
    }
    // The command shall find nothing to read.
    let nothing = File::open("/dev/null").map_err(|error| Fatal::run(format!("failed to open /dev/null: {error}")))?;
    nix::unistd::dup2_stdin(nothing).map_err(|error| Fatal::run(format!("failed to close the input: {error}")))?;
    let route = endpoints.map(|target| Rc::new(Endpoints::of(access, target)) as Rc<dyn Route>);
    let flush = log::start(Format::Logrus);
    let exit = member::run(settings, Front { route, readers, ..Front::default() });
    drop(flush);
    judge(exit?)
}

/// Takes the address at once, so that one that is in use is found out before anything is started.
fn status(address: &str) -> Result<Reader, Fatal> {
    let bound = go::bind(address).map_err(Fatal::run)?;
    Ok(Box::new(move |snapshots: watch::Receiver<Snapshot>| {
        let serving = bound.start_probe(snapshots, status::judge)?;
        Ok(Box::pin(serving))
    }))
}

/// Success is only that of the command, and to be sent away while standing by.
fn judge(exit: Exit) -> Result<(), Fatal> {
    match exit {
        Exit::StoodBy | Exit::Workload(0) => Ok(()),
        Exit::Workload(code @ 129..=192) => Err(Fatal::run(go::signal(code - 128))),
        Exit::Workload(code) => Err(Fatal::run(format!("exit status {code}"))),
        Exit::LeaseLost => {
            Line::new("info", "lost leader status").print();
            Err(Fatal::run("the lease was lost, and the command was stopped"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_commands_success_is_success() {
        assert_eq!(judge(Exit::Workload(0)), Ok(()));
        assert_eq!(judge(Exit::StoodBy), Ok(()));
        for (exit, error) in [
            (Exit::Workload(3), "exit status 3"),
            (Exit::Workload(137), "signal: killed"),
            (Exit::Workload(128 + 31), "signal: signal 31"),
            (Exit::LeaseLost, "the lease was lost, and the command was stopped"),
        ] {
            assert_eq!(judge(exit), Err(Fatal::run(error)));
        }
    }
}
