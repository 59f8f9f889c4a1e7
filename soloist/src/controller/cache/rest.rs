//! What is left of a group when its pods are gone.

use election::Instant;

use super::GroupState;
use crate::controller::apply::Known;

impl GroupState {
    /// One that nobody has declared is there for as long as it has pods. Then nothing is kept of it but its record: whoever
    /// comes later finds everything there, also the token. When to look again for it.
    pub(super) fn retire_if_over(&mut self, now: Instant) -> Option<Instant> {
        let record = self.record();
        let is_remembered = |uid: &String| record.place_of(uid).is_some();
        // What only this term knows: a record to be written anew, or a pod of the record that was seen to end.
        let is_owed = matches!(self.known, Known::Lost(_)) || self.seen_stopped.iter().any(is_remembered);
        if !self.pods.is_empty() || self.report.origin.is_some() || is_owed {
            return None;
        }
        // A group whose pods all crash is not hammered, though there may be none for a moment.
        let due = self.deletions.forgotten_at().filter(|at| *at > now);
        self.is_retired = due.is_none();
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::controller::cache::tests::shown;
    use crate::controller::cache::{Arrival, Next, Surroundings};
    use crate::controller::group::{Group, PromoteAfter};
    use crate::controller::node::Nodes;
    use crate::controller::plan::tests::{group, pod};
    use crate::controller::record::Stored;

    /// A group whose record names `a`, which is gone.
    fn emptied(promote_after: PromoteAfter) -> GroupState {
        let mut state = GroupState::new(Arc::new(Group { promote_after, ..group() }));
        state.see(shown("a"), Arrival::New);
        let record = json!({"places": [{"pod": "a", "uid": "uid-a", "token": 7}]}).to_string();
        let metadata = json!({"uid": "u", "resourceVersion": "9", "annotations": {"soloist.dev/active-pods": record}});
        state.learn(Known::Is(Box::new(Stored::read(json!({"metadata": metadata})).unwrap())));
        state.lose(&pod("a"), &Nodes::new());
        state
    }

    fn next(state: &mut GroupState, now: Instant) -> Next {
        let nodes = Nodes::new();
        state.next(&Surroundings { term: 7, has_room: true, may_report: true, nodes: &nodes, now })
    }

    #[test]
    fn a_group_of_which_only_the_record_is_left_is_forgotten() {
        let now = Instant::from_nanos(1);
        for promote_after in [PromoteAfter::Removed, PromoteAfter::Stopped] {
            let mut state = emptied(promote_after);
            assert!(matches!(next(&mut state, now), Next::Wait(None)) && state.is_retired, "{promote_after:?}");
        }
        let mut unread = GroupState::new(Arc::new(group()));
        assert!(matches!(next(&mut unread, now), Next::Wait(None)) && unread.is_retired);
    }

    #[test]
    fn one_of_which_this_term_knows_more_is_kept() {
        let now = Instant::from_nanos(1);
        let mut seen_stopped = emptied(PromoteAfter::Stopped);
        seen_stopped.seen_stopped.insert("uid-a".to_owned());
        assert!(matches!(next(&mut seen_stopped, now), Next::Write(..)) && !seen_stopped.is_retired);
        let mut lost = emptied(PromoteAfter::Removed);
        let Known::Is(stored) = lost.known.clone() else { panic!("no record") };
        lost.learn(Known::Lost(stored));
        assert!(matches!(next(&mut lost, now), Next::Write(..)) && !lost.is_retired);
        let mut busy = emptied(PromoteAfter::Removed);
        busy.is_busy = true;
        assert!(matches!(next(&mut busy, now), Next::Wait(None)) && !busy.is_retired);
        let mut crashed = emptied(PromoteAfter::Removed);
        crashed.deletions.note(now);
        let Next::Wait(Some(at)) = next(&mut crashed, now) else { panic!("nobody looks again") };
        assert!(!crashed.is_retired);
        assert!(matches!(next(&mut crashed, at), Next::Wait(None)) && crashed.is_retired);
    }
}
