//! Discrete time: one tick of real time, and what each member's clock makes of it.

use std::time::Duration;

use election::{Instant, Timing, TimingError};

/// The grid of real time. Everything happens on it, and anything that is due is handled before time moves on.
pub const TICK: Duration = Duration::from_secs(2);

/// What observers wait. With [`LATENESS`] and [`PROOF`] of a whole tick each the inequality has no slack, so that the
/// worst case lies just inside it: a mistake of one tick shows.
pub const LEASE: Duration = Duration::from_secs(15);

/// The guard's greatest lateness: one tick, because on the grid it can only act at the next one.
const LATENESS: Duration = TICK;

/// SIGKILL to proof, in ticks.
pub const PROOF_TICKS: u16 = 1;

/// How fast a member's clock runs. `election::Timing` allows for a tenth in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Nine tenths of real time: the member believes its deadline to be further away than it is.
    Slow,
    /// Real time.
    Nominal,
    /// Eleven tenths: the member's patience ends too early.
    Fast,
}

impl Rate {
    const fn tenths(self) -> u64 {
        match self {
            Rate::Slow => 9,
            Rate::Nominal => 10,
            Rate::Fast => 11,
        }
    }
}

/// One member's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    rate: Rate,
    /// What it shows at tick 0. Members differ: an instant means nothing on another host.
    base: u64,
}

const NANOS: u64 = 1_000_000_000;
const TICK_NANOS: u64 = TICK.as_secs() * NANOS;

impl Clock {
    /// The clock of the `index`th member.
    pub fn new(rate: Rate, index: usize) -> Self {
        Self { rate, base: 1_000 * NANOS * (1 + index as u64) }
    }

    /// What it shows at `tick`.
    pub fn at(&self, tick: u16) -> Instant {
        Instant::from_nanos(self.base + u64::from(tick) * TICK_NANOS / 10 * self.rate.tenths())
    }

    /// The last tick at which a guard that is as late as allowed acts on `due`.
    pub fn last_tick_for(&self, due: Instant) -> u16 {
        let local = due.as_nanos().saturating_sub(self.base);
        let real = local / self.rate.tenths() * 10;
        u16::try_from((real + LATENESS.as_secs() * NANOS) / TICK_NANOS).unwrap_or(u16::MAX)
    }
}

/// The durations that every member of the model runs with.
///
/// # Errors
/// The constants above break the inequality.
pub fn timing() -> Result<Timing, TimingError> {
    Timing::new(LEASE, None)?.with_measured(LATENESS, TICK * u32::from(PROOF_TICKS))
}
