//! One group of pods, of which so many are active: what its operator wants.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::critical::Mark;
use super::notice::Notice;
use crate::route::pod_label::Label;

/// Labels that all pods of a group have: at least one, as none would fit every pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    first: (String, String),
    rest: BTreeMap<String, String>,
}

impl Selector {
    /// One label.
    pub fn one(key: &str, value: &str) -> Self {
        Self { first: (key.to_owned(), value.to_owned()), rest: BTreeMap::new() }
    }

    /// All of these; nothing where there are none.
    pub fn all(mut labels: BTreeMap<String, String>) -> Option<Self> {
        let first = labels.pop_first()?;
        Some(Self { first, rest: labels })
    }

    /// One of the labels.
    pub fn first(&self) -> (&str, &str) {
        (&self.first.0, &self.first.1)
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let rest = self.rest.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        std::iter::once(self.first()).chain(rest)
    }

    /// Whether a pod with these labels is one of the group.
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels().all(|(key, value)| labels.get(key).is_some_and(|other| other == value))
    }

    /// Whether it selects by this label.
    pub fn uses(&self, key: &str) -> bool {
        self.labels().any(|(own, _)| own == key)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.labels().map(|(key, value)| format!("{key}={value}")).collect();
        to.write_str(&labels.join(","))
    }
}

/// When the place of an active pod that leaves may be given to another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromoteAfter {
    #[default]
    /// When it is being deleted, or is gone: at most one pod is published as the active one.
    Removed,
    /// When the kubelet has said of all its containers that they have ended: at most one of them runs.
    Stopped,
}

/// What becomes of traffic while an active pod leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handover {
    #[default]
    /// It gets no more as soon as it leaves.
    DrainFirst,
    /// It keeps its traffic until its place may be given away.
    StopFirst,
}

/// Who goes first among those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    #[default]
    /// By the annotation `soloist.dev/priority`, then the oldest.
    Priority,
    /// The oldest.
    Oldest,
}

/// An operator asks for a pod to become active, once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Switchover {
    /// The pod's name.
    pub to: String,
    /// Which request this is: another text is another one.
    pub request: String,
}

/// What the members of a group are told, and what they are watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The namespace of its pods.
    pub namespace: String,
    /// Its name, and the one of the Lease that records who is active.
    pub name: String,
    /// Which pods are its own.
    pub selector: Selector,
    /// How many of its pods are active.
    pub active: usize,
    /// The label that says which.
    pub label: Label,
    /// When a place is given away.
    pub promote_after: PromoteAfter,
    /// What becomes of traffic until then.
    pub handover: Handover,
    /// Names of critical containers, besides those that are marked.
    pub critical: Vec<String>,
    /// What marks them.
    pub mark: Mark,
    /// What a pod that is deleted for a critical container gets, where that is not its own grace.
    pub delete_grace_s: Option<u32>,
    /// How a pod hears that it is active, if it is told.
    pub notice: Option<Notice>,
    /// Who goes first.
    pub order: Order,
    /// Whether it is left alone.
    pub is_paused: bool,
    /// Who is to become active, by request.
    pub switchover: Option<Switchover>,
}

impl Group {
    /// Which one it is.
    pub fn key(&self) -> Key {
        Key { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.namespace, self.name)
    }
}

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.namespace, self.name)
    }
}
