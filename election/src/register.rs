//! What a lock answers: the vocabulary between a store and the machine. The store itself lives elsewhere.

use std::time::Duration;

use crate::record::{Proof, Record};

/// The version of a lock, as its store counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Tells an object from a later one of the same name (Lease: digest of the UID). 0 where the store has no such thing.
    pub incarnation: u64,
    /// Grows with every write of the store.
    pub number: u64,
}

impl Version {
    /// The version of a lock that does not exist; writing against it creates.
    pub const ABSENT: Version = Version { incarnation: 0, number: 0 };

    /// Whether this version cannot follow `newest`: another object, or an older state of the same one.
    /// See docs/safety.md R5.
    pub fn rewinds(self, newest: Version) -> bool {
        self.incarnation != newest.incarnation || self.number < newest.number
    }
}

/// One look at the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The version that a write must quote.
    pub version: Version,
    /// The record; nothing when the lock is absent.
    pub record: Option<Record>,
    /// What the platform says besides the record.
    pub evidence: Evidence,
}

/// What the platform says about the last holder, besides the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// Nothing: the record and time decide.
    None,
    /// Somebody holds the platform's own lock (a flock): a try cannot succeed before it is let go.
    Busy,
    /// The recorded activation is proven gone. Where the platform has a lock of its own, that is ours; elsewhere the
    /// compare-and-set alone decides who is next.
    Gone(Proof),
    /// The platform's own lock is ours, but something of the recorded activation may have let go of it and live.
    Unproven,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Stored; the lock has this version now.
    Written(Version),
    /// Not stored: the version has moved on.
    Conflict,
    /// Not stored: the lock does not exist any more.
    Gone,
    /// Not stored, and never again under this activation: the lock itself was replaced under its holder.
    Lost(String),
    /// Not stored: not allowed, or cannot be stored (credentials, permission, full disk).
    Denied(String),
    /// Not stored: the store asks to wait.
    Throttled(Duration),
    /// Nobody knows: it may have been stored, now or later. The next read tells.
    Unknown(String),
}
