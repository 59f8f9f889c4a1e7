//! `--warm`: a workload that runs while its member stands by, and how it hears that it is active.

use nix::sys::signal::Signal;

use crate::error::{Code, Failure};

/// How a workload is kept warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The signal by which it is told that it is active, if there is one.
    pub notice: Option<i32>,
}

/// Validates the flag. `is_told`: the workload hears by other ways than a signal that it is active.
pub(super) fn warm(
    is_warm: bool,
    is_checked: bool,
    signal: Option<Signal>,
    is_told: bool,
) -> Result<Option<Warm>, Failure> {
    let refuse = |what: &str, hint: &str| Err(Failure::new(Code::Configuration, what).hint(hint));
    match (is_warm, signal) {
        (false, None) => Ok(None),
        (false, Some(_)) => refuse(
            "--notify signal:... is given without --warm",
            "only a workload that is kept warm is told by a signal",
        ),
        (true, _) if !is_checked => refuse(
            "--warm is given without a health check",
            "--health-exec LINE or --health-http URL: only a workload that says that it is ready takes over",
        ),
        (true, None) if !is_told => refuse(
            "--warm is given, but the workload could not hear that it is active",
            "--notify signal:USR1 or another listener, or --http ADDR for a workload that asks /active",
        ),
        (true, signal) => Ok(Some(Warm { notice: signal.map(|signal| signal as i32) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USR1: Option<Signal> = Some(Signal::SIGUSR1);

    #[test]
    fn what_is_warm_says_that_it_is_ready_and_is_told() {
        for (is_warm, is_checked, signal, part) in
            [(true, false, USR1, "health check"), (true, true, None, "could not hear"), (false, true, USR1, "--warm")]
        {
            let failure = warm(is_warm, is_checked, signal, false).unwrap_err();
            assert!(failure.code == Code::Configuration && failure.hint.is_some(), "{failure}");
            assert!(failure.message.contains(part), "{failure}");
        }
        assert_eq!(warm(true, true, USR1, false).unwrap(), Some(Warm { notice: Some(Signal::SIGUSR1 as i32) }));
        assert_eq!(warm(true, true, None, true).unwrap(), Some(Warm { notice: None }));
        assert_eq!(warm(false, false, None, true).unwrap(), None);
    }
}
