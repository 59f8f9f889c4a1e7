//! One group of pods, of which so many are active: what its operator wants.

use std::fmt;

use crate::route::pod_label::Label;

/// When the place of an active pod that leaves may be given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromoteAfter {
    /// When it is being deleted, or is gone: at most one pod is published as the active one.
    Removed,
    /// When the kubelet has said of all its containers that they have ended: at most one of them runs.
    Stopped,
}

/// What becomes of traffic while an active pod leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// It gets no more as soon as it leaves.
    DrainFirst,
    /// It keeps its traffic until its place may be given away.
    StopFirst,
}

/// What the members of a group are told, and what they are watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The namespace of its pods.
    pub namespace: String,
    /// Its name, and the one of the Lease that records who is active.
    pub name: String,
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
    /// What a pod that is deleted for a critical container gets, where that is not its own grace.
    pub delete_grace_s: Option<u32>,
    /// Whether pods are told that they are active.
    pub is_told: bool,
    /// Nothing is changed while this is set.
    pub is_paused: bool,
}

impl fmt::Display for Group {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}/{}", self.namespace, self.name)
    }
}
