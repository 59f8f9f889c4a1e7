//! What the members say of themselves: the demo follows `/events` of each, as anybody could.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::sync::Notify;

/// Between two tries to reach a member that is not there.
const RETRY: Duration = Duration::from_millis(20);

/// How often somebody who waits for a change looks whether the demo was stopped.
const LOOK: Duration = Duration::from_millis(100);

/// No event is longer.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// The part of a `status` event that the demo needs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Said {
    pub role: String,
    fencing_token: Option<u64>,
    workload: Workload,
    previous: Option<Previous>,
}

#[derive(Clone, Debug, Deserialize)]
struct Workload {
    pid: Option<i32>,
    since: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize)]
struct Previous {
    until: Option<Timestamp>,
}

/// A member whose workload runs, by its own word.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub member: String,
    pub token: u64,
    pub pid: i32,
    /// Since when its workload runs.
    pub since: Timestamp,
    /// When nothing was left of the one before, where somebody could prove that.
    pub previous_until: Option<Timestamp>,
}

/// Follows all members until it is dropped.
pub(super) struct Watch {
    heard: Arc<Heard>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    said: Mutex<BTreeMap<&'static str, Said>>,
    changed: Condvar,
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, BTreeMap<&'static str, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, name: &'static str, said: Option<Said>) {
        match said {
            Some(said) => self.said().insert(name, said),
            None => self.said().remove(name),
        };
        self.changed.notify_all();
    }
}

impl Watch {
    /// Follows the members of these names, each at its own socket.
    pub fn start(folder: &Path, names: &'static [&'static str]) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("failed to start the runtime")?;
        let (heard, stop) = (Arc::<Heard>::default(), Arc::new(Notify::new()));
        let sockets: Vec<_> = names.iter().map(|name| (*name, socket(folder, name))).collect();
        let (ears, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                for (name, socket) in sockets {
                    tokio::spawn(follow(name, socket, Arc::clone(&ears)));
                }
                end.notified().await;
            });
        });
        Ok(Self { heard, stop, thread: Some(thread) })
    }

    /// What each member that answers has said last.
    pub fn said(&self) -> BTreeMap<&'static str, Said> {
        self.heard.said().clone()
    }

    /// The first active member with a larger token than this, once its workload runs.
    pub fn wait_for_active(&self, after: u64, limit: Duration, stop: &AtomicBool) -> Result<Active> {
        let end = Instant::now() + limit;
        let mut said = self.heard.said();
        loop {
            let active = said.iter().filter_map(|(name, said)| said.active(name));
            if let Some(active) = active.filter(|active| active.token > after).min_by_key(|active| active.token) {
                return Ok(active);
            }
            if stop.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            if Instant::now() > end {
                bail!("nobody became active within {limit:?}");
            }
            said = match self.heard.changed.wait_timeout(said, LOOK) {
                Ok((said, _)) => said,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Said {
    /// Whether and how the member is active: its workload runs, and it may.
    fn active(&self, name: &str) -> Option<Active> {
        let (pid, since) = (self.workload.pid?, self.workload.since?);
        (self.role == "active").then_some(())?;
        Some(Active {
            member: name.to_owned(),
            token: self.fencing_token?,
            pid,
            since,
            previous_until: self.previous.as_ref().and_then(|previous| previous.until),
        })
    }
}

/// Where a member serves.
pub(super) fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.http"))
}

/// Follows one member, through all of its lives.
async fn follow(name: &'static str, socket: PathBuf, heard: Arc<Heard>) {
    loop {
        // It is not there, or has gone: both are what the demo is about.
        let _ = listen(name, &socket, &heard).await;
        heard.hear(name, None);
        tokio::time::sleep(RETRY).await;
    }
}

async fn listen(name: &'static str, socket: &Path, heard: &Heard) -> Result<()> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/events").header(header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let talk = async {
        let mut body = sender.send_request(request).await?.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
            for said in take_events(&mut text) {
                heard.hear(name, Some(said));
            }
            if text.len() > EVENT_BYTES_MAX {
                bail!("got an event without an end");
            }
        }
        Ok(())
    };
    tokio::select! {
        end = talk => end,
        end = connection => Ok(end?),
    }
}

/// Takes whole events out of what has come; those that say something else are left out.
fn take_events(text: &mut Vec<u8>) -> Vec<Said> {
    let mut events = Vec::new();
    while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
        let event: Vec<u8> = text.drain(..end + 2).collect();
        let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "));
        events.extend(data.and_then(|data| serde_json::from_slice(data).ok()));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"schema": 1, "name": "a", "role": "active", "fencing_token": 7,
        "workload": {"state": "running", "pid": 5, "since": "2026-01-01T00:00:00.000250Z"},
        "previous": {"holder": "b", "until": "2026-01-01T00:00:00.000100Z"}}"#;

    #[test]
    fn events_are_read_whatever_their_pieces() {
        let event = format!("id: 3\nevent: status\ndata: {}\n\n", STATUS.replace('\n', " "));
        let stream = format!(":\n\n{event}{event}");
        for piece in [1, 7, 1000] {
            let (mut text, mut events) = (Vec::new(), Vec::new());
            for bytes in stream.as_bytes().chunks(piece) {
                text.extend_from_slice(bytes);
                events.extend(take_events(&mut text));
            }
            assert_eq!(events.len(), 2, "pieces of {piece}");
            let active = events[0].active("a").unwrap();
            assert_eq!((active.token, active.pid), (7, 5));
            let gap = active.since.duration_since(active.previous_until.unwrap());
            assert_eq!(gap.as_micros(), 150);
        }
    }

    #[test]
    fn who_is_active_without_a_running_workload_is_not_there_yet() {
        let mut said: Said = serde_json::from_str(STATUS).unwrap();
        said.workload.since = None;
        assert!(said.active("a").is_none());
        let mut said: Said = serde_json::from_str(STATUS).unwrap();
        said.role = "stopping".to_owned();
        assert!(said.active("a").is_none());
    }
}
