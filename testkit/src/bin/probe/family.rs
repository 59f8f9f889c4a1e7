//! Descendants, and the ways in which real programs get away from their supervisor. A descendant is this program again:
//! a new process that calls setsid or closes descriptors itself needs no `unsafe` between fork and exec.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use testkit::stamp::{self, Identity};
use testkit::wait::wait_until;

use crate::Arguments;

/// One way of getting away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// In a session of its own.
    Setsid,
    /// Its parent is gone.
    DoubleFork,
    /// Has closed every descriptor from 3 on, as Python's `close_fds` and most daemons do.
    CloseFds,
    /// Has none of soloist's variables in its environment.
    ScrubEnv,
    /// Does not listen to SIGTERM.
    IgnoreTerm,
}

impl Trait {
    const ALL: [Trait; 5] = [Trait::Setsid, Trait::DoubleFork, Trait::CloseFds, Trait::ScrubEnv, Trait::IgnoreTerm];
}

impl fmt::Display for Trait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trait::Setsid => "setsid",
            Trait::DoubleFork => "double-fork",
            Trait::CloseFds => "close-fds",
            Trait::ScrubEnv => "scrub-env",
            Trait::IgnoreTerm => "ignore-term",
        })
    }
}

impl FromStr for Trait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.to_string() == text);
        known.ok_or_else(|| format!("unknown mode {text:?}"))
    }
}

fn joined(traits: &[Trait]) -> String {
    let names: Vec<String> = traits.iter().map(ToString::to_string).collect();
    names.join("+")
}

/// This program again, as a descendant called `label`.
pub fn again(arguments: &Arguments, identity: &Identity, label: &str, traits: &[Trait]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("failed to find the probe itself")?);
    command.arg("--dir").arg(&arguments.dir).args(["--pace-us", &arguments.pace_us.to_string()]);
    command.args(["--identity", &identity.to_argument(), "--label", label]);
    if !traits.is_empty() {
        command.args(["--traits", &joined(traits)]);
    }
    if traits.contains(&Trait::ScrubEnv) {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SOLOIST_")) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

fn label_of(traits: &[Trait], more: &[OsString]) -> String {
    match more.first() {
        Some(option) => option.to_string_lossy().trim_start_matches('-').to_owned(),
        None => joined(traits),
    }
}

/// Starts one descendant, and goes on.
pub fn start(arguments: &Arguments, identity: &Identity, traits: &[Trait], more: &[OsString]) -> Result<()> {
    let mut command = again(arguments, identity, &label_of(traits, more), traits)?;
    let mut child = command.args(more).spawn().context("failed to start a descendant")?;
    if traits.contains(&Trait::DoubleFork) {
        // The one in the middle ends at once; reaped, it leaves no trace.
        child.wait().context("failed to wait for the first of a double fork")?;
    }
    Ok(())
}

/// Starts one descendant and returns when it has stamped.
pub fn start_and_see(arguments: &Arguments, identity: &Identity, traits: &[Trait]) -> Result<()> {
    start(arguments, identity, traits, &[])?;
    let page = arguments.dir.join("slots");
    let label = joined(traits);
    wait_until("the first stamp of a descendant", Duration::from_secs(5), || {
        stamp::read_page(&page).iter().any(|slot| slot.identity == *identity && slot.label == label)
    })
}

/// In the one in the middle of a double fork: starts the grandchild, and says that this process is done.
pub fn fork_again(arguments: &Arguments) -> Result<bool> {
    let (Some(identity), true) = (&arguments.identity, arguments.traits.contains(&Trait::DoubleFork)) else {
        return Ok(false);
    };
    let rest: Vec<Trait> = arguments.traits.iter().copied().filter(|one| *one != Trait::DoubleFork).collect();
    again(arguments, identity, &arguments.label, &rest)?.spawn().context("failed to start a grandchild")?;
    Ok(true)
}

/// Does to this process what its traits say. Called before it opens anything of its own.
pub fn get_away(traits: &[Trait]) -> Result<()> {
    if traits.contains(&Trait::IgnoreTerm) {
        ignore_term()?;
    }
    if traits.contains(&Trait::CloseFds) {
        close_fds()?;
    }
    if traits.contains(&Trait::Setsid) {
        nix::unistd::setsid().context("failed to start a session")?;
    }
    Ok(())
}

/// Blocks SIGTERM: to the sender the same as ignoring it, and safe code. Descendants inherit it.
pub fn ignore_term() -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block().context("failed to block SIGTERM")
}

fn close_fds() -> Result<()> {
    let entries = fs::read_dir(Path::new("/proc/self/fd")).context("failed to list the own descriptors")?;
    let open: Vec<RawFd> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor >= 3) {
        // The one that listed the folder is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}
