//! What a run waits for between two measurements.

use std::time::Duration;

use testkit::process::Process;

/// Longer than anything takes that works.
pub const LIMIT: Duration = Duration::from_secs(30);

/// From being seen to wait until there is nothing left that a waiter does.
pub const SETTLE: Duration = Duration::from_millis(50);

/// From the end of one to the beginning of the next, as one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// From the last stamp of the old one.
    pub from_last_ns: u64,
    /// From the signal.
    pub from_event_ns: u64,
}

/// Whether a process sleeps, which one does that has nothing but a lock to wait for.
pub fn is_asleep(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Process::read).is_some_and(|process| process.state == 'S')
}
