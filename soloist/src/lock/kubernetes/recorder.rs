//! Tells people what a member does: Kubernetes Events on the Lease and on the member's pod, with the machine's reasons.
//! Nobody waits for them, and there are never many.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use election::{Entropy, Role};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ObjectName;
use super::access::Access;
use super::calls::Calls;
use super::hub::Hub;
use super::rule::{Verb, missing_beside};
use super::session::{Session, request};
use crate::entropy::KernelEntropy;
use crate::snapshot::Snapshot;

/// How many may follow each other at once.
const BURST: u32 = 10;
/// One more after each of these.
const PACE: Duration = Duration::from_secs(30);
/// For everything that is written at once.
const LIMIT: Duration = Duration::from_secs(5);
/// A handover is under way when there is something to tell: it gets processor and server to itself first.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a member that leaves stays for what it has not told yet.
const FAREWELL: Duration = Duration::from_secs(1);
/// So many notes wait at most, the newest ones.
const WAITING_MAX: usize = 4;
/// As much of a reason as fits into an Event.
const MESSAGE_MAX: usize = 900;

/// Where the Events go.
#[derive(Clone, Debug)]
pub struct Recorder {
    access: Access,
    place: ObjectName,
    /// Knows the Lease's UID, which `kubectl describe` goes by.
    hub: Arc<Hub>,
    member: String,
    pod: Option<Value>,
}

impl Recorder {
    /// Events by `member` on the Lease that `calls` are about, and on its pod where there is one.
    pub(super) fn new(calls: &Calls, member: String, pod: Option<Value>) -> Self {
        let (access, place) = (calls.access().clone(), calls.place().clone());
        Self { access, place, hub: Arc::clone(calls.hub()), member, pod }
    }

    /// The pod that this process is in, as an Event refers to it, where the environment names it.
    pub(super) fn own_pod() -> Option<Value> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (name, uid, namespace) = (variable("POD_NAME")?, variable("POD_UID")?, variable("POD_NAMESPACE")?);
        Some(json!({"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": uid}))
    }

    /// Writes until the member has left, and then for a moment what is not told yet.
    pub async fn run(self, mut snapshots: watch::Receiver<Snapshot>) {
        let mut notes = Notes::default();
        let mut writing: Option<Writing> = None;
        loop {
            let due = notes.due_at().filter(|_| writing.is_none());
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(()) => notes.look(&snapshots.borrow_and_update()),
                    Err(_) => break,
                },
                () = at(due) => writing = Some(Box::pin(self.clone().write(notes.take(Instant::now())))),
                end = pending_or(&mut writing) => {
                    writing = None;
                    if let Err(Forbidden(rule)) = end {
                        tracing::warn!("no Events are written, because that is not allowed: {rule}");
                        notes.close();
                    }
                }
            }
        }
        let farewell = async {
            let is_forbidden = match writing {
                Some(writing) => writing.await.is_err(),
                None => false,
            };
            if !is_forbidden && notes.due_at().is_some() {
                sleep(SETTLE).await;
                let _ = self.write(notes.take(Instant::now())).await;
            }
        };
        // Whoever leaves is not held up for it.
        let _ = timeout(FAREWELL, farewell).await;
    }

    /// The notes, on everything that they are about.
    async fn write(self, notes: Vec<Note>) -> Result<(), Forbidden> {
        let why = match timeout(LIMIT, self.try_write(&notes)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Trouble::Forbidden(forbidden))) => return Err(forbidden),
            Ok(Err(Trouble::Other(why))) => why,
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        tracing::debug!("failed to write an Event: {why}");
        Ok(())
    }

    /// Over a connection of its own: it is needed rarely, and must not be in anybody's way.
    async fn try_write(&self, notes: &[Note]) -> Result<(), Trouble> {
        let session = Session::open(&self.access).await.map_err(|error| Trouble::Other(error.to_string()))?;
        let objects: Vec<Value> = self.lease().into_iter().chain(self.pod.clone()).collect();
        for note in notes {
            for object in &objects {
                self.post(&session, note, object).await?;
            }
        }
        Ok(())
    }

    async fn post(&self, session: &Session, note: &Note, object: &Value) -> Result<(), Trouble> {
        let namespace = object["namespace"].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let event = note.event(object, &self.member).to_string().into_bytes();
        let request = request(Method::POST, path, event).map_err(Trouble::Other)?;
        let (status, _, _) = session.call(request).await.map_err(Trouble::Other)?;
        match status {
            StatusCode::FORBIDDEN => {
                Err(Trouble::Forbidden(Forbidden(missing_beside(Verb::Create, "events", namespace))))
            }
            status if !status.is_success() => Err(Trouble::Other(format!("the API server answered {status}"))),
            _ => Ok(()),
        }
    }

    /// The Lease as an Event refers to it, as long as there is one.
    fn lease(&self) -> Option<Value> {
        let newest = self.hub.newest().borrow().clone();
        let uid = newest.lease()?["metadata"]["uid"].clone();
        Some(json!({
            "apiVersion": self.place.kind.api_version(),
            "kind": self.place.kind.word(),
            "name": self.place.name,
            "namespace": self.place.namespace,
            "uid": uid,
        }))
    }
}

/// A note that is being written.
type Writing = Pin<Box<dyn Future<Output = Result<(), Forbidden>> + Send>>;

/// What it needs to be allowed.
struct Forbidden(String);

enum Trouble {
    Forbidden(Forbidden),
    Other(String),
}

/// An Event on `object`, which is named as one refers to it there, by `reporter`.
pub fn event(object: &Value, reason: &str, message: &str, reporter: &str, since: jiff::Timestamp) -> Value {
    let name = object["name"].as_str().unwrap_or_default();
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name:.230}.{:016x}", KernelEntropy.bits()),
            "namespace": object["namespace"],
        },
        "involvedObject": object,
        "type": "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": "soloist"},
        "reportingComponent": "soloist",
        "reportingInstance": format!("{reporter:.128}"),
        "firstTimestamp": since,
        "lastTimestamp": since,
        "count": 1,
    })
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    role: Role,
    why: String,
    /// When it was so.
    since: jiff::Timestamp,
    left_out: u64,
}

impl Note {
    fn event(&self, object: &Value, member: &str) -> Value {
        event(object, self.reason(), &self.message(member), member, self.since)
    }

    fn reason(&self) -> &'static str {
        match self.role {
            Role::Standby => "Standby",
            Role::Acquiring => "Acquiring",
            Role::Active => "Active",
            Role::Stopping => "Stopping",
            Role::Ended => "Ended",
        }
    }

    fn message(&self, member: &str) -> String {
        let mut why: String = self.why.chars().take(MESSAGE_MAX / 4).collect();
        if self.left_out > 0 {
            why.push_str(&format!(" ({} before this were left out)", self.left_out));
        }
        format!("{member}: {why}")
    }
}

/// What is to be told next, and when.
#[derive(Debug)]
struct Notes {
    last: (Role, String),
    waiting: VecDeque<Note>,
    /// So many were told by nobody.
    left_out: u64,
    /// When the handover that the first of them tells of should be over.
    settled_at: Instant,
    /// When there is room for a whole burst again.
    full_at: Instant,
    /// Nothing may be told.
    is_closed: bool,
}

impl Default for Notes {
    fn default() -> Self {
        let (now, last) = (Instant::now(), (Role::Standby, String::new()));
        Self { last, waiting: VecDeque::new(), left_out: 0, settled_at: now, full_at: now, is_closed: false }
    }
}

impl Notes {
    /// A standby has nothing to tell that the active one does not, and a try is told by how it ends.
    fn look(&mut self, snapshot: &Snapshot) {
        let now = (snapshot.role, snapshot.reason.clone());
        let is_idle = now.0 == Role::Standby && self.last.0 == Role::Standby;
        if self.is_closed || now.0 == Role::Acquiring || is_idle || now == self.last {
            return;
        }
        self.last.clone_from(&now);
        if self.waiting.is_empty() {
            self.settled_at = Instant::now() + SETTLE;
        }
        self.waiting.push_back(Note { role: now.0, why: now.1, since: jiff::Timestamp::now(), left_out: 0 });
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            self.left_out += 1;
        }
    }

    /// When the first of those that wait may be written.
    fn due_at(&self) -> Option<Instant> {
        self.waiting.front()?;
        let has_room_at = self.full_at.checked_sub(PACE * (BURST - 1)).unwrap_or_else(Instant::now);
        Some(has_room_at.max(self.settled_at))
    }

    /// As many of those that wait as there is room for.
    fn take(&mut self, now: Instant) -> Vec<Note> {
        let mut taken = Vec::new();
        while self.full_at.checked_sub(PACE * (BURST - 1)).is_none_or(|at| at <= now)
            && let Some(note) = self.waiting.pop_front()
        {
            self.full_at = self.full_at.max(now) + PACE;
            taken.push(Note { left_out: std::mem::take(&mut self.left_out), ..note });
        }
        taken
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn pending_or(slot: &mut Option<Writing>) -> Result<(), Forbidden> {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Health;

    fn snapshot(role: Role, reason: &str) -> Snapshot {
        let health = Health { healthy: true, why: String::new() };
        let mut snapshot = Snapshot::new("app", "a", Duration::from_secs(15), health, 0);
        snapshot.role = role;
        snapshot.reason = reason.to_owned();
        snapshot
    }

    /// What is written at once of these, each some time after the other.
    async fn told(notes: &mut Notes, snapshots: &[(Role, &str)]) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        for (role, reason) in snapshots {
            notes.look(&snapshot(*role, reason));
            tokio::time::advance(SETTLE).await;
            if notes.due_at().is_some_and(|due| due <= Instant::now()) {
                told.extend(notes.take(Instant::now()).iter().map(|note| (note.reason(), note.message("a"))));
            }
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_active_member_does_is_told_with_its_reason() {
        let course = [
            (Role::Standby, "standing by: b is active"),
            (Role::Acquiring, "acquiring: b released"),
            (Role::Active, "active: b released"),
            (Role::Active, "active: b released"),
            (Role::Active, "cannot renew: no answer"),
            (Role::Stopping, "asked to leave"),
            (Role::Standby, "released"),
            (Role::Standby, "standing by: b is active"),
        ];
        let told = told(&mut Notes::default(), &course).await;
        let expected = [
            ("Active", "a: active: b released"),
            ("Active", "a: cannot renew: no answer"),
            ("Stopping", "a: asked to leave"),
            ("Standby", "a: released"),
        ];
        assert_eq!(told, expected.map(|(reason, message)| (reason, message.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_followed_by_one_each_pace_and_the_newest_is_told_with_what_was_left_out() {
        let mut notes = Notes::default();
        let course: Vec<(Role, String)> = (0..50).map(|count| (Role::Active, format!("trouble {count}"))).collect();
        let course: Vec<(Role, &str)> = course.iter().map(|(role, reason)| (*role, reason.as_str())).collect();
        assert_eq!(told(&mut notes, &course).await.len(), BURST as usize);
        let due = notes.due_at().unwrap();
        assert!(due > Instant::now() && due <= Instant::now() + PACE);
        tokio::time::advance(PACE).await;
        let taken = notes.take(Instant::now());
        let messages: Vec<String> = taken.iter().map(|note| note.message("a")).collect();
        assert_eq!(messages, ["a: trouble 46 (36 before this were left out)"]);
        tokio::time::advance(PACE * BURST * 2).await;
        assert_eq!(notes.take(Instant::now()).len(), WAITING_MAX - 1, "the newest are kept");
        tokio::time::advance(PACE * BURST * 2).await;
        assert_eq!(told(&mut notes, &course).await.len(), BURST as usize, "no more is saved up than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handover_has_settled_before_anything_is_told_of_it() {
        let mut notes = Notes::default();
        let began = Instant::now();
        notes.look(&snapshot(Role::Stopping, "asked to leave"));
        tokio::time::advance(SETTLE / 2).await;
        notes.look(&snapshot(Role::Standby, "released"));
        assert_eq!(notes.due_at(), Some(began + SETTLE));
        let reasons: Vec<&str> = notes.take(began + SETTLE).iter().map(Note::reason).collect();
        assert_eq!(reasons, ["Stopping", "Standby"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_more_is_told_where_that_is_not_allowed() {
        let mut notes = Notes::default();
        notes.look(&snapshot(Role::Active, "b released"));
        notes.close();
        notes.look(&snapshot(Role::Stopping, "asked to leave"));
        assert_eq!(notes.due_at(), None);
    }

    #[test]
    fn an_event_fits_into_what_the_api_server_takes() {
        let object = json!({"kind": "Lease", "name": "n".repeat(253), "namespace": "prod"});
        let since = jiff::Timestamp::UNIX_EPOCH;
        let note = Note { role: Role::Active, why: "\u{fc}".repeat(5000), since, left_out: u64::MAX };
        let event = note.event(&object, &"m".repeat(253));
        assert!(event["message"].as_str().unwrap().len() <= 1024);
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
        assert!(event["reportingInstance"].as_str().unwrap().len() <= 128);
        assert_eq!((&event["metadata"]["namespace"], &event["involvedObject"]), (&object["namespace"], &object));
        assert_eq!(event["lastTimestamp"], "1970-01-01T00:00:00Z");
    }
}
