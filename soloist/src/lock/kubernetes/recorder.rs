//! Tells people what a member does: Kubernetes Events on the Lease and on the member's pod, with the machine's reasons.
//! Nobody waits for them, and there are never many.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use election::{Entropy, Role};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::LeaseName;
use super::access::Access;
use super::rule::{Verb, missing_beside};
use super::session::{Session, request};
use crate::elector::KernelEntropy;
use crate::snapshot::Snapshot;

/// How many may follow each other at once.
const BURST: u32 = 10;
/// One more after each of these.
const PACE: Duration = Duration::from_secs(30);
/// For everything that one note costs.
const LIMIT: Duration = Duration::from_secs(5);
/// As much of a reason as fits into an Event.
const MESSAGE_MAX: usize = 900;

/// Where the Events go.
#[derive(Clone, Debug)]
pub struct Recorder {
    access: Access,
    place: LeaseName,
    member: String,
    pod: Option<Value>,
}

impl Recorder {
    /// Events on `place` by `member`, and on its pod where there is one.
    pub fn new(access: Access, place: LeaseName, member: String, pod: Option<Value>) -> Self {
        Self { access, place, member, pod }
    }

    /// The pod that this process is in, as an Event refers to it, where the environment names it.
    pub fn own_pod() -> Option<Value> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (name, uid, namespace) = (variable("POD_NAME")?, variable("POD_UID")?, variable("POD_NAMESPACE")?);
        Some(json!({"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": uid}))
    }

    /// Writes until the member leaves, or until it turns out that it is not allowed to. Does not end by itself.
    pub async fn run(self, mut snapshots: watch::Receiver<Snapshot>) -> anyhow::Result<()> {
        let mut notes = Notes::default();
        let mut writing: Option<Writing> = None;
        loop {
            let due = notes.due_at().filter(|_| writing.is_none());
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(()) => notes.look(&snapshots.borrow_and_update()),
                    Err(_) => break,
                },
                () = at(due) => {
                    if let Some(note) = notes.take(Instant::now()) {
                        writing = Some(Box::pin(self.clone().write(note)));
                    }
                }
                end = pending_or(&mut writing) => {
                    writing = None;
                    if let Err(Forbidden(rule)) = end {
                        tracing::warn!("no Events are written, because that is not allowed: {rule}");
                        break;
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// One note, on everything that it is about.
    async fn write(self, note: Note) -> Result<(), Forbidden> {
        match timeout(LIMIT, self.try_write(&note)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Trouble::Forbidden(forbidden))) => Err(forbidden),
            Ok(Err(Trouble::Other(why))) => {
                tracing::debug!("failed to write an Event: {why}");
                Ok(())
            }
            Err(_) => {
                tracing::debug!("failed to write an Event within {LIMIT:?}");
                Ok(())
            }
        }
    }

    /// Over a connection of its own: it is needed rarely, and must not be in anybody's way.
    async fn try_write(&self, note: &Note) -> Result<(), Trouble> {
        let session = Session::open(&self.access).await.map_err(|error| Trouble::Other(error.to_string()))?;
        let lease = self.lease(&session).await?;
        for object in [Some(&lease), self.pod.as_ref()].into_iter().flatten() {
            let namespace = object["namespace"].as_str().unwrap_or_default();
            let path = format!("/api/v1/namespaces/{namespace}/events");
            let event = note.event(object, &self.member, jiff::Timestamp::now());
            match call(&session, Method::POST, path, event).await? {
                (StatusCode::FORBIDDEN, _) => {
                    return Err(Trouble::Forbidden(Forbidden(missing_beside(Verb::Create, "events", namespace))));
                }
                (status, _) if !status.is_success() => {
                    return Err(Trouble::Other(format!("the API server answered {status}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The Lease as an Event refers to it: `kubectl describe` goes by the UID.
    async fn lease(&self, session: &Session) -> Result<Value, Trouble> {
        let (_, lease) = call(session, Method::GET, self.place.path(), Value::Null).await?;
        Ok(json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "name": self.place.name,
            "namespace": self.place.namespace,
            "uid": lease["metadata"]["uid"],
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

async fn call(session: &Session, method: Method, path: String, body: Value) -> Result<(StatusCode, Value), Trouble> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = request(method, path, body).map_err(Trouble::Other)?;
    let (status, _, body) = session.call(request).await.map_err(Trouble::Other)?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    role: Role,
    why: String,
    left_out: u64,
}

impl Note {
    fn event(&self, object: &Value, member: &str, now: jiff::Timestamp) -> Value {
        let name = object["name"].as_str().unwrap_or_default();
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": format!("{name:.230}.{:016x}", KernelEntropy.bits()),
                "namespace": object["namespace"],
            },
            "involvedObject": object,
            "type": "Normal",
            "reason": self.reason(),
            "message": self.message(member),
            "source": {"component": "soloist"},
            "reportingComponent": "soloist",
            "reportingInstance": format!("{member:.128}"),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
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

/// What is to be told next, and when. One note waits at most: the newest.
#[derive(Debug)]
struct Notes {
    last: (Role, String),
    waiting: Option<Note>,
    left_out: u64,
    /// When there is room for a whole burst again.
    full_at: Instant,
}

impl Default for Notes {
    fn default() -> Self {
        let last = (Role::Standby, String::new());
        Self { last, waiting: None, left_out: 0, full_at: Instant::now() }
    }
}

impl Notes {
    /// A standby has nothing to tell that the active one does not, and a try is told by how it ends.
    fn look(&mut self, snapshot: &Snapshot) {
        let now = (snapshot.role, snapshot.reason.clone());
        let is_idle = now.0 == Role::Standby && self.last.0 == Role::Standby;
        if now.0 == Role::Acquiring || is_idle || now == self.last {
            return;
        }
        self.last.clone_from(&now);
        let note = Note { role: now.0, why: now.1, left_out: 0 };
        if self.waiting.replace(note).is_some() {
            self.left_out += 1;
        }
    }

    /// When the note that waits may be written.
    fn due_at(&self) -> Option<Instant> {
        self.waiting.as_ref()?;
        Some(self.full_at.checked_sub(PACE * (BURST - 1)).unwrap_or_else(Instant::now))
    }

    fn take(&mut self, now: Instant) -> Option<Note> {
        let note = self.waiting.take()?;
        self.full_at = self.full_at.max(now) + PACE;
        Some(Note { left_out: std::mem::take(&mut self.left_out), ..note })
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

    /// What is written at once of these, one after the other.
    fn told(notes: &mut Notes, snapshots: &[(Role, &str)]) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        for (role, reason) in snapshots {
            notes.look(&snapshot(*role, reason));
            if notes.due_at().is_some_and(|due| due <= Instant::now())
                && let Some(note) = notes.take(Instant::now())
            {
                told.push((note.reason(), note.message("a")));
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
        let told = told(&mut Notes::default(), &course);
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
        assert_eq!(told(&mut notes, &course).len(), BURST as usize);
        let due = notes.due_at().unwrap();
        assert_eq!(due.duration_since(Instant::now()), PACE);
        tokio::time::advance(PACE).await;
        let note = notes.take(Instant::now()).unwrap();
        assert_eq!(note.message("a"), "a: trouble 49 (39 before this were left out)");
        assert_eq!(told(&mut notes, &[(Role::Active, "more")]), []);
        tokio::time::advance(PACE * BURST * 2).await;
        assert_eq!(told(&mut notes, &course).len(), BURST as usize, "no more is saved up than a burst");
    }

    #[test]
    fn an_event_fits_into_what_the_api_server_takes() {
        let object = json!({"kind": "Lease", "name": "n".repeat(253), "namespace": "prod"});
        let note = Note { role: Role::Active, why: "\u{fc}".repeat(5000), left_out: u64::MAX };
        let event = note.event(&object, &"m".repeat(253), jiff::Timestamp::UNIX_EPOCH);
        assert!(event["message"].as_str().unwrap().len() <= 1024);
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
        assert!(event["reportingInstance"].as_str().unwrap().len() <= 128);
        assert_eq!((&event["metadata"]["namespace"], &event["involvedObject"]), (&object["namespace"], &object));
        assert_eq!(event["lastTimestamp"], "1970-01-01T00:00:00Z");
    }
}
