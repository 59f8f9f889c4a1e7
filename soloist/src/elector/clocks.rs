//! Compares the clocks of this host, for people: what keeps time and what is set from outside should agree.
//!
//! A pause of the machine that its own clock does not show is what no lease survives (docs/safety.md A1). It shows
//! afterwards, when the wall clock is set right; so does somebody who sets it.

use std::time::Duration;

use election::Instant;

/// As much as A1 allows clocks to differ.
const RATE_DIVISOR: u32 = 10;

/// Less than this is no matter.
const LEAST: Duration = Duration::from_millis(50);

/// Both clocks, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Clocks(Option<(Instant, u64)>);

impl Clocks {
    /// How far the wall clock moved from the steady one since the last call, where that is suspicious.
    pub(super) fn disagree(&mut self, now: Instant, unix_us: u64) -> Option<Duration> {
        let (before, unix_before_us) = self.0.replace((now, unix_us))?;
        let (steady, wall) = (now.since(before), i128::from(unix_us) - i128::from(unix_before_us));
        let steady_us = i128::try_from(steady.as_micros()).unwrap_or(i128::MAX);
        let apart = Duration::from_micros(u64::try_from((wall - steady_us).unsigned_abs()).unwrap_or(u64::MAX));
        (apart > steady / RATE_DIVISOR + LEAST).then_some(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_is_suspicious_once() {
        let mut clocks = Clocks::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut look = |steady_ms: u64, wall_ms: u64| clocks.disagree(at(steady_ms), wall_ms * 1_000);
        assert_eq!(look(1_000, 500_000), None, "the first look");
        assert_eq!(look(3_000, 502_000), None);
        assert_eq!(look(5_000, 504_249), None, "slewed by less than A1 allows");
        assert_eq!(look(7_000, 516_249), Some(Duration::from_secs(10)), "it stood still for 10 s");
        assert_eq!(look(9_000, 518_249), None);
        assert_eq!(look(11_000, 0), Some(Duration::from_millis(520_249)), "set back");
        assert_eq!(look(11_001, 49), None, "less than anybody would notice");
    }
}
