//! What holds for every lease: checked against the inequality in whole nanoseconds, without the code that derives it.

use std::time::Duration;

use election::{EPSILON, LEASE_MAX, Timing, kill_to_proof};
use proptest::prelude::*;

/// The smallest attempt limit that is not refused.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);

/// `D/(1-rho) + S + P + epsilon <= L/(1+rho)` with rho = 1/10, times 99, so that nothing is rounded.
fn inequality_holds(timing: &Timing) -> bool {
    let fixed = timing.lateness() + timing.proof() + EPSILON;
    110 * timing.kill_after().as_nanos() + 99 * fixed.as_nanos() <= 90 * timing.lease().as_nanos()
}

/// What an accepted set promises.
fn assert_sound(timing: &Timing) {
    assert!(inequality_holds(timing), "{timing:?}");
    assert!(timing.slack().is_some(), "{timing:?}");
    assert!(3 * timing.kill_after() <= 2 * timing.lease(), "{timing:?}");
    assert!(timing.grace() < timing.kill_after(), "{timing:?}");
    assert!(timing.grace() <= Duration::from_secs(2) && timing.courtesy() <= Duration::from_millis(500), "{timing:?}");
    assert!(timing.attempt_limit() >= ATTEMPT_MIN, "{timing:?}");
    // The period until a renewal is due, and three attempts with a pause after each, fit before the loss grace.
    let needed = timing.period() + 3 * (timing.attempt_limit() + timing.backoff());
    assert!(needed <= timing.kill_after() - timing.grace(), "{timing:?}");
}

/// Leases of all sizes; half of them near the border between refused and accepted.
fn lease() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..4_000_000_u64).prop_map(Duration::from_micros),
        (0..90_000_000_000_000_u64).prop_map(Duration::from_nanos),
    ]
}

fn memory() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), (0..1_u64 << 36).prop_map(Some), any::<u64>().prop_map(Some)]
}

fn measured() -> impl Strategy<Value = Duration> {
    (0..20_000_000_000_u64).prop_map(Duration::from_nanos)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_set_breaks_the_inequality(lease in lease(), memory in memory()) {
        match Timing::new(lease, memory) {
            Ok(timing) => {
                prop_assert_eq!(timing.lease(), lease);
                prop_assert!(lease <= LEASE_MAX);
                assert_sound(&timing);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_change_of_an_accepted_set_breaks_the_inequality(
        first in lease(), second in lease(), memory in memory(), lateness in measured(), proof in measured(),
    ) {
        let Ok(timing) = Timing::new(first, memory) else { return Ok(()) };
        if let Ok(other) = timing.for_lease(second) {
            prop_assert_eq!(other.lease(), second);
            prop_assert!(other.lateness() >= timing.lateness() && other.proof() == timing.proof());
            assert_sound(&other);
        }
        if let Ok(measured) = timing.with_measured(lateness, proof) {
            prop_assert!(measured.lateness() >= lateness && measured.proof() >= proof);
            prop_assert!(measured.kill_after() <= timing.kill_after(), "what was measured never lengthens");
            assert_sound(&measured);
        }
    }

    #[test]
    fn every_refusal_names_the_smallest_lease_that_holds(lease in lease(), memory in memory()) {
        let Err(error) = Timing::new(lease, memory) else { return Ok(()) };
        match error.smallest() {
            Some(smallest) => {
                prop_assert!(Timing::new(smallest, memory).is_ok(), "{error}");
                prop_assert!(Timing::new(smallest - Duration::from_millis(1), memory).is_err(), "{error}");
                prop_assert!(lease < smallest || lease > LEASE_MAX, "refused although it is long enough: {error}");
            }
            None => prop_assert!(Timing::new(LEASE_MAX, memory).is_err(), "{error}"),
        }
    }

    #[test]
    fn a_refused_measurement_names_the_smallest_lease_that_holds_with_it(
        lease in lease(), lateness in measured(), proof in measured(),
    ) {
        let Ok(timing) = Timing::new(lease, None) else { return Ok(()) };
        let Err(error) = timing.with_measured(lateness, proof) else { return Ok(()) };
        if let Some(smallest) = error.smallest() {
            let longer = Timing::new(smallest, None).and_then(|longer| longer.with_measured(lateness, proof));
            prop_assert!(longer.is_ok(), "{error}");
            prop_assert!(lease < smallest, "{error}");
        }
    }

    #[test]
    fn a_longer_lease_shortens_nothing(one in lease(), other in lease(), memory in memory()) {
        let (Ok(short), Ok(long)) = (Timing::new(one.min(other), memory), Timing::new(one.max(other), memory)) else {
            return Ok(());
        };
        let parts: [fn(&Timing) -> Duration; 7] = [
            Timing::kill_after, Timing::grace, Timing::lateness, Timing::period, Timing::backoff,
            Timing::attempt_limit, Timing::courtesy,
        ];
        // Fractions of nanoseconds are cut off at several steps.
        let cut = Duration::from_nanos(20);
        for (index, part) in parts.into_iter().enumerate() {
            prop_assert!(part(&short) <= part(&long) + cut, "part {index}: {short:?} {long:?}");
        }
    }

    #[test]
    fn more_memory_takes_longer_to_kill_and_lengthens_nothing_else(
        lease in lease(), one in any::<u64>(), shift in 0..40_u32, other in any::<u64>(),
    ) {
        let (one, other) = (one >> shift, other >> shift);
        let (small, large) = (one.min(other), one.max(other));
        prop_assert!(kill_to_proof(small) <= kill_to_proof(large));
        match (Timing::new(lease, Some(small)), Timing::new(lease, Some(large))) {
            (Ok(small), Ok(large)) => prop_assert!(small.kill_after() >= large.kill_after()),
            (Err(_), Ok(_)) => prop_assert!(false, "refused only where less is to be killed"),
            _ => {}
        }
    }
}
