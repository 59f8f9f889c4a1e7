//! What only a person can put right: a label that an owner selects by, a Service for all pods, too few pods.

use std::collections::BTreeSet;
use std::time::Duration;

use election::Instant;

use super::super::service::Services;
use super::GroupState;
use crate::route::owner::Owner;

/// So long too few pods are borne in silence: one that is replaced is soon there.
const ALONE: Duration = Duration::from_secs(10);
/// So long a group is left alone whose pods would be lost by a label.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

impl GroupState {
    /// Owners that nobody has looked at: a label that one of them selects by must never be changed, or it makes pod after
    /// pod. One that still owns a pod which was labelled before does not select by the label.
    pub(super) fn unknown_owners(&self) -> Vec<Owner> {
        let (mut unknown, mut proven) = (BTreeSet::new(), BTreeSet::new());
        for pod in self.pods.values().map(|kept| &kept.shown.pod) {
            let Some(owner) = pod.owner.as_deref() else { continue };
            let was_labelled = pod.term.is_some() && pod.label(&self.group.label.key).is_some();
            if was_labelled { &mut proven } else { &mut unknown }.insert(owner);
        }
        let is_unknown = |owner: &&Owner| !proven.contains(*owner) && !self.looked_at.contains(*owner);
        unknown.into_iter().filter(is_unknown).cloned().collect()
    }

    /// What was found out about `owners`: why the label must not be changed.
    pub fn learn_of(&mut self, owners: Vec<Owner>, refusal: Option<String>, now: Instant) {
        match &refusal {
            None => self.looked_at.extend(owners),
            Some(why) => {
                if self.report.refusal.as_ref() != Some(why) {
                    tracing::warn!("{}: {why}", self.group);
                }
                self.waits = Some(why.clone());
                self.since = None;
                self.writes.hold(now + REFUSED_PAUSE);
            }
        }
        self.report.refusal = refusal;
    }

    /// Which Services send its traffic. Whether that is another answer than before.
    pub fn judge(&mut self, services: &Services) -> bool {
        let labels = self.pods.values().next().map(|kept| &kept.shown.pod.labels);
        let found = labels.and_then(|labels| services.astray(&self.group, labels));
        let is_other = found != self.report.misrouted;
        if let Some(why) = found.as_ref().filter(|_| is_other) {
            tracing::warn!("{}: {why}", self.group);
        }
        self.report.misrouted = found;
        is_other
    }

    /// Warns once where there are too few pods for longer than one needs to be replaced. When to look again for it.
    pub(super) fn warn_if_alone(&mut self, now: Instant) -> Option<Instant> {
        let stay = self.pods.values().filter(|kept| !kept.shown.pod.is_deleting && !kept.shown.pod.has_ended).count();
        if stay == 0 || stay > self.group.active {
            self.alone = None;
            return None;
        }
        let (since, is_said) = self.alone.get_or_insert((now, false));
        let due = *since + ALONE;
        if now >= due && !std::mem::replace(is_said, true) {
            let wanted = self.group.active + 1;
            tracing::warn!("{}: {stay} pods, of {wanted} that are needed for one to take over", self.group);
        }
        (!*is_said).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::tests::{shown, with_a};
    use super::super::{Arrival, Next, Surroundings};
    use super::*;
    use crate::controller::apply::Known;
    use crate::controller::node::Nodes;
    use crate::controller::plan::tests::{group, pod};
    use crate::controller::record::Stored;

    fn around(nodes: &Nodes, now: Instant) -> Surroundings<'_> {
        Surroundings { term: 7, has_room: true, may_report: true, nodes, now }
    }

    #[test]
    fn a_group_is_left_alone_while_an_owner_knows_its_pods_by_the_label() {
        let (nodes, start) = (Nodes::new(), Instant::from_nanos(1));
        let mut state = GroupState::new(Arc::new(group()));
        let mut owned = shown("a");
        owned.pod.owner = Some(Box::default());
        state.see(owned, Arrival::Listed);
        state.learn(Known::Absent);
        let Next::Look(_, owners) = state.next(&around(&nodes, start)) else { panic!("nobody looks") };
        state.learn_of(owners, Some("it would lose the pod".to_owned()), start);
        assert_eq!(state.waits.as_deref(), Some("it would lose the pod"));
        let again = start + REFUSED_PAUSE;
        assert!(matches!(state.next(&around(&nodes, start)), Next::Wait(Some(at)) if at == again));
        let Next::Look(_, owners) = state.next(&around(&nodes, again)) else { panic!("nobody looks again") };
        state.learn_of(owners, None, again);
        assert!(matches!(state.next(&around(&nodes, again)), Next::Write(..)));
        // Whoever leads next sees by the pod itself that its owner bears with the label.
        state.looked_at.clear();
        assert!(matches!(state.next(&around(&nodes, again)), Next::Look(..)));
        let mut labelled = shown("a");
        labelled.pod.version += 1;
        labelled.pod.term = Some(3);
        labelled.pod.labels.insert("role".to_owned(), "standby".to_owned());
        labelled.pod.owner = Some(Box::default());
        state.see(labelled, Arrival::Listed);
        let stored = Stored::read(json!({"metadata": {"uid": "u", "resourceVersion": "9"}})).unwrap();
        state.learn(Known::Is(Box::new(stored)));
        assert!(!matches!(state.next(&around(&nodes, again)), Next::Look(..)));
    }

    #[test]
    fn too_few_pods_are_told_of_once_and_only_when_that_lasts() {
        let (start, mut state) = (Instant::from_nanos(1), with_a().0);
        assert_eq!(state.warn_if_alone(start), Some(start + ALONE));
        assert_eq!(state.warn_if_alone(start + ALONE), None);
        assert_eq!(state.alone, Some((start, true)));
        state.see(shown("b"), Arrival::New);
        assert_eq!((state.warn_if_alone(start + ALONE), state.alone), (None, None));
        state.lose(&pod("b"), &Nodes::new());
        assert_eq!(state.warn_if_alone(start + ALONE * 2), Some(start + ALONE * 3));
    }
}
