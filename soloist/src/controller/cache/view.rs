//! A group as people see it.

use super::{GroupState, Kept};
use crate::controller::apply::Known;
use crate::controller::gallery::{Active, Member, Standing, View};

/// So many pods of a group are shown; all of them are counted.
const MEMBERS_MAX: usize = 32;

impl GroupState {
    /// What is known of it; nothing before its record was read.
    pub fn view(&self) -> Option<View> {
        // One that nobody has declared may stay a while after its pods.
        let is_hidden = self.is_retired || (self.pods.is_empty() && self.report.origin.is_none());
        if self.known == Known::Nothing || is_hidden {
            return None;
        }
        let facts = self.facts(0);
        let active = facts.active.into_iter().map(|(pod, _, fencing_token)| Active { pod, fencing_token });
        let active: Vec<Active> = active.collect();
        let standing = match active.len() {
            0 => Standing::Nobody,
            some if some < self.group.active => Standing::Short,
            _ if facts.ready <= self.group.active => Standing::Lone,
            _ => Standing::Fine,
        };
        Some(View {
            namespace: self.group.namespace.clone(),
            name: self.group.name.clone(),
            standing,
            paused: self.group.is_paused,
            declared: self.report.origin.is_some(),
            wanted: self.group.active,
            active,
            pods: facts.pods,
            ready: facts.ready,
            members: self.members(),
            transitions: facts.transitions,
            reason: self.record().why.clone(),
            waits: self.waits.clone(),
            concern: facts.unaccepted.map(|(_, why)| why).or(facts.misrouted).map(str::to_owned),
            last_failover: self.report.last.as_ref().map(Into::into),
        })
    }

    fn members(&self) -> Vec<Member> {
        let mut all: Vec<(bool, &Kept)> =
            self.pods.values().map(|kept| (self.role(kept) != Some("active"), kept)).collect();
        all.sort_unstable_by(|(a, one), (b, other)| (a, &one.shown.pod.name).cmp(&(b, &other.shown.pod.name)));
        all.into_iter().take(MEMBERS_MAX).map(|(_, kept)| self.member(kept)).collect()
    }

    fn role(&self, kept: &Kept) -> Option<&'static str> {
        let label = &self.group.label;
        match kept.shown.pod.label(&label.key) {
            Some(value) if value == label.active => Some("active"),
            Some(value) if value == label.standby => Some("standby"),
            _ => None,
        }
    }

    fn member(&self, kept: &Kept) -> Member {
        let pod = &kept.shown.pod;
        let trouble = match &kept.fallen {
            _ if pod.has_ended => Some("has ended".to_owned()),
            Some(container) => Some(format!("its critical container {container} has ended")),
            None if pod.is_deleting => Some("is being deleted".to_owned()),
            None => None,
        };
        Member { pod: pod.name.clone(), role: self.role(kept), ready: pod.is_ready, trouble, node: pod.node.clone() }
    }
}
