//! What nearly every process test does: start a few members, end the active one, look at who comes next.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ends::End;
use crate::group::Group;
use crate::history::Span;
use crate::member::Member;
use crate::wait::{wait_for, within};

/// Longer than anything takes that works.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The lease of [`Group::new`].
pub const LEASE: Duration = Duration::from_secs(2);

/// Every process must have been seen more than once, or its interval says nothing.
pub const STAMPS: u64 = 2;

/// What a workload has to bring along to be the worst of families: every way of getting away, and all at once.
pub const ESCAPEES: [&str; 12] = [
    "--mode",
    "setsid",
    "--mode",
    "double-fork",
    "--mode",
    "close-fds",
    "--mode",
    "ignore-term",
    "--mode",
    "setsid+ignore-term",
    "--mode",
    "setsid+double-fork+close-fds+ignore-term",
];

/// Starts members with the same workload; the first is active and the others queue when this returns.
pub fn start(group: &Group, names: &[&str], options: &[&str], probe: &[&str]) -> Result<(Vec<Member>, Span)> {
    let mut members = Vec::new();
    let mut active = None;
    for name in names {
        let member = Member::spawn(group, name, options, probe)?;
        match active {
            None => active = Some(member.wait_active(group, LIMIT)?),
            Some(_) => member.wait_standby(LIMIT)?,
        }
        members.push(member);
    }
    let active = active.context("no members")?;
    let active = wait_family(group, active.token, descendants(probe))?;
    Ok((members, active))
}

/// How many processes besides the command the modes of a probe start for good.
pub fn descendants(probe: &[&str]) -> usize {
    let alone = ["ignore-term", "note-signals", "stdin-echo", "write-log"];
    let modes = probe.iter().zip(probe.iter().skip(1)).filter(|(option, _)| **option == "--mode");
    modes.filter(|(_, mode)| !alone.contains(mode) && !mode.contains('=')).count()
}

/// Waits until all of a family have stamped often enough to count.
pub fn wait_family(group: &Group, token: u64, descendants: usize) -> Result<Span> {
    let enough = |span: &Span| span.slots.iter().filter(|slot| slot.stamps >= STAMPS).count() > descendants;
    wait_for(&format!("{descendants} descendants to stamp"), LIMIT, || {
        group.history().spans.into_iter().find(|span| span.token == token && enough(span))
    })
}

/// One activation after the other.
#[derive(Clone, Debug)]
pub struct Handover {
    /// The one that ended, with its last stamp.
    pub old: Span,
    /// The one that came next, with its first stamp.
    pub new: Span,
    /// From the event to the first stamp of the new one.
    pub from_event: Duration,
    /// Why the new one was allowed to start, in its member's words.
    pub why: String,
}

impl Handover {
    /// From the last stamp of the old one to the first of the new one.
    pub fn gap(&self) -> Duration {
        Duration::from_nanos(self.new.first.saturating_sub(self.old.last))
    }

    /// Fails unless the next one was active within `limit` of the event.
    pub fn came_within(&self, limit: Duration) -> Result<()> {
        within("the next one to be active", self.from_event, limit)
    }

    /// Fails unless the next one started on a proof, not because a lease ran out.
    pub fn was_proved(&self) -> Result<()> {
        let proved = self.why.contains(" released (") || self.why.contains(" is proven gone (");
        ensure!(proved, "the next one did not come by proof but because: {}", self.why);
        Ok(())
    }
}

/// Ends the active one, which must be the first of `members`, and waits for the next.
pub fn hand_over(group: &Group, members: &[Member], active: &Span, end: End) -> Result<Handover> {
    let member = members.first().context("no members")?;
    let at = end.apply(group, member, active)?;
    follow(group, active, at).with_context(|| format!("after: {end}"))
}

/// Waits for the activation after `active`, which was made to end at the instant `at`.
pub fn follow(group: &Group, active: &Span, at: u64) -> Result<Handover> {
    let next = group.wait_active_after(active.token, LIMIT)?;
    let history = group.history();
    let find = |token| history.spans.iter().find(|span| span.token == token).cloned();
    let (old, new) = (find(active.token), find(next.token));
    let (old, new) = (old.context("the old activation is lost")?, new.context("the new activation is lost")?);
    let from_event = Duration::from_nanos(new.first.saturating_sub(at));
    let why = wait_for("the reason in the log", LIMIT, || group.reason_of(&new))?;
    Ok(Handover { old, new, from_event, why })
}

/// Checks everything that was stamped, and that nothing of the `old` activation is left.
pub fn check(group: &Group, activations: usize, old: &Span) -> Result<()> {
    check_stamped(group, activations, old, STAMPS)
}

/// The same where each process has stamped at least `stamps` times.
pub fn check_stamped(group: &Group, activations: usize, old: &Span, stamps: u64) -> Result<()> {
    let told = format!("SOLOIST_ACTIVATION={:032x}", old.activation);
    let identity = old.slots.first().map(|slot| slot.identity.to_argument()).unwrap_or_default();
    let left = group.processes().into_iter().filter(|one| one.carries(&told) || one.mentions(&identity));
    let left: Vec<_> = left.collect();
    ensure!(left.is_empty(), "left behind by {old}: {left:?}");
    group.check(activations, stamps)
}
