//! A watch as the API server sends it: one JSON object a line.

use std::collections::VecDeque;
use std::time::Duration;

use election::Version;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::ObjectName;
use super::lease::{resource_version, version};
use super::session::BODY_MAX;
use crate::error::chain;

/// What one line of a watch says.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// The Lease is this now, at this version; absent if it was deleted. The number is that of the change.
    Now { version: Version, number: u64, lease: Option<Value> },
    /// Nothing happened up to here.
    Bookmark { number: u64 },
    /// The server cannot say what happened since the version that was asked for.
    Expired,
    /// The server gives up, in one sentence.
    Failed(String),
}

/// Reads one line.
///
/// # Errors
/// Not an event of a watch on `place`, in one sentence.
pub fn parse(line: &[u8], place: &ObjectName) -> Result<Event, String> {
    let mut event: Value = serde_json::from_slice(line).map_err(|error| format!("an event cannot be read: {error}"))?;
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    let kind = event["type"].as_str().unwrap_or_default();
    if kind == "ERROR" {
        let why = object["message"].as_str().unwrap_or("no reason given");
        return Ok(if object["code"] == 410 { Event::Expired } else { Event::Failed(why.to_owned()) });
    }
    let number = resource_version(&object["metadata"])?;
    match kind {
        // A server that ignores the selector tells of others.
        "ADDED" | "MODIFIED" | "DELETED" if object["metadata"]["name"] != place.name.as_str() => {
            Ok(Event::Bookmark { number })
        }
        "ADDED" | "MODIFIED" => {
            Ok(Event::Now { version: version(&object)?, number, lease: Some(place.kind.read(object)) })
        }
        "DELETED" => Ok(Event::Now { version: Version::ABSENT, number, lease: None }),
        "BOOKMARK" => Ok(Event::Bookmark { number }),
        other => Err(format!("an event has the unknown type {other:?}")),
    }
}

/// Why a watch told no more.
#[derive(Debug, PartialEq)]
pub enum Cut {
    /// It broke; what happened since may still be told by another one.
    Broken(String),
    /// It told something that cannot be read.
    Gap(String),
}

/// The lines of one watch as they come.
pub struct Feed {
    body: Body,
    lines: Lines,
    complete: VecDeque<Vec<u8>>,
    end: Instant,
}

impl Feed {
    /// One that has to end within `limit`.
    pub fn new(body: Body, limit: Duration) -> Self {
        Self { body, lines: Lines::default(), complete: VecDeque::new(), end: Instant::now() + limit }
    }

    /// The next line, or nothing if the watch has ended in time. No line is lost where nobody waits for the answer.
    ///
    /// # Errors
    /// Nothing more will come.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Cut> {
        loop {
            if let Some(line) = self.complete.pop_front() {
                return Ok(Some(line));
            }
            let frame = match timeout_at(self.end, self.body.frame()).await {
                Err(_) => return Err(Cut::Broken("it did not end in time".into())),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Cut::Broken(chain(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(piece) = frame.into_data() {
                self.complete.extend(self.lines.push(&piece).map_err(Cut::Gap)?);
            }
        }
    }
}

/// Puts lines together from the pieces in which they come.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes one piece and returns the lines that it completes.
    ///
    /// # Errors
    /// A line that is longer than any Lease.
    fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut lines = Vec::new();
        let mut pieces = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = pieces.next() {
            if self.rest.len() + part.len() > BODY_MAX {
                return Err(format!("an event is longer than {BODY_MAX} bytes"));
            }
            self.rest.extend_from_slice(part);
            // What follows the last line break is the beginning of the next line.
            if pieces.peek().is_some() {
                lines.push(std::mem::take(&mut self.rest));
            }
        }
        lines.retain(|line| !line.trim_ascii().is_empty());
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(event: Value) -> Result<Event, String> {
        let place = ObjectName::lease("prod", "app");
        parse(event.to_string().as_bytes(), &place)
    }

    fn lease(name: &str, number: &str) -> Value {
        json!({"metadata": {"name": name, "uid": "u", "resourceVersion": number}})
    }

    #[test]
    fn events_name_versions() {
        let now = version(&lease("app", "7")).unwrap();
        for kind in ["ADDED", "MODIFIED"] {
            let event = read(json!({"type": kind, "object": lease("app", "7")}));
            assert_eq!(event, Ok(Event::Now { version: now, number: 7, lease: Some(lease("app", "7")) }));
        }
        let event = read(json!({"type": "DELETED", "object": lease("app", "8")}));
        assert_eq!(event, Ok(Event::Now { version: Version::ABSENT, number: 8, lease: None }));
        let event = read(json!({"type": "MODIFIED", "object": lease("other", "9")}));
        assert_eq!(event, Ok(Event::Bookmark { number: 9 }));
        let event = read(json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}));
        assert_eq!(event, Ok(Event::Bookmark { number: 9 }));
        assert_eq!(read(json!({"type": "ERROR", "object": {"code": 410}})), Ok(Event::Expired));
        let event = read(json!({"type": "ERROR", "object": {"code": 500, "message": "no"}}));
        assert_eq!(event, Ok(Event::Failed("no".into())));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let events = [
            json!({}),
            json!([]),
            json!({"type": "ADDED"}),
            json!({"type": "ADDED", "object": {"metadata": {"name": "app", "resourceVersion": "1"}}}),
            json!({"type": "ADDED", "object": lease("app", "x")}),
            json!({"type": "NEW", "object": lease("app", "7")}),
        ];
        for event in events {
            assert!(read(event.clone()).is_err(), "{event}");
        }
        let place = ObjectName::lease("prod", "app");
        assert!(parse(b"{\"type\": ", &place).is_err());
    }

    #[test]
    fn lines_come_in_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(lines.push(b" more\ntwo\n\n\r\nthr").unwrap(), [b"one more".to_vec(), b"two".to_vec()]);
        assert_eq!(lines.push(b"ee\n").unwrap(), [b"three".to_vec()]);
        assert!(lines.push(&vec![b'x'; BODY_MAX]).unwrap().is_empty());
        assert!(lines.push(b"x").is_err());
    }
}
