//! What findings of a check come to: pure, with the time handed in.

use std::time::Duration;

use election::Instant;

use crate::settings::health::Rules;
use crate::snapshot::Health;

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well.
    Pass,
    /// It is not, and why.
    Fail(String),
    /// Nobody can say, and why: counts as if it had not been asked.
    Unknown(String),
}

/// Where the member stands without any finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not healthy before the first success: the check can be asked at any time.
    Unproven,
    /// Healthy until failures say otherwise: there is nothing that could be asked.
    Trusted,
}

/// Judges one member.
#[derive(Clone, Debug)]
pub struct Judge {
    rules: Rules,
    origin: Origin,
    verdict: Verdict,
    /// Successes in a row.
    passes: u32,
    /// Failures in a row, those of the start-up time left out.
    failures: u32,
    /// Failures do not count before this instant.
    starting_until: Option<Instant>,
    hold: HoldDown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Unproven { why: Option<String> },
    Healthy,
    Unhealthy { why: String },
}

impl Judge {
    /// Before the first finding.
    pub fn new(rules: Rules, origin: Origin) -> Self {
        let verdict = initial(origin);
        Self { rules, origin, verdict, passes: 0, failures: 0, starting_until: None, hold: HoldDown::default() }
    }

    /// The workload was started: failures do not count until the first success, or until its time to start is over.
    pub fn workload_started(&mut self, now: Instant) {
        (self.passes, self.failures) = (0, 0);
        self.starting_until = Some(now + self.rules.start);
    }

    /// Another one is to be judged. What the member is held down for stays.
    pub fn begin_anew(&mut self) {
        (self.passes, self.failures, self.starting_until) = (0, 0, None);
        self.verdict = initial(self.origin);
    }

    /// The member is no longer active. `gave_up`: because it was unhealthy and another member is not.
    pub fn workload_left(&mut self, gave_up: bool, now: Instant) {
        (self.passes, self.failures) = (0, 0);
        self.starting_until = None;
        if self.origin == Origin::Trusted {
            self.verdict = Verdict::Healthy;
        }
        if gave_up {
            self.hold.begin(now);
        }
    }

    /// Takes in what a check found.
    pub fn observe(&mut self, finding: Finding, now: Instant) {
        match finding {
            Finding::Pass => self.pass(),
            Finding::Fail(why) => self.fail(why, now),
            Finding::Unknown(_) => {}
        }
    }

    fn pass(&mut self) {
        self.starting_until = None;
        self.failures = 0;
        self.passes = self.passes.saturating_add(1);
        match self.verdict {
            Verdict::Unproven { .. } => self.verdict = Verdict::Healthy,
            Verdict::Unhealthy { .. } if self.passes >= self.rules.rise => self.verdict = Verdict::Healthy,
            Verdict::Unhealthy { .. } | Verdict::Healthy => {}
        }
    }

    fn fail(&mut self, why: String, now: Instant) {
        self.passes = 0;
        if self.starting_until.is_some_and(|until| now < until) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        match &mut self.verdict {
            Verdict::Unproven { why: first } => drop(first.get_or_insert(why)),
            Verdict::Healthy if self.failures >= self.rules.fall => {
                let times = self.failures;
                let why = if times == 1 { why } else { format!("failed {times} times, the last: {why}") };
                self.verdict = Verdict::Unhealthy { why };
            }
            Verdict::Healthy | Verdict::Unhealthy { .. } => {}
        }
    }

    /// Takes note of the time: a member that was active and healthy for long enough is as good as new.
    pub fn tick(&mut self, active: bool, now: Instant) {
        self.hold.tick(active && self.verdict == Verdict::Healthy, now);
    }

    /// Whether the member may be active. `alone`: nobody is active, and no other member is fit to be; then it is not
    /// held down, because a member that may fail again is better than none.
    pub fn health(&self, alone: bool, now: Instant) -> Health {
        let (healthy, why) = match &self.verdict {
            Verdict::Unproven { why: None } => (false, "no check has succeeded yet".to_owned()),
            Verdict::Unproven { why: Some(why) } => (false, format!("no check has succeeded yet, the first: {why}")),
            Verdict::Unhealthy { why } => (false, why.clone()),
            Verdict::Healthy => match self.hold.length_at(now).filter(|_| !alone) {
                Some(length) => (false, format!("held down for {length:?}, because it gave up as unhealthy")),
                None => (true, "the check succeeds".to_owned()),
            },
        };
        Health { healthy, why }
    }

    /// When [`Judge::health`] changes without a finding.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.hold.until.filter(|until| *until > now)
    }
}

fn initial(origin: Origin) -> Verdict {
    match origin {
        Origin::Unproven => Verdict::Unproven { why: None },
        Origin::Trusted => Verdict::Healthy,
    }
}

/// The first hold-down; each further one is twice as long, up to the longest.
const HOLD_FIRST: Duration = Duration::from_secs(60);
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// Active and healthy for this long, a member has made up for all that was.
const REDEEMED_AFTER: Duration = Duration::from_secs(600);

/// Keeps a member that gave up from taking over again at once: two members that fail in turn would flap.
#[derive(Clone, Debug, Default)]
struct HoldDown {
    until: Option<Instant>,
    length: Duration,
    fine_since: Option<Instant>,
}

impl HoldDown {
    fn begin(&mut self, now: Instant) {
        self.length = if self.length.is_zero() { HOLD_FIRST } else { (self.length * 2).min(HOLD_MAX) };
        self.until = Some(now + self.length);
        self.fine_since = None;
    }

    fn tick(&mut self, fine: bool, now: Instant) {
        if !fine {
            self.fine_since = None;
            return;
        }
        let since = *self.fine_since.get_or_insert(now);
        if now.since(since) >= REDEEMED_AFTER {
            *self = Self { fine_since: Some(since), ..Self::default() };
        }
    }

    /// How long the one that lasts at `now` is in all.
    fn length_at(&self, now: Instant) -> Option<Duration> {
        self.until.filter(|until| now < *until).map(|_| self.length)
    }
}

#[cfg(test)]
mod tests;
