//! Standing by: time what the lock says on the own clock, and try when it is allowed.

use std::time::Duration;

use super::acquiring::Acquiring;
use super::core::Core;
use super::{Absence, Entropy, State, leave_idle, refuse_as_standby};
use crate::clock::Instant;
use crate::io::{Action, Input, Request, Vigil};
use crate::record::{Activation, Attempt, Claim, Foreign, Member, Proof, Record, Release, Vacancy};
use crate::register::{Evidence, Seen, Version};
use crate::timing::Plain;

/// A foreign record is given this many times the longest lease in sight.
/// See docs/safety.md R17.
pub const FOREIGN_FACTOR: u32 = 3;

/// Waiting for the own turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Standby {
    sight: Option<Sight>,
    /// No try before this: a back-off.
    not_before: Instant,
    /// The others go first until this, unless one of them names this member.
    courteous_until: Instant,
    /// When a read that failed is tried again.
    reread_at: Option<Instant>,
    /// Until when the platform's own lock was left to others.
    stepped_back_until: Instant,
    /// Not before this is an ended activation released once more, or an absent lock marked.
    tidy_at: Instant,
    /// The operator vouched that this activation is gone.
    fenced: Option<Activation>,
}

/// What the lock said last, and since when by the own clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sight {
    subject: Subject,
    since: Instant,
    /// The largest lease that this very subject carried: an edit by hand cannot shorten a wait.
    lease: Duration,
    version: Version,
    evidence: Evidence,
    /// Whether the version can follow everything seen before; a store that was rolled back proves nothing.
    trusted: bool,
}

/// What is timed: the timer starts anew when this changes, whatever else the record says.
/// See docs/safety.md R8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Absent,
    Held(Member, Activation, Attempt),
    Released(Release),
    Vacant(Vacancy),
    Foreign(Foreign),
}

impl Subject {
    fn of(record: Option<&Record>) -> Self {
        match record.map(|record| &record.claim) {
            None => Subject::Absent,
            Some(Claim::Held(holder)) => Subject::Held(holder.member.clone(), holder.activation, holder.attempt),
            Some(Claim::Released(release)) => Subject::Released(release.clone()),
            Some(Claim::Vacant(vacancy)) => Subject::Vacant(vacancy.clone()),
            Some(Claim::Foreign(foreign)) => Subject::Foreign(foreign.clone()),
        }
    }

    /// Whether a person would call it the same: renewals are not news.
    fn is_news_after(&self, before: Option<&Subject>) -> bool {
        match (self, before) {
            (Subject::Held(_, now, _), Some(Subject::Held(_, then, _))) => now != then,
            (Subject::Foreign(now), Some(Subject::Foreign(then))) => {
                (&now.holder, &now.why) != (&then.holder, &then.why)
            }
            (now, then) => Some(now) != then,
        }
    }
}

impl Standby {
    /// Stands by again and looks at the lock; tries nothing before `not_before`.
    pub fn after<E: Entropy>(core: &mut Core<E>, not_before: Instant, reason: &str) -> State {
        core.read(reason);
        State::Standby(Standby { not_before, ..Standby::default() })
    }

    /// Stands by again after a planned end: the others go first until `courteous_until`.
    pub fn courteously<E: Entropy>(core: &mut Core<E>, courteous_until: Instant, reason: &str) -> State {
        core.read(reason);
        State::Standby(Standby { courteous_until, ..Standby::default() })
    }

    /// Goes on where it was before a try that stored nothing: the lock may be the same, and its time goes on.
    pub fn resume<E: Entropy>(mut self, core: &mut Core<E>, not_before: Instant, reason: &str) -> State {
        self.not_before = self.not_before.max(not_before);
        core.read(reason);
        State::Standby(self)
    }

    pub fn on<E: Entropy>(mut self, core: &mut Core<E>, now: Instant, input: Input) -> State {
        match input {
            Input::Changed => core.read("the lock may have changed"),
            Input::Read(Ok(seen)) => self.look(core, now, seen),
            Input::Read(Err(why)) => {
                self.reread_at = Some(now + core.settings.timing.period());
                core.say(Action::Note, format!("cannot read the lock: {why}"));
            }
            Input::Written { .. } => core.read("to see what the lock says now"),
            Input::Request(request) => self.answer(core, &request),
            Input::Leave => return leave_idle(core),
            Input::Wake | Input::Health(_) | Input::Candidates(_) => {}
            Input::Exited { .. } | Input::Gone { .. } | Input::GuardLost | Input::Forsaken | Input::Measured { .. } => {
            }
        }
        self.decide(core, now)
    }

    fn answer<E: Entropy>(&mut self, core: &mut Core<E>, request: &Request) {
        match (request, self.sight.as_ref().map(|sight| &sight.subject)) {
            (Request::Fenced { activation }, Some(Subject::Held(member, held, _))) if activation == held => {
                self.fenced = Some(*activation);
                core.grant(format!("an operator vouches that activation {activation} of {} is fenced", member.name));
            }
            _ => refuse_as_standby(core, request),
        }
    }

    /// Takes in one answer of the store.
    fn look<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, seen: Seen) {
        self.reread_at = None;
        // A lock that was let go and then deleted is none that was rolled back.
        let is_left = seen.record.is_none() && core.absence_is_free();
        let trusted = is_left || accept_version(core, now, seen.version);
        let subject = Subject::of(seen.record.as_ref());
        let lease = seen.record.as_ref().map_or(core.longest_lease, |record| record.lease);
        let before = self.sight.take();
        let is_news = subject.is_news_after(before.as_ref().map(|sight| &sight.subject));
        let (since, lease) = match before {
            Some(sight) if sight.subject == subject && (trusted || !sight.trusted) => {
                (sight.since, sight.lease.max(lease))
            }
            _ => (now, lease),
        };
        let sight = Sight { subject, since, lease, version: seen.version, evidence: seen.evidence, trusted };
        if now < self.courteous_until && sight.calls(core) {
            self.courteous_until = now;
            self.stepped_back_until = now;
            core.say(
                Action::StepBack { pause: Duration::ZERO },
                "named as the successor: no need to let others go first",
            );
        }
        if is_news {
            let wait = self.wait(core, &sight);
            core.say(Action::Note, sight.describe(wait));
        }
        self.sight = Some(sight);
    }

    /// How long the sight must have lasted before this member may try.
    /// See docs/safety.md R5, R6, R8 and R17.
    fn wait<E: Entropy>(&self, core: &Core<E>, sight: &Sight) -> Duration {
        let untrusted = if sight.trusted { Duration::ZERO } else { core.longest_lease };
        let wait = match (&sight.subject, sight.evidence) {
            (Subject::Held(..), Evidence::Gone(_)) => Duration::ZERO,
            (Subject::Held(_, activation, _), _) if self.fenced == Some(*activation) => return Duration::ZERO,
            (Subject::Held(..), _) => sight.lease,
            (Subject::Released(release), _) if goes_first(release, &core.settings.name) => Duration::ZERO,
            (Subject::Released(_), _) => core.settings.timing.courtesy(),
            (Subject::Foreign(..), _) => sight.lease.max(core.longest_lease) * FOREIGN_FACTOR,
            (Subject::Absent, _) if core.absence_is_free() => Duration::ZERO,
            (Subject::Absent | Subject::Vacant(_), _) => sight.lease.max(core.longest_lease),
        };
        wait.max(untrusted)
    }

    /// A try can only succeed once the platform's own lock is free, unless its keeper is to be evicted: then the record
    /// names one.
    fn is_blocked(sight: &Sight) -> bool {
        sight.evidence == Evidence::Busy && !matches!(sight.subject, Subject::Held(..) | Subject::Released(_))
    }

    fn ready_at<E: Entropy>(&self, core: &Core<E>, sight: &Sight) -> Instant {
        let mut wait = self.wait(core, sight);
        if sight.evidence == Evidence::Busy && matches!(sight.subject, Subject::Released(_)) {
            // Whoever released is about to let go of the platform's own lock; a keeper that does not hangs.
            wait = wait.max(core.longest_lease);
        }
        (sight.since + wait).max(self.not_before).max(self.courteous_until)
    }

    fn decide<E: Entropy>(mut self, core: &mut Core<E>, now: Instant) -> State {
        if !core.is_idle() {
            return State::Standby(self);
        }
        let due = self.reread_at.is_some_and(|at| now >= at);
        if core.wants_another_read() || due || (self.sight.is_none() && self.reread_at.is_none()) {
            self.reread_at = None;
            core.read("standing by");
            return State::Standby(self);
        }
        let Some(sight) = &self.sight else { return State::Standby(self) };
        if let Some(proof) = sight.own_ended(core) {
            if now >= self.tidy_at {
                self.tidy_at = now + core.settings.timing.period();
                sight.release_again(core, now, proof);
            }
            return State::Standby(self);
        }
        if sight.must_be_marked(core) {
            if now >= self.tidy_at {
                self.tidy_at = now + core.settings.timing.period();
                mark_vacant(core, now);
            }
            return State::Standby(self);
        }
        if Self::is_blocked(sight) {
            return State::Standby(self);
        }
        let ready_at = self.ready_at(core, sight);
        if core.healthy && now >= ready_at {
            let (version, why) = (sight.version, sight.entitlement(self.fenced, ready_at.since(sight.since)));
            return Acquiring::begin(core, now, self, version, why);
        }
        self.leave_to_others(core, now, ready_at);
        State::Standby(self)
    }

    /// While it is somebody else's turn the platform's own lock must not be in the way.
    fn leave_to_others<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, ready_at: Instant) {
        let Some(sight) = &self.sight else { return };
        let waits = now < self.not_before.max(self.courteous_until);
        let others_turn = !core.healthy || matches!(sight.subject, Subject::Released(_)) || waits;
        if sight.evidence == Evidence::Busy || !others_turn || now < self.stepped_back_until {
            return;
        }
        let pause = if core.healthy { ready_at.since(now) } else { core.settings.timing.period() };
        self.stepped_back_until = now + pause;
        core.say(Action::StepBack { pause }, "others may go first");
    }

    pub fn next_wakeup<E: Entropy>(&self, core: &Core<E>) -> Option<Instant> {
        if !core.is_idle() {
            return None;
        }
        let ready = self.sight.as_ref().filter(|sight| core.healthy && !Self::is_blocked(sight));
        let ready_at = ready.map(|sight| {
            let tidies = sight.own_ended(core).is_some() || sight.must_be_marked(core);
            if tidies { self.tidy_at } else { self.ready_at(core, sight) }
        });
        [self.reread_at, ready_at].into_iter().flatten().min()
    }

    /// Whether somebody held the platform's own lock at the last look.
    pub fn was_kept_out(&self) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.evidence == Evidence::Busy)
    }

    /// See [`super::Machine::holds_back_until`].
    pub fn holds_back_until(&self) -> Instant {
        self.not_before.max(self.courteous_until)
    }

    /// While this member did not queue for the platform's own lock it could not get it: nobody's keepers hang for that.
    pub fn comes_back(&mut self, now: Instant) {
        if let Some(sight) = &mut self.sight
            && sight.evidence == Evidence::Busy
            && matches!(sight.subject, Subject::Released(_))
        {
            sight.since = now;
        }
    }

    /// See [`super::Machine::has_looked`].
    pub fn has_looked(&self) -> bool {
        self.sight.is_some() || self.reread_at.is_some()
    }

    /// Whether the lock was held by `activation` at the last look.
    pub fn sees(&self, activation: Activation) -> bool {
        matches!(&self.sight, Some(Sight { subject: Subject::Held(_, held, _), .. }) if *held == activation)
    }

    /// See [`super::Machine::vigil`].
    pub fn vigil<E: Entropy>(&self, core: &Core<E>) -> Option<Vigil> {
        let is_unproven = |sight: &&Sight| matches!(sight.subject, Subject::Vacant(_) | Subject::Foreign(_));
        let sight = self.sight.as_ref().filter(is_unproven).filter(|sight| core.healthy && !Self::is_blocked(sight))?;
        Some(Vigil { since: sight.since, until: self.ready_at(core, sight) })
    }

    pub fn holder(&self) -> Option<Member> {
        match &self.sight.as_ref()?.subject {
            Subject::Held(member, ..) => Some(member.clone()),
            _ => None,
        }
    }
}

fn goes_first(release: &Release, name: &str) -> bool {
    release.successor.as_deref().is_none_or(|successor| successor == name)
}

/// Whether `version` can follow everything seen before. A lock that was rolled back is believed again after it stood
/// for the longest lease.
/// See docs/safety.md R5.
fn accept_version<E: Entropy>(core: &mut Core<E>, now: Instant, version: Version) -> bool {
    let rewinds = core.newest.is_some_and(|newest| version.rewinds(newest));
    if rewinds {
        let since = *core.rewound_since.get_or_insert(now);
        if now < since + core.longest_lease {
            return false;
        }
    }
    core.newest = Some(version);
    core.rewound_since = None;
    true
}

/// Gives an absent lock a version. Whoever is first will do.
/// See docs/safety.md R6.
fn mark_vacant<E: Entropy>(core: &mut Core<E>, now: Instant) {
    let (member, lease) = (core.member(), core.longest_lease);
    core.write(now, Version::ABSENT, lease, None, "marking the absent lock as vacant", |attempt| {
        Claim::Vacant(Vacancy { member, attempt })
    });
}

impl Sight {
    /// Where absence costs a lease, the wait is counted on a mark: only that has a version which cannot come back.
    fn must_be_marked<E: Entropy>(&self, core: &Core<E>) -> bool {
        self.subject == Subject::Absent && core.settings.absence != Absence::Free && !core.absence_is_free()
    }

    /// Whether another member released and names this one.
    fn calls<E: Entropy>(&self, core: &Core<E>) -> bool {
        match &self.subject {
            Subject::Released(release) => {
                release.member != core.member() && release.successor.as_deref() == Some(core.settings.name.as_str())
            }
            _ => false,
        }
    }

    /// The proof, where the lock still names an activation of this member that has ended. A lock that went back to an
    /// older state may be somebody else's by now: a release over it would be believed at first sight.
    /// See docs/safety.md R5.
    fn own_ended<E: Entropy>(&self, core: &Core<E>) -> Option<(Activation, Proof)> {
        match &self.subject {
            Subject::Held(member, activation, _) if self.trusted && *member == core.member() => {
                core.ended(*activation).map(|proof| (*activation, proof))
            }
            _ => None,
        }
    }

    fn release_again<E: Entropy>(&self, core: &mut Core<E>, now: Instant, (activation, proof): (Activation, Proof)) {
        let member = core.member();
        let reason = format!("the lock still names the ended activation {activation}: released once more");
        core.write(now, self.version, self.lease, None, reason, |attempt| {
            Claim::Released(Release { member, activation, attempt, proof, successor: None })
        });
    }

    /// Why this member may try now.
    fn entitlement(&self, fenced: Option<Activation>, waited: Duration) -> String {
        match (&self.subject, self.evidence) {
            (Subject::Absent, _) => "there is no record of an active member".to_owned(),
            (Subject::Vacant(_), _) => format!("the lock was absent, and then vacant for {}", Plain(self.lease)),
            (Subject::Released(release), _) => {
                format!("{} released ({})", release.member.name, release.proof.word())
            }
            (Subject::Held(member, ..), Evidence::Gone(proof)) => {
                format!("{} is proven gone ({})", member.name, proof.word())
            }
            (Subject::Held(member, activation, _), _) if fenced == Some(*activation) => {
                format!("an operator fenced {}", member.name)
            }
            // Some process may have let go of the platform's own lock, and live.
            (Subject::Held(member, ..), Evidence::Unproven | Evidence::Busy) => format!(
                "unproven: {} left no release, its lease of {} ran out and what could be found of it was swept",
                member.name,
                Plain(self.lease)
            ),
            (Subject::Held(member, ..), _) => {
                format!("the lease of {} ran out: nothing new for {}", member.name, Plain(self.lease))
            }
            // Whoever is foreign has promised nothing: its workload may run on without its lock.
            (Subject::Foreign(Foreign { holder: Some(holder), why, .. }), _) => {
                format!("unproven: {holder} is foreign ({why}) and was silent for {}", Plain(waited))
            }
            (Subject::Foreign(Foreign { why, .. }), _) => {
                format!("unproven: a foreign record ({why}) named nobody and stood for {}", Plain(waited))
            }
        }
    }

    /// One line for people at the first sight of something new.
    fn describe(&self, wait: Duration) -> String {
        let wait = Plain(wait);
        let rewound = if self.trusted { "" } else { " (the lock went back to an older state)" };
        match (&self.subject, self.evidence) {
            (Subject::Absent, Evidence::Busy) => format!("standing by: another member holds the lock{rewound}"),
            (Subject::Absent, _) => format!("standing by: the lock is absent{rewound}"),
            (Subject::Vacant(_), _) => format!("standing by: the lock was absent, waiting {wait}"),
            (Subject::Held(member, activation, _), Evidence::Busy | Evidence::None) => {
                format!("standing by: {} is active (activation {activation}){rewound}", member.name)
            }
            (Subject::Held(member, ..), Evidence::Gone(proof)) => {
                format!("{} left no release but is proven gone ({})", member.name, proof.word())
            }
            (Subject::Held(member, ..), Evidence::Unproven) => {
                format!("standing by: {} left no release and no proof, waiting {wait}{rewound}", member.name)
            }
            (Subject::Released(release), _) => match &release.successor {
                Some(successor) => format!("{} released, naming {successor}{rewound}", release.member.name),
                None => format!("{} released{rewound}", release.member.name),
            },
            (Subject::Foreign(Foreign { holder: Some(holder), why, .. }), _) => {
                format!("standing by: {holder} is active, and foreign ({why}): it must be silent for {wait}{rewound}")
            }
            (Subject::Foreign(Foreign { why, .. }), _) => {
                format!("standing by: the record is not ours ({why}), waiting {wait}{rewound}")
            }
        }
    }
}
