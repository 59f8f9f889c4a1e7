//! What is on the board, as annotations of the Lease: one each for all announcements, the request and the last answer.
//!
//! Whoever may edit the Lease may write anything there. What cannot be read is not there, and the next write replaces
//! it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::lock::board::{self, Answer, Asked};
use crate::lock::kubernetes::lease::{annotation, take_object};
use crate::snapshot::Announcement;

/// The annotation with all announcements.
pub const MEMBERS: &str = "soloist.dev/members";
/// The annotation with the request that waits.
pub const REQUEST: &str = "soloist.dev/request";
/// The annotation with the last answer.
pub const ANSWER: &str = "soloist.dev/answer";

/// As many bytes may announcements take together.
const MEMBERS_BYTES_MAX: usize = 8 * 1024;
/// As many announcements there may be.
const MEMBERS_MAX: usize = 64;
/// As many bytes may a request or an answer take.
const NOTE_BYTES_MAX: usize = 2 * 1024;
/// More than this is not even read.
const READ_BYTES_MAX: usize = 32 * 1024;

/// Everything on one board that can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posts {
    /// The announcements that count, one for each nonce.
    pub members: Vec<Announcement>,
    /// The request, if whoever asked waits still.
    pub request: Option<Asked>,
    /// The last answer.
    pub answer: Option<Answer>,
}

/// Something is too long to be put up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} would have {got} bytes, at most {max} fit")]
pub struct TooLong {
    what: &'static str,
    got: usize,
    max: usize,
}

impl Posts {
    /// What is on the board of `lease`.
    pub fn of(lease: &Value) -> Self {
        let mut members: Vec<Announcement> = Vec::new();
        for one in note::<Vec<Value>>(lease, MEMBERS, READ_BYTES_MAX).unwrap_or_default() {
            let Ok(one) = serde_json::from_value::<Announcement>(one) else { continue };
            if one.is_sound() && one.is_fresh() && members.iter().all(|other| other.nonce != one.nonce) {
                members.push(one);
            }
        }
        members.truncate(MEMBERS_MAX);
        board::sort(&mut members);
        Self {
            members,
            request: note(lease, REQUEST, NOTE_BYTES_MAX).filter(Asked::is_waiting).filter(Asked::is_showable),
            answer: note(lease, ANSWER, NOTE_BYTES_MAX).filter(Answer::is_showable),
        }
    }

    /// Puts up an announcement, or replaces it. Those who announced themselves longest ago make room.
    ///
    /// # Errors
    /// It does not even fit alone.
    pub fn announce(&mut self, own: &Announcement) -> Result<(), TooLong> {
        let mut others = std::mem::take(&mut self.members);
        others.retain(|member| member.nonce != own.nonce);
        others.sort_unstable_by_key(|member| std::cmp::Reverse(member.at_unix_ms));
        // The brackets; each announcement brings a comma, or so that there is one too many.
        let mut total = 2;
        let mut fits = |member: &Announcement| {
            total += text(member).len() + 1;
            total <= MEMBERS_BYTES_MAX
        };
        if !fits(own) {
            return Err(TooLong { what: "the announcement", got: text(own).len(), max: MEMBERS_BYTES_MAX });
        }
        self.members = others.into_iter().take(MEMBERS_MAX - 1).take_while(fits).collect();
        self.members.push(own.clone());
        board::sort(&mut self.members);
        Ok(())
    }

    /// The Lease with this board and everything else as it was.
    ///
    /// # Errors
    /// A request or an answer that nobody would read.
    pub fn put_on(&self, lease: &Value) -> Result<Value, TooLong> {
        let members = (!self.members.is_empty()).then(|| text(&self.members));
        let request = self.request.as_ref().map(|asked| short("the request", asked)).transpose()?;
        let answer = self.answer.as_ref().map(|answer| short("the answer", answer)).transpose()?;
        let mut lease = lease.as_object().cloned().unwrap_or_default();
        let mut metadata = take_object(&mut lease, "metadata");
        // The server keeps the book of who manages which field.
        metadata.remove("managedFields");
        let mut annotations = take_object(&mut metadata, "annotations");
        for (name, content) in [(MEMBERS, members), (REQUEST, request), (ANSWER, answer)] {
            set(&mut annotations, name, content);
        }
        metadata.insert("annotations".into(), annotations.into());
        lease.insert("metadata".into(), metadata.into());
        Ok(lease.into())
    }
}

fn set(annotations: &mut Map<String, Value>, name: &str, content: Option<String>) {
    match content {
        Some(content) => annotations.insert(name.into(), content.into()),
        None => annotations.remove(name),
    };
}

/// What an annotation says, if it can be read.
fn note<T: DeserializeOwned>(lease: &Value, name: &str, bytes_max: usize) -> Option<T> {
    let text = annotation(lease, name).filter(|text| text.len() <= bytes_max)?;
    serde_json::from_str(text).ok()
}

/// As JSON. Strings, numbers and lists of them always are.
fn text(content: &impl Serialize) -> String {
    serde_json::to_string(content).unwrap_or_default()
}

fn short(what: &'static str, content: &impl Serialize) -> Result<String, TooLong> {
    let text = text(content);
    let (got, max) = (text.len(), NOTE_BYTES_MAX);
    if got > max { Err(TooLong { what, got, max }) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
