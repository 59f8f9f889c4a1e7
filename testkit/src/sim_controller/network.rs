//! What is on its way between controllers and the API server. It may take any time, or never arrive.

use soloist::controller::plan::Part;
use soloist::controller::pod::Pod;
use soloist::controller::record::Record;

use super::api::Stored;

/// What a controller asks of the API server.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// One pod as it is now.
    Read { uid: String },
    /// The record as it is now.
    ReadRecord,
    /// The record becomes this, if it still has the version.
    Record { quoted: Option<u64>, record: Record },
    /// A pod is changed, if it still has the version.
    Pod { uid: String, quoted: u64, change: Change },
}

/// What becomes of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Its label, with the token.
    Label(Part, Option<u64>),
    /// Only the term.
    Settle,
    /// It is asked to end.
    Delete,
}

/// What the API server says.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The pod as it is now.
    Pod(Box<Pod>),
    /// There is no such pod.
    Gone,
    /// The record as it is now.
    Record(Stored),
    /// It has another version.
    Conflict,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Its number.
    pub id: u64,
    /// Whose.
    pub controller: usize,
    /// In which term it was sent.
    pub term: u64,
    /// What.
    pub call: Call,
}

/// Both directions.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// On their way for as long as it takes: nobody waits for them any more.
    pub stray: Vec<Request>,
    /// On their way to the API server.
    pub requests: Vec<Request>,
    /// On their way back.
    pub answers: Vec<(Request, Answer)>,
}
