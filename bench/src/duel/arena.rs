//! Where a duel takes place: a store, and the programs that are compared on it.

use std::ffi::OsString;
use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tempfile::TempDir;
use testkit::relay::Relay;

/// A program that runs a command while it holds a lock.
pub trait Contender: Clone + Display + Serialize + Sync {
    /// Whether it is soloist, by whatever name: it must never be active twice.
    fn is_ours(&self) -> bool;

    /// Whether its command is told a fencing token.
    fn tells_a_token(&self) -> bool;
}

/// One store.
pub trait Arena: Sync {
    /// Who is compared on it.
    type Contender: Contender;

    /// Until a second member has found out who is active.
    const SETTLE: Duration;

    /// A lock that nobody has used, and that anybody may take at once.
    fn free_lock(&self) -> Result<String>;

    /// What is needed to start a member.
    fn seat(&self, contender: &Self::Contender, start: &Start<'_>) -> Result<Seat>;
}

/// The names of two members.
pub const NAMES: [&str; 2] = ["a", "b"];

/// One member that is to be started.
pub struct Start<'a> {
    /// Its place in [`NAMES`].
    pub index: usize,
    /// The lock.
    pub lock: &'a str,
    /// What it runs while it holds the lock.
    pub workload: &'a [String],
    /// Whether it reaches the store by a relay of its own, which can become a black hole.
    pub is_relayed: bool,
}

impl Start<'_> {
    /// What it calls itself.
    pub fn name(&self) -> &'static str {
        NAMES.get(self.index).copied().unwrap_or("?")
    }
}

/// What one member is started with.
pub struct Seat {
    /// Its command line.
    pub words: Vec<OsString>,
    /// What it reaches the store by.
    pub relay: Option<Relay>,
    /// What it reads as long as it lives.
    pub _folder: TempDir,
}
