//! What is to be written next in one group. Pure: pods, record and time go in, writes come out, each with its reason.
//!
//! All writes of one plan may be sent side by side. When they are answered, or anything else has changed, the next plan
//! is made from what is there then, so that a plan never has to know what became of another one.
//!
//! The record decides who is active; labels follow it, and nobody believes them. Nobody is labelled as active while
//! another pod may still be, or may become so by a write that is on its way.

use std::collections::{BTreeMap, BTreeSet};

use election::Instant;

use super::group::{Group, Handover, Order, PromoteAfter, Switchover};
use super::node::Node;
use super::pod::Pod;
use super::record::{Place, Record};

/// One pod of the group, and what the controller remembers of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The critical container that has ended at any time while the controller looked.
    pub fallen: Option<&'a str>,
    /// Whether nothing that was written before this term, or whose outcome is unknown, can still take effect on it.
    pub is_settled: bool,
    /// The node that it is on, where that is known.
    pub node: Option<&'a Node>,
}

impl Seen<'_> {
    /// Whether nothing of it runs, nor ever will, by the word of its kubelet, or of an operator for a node that is out of
    /// service.
    fn is_stopped(&self) -> bool {
        self.pod.is_stopped() || (self.pod.is_deleting && self.node.is_some_and(|node| node.is_out_of_service))
    }
}

/// One group as the controller sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What is wanted.
    pub group: &'a Group,
    /// All its pods.
    pub pods: &'a [Seen<'a>],
    /// Who is active.
    pub record: &'a Record,
    /// The version of the record; nothing where there is none yet.
    pub version: Option<u64>,
    /// Whether somebody has deleted the record since.
    pub is_missing: bool,
    /// Pods of the record that were seen to end before they were gone, by UID.
    pub seen_stopped: &'a BTreeSet<String>,
    /// Who has been told, by UID and token, whether or not the record says so.
    pub told: &'a BTreeSet<(String, u64)>,
    /// The time.
    pub now: Instant,
    /// No pod is deleted before this.
    pub deletes_from: Instant,
    /// So many may be deleted at once then.
    pub deletes_max: usize,
}

/// A part that a pod can play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It is one of the active ones.
    Active,
    /// It waits.
    Standby,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The record becomes this.
    Record(Record),
    /// A pod's label becomes this.
    Label {
        /// The pod.
        uid: String,
        /// The part that the label says.
        part: Part,
        /// The token of the promotion, for the active part.
        token: Option<u64>,
        /// In one sentence.
        why: String,
    },
    /// The term is written on a pod, so that what was sent before it meets a conflict.
    Settle {
        /// The pod.
        uid: String,
    },
    /// A pod is deleted.
    Delete {
        /// The pod.
        uid: String,
        /// In one sentence.
        why: String,
    },
    /// A pod is told that it is active.
    Tell {
        /// The pod.
        uid: String,
        /// The token of the promotion.
        token: u64,
    },
}

/// What is to be done next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Side by side.
    pub writes: Vec<Write>,
    /// When to plan again, whatever happens.
    pub again_at: Option<Instant>,
    /// What is waited for, in one sentence.
    pub waits: Option<String>,
}

/// Why a pod of the record gives up its place.
struct Leaving {
    why: String,
    /// Whether its place may be given to another one.
    is_proven: bool,
    /// Whether it gets no more traffic.
    is_drained: bool,
    /// Whether it must be deleted for that.
    is_sent_away: bool,
}

/// Plans for one group. One that is paused is left as it is, labels and all.
pub fn plan(sight: &Sight<'_>) -> Plan {
    match sight.group.is_paused {
        true => Plan { waits: Some("paused: nothing is changed".to_owned()), ..Plan::default() },
        false => Course::of(sight).plan(),
    }
}

/// Everything that follows from one sight.
struct Course<'a> {
    sight: &'a Sight<'a>,
    by_uid: BTreeMap<&'a str, Seen<'a>>,
    /// For each place of the record, in its order.
    leaving: Vec<Option<Leaving>>,
    /// Who becomes active, best first.
    chosen: Vec<Seen<'a>>,
}

impl<'a> Course<'a> {
    fn of(sight: &'a Sight<'a>) -> Self {
        let by_uid = sight.pods.iter().map(|seen| (seen.pod.uid.as_str(), *seen)).collect();
        let mut course = Self { sight, by_uid, leaving: Vec::new(), chosen: Vec::new() };
        course.leaving = sight.record.places.iter().map(|place| course.leaving(place)).collect();
        course.leave_where_there_are_too_many();
        course.give_way_to_whom_is_wanted();
        course.chosen = course.choose();
        course
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan { waits: self.waits(), ..Plan::default() };
        let record = self.new_record();
        let demotions = self.demotions();
        let promotions = self.promotions();
        let is_promoting = record.is_some() || !promotions.is_empty();
        if is_promoting {
            plan.writes.extend(self.settlements(&demotions));
        }
        let others_cannot_be_active = demotions.is_empty() && plan.writes.is_empty();
        plan.writes.extend(demotions);
        match record {
            Some(record) => plan.writes.push(record),
            None if others_cannot_be_active => plan.writes.extend(promotions),
            None => {}
        }
        plan.writes.extend(self.deletions(is_promoting, &mut plan.again_at));
        if !is_promoting {
            plan.writes.extend(self.notices());
        }
        plan
    }

    fn group(&self) -> &'a Group {
        self.sight.group
    }

    fn is_labelled_active(&self, pod: &Pod) -> bool {
        pod.label(&self.group().label.key) == Some(&self.group().label.active)
    }

    /// Whether a pod could be active: nothing of it is known to be over.
    fn is_fit(seen: &Seen<'_>) -> bool {
        !seen.pod.is_deleting && !seen.pod.has_ended && seen.fallen.is_none()
    }

    /// Why the pod of a place gives it up, if it does.
    fn leaving(&self, place: &Place) -> Option<Leaving> {
        let Group { promote_after, handover, .. } = self.group();
        let name = &place.pod;
        let Some(seen) = self.by_uid.get(place.uid.as_str()) else {
            let is_proven = *promote_after == PromoteAfter::Removed || self.sight.seen_stopped.contains(&place.uid);
            return Some(Leaving { why: format!("{name} is gone"), is_proven, is_drained: true, is_sent_away: false });
        };
        let is_over = *promote_after == PromoteAfter::Removed || seen.is_stopped();
        let (why, is_proven) = match seen {
            Seen { fallen: Some(container), .. } => (format!("{container} in {name} has ended"), is_over),
            Seen { pod: Pod { has_ended: true, .. }, .. } => (format!("{name} has ended"), is_over),
            // It may run on for as long as its grace.
            Seen { pod: Pod { is_deleting: true, .. }, .. } => {
                let waits_for_the_end = *handover == Handover::StopFirst || *promote_after == PromoteAfter::Stopped;
                let is_gone = *promote_after == PromoteAfter::Stopped && seen.is_stopped();
                (format!("{name} is being deleted"), is_gone || !waits_for_the_end)
            }
            _ => return None,
        };
        let is_drained = is_proven || *handover == Handover::DrainFirst;
        Some(Leaving { why, is_proven, is_drained, is_sent_away: false })
    }

    /// The request of an operator that has not been met yet.
    fn request(&self) -> Option<&'a Switchover> {
        let is_open = |request: &&Switchover| self.sight.record.request != request.request;
        self.sight.group.switchover.as_ref().filter(is_open)
    }

    /// Whether an operator asks for this pod.
    fn is_wanted(&self, seen: &Seen<'_>) -> bool {
        seen.pod.is_wanted || self.request().is_some_and(|request| request.to == seen.pod.name)
    }

    /// The pod that an operator asks for, if it stands by.
    fn wanted(&self) -> Option<Seen<'a>> {
        let stands_by = |seen: &&Seen<'_>| self.sight.record.place_of(&seen.pod.uid).is_none();
        self.sight.pods.iter().filter(stands_by).find(|seen| self.is_wanted(seen)).copied()
    }

    /// The pod that has been active for longest leaves, where all places are taken and another one is wanted. One that is
    /// wanted itself has to be labelled first, which takes the wish back: two of them would take turns for ever.
    fn give_way_to_whom_is_wanted(&mut self) {
        let Some(wanted) = self.wanted().filter(|seen| Self::is_fit(seen) && seen.pod.is_ready) else { return };
        let is_full =
            self.staying().count() >= self.group().active && self.leaving.iter().flatten().all(|one| one.is_proven);
        let is_wanted = |at: &usize| self.seen_at(*at).is_some_and(|seen| self.is_wanted(seen));
        let first = self.staying().find(|at| !is_wanted(at)).filter(|_| is_full);
        if let Some(first) = first {
            self.send_away(first, format!("{} is to become active by request", wanted.pod.name));
        }
    }

    /// Those that were recorded first stay. Who leaves keeps its traffic only where those that stay are not enough.
    fn leave_where_there_are_too_many(&mut self) {
        let Group { active, .. } = *self.group();
        let staying: Vec<usize> = self.staying().collect();
        for at in staying.iter().skip(active) {
            self.send_away(*at, format!("only {active} may be active"));
        }
        let room = active.saturating_sub(staying.len());
        self.leaving
            .iter_mut()
            .flatten()
            .filter(|one| !one.is_drained)
            .skip(room)
            .for_each(|one| one.is_drained = true);
    }

    /// The places whose pods keep them.
    fn staying(&self) -> impl Iterator<Item = usize> {
        (0..self.leaving.len()).filter(|at| self.leaving[*at].is_none())
    }

    /// The pod of a place.
    fn seen_at(&self, at: usize) -> Option<&Seen<'a>> {
        self.by_uid.get(self.sight.record.places.get(at)?.uid.as_str())
    }

    /// The pod of a place that could stay has to leave it. Where nobody may run beside another one, it has to end.
    fn send_away(&mut self, at: usize, why: String) {
        let is_enough = self.group().promote_after == PromoteAfter::Removed;
        if let Some(leaving) = self.leaving.get_mut(at) {
            *leaving = Some(Leaving { why, is_proven: is_enough, is_drained: true, is_sent_away: !is_enough });
        }
    }

    /// Who fills the places that are free, best first.
    fn choose(&self) -> Vec<Seen<'a>> {
        let kept = self.leaving.iter().filter(|leaving| leaving.as_ref().is_none_or(|one| !one.is_proven)).count();
        let free = self.group().active.saturating_sub(kept);
        let mut candidates: Vec<Seen<'a>> = self.sight.pods.iter().copied().filter(|seen| self.stands(seen)).collect();
        candidates.sort_unstable_by(|one, other| self.rank(one).cmp(&self.rank(other)));
        let are_ready = candidates.iter().take_while(|seen| seen.pod.is_ready).count();
        // Where nobody is active, and nobody is ready, somebody is still better than nobody.
        let worth = if kept == 0 { are_ready.max(1) } else { are_ready };
        candidates.truncate(free.min(worth));
        candidates
    }

    fn stands(&self, seen: &Seen<'_>) -> bool {
        self.sight.record.place_of(&seen.pod.uid).is_none() && Self::is_fit(seen)
    }

    /// The smaller, the sooner.
    fn rank<'s>(&self, seen: &Seen<'s>) -> impl Ord + use<'s> {
        let Seen { pod, node, .. } = seen;
        // Before there is a record, whoever was active for another controller is only the first to be asked.
        let was_active = self.sight.version.is_none() && self.is_labelled_active(pod);
        let is_on_bad_node = node.is_some_and(|node| node.is_bad);
        let priority = match self.group().order {
            Order::Priority => std::cmp::Reverse(pod.priority),
            Order::Oldest => std::cmp::Reverse(0),
        };
        let asked = (!pod.is_ready, !self.is_wanted(seen), is_on_bad_node, priority, !was_active);
        (asked, pod.since.as_str(), pod.name.as_str())
    }

    /// The record, where others are to be active, or one has been told. Whoever deletes it has not ended what it names.
    fn new_record(&self) -> Option<Write> {
        // The kubelet's word may be forgotten by whoever leads next: then the place is given back though nobody takes it.
        let is_fleeting = self.group().promote_after == PromoteAfter::Stopped;
        let is_free = |leaving: &Option<Leaving>| is_fleeting && leaving.as_ref().is_some_and(|one| one.is_proven);
        if !self.chosen.is_empty() || self.leaving.iter().any(is_free) {
            let stays = |at: usize| self.leaving[at].as_ref().is_none_or(|leaving| !leaving.is_proven);
            let kept = self.sight.record.places.iter().enumerate().filter(|(at, _)| stays(*at));
            let places = kept.map(|(_, place)| self.carried_over(place));
            let new = self.chosen.iter().map(|seen| Place {
                pod: seen.pod.name.clone(),
                uid: seen.pod.uid.clone(),
                token: None,
                is_told: false,
            });
            let (places, why) = (places.chain(new).collect(), self.why());
            return Some(Write::Record(Record { places, why, request: self.met_request() }));
        }
        let Record { places, request, why } = self.sight.record;
        let is_due = |place: &Place| self.sight.is_missing || (!place.is_told && self.is_told(place));
        let is_met = self.met_request() != *request;
        (is_met || places.iter().any(is_due)).then(|| {
            let places = places.iter().map(|place| self.carried_over(place)).collect();
            Write::Record(Record { places, why: why.clone(), request: self.met_request() })
        })
    }

    /// The last request that has been met: whoever is asked for has a place, or gets one now.
    fn met_request(&self) -> String {
        let stays = self.staying().filter_map(|at| self.sight.record.places.get(at)).map(|place| &place.pod);
        let mut active = stays.chain(self.chosen.iter().map(|seen| &seen.pod.name));
        let met = self.request().filter(|request| active.any(|name| *name == request.to));
        met.map_or(&self.sight.record.request, |request| &request.request).clone()
    }

    /// Why somebody becomes active.
    fn why(&self) -> String {
        let left: Vec<&str> =
            self.leaving.iter().flatten().filter(|one| one.is_proven).map(|one| one.why.as_str()).collect();
        let names: Vec<&str> = self.chosen.iter().map(|seen| seen.pod.name.as_str()).collect();
        let names = names.join(", ");
        match left.is_empty() {
            _ if names.is_empty() => format!("a place is free: {}", left.join(", ")),
            true => format!("{names} becomes active: a place is free"),
            false => format!("{names} becomes active: {}", left.join(", ")),
        }
    }

    /// A place whose token is not the version of the object any more, once that is written again.
    fn carried_over(&self, place: &Place) -> Place {
        Place { token: self.token(place), is_told: place.is_told || self.is_told(place), ..place.clone() }
    }

    fn token(&self, place: &Place) -> Option<u64> {
        place.token.or(self.sight.version)
    }

    fn is_told(&self, place: &Place) -> bool {
        self.token(place).is_some_and(|token| self.sight.told.contains(&(place.uid.clone(), token)))
    }

    /// The place of a pod that may be labelled as active now.
    fn standing_place(&self, uid: &str) -> Option<&'a Place> {
        let places = self.sight.record.places.iter().zip(&self.leaving);
        places
            .filter(|(_, leaving)| leaving.as_ref().is_none_or(|one| !one.is_drained))
            .map(|(place, _)| place)
            .find(|place| place.uid == uid)
    }

    /// Pods whose label says something else than standby, and must not.
    fn demotions(&self) -> Vec<Write> {
        let Group { label, .. } = self.group();
        let is_wrong = |seen: &&Seen<'_>| {
            let is_standby = seen.pod.label(&label.key) == Some(&label.standby);
            let is_chosen = self.chosen.iter().any(|one| one.pod.uid == seen.pod.uid);
            // What another controller has labelled keeps its traffic, where there was no record to say otherwise.
            let soon = is_chosen && (!self.is_labelled_active(seen.pod) || self.sight.version.is_none());
            !is_standby && !soon && self.standing_place(&seen.pod.uid).is_none()
        };
        let demote = |seen: &Seen<'_>| Write::Label {
            uid: seen.pod.uid.clone(),
            part: Part::Standby,
            token: None,
            why: self.why_not(seen),
        };
        self.sight.pods.iter().filter(is_wrong).map(demote).collect()
    }

    fn why_not(&self, seen: &Seen<'_>) -> String {
        let places = self.sight.record.places.iter().zip(&self.leaving);
        let own = places.filter(|(place, _)| place.uid == seen.pod.uid).find_map(|(_, leaving)| leaving.as_ref());
        match own {
            Some(leaving) => leaving.why.clone(),
            None => "it is not one of the active pods".to_owned(),
        }
    }

    /// Pods that the record names and whose label does not say so.
    fn promotions(&self) -> Vec<Write> {
        let places = self.sight.record.places.iter().zip(&self.leaving).filter(|(_, leaving)| leaving.is_none());
        let promote = |(place, _): (&Place, _)| {
            let (seen, token) = (self.by_uid.get(place.uid.as_str())?, self.token(place)?);
            let is_right = self.is_labelled_active(seen.pod) && seen.pod.token == Some(token) && !seen.pod.is_wanted;
            (!is_right).then(|| Write::Label {
                uid: place.uid.clone(),
                part: Part::Active,
                token: Some(token),
                why: self.sight.record.why.clone(),
            })
        };
        places.filter_map(promote).collect()
    }

    /// Pods on which an old write may still take effect, but for those that are written anyway, or are labelled as active
    /// in their turn.
    fn settlements(&self, demotions: &[Write]) -> Vec<Write> {
        let is_written = |seen: &Seen<'_>| demotions.iter().any(|write| write.uid() == Some(&*seen.pod.uid));
        let is_next = |seen: &Seen<'_>| {
            self.chosen.iter().any(|one| one.pod.uid == seen.pod.uid) || self.standing_place(&seen.pod.uid).is_some()
        };
        let is_open = |seen: &&Seen<'_>| !seen.is_settled && !is_written(seen) && !is_next(seen);
        self.sight.pods.iter().filter(is_open).map(|seen| Write::Settle { uid: seen.pod.uid.clone() }).collect()
    }

    /// Pods that have lost a critical container, once another one has their place or nobody can take it; and those that
    /// must end for another one. Pods that crash together are deleted one after the other.
    fn deletions(&self, is_promoting: bool, again_at: &mut Option<Instant>) -> Vec<Write> {
        let stay = self.sight.pods.iter().filter(|seen| !seen.pod.is_deleting);
        let due = stay.filter_map(|seen| self.deletion(seen, is_promoting));
        let due: Vec<Write> = due.take(self.sight.deletes_max).collect();
        if due.is_empty() || self.sight.now >= self.sight.deletes_from {
            return due;
        }
        *again_at = Some(self.sight.deletes_from);
        Vec::new()
    }

    fn deletion(&self, seen: &Seen<'_>, is_promoting: bool) -> Option<Write> {
        let delete = |why: String| Some(Write::Delete { uid: seen.pod.uid.clone(), why });
        let place = self.sight.record.places.iter().position(|place| place.uid == seen.pod.uid);
        let leaving = place.and_then(|at| self.leaving[at].as_ref());
        if let Some(leaving) = leaving.filter(|leaving| leaving.is_sent_away) {
            return delete(leaving.why.clone());
        }
        let container = seen.fallen?;
        let waits_for_its_end = leaving.is_some_and(|leaving| !leaving.is_proven);
        (waits_for_its_end || !is_promoting).then_some(())?;
        delete(format!("its critical container {container} has ended"))
    }

    fn notices(&self) -> Vec<Write> {
        if self.group().notice.is_none() {
            return Vec::new();
        }
        let places = self.sight.record.places.iter().zip(&self.leaving);
        let untold = places.filter(|(place, leaving)| leaving.is_none() && !place.is_told && !self.is_told(place));
        let tell = |(place, _): (&Place, _)| {
            let (pod, token) = (self.by_uid.get(place.uid.as_str())?.pod, self.token(place)?);
            pod.can_hear().then_some(())?;
            Some(Write::Tell { uid: place.uid.clone(), token })
        };
        untold.filter_map(tell).collect()
    }

    /// What keeps a place from being filled.
    fn waits(&self) -> Option<String> {
        let unproven = self.leaving.iter().flatten().find(|leaving| !leaving.is_proven);
        if let Some(Leaving { why, .. }) = unproven {
            let what = match self.group().promote_after {
                PromoteAfter::Removed => "the pod to be gone",
                PromoteAfter::Stopped => "the kubelet's word that its containers have ended",
            };
            return Some(format!("{why}: waiting for {what}"));
        }
        let taken = self.leaving.iter().filter(|leaving| leaving.is_none()).count() + self.chosen.len();
        let Group { active, .. } = self.group();
        let asked = self.wanted().map(|seen| &seen.pod.name).or(self.request().map(|request| &request.to));
        let is_met = |name: &&String| self.chosen.iter().any(|seen| seen.pod.name == **name);
        match asked.filter(|name| !is_met(name)) {
            Some(name) if self.met_request() == self.sight.record.request => {
                Some(format!("{name} was asked for and is not fit to become active"))
            }
            _ if taken < *active => Some(format!("{taken} of {active} places are taken: no pod is ready for the next")),
            _ => None,
        }
    }
}

impl Write {
    /// The pod that it is about.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Write::Record(_) => None,
            Write::Label { uid, .. } | Write::Settle { uid } | Write::Delete { uid, .. } | Write::Tell { uid, .. } => {
                Some(uid)
            }
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(super) mod tests;
