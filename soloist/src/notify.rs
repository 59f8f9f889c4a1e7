//! Tells others which part this member plays, each time that it changes: an application that is warm already, a sidecar's
//! neighbour, a monitor. Nobody waits for it: a listener that hangs delays its own notices, and nothing else.
//!
//! "Active" is told when the lock is held, and "standby" as soon as the stop begins, before the workload has ended. A
//! notice says with its fencing token which time of being active it is about; one that is overtaken is not sent any more.

mod exec;
mod file;
pub(crate) mod http;
pub(crate) mod udp;

use std::time::Duration;

use election::Instant;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::commands::Commands;
use crate::patience::{jittered, within};
use crate::settings::notify::Listener;
use crate::snapshot::Snapshot;

/// How long one attempt may take.
const LIMIT: Duration = Duration::from_secs(2);
/// After the first attempt that failed; twice as long after each further one, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What a listener gets when the member leaves.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// What is told: the JSON of it is the body of a request, a datagram, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The version of this form.
    pub schema: u32,
    /// The group's name.
    pub group: String,
    /// The member's name.
    pub member: String,
    /// `active` or `standby`.
    pub role: &'static str,
    /// Of the time of being active that has begun or ended; nothing before the first one.
    pub fencing_token: Option<u64>,
    /// The same time of being active.
    pub activation: Option<String>,
    /// For `active`: whoever hears of it later asks `/active` before acting, in wall-clock milliseconds since 1970.
    pub valid_until_unix_ms: Option<u64>,
}

impl Notice {
    /// What there is to say at `now`, after what was `said` last.
    fn of(snapshot: &Snapshot, now: Instant, said: Option<&Notice>) -> Self {
        let rest = snapshot.active_for(now);
        let until = rest.map(|rest| (clock::unix_us() + u64::try_from(rest.as_micros()).unwrap_or(0)) / 1000);
        // One that nobody has been told of yet has not begun.
        let tenure = snapshot.tenure.filter(|_| snapshot.told_role() == snapshot.role);
        let begun = tenure.map(|tenure| (tenure.token.0, tenure.activation.to_string()));
        let ended = said.and_then(|said| Some((said.fencing_token?, said.activation.clone()?)));
        let (fencing_token, activation) = begun.or(ended).unzip();
        Self {
            schema: 1,
            group: snapshot.group.clone(),
            member: snapshot.name.clone(),
            role: if rest.is_some() { "active" } else { "standby" },
            fencing_token,
            activation,
            valid_until_unix_ms: until,
        }
    }

    /// Whether there is nothing new in `other`: that it is valid for longer is none.
    fn says_the_same(&self, other: &Notice) -> bool {
        (self.role, self.fencing_token) == (other.role, other.fencing_token)
    }

    /// Whether a time of being active begins.
    fn is_promotion(&self) -> bool {
        self.role == "active"
    }

    /// The JSON of it, on one line.
    fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| format!("failed to write the notice: {error}"))
    }
}

/// Has files say that this member stands by, before a workload is started that reads them: an earlier run of this member
/// may have left them as they are.
///
/// # Errors
/// One cannot be written.
pub fn reset_files(listeners: &[Listener], first: &Snapshot) -> Result<(), String> {
    let notice = Notice::of(first, clock::now(), None);
    listeners.iter().try_for_each(|listener| match listener {
        Listener::File(path) => file::tell(path, &notice),
        _ => Ok(()),
    })
}

/// Tells one listener, until the elector has ended and a moment longer.
pub async fn run(listener: Listener, commands: Commands, mut snapshots: watch::Receiver<Snapshot>) {
    // What was said last, and whether it was understood. What was not may have been heard all the same.
    let mut said: Option<Notice> = None;
    let mut is_told = false;
    loop {
        let notice = newest(&mut snapshots, said.as_ref());
        if is_told && said.as_ref().is_some_and(|said| said.says_the_same(&notice)) {
            match snapshots.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        said = Some(notice.clone());
        let is_over = tokio::select! {
            () = tell(&listener, &commands, &notice) => None,
            is_over = overtaken(&mut snapshots, &notice) => Some(is_over),
        };
        is_told = is_over.is_none();
        if is_over == Some(true) {
            break;
        }
    }
    let last = newest(&mut snapshots, said.as_ref());
    if timeout(LAST_LIMIT, tell(&listener, &commands, &last)).await.is_err() {
        tracing::warn!("leaving without having told {listener} so: {}", last.role);
    }
}

fn newest(snapshots: &mut watch::Receiver<Snapshot>, said: Option<&Notice>) -> Notice {
    Notice::of(&snapshots.borrow_and_update(), clock::now(), said)
}

/// Waits until there is something else to tell: whether that was the last of it. Cancel safe.
async fn overtaken(snapshots: &mut watch::Receiver<Snapshot>, notice: &Notice) -> bool {
    loop {
        if snapshots.changed().await.is_err() {
            return true;
        }
        if !newest(snapshots, Some(notice)).says_the_same(notice) {
            return false;
        }
    }
}

/// Tries until it is told.
async fn tell(listener: &Listener, commands: &Commands, notice: &Notice) {
    let mut pause = PAUSE;
    while let Err(why) = tell_once(listener, commands, notice).await {
        match pause {
            PAUSE => tracing::warn!("failed to tell {listener} of being {}: {why}", notice.role),
            _ => tracing::debug!("failed to tell {listener} again: {why}"),
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    tracing::debug!("{listener} knows of being {}", notice.role);
}

async fn tell_once(listener: &Listener, commands: &Commands, notice: &Notice) -> Result<(), String> {
    match listener {
        Listener::Http { target, token_file } => within(LIMIT, http::tell(target, token_file.as_deref(), notice)).await,
        Listener::Udp { host, port, payload } => {
            within(LIMIT, udp::tell((host, *port), payload.as_deref(), notice)).await
        }
        Listener::File(path) => file::tell(path, notice),
        Listener::Exec { line, limit } => exec::tell(commands, line, *limit, notice).await,
    }
}

#[cfg(test)]
mod tests;
