//! The notice board beside a key of Consul: a key for each member, one for the request that waits and one for the last
//! answer. The lock's own key is never touched.
//!
//! Whoever may write the keys may write anything there. What cannot be read is not there, and is replaced or cleared
//! away by the next write.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use election::{Entropy as _, Nonce};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Access;
use super::another_use;
use super::calls::{Calls, Keys, Operation};
use super::entry::Entry;
use super::session::{TTL_MIN, Terms};
use super::watch::{Hub, Posted, Watcher};
use crate::entropy::KernelEntropy;
use crate::lock::board::{self, Answer, Asked, Asking, Board, CALL_LIMIT, Changes, Look};
use crate::lock::codec::fingerprint;
use crate::lock::{Failed, LockError};
use crate::patience::within;
use crate::snapshot::Announcement;

/// As many bytes may a post take.
const POST_BYTES_MAX: usize = 4 * 1024;
/// As many members are shown.
const MEMBERS_MAX: usize = 64;
/// As many old posts are cleared away with one announcement: Consul takes 64 operations at once.
const CLEARED_MAX: usize = 32;
/// How long a member that leaves waits before it takes its announcement down.
const GIVE_WAY: Duration = Duration::from_millis(100);
/// How often a change is tried while others make one as well.
const TRIES: u32 = 6;

/// The board of one key.
pub struct ConsulBoard {
    calls: Calls,
    hub: Arc<Hub>,
    /// The query for changes, once it is needed; nothing where the lock beside this has one.
    watcher: Option<OnceLock<Watcher>>,
    heard: Mutex<Option<[u64; 4]>>,
    /// Whether members put up nothing.
    is_silent: bool,
}

/// Everything on the board.
struct Posts {
    members: Vec<Announcement>,
    request: Option<Asked>,
    answer: Option<Answer>,
    /// The key of the request, whether it can be read or not.
    request_index: Option<u64>,
    /// Those of members who are gone, and what nobody can read.
    old: Vec<Entry>,
}

impl ConsulBoard {
    /// A board without a lock beside it, for those who look and ask. Nothing is asked of Consul yet.
    pub fn new(access: Access, keys: Keys) -> Self {
        Self {
            calls: Calls::new(access, keys),
            hub: Arc::default(),
            watcher: Some(OnceLock::new()),
            heard: Mutex::default(),
            is_silent: false,
        }
    }

    /// The board of a member, whose lock listens already.
    pub(super) fn beside(calls: Calls, hub: Arc<Hub>) -> Self {
        Self { calls, hub, watcher: None, heard: Mutex::default(), is_silent: false }
    }

    /// The same without announcements.
    pub(super) fn silent(self) -> Self {
        Self { is_silent: true, ..self }
    }

    /// The key that it is beside.
    pub fn lock_key(&self) -> String {
        self.keys().lock()
    }

    /// Whether changes are being told at the moment.
    pub fn is_told(&self) -> bool {
        self.hub.news().borrow().is_live
    }

    /// Does once what a member does all the time, to a key beside the lock and with a session of its own, and takes it
    /// back: what is not permitted is named.
    pub async fn rehearse(&self) -> Result<(), LockError> {
        let key = format!("{}rehearsal-{}", self.keys().posts(), KernelEntropy.bits());
        let written = self.calls.transact(&[Operation::set(&key, "{}")]).await?;
        let index = written.first().map_or(0, |entry| entry.modify_index);
        match self.calls.transact(&[Operation::delete(&key, index)]).await {
            // A member has cleared it away: nobody can read it.
            Ok(_) | Err(Failed::Absent | Failed::Conflict) => {}
            Err(failed) => return Err(failed.into()),
        }
        let terms = Terms::of("soloist doctor".into(), TTL_MIN);
        let session = self.calls.create_session(&terms.wanted()).await?;
        Ok(self.calls.destroy_session(&session).await?)
    }

    /// The time of Consul, by the head of an answer.
    pub async fn date(&self) -> Result<Option<String>, LockError> {
        Ok(self.calls.date().await?)
    }

    fn keys(&self) -> &Keys {
        self.calls.keys()
    }

    fn member_key(&self, nonce: &str) -> String {
        format!("{}members/{nonce}", self.keys().posts())
    }

    fn request_key(&self) -> String {
        format!("{}request", self.keys().posts())
    }

    fn answer_key(&self) -> String {
        format!("{}answer", self.keys().posts())
    }

    /// The board as it is now.
    async fn posts(&self) -> Result<Posts, LockError> {
        let (_, keys) = self.calls.list(&self.keys().posts()).await?;
        Ok(self.read(&keys))
    }

    /// The board as it was told, or as it is now where nothing was.
    async fn known(&self) -> Result<Posts, LockError> {
        let posted = self.hub.posted().borrow().clone();
        if posted.is_known { Ok(self.read(&posted.keys)) } else { self.posts().await }
    }

    fn read(&self, keys: &[Entry]) -> Posts {
        let mut posts =
            Posts { members: Vec::new(), request: None, answer: None, request_index: None, old: Vec::new() };
        let mut nonces = HashSet::new();
        for entry in keys {
            if entry.key == self.request_key() {
                posts.request_index = Some(entry.modify_index);
                posts.request = post::<Asked>(entry).filter(Asked::is_waiting).filter(Asked::is_showable);
            } else if entry.key == self.answer_key() {
                posts.answer = post::<Answer>(entry).filter(Answer::is_showable);
            } else if let Some(member) = post::<Announcement>(entry)
                .filter(|member| member.is_sound() && member.is_fresh() && entry.key == self.member_key(&member.nonce))
            {
                if nonces.insert(member.nonce.clone()) && posts.members.len() < MEMBERS_MAX {
                    posts.members.push(member);
                }
            } else {
                posts.old.push(entry.clone());
            }
        }
        board::sort(&mut posts.members);
        posts
    }

    /// What has changed since the last call.
    fn take(&self, posted: &Posted) -> Changes {
        let now = self.parts(posted);
        let before = self.heard.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let Some(before) = before else { return Changes::ALL };
        let [lock, members, request, answer] = [0, 1, 2, 3].map(|part| now[part] != before[part]);
        Changes { lock, members, request, answer }
    }

    /// Fingerprints of what may change, in the order of the fields of [`Changes`].
    fn parts(&self, posted: &Posted) -> [u64; 4] {
        let index_of =
            |key: &str| posted.keys.iter().find(|entry| entry.key == key).map_or(0, |entry| entry.modify_index);
        let (request, answer) = (self.request_key(), self.answer_key());
        let members = posted.keys.iter().filter(|entry| entry.key != request && entry.key != answer);
        let members: String = members.map(|entry| format!("{} {} ", entry.key, entry.modify_index)).collect();
        [posted.lock, fingerprint(members.as_bytes()), index_of(&request), index_of(&answer)]
    }
}

impl Board for ConsulBoard {
    async fn announce(&self, own: &Announcement) -> Result<(), LockError> {
        if !own.is_sound() {
            let why = "an announcement with a name, nonce or text that nobody would read";
            return Err(LockError::Denied(why.into()));
        }
        if self.is_silent {
            return Ok(());
        }
        let old = self.known().await?.old;
        let mut operations = vec![Operation::set(&self.member_key(&own.nonce), &text(own)?)];
        self.calls.transact(&operations).await?;
        operations =
            old.iter().take(CLEARED_MAX).map(|entry| Operation::delete(&entry.key, entry.modify_index)).collect();
        if !operations.is_empty() {
            // Somebody else may be quicker.
            let _ = self.calls.transact(&operations).await;
        }
        Ok(())
    }

    async fn withdraw(&self, nonce: &str) -> Result<(), LockError> {
        if self.is_silent || Nonce::parse(nonce).is_none() {
            return Ok(());
        }
        // Whoever takes over is about to write, and would be held up.
        tokio::time::sleep(GIVE_WAY).await;
        let key = self.member_key(nonce);
        let (_, keys) = within(CALL_LIMIT, self.calls.list(&key)).await?;
        let Some(entry) = keys.iter().find(|entry| entry.key == key) else { return Ok(()) };
        within(CALL_LIMIT, self.calls.transact(&[Operation::delete(&key, entry.modify_index)])).await?;
        Ok(())
    }

    async fn look(&self) -> Result<Look, LockError> {
        let (_, mut keys) = self.calls.list(&self.keys().all()).await?;
        let lock_key = self.keys().lock();
        let lock = keys.iter().position(|entry| entry.key == lock_key).map(|at| keys.swap_remove(at));
        let members = self.read(&keys).members;
        Ok(match lock {
            Some(entry) if entry.is_of_another_use() => return Err(LockError::Denied(another_use(&entry.key))),
            Some(entry) => Look { seen: entry.seen(None), history: entry.history(), members, written_unix_us: None },
            None => Look::at_nothing(members),
        })
    }

    async fn asked(&self) -> Result<Option<Asked>, LockError> {
        Ok(self.known().await?.request)
    }

    async fn answer(&self, answer: &Answer) -> Result<(), LockError> {
        let posts = self.posts().await?;
        let mut operations = vec![Operation::set(&self.answer_key(), &text(answer)?)];
        if let (Some(asked), Some(index)) = (&posts.request, posts.request_index)
            && asked.id == answer.id
        {
            operations.push(Operation::delete(&self.request_key(), index));
        }
        self.calls.transact(&operations).await?;
        Ok(())
    }

    async fn ask(&self, asked: &Asked) -> Result<Asking, LockError> {
        let (key, text) = (self.request_key(), text(asked)?);
        for _ in 0..TRIES {
            let posts = self.posts().await?;
            if let Some(first) = posts.request {
                return Ok(Asking::Busy(first));
            }
            let check = match posts.request_index {
                Some(index) => Operation::check_index(&key, index),
                None => Operation::check_absent(&key),
            };
            match self.calls.transact(&[check, Operation::set(&key, &text)]).await {
                Ok(_) => return Ok(Asking::Up),
                Err(Failed::Conflict | Failed::Absent) => {}
                Err(failed) => return Err(failed.into()),
            }
        }
        Err(Failed::Conflict.into())
    }

    async fn answered(&self, id: &str) -> Result<Option<Answer>, LockError> {
        Ok(self.posts().await?.answer.filter(|answer| answer.id == id))
    }

    async fn changed(&self) -> Result<Changes, LockError> {
        if let Some(watcher) = &self.watcher {
            watcher.get_or_init(|| Watcher::start(self.calls.beside(), Arc::clone(&self.hub)));
        }
        let mut posted = self.hub.posted();
        loop {
            let changes = self.take(&posted.borrow_and_update());
            if changes.any() {
                return Ok(changes);
            }
            let over = |_| LockError::Unavailable("nothing more is heard of the board".into());
            posted.changed().await.map_err(over)?;
        }
    }
}

/// What a post says, if it can be read.
fn post<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    let bytes = entry.bytes();
    if bytes.len() > POST_BYTES_MAX { None } else { serde_json::from_slice(&bytes).ok() }
}

fn text(content: &impl Serialize) -> Result<String, LockError> {
    let denied = |why: String| LockError::Denied(format!("a post cannot be put up: {why}"));
    let text = serde_json::to_string(content).map_err(|error| denied(error.to_string()))?;
    match text.len() {
        got if got > POST_BYTES_MAX => Err(denied(format!("it has {got} bytes, at most {POST_BYTES_MAX} fit"))),
        _ => Ok(text),
    }
}
