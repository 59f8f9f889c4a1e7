//! What is told of a declared group in its status: how it is, and the parts of its last failover.

use std::sync::Arc;
use std::time::Duration;

use election::Instant;

use super::super::apply::Known;
use super::super::declared::Origin;
use super::super::pod::Pod;
use super::super::record::Place;
use super::super::status::{self, Facts, Failover};
use super::{GroupState, Kept, Next, millis};

/// Between two reports on one group.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// What is told of a declared group.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Where it is told; nothing for a group that nobody has declared.
    pub origin: Option<Origin>,
    /// It is being told.
    is_open: bool,
    /// No more is told before this.
    not_before: Instant,
    /// Why none of its pods may be labelled.
    pub refusal: Option<String>,
    /// A pod that it selects and does not have.
    pub overlap: Option<String>,
    /// Services that send traffic to standbys too.
    pub misrouted: Option<String>,
    /// The last failover of this term.
    pub last: Option<Failover>,
}

impl GroupState {
    /// Waits until `at`, or longer, unless something is to be told, and may be.
    pub(super) fn report_or_wait(&mut self, at: Option<Instant>, may_report: bool, now: Instant) -> Next {
        let (report, later) = if may_report { self.due_report(now) } else { (None, None) };
        report.unwrap_or_else(|| Next::Wait(at.into_iter().chain(later).min()))
    }

    /// What is to be told of a declared group, or when to look again for it.
    fn due_report(&mut self, now: Instant) -> (Option<Next>, Option<Instant>) {
        let Some(origin) = self.report.origin.as_ref().filter(|_| !self.report.is_open) else { return (None, None) };
        let status = status::status(&self.facts(origin.generation), &origin.status, jiff::Timestamp::now());
        if status::says(&origin.status, &status) {
            return (None, None);
        }
        if now < self.report.not_before {
            return (None, Some(self.report.not_before));
        }
        let next = Next::Report(Arc::clone(&self.group), origin.clone(), status);
        (self.report.is_open, self.report.not_before) = (true, now + REPORT_PAUSE);
        (Some(next), None)
    }

    fn unaccepted(&self) -> Option<(&'static str, &str)> {
        let refusal = self.report.refusal.as_deref().map(|why| ("LabelOfOwner", why));
        refusal.or(self.report.overlap.as_deref().map(|why| ("OverlappingSelector", why)))
    }

    pub(super) fn facts(&self, generation: i64) -> Facts<'_> {
        let (version, transitions) = match &self.known {
            Known::Is(stored) | Known::Lost(stored) => (Some(stored.version), stored.transitions),
            Known::Absent | Known::Nothing => (None, 0),
        };
        let label = &self.group.label;
        let is_labelled = |pod: &&Pod| pod.label(&label.key) == Some(&label.active);
        let shown = |place: &Place| {
            let pod = self.pods.get(&place.uid).map(|kept| &kept.shown.pod).filter(is_labelled)?;
            Some((pod.name.clone(), pod.uid.clone(), place.token.or(version)?))
        };
        let could = |kept: &&Kept| {
            let pod = &kept.shown.pod;
            pod.is_ready && !pod.is_deleting && !pod.has_ended && kept.fallen.is_none()
        };
        Facts {
            group: &self.group,
            generation,
            active: self.record().places.iter().filter_map(shown).collect(),
            pods: self.pods.len(),
            ready: self.pods.values().filter(could).count(),
            transitions,
            request: &self.record().request,
            unaccepted: self.unaccepted(),
            misrouted: self.report.misrouted.as_deref(),
            waits: self.waits.as_deref(),
            last: self.report.last.as_ref(),
        }
    }

    /// What became of a report: the object as it is now, if that is known.
    pub fn reported(&mut self, now: Option<Origin>) {
        self.report.is_open = false;
        if let (Some(now), Some(origin)) = (now, &mut self.report.origin)
            && now.uid == origin.uid
        {
            *origin = now;
        }
    }

    /// Another one is active. Whoever had been so without a pause is only labelled anew.
    pub(super) fn note_failover(&mut self, uid: &str, why: &str, now: Instant) {
        let (Some(since), Some(recorded)) = (self.since, self.recorded) else { return };
        let Some(name) = self.pods.get(uid).map(|kept| kept.shown.pod.name.clone()) else { return };
        let (recorded_ms, labelled_ms) = (millis(recorded.since(since)), millis(now.since(recorded)));
        let (at, why) = (jiff::Timestamp::now(), why.to_owned());
        // Several that became active by one change are told of together.
        let before = self.report.last.take().filter(|last| last.why == why && last.recorded_ms == recorded_ms);
        let mut pods = before.map_or_else(Vec::new, |last| last.pods);
        pods.push(name);
        self.report.last = Some(Failover { at, why, pods, recorded_ms, labelled_ms });
    }
}
