//! Of a group of which several may be active, never more are, and who follows takes the slot that is free and no other.

use anyhow::{Context, Result, ensure};

use crate::ends::End;
use crate::group::Group;
use crate::history::{History, Span};
use crate::member::Member;
use crate::quantiles::Quantiles;
use crate::scenario::{LIMIT, STAMPS};

/// How activations end: each leaves the member behind, so that another one has to follow.
const ENDS: [End; 4] = [End::WorkloadKilled, End::ElectorKilled, End::Term, End::WorkloadCrash];

/// A group on some store.
pub trait Site {
    /// The group, which knows how many may be active.
    fn group(&self) -> &Group;

    /// Starts one more member.
    ///
    /// # Errors
    /// It could not be started.
    fn spawn(&mut self, name: &str) -> Result<Member>;
}

/// Ends one active member after the other, in turns of slots and kinds of end. The members that were started stay for
/// whoever wants to look.
///
/// # Errors
/// Too many were active, or a slot was not taken over, or another one was.
pub fn each_free_slot_is_taken_and_no_other<S: Site>(site: &mut S, names: &[&str], rounds: u32) -> Result<Vec<Member>> {
    let mut members = names.iter().map(|name| site.spawn(name)).collect::<Result<Vec<_>>>()?;
    let slots = site.group().slots();
    for round in 0..rounds {
        let active = all_active(site.group())?;
        let slot = 1 + round % slots;
        let old = &active[usize::try_from(slot - 1)?];
        let position = members.iter().position(|member| member.name() == old.member).context("nobody's activation")?;
        let end = ENDS[usize::try_from(round / slots)? % ENDS.len()];
        end.apply(site.group(), &members[position], old)?;
        site.group().wait_active_in(slot, old.token, LIMIT).with_context(|| format!("slot {slot} after: {end}"))?;
        for (other, span) in (1..).zip(&active).filter(|(other, _)| *other != slot) {
            let now = site.group().wait_active_in(other, 0, LIMIT)?;
            ensure!(now.activation == span.activation, "slot {other} changed hands although slot {slot} ended");
        }
        members[position].wait_exit(LIMIT)?;
        let name = members.remove(position).name().to_owned();
        members.push(site.spawn(&name)?);
    }
    all_active(site.group())?;
    check(site.group(), usize::try_from(rounds)?)?;
    Ok(members)
}

/// Waits until somebody is active in each slot.
///
/// # Errors
/// Some slot stays empty.
pub fn all_active(group: &Group) -> Result<Vec<Span>> {
    (1..=group.slots()).map(|slot| group.wait_active_in(slot, 0, LIMIT)).collect()
}

/// Checks everything that was stamped.
///
/// # Errors
/// What was found.
pub fn check(group: &Group, rounds: usize) -> Result<()> {
    let histories = || (1..=group.slots()).map(|slot| group.history_of(slot)).collect::<Vec<_>>();
    let whole = History::of(
        histories().iter().flat_map(|history| &history.spans).flat_map(|span| span.slots.clone()).collect(),
    );
    let slots = usize::try_from(group.slots())?;
    ensure!(whole.most_at_once() == slots, "{} were active at once, and {slots} may:\n{whole}", whole.most_at_once());
    for (index, new) in whole.spans.iter().enumerate() {
        let both = |old: &&Span| old.member == new.member && old.last >= new.first;
        let beside = whole.spans[..index].iter().find(both);
        ensure!(beside.is_none(), "{} was in two slots at once:\n{whole}", new.member);
    }
    ensure!(whole.spans.len() >= rounds + slots, "{} activations in {rounds} rounds", whole.spans.len());
    (1..=group.slots()).try_for_each(|slot| History::check_soon(|| group.history_of(slot), 1, STAMPS))?;
    let gaps = histories().into_iter().flat_map(|history| history.gaps()).map(|gap| gap.length.as_nanos());
    let gaps: Vec<u64> = gaps.filter_map(|nanos| nanos.try_into().ok()).collect();
    println!("{} handovers, gaps in ms (p50, p99, max): {}", gaps.len(), Quantiles::of(gaps));
    Ok(())
}
