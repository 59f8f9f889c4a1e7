//! A workload in another container: the sidecar is the elector there, and this program, as the first process of the
//! application's container, is the guard.
//!
//! ```text
//!      sidecar's container                                   application's container
//!
//!    elector -- Distant <== socket on a shared volume ==> wrapper (PID 1) -- guard -- workload
//!                   |                                                          |
//!                   +------ page with the deadline, in memory, read-only ------+
//! ```
//!
//! The sidecar passes the page with the deadline, the wrapper a descriptor of its own process. The kernel ends a PID
//! namespace with its first process and says so only when nobody is left in it: that descriptor is the proof where the
//! wrapper has no more words. A connection that ends proves nothing.

mod distant;
mod door;
mod wrapper;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::protocol::{Order, Report};

pub use distant::Distant;
pub use door::Door;
pub use wrapper::{Settings, run};

/// Of this conversation. Both sides are the same program, but not always of the same age.
const VERSION: u32 = 1;

/// From the wrapper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    /// The first one, while nothing of the workload is there; the descriptor of the wrapper comes with it.
    Hello(Hello),
    /// What its guard said.
    Report(Report),
    /// The guard is gone; the wrapper ends the tree.
    GuardLost(String),
    /// Resident memory of the workload's tree, in bytes.
    Size(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    version: u32,
    /// Deadlines mean the same only in the same time namespace.
    time_namespace: Option<u64>,
}

/// From the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// The page comes with it. A guard that does not answer for so long is to be killed.
    Welcome { patience: Duration },
    /// Why not.
    Refused(String),
    /// For the guard, as far as it is about an activation; the command is the wrapper's.
    Order(Order),
}

/// The time namespace of this process; nothing where the kernel has none.
fn time_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/time").ok().map(|namespace| namespace.ino())
}
