//! How a call to a store failed: the same few cases, whatever the store calls them.

use std::time::Duration;

use election::Write;

use super::LockError;

/// How a call ended that did not bring what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The lock does not exist.
    Absent,
    /// It is another version or another object, or exists already.
    Conflict,
    /// Not done, and never again under this activation.
    Lost(String),
    /// Not done, and asking again will not help.
    Denied(String),
    /// Not done: ask again after this.
    Throttled(Duration),
    /// Nobody knows what happened.
    Unknown(String),
}

impl From<Failed> for LockError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Absent => LockError::Unavailable("the lock does not exist".into()),
            Failed::Conflict => LockError::Unavailable("somebody else wrote the lock at the same time".into()),
            Failed::Denied(why) => LockError::Denied(why),
            Failed::Throttled(after) => LockError::Unavailable(format!("the store asks to wait for {after:?}")),
            Failed::Lost(why) | Failed::Unknown(why) => LockError::Unavailable(why),
        }
    }
}

impl From<Failed> for Write {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Absent => Write::Gone,
            Failed::Conflict => Write::Conflict,
            Failed::Lost(why) => Write::Lost(why),
            Failed::Denied(why) => Write::Denied(why),
            Failed::Throttled(after) => Write::Throttled(after),
            Failed::Unknown(why) => Write::Unknown(why),
        }
    }
}
