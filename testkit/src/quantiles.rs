//! What a set of times comes to.

use std::fmt;

use serde::Serialize;

/// Of a set of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of them are no longer.
    pub p50_us: u64,
    /// 99 of 100 are no longer.
    pub p99_us: u64,
    /// None is longer.
    pub max_us: u64,
}

impl Quantiles {
    /// Of times in nanoseconds; zeros if there are none.
    pub fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
            times.get(rank).map_or(0, |nanos| nanos / 1000)
        };
        Self { p50_us: at(50), p99_us: at(99), max_us: at(100) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for microseconds in [self.p50_us, self.p99_us, self.max_us] {
            write!(f, "{:>7}.{}", microseconds / 1000, microseconds % 1000 / 100)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let hundred: Vec<u64> = (1..=100).map(|number| number * 1000).collect();
        assert_eq!(Quantiles::of(hundred), Quantiles { p50_us: 50, p99_us: 99, max_us: 100 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
