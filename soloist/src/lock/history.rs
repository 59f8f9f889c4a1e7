//! The last changes of who was active, kept in the record itself: for people, never for a decision.

use serde::{Deserialize, Serialize};

/// As many changes as are kept at most.
pub const CHANGES_MAX: usize = 32;
/// As many bytes as they may take in the record.
pub const BYTES_MAX: usize = 2048;

/// One time of being active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The fencing token; absent until a store that names it only in its answer has been written once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Who was active.
    pub member: String,
    /// Since when, in wall-clock microseconds since 1970: the acquiring write.
    pub from_us: u64,
    /// Why it might, in one sentence.
    pub why: String,
    /// Until when nothing of it was left, where that was proven; the clock is the one of the member that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<u64>,
    /// Why it ended, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}
