//! The last changes of who was active, as programs read them: `soloist history --output json`, and `/history`.

use serde::Serialize;

use crate::lock::history::Change;
use crate::snapshot::{Passage, Snapshot};
use crate::spell::{from_to_us, ms, time, time_or_mark};

/// Grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// The changes, under the names that programs rely on.
#[derive(Debug, Serialize)]
pub struct Chronicle {
    schema: u32,
    group: String,
    lock: String,
    /// The oldest first.
    pub changes: Vec<Entry>,
}

/// One time of being active.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its fencing token, where the record says it.
    pub fencing_token: Option<u64>,
    /// Who was active.
    pub member: String,
    /// Since when.
    pub from: String,
    /// Until nothing of it was left, where that was proven.
    pub until: Option<String>,
    /// How long.
    pub duration_ms: Option<f64>,
    /// From the proven end of the one before.
    pub gap_ms: Option<f64>,
    /// Why it began.
    pub why: String,
    /// Why it ended.
    pub end: Option<String>,
    /// How it went, where whoever is asked played it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

/// What a member itself saw of a time of being active.
#[derive(Debug, Serialize)]
struct Seen {
    acquiring: Option<String>,
    active: Option<String>,
    running: Option<String>,
    stopping: Option<String>,
}

impl Chronicle {
    /// What a lock keeps.
    pub fn new(group: &str, lock: String, changes: &[Change]) -> Self {
        Self::seen_by(&[], group, lock, changes)
    }

    /// What the lock of a member keeps, and what the member itself saw of it.
    pub fn of(snapshot: &Snapshot, lock: &str) -> Self {
        let own: Vec<(&str, &Passage)> =
            snapshot.passages.iter().map(|passage| (snapshot.name.as_str(), passage)).collect();
        Self::seen_by(&own, &snapshot.group, lock.to_owned(), snapshot.told_history())
    }

    fn seen_by(own: &[(&str, &Passage)], group: &str, lock: String, changes: &[Change]) -> Self {
        let before = std::iter::once(None).chain(changes.iter().map(Some));
        let seen = |change: &Change| {
            let is_it =
                |(name, passage): &&(&str, &Passage)| *name == change.member && passage.encloses(change.from_us);
            own.iter().find(is_it).map(|(_, passage)| Seen::of(passage))
        };
        let entry = |(change, before)| Entry { seen: seen(change), ..Entry::of(change, before) };
        Self { schema: SCHEMA, group: group.to_owned(), lock, changes: changes.iter().zip(before).map(entry).collect() }
    }
}

/// From the proven end of one to the next, in milliseconds.
pub fn gap_ms(before: &Change, change: &Change) -> Option<f64> {
    before.until_us.map(|until| ms(from_to_us(until, change.from_us)))
}

impl Entry {
    fn of(change: &Change, before: Option<&Change>) -> Self {
        Self {
            fencing_token: change.token,
            member: change.member.clone(),
            from: time_or_mark(change.from_us),
            until: change.until_us.map(time_or_mark),
            duration_ms: change.until_us.map(|until| ms(from_to_us(change.from_us, until))),
            gap_ms: before.and_then(|before| gap_ms(before, change)),
            why: change.why.clone(),
            end: change.end.clone(),
            seen: None,
        }
    }
}

impl Seen {
    fn of(passage: &Passage) -> Self {
        Self {
            acquiring: time(passage.acquiring_us),
            active: time(passage.active_us),
            running: passage.running_us.and_then(time),
            stopping: passage.stopping_us.and_then(time),
        }
    }
}
