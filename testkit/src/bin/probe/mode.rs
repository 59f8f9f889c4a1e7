//! What a probe can be told to do besides stamping.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use testkit::stamp::Identity;

use crate::Arguments;
use crate::family::{self, Trait};
use crate::habits;

/// One `--mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One more descendant with these traits.
    Descendant(Vec<Trait>),
    /// SIGTERM does nothing, to the command and to what it starts after this mode.
    IgnoreTerm,
    /// Ends by itself after this time.
    ExitAfter(Duration),
    /// Ends as soon as a descendant in a session of its own lives.
    Daemon,
    /// A descendant that keeps starting children, at most so many at a time.
    ForkStorm(u32),
    /// Holds and touches this much memory.
    AllocateMiB(u32),
    /// Takes more and more memory, up to this much.
    LeakMiB(u32),
    /// This many threads that only burn time.
    Spin(u32),
    /// Floods stdout and stderr.
    WriteLog,
    /// A descendant that writes and syncs a file without end: on a frozen file system it cannot be killed.
    Uninterruptible(PathBuf),
    /// Copies stdin to `DIR/stdin`.
    StdinEcho,
    /// Notes SIGHUP, SIGUSR1, SIGUSR2 and SIGWINCH in `DIR/signals`, a line each.
    NoteSignals,
    /// Tells whoever connects to this port which member it belongs to.
    Answer(u16),
}

impl Mode {
    /// Reads `NAME` or `NAME=VALUE`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let number = || value.parse::<u32>().map_err(|error| format!("{name} needs a number: {error}"));
        match name {
            "ignore-term" => Ok(Mode::IgnoreTerm),
            "exit-after" => Ok(Mode::ExitAfter(Duration::from_millis(number()?.into()))),
            "daemon" => Ok(Mode::Daemon),
            "fork-storm" => Ok(Mode::ForkStorm(number()?)),
            "allocate" => Ok(Mode::AllocateMiB(number()?)),
            "leak" => Ok(Mode::LeakMiB(number()?)),
            "spin" => Ok(Mode::Spin(number()?)),
            "write-log" => Ok(Mode::WriteLog),
            "d-state" => Ok(Mode::Uninterruptible(value.into())),
            "stdin-echo" => Ok(Mode::StdinEcho),
            "note-signals" => Ok(Mode::NoteSignals),
            "answer" => value.parse().map(Mode::Answer).map_err(|error| format!("answer needs a port: {error}")),
            traits => Ok(Mode::Descendant(traits.split('+').map(str::parse).collect::<Result<_, _>>()?)),
        }
    }

    /// When the command ends by itself, if this mode says so.
    pub fn ends_after(&self) -> Option<Duration> {
        match self {
            Mode::ExitAfter(time) => Some(*time),
            Mode::Daemon => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Starts what belongs to this mode.
    pub fn start(&self, arguments: &Arguments, identity: &Identity) -> Result<()> {
        match self {
            Mode::ExitAfter(_) => Ok(()),
            Mode::Descendant(traits) => family::start(arguments, identity, traits, &[]),
            Mode::Daemon => family::start_and_see(arguments, identity, &[Trait::Setsid]),
            Mode::ForkStorm(width) => {
                family::start(arguments, identity, &[], &["--storm".into(), width.to_string().into()])
            }
            Mode::Uninterruptible(file) => family::start(arguments, identity, &[], &["--write".into(), file.into()]),
            Mode::IgnoreTerm => family::ignore_term(),
            Mode::AllocateMiB(size) => {
                habits::allocate(*size);
                Ok(())
            }
            Mode::LeakMiB(size) => {
                habits::leak(*size);
                Ok(())
            }
            Mode::Spin(threads) => {
                habits::spin(*threads);
                Ok(())
            }
            Mode::WriteLog => {
                habits::flood();
                Ok(())
            }
            Mode::StdinEcho => habits::copy_stdin(&arguments.dir.join("stdin")),
            Mode::NoteSignals => habits::note_signals(&arguments.dir.join("signals")),
            Mode::Answer(port) => habits::answer(*port, &identity.member),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!(Mode::parse("fork-storm=4"), Ok(Mode::ForkStorm(4)));
        assert_eq!(Mode::parse("exit-after=20"), Ok(Mode::ExitAfter(Duration::from_millis(20))));
        assert_eq!(Mode::parse("answer=80"), Ok(Mode::Answer(80)));
        assert_eq!(Mode::parse("d-state=/x"), Ok(Mode::Uninterruptible("/x".into())));
        assert_eq!(Mode::parse("setsid+close-fds"), Ok(Mode::Descendant(vec![Trait::Setsid, Trait::CloseFds])));
        assert!(Mode::parse("allocate").is_err());
        assert!(Mode::parse("setsid+fly").is_err());
    }
}
