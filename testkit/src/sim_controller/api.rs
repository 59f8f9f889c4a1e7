//! What the API server stores, and all that ever happened to it.

use std::collections::{BTreeMap, BTreeSet};

use soloist::controller::group::Group;
use soloist::controller::plan::Part;
use soloist::controller::pod::Pod;
use soloist::controller::record::Record;

use super::network::{Answer, Call, Change, Request};
use super::rules::Rules;

/// One change of one pod, as a watch shows it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The pod as it is then, or as it was last.
    pub pod: Pod,
    /// Whether it is gone.
    pub is_gone: bool,
}

/// The record with its version; nothing where there is none.
pub(super) type Stored = Option<(u64, Record)>;

/// The store.
#[derive(Debug, Default)]
pub(super) struct Api {
    version: u64,
    pods: BTreeMap<String, Pod>,
    /// All changes of pods, in their order.
    pub log: Vec<Event>,
    record: Stored,
    /// Who was ever named by a stored record, with which token.
    pub named: BTreeSet<(String, u64)>,
}

impl Api {
    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    pub(super) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    pub(super) fn record(&self) -> &Stored {
        &self.record
    }

    /// The pods after so many changes.
    pub(super) fn pods_at(&self, position: usize) -> BTreeMap<String, Pod> {
        let mut pods = BTreeMap::new();
        for event in self.log.iter().take(position) {
            match event.is_gone {
                true => pods.remove(&event.pod.uid),
                false => pods.insert(event.pod.uid.clone(), event.pod.clone()),
            };
        }
        pods
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A pod becomes this.
    pub(super) fn put(&mut self, mut pod: Pod) -> Pod {
        pod.version = self.next_version();
        self.log.push(Event { pod: pod.clone(), is_gone: false });
        self.pods.insert(pod.uid.clone(), pod.clone());
        pod
    }

    /// A pod is changed, if it is there and the change is one.
    pub(super) fn change(&mut self, uid: &str, change: impl FnOnce(&mut Pod)) -> Option<Pod> {
        let before = self.pods.get(uid)?;
        let mut pod = before.clone();
        change(&mut pod);
        if pod == *before {
            return Some(pod);
        }
        Some(self.put(pod))
    }

    /// The object of a pod is removed.
    pub(super) fn remove(&mut self, uid: &str) {
        if let Some(mut pod) = self.pods.remove(uid) {
            pod.version = self.next_version();
            self.log.push(Event { pod, is_gone: true });
        }
    }

    /// A pod is asked to end. One that is on no node has nothing to end.
    pub(super) fn delete(&mut self, uid: &str) -> Option<Pod> {
        let pod = self.change(uid, |pod| pod.is_deleting = true)?;
        if pod.node.is_none() {
            self.remove(uid);
        }
        Some(pod)
    }

    /// The record becomes this, or goes.
    pub(super) fn put_record(&mut self, record: Option<Record>) -> u64 {
        let version = self.next_version();
        let named = record.iter().flat_map(|record| &record.places);
        self.named.extend(named.map(|place| (place.uid.clone(), place.token.unwrap_or(version))));
        self.record = record.map(|record| (version, record));
        version
    }

    /// Does what a controller asks for.
    pub(super) fn serve(&mut self, request: &Request, group: &Group, rules: Rules) -> Answer {
        match &request.call {
            Call::Read { uid } => self.pods.get(uid).cloned().map_or(Answer::Gone, |pod| Answer::Pod(Box::new(pod))),
            Call::ReadRecord => Answer::Record(self.record.clone()),
            Call::Record { quoted, record } => {
                let is_stale = *quoted != self.record.as_ref().map(|(version, _)| *version);
                if is_stale && rules.quotes_the_record {
                    return Answer::Conflict;
                }
                let version = self.put_record(Some(record.clone()));
                Answer::Record(Some((version, record.clone())))
            }
            Call::Pod { uid, quoted, change } => {
                let Some(pod) = self.pods.get(uid) else { return Answer::Gone };
                if pod.version != *quoted && rules.quotes_the_version {
                    return Answer::Conflict;
                }
                let pod = match change {
                    Change::Delete => self.delete(uid),
                    // It is written even where it changes nothing, or what is on its way would not meet a conflict.
                    Change::Settle => {
                        let pod = Pod { term: Some(request.term), ..pod.clone() };
                        Some(self.put(pod))
                    }
                    Change::Label(part, token) => {
                        self.change(uid, |pod| label(pod, group, *part, *token, rules.settles.then_some(request.term)))
                    }
                };
                pod.map_or(Answer::Gone, |pod| Answer::Pod(Box::new(pod)))
            }
        }
    }
}

fn label(pod: &mut Pod, group: &Group, part: Part, token: Option<u64>, term: Option<u64>) {
    let value = match part {
        Part::Active => &group.label.active,
        Part::Standby => &group.label.standby,
    };
    pod.labels.insert(group.label.key.clone(), value.clone());
    pod.token = token;
    pod.term = term.or(pod.term);
    if part == Part::Active {
        pod.is_wanted = false;
    }
}
