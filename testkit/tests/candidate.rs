//! The example of the library, as two processes over one lock file.

use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::service::{LEASE, Service};

#[test]
fn a_service_that_ends_in_order_hands_over_without_a_wait() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Service::hand_over(folder.path().join("app.lock"))
}

#[test]
fn a_service_that_is_killed_costs_a_lease_and_one_that_is_stopped_is_ended() -> Result<()> {
    for signal in [Signal::KILL, Signal::STOP] {
        let folder = tempfile::tempdir()?;
        let (mut first, token, second) = Service::pair(folder.path().join("app.lock"))?;
        let began = Instant::now();
        first.send(signal)?;
        ensure!(second.token()? > token);
        // The last renewal may have been half a second before the signal.
        ensure!(began.elapsed() > LEASE / 2, "{signal:?}: {:?}", began.elapsed());
        ensure!(!first.process.wait()?.success(), "{signal:?}: it goes on");
    }
    Ok(())
}
