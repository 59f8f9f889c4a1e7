//! What one history is made from: members, clocks, faults. All of it follows from one seed, and all of it can be
//! written on one line, so that a case that failed once is kept as it was.

use std::time::Duration;

use election::Timing;
use serde::{Deserialize, Serialize};

use super::fault::Kind;
use super::random::Random;

/// Leases of groups. Short ones are most common: a history is as long as some of them.
const LEASES_MS: [u32; 8] = [4_000, 4_000, 4_000, 3_000, 3_000, 15_000, 15_000, 60_000];

/// Parts of a million by which the slowest and the fastest clock run.
const SLOWEST: u32 = 900_000;
const FASTEST: u32 = 1_100_000;

/// One history to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    /// Everything that is drawn on the way comes from it.
    pub seed: u64,
    /// Whether the lock is there at first, free for everybody.
    pub free: bool,
    /// Whether the guard writes the release itself, as on a file lock.
    pub local_release: bool,
    /// How many members may be active at a time, as most of them were told.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: usize,
    /// Who was told that it is one more, if anybody was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_more: Option<usize>,
    /// The members.
    pub members: Vec<Spec>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
}

/// One member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its lease.
    pub lease_ms: u32,
    /// The rate of its clock, in parts of a million.
    pub rate_ppm: u32,
    /// When its process starts.
    pub start_ms: u32,
    /// How long its workload gets on a planned stop.
    pub stop_grace_ms: u32,
    /// What it does after its workload's own end: 0 exit, 1 restart, 2 stand by.
    pub on_exit: u8,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When.
    pub at_ms: u32,
    /// For how long, where that means something.
    pub length_ms: u32,
    /// To whom.
    pub target: Target,
    /// How strong, in thousandths of what the kind allows.
    pub amount: u32,
}

/// Whom a fault hits, decided when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The member whose workload runs, or anybody where there is none.
    Holder,
    /// A member whose workload does not run.
    Standby,
    /// The member of this index, modulo their number.
    Member(u32),
}

/// The durations that the size of a fault is cut to, in milliseconds of a true clock.
struct Sizes {
    lease: u64,
    kill_after: u64,
    grace: u64,
    period: u64,
    backoff: u64,
    limit: u64,
}

impl Sizes {
    fn of(lease_ms: u32) -> Self {
        let lease = Duration::from_millis(u64::from(lease_ms));
        let whole = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(0);
        match Timing::new(lease, None) {
            Ok(timing) => Self {
                lease: whole(lease),
                kill_after: whole(timing.kill_after()),
                grace: whole(timing.grace()),
                period: whole(timing.period()),
                backoff: whole(timing.backoff()),
                limit: whole(timing.attempt_limit()),
            },
            Err(_) => Self { lease: whole(lease), kill_after: 0, grace: 0, period: 0, backoff: 0, limit: 0 },
        }
    }
}

impl Scenario {
    /// The scenario of `seed`; with `only`, its faults are of exactly these kinds.
    pub fn of(seed: u64, only: &[Kind]) -> Self {
        let mut random = Random::stream(seed, 1);
        let lease_ms = random.pick(&LEASES_MS);
        let kinds = draw_kinds(&mut random, only);
        let has = |kind| kinds.contains(&kind);
        let free = !has(Kind::AllAtOnce) && random.chance(850);
        let members = draw_members(&mut random, lease_ms, &kinds);
        let sizes = Sizes::of(lease_ms);
        let least = Sizes::of(members.iter().map(|member| member.lease_ms).min().unwrap_or(lease_ms));
        // An absent lock costs a lease before anybody is active.
        let settled = if free { sizes.lease / 4 } else { sizes.lease * 4 / 3 };
        let mut at = settled + random.below(sizes.lease * 3 / 2);
        let mut faults = Vec::new();
        for kind in kinds {
            // What a holder must live through is cut to the member that can live through least.
            let of = if kind.is_within_budget() { &least } else { &sizes };
            faults.push(draw_fault(&mut random, kind, at, of));
            let gap = if random.chance(600) { sizes.lease / 8 } else { sizes.lease * 2 };
            at += random.below(gap);
        }
        if faults.iter().any(|fault| fault.kind == Kind::LockDeleted) && random.chance(400) {
            delete_again(&mut random, &mut faults, &sizes);
        }
        if let Some(blank) = faults.iter().position(|fault| fault.kind == Kind::LockBlanked)
            && random.chance(300)
        {
            blank_under_a_former_holder(&mut random, &mut faults, blank, &sizes);
        }
        // Faults at the very start meet the first acquisition.
        if random.chance(80) {
            let early = random.index(faults.len());
            faults[early].at_ms = small(random.below(settled));
        }
        faults.sort_by_key(|fault| fault.at_ms);
        Self { seed, free, local_release: random.chance(200), slots: 1, told_more: None, members, faults }
    }

    /// The same with several slots, and one more member for each; in some, one was told another number than the others.
    #[must_use]
    pub fn in_slots(self, slots: usize) -> Self {
        let mut random = Random::stream(self.seed, 5);
        let mut members = self.members;
        for letter in ('h'..='z').take(slots.saturating_sub(1)) {
            let like = random.index(members.len());
            let rate_ppm = small(random.between(u64::from(SLOWEST), u64::from(FASTEST)));
            let name = letter.to_string();
            members.push(Spec { name, rate_ppm, ..members[like].clone() });
        }
        let told_more = (slots > 1 && random.chance(200)).then(|| random.index(members.len()));
        Self { slots, told_more, members, ..self }
    }

    /// How many slots there are locks for.
    pub fn locks(&self) -> usize {
        self.slots + usize::from(self.told_more.is_some())
    }

    /// How many slots this member was told of.
    pub fn told(&self, member: usize) -> usize {
        self.slots + usize::from(self.told_more == Some(member))
    }

    /// Whether a fault of this kind is in it.
    pub fn has(&self, kind: Kind) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind)
    }

    /// The longest lease that a member was started with.
    pub fn longest_lease_ms(&self) -> u32 {
        self.members.iter().map(|member| member.lease_ms).max().unwrap_or(0)
    }
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(slots: &usize) -> bool {
    *slots == 1
}

/// Absence has no version. A standby that saw the lock absent, hears nothing more for a lease and finds it absent again
/// must not take that for one and the same absence.
fn delete_again(random: &mut Random, faults: &mut Vec<Fault>, sizes: &Sizes) {
    let Some(first) = faults.iter().find(|fault| fault.kind == Kind::LockDeleted).cloned() else { return };
    let at = u64::from(first.at_ms);
    let target = Target::Member(small(random.below(7)));
    let deaf = random.pick(&[Kind::NoticesLost, Kind::ElectorStopped, Kind::NoticesLate]);
    let from = at + random.below(40);
    let length_ms = small(sizes.lease * 3 / 2);
    faults.push(Fault { kind: deaf, at_ms: small(from), length_ms, target, amount: small(random.below(1001)) });
    let again = at + sizes.lease - sizes.period + random.below(sizes.period * 2);
    faults.push(Fault { at_ms: small(again), ..first });
}

/// A holder that was stopped past its deadline comes back while its successor's record is blank: that is not its own.
fn blank_under_a_former_holder(random: &mut Random, faults: &mut Vec<Fault>, blank: usize, sizes: &Sizes) {
    let Fault { at_ms, amount, .. } = faults[blank];
    let length = sizes.lease * 5 / 4 + random.below(sizes.lease / 2);
    let stop = Fault { kind: Kind::ElectorStopped, at_ms, length_ms: small(length), target: Target::Holder, amount };
    let resumed = u64::from(at_ms) + length;
    let target = Target::Member(small(random.below(7)));
    let from = small(resumed - sizes.period);
    let deaf = Fault { kind: Kind::NoticesLost, at_ms: from, length_ms: small(sizes.lease), target, amount: 999 };
    faults[blank].at_ms = small(resumed - random.below(sizes.period));
    faults.extend([stop, deaf]);
}

fn draw_kinds(random: &mut Random, only: &[Kind]) -> Vec<Kind> {
    if !only.is_empty() {
        return only.to_vec();
    }
    let count = match random.below(100) {
        0..45 => 1,
        45..80 => 2,
        _ => 3,
    };
    (0..count).map(|_| random.pick(Kind::ALL)).collect()
}

fn draw_members(random: &mut Random, lease_ms: u32, kinds: &[Kind]) -> Vec<Spec> {
    let at_once = kinds.contains(&Kind::AllAtOnce);
    let count = match random.below(100) {
        _ if at_once => 7,
        0..40 => 2,
        40..75 => 3,
        75..90 => 4,
        _ => random.between(5, 7),
    };
    let extreme = kinds.contains(&Kind::ClocksExtreme) || random.chance(250);
    let twice = kinds.contains(&Kind::NameTwice);
    let spread = if random.chance(200) { u64::from(lease_ms) } else { 20 };
    (0..count)
        .map(|index| {
            let letter = char::from(b'a' + u8::try_from(if twice && index == 1 { 0 } else { index }).unwrap_or(0));
            let rate = random.between(u64::from(SLOWEST), u64::from(FASTEST));
            Spec {
                name: letter.to_string(),
                lease_ms: if kinds.contains(&Kind::LeasesMixed) {
                    random.pick(&[3_000, 4_000, 15_000, 60_000])
                } else {
                    lease_ms
                },
                rate_ppm: if extreme { random.pick(&[SLOWEST, FASTEST]) } else { small(rate) },
                start_ms: if at_once { 0 } else { small(random.below(spread)) },
                stop_grace_ms: random.pick(&[200, 1_000, 10_000]),
                on_exit: u8::try_from(random.below(3)).unwrap_or(0),
            }
        })
        .collect()
}

/// A true duration that lasts less than `local` on a clock that runs as fast as allowed.
fn on_a_fast_clock(local: u64) -> u64 {
    local * 10 / 11
}

fn draw_fault(random: &mut Random, kind: Kind, at: u64, sizes: &Sizes) -> Fault {
    use Kind::*;
    let lease = sizes.lease;
    let budget = sizes.kill_after.saturating_sub(sizes.grace + sizes.period);
    let length = match kind {
        ElectorStopped => random.between(lease, lease * 4),
        HostSuspended => random.between(lease / 8, lease * 2),
        OutageShort => on_a_fast_clock(budget.saturating_sub(2 * sizes.backoff)) * random.between(850, 990) / 1000,
        OutageLong => budget + sizes.period + random.between(0, lease * 2),
        OutageInPause => lease * 3,
        OneAnswerLost => sizes.period * 2,
        AnswersSlow | WritesRepeated | WritesLate => random.between(sizes.period * 2, lease * 2),
        Paused | Resumed => random.between(lease / 2, lease * 3),
        WorkloadEnds | WorkloadFails | LockDeleted | LockBlanked | LockRenamed | LeaseEdited | LockReplaced => 0,
        StoreRewound | StandbyCloned | Switchover | GuardLate | FencedFalsely => 0,
        ElectorKilled | BothKilled | ContainerKilled | Terminated | LeaseChanged | Fenced => {
            random.below(lease * 3 / 2)
        }
        GuardStopped => random.between(100, 500),
        RestartStorm => random.between(10, 100),
        _ => random.between(sizes.limit, lease * 2),
    };
    let target = match random.below(100) {
        _ if matches!(kind, StandbyCloned) => Target::Standby,
        0..70 => Target::Holder,
        70..85 => Target::Standby,
        _ => Target::Member(small(random.below(7))),
    };
    Fault { kind, at_ms: small(at), length_ms: small(length), target, amount: small(random.below(1001)) }
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
