//! Groups side by side, whose active member is cut off from the store again and again: bytes are held, connections stay.
//! Needs the testbed, such as `testbed/run control-plane -- campaign --lock kubernetes`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use election::Timing;
use testkit::history::History;
use testkit::process::Process;
use testkit::relayed::{BEYOND, Placed, View};
use testkit::sim::random::Random;
use testkit::stamp;
use testkit::wait::{holds_for, wait_for, wait_until};

/// Longer than anything takes that works, a default lease included.
const LIMIT: Duration = Duration::from_secs(60);

/// One black hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Whether the old one had given up and released before: on a busy machine it may.
    pub is_released: bool,
    /// When it began, in nanoseconds of CLOCK_BOOTTIME.
    pub at: u64,
    /// When the last renewal of the old active member was stored.
    pub last_renewal: u64,
    /// When that one was sent: nobody can have seen it before.
    pub last_sent: u64,
    /// Since when at the latest the other one watched it: who starts later sees an older renewal later.
    pub watched: u64,
    /// The last stamp of the old activation.
    pub old_last: u64,
    /// The first stamp of the next one.
    pub new_first: u64,
}

impl Hole {
    /// Whether the next one came later than a lease and a bit after the last sight of the old one.
    pub fn is_late(&self, lease: Duration) -> bool {
        self.since(self.last_sight()) > lease + BEYOND
    }

    /// Whether it came before that lease was over.
    pub fn is_early(&self, lease: Duration) -> bool {
        !self.is_released && self.since(self.last_sent) < lease
    }

    /// When the other one saw the last renewal, at the latest.
    pub fn last_sight(&self) -> u64 {
        self.last_renewal.max(self.watched)
    }

    fn since(&self, instant: u64) -> Duration {
        Duration::from_nanos(self.new_first.saturating_sub(instant))
    }
}

/// What came of one group.
#[derive(Debug)]
pub struct Outcome {
    /// Its black holes.
    pub holes: Vec<Hole>,
    /// Everything that it stamped.
    pub history: History,
    /// Processes that were still there when the next one was active.
    pub left_behind: Vec<String>,
}

/// Cuts the active members of `groups` groups off until `rounds` were, all in all.
pub fn run<P: Placed>(rounds: usize, groups: usize, timing: &Timing, seed: u64) -> Result<Vec<Outcome>> {
    let left = AtomicUsize::new(rounds);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok();
    let run_one = |number: usize| -> Result<Outcome> {
        let pair = P::with_lease(timing.lease()).with_context(|| format!("failed to start group {number}"))?;
        let mut site = Site { pair: pair.view(), watched: stamp::now(), last: 0, left_behind: Vec::new() };
        let (mut holes, mut random) = (Vec::new(), Random::stream(seed, number as u64));
        while let Some(left) = take() {
            // Anywhere between two renewals.
            let phase_us = random.below(u64::try_from(timing.period().as_micros() * 2).unwrap_or(0));
            let hole = site
                .hole(Duration::from_micros(phase_us))
                .with_context(|| format!("failed in group {number}\n{}", site.pair.relayed.group.logs()))?;
            eprintln!("group {number}: black hole, {left} to go");
            if hole.is_late(timing.lease()) {
                eprintln!("group {number}: the next one came late: {hole:?}\n{}", site.pair.relayed.group.logs());
            }
            holes.push(hole);
        }
        Ok(Outcome { holes, history: site.pair.relayed.group.history(), left_behind: site.left_behind })
    };
    std::thread::scope(|scope| {
        let run_one = &run_one;
        let threads: Vec<_> = (0..groups).map(|number| scope.spawn(move || run_one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a group's thread panicked"))).collect()
    })
}

/// One group at work.
struct Site<'a> {
    pair: View<'a>,
    watched: u64,
    last: u64,
    left_behind: Vec<String>,
}

impl Site<'_> {
    /// After `phase` of quiet, cuts the active one off, waits for the next, and lets the old one come back.
    fn hole(&mut self, phase: Duration) -> Result<Hole> {
        let View { relayed, members, .. } = self.pair;
        let group = &relayed.group;
        let active = group.wait_active_after(self.last, LIMIT)?;
        let stays = || group.history().spans.last().is_some_and(|span| span.token == active.token);
        holds_for("nobody else becomes active", phase, stays)?;
        let relay = relayed.relay(&active.member)?;
        relay.black_hole();
        let at = stamp::now();
        let next = group.wait_active_after(active.token, LIMIT)?;
        let old = members.iter().find(|member| member.name() == active.member).context("no such member")?;
        for pid in old.workload_pids(&active) {
            let what = Process::read(pid).map(|process| process.command.join(" ")).unwrap_or_default();
            self.left_behind.push(format!("{pid} of token {}: {what}", active.token));
        }
        let (last_renewal, last_sent) = (relayed.last_sight(&active.member)?, relayed.last_sent(&active.member)?);
        let watched = self.watched;
        relay.heal();
        wait_until("the old one to stand by", LIMIT, || old.is_standby())?;
        self.watched = stamp::now();
        let ended = || group.history().spans.into_iter().find(|span| span.token == active.token);
        let old_last = wait_for("the old activation", LIMIT, ended)?.last;
        let why = wait_for("the reason of the next one", LIMIT, || group.reason_of(&next))?;
        group.archive_before(active.token)?;
        self.last = active.token;
        let is_released = why.contains(" released (");
        Ok(Hole { is_released, at, last_renewal, last_sent, watched, old_last, new_first: next.first })
    }
}
