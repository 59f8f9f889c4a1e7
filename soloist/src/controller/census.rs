//! Who is there and whose: what the watches tell of groups, pods and nodes, brought together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cache::{Arrival, GroupState};
use super::declared::{Declared, Origin};
use super::group::{Group, Key};
use super::node::{Node, Nodes};
use super::pods::Shown;
use super::roster::{Index, Owner, Roster};
use super::service::{Service, Services};
use super::watch::News;
use super::{Groups, Settings};
use crate::clock;

/// What a watch has told.
#[derive(Debug)]
pub enum Heard {
    /// Of groups that somebody has declared.
    Groups(News<Declared>),
    /// Of pods.
    Pods(News<Shown>),
    /// Of nodes.
    Nodes(News<Node>),
    /// Of Services.
    Services(News<Service>),
}

impl From<News<Service>> for Heard {
    fn from(news: News<Service>) -> Self {
        Self::Services(news)
    }
}

impl From<News<Declared>> for Heard {
    fn from(news: News<Declared>) -> Self {
        Self::Groups(news)
    }
}

impl From<News<Shown>> for Heard {
    fn from(news: News<Shown>) -> Self {
        Self::Pods(news)
    }
}

impl From<News<Node>> for Heard {
    fn from(news: News<Node>) -> Self {
        Self::Nodes(news)
    }
}

/// Everything that is there.
pub struct Census {
    roster: Roster,
    groups: BTreeMap<Key, GroupState>,
    /// The group of each pod that has one, by the pod's UID.
    whose: BTreeMap<String, Key>,
    /// Pods that are nobody's, by UID: somebody may declare a group of them.
    strays: BTreeMap<String, Shown>,
    /// All nodes that were told of.
    pub nodes: Nodes,
    services: Services,
    /// Namespaces of which there was a first list of pods, or nothing for all of them.
    listed: BTreeSet<Option<String>>,
    /// Groups of which there is something new.
    due: BTreeSet<Key>,
    /// Namespaces whose pods may belong to others now.
    unsorted: BTreeSet<String>,
    /// Namespaces whose Services are others now; nothing for all of them.
    unjudged: BTreeSet<Option<String>>,
}

impl Census {
    /// Nothing is known yet.
    pub fn new(settings: &Settings) -> Self {
        let roster = match &settings.groups {
            Groups::Each(group) => Roster::Each(group.clone(), BTreeMap::new()),
            Groups::Declared { .. } => Roster::Declared(Index::default()),
        };
        let (groups, whose, strays) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (nodes, services, listed, due) = (Nodes::new(), Services::default(), BTreeSet::new(), BTreeSet::new());
        let (unsorted, unjudged) = (BTreeSet::new(), BTreeSet::new());
        Self { roster, groups, whose, strays, nodes, services, listed, due, unsorted, unjudged }
    }

    /// A group that is there.
    pub fn group(&mut self, key: &Key) -> Option<(&mut GroupState, &Nodes)> {
        Some((self.groups.get_mut(key)?, &self.nodes))
    }

    /// Groups to plan for, since this was asked last.
    pub fn take_due(&mut self) -> BTreeSet<Key> {
        self.settle();
        std::mem::take(&mut self.due)
    }

    /// Whether all pods of a namespace are known: before, one that is not there may only not have been told of yet.
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.listed.contains(&None) || self.listed.iter().flatten().any(|listed| listed == namespace)
    }

    /// No round of a group is to be begun: one that is over is forgotten.
    pub fn release(&mut self, key: &Key) {
        if self.groups.get(key).is_some_and(|group| group.is_retired && !group.is_busy) {
            self.groups.remove(key);
            self.roster.forget(key);
        }
    }

    /// Draws from the news what takes a look at a whole namespace: once for a burst of them.
    fn settle(&mut self) {
        std::mem::take(&mut self.unsorted).iter().for_each(|namespace| self.give_out(namespace));
        std::mem::take(&mut self.unjudged).iter().for_each(|of| self.judge(of.as_deref()));
    }

    /// Takes the news in.
    pub fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Pods(News::All(of, all)) => self.hear_all_pods(of, all),
            Heard::Pods(News::Now(shown)) => self.see(*shown, true),
            Heard::Pods(News::Gone(shown)) => self.lose(&shown),
            Heard::Groups(News::All(of, all)) => self.hear_all_groups(of.as_deref(), all),
            Heard::Groups(News::Now(declared)) => self.want(*declared),
            Heard::Groups(News::Gone(declared)) => self.retire(&declared.key),
            Heard::Nodes(News::All(_, all)) => {
                let there = those(all.iter().map(|node| node.name.clone()));
                let gone: Vec<String> = self.nodes.keys().filter(|name| !there.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.forget_node(name));
                all.into_iter().for_each(|node| self.see_node(node));
            }
            Heard::Nodes(News::Now(node)) => self.see_node(*node),
            Heard::Nodes(News::Gone(node)) => self.forget_node(&node.name),
            Heard::Services(News::All(of, all)) => {
                self.services.set_all(of.as_deref(), all);
                self.unjudged.insert(of);
            }
            Heard::Services(News::Now(service)) => {
                let of = service.namespace.clone();
                if self.services.set(*service) {
                    self.unjudged.insert(Some(of));
                }
            }
            Heard::Services(News::Gone(service)) => {
                if self.services.remove(&service) {
                    self.unjudged.insert(Some(service.namespace));
                }
            }
        }
    }

    fn mark(&mut self, key: Key) {
        let now = clock::now();
        if let Some(group) = self.groups.get_mut(&key) {
            group.since.get_or_insert(now);
            self.due.insert(key);
        }
    }

    fn hear_all_pods(&mut self, of: Option<String>, all: Vec<Shown>) {
        let there = those(all.iter().map(|shown| shown.pod.uid.clone()));
        let is_new = !self.listed.insert(of.clone());
        for shown in all {
            self.see(shown, is_new);
        }
        let is_of = |namespace: &str| of.as_deref().is_none_or(|of| of == namespace);
        self.strays.retain(|uid, shown| !is_of(&shown.pod.namespace) || there.contains(uid));
        let lost = self.whose.iter().filter(|(uid, key)| is_of(&key.namespace) && !there.contains(*uid));
        let lost: Vec<(String, Key)> = lost.map(|(uid, key)| (uid.clone(), key.clone())).collect();
        for (uid, key) in lost {
            self.whose.remove(&uid);
            if let Some(group) = self.groups.get_mut(&key) {
                group.lose_unseen(&uid, &self.nodes);
            }
            self.mark(key);
        }
        // Declared groups without pods wait for this too.
        let waiting: Vec<Key> = self.groups.keys().filter(|key| is_of(&key.namespace)).cloned().collect();
        waiting.into_iter().for_each(|key| self.mark(key));
    }

    /// A pod is so now; `is_new` if it came after the first list.
    fn see(&mut self, shown: Shown, is_new: bool) {
        let uid = shown.pod.uid.clone();
        let Some(Owner { group, rivals }) = self.roster.owner(&shown.pod) else {
            self.part(&uid);
            self.strays.insert(uid, shown);
            return;
        };
        let key = group.key();
        let was_others = self.whose.get(&uid).is_some_and(|before| *before != key);
        if was_others {
            self.part(&uid);
        }
        let arrival = match self.strays.remove(&uid) {
            Some(_) => Arrival::Moved,
            None if was_others => Arrival::Moved,
            None if is_new => Arrival::New,
            None => Arrival::Listed,
        };
        self.whose.insert(uid, key.clone());
        for rival in rivals {
            if let Some(rival_state) = self.groups.get_mut(&rival) {
                rival_state.overlap(&shown.pod.name, &group);
                self.due.insert(rival);
            }
        }
        let state = self.groups.entry(key.clone()).or_insert_with(|| GroupState::new(group));
        if state.see(shown, arrival) {
            state.judge(&self.services);
            self.mark(key);
        }
    }

    /// A pod is nobody's any more, or about to be another group's.
    fn part(&mut self, uid: &str) {
        let Some(key) = self.whose.remove(uid) else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            group.part(uid);
            group.judge(&self.services);
        }
        self.mark(key);
    }

    fn lose(&mut self, last: &Shown) {
        self.strays.remove(&last.pod.uid);
        let Some(key) = self.whose.remove(&last.pod.uid) else { return };
        if let Some(group) = self.groups.get_mut(&key) {
            group.lose(&last.pod, &self.nodes);
            group.judge(&self.services);
        }
        self.mark(key);
    }

    fn hear_all_groups(&mut self, of: Option<&str>, all: Vec<Declared>) {
        let there = those(all.iter().map(|declared| declared.key.clone()));
        let Roster::Declared(index) = &self.roster else { return };
        let gone: Vec<Key> = index.keys(of).into_iter().filter(|key| !there.contains(key)).collect();
        gone.iter().for_each(|key| self.retire(key));
        all.into_iter().for_each(|declared| self.want(declared));
    }

    fn want(&mut self, declared: Declared) {
        let namespace = declared.key.namespace.clone();
        if self.take_in(declared) {
            self.unsorted.insert(namespace);
        }
    }

    /// Whether other pods may be its own by that.
    fn take_in(&mut self, declared: Declared) -> bool {
        let Roster::Declared(index) = &mut self.roster else { return false };
        let (Some((group, origin)), is_other) = index.take(declared) else { return false };
        self.set(group, origin);
        is_other
    }

    fn set(&mut self, group: Arc<Group>, origin: Origin) {
        let key = group.key();
        let state = self.groups.entry(key.clone()).or_insert_with(|| GroupState::new(Arc::clone(&group)));
        state.want(group, origin);
        self.mark(key);
    }

    /// Nobody wants the group any more. Its pods stay as they are.
    fn retire(&mut self, key: &Key) {
        let Roster::Declared(index) = &mut self.roster else { return };
        if !index.remove(key) {
            return;
        }
        tracing::info!("{key}: nobody wants this group any more: its pods are left as they are");
        if let Some(group) = self.groups.get_mut(key) {
            group.is_retired = true;
            for shown in group.part_all() {
                self.whose.remove(&shown.pod.uid);
                self.strays.insert(shown.pod.uid.clone(), shown);
            }
        }
        self.release(key);
        self.due.insert(key.clone());
        self.unsorted.insert(key.namespace.clone());
    }

    /// All pods of a namespace are given to whom they belong to now.
    fn give_out(&mut self, namespace: &str) {
        let first = Key { namespace: namespace.to_owned(), name: String::new() };
        let of_namespace = |key: &&Key| key.namespace == namespace;
        let from_there = self.groups.range(first..).map(|(key, _)| key);
        let keys: Vec<Key> = from_there.take_while(of_namespace).cloned().collect();
        let strays = self.strays.values().filter(|shown| shown.pod.namespace == namespace);
        let mut pods: Vec<Shown> = strays.cloned().collect();
        for key in keys {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.forget_overlap();
            pods.extend(group.shown().cloned());
            self.mark(key);
        }
        pods.into_iter().for_each(|shown| self.see(shown, false));
    }

    /// Which groups' traffic goes astray now.
    fn judge(&mut self, of: Option<&str>) {
        let is_of = |key: &Key| of.is_none_or(|of| of == key.namespace);
        for (key, group) in self.groups.iter_mut().filter(|(key, _)| is_of(key)) {
            if group.judge(&self.services) {
                self.due.insert(key.clone());
            }
        }
    }

    fn see_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) != Some(&node) {
            self.mark_all_on(&node.name);
            self.nodes.insert(node.name.clone(), node);
        }
    }

    fn forget_node(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.mark_all_on(name);
        }
    }

    fn mark_all_on(&mut self, node: &str) {
        let is_on = |(key, group): (&Key, &GroupState)| group.is_on(node).then(|| key.clone());
        let keys: Vec<Key> = self.groups.iter().filter_map(is_on).collect();
        keys.into_iter().for_each(|key| self.mark(key));
    }
}

/// All of them, put in one by one: to collect them would put a way to sort each type into the binary, 4 kB each.
fn those<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(all);
    set
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::cache::{Next, Surroundings};
    use crate::controller::declared::tests::declared;
    use crate::controller::node::Node;
    use crate::controller::plan::tests::pod;
    use crate::controller::pods::Eye;
    use crate::lock::kubernetes::Access;

    fn settings() -> Settings {
        Settings {
            access: Access::default(),
            namespaces: Vec::new(),
            groups: Groups::Declared { token_file: None },
            eye: Eye::default(),
            looks_around: true,
            gallery: None,
        }
    }

    fn census() -> Census {
        Census::new(&settings())
    }

    fn shown(name: &str, labels: &[(&str, &str)]) -> Shown {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Shown { pod: crate::controller::pod::Pod { labels, ..pod(name) }, object: None }
    }

    fn now(shown: &Shown, version: u64) -> Heard {
        let mut shown = shown.clone();
        shown.pod.version = version;
        Heard::Pods(News::Now(Box::new(shown)))
    }

    fn wants(name: &str, created: &str, labels: &serde_json::Value) -> Heard {
        Heard::Groups(News::Now(Box::new(declared(name, created, labels))))
    }

    fn key(name: &str) -> Key {
        Key { namespace: "prod".to_owned(), name: name.to_owned() }
    }

    fn pods(census: &mut Census, group: &str) -> Vec<String> {
        census.settle();
        let Some((group, _)) = census.group(&key(group)) else { return vec!["no group".to_owned()] };
        group.shown().map(|shown| shown.pod.name.clone()).collect()
    }

    #[test]
    fn pods_find_their_group_whichever_is_told_first() {
        let (mut census, a, b) = (census(), shown("a", &[("app", "x")]), shown("b", &[("app", "x")]));
        census.hear(Heard::Pods(News::All(None, vec![a])));
        assert!(census.is_listed("prod") && census.take_due().is_empty());
        census.hear(wants("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"})));
        assert_eq!(pods(&mut census, "duty"), ["a"]);
        census.hear(now(&b, 11));
        assert_eq!(
            (pods(&mut census, "duty"), census.take_due()),
            (vec!["a".into(), "b".into()], [key("duty")].into())
        );
        let moved = shown("b", &[("app", "y")]);
        census.hear(now(&moved, 12));
        assert_eq!(pods(&mut census, "duty"), ["a"]);
        census.hear(now(&b, 13));
        census.hear(Heard::Pods(News::Gone(Box::new(shown("a", &[("app", "x")])))));
        assert_eq!(pods(&mut census, "duty"), ["b"]);
        census.hear(Heard::Pods(News::All(None, Vec::new())));
        assert_eq!(pods(&mut census, "duty"), Vec::<String>::new());
    }

    #[test]
    fn a_list_of_one_namespace_says_nothing_of_another() {
        let mut census = census();
        census.hear(Heard::Pods(News::All(Some("other".to_owned()), Vec::new())));
        assert!(!census.is_listed("prod"));
        census.hear(wants("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"})));
        census.hear(Heard::Pods(News::All(Some("prod".to_owned()), vec![shown("a", &[("app", "x")])])));
        census.hear(Heard::Pods(News::All(Some("other".to_owned()), Vec::new())));
        assert_eq!(pods(&mut census, "duty"), ["a"]);
    }

    #[test]
    fn two_groups_never_have_the_same_pod_and_the_younger_one_gets_it_when_the_older_goes() {
        let mut census = census();
        census.hear(wants("young", "2026-01-02T00:00:00Z", &json!({"app": "x"})));
        census.hear(Heard::Pods(News::All(None, vec![shown("a", &[("app", "x")])])));
        assert_eq!(pods(&mut census, "young"), ["a"]);
        census.hear(wants("old", "2026-01-01T00:00:00Z", &json!({"app": "x"})));
        assert_eq!((pods(&mut census, "young"), pods(&mut census, "old")), (vec![], vec!["a".to_owned()]));
        let gone = declared("old", "2026-01-01T00:00:00Z", &json!({"app": "x"}));
        census.hear(Heard::Groups(News::Gone(Box::new(gone))));
        assert_eq!((pods(&mut census, "young"), pods(&mut census, "old")), (vec!["a".into()], vec!["no group".into()]));
        census.hear(Heard::Groups(News::All(None, Vec::new())));
        assert_eq!(pods(&mut census, "young"), ["no group"]);
    }

    #[test]
    fn a_group_is_not_forgotten_while_something_is_written_for_it() {
        let mut census = census();
        let one = || declared("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"}));
        census.hear(Heard::Groups(News::Now(Box::new(one()))));
        census.group(&key("duty")).unwrap().0.is_busy = true;
        census.hear(Heard::Groups(News::Gone(Box::new(one()))));
        assert!(census.group(&key("duty")).unwrap().0.is_retired);
        census.hear(Heard::Groups(News::Now(Box::new(one()))));
        assert!(!census.group(&key("duty")).unwrap().0.is_retired, "it is wanted once more");
        census.hear(Heard::Groups(News::Gone(Box::new(one()))));
        census.group(&key("duty")).unwrap().0.is_busy = false;
        census.release(&key("duty"));
        assert!(census.group(&key("duty")).is_none());
    }

    #[test]
    fn of_a_group_by_selector_nothing_is_left_when_nothing_is_owed_and_it_may_come_again() {
        let group = crate::controller::plan::tests::group();
        let key = group.key();
        let groups = Groups::Each(Box::new(group));
        let mut census = Census::new(&Settings { groups, ..settings() });
        let shown = shown("a", &[]);
        census.hear(Heard::Pods(News::All(None, vec![shown.clone()])));
        for _ in 0..2 {
            census.hear(now(&shown, 11));
            census.release(&key);
            assert!(census.group(&key).is_some(), "it has a pod");
            census.hear(Heard::Pods(News::Gone(Box::new(shown.clone()))));
            let around =
                Surroundings { term: 7, has_room: true, may_report: true, nodes: &Nodes::new(), now: clock::now() };
            assert!(matches!(census.group(&key).unwrap().0.next(&around), Next::Wait(None)));
            census.release(&key);
            let Roster::Each(_, groups) = &census.roster else { panic!("not by selector") };
            assert!(census.groups.is_empty() && groups.is_empty() && census.whose.is_empty());
        }
    }

    #[test]
    fn news_of_a_node_is_news_for_the_groups_that_have_pods_there() {
        let mut census = census();
        census.hear(wants("duty", "2026-01-01T00:00:00Z", &json!({"app": "x"})));
        census.hear(wants("none", "2026-01-01T00:00:00Z", &json!({"app": "y"})));
        census.hear(Heard::Pods(News::All(None, vec![shown("a", &[("app", "x")])])));
        census.take_due();
        let node = |is_bad| Node { name: "n1".to_owned(), is_bad, is_out_of_service: false };
        census.hear(Heard::Nodes(News::All(None, vec![node(false)])));
        assert_eq!(census.take_due(), [key("duty")].into());
        census.hear(Heard::Nodes(News::Now(Box::new(node(false)))));
        assert!(census.take_due().is_empty(), "nothing has changed");
        census.hear(Heard::Nodes(News::Now(Box::new(node(true)))));
        assert_eq!(census.take_due(), [key("duty")].into());
        census.hear(Heard::Nodes(News::All(None, Vec::new())));
        assert!(census.nodes.is_empty() && census.take_due() == [key("duty")].into());
    }
}
