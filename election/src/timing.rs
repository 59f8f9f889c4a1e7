//! Every duration of the protocol, derived from the lease by one inequality.
//!
//! `D/(1-rho) + S + P + epsilon <= L/(1+rho)`: a holder whose last confirmed request was sent at t is proven dead at
//! t + D/(1-rho) + S + P at the latest, and no observer's patience L, on a clock that runs fast by rho, ends before.
//! A term for the round trip is missing on purpose: the holder counts from before the send, the observer from its
//! first sight, and a sight cannot precede the send.

use std::fmt;
use std::time::Duration;

/// Clock rates of two members differ by at most this part in each direction: 1/10.
/// Linux lets NTP change the clock's rate by up to a tenth.
const RHO_DIVISOR: u32 = 10;
/// The same as a number, to be shown.
pub const RHO: f64 = 1.0 / RHO_DIVISOR as f64;

/// Slack for what has no term of its own.
pub const EPSILON: Duration = Duration::from_millis(50);

/// The greatest lateness of the guard that is assumed before one was measured.
const LATENESS_MIN: Duration = Duration::from_millis(100);

/// SIGKILL to proof for an empty process, and for each GiB of memory.
const PROOF_BASE: Duration = Duration::from_millis(5);
const PROOF_PER_GIB: Duration = Duration::from_millis(80);

/// Assumed where no memory limit is known.
const MEMORY_ASSUMED: u64 = 2 << 30;

/// A single attempt on the store below this limit would fail on healthy stores.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);

/// The loss grace is at most this.
const GRACE_MAX: Duration = Duration::from_secs(2);

/// Longer leases are taken for mistakes.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The greatest courtesy that others give to a named successor.
const COURTESY_MAX: Duration = Duration::from_millis(500);

/// How many attempts must fit between a due renewal and the loss grace.
const ATTEMPTS: u32 = 3;

/// The durations of one member. Cannot be built unless the inequality holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    lease: Duration,
    lateness: Duration,
    proof: Duration,
    kill_after: Duration,
    grace: Duration,
    period: Duration,
    attempt_limit: Duration,
}

/// A lease that does not hold, with every term and the smallest one that would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingError {
    lease: Duration,
    terms: Box<Timing>,
    smallest: Option<Duration>,
}

impl TimingError {
    /// The smallest lease that holds with the same lateness and proof terms; nothing if none up to a day does.
    pub fn smallest(&self) -> Option<Duration> {
        self.smallest
    }
}

impl std::error::Error for TimingError {}

impl fmt::Display for TimingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.terms;
        let lease = Plain(self.lease);
        if self.lease > LEASE_MAX {
            return write!(f, "lease {lease} is too long: at most {} is allowed", Plain(LEASE_MAX));
        }
        write!(
            f,
            "lease {lease} does not hold: D/(1-rho) + S + P + epsilon <= L/(1+rho) with L {lease}, D {}, S {}, P {}, \
             epsilon {}, rho 0.1, grace G {} and {ATTEMPTS} attempts of {} each (at least {} is needed)",
            Plain(t.kill_after),
            Plain(t.lateness),
            Plain(t.proof),
            Plain(EPSILON),
            Plain(t.grace),
            Plain(t.attempt_limit),
            Plain(ATTEMPT_MIN),
        )?;
        match self.smallest {
            Some(smallest) => write!(f, "; the smallest lease that holds is {}", Plain(smallest)),
            None => write!(f, "; no lease up to {} holds", Plain(LEASE_MAX)),
        }
    }
}

/// A duration as a person would type it, to the millisecond.
#[derive(Clone, Copy, Debug)]
pub struct Plain(pub Duration);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1_000) { write!(f, "{}s", ms / 1_000) } else { write!(f, "{ms}ms") }
    }
}

/// SIGKILL to proof for a workload of `memory_bytes`: the kernel frees its pages first.
pub fn kill_to_proof(memory_bytes: u64) -> Duration {
    let mib = u32::try_from(memory_bytes >> 20).unwrap_or(u32::MAX);
    PROOF_BASE + PROOF_PER_GIB * (mib / 1024) + PROOF_PER_GIB * (mib % 1024) / 1024
}

impl Timing {
    /// Derives everything from the lease, for a workload of at most `memory_limit_bytes` (2 GiB where unknown).
    ///
    /// # Errors
    /// A lease of zero, over a day, or one for which the inequality or the attempt limit does not hold.
    pub fn new(lease: Duration, memory_limit_bytes: Option<u64>) -> Result<Self, TimingError> {
        let proof = kill_to_proof(memory_limit_bytes.unwrap_or(MEMORY_ASSUMED));
        Self::with_terms(lease, Duration::ZERO, proof)
    }

    /// The same member with another lease: a pause, or the lease of a group that it follows.
    ///
    /// # Errors
    /// As [`Timing::new`].
    pub fn for_lease(&self, lease: Duration) -> Result<Self, TimingError> {
        Self::with_terms(lease, self.lateness, self.proof)
    }

    /// The same lease with at least this lateness and this time from SIGKILL to proof, as measured.
    ///
    /// # Errors
    /// The lease does not hold with them.
    pub fn with_measured(&self, lateness: Duration, proof: Duration) -> Result<Self, TimingError> {
        Self::with_terms(self.lease, self.lateness.max(lateness), self.proof.max(proof))
    }

    fn assumed_lateness(lease: Duration) -> Duration {
        (lease / 30).max(LATENESS_MIN)
    }

    // docs/safety.md R9: the only way to a `Timing`.
    // The assumed lateness grows with the lease; what is known beyond it stays.
    fn with_terms(lease: Duration, lateness: Duration, proof: Duration) -> Result<Self, TimingError> {
        let derive = |lease: Duration| Self::derive(lease, lateness.max(Self::assumed_lateness(lease)), proof);
        let terms = derive(lease.min(LEASE_MAX));
        if lease <= LEASE_MAX && terms.holds() {
            return Ok(terms);
        }
        let fits = |ms: u64| derive(Duration::from_millis(ms)).holds();
        let longest_ms = LEASE_MAX.as_secs() * 1000;
        let (mut low, mut high) = (0, longest_ms);
        while low < high {
            let middle = (low + high) / 2;
            if fits(middle) { high = middle } else { low = middle + 1 }
        }
        let smallest = fits(low).then(|| Duration::from_millis(low));
        Err(TimingError { lease, terms: Box::new(terms), smallest })
    }

    // docs/safety.md R18: three attempts fit before the grace.
    fn derive(lease: Duration, lateness: Duration, proof: Duration) -> Self {
        let patience = lease / (RHO_DIVISOR + 1) * RHO_DIVISOR;
        let rest = patience.saturating_sub(lateness + proof + EPSILON);
        let kill_after = (lease * 2 / 3).min(rest / RHO_DIVISOR * (RHO_DIVISOR - 1));
        let grace = (lease * 2 / 15).min(GRACE_MAX);
        let until_grace = kill_after.saturating_sub(grace);
        let period = until_grace / (ATTEMPTS + 1);
        let attempt_limit = ((until_grace - period) / ATTEMPTS).saturating_sub(period / 10);
        Self { lease, lateness, proof, kill_after, grace, period, attempt_limit }
    }

    fn holds(&self) -> bool {
        self.attempt_limit >= ATTEMPT_MIN && self.slack().is_some()
    }

    /// What is left of the inequality: L/(1+rho) less everything on its left side. Nothing when it is broken.
    pub fn slack(&self) -> Option<Duration> {
        self.earliest_start().checked_sub(self.gone_by())
    }

    /// D/(1-rho): D on a clock that is as slow as is allowed.
    pub fn slow_kill_after(&self) -> Duration {
        self.kill_after * RHO_DIVISOR / (RHO_DIVISOR - 1)
    }

    /// The left side: so long after the send of its last confirmed request can something of a workload run.
    pub fn gone_by(&self) -> Duration {
        self.slow_kill_after() + self.lateness + self.proof + EPSILON
    }

    /// The right side, L/(1+rho): not before this after the same send does anybody else start.
    pub fn earliest_start(&self) -> Duration {
        self.lease * RHO_DIVISOR / (RHO_DIVISOR + 1)
    }

    /// How long an outage of the store may be that stops nobody, wherever it falls: one more whole attempt fits behind it.
    pub fn outage_endured(&self) -> Duration {
        (self.attempt_limit + self.backoff()) * (ATTEMPTS - 1)
    }

    /// L: how long observers wait.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// D: SIGKILL comes this long after the send of the last confirmed request.
    pub fn kill_after(&self) -> Duration {
        self.kill_after
    }

    /// G: SIGTERM comes this long before SIGKILL when the lease is being lost.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// S: the greatest lateness of the guard.
    pub fn lateness(&self) -> Duration {
        self.lateness
    }

    /// P: SIGKILL to proof.
    pub fn proof(&self) -> Duration {
        self.proof
    }

    /// p: time from one send to the next while all is well.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// b: pause after an attempt that did not succeed.
    pub fn backoff(&self) -> Duration {
        self.period / 10
    }

    /// tau: after this long without an answer an attempt's outcome counts as unknown.
    pub fn attempt_limit(&self) -> Duration {
        self.attempt_limit
    }

    /// How long the others wait for a named successor, from their sight of the release.
    pub fn courtesy(&self) -> Duration {
        (self.lease / 10).min(COURTESY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    fn close(got: Duration, want: f64) -> bool {
        got.abs_diff(seconds(want)) < Duration::from_millis(6)
    }

    #[test]
    fn default_lease_gives_the_published_row() {
        let t = Timing::new(seconds(15.0), None).unwrap();
        assert_eq!(t.kill_after(), seconds(10.0));
        assert_eq!(t.grace(), seconds(2.0));
        assert_eq!(t.period(), seconds(2.0));
        assert!(close(t.attempt_limit(), 1.8));
        assert_eq!(t.courtesy(), Duration::from_millis(500));
    }

    #[test]
    fn four_seconds_gives_the_published_row() {
        let t = Timing::new(seconds(4.0), None).unwrap();
        assert!(close(t.kill_after(), 2.667), "{t:?}");
        assert!(close(t.period(), 0.533), "{t:?}");
        assert!(close(t.attempt_limit(), 0.48), "{t:?}");
    }

    #[test]
    fn sixty_seconds_gives_the_published_row() {
        let t = Timing::new(seconds(60.0), None).unwrap();
        assert_eq!(t.kill_after(), seconds(40.0));
        assert_eq!(t.period(), seconds(9.5));
        assert!(close(t.attempt_limit(), 8.55), "{t:?}");
    }

    #[test]
    fn every_accepted_lease_keeps_the_inequality_and_three_attempts_fit() {
        for ms in (0..120_000).step_by(37) {
            let Ok(t) = Timing::new(Duration::from_millis(ms), None) else { continue };
            assert!(t.slack().is_some(), "{t:?}");
            assert!(t.period() + (t.attempt_limit() + t.backoff()) * 3 <= t.kill_after() - t.grace(), "{t:?}");
        }
    }

    #[test]
    fn refusal_names_the_smallest_lease_that_holds() {
        for (ms, memory) in [(0, None), (1, None), (1000, None), (1700, Some(8 << 30)), (2000, Some(64 << 30))] {
            let error = Timing::new(Duration::from_millis(ms), memory).unwrap_err();
            let smallest = error.smallest().unwrap();
            assert!(Timing::new(smallest, memory).is_ok(), "{error}");
            assert!(Timing::new(smallest - Duration::from_millis(1), memory).is_err(), "{error}");
            assert!(error.to_string().contains(&Plain(smallest).to_string()), "{error}");
        }
    }

    #[test]
    fn more_than_a_day_is_refused() {
        let error = Timing::new(LEASE_MAX + Duration::from_millis(1), None).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert!(Timing::new(LEASE_MAX, None).is_ok());
        assert!(Timing::new(Duration::MAX, None).is_err());
    }

    #[test]
    fn measured_lateness_shrinks_the_kill_point_or_is_refused() {
        let t = Timing::new(seconds(15.0), None).unwrap();
        let late = t.with_measured(seconds(3.0), Duration::ZERO).unwrap();
        assert!(late.kill_after() < t.kill_after());
        assert_eq!(t.with_measured(seconds(0.1), Duration::ZERO).unwrap(), t, "less than assumed changes nothing");
        assert!(t.with_measured(seconds(12.0), Duration::ZERO).is_err());
    }

    #[test]
    fn both_sides_are_told_one_by_one() {
        let t = Timing::new(seconds(15.0), None).unwrap();
        assert!(close(t.slow_kill_after(), 11.111) && close(t.gone_by(), 11.826), "{t:?}");
        assert!(close(t.earliest_start(), 13.636) && close(t.slack().unwrap(), 1.810), "{t:?}");
        // Begins when a renewal is due, and the attempt that is under way at its end may take all of its time.
        let last = t.period() + t.outage_endured() + t.attempt_limit() + t.backoff();
        assert!(last <= t.kill_after() - t.grace() && close(t.outage_endured(), 4.0), "{t:?}");
    }

    #[test]
    fn proof_grows_with_memory() {
        assert_eq!(kill_to_proof(0), Duration::from_millis(5));
        assert_eq!(kill_to_proof(2 << 30), Duration::from_millis(165));
        assert_eq!(kill_to_proof(512 << 20), Duration::from_millis(45));
        assert!(kill_to_proof(u64::MAX) > seconds(1000.0));
    }
}
