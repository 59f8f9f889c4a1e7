//! The command line: one definition gives parser, help, completions and man pages.

mod access;
mod controller;
mod demo;
mod doctor;
mod explain;
mod failover;
mod history;
mod install;
pub mod kubectl;
mod list;
mod membership;
pub(crate) mod operate;
mod pause;
mod run;
mod sidecar;
mod status;
mod switchover;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::dropin::{consul_lock, icr, k8s_await_election, leader_elector};
use crate::error::{Code, Failure};

/// Keeps exactly one member of a group active and the others ready.
#[derive(Debug, Parser)]
#[command(name = "soloist", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  soloist demo
      see it work, on this host, within a minute
  soloist run --lock ./app.lock -- ./server --port 8080
      in two terminals: one serves, the other stands by
  soloist run --group app --lease 5s -- ./server
      the lock is a file in the state folder
  soloist status --lock ./app.lock
      who is active, since when, and who else is there
  soloist switchover --lock ./app.lock
      the active one stops, another one takes over

Exit codes:
  the workload's own; 126 not executable, 127 not found, 128+n died by signal n
  0 a standby ended by SIGTERM; 1 the answer is no (nobody active, refused,
  timed out); 64 usage, 65 data, 69 lock unavailable, 70 internal, 75 lease
  lost, 77 permission, 78 configuration";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take part in a group: run COMMAND while this member is the active one
    Run(Box<run::Arguments>),
    /// Take part in a group without running anything: tell an application beside this whether it is the active one
    Sidecar(Box<sidecar::Arguments>),
    /// Make one of several pods the active one by its label, without anything in the pods themselves
    Controller(Box<controller::Arguments>),
    /// Show who is active, since when, and who else is there
    Status(status::Arguments),
    /// Show all groups that can be seen: in a folder, in namespaces, or below a prefix of Consul
    List(list::Arguments),
    /// Show who was active when, why, and the gaps between
    History(history::Arguments),
    /// Make another member the active one
    Switchover(switchover::Arguments),
    /// Keep the active member through an outage of the lock's store
    Pause(pause::PauseArguments),
    /// End a pause
    Resume(pause::ResumeArguments),
    /// Replace a holder that is gone without a proof, on your word
    Failover(failover::Arguments),
    /// Look for what could keep a group from its promise: permissions, clocks, latency, containment, pods
    Doctor(doctor::Arguments),
    /// Show what follows from a lease: how long nobody is active after each kind of failure, and why
    Explain(explain::Arguments),
    /// Put this binary into a folder, for a container whose image has none
    Install(install::Arguments),
    /// See it work: three members, and everything that can happen to the active one
    Demo(demo::Arguments),
    #[command(hide = true, about = "The workload of the demo")]
    DemoServer(demo::ServerArguments),
    /// Stand in for k8s-await-election, whose variables K8S_AWAIT_ELECTION_* say all the rest
    #[command(disable_help_flag = true)]
    K8sAwaitElection {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Stand in for consul lock: run a command while a lock on Consul is held
    #[command(disable_help_flag = true)]
    ConsulLock {
        /// The arguments of consul lock
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Stand in for leader-elector: take part in an election and tell over HTTP who leads
    #[command(disable_help_flag = true)]
    LeaderElector {
        /// The flags of leader-elector
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<OsString>,
    },
    /// Stand in for the controller icr, which labels the pods of app=hapod as active and standby
    #[command(disable_help_flag = true)]
    Icr {
        /// The flags of icr
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
        flags: Vec<OsString>,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    Man {
        /// Where to; without it the page of soloist itself goes to standard output
        #[arg(long, value_name = "FOLDER")]
        out: Option<std::path::PathBuf>,
    },
}

/// Parses, runs, and says how it went.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = match parse(arguments) {
        Ok(cli) => finish(run(cli.verb)),
        Err(error) => refuse_usage(&error, "soloist"),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn run(verb: Verb) -> Result<i32, Failure> {
    match verb {
        Verb::Run(arguments) => run::main(*arguments),
        Verb::Sidecar(arguments) => sidecar::main(*arguments),
        Verb::Controller(arguments) => controller::main(*arguments),
        Verb::Status(arguments) => status::main(&arguments),
        Verb::List(arguments) => list::main(arguments),
        Verb::History(arguments) => history::main(&arguments),
        Verb::Switchover(arguments) => switchover::main(&arguments),
        Verb::Pause(arguments) => pause::pause(&arguments),
        Verb::Resume(arguments) => pause::resume(&arguments),
        Verb::Failover(arguments) => failover::main(&arguments),
        Verb::Doctor(arguments) => doctor::main(&arguments),
        Verb::Explain(arguments) => explain::main(arguments),
        Verb::Install(arguments) => install::main(&arguments),
        Verb::Demo(arguments) => demo::main(&arguments),
        Verb::DemoServer(arguments) => demo::serve(&arguments),
        Verb::K8sAwaitElection { command } => Ok(k8s_await_election::main(command)),
        Verb::ConsulLock { arguments } => Ok(consul_lock::lock(arguments)),
        Verb::LeaderElector { flags } => Ok(leader_elector::main(flags)),
        Verb::Icr { flags } => Ok(icr::main(flags)),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "soloist", &mut std::io::stdout());
            Ok(0)
        }
        Verb::Man { out } => man(out.as_deref()).map(|()| 0),
    }
}

/// The exit code, with a line for people where something went wrong.
fn finish(result: Result<i32, Failure>) -> i32 {
    result.unwrap_or_else(|failure| {
        complain(&failure);
        failure.code as i32
    })
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let command = Cli::command().mut_subcommand("run", run::alone_with_via);
    let matches = command.try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// Help and version are no errors; everything else is one line, a hint, and 64 instead of clap's own 2.
fn refuse_usage(error: &clap::Error, called: &str) -> i32 {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nobody is left to tell if the output is closed.
        let _ = error.print();
        return if error.use_stderr() { Code::Usage as i32 } else { 0 };
    }
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let what = paragraphs.next().unwrap_or_default();
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned));
    let message = what.strip_prefix("error: ").unwrap_or(&what);
    let tip = tip.map(|tip| tip.split(" tip: ").next().unwrap_or_default().to_owned());
    let verb = if called == "soloist" { "run" } else { "status" };
    let hint = tip.unwrap_or_else(|| format!("{called} --help, {called} {verb} --help"));
    complain(&Failure::new(Code::Usage, message).hint(hint));
    Code::Usage as i32
}

fn complain(failure: &Failure) {
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "soloist: {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "  hint: {hint}");
    }
}

fn man(out: Option<&std::path::Path>) -> Result<(), Failure> {
    let result = match out {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder),
        None => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()),
    };
    if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        // The reader has seen enough.
        return Ok(());
    }
    result.map_err(|error| {
        let place = out.map_or("standard output".to_owned(), |folder| folder.display().to_string());
        Failure::new(Code::Configuration, format!("failed to write man pages to {place}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_exit_code_that_is_used() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["64", "65", "69", "70", "75", "77", "78", "126", "127"] {
            assert!(help.contains(code), "{code}");
        }
    }
}
