//! Reads the clocks of this host. The only place that does.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use election::Instant;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// CLOCK_BOOTTIME now: runs on while the host is suspended, and nobody can set it.
pub fn now() -> Instant {
    let spec = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(spec.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Wall-clock microseconds since 1970. For display and history, never for a decision.
/// See docs/safety.md R8.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Returns at `at`; never where there is none. Cancel safe.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now())).await,
        None => std::future::pending().await,
    }
}

/// Where the elector's time comes from: this host, or a simulation.
pub trait Clock {
    /// The present instant.
    fn now(&self) -> Instant;
    /// Returns at `at`, or when it is over. Cancel safe.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()>;
}

/// CLOCK_BOOTTIME with a timer of its own: the runtime's timers stand still while the host is suspended.
pub struct BootClock {
    timer: AsyncFd<OwnedFd>,
}

impl BootClock {
    /// Must be called inside the runtime.
    ///
    /// # Errors
    /// The kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd cannot lie about its descriptor")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    async fn wait(&self, at: Instant) -> io::Result<()> {
        // Zero would disarm the timer.
        let at = Duration::from_nanos(at.as_nanos().max(1));
        let it_value = Timespec::try_from(at).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        let mut ready = self.timer.readable().await?;
        ready.clear_ready();
        Ok(())
    }
}

impl Clock for BootClock {
    fn now(&self) -> Instant {
        now()
    }

    async fn sleep_until(&self, at: Instant) {
        while now() < at {
            if self.wait(at).await.is_err() {
                tokio::time::sleep(at.since(now())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn nobody_can_set_the_clock_of_an_observer() {
        let boottime = || {
            let spec = clock_gettime(ClockId::Boottime);
            Instant::from_nanos(
                u64::try_from(i128::from(spec.tv_sec) * 1_000_000_000 + i128::from(spec.tv_nsec)).unwrap(),
            )
        };
        let clock = BootClock::new().unwrap();
        let (before, seen, after) = (boottime(), clock.now(), boottime());
        assert!(before <= seen && seen <= after, "the elector's clock is not CLOCK_BOOTTIME: {seen:?} at {before:?}");
        let timer = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", clock.timer.as_raw_fd())).unwrap();
        assert!(timer.contains("clockid: 7\n"), "the elector's timer is not on CLOCK_BOOTTIME: {timer}");
    }
}
