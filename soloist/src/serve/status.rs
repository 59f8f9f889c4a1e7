//! What `/status` and `/events` say.

use election::Instant;
use serde::Serialize;
use serde_json::Number;

use crate::lock::history::Change;
use crate::snapshot::{Announcement, Holder, Snapshot};
use crate::spell::{seconds, time};

/// Grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// How a member stands.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    schema: u32,
    group: &'a str,
    name: &'a str,
    role: String,
    holder: Option<&'a str>,
    fencing_token: Option<u64>,
    #[serde(flatten)]
    slots: Option<Slots<'a>>,
    since: Option<String>,
    lease: Lease,
    paused_until: Option<String>,
    workload: Workload,
    health: Health<'a>,
    containment: Option<&'static str>,
    memory_locked: Option<bool>,
    reason: &'a str,
    previous: Option<Previous<'a>>,
    members: Vec<Member<'a>>,
}

/// Where several members may be active.
#[derive(Debug, Serialize)]
struct Slots<'a> {
    /// The own one.
    slot: Option<u32>,
    slots: Vec<Slot<'a>>,
}

#[derive(Debug, Serialize)]
struct Slot<'a> {
    slot: usize,
    holder: Option<&'a str>,
    fencing_token: Option<u64>,
}

/// The last time of being active that has ended.
#[derive(Debug, Serialize)]
struct Previous<'a> {
    holder: &'a str,
    fencing_token: Option<u64>,
    since: Option<String>,
    /// When nothing of it was left; nothing where nobody could prove that.
    until: Option<String>,
    end: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Lease {
    seconds: Option<Number>,
    valid_for_ms: u64,
}

#[derive(Debug, Serialize)]
struct Workload {
    state: &'static str,
    pid: Option<i32>,
    since: Option<String>,
}

#[derive(Debug, Serialize)]
struct Health<'a> {
    healthy: bool,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct Member<'a> {
    name: &'a str,
    role: &'a str,
    healthy: bool,
    why: Option<&'a str>,
    version: &'a str,
    since: Option<String>,
    announced: Option<String>,
}

/// In the place of a reason that says more than anybody may be told yet.
const UNTOLD: &str = "the workload is about to be told";

impl<'a> Status<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, now: Instant) -> Self {
        let (holder, fencing_token) = holder(snapshot);
        Self {
            schema: SCHEMA,
            group: &snapshot.group,
            name: &snapshot.name,
            role: snapshot.told_role().to_string(),
            holder,
            fencing_token,
            slots: slots(snapshot),
            since: time(snapshot.since_unix_us),
            lease: Lease { seconds: seconds(snapshot.lease), valid_for_ms: valid_for_ms(snapshot, now) },
            paused_until: snapshot.paused_until_unix_ms.and_then(time_ms),
            workload: workload(snapshot),
            health: Health { healthy: snapshot.health.healthy, why: &snapshot.health.why },
            containment: snapshot.containment.map(|containment| containment.word()),
            memory_locked: snapshot.memory_locked,
            reason: if snapshot.told_role() == snapshot.role { &snapshot.reason } else { UNTOLD },
            previous: snapshot.previous().map(Previous::of),
            members: snapshot.members.iter().map(Member::of).collect(),
        }
    }
}

impl<'a> Previous<'a> {
    fn of(change: &'a Change) -> Self {
        Self {
            holder: &change.member,
            fencing_token: change.token,
            since: time(change.from_us),
            until: change.until_us.and_then(time),
            end: change.end.as_deref(),
        }
    }
}

impl<'a> Member<'a> {
    fn of(announcement: &'a Announcement) -> Self {
        Self {
            name: &announcement.name,
            role: &announcement.role,
            healthy: announcement.healthy,
            why: announcement.why.as_deref(),
            version: &announcement.version,
            since: time_ms(announcement.since_unix_ms),
            announced: time_ms(announcement.at_unix_ms),
        }
    }
}

/// Whom the lock names, and its token where that is known.
pub(super) fn holder(snapshot: &Snapshot) -> (Option<&str>, Option<u64>) {
    named(snapshot.told_holder())
}

fn named(holder: Option<&Holder>) -> (Option<&str>, Option<u64>) {
    let token = holder.and_then(|holder| holder.token).map(|token| token.0);
    (holder.map(|holder| holder.name.as_str()), token)
}

/// Nothing where there is only one.
fn slots(snapshot: &Snapshot) -> Option<Slots<'_>> {
    let slots: Vec<Slot> = snapshot
        .slots
        .iter()
        .enumerate()
        .map(|(index, shown)| {
            let (holder, fencing_token) = named(shown.as_ref());
            Slot { slot: index + 1, holder, fencing_token }
        })
        .collect();
    (!slots.is_empty()).then_some(Slots { slot: snapshot.slot, slots })
}

/// How long this member may say that it is active; 0 if it may not.
pub(super) fn valid_for_ms(snapshot: &Snapshot, now: Instant) -> u64 {
    let rest = snapshot.active_for(now).unwrap_or_default();
    u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)
}

fn workload(snapshot: &Snapshot) -> Workload {
    let workload = snapshot.workload;
    let since = match workload {
        crate::snapshot::Workload::Warm { since_unix_us, .. }
        | crate::snapshot::Workload::Running { since_unix_us, .. } => time(since_unix_us),
        _ => None,
    };
    Workload { state: workload.word(), pid: workload.pid(), since }
}

fn time_ms(unix_ms: u64) -> Option<String> {
    time(unix_ms.checked_mul(1000)?)
}
