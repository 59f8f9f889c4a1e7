//! How soon what has failed is tried again, and how fast pods may be deleted: a group whose pods all crash is not hammered.

use std::time::Duration;

use election::Instant;

/// So many pods are deleted one after the other before there are pauses.
const DELETIONS_FREE: u32 = 2;
/// The first pause between deletions; each further one is twice as long.
const DELETION_PAUSE: Duration = Duration::from_secs(10);
const DELETION_PAUSE_MAX: Duration = Duration::from_secs(300);
/// After so long without one, deletions count from the beginning.
const DELETIONS_FORGOTTEN: Duration = Duration::from_secs(600);
/// After a write that failed; each further failure in a row doubles it.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What has failed is tried again after a pause, which grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    failures: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// It has worked.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// The first `free` failures in a row cost nothing.
    pub fn fail(&mut self, free: u32, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let is_free = self.failures <= free;
        self.not_before = (!is_free).then(|| now + doubled(PAUSE, self.failures - 1, PAUSE_MAX));
    }

    /// Nothing is tried before `at`.
    pub fn hold(&mut self, at: Instant) {
        self.not_before = Some(at);
    }

    /// Nothing is tried before this.
    pub fn pause(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }
}

/// How often pods were deleted lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletions {
    count: u32,
    last: Option<Instant>,
}

impl Deletions {
    /// One more.
    pub fn note(&mut self, now: Instant) {
        self.count = if self.is_forgotten(now) { 1 } else { self.count.saturating_add(1) };
        self.last = Some(now);
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.forgotten_at().is_none_or(|at| now >= at)
    }

    /// When they count no more; nothing where there were none.
    pub fn forgotten_at(&self) -> Option<Instant> {
        self.last.map(|last| last + DELETIONS_FORGOTTEN)
    }

    /// How many may be at once now.
    pub fn room(&self, now: Instant) -> usize {
        let count = if self.is_forgotten(now) { 0 } else { self.count };
        DELETIONS_FREE.saturating_sub(count).max(1) as usize
    }

    /// When the next one may be.
    pub fn next(&self) -> Instant {
        let Some(last) = self.last.filter(|_| self.count >= DELETIONS_FREE) else { return Instant::default() };
        last + doubled(DELETION_PAUSE, self.count - DELETIONS_FREE, DELETION_PAUSE_MAX)
    }
}

fn doubled(pause: Duration, times: u32, max: Duration) -> Duration {
    pause.saturating_mul(1 << times.min(16)).min(max)
}
