//! What a page shows besides the status: the lease, which moves with each renewal, and the history.

use axum::body::Bytes;
use serde::Serialize;

use super::problem::Problem;
use super::status::valid_for_ms;
use crate::chronicle::Chronicle;
use crate::clock;
use crate::snapshot::Snapshot;
use crate::spell::time_or_mark;

/// What a client of `/events` wants besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    lease: bool,
    history: bool,
    /// The groups of a controller.
    pub(super) groups: bool,
}

impl Wanted {
    /// Words with commas between.
    pub(super) fn parse(words: &str) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            match word {
                "lease" => wanted.lease = true,
                "history" => wanted.history = true,
                "groups" => wanted.groups = true,
                _ => {
                    let words = "with= takes lease, history, and of a controller groups, with commas between";
                    return Err(Problem::bad_request(words));
                }
            }
        }
        Ok(wanted)
    }

    pub(super) fn is_any(self) -> bool {
        self.lease || self.history
    }

    /// The lease alone, if it is wanted.
    pub(super) fn lease(self) -> Self {
        Self { history: false, ..self }
    }
}

/// Both, as they go to all clients: they share the bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    /// What the lease was computed from. The frame itself differs at each instant.
    basis: Option<Basis>,
    lease: Bytes,
    history: Bytes,
}

/// What lets a lease run anew.
type Basis = (Option<u64>, Option<u64>, Option<(u64, u64)>, u64);

/// Two are the same if nothing has moved, whenever they were computed.
impl PartialEq for Extras {
    fn eq(&self, other: &Self) -> bool {
        (&self.basis, &self.history) == (&other.basis, &other.history)
    }
}

/// How long what is in force lasts, by the clock of this member.
#[derive(Serialize)]
struct Lease {
    /// The wall clock, to tell the ages of times by.
    now: String,
    valid_for_ms: u64,
    /// How long ago the holder's last renewal was seen.
    heard_ms: Option<u64>,
    /// What is left of a wait that only time ends, and how long it is.
    wait_ms: Option<u64>,
    wait_of_ms: Option<u64>,
}

impl Extras {
    pub(super) fn of(snapshot: &Snapshot, lock: &str) -> Self {
        let vigil = snapshot.vigil;
        let basis = (
            snapshot.tenure.map(|tenure| tenure.stop_at.as_nanos()),
            snapshot.heard.map(|(_, at)| at.as_nanos()),
            vigil.map(|vigil| (vigil.since.as_nanos(), vigil.until.as_nanos())),
            snapshot.news,
        );
        Self {
            basis: Some(basis),
            lease: frame("lease", &Lease::of(snapshot)),
            history: frame("history", &Chronicle::of(snapshot, lock)),
        }
    }

    /// What of this is wanted and differs from what was shown before.
    pub(super) fn frames(&self, shown: &Self, wanted: Wanted) -> Bytes {
        let lease = (wanted.lease && self.basis != shown.basis).then_some(&self.lease);
        let history = (wanted.history && self.history != shown.history).then_some(&self.history);
        match (lease, history) {
            (Some(lease), Some(history)) => [&lease[..], &history[..]].concat().into(),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => Bytes::new(),
        }
    }
}

impl Lease {
    fn of(snapshot: &Snapshot) -> Self {
        let now = clock::now();
        let whole = |length: std::time::Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self {
            now: time_or_mark(clock::unix_us()),
            valid_for_ms: valid_for_ms(snapshot, now),
            heard_ms: snapshot.heard.map(|(_, at)| whole(now.since(at))),
            wait_ms: snapshot.vigil.map(|vigil| whole(vigil.until.since(now))),
            wait_of_ms: snapshot.vigil.map(|vigil| whole(vigil.until.since(vigil.since))),
        }
    }
}

pub(super) fn frame(name: &str, data: &impl Serialize) -> Bytes {
    // Numbers, words and lists: nothing in it can fail to be JSON.
    let json = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into()
}
