//! Waits for conditions instead of sleeping for times.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(1);

/// Waits until `condition` holds; says after `limit` what it has waited for in vain.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || condition().then_some(()))
}

/// Waits until `look` finds something, and returns it; says after `limit` what it has waited for in vain.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        sleep(POLL);
    }
}

/// What took so long has been waited for in vain with a shorter limit: both are told in the same words.
pub fn within(what: &str, took: Duration, limit: Duration) -> Result<()> {
    ensure!(took <= limit, "waited {limit:?} in vain for {what}, which took {took:?}");
    Ok(())
}

/// Looks at `condition` again and again for `time`; fails as soon as it does not hold.
pub fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        if !condition() {
            bail!("expected for {time:?} that {what}, but after {:?} it was not so", start.elapsed());
        }
        sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_vain_names_what_it_waited_for() {
        let error = wait_until("the moon", Duration::from_millis(3), || false).unwrap_err();
        assert_eq!(error.to_string(), "waited 3ms in vain for the moon");
    }

    #[test]
    fn what_took_too_long_was_waited_for_in_vain() {
        let limit = Duration::from_secs(2);
        assert!(within("the moon", limit, limit).is_ok());
        let error = within("the moon", Duration::from_millis(2001), limit).unwrap_err();
        assert_eq!(error.to_string(), "waited 2s in vain for the moon, which took 2.001s");
    }

    #[test]
    fn a_wait_returns_what_it_found() {
        let mut looks = 0;
        let found = wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn what_must_hold_must_hold_all_the_time() {
        let mut looks = 0;
        let outcome = holds_for("it holds", Duration::from_secs(5), || {
            looks += 1;
            looks < 3
        });
        assert!(outcome.is_err());
        assert!(holds_for("it holds", Duration::from_millis(2), || true).is_ok());
    }
}
