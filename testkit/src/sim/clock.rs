//! True time, which only the simulator knows, and the clocks of the members, which run off from it.

use std::time::Duration;

use election::Instant;

/// True time in nanoseconds since the start of the history.
pub type Nanos = u64;

/// One millisecond of true time.
pub const MS: Nanos = 1_000_000;

/// A million parts: the rate of a true clock.
const MILLION: u128 = 1_000_000;

/// The clock of one member.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: u64,
    rate_ppm: u32,
}

impl Clock {
    /// A clock that showed `offset` nanoseconds at the start and runs at `rate_ppm` parts of a million.
    pub fn new(offset: u64, rate_ppm: u32) -> Self {
        Self { offset, rate_ppm }
    }

    /// What this clock shows at `at`.
    pub fn read(&self, at: Nanos) -> Instant {
        let run = u128::from(at) * u128::from(self.rate_ppm) / MILLION;
        Instant::from_nanos(self.offset.saturating_add(clamp(run)))
    }

    /// The first moment at which this clock shows at least `local`.
    pub fn when(&self, local: Instant) -> Nanos {
        let run = u128::from(local.as_nanos().saturating_sub(self.offset));
        clamp((run * MILLION).div_ceil(u128::from(self.rate_ppm)))
    }
}

/// `length` in nanoseconds.
pub fn nanos(length: Duration) -> Nanos {
    clamp(length.as_nanos())
}

fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_moment_that_shows_it() {
        for rate in [900_000, 999_999, 1_000_000, 1_100_000] {
            let clock = Clock::new(5_000_000_000, rate);
            for at in [0, 1, 999, 1_000_003, 77_777_777_777] {
                let moment = clock.when(clock.read(at));
                assert!(moment <= at, "{rate} {at}");
                assert!(clock.read(moment) >= clock.read(at), "{rate} {at}");
            }
        }
    }
}
