//! What one controller knows: a cache that lags behind, and what it remembers beside it.

use std::collections::{BTreeMap, BTreeSet};

use election::Instant;
use soloist::controller::critical::fallen;
use soloist::controller::group::Group;
use soloist::controller::plan::{Plan, Seen, Sight, plan};
use soloist::controller::pod::Pod;

use super::api::{Event, Stored};
use super::network::Call;
use super::rules::Rules;

/// One controller. With a new term it begins anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Controller {
    /// Its term, while that is valid.
    pub term: Option<u64>,
    /// How many changes it has seen; nothing before its first list.
    pub position: Option<usize>,
    cache: BTreeMap<String, Pod>,
    /// They are gone, whatever an older sight of them says.
    gone: BTreeSet<String>,
    /// They were there when the term began: an earlier controller may have written them.
    older: BTreeSet<String>,
    /// Nothing before it was read.
    pub record: Option<Stored>,
    fallen: BTreeMap<String, String>,
    seen_stopped: BTreeSet<String>,
    told: BTreeSet<(String, u64)>,
    /// Pods with a write that may still take effect.
    open: BTreeSet<String>,
    /// Pods that must be looked at before the next plan.
    pub to_read: BTreeSet<String>,
    /// Whether the record must be.
    pub must_read_record: bool,
    /// Planned and not sent.
    pub queue: Vec<Call>,
    /// Sent and not answered, by the number of the request.
    pub under_way: BTreeMap<u64, Call>,
    /// No pod is deleted before.
    pub deletes_from: Instant,
}

impl Controller {
    /// A term begins.
    pub(super) fn begin(&mut self, term: u64) {
        *self = Self { term: Some(term), must_read_record: true, ..Self::default() };
    }

    pub(super) fn cached(&self, uid: &str) -> Option<&Pod> {
        self.cache.get(uid)
    }

    /// The first list of the term.
    pub(super) fn list(&mut self, position: usize, pods: BTreeMap<String, Pod>, group: &Group) {
        self.older = pods.keys().cloned().collect();
        self.position = Some(position);
        pods.into_values().for_each(|pod| self.see(pod, group));
    }

    /// A list instead of the changes in between. It is never older than what was seen before.
    pub(super) fn relist(&mut self, position: usize, pods: BTreeMap<String, Pod>, version: u64, group: &Group) {
        self.position = Some(position);
        let is_absent = |pod: &&Pod| !pods.contains_key(&pod.uid) && pod.version <= version;
        let absent: Vec<String> = self.cache.values().filter(is_absent).map(|pod| pod.uid.clone()).collect();
        absent.iter().for_each(|uid| self.see_gone(uid));
        pods.into_values().for_each(|pod| self.see(pod, group));
    }

    /// The next change.
    pub(super) fn watch(&mut self, event: Event, group: &Group) {
        self.position = self.position.map(|position| position + 1);
        let uid = event.pod.uid.clone();
        self.see(event.pod, group);
        if event.is_gone {
            self.see_gone(&uid);
        }
    }

    /// A pod as it was at some time.
    pub(super) fn see(&mut self, pod: Pod, group: &Group) {
        let before = self.cache.get(&pod.uid);
        if self.gone.contains(&pod.uid) || before.is_some_and(|before| before.version >= pod.version) {
            return;
        }
        if let Some(container) = fallen(before, &pod, group) {
            self.fallen.entry(pod.uid.clone()).or_insert(container);
        }
        self.cache.insert(pod.uid.clone(), pod);
    }

    /// A pod is gone.
    pub(super) fn see_gone(&mut self, uid: &str) {
        if self.cache.remove(uid).is_some_and(|pod| pod.is_stopped()) {
            self.seen_stopped.insert(uid.to_owned());
        }
        self.gone.insert(uid.to_owned());
        self.fallen.remove(uid);
        self.open.remove(uid);
        self.to_read.remove(uid);
    }

    /// A write of this pod was answered: nothing that was sent before can take effect.
    pub(super) fn close(&mut self, uid: &str) {
        self.open.remove(uid);
    }

    /// Nobody knows what became of a write.
    pub(super) fn doubt(&mut self, uid: &str) {
        if !self.gone.contains(uid) {
            self.open.insert(uid.to_owned());
            self.to_read.insert(uid.to_owned());
        }
    }

    pub(super) fn has_been_told(&mut self, uid: &str, token: u64) {
        self.told.insert((uid.to_owned(), token));
    }

    /// Whether the next plan may be made.
    pub(super) fn may_plan(&self) -> bool {
        let is_idle = self.queue.is_empty() && self.under_way.is_empty();
        let is_informed = self.position.is_some() && self.to_read.is_empty() && !self.must_read_record;
        self.term.is_some() && self.record.is_some() && is_idle && is_informed
    }

    fn is_settled(&self, pod: &Pod, rules: Rules) -> bool {
        let is_own = pod.term == self.term || !self.older.contains(&pod.uid);
        !rules.settles || (is_own && !self.open.contains(&pod.uid))
    }

    /// The plan that ships, on what is known. `word` is what operators have said about pods that are gone.
    pub(super) fn plan(&self, sight: &Outside<'_>, rules: Rules) -> Plan {
        let seen = |pod| self.seen(pod, rules);
        let pods: Vec<Seen<'_>> = self.cache.values().map(seen).collect();
        let seen_stopped = self.seen_stopped.union(sight.word).cloned().collect();
        let record = self.record.clone().flatten();
        let (version, record) = record.map_or((None, Default::default()), |(version, record)| (Some(version), record));
        plan(&Sight {
            group: sight.group,
            pods: &pods,
            record: &record,
            version,
            is_missing: false,
            seen_stopped: &seen_stopped,
            told: &self.told,
            now: sight.now,
            deletes_from: self.deletes_from,
            deletes_max: usize::MAX,
        })
    }

    fn seen<'a>(&'a self, pod: &'a Pod, rules: Rules) -> Seen<'a> {
        let fallen = self.fallen.get(&pod.uid).map(String::as_str);
        Seen { pod, fallen, is_settled: self.is_settled(pod, rules), node: None }
    }
}

/// What a controller knows of the world besides pods and record.
pub(super) struct Outside<'a> {
    pub group: &'a Group,
    pub word: &'a BTreeSet<String>,
    pub now: Instant,
}
