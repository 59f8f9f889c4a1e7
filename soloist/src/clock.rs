//! Reads the clocks of this host. The only place that does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use election::Instant;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME now: runs on while the host is suspended, and nobody can set it.
pub fn now() -> Instant {
    let spec = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(spec.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Wall-clock milliseconds since 1970. For display and history, never for a decision.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
