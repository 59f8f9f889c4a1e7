//! consul lock: waits for a lock on Consul, then runs one command. Only the mutex; everything else of `consul` is refused.

mod flags;
mod voice;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use election::{Exit, OnExit, OnLoss};

use self::flags::{Options, Stop};
use self::voice::Voice;
use crate::cli::operate::block_on;
use crate::error::{Code, Failure};
use crate::lock::LockError;
use crate::lock::consul::{Cleanup, Keys, Server, clean_up, is_usable};
use crate::log::{self, Format};
use crate::member::{self, Front, Reader};
use crate::route::Route;
use crate::settings::{ConsulPlace, Place, Raw, Settings};

/// The name of the program that this stands in for.
pub const NAME: &str = "consul";

/// Everything but success.
const FAILED: i32 = 1;
/// The command failed, where that is asked for.
const CHILD_FAILED: i32 = 2;
/// What the command gets between SIGTERM and SIGKILL.
const GRACE: &str = "5s";
/// Without `SOLOIST_LEASE`: as long as the session of `consul lock` lives.
const LEASE: &str = "15s";
/// An invocation does not end sooner, unless its arguments make no sense: endless loops around it shall not spin.
const SHORTEST: Duration = Duration::from_secs(1);
/// What tells a command that the lock is held.
const HELD: (&str, &str) = ("CONSUL_LOCK_HELD", "true");

const USAGE: &str = "\
Usage: consul lock [options] prefix child...

  Runs the command while it holds the lock PREFIX/.lock, and stops it with everything that it started before
  anybody else can hold the lock. This is soloist, which stands in for the mutex of consul lock.

  -child-exit-code           leave with 2 where the command failed
  -name=NAME                 the session's name
  -pass-stdin                give the standard input to the command
  -shell=false               run the command itself, without $SHELL -c
  -timeout=DURATION          give up after this long without the lock
  -verbose                   say what happens
  -http-addr, -token, -token-file, -ca-file, -ca-path, -client-cert, -client-key, -tls-server-name,
  -datacenter, -namespace, -partition
                             instead of CONSUL_HTTP_ADDR and so on
  -n, -monitor-retry, -try, -stale
                             as far as they make sense: one holder, and each look is consistent
";

/// Runs as `consul`, with its arguments.
pub fn main(arguments: Vec<OsString>) -> i32 {
    let mut arguments = arguments.into_iter();
    match arguments.next() {
        Some(verb) if verb == OsStr::new("lock") => lock(arguments.collect()),
        verb => {
            let verb = verb.unwrap_or_default();
            let verb = verb.to_string_lossy();
            eprint(&format!(
                "this is soloist, which knows only `consul lock`: for `consul {verb}` use Consul's own program"
            ));
            FAILED
        }
    }
}

/// Runs as `consul lock`, with the arguments after it, and returns the exit code.
pub fn lock(arguments: Vec<OsString>) -> i32 {
    let began = Instant::now();
    if std::env::var(HELD.0).as_deref() != Ok(HELD.1) {
        return eprint(&become_told());
    }
    let options = match flags::parse(arguments) {
        Ok(options) => options,
        Err(Stop::Help) => {
            print!("{USAGE}");
            return 0;
        }
        Err(Stop::Flag(why)) => return eprint(&format!("{why}\n{USAGE}")),
        Err(Stop::Refused(why)) => return eprint(&why),
    };
    let options = as_it_was_meant(options);
    let code = work(options).unwrap_or_else(|why| eprint(&why));
    std::thread::sleep(SHORTEST.saturating_sub(began.elapsed()));
    code
}

/// Says why it failed.
fn eprint(why: &str) -> i32 {
    use std::io::Write as _;
    // Nobody is left to tell if that is closed.
    let _ = writeln!(std::io::stderr().lock(), "{why}");
    FAILED
}

/// The variable that the command finds has to be in this program's environment before anything is started. Returns only
/// if that fails.
fn become_told() -> String {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = match std::env::current_exe() {
        Ok(own) => Command::new(own).arg0(name).args(arguments).env(HELD.0, HELD.1).exec(),
        Err(error) => error,
    };
    format!("failed to start anew with {} in the environment: {error}", HELD.0)
}

/// `consul lock -name NAME /bin/bash -c "..."` was written by somebody who took the name for the lock's: the real program
/// locks `bin/bash` and runs `-c`, which fails each time. An absolute path of a program before an option can mean only
/// one thing.
fn as_it_was_meant(options: Options) -> Options {
    let program = Path::new("/").join(&options.prefix);
    let is_option = options.child.first().is_some_and(|word| word.to_string_lossy().starts_with('-'));
    let is_program = || {
        nix::unistd::access(&program, nix::unistd::AccessFlags::X_OK).is_ok()
            && program.is_file()
            && options.is_absolute
    };
    let Some(name) = options.name.clone().filter(|_| is_option && is_program()) else { return options };
    eprint(&format!(
        "soloist: taking -name {name} as the prefix and {} as the command; consul lock would lock {}",
        program.display(),
        options.prefix
    ));
    let child = [program.into_os_string()].into_iter().chain(options.child).collect();
    Options { prefix: name, child, shell: false, ..options }
}

fn work(options: Options) -> Result<i32, String> {
    let voice = Voice::new(options.verbose, options.pass_stdin);
    let keys = Keys::of(&clean(&options.prefix));
    voice.say(&format!("Setting up lock at path: {}", keys.lock()));
    let place = place(&options, keys.prefix())?;
    first_look(&place, &keys)?;
    let access = place.access.clone();
    voice.say("Attempting lock acquisition");
    let child_failed = if options.child_exit_code { CHILD_FAILED } else { 0 };
    let settings = match settings(&options, place) {
        Ok(settings) => settings,
        Err(failure) if matches!(failure.code, Code::NotFound | Code::NotExecutable) => {
            eprint(&not_started(&options.child, &failure));
            return Ok(child_failed);
        }
        Err(failure) => return Err(format!("Lock setup failed: {failure}")),
    };
    if !options.pass_stdin {
        let nothing = File::open("/dev/null").map_err(|error| format!("failed to open /dev/null: {error}"))?;
        nix::unistd::dup2_stdin(nothing).map_err(|error| format!("failed to close the input: {error}"))?;
    }
    let lines = voice.clone();
    let reader: Reader = Box::new(move |snapshots| Ok(lines.follow(snapshots)));
    let flush = log::start_quietly(Format::Text);
    let route = Some(Rc::new(voice.clone()) as Rc<dyn Route>);
    let front = Front { patience: options.timeout, route, readers: vec![("the lines", reader)], ..Front::default() };
    let exit = member::run(settings, front);
    drop(flush);
    let exit = exit.map_err(|failure| format!("Lock acquisition failed: {failure}"))?;
    if exit == Exit::StoodBy {
        return Err("Shutdown triggered or timeout during lock acquisition".to_owned());
    }
    voice.conclude(exit);
    let code = judge(exit).map_or(0, |why| {
        eprint(&format!("Error running handler: {why}"));
        if voice.made_it_end() { 0 } else { child_failed }
    });
    match block_on(async { clean_up(access, keys).await.map_err(unanswered) }) {
        Ok(Cleanup::Done) => voice.say("Cleanup succeeded"),
        Ok(Cleanup::InUse) => voice.say("Cleanup aborted, lock in use"),
        Err(failure) => return Err(format!("Lock cleanup failed: {}", failure.message)),
    }
    Ok(code)
}

/// As Go joins paths.
fn clean(prefix: &str) -> String {
    prefix.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/")
}

fn place(options: &Options, prefix: &str) -> Result<ConsulPlace, String> {
    let variable = |name: &str| options.variables.get(name).cloned().or_else(|| std::env::var(name).ok());
    let place = ConsulPlace::new(Server::default(), prefix, &variable);
    let mut place = place.map_err(|failure| format!("Error connecting to Consul agent: {failure}"))?;
    let words: Vec<_> = options.child.iter().map(|word| word.to_string_lossy()).collect();
    let session = options.name.clone();
    place.consul_lock_session =
        Some(session.unwrap_or_else(|| format!("Consul lock for '{}' at '{prefix}'", words.join(" "))));
    Ok(place)
}

/// What is wrong from the start is said at the start.
fn first_look(place: &ConsulPlace, keys: &Keys) -> Result<(), String> {
    match block_on(async { is_usable(place.access.clone(), keys.clone()).await.map_err(unanswered) }) {
        Ok(true) => Ok(()),
        Ok(false) => Err("Lock acquisition failed: Existing key does not match lock use".to_owned()),
        Err(failure) => Err(format!("Error querying Consul agent: {}", failure.message)),
    }
}

fn unanswered(error: LockError) -> Failure {
    Failure::new(Code::Unavailable, error.to_string())
}

fn settings(options: &Options, place: ConsulPlace) -> Result<Settings, Failure> {
    let lease = std::env::var("SOLOIST_LEASE").unwrap_or_else(|_| LEASE.to_owned());
    let raw = Raw {
        lease,
        stop_grace: GRACE.to_owned(),
        // As consul lock does; the log warns.
        allow_plaintext: true,
        command: Some(command(options)),
        ..Raw::default()
    };
    Settings::at(Place::Consul(Box::new(place)), None, raw, OnExit::Exit, OnLoss::Exit)
}

/// Through the shell as `consul lock` does it: the words joined by blanks, whatever quotes they had.
fn command(options: &Options) -> Vec<OsString> {
    if !options.shell {
        return options.child.clone();
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    vec![shell, "-c".into(), options.child.join(OsStr::new(" "))]
}

/// As the other program says it.
fn not_started(child: &[OsString], failure: &Failure) -> String {
    let program = child.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let has_path = program.contains('/');
    match failure.code {
        Code::NotFound if has_path => format!("Error starting handler: fork/exec {program}: no such file or directory"),
        Code::NotFound => {
            format!("Error starting handler: exec: {program:?}: executable file not found in $PATH")
        }
        _ => format!("Error starting handler: fork/exec {program}: permission denied"),
    }
}

/// How the command ended, where that was no success.
fn judge(exit: Exit) -> Option<String> {
    match exit {
        Exit::Workload(0) | Exit::StoodBy | Exit::LeaseLost => None,
        Exit::Workload(code @ 129..=192) => Some(super::go::signal(code - 128)),
        Exit::Workload(code) => Some(format!("exit status {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_joined_as_go_joins_paths() {
        for (given, expected) in [("p", "p"), ("p/", "p"), ("a//b", "a/b"), ("./a/./b", "a/b")] {
            assert_eq!(clean(given), expected);
        }
    }

    #[test]
    fn only_the_commands_own_failure_is_one() {
        assert_eq!(judge(Exit::Workload(0)), None);
        assert_eq!(judge(Exit::LeaseLost), None);
        assert_eq!(judge(Exit::Workload(3)).as_deref(), Some("exit status 3"));
        assert_eq!(judge(Exit::Workload(143)).as_deref(), Some("signal: terminated"));
    }
}
