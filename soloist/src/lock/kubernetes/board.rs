//! The notice board of a Lease, in annotations of its own. The record, its digest and the native fields are never
//! touched: to everybody who times the lock, a write of the board is none.
//!
//! Each change is one conditional PUT of the whole Lease. In a member it begins with what the lock has heard already,
//! so that nothing is asked for.

mod posts;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use election::{Claim, Evidence, Nonce, Seen, Version};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use self::posts::{ANSWER, MEMBERS, Posts, REQUEST, TooLong};
use super::calls::Calls;
use super::hub::Newest;
use super::watch::Watcher;
use super::{Access, ObjectName, lease};
use crate::lock::board::{Answer, Asked, Asking, Board, CALL_LIMIT, Changes, Look};
use crate::lock::codec::fingerprint;
use crate::lock::{Failed, LockError};
use crate::patience::{jittered, within};
use crate::snapshot::Announcement;

/// How often a change is tried while others write the Lease as well.
const TRIES: u32 = 6;
/// How often who leaves tries: others may leave at the same moment, and nobody comes back to it. Its caller's limit is
/// reached before.
const TRIES_TO_LEAVE: u32 = 30;
/// Before the second try, from half of this to all of it: a renewal is to come first. As much longer before each further
/// one, up to [`RETRY_PAUSE_MAX`]: of many, each finds a moment.
const RETRY_PAUSE: Duration = Duration::from_millis(60);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(300);
/// How long a member waits for a Lease that takes announcements: the lock makes or fills it meanwhile.
const LEASE_WAIT: Duration = Duration::from_millis(1_500);
/// A handover is under way: what can wait gets out of its way.
const GIVE_WAY: Duration = Duration::from_millis(150);

/// The board of one Lease.
pub struct LeaseBoard {
    calls: Calls,
    /// The watch, once it is needed; nothing where the lock beside this has one.
    watcher: Option<OnceLock<Watcher>>,
    heard: Mutex<Option<Parts>>,
}

/// What a change does.
enum Edit<T> {
    Write(T),
    Leave(T),
}

/// Fingerprints of what may change, in the order of the fields of [`Changes`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Parts([u64; 4]);

impl LeaseBoard {
    /// A board without a lock beside it, for those who look and ask. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// Credentials that cannot be read or must not be used.
    pub async fn open(access: Access, place: ObjectName) -> Result<Self, LockError> {
        let calls = Calls::open(access, place).await?;
        Ok(Self { calls, watcher: Some(OnceLock::new()), heard: Mutex::default() })
    }

    /// The board of a member, whose lock watches and looks already.
    pub(super) fn beside(lock: &Calls) -> Self {
        Self { calls: lock.beside(), watcher: None, heard: Mutex::default() }
    }

    /// Which Lease it is, with its namespace.
    pub fn place(&self) -> &ObjectName {
        self.calls.place()
    }

    /// Whether changes are being told at the moment: whoever may not watch the Lease has to look at it.
    pub fn is_told(&self) -> bool {
        self.calls.hub().news().borrow().is_live
    }

    /// The Lease as the watch has told it, for who was woken by that; as it is now where nothing is told.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn look_at_news(&self) -> Result<Look, LockError> {
        let newest = self.calls.hub().newest().borrow().clone();
        match newest.lease() {
            Some(lease) if self.is_told() => look_at(lease),
            _ => self.look().await,
        }
    }

    fn has_a_lock(&self) -> bool {
        self.watcher.is_none()
    }

    /// The Lease as the lock knows it, or as it is now where there is no lock; nothing if it does not exist.
    async fn known(&self) -> Result<Option<Arc<Value>>, LockError> {
        if self.has_a_lock() {
            let newest = self.calls.hub().newest().borrow().clone();
            if newest.is_known() {
                return Ok(newest.lease().cloned());
            }
        }
        match within(CALL_LIMIT, self.calls.get()).await {
            Ok((_, lease)) => Ok(Some(Arc::new(lease))),
            Err(Failed::Absent) => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn posts(&self) -> Result<Posts, LockError> {
        Ok(self.known().await?.map(|lease| Posts::of(&lease)).unwrap_or_default())
    }

    /// The Lease, once it takes announcements. A member waits for its lock to bring that about.
    async fn ready(&self) -> Result<Arc<Value>, LockError> {
        let ready = |newest: &Newest| newest.lease().is_some_and(|lease| takes_posts(lease));
        if self.has_a_lock() {
            let mut newest = self.calls.hub().newest();
            if let Ok(Ok(newest)) = timeout(LEASE_WAIT, newest.wait_for(ready)).await
                && let Some(lease) = newest.lease()
            {
                return Ok(Arc::clone(lease));
            }
        }
        let missing = |what: &str| {
            LockError::Unavailable(format!("the {} {:?} {what} yet", self.place().kind.word(), self.place().name))
        };
        match self.known().await? {
            Some(lease) if takes_posts(&lease) => Ok(lease),
            Some(_) => Err(missing("has no record")),
            None => Err(missing("does not exist")),
        }
    }

    /// Changes the board of `lease`, or of what has replaced it meanwhile.
    async fn change<T>(
        &self,
        mut lease: Arc<Value>,
        tries: u32,
        edit: impl Fn(&mut Posts) -> Result<Edit<T>, TooLong> + Send,
    ) -> Result<T, LockError> {
        let too_long = |error: TooLong| LockError::Denied(error.to_string());
        for conflicts in 1..=tries {
            let mut posts = Posts::of(&lease);
            let result = match edit(&mut posts).map_err(too_long)? {
                Edit::Leave(result) => return Ok(result),
                Edit::Write(result) => result,
            };
            let changed = posts.put_on(&lease).map_err(too_long)?;
            match within(CALL_LIMIT, self.calls.put(&changed)).await {
                Ok(_) => return Ok(result),
                Err(Failed::Conflict) => lease = self.what_came_before(&lease, conflicts).await?,
                Err(failed) => return Err(failed.into()),
            }
        }
        Err(Failed::Conflict.into())
    }

    /// What somebody else has made of `lease`. The watch of a member tells it in a moment.
    async fn what_came_before(&self, lease: &Value, conflicts: u32) -> Result<Arc<Value>, LockError> {
        sleep(jittered((RETRY_PAUSE * conflicts).min(RETRY_PAUSE_MAX))).await;
        let quoted = lease::version(lease).map_err(LockError::Unavailable)?.number;
        let newest = self.calls.hub().newest().borrow().clone();
        match newest.lease() {
            Some(lease) if newest.number() > quoted => Ok(Arc::clone(lease)),
            _ => self.corrected().await,
        }
    }

    /// The Lease as it is now, whatever was heard of it.
    async fn corrected(&self) -> Result<Arc<Value>, LockError> {
        let (version, lease) = within(CALL_LIMIT, self.calls.get()).await?;
        self.calls.hub().correct(version.number, &lease);
        Ok(Arc::new(lease))
    }

    /// What has changed since the last call.
    fn take(&self, now: Parts) -> Changes {
        let before = self.heard.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        before.map_or(Changes::ALL, |before| now.changes_since(before))
    }
}

impl Board for LeaseBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        if !own.is_sound() {
            let why = "an announcement with a name, nonce or text that nobody would read";
            return Err(LockError::Denied(why.into()));
        }
        let lease = self.ready().await?;
        self.change(lease, TRIES, |posts| posts.announce(own).map(Edit::Write)).await
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        if Nonce::parse(nonce).is_none() {
            return Ok(());
        }
        let Some(mut lease) = self.known().await? else { return Ok(()) };
        if self.has_a_lock() && is_being_handed_over(&lease) {
            sleep(GIVE_WAY).await;
            lease = self.corrected().await?;
        }
        let edit = |posts: &mut Posts| {
            let before = posts.members.len();
            posts.members.retain(|member| member.nonce != nonce);
            Ok(if posts.members.len() < before { Edit::Write(()) } else { Edit::Leave(()) })
        };
        self.change(lease, TRIES_TO_LEAVE, edit).await
    }

    async fn look(&self) -> Result<Look, LockError> {
        match self.known().await? {
            Some(lease) => look_at(&lease),
            None => Ok(Look::at_nothing(Vec::new())),
        }
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        Ok(self.posts().await?.request)
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        if self.has_a_lock() {
            // What was granted begins at this moment, and quotes the Lease as it was.
            sleep(GIVE_WAY).await;
        }
        let Some(lease) = self.known().await? else { return Err(Failed::Absent.into()) };
        let edit = |posts: &mut Posts| {
            posts.answer = Some(answer.clone());
            posts.request.take_if(|asked| asked.id == answer.id);
            Ok(Edit::Write(()))
        };
        self.change(lease, TRIES, edit).await
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let lease = self.ready().await?;
        let edit = |posts: &mut Posts| {
            Ok(match &posts.request {
                Some(first) => Edit::Leave(Asking::Busy(first.clone())),
                None => {
                    posts.request = Some(asked.clone());
                    Edit::Write(Asking::Up)
                }
            })
        };
        self.change(lease, TRIES, edit).await
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        Ok(self.posts().await?.answer.filter(|answer| answer.id == id))
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        let hub = self.calls.hub();
        if let Some(watcher) = &self.watcher {
            watcher.get_or_init(|| Watcher::start(&self.calls, Version::ABSENT));
        }
        let over = |_| LockError::Unavailable("nothing more is heard of the Lease".into());
        let mut newest = hub.newest();
        if self.has_a_lock() {
            // What the lock asks first is not to be disturbed by the same question.
            newest.wait_for(Newest::is_known).await.map_err(over)?;
        }
        loop {
            let now = Parts::of(newest.borrow_and_update().lease().map(|lease| &**lease));
            let changes = self.take(now);
            if changes.any() {
                return Ok(changes);
            }
            newest.changed().await.map_err(over)?;
        }
    }
}

/// What a Lease shows to those who only want to know.
///
/// # Errors
/// It has no version.
pub(super) fn look_at(lease: &Value) -> Result<Look, LockError> {
    let version = lease::version(lease).map_err(LockError::Unavailable)?;
    Ok(Look {
        seen: Seen { version, record: Some(lease::decode(lease)), evidence: Evidence::None },
        history: lease::history(lease),
        members: Posts::of(lease).members,
        written_unix_us: lease::written_unix_us(lease),
    })
}

impl Parts {
    fn of(lease: Option<&Value>) -> Self {
        let Some(lease) = lease else { return Self([0; 4]) };
        let text = |name: &str| lease::annotation(lease, name);
        let of = |content: Value| fingerprint(content.to_string().as_bytes());
        let lock =
            serde_json::json!([text(lease::RECORD), text(lease::DIGEST), lease["spec"], lease["metadata"]["uid"]]);
        let notes = [MEMBERS, REQUEST, ANSWER].map(|name| of(text(name).into()));
        Self([of(lock), notes[0], notes[1], notes[2]])
    }

    fn changes_since(self, before: Self) -> Changes {
        let [lock, members, request, answer] = [0, 1, 2, 3].map(|part| self.0[part] != before.0[part]);
        Changes { lock, members, request, answer }
    }
}

/// Whether a write takes nothing from the Lease: the mark of a manifest means nothing beside other annotations.
fn takes_posts(lease: &Value) -> bool {
    lease::annotation(lease, lease::RECORD).is_some() || lease::annotation(lease, lease::INITIAL).is_none()
}

/// Whether somebody is about to write the Lease who must not be held up.
fn is_being_handed_over(lease: &Value) -> bool {
    matches!(lease::decode(lease).claim, Claim::Released(_))
}

#[cfg(test)]
mod tests;
