//! A member's own clock: it runs at its own rate and started at its own time.

use std::time::Duration;

use election::Instant;
use soloist::clock::Clock;

/// A clock on top of the runtime's paused one.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    zero: tokio::time::Instant,
    rate: f64,
    offset: Duration,
}

impl VirtualClock {
    /// A clock that shows `offset` now and runs `rate` times as fast as true time.
    pub fn new(rate: f64, offset: Duration) -> Self {
        Self { zero: tokio::time::Instant::now(), rate, offset }
    }

    /// The true instant at which this clock shows `at`.
    pub fn true_instant(&self, at: Instant) -> tokio::time::Instant {
        let shown = Duration::from_nanos(at.as_nanos()).saturating_sub(self.offset);
        // The runtime's timers count milliseconds: a little later, never earlier.
        self.zero + shown.div_f64(self.rate) + Duration::from_millis(1)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        let shown = self.offset + self.zero.elapsed().mul_f64(self.rate);
        Instant::from_nanos(u64::try_from(shown.as_nanos()).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Instant) {
        while self.now() < at {
            tokio::time::sleep_until(self.true_instant(at)).await;
        }
    }
}
