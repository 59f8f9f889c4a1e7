//! What came of one history.

use std::collections::BTreeMap;

/// More findings of one history than these are not kept.
const FINDINGS_MAX: usize = 8;

/// What has to happen somewhere in many histories: a fault that never had its effect proves nothing.
pub const MUST_HAPPEN: &[&str] = &[
    "an active pod is deleted gracefully",
    "an active pod is deleted by force while it runs",
    "an active container ends",
    "a container ends and begins again unseen",
    "a node dies with an active pod",
    "a node with an active pod is cut off",
    "a pod is collected although nobody saw its end",
    "a pod is collected although it runs",
    "a pod is labelled as active by hand",
    "the active pod is labelled as a standby by hand",
    "a label is removed by hand",
    "a pod is asked for",
    "an active pod gets unready",
    "the record is deleted by hand",
    "the record is touched by hand",
    "another number of pods is wanted",
    "a controller is deposed with writes on their way",
    "a write of a deposed controller lands",
    "a write of a deposed controller meets a conflict",
    "a record of a deposed controller lands",
    "a record of a deposed controller meets a conflict",
    "a write that was given up lands",
    "a write that was given up never lands",
    "a write that was given up meets a conflict",
    "an answer is lost",
    "a write meets a conflict",
    "a record meets a conflict",
    "a relist skips changes",
    "a label is planned from an old sight",
    "a pod is settled",
    "a pod is deleted by a controller",
    "a pod is told",
    "an operator says that a pod has ended",
    "promoted: is gone",
    "promoted: is being deleted",
    "promoted: a container has ended",
    "promoted: the pod has ended",
    "promoted: by request",
    "promoted: a place is free",
    "a place is waited for: the kubelet's word",
    "a place is waited for: the pod to be gone",
];

/// One history, over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Everything that must not be.
    pub findings: Vec<String>,
    /// How often what happened.
    pub counts: BTreeMap<String, u64>,
    /// What happened, for people; only kept when asked for.
    pub trace: Option<Vec<String>>,
    /// Steps that were taken.
    pub steps: u64,
}

impl History {
    /// An empty one.
    pub(super) fn new(with_trace: bool) -> Self {
        Self { trace: with_trace.then(Vec::new), ..Self::default() }
    }

    pub(super) fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => _ = self.counts.insert(what.to_owned(), 1),
        }
    }

    pub(super) fn count_if(&mut self, what: &str, is_so: bool) {
        if is_so {
            self.count(what);
        }
    }

    /// One line of the trace, made only when somebody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let step = self.steps;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{step:>5}  {}", line()));
        }
    }

    /// Something that must not be.
    pub(super) fn finding(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("FINDING: {what}"));
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("step {}: {what}", self.steps));
        }
    }
}
