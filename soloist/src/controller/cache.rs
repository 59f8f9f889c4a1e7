//! What the controller knows of one group, and remembers of it for as long as its term lasts.

mod concerns;
mod report;
mod rest;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use election::Instant;
use serde_json::{Value, json};

use super::apply::{End, Ground, Known, Note, Outcome};
use super::critical;
use super::declared::Origin;
use super::group::{Group, PromoteAfter};
use super::node::Nodes;
use super::pace::{Deletions, Pace};
use super::plan::{self, Part, Plan, Seen, Sight, Write};
use super::pod::Pod;
use super::pods::Shown;
use super::record::Record;
use crate::route::owner::Owner;

use self::report::Report;

/// So many times in a row a write that met a conflict is planned anew at once: the kubelet writes in pods too.
const CONFLICTS_FREE: u32 = 2;
/// So much is remembered to tell people of; more is left out.
const NOTES_MAX: usize = 16;
/// So many pods that were seen to end are remembered, besides those of the record.
const STOPPED_MAX: usize = 64;

/// One pod, and what is remembered of it.
#[derive(Clone, Debug)]
struct Kept {
    shown: Shown,
    /// The critical container that has ended.
    fallen: Option<String>,
    /// It came after this term had begun: nothing older can quote its version.
    is_new: bool,
    /// A write of ours may still take effect on it.
    is_open: bool,
    /// It is being told that it is active. Nothing waits for that.
    is_being_told: bool,
    tells: Pace,
}

/// How a pod came to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was created in this term.
    New,
    /// It was in the first list.
    Listed,
    /// It was another group's, or nobody's: what was sent for that group may still take effect on it.
    Moved,
}

/// One group.
#[derive(Debug)]
pub struct GroupState {
    group: Arc<Group>,
    pods: BTreeMap<String, Kept>,
    known: Known,
    /// Owners of its pods that were looked at.
    looked_at: BTreeSet<Owner>,
    seen_stopped: BTreeSet<String>,
    told: BTreeSet<(String, u64)>,
    deletions: Deletions,
    writes: Pace,
    /// A round of writes is under way.
    pub is_busy: bool,
    /// When the first of the news came that the present rounds are about.
    pub since: Option<Instant>,
    /// When the record of the present change was stored.
    recorded: Option<Instant>,
    waits: Option<String>,
    /// Since when nobody could take over, and whether that was said.
    alone: Option<(Instant, bool)>,
    report: Report,
    /// What there is to tell people, once nothing is to be written any more.
    notes: Vec<Note>,
    /// Nobody wants the group any more, or nothing is left of it: nothing is begun for it, and it is forgotten.
    pub is_retired: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is to be done for a group.
pub enum Next {
    /// Nothing now.
    Wait(Option<Instant>),
    /// Its record is read first.
    Read(Arc<Group>),
    /// These owners are looked at before any of their pods is labelled.
    Look(Arc<Group>, Vec<Owner>),
    /// These are written.
    Write(Box<Ground>, Vec<Write>),
    /// These are told, beside everything else.
    Tell(Box<Ground>, Vec<Write>),
    /// This becomes the status, beside everything else.
    Report(Arc<Group>, Origin, Value),
}

/// What a group may be planned with, besides what it knows itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The token of the term.
    pub term: u64,
    /// Whether there is room for telling a pod something.
    pub has_room: bool,
    /// Whether there is room for another report.
    pub may_report: bool,
    /// All nodes.
    pub nodes: &'a Nodes,
    /// The time.
    pub now: Instant,
}

impl GroupState {
    /// A group of which nothing is known yet.
    pub fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            pods: BTreeMap::new(),
            known: Known::Nothing,
            looked_at: BTreeSet::new(),
            seen_stopped: BTreeSet::new(),
            told: BTreeSet::new(),
            deletions: Deletions::default(),
            writes: Pace::default(),
            is_busy: false,
            since: None,
            recorded: None,
            waits: None,
            alone: None,
            report: Report::default(),
            notes: Vec::new(),
            is_retired: false,
        }
    }

    /// All its pods.
    pub fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.pods.values().map(|kept| &kept.shown)
    }

    /// A pod is so now; `arrival` counts where it is not one of the group yet. Whether anything has changed by it.
    pub fn see(&mut self, shown: Shown, arrival: Arrival) -> bool {
        let group = Arc::clone(&self.group);
        match self.pods.get_mut(&shown.pod.uid) {
            // Told late, or told again.
            Some(kept) if kept.shown.pod.version >= shown.pod.version => false,
            Some(kept) => {
                let fallen = critical::fallen(Some(&kept.shown.pod), &shown.pod, &group);
                kept.fallen = kept.fallen.take().or(fallen);
                kept.shown = shown;
                true
            }
            None => {
                let fallen = critical::fallen(None, &shown.pod, &group);
                let (is_new, is_open) = (arrival == Arrival::New, arrival == Arrival::Moved);
                let (is_being_told, tells) = (false, Pace::default());
                let kept = Kept { fallen, is_new, is_open, is_being_told, tells, shown };
                self.pods.insert(kept.shown.pod.uid.clone(), kept);
                true
            }
        }
    }

    /// A pod is gone. What the kubelet said of it before is remembered, and what an operator says of its node.
    pub fn lose(&mut self, last: &Pod, nodes: &Nodes) {
        let known = self.pods.remove(&last.uid);
        let node = last.node.as_ref().and_then(|name| nodes.get(name));
        let was_stopped = last.is_stopped()
            || node.is_some_and(|node| node.is_out_of_service)
            || known.is_some_and(|kept| kept.shown.pod.is_stopped());
        if was_stopped && self.group.promote_after == PromoteAfter::Stopped {
            self.remember_stopped(&last.uid);
        }
    }

    /// The record may be about to name it: whoever is not in it yet is remembered as well, as long as there is room.
    fn remember_stopped(&mut self, uid: &str) {
        if self.seen_stopped.len() >= STOPPED_MAX {
            let recorded: Vec<&str> = self.record().places.iter().map(|place| place.uid.as_str()).collect();
            let kept = self.seen_stopped.iter().filter(|uid| recorded.contains(&uid.as_str())).cloned().collect();
            self.seen_stopped = kept;
        }
        self.seen_stopped.insert(uid.to_owned());
    }

    /// A pod is gone, and nobody saw how.
    pub fn lose_unseen(&mut self, uid: &str, nodes: &Nodes) {
        if let Some(kept) = self.pods.get(uid) {
            let last = kept.shown.pod.clone();
            self.lose(&last, nodes);
        }
    }

    /// A pod is not one of this group any more, and goes on as it is.
    pub fn part(&mut self, uid: &str) -> Option<Shown> {
        Some(self.pods.remove(uid)?.shown)
    }

    /// All its pods are not its own any more.
    pub fn part_all(&mut self) -> impl Iterator<Item = Shown> {
        std::mem::take(&mut self.pods).into_values().map(|kept| kept.shown)
    }

    /// Whether one of its pods is on this node.
    pub fn is_on(&self, node: &str) -> bool {
        self.pods.values().any(|kept| kept.shown.pod.node.as_deref() == Some(node))
    }

    /// What is wanted of it now.
    pub fn want(&mut self, group: Arc<Group>, origin: Origin) {
        (self.group, self.report.origin, self.is_retired) = (group, Some(origin), false);
    }

    /// A pod that it selects is another group's.
    pub fn overlap(&mut self, pod: &str, owner: &Group) {
        let why =
            || format!("the pod {pod} is selected by the older group {} too, and is not this group's", owner.name);
        self.report.overlap.get_or_insert_with(why);
    }

    /// Its pods are given out anew.
    pub fn forget_overlap(&mut self) {
        self.report.overlap = None;
    }

    /// What was read of its record.
    pub fn learn(&mut self, known: Known) {
        self.known = known;
    }

    fn record(&self) -> &Record {
        static NOBODY: Record = Record { places: Vec::new(), why: String::new(), request: String::new() };
        match &self.known {
            Known::Is(stored) | Known::Lost(stored) => &stored.record,
            Known::Absent | Known::Nothing => &NOBODY,
        }
    }

    /// What is to be done now. Nobody is told anything unless there is room for it: then this is asked once more.
    pub fn next(&mut self, around: &Surroundings<'_>) -> Next {
        let Surroundings { has_room, may_report, now, .. } = *around;
        let is_unknown = self.pods.is_empty() && self.known == Known::Nothing && self.report.origin.is_none();
        self.is_retired |= is_unknown && !self.is_busy;
        if self.is_busy || self.is_retired {
            return Next::Wait(None);
        }
        if let Some(at) = self.writes.pause(now) {
            return self.report_or_wait(Some(at), may_report && self.report.refusal.is_some(), now);
        }
        if self.known == Known::Nothing {
            return Next::Read(Arc::clone(&self.group));
        }
        let owners = self.unknown_owners();
        if !owners.is_empty() {
            return Next::Look(Arc::clone(&self.group), owners);
        }
        self.report.refusal = None;
        let Plan { writes, again_at, waits } = self.plan(around);
        self.say(waits);
        let (tells, writes): (Vec<Write>, Vec<Write>) =
            writes.into_iter().partition(|write| matches!(write, Write::Tell { .. }));
        let (tells, later) = self.due_tells(tells, has_room, now);
        if !tells.is_empty() {
            return Next::Tell(Box::new(self.ground(&tells)), tells);
        }
        if writes.is_empty() {
            (self.since, self.recorded) = (None, None);
            let later_still = [self.warn_if_alone(now), self.retire_if_over(now)].into_iter().flatten();
            return self.report_or_wait(again_at.into_iter().chain(later).chain(later_still).min(), may_report, now);
        }
        Next::Write(Box::new(self.ground(&writes)), writes)
    }

    fn ground(&self, writes: &[Write]) -> Ground {
        let uids: Vec<&str> = writes.iter().filter_map(Write::uid).collect();
        let pods = self.pods.iter().filter(|(uid, _)| uids.contains(&uid.as_str()));
        let pods = pods.map(|(_, kept)| kept.shown.clone()).collect();
        Ground { group: Arc::clone(&self.group), known: self.known.clone(), pods }
    }

    /// Who is to be told now, and when to look again for the others.
    fn due_tells(&mut self, tells: Vec<Write>, has_room: bool, now: Instant) -> (Vec<Write>, Option<Instant>) {
        let mut later: Option<Instant> = None;
        let mut is_due = |write: &Write| {
            let Some(kept) = write.uid().and_then(|uid| self.pods.get_mut(uid)) else { return false };
            if kept.is_being_told {
                return false;
            }
            let pause = kept.tells.pause(now);
            later = later.into_iter().chain(pause).min();
            kept.is_being_told = pause.is_none() && has_room;
            kept.is_being_told
        };
        let due = tells.into_iter().filter(|write| is_due(write)).collect();
        (due, later)
    }

    /// What became of telling.
    pub fn take_told(&mut self, outcomes: Vec<(Write, Outcome)>, nodes: &Nodes, now: Instant) {
        for (write, outcome) in outcomes {
            let is_told = self.take_one(&write, outcome, nodes, now);
            let Some(kept) = write.uid().and_then(|uid| self.pods.get_mut(uid)) else { continue };
            kept.is_being_told = false;
            match is_told {
                true => kept.tells.succeed(),
                false => kept.tells.fail(0, now),
            }
        }
    }

    fn plan(&self, around: &Surroundings<'_>) -> Plan {
        let Surroundings { term, nodes, now, .. } = *around;
        let seen = |kept: &'_ Kept| kept.is_new || kept.shown.pod.term == Some(term);
        let pods: Vec<Seen<'_>> = self
            .pods
            .values()
            .map(|kept| Seen {
                pod: &kept.shown.pod,
                fallen: kept.fallen.as_deref(),
                is_settled: seen(kept) && !kept.is_open,
                node: kept.shown.pod.node.as_ref().and_then(|name| nodes.get(name)),
            })
            .collect();
        let version = match &self.known {
            Known::Is(stored) | Known::Lost(stored) => Some(stored.version),
            Known::Absent | Known::Nothing => None,
        };
        plan::plan(&Sight {
            group: &self.group,
            pods: &pods,
            record: self.record(),
            version,
            is_missing: matches!(self.known, Known::Lost(_)),
            seen_stopped: &self.seen_stopped,
            told: &self.told,
            now,
            deletes_from: self.deletions.next(),
            deletes_max: self.deletions.room(now),
        })
    }

    /// What is waited for, once.
    fn say(&mut self, waits: Option<String>) {
        if self.waits != waits {
            if let Some(waits) = &waits {
                tracing::info!("{}: {waits}", self.group);
            }
            self.waits = waits;
        }
    }

    /// What became of a round of writes.
    pub fn take(&mut self, outcomes: Vec<(Write, Outcome)>, nodes: &Nodes, now: Instant) {
        let (mut has_failed, mut are_conflicts) = (false, true);
        for (write, outcome) in outcomes {
            let note = self.note(&write, &outcome).filter(|_| self.notes.len() < NOTES_MAX);
            self.notes.extend(note);
            let is_conflict = outcome.is_conflict();
            if !self.take_one(&write, outcome, nodes, now) {
                (has_failed, are_conflicts) = (true, are_conflicts && is_conflict);
            }
        }
        match has_failed {
            false => self.writes.succeed(),
            true => self.writes.fail(if are_conflicts { CONFLICTS_FREE } else { 0 }, now),
        }
    }

    /// What there is to tell people now: nothing while a round of writes is under way, which an Event would only delay.
    pub fn take_notes(&mut self) -> Vec<Note> {
        if self.is_busy { Vec::new() } else { std::mem::take(&mut self.notes) }
    }

    /// The group.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// What an operator wants to find in the Events of pod and Lease.
    fn note(&self, write: &Write, outcome: &Outcome) -> Option<Note> {
        let Outcome::Pod { uid, end: End::Done, .. } = outcome else { return None };
        let pod = &self.pods.get(uid)?.shown.pod;
        let name = &pod.name;
        let (reason, message) = match write {
            Write::Label { part: Part::Active, token, .. } => {
                ("Active", format!("{name} is active, token {}: {}", token.unwrap_or_default(), self.record().why))
            }
            Write::Label { part: Part::Standby, why, .. } => ("Standby", format!("{name} stands by: {why}")),
            Write::Delete { why, .. } => ("Deleted", format!("{name} was deleted: {why}")),
            Write::Record(_) | Write::Settle { .. } | Write::Tell { .. } => return None,
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": name, "uid": uid});
        let lease = match &self.known {
            Known::Is(stored) => Some(json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "namespace": self.group.namespace,
                "name": self.group.name, "uid": stored.uid,
            })),
            Known::Absent | Known::Lost(_) | Known::Nothing => None,
        };
        let objects = lease.into_iter().chain([pod]).collect();
        Some(Note { objects, reason, message, since: jiff::Timestamp::now() })
    }

    /// Whether there is no need to wait before the next try.
    fn take_one(&mut self, write: &Write, outcome: Outcome, nodes: &Nodes, now: Instant) -> bool {
        match outcome {
            Outcome::Over => true,
            Outcome::Failed(why) => {
                tracing::warn!("{}: {why}", self.group);
                false
            }
            Outcome::Told { uid, token } => self.told.insert((uid, token)),
            Outcome::Record { known, is_ours } => {
                if let Write::Record(record) = write
                    && is_ours
                    && record.why != self.record().why
                {
                    tracing::info!("{}: {}", self.group, record.why);
                    self.recorded = Some(now);
                }
                self.known = match (known, std::mem::replace(&mut self.known, Known::Nothing)) {
                    (Known::Absent, Known::Is(stored) | Known::Lost(stored)) => {
                        tracing::warn!("{}: somebody has deleted the record: it is written anew", self.group);
                        Known::Lost(stored)
                    }
                    (known, _) => known,
                };
                is_ours
            }
            Outcome::Pod { uid, end: End::Gone, .. } => {
                self.lose_unseen(&uid, nodes);
                true
            }
            Outcome::Pod { uid, shown, end } => {
                let is_done = end == End::Done;
                if is_done {
                    self.tell_of(write, &uid, now);
                }
                // One that was lost meanwhile does not come back by an answer that was late.
                if let Some(shown) = shown.filter(|_| self.pods.contains_key(&uid)) {
                    self.see(*shown, Arrival::Moved);
                }
                if let Some(kept) = self.pods.get_mut(&uid) {
                    kept.is_open = end == End::Unknown || (kept.is_open && !is_done);
                }
                is_done
            }
        }
    }

    /// Says what was done to a pod.
    fn tell_of(&mut self, write: &Write, uid: &str, now: Instant) {
        let (group, name) = (&self.group, self.pods.get(uid).map_or(uid, |kept| kept.shown.pod.name.as_str()));
        match write {
            Write::Label { part: Part::Active, token, why, .. } => {
                let took_ms = self.since.map_or(0, |since| millis(now.since(since)));
                let token = token.unwrap_or_default();
                tracing::info!("{group}: {name} is active, token {token}, {took_ms} ms after the news: {why}");
                self.note_failover(uid, why, now);
            }
            Write::Label { part: Part::Standby, why, .. } => tracing::info!("{group}: {name} stands by: {why}"),
            Write::Delete { why, .. } => {
                tracing::warn!("{group}: {name} was deleted: {why}");
                self.deletions.note(now);
            }
            Write::Record(_) | Write::Settle { .. } | Write::Tell { .. } => {}
        }
    }

    /// Its record could not be read.
    pub fn fail_to_read(&mut self, why: &str, now: Instant) {
        tracing::warn!("{why}");
        self.writes.fail(0, now);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::controller::plan::tests::{group, pod};
    use crate::controller::pod::State;

    pub fn shown(name: &str) -> Shown {
        Shown { pod: pod(name), object: None }
    }

    pub fn with_a() -> (GroupState, Write) {
        let mut state = GroupState::new(Arc::new(group()));
        state.see(shown("a"), Arrival::New);
        (state, Write::Settle { uid: "uid-a".to_owned() })
    }

    fn outcome(end: End) -> Outcome {
        Outcome::Pod { uid: "uid-a".to_owned(), shown: Some(Box::new(shown("a"))), end }
    }

    #[test]
    fn an_answer_that_comes_after_its_pod_is_gone_does_not_bring_it_back() {
        let now = Instant::from_nanos(1);
        for end in [End::Done, End::Never, End::Unknown] {
            let (mut state, write) = with_a();
            state.lose(&pod("a"), &Nodes::new());
            state.take(vec![(write, outcome(end))], &Nodes::new(), now);
            assert_eq!(state.shown().count(), 0, "{end:?}");
        }
        let (mut state, write) = with_a();
        state.take(vec![(write, outcome(End::Gone))], &Nodes::new(), now);
        assert_eq!(state.shown().count(), 0, "the API server does not know it any more");
    }

    #[test]
    fn people_are_told_when_nothing_is_being_written_any_more() {
        let (mut state, _) = with_a();
        let write = Write::Label { uid: "uid-a".into(), part: Part::Standby, token: None, why: "w".into() };
        state.take(vec![(write, outcome(End::Done))], &Nodes::new(), Instant::from_nanos(1));
        state.is_busy = true;
        assert!(state.take_notes().is_empty());
        state.is_busy = false;
        let reasons: Vec<_> = state.take_notes().into_iter().map(|note| note.reason).collect();
        assert_eq!(reasons, ["Standby"]);
        assert!(state.take_notes().is_empty(), "told twice");
    }

    #[test]
    fn a_pod_of_another_group_is_settled_before_anybody_is_labelled() {
        let now = Instant::from_nanos(1);
        for (from, is_settled) in [(Arrival::New, true), (Arrival::Listed, true), (Arrival::Moved, false)] {
            let mut state = GroupState::new(Arc::new(group()));
            let mut own = shown("b");
            own.pod.term = Some(7);
            state.see(own, from);
            state.see(shown("a"), Arrival::New);
            state.learn(Known::Absent);
            let nodes = Nodes::new();
            let around = Surroundings { term: 7, has_room: true, may_report: true, nodes: &nodes, now };
            let Next::Write(_, writes) = state.next(&around) else { panic!("nothing is written") };
            let settles = writes.contains(&Write::Settle { uid: "uid-b".to_owned() });
            assert_eq!(!settles, is_settled, "{from:?}");
        }
    }

    #[test]
    fn the_end_of_a_pod_is_remembered_before_the_record_names_it() {
        let stopped = Group { promote_after: PromoteAfter::Stopped, ..group() };
        let mut state = GroupState::new(Arc::new(stopped));
        let ended = |name: &str| {
            let mut pod = pod(name);
            pod.has_ended = true;
            pod.containers[0].state = State::Ended;
            pod
        };
        for count in 0..=STOPPED_MAX {
            state.lose(&ended(&format!("p{count}")), &Nodes::new());
        }
        assert!(state.seen_stopped.contains(&format!("uid-p{STOPPED_MAX}")) && state.seen_stopped.len() <= STOPPED_MAX);
        state.lose(&pod("runs"), &Nodes::new());
        assert!(!state.seen_stopped.contains("uid-runs"));
    }

    #[test]
    fn a_conflict_is_planned_anew_at_once_but_not_for_ever() {
        let now = Instant::from_nanos(1);
        let (mut state, write) = with_a();
        for is_paused in [false, false, true] {
            state.take(vec![(write.clone(), outcome(End::Never))], &Nodes::new(), now);
            assert_eq!(state.writes.pause(now).is_some(), is_paused);
        }
        state.take(vec![(write.clone(), outcome(End::Done))], &Nodes::new(), now);
        assert_eq!(state.writes.pause(now), None);
        state.take(vec![(write, Outcome::Failed("why".to_owned()))], &Nodes::new(), now);
        assert!(state.writes.pause(now).is_some(), "no conflict");
    }
}
