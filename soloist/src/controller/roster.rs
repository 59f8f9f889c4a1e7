//! Which groups there are, and whose a pod is: at most one group's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::declared::{Declared, Origin};
use super::group::{Group, Key};
use super::pod::Pod;

/// All groups.
#[derive(Debug)]
pub enum Roster {
    /// All pods of a namespace are a group like this; those that there are, by namespace.
    Each(Box<Group>, BTreeMap<String, Arc<Group>>),
    /// Those that somebody has declared.
    Declared(Index),
}

/// Declared groups, to be found by the labels of a pod.
#[derive(Debug, Default)]
pub struct Index {
    groups: BTreeMap<Key, Entry>,
    /// By namespace and one of the labels that the group selects by.
    by_label: HashMap<(String, String, String), BTreeSet<Key>>,
}

#[derive(Debug)]
struct Entry {
    since: String,
    group: Arc<Group>,
}

/// Whose a pod is.
#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    /// The group.
    pub group: Arc<Group>,
    /// Younger groups that would have it too.
    pub rivals: Vec<Key>,
}

impl Roster {
    /// Whose `pod` is, if anybody's. Where several groups would have it, it is the oldest one's: two would fight over its
    /// label.
    pub fn owner(&mut self, pod: &Pod) -> Option<Owner> {
        match self {
            Self::Each(like, groups) => {
                let new = || Arc::new(Group { namespace: pod.namespace.clone(), ..(**like).clone() });
                let group = Arc::clone(groups.entry(pod.namespace.clone()).or_insert_with(new));
                Some(Owner { group, rivals: Vec::new() })
            }
            Self::Declared(index) => index.owner(pod),
        }
    }

    /// Nothing is left of a group: one that is declared is there all the same.
    pub fn forget(&mut self, key: &Key) {
        if let Self::Each(_, groups) = self {
            groups.remove(&key.namespace);
        }
    }
}

impl Index {
    /// Takes a group in, or what it wants now; one that cannot be read stays as it was. Whether other pods may be its own
    /// by that.
    pub fn take(&mut self, declared: Declared) -> (Option<(Arc<Group>, Origin)>, bool) {
        let Declared { key, since, origin, group } = declared;
        let group = match group {
            Ok(group) => Arc::new(group),
            Err(why) => {
                tracing::warn!("the ActiveStandby {key} cannot be used: {why}");
                return (None, false);
            }
        };
        let before = self.groups.get(&key);
        let is_other = before.is_none_or(|before| before.since != since || before.group.selector != group.selector);
        if is_other {
            self.remove(&key);
            self.by_label.entry(place(&group)).or_default().insert(key.clone());
        }
        self.groups.insert(key, Entry { since, group: Arc::clone(&group) });
        (Some((group, origin)), is_other)
    }

    /// Forgets a group. Whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(Entry { group, .. }) = self.groups.remove(key) else { return false };
        let place = place(&group);
        if let Some(keys) = self.by_label.get_mut(&place) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_label.remove(&place);
            }
        }
        true
    }

    /// All groups of a namespace, or of all.
    pub fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        let is_there = |key: &&Key| namespace.is_none_or(|namespace| key.namespace == namespace);
        self.groups.keys().filter(is_there).cloned().collect()
    }

    fn owner(&self, pod: &Pod) -> Option<Owner> {
        let by_label = |(key, value): (&String, &String)| {
            self.by_label.get(&(pod.namespace.clone(), key.clone(), value.clone())).into_iter().flatten()
        };
        let fits = |key: &&Key| self.groups.get(*key).is_some_and(|entry| entry.group.selector.fits(&pod.labels));
        let mut found: Vec<(&str, &Key)> = pod
            .labels
            .iter()
            .flat_map(by_label)
            .filter(fits)
            .filter_map(|key| Some((self.groups.get(key)?.since.as_str(), key)))
            .collect();
        found.sort_unstable();
        let mut found = found.into_iter().map(|(_, key)| key);
        let first = found.next()?;
        Some(Owner { group: Arc::clone(&self.groups.get(first)?.group), rivals: found.cloned().collect() })
    }
}

fn place(group: &Group) -> (String, String, String) {
    let (key, value) = group.selector.first();
    (group.namespace.clone(), key.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::declared::tests::declared;
    use crate::controller::plan::tests::pod;

    fn owner(roster: &mut Roster, labels: &[(&str, &str)]) -> Option<(String, Vec<String>)> {
        let mut pod = pod("a");
        pod.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let Owner { group, rivals } = roster.owner(&pod)?;
        Some((group.name.clone(), rivals.into_iter().map(|key| key.name).collect()))
    }

    #[test]
    fn a_pod_is_the_oldest_groups_that_fits() {
        let mut index = Index::default();
        let both = json!({"app": "x", "tier": "db"});
        assert!(index.take(declared("young", "2026-01-02T00:00:00Z", &json!({"tier": "db"}))).1);
        assert!(index.take(declared("old", "2026-01-01T00:00:00Z", &both)).1);
        let (again, is_other) = index.take(declared("old", "2026-01-01T00:00:00Z", &both));
        assert!(again.is_some() && !is_other);
        let mut roster = Roster::Declared(index);
        let all: &[(&str, &str)] = &[("app", "x"), ("tier", "db")];
        assert_eq!(owner(&mut roster, all), Some(("old".to_owned(), vec!["young".to_owned()])));
        assert_eq!(owner(&mut roster, &[("tier", "db")]), Some(("young".to_owned(), vec![])));
        assert_eq!(owner(&mut roster, &[("app", "x")]), None);
        let Roster::Declared(index) = &mut roster else { panic!("declared") };
        let key = |name: &str| Key { namespace: "prod".to_owned(), name: name.to_owned() };
        assert_eq!(
            (index.keys(Some("prod")).len(), index.keys(None).len(), index.keys(Some("other")).len()),
            (2, 2, 0)
        );
        assert!(index.remove(&key("old")) && !index.remove(&key("old")));
        assert_eq!(owner(&mut roster, all), Some(("young".to_owned(), vec![])));
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_there() {
        let mut index = Index::default();
        index.take(declared("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"})));
        let odd = Declared { group: Err("odd".to_owned()), ..declared("duty", "2026-01-01T00:00:00Z", &json!({})) };
        assert_eq!(index.take(odd), (None, false));
        assert_eq!(owner(&mut Roster::Declared(index), &[("app", "x")]), Some(("duty".to_owned(), vec![])));
    }

    #[test]
    fn without_declarations_all_pods_of_a_namespace_are_a_group() {
        let mut roster = Roster::Each(Box::new(crate::controller::plan::tests::group()), BTreeMap::new());
        assert_eq!(owner(&mut roster, &[]), Some(("hapod".to_owned(), vec![])));
    }
}
