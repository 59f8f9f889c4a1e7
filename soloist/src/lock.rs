//! The lock: a versioned register, nothing else. Backends translate a store into these three calls.

mod addresses;
pub mod board;
pub mod codec;
pub mod consul;
#[cfg(test)]
pub(crate) mod contract;
mod failed;
pub mod file;
pub mod history;
pub mod kubernetes;
pub mod memory;
mod news;
mod tcp;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Record, Seen, Version, Write};

pub(crate) use failed::Failed;
use history::Change;

/// Why a lock could not be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not allowed: credentials or permissions.
    #[error("failed to access the lock: {0}")]
    Denied(String),
    /// The store did not answer, or not in a way that can be read.
    #[error("failed to reach the lock: {0}")]
    Unavailable(String),
}

/// A versioned register with compare-and-set, behind whatever store the user already has.
///
/// Every write is conditional. `Unknown` is an outcome of its own: the write may have landed, now or later, and the
/// next read tells, by activation and attempt. Every backend passes the same contract test.
pub trait Lock {
    /// One authoritative look. May gather [`Evidence`](election::Evidence) about a dead holder on the way.
    fn read(&self) -> impl Future<Output = Result<Seen, LockError>>;

    /// Stores `record` if the lock is still at `expected` ([`Version::ABSENT`]: if it does not exist).
    ///
    /// `why` is one sentence for the history in the record, where the store has room for one: why a member may be active,
    /// or why it is no longer.
    ///
    /// The caller bounds the call in time and treats a timeout as [`Write::Unknown`]; dropping the future must be safe.
    fn write(&self, expected: Version, record: &Record, why: &str) -> impl Future<Output = Write>;

    /// Returns when the lock may have changed since `since`. May wake early, never late for ever. Cancel safe.
    fn changed(&self, since: Version) -> impl Future<Output = Result<(), LockError>>;

    /// The descriptor that guard and workload hold for the activation whose acquiring write has just succeeded, where
    /// the platform has such a thing. The backend gives up its own copy with it.
    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }

    /// The last changes of who was active, oldest first, as the last look or write left them. For display.
    fn history(&self) -> Vec<Change> {
        Vec::new()
    }

    /// Lets go of the platform's own lock, if it is held, and does not queue for it again before `pause` has passed.
    fn step_back(&self, _pause: Duration) {}
}
