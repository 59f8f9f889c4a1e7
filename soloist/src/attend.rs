//! Ties a member to the notice board beside its lock: announces it, tells its elector who else is there, and passes on
//! what operators ask for.
//!
//! Nothing here is waited for by the elector. A board that cannot be reached is complained about once, and the member
//! takes part all the same.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use election::{Activation, Claim, Entropy, Nonce, Refusal, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::unix_us;
use crate::elector::{Order, Petition};
use crate::entropy::KernelEntropy;
use crate::lock::LockError;
use crate::lock::board::{
    ANNOUNCEMENT_LIFE, ANNOUNCEMENT_PERIOD, Answer, Asked, Board, CALL_LIMIT, Changes, REQUEST_LIFE, Refused,
};
use crate::lock::history::sentence;
use crate::patience::within;
use crate::snapshot::{Announcement, Holder, Snapshot};

/// How long the elector may take to answer a request. It does at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long a member that leaves tries to take its announcement down, while the board answers. One that stays is named
/// as a successor for up to two minutes, and costs the others their courtesy.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(10);
/// A change is announced when it has stood for so long: a handover passes through several roles, and is not to be
/// disturbed.
const SETTLE: Duration = Duration::from_millis(100);
/// Changes are announced so far apart, once there were several.
const CHANGE_PACE: Duration = Duration::from_secs(10);
/// As many are announced at once, the start among them.
const CHANGES_AT_ONCE: u32 = 4;
/// Announcements come up to this later than they could: members that were started together must not write together
/// for ever.
const SPREAD: Duration = Duration::from_secs(10);
/// How often the board is looked at where changes are not heard: within the life of a request.
const LOOK_PACE: Duration = Duration::from_secs(5);

/// Takes part in the board's life until the elector has ended, and takes the announcement of the member down then. What
/// was under way comes to its end before: an announcement that nobody waits for could be stored behind that.
pub async fn attend<B: Board>(
    board: Arc<B>,
    nonce: Nonce,
    snapshots: watch::Receiver<Snapshot>,
    orders: mpsc::Sender<Order>,
) {
    let own = Own::new(nonce, &snapshots.borrow());
    let attendant = Attendant {
        board: Arc::clone(&board),
        own,
        snapshots,
        orders,
        announced: None,
        announce_at: Some(Instant::now() + SETTLE),
        pace: Pace::new(Instant::now()),
        members: Vec::new(),
        look_at: None,
        waiting: None,
        faults: BTreeMap::new(),
    };
    attendant.run(&*board).await;
    withdraw(&*board, nonce).await;
}

/// Takes the announcement of a member that has ended down, as far as that is possible soon.
async fn withdraw<B: Board>(board: &B, nonce: Nonce) {
    if let Err(error) = within(WITHDRAW_LIMIT, board.withdraw(&nonce.to_string())).await {
        // Its process ends, which the others see as well.
        tracing::debug!("failed to withdraw the announcement: {error}");
    }
}

struct Attendant<B> {
    board: Arc<B>,
    own: Own,
    snapshots: watch::Receiver<Snapshot>,
    orders: mpsc::Sender<Order>,
    /// What is on the board of this member.
    announced: Option<Announcement>,
    /// When the next announcement is due.
    announce_at: Option<Instant>,
    pace: Pace,
    /// Who is there, as the elector was told.
    members: Vec<Announcement>,
    /// When the next announcement of another member expires.
    look_at: Option<Instant>,
    /// The request that waits for an answer, until somebody has given one.
    waiting: Option<Waiting>,
    /// What could not be done, by what it was.
    faults: BTreeMap<&'static str, String>,
}

/// A request that is up.
struct Waiting {
    asked: Asked,
    activation: Activation,
    /// Nobody answers it any more then.
    until: Instant,
}

impl<B: Board> Attendant<B> {
    async fn run(mut self, board: &B) {
        let mut changed = pin!(hear(board));
        loop {
            self.announce_what_is_due().await;
            let wake_at = [self.announce_at, self.look_at].into_iter().flatten().min();
            tokio::select! {
                alive = self.snapshots.changed() => {
                    if alive.is_err() {
                        return;
                    }
                    self.note_snapshot();
                    self.answer_what_waits().await;
                }
                result = &mut changed => {
                    let changes = self.note("hear of changes of the board", result).unwrap_or(Changes::ALL);
                    changed.set(hear(board));
                    self.look_at_board(changes).await;
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    if self.look_at.is_some_and(|at| at <= Instant::now()) {
                        self.look().await;
                    }
                }
            }
        }
    }

    async fn look_at_board(&mut self, changes: Changes) {
        if changes.members {
            self.look().await;
        }
        if changes.request {
            self.look_for_request().await;
        }
    }

    // === announcing ===

    /// Notes what the others have to hear soon.
    fn note_snapshot(&mut self) {
        let snapshot = self.snapshots.borrow_and_update();
        self.own.note(snapshot.role);
        let is_new =
            self.announced.as_ref().is_none_or(|announced| !says_the_same(announced, &self.own.say(&snapshot)));
        drop(snapshot);
        if is_new {
            let soon = self.pace.next().max(Instant::now() + SETTLE);
            self.announce_at = Some(self.announce_at.map_or(soon, |at| at.min(soon)));
        }
    }

    async fn announce_what_is_due(&mut self) {
        let now = Instant::now();
        if self.announce_at.is_none_or(|at| at > now) {
            return;
        }
        let own = self.own.say(&self.snapshots.borrow());
        let is_change = self.announced.as_ref().is_none_or(|announced| !says_the_same(announced, &own));
        if is_change {
            self.pace.take();
        }
        let result = within(CALL_LIMIT, self.board.announce(&own)).await;
        let done = self.note("announce this member", result).is_some();
        self.announced = done.then_some(own);
        self.announce_at = Some(now + if done { ANNOUNCEMENT_PERIOD + spread() } else { CHANGE_PACE });
    }

    // === who is there ===

    async fn look(&mut self) {
        let result = within(CALL_LIMIT, self.board.look()).await;
        let members = match self.note("look for the other members", result) {
            Some(look) => look.members,
            // Those who were there may still be, as long as their announcements count.
            None => self.members.iter().filter(|member| !life_left(member).is_zero()).cloned().collect(),
        };
        let expires = members.iter().map(life_left).min();
        self.look_at = expires.map(|left| Instant::now() + left.max(SETTLE));
        let is_news = members.len() != self.members.len()
            || !members.iter().zip(&self.members).all(|(new, old)| says_the_same(new, old));
        if is_news {
            self.members.clone_from(&members);
            self.order(Order::Members(members)).await;
        }
    }

    // === requests ===

    async fn look_for_request(&mut self) {
        let result = within(CALL_LIMIT, self.board.asked()).await;
        let Some(asked) = self.note("look for requests", result) else { return };
        // Asked about no activation at all: nobody can grant it.
        let waiting = asked.and_then(|asked| Some((Activation::parse(&asked.activation)?, asked)));
        let until = Instant::now() + REQUEST_LIFE;
        self.waiting = waiting.map(|(activation, asked)| Waiting { asked, activation, until });
        self.answer_what_waits().await;
    }

    /// Answers the request that is up, if it is for this member. It may have been asked before this member knows that
    /// it is.
    async fn answer_what_waits(&mut self) {
        let now = Instant::now();
        let (role, own) = {
            let snapshot = self.snapshots.borrow();
            (snapshot.role, snapshot.tenure.map(|tenure| tenure.activation))
        };
        let is_mine = |waiting: &mut Waiting| match waiting.asked.wish.is_for_the_active() {
            true => own == Some(waiting.activation),
            false => matches!(role, Role::Standby | Role::Acquiring),
        };
        let Some(Waiting { asked, activation, until }) = self.waiting.take_if(|waiting| is_mine(waiting)) else {
            return;
        };
        if now >= until {
            return;
        }
        // Whom it names must be known to be there, or to be gone.
        self.look().await;
        let Some(answer) = self.petition(&asked, activation).await else { return };
        if answer.is_err() && !asked.wish.is_for_the_active() && self.lock_names(activation).await {
            // Another standby may grant it.
            return;
        }
        let by = self.snapshots.borrow().name.clone();
        let answer = Answer { id: asked.id, by, refusal: answer.err().map(Refused::from) };
        let result = within(CALL_LIMIT, self.board.answer(&answer)).await;
        self.note("answer a request", result);
    }

    /// What the elector says to it.
    async fn petition(&mut self, asked: &Asked, activation: Activation) -> Option<Result<(), Refusal>> {
        let (answer_to, answer) = oneshot::channel();
        let request = asked.wish.request(activation, unix_us() / 1000);
        self.order(Order::Request(Petition { request, by: sentence(&asked.by), answer_to })).await;
        timeout(ANSWER_LIMIT, answer).await.ok()?.ok()
    }

    /// Whether the lock names this activation as its holder. Yes where that is not known.
    async fn lock_names(&mut self, activation: Activation) -> bool {
        let is_it = |holder: &Holder| holder.activation == Some(activation);
        if self.snapshots.borrow().slots.iter().flatten().any(is_it) {
            return true;
        }
        let result = within(CALL_LIMIT, self.board.look()).await;
        let Some(look) = self.note("look at the lock", result) else { return true };
        let claim = look.seen.record.map(|record| record.claim);
        matches!(claim, Some(Claim::Held(holder)) if holder.activation == activation)
    }

    /// Fails only if the elector is gone, which is noticed elsewhere, or does not take orders: then it hangs.
    async fn order(&self, order: Order) {
        let _ = timeout(ANSWER_LIMIT, self.orders.send(order)).await;
    }

    /// The result, and a line in the log when what stands in the way of something has changed.
    fn note<T>(&mut self, what: &'static str, result: Result<T, LockError>) -> Option<T> {
        match result {
            Ok(value) => {
                if self.faults.remove(what).is_some() {
                    tracing::info!("can {what} again");
                }
                Some(value)
            }
            Err(error) => {
                let why = error.to_string();
                if self.faults.get(what) != Some(&why) {
                    tracing::warn!("cannot {what}: {why}");
                    self.faults.insert(what, why);
                }
                None
            }
        }
    }
}

/// What does not change between announcements.
struct Own {
    nonce: String,
    waits_since_unix_ms: u64,
    was_active: bool,
}

impl Own {
    fn new(nonce: Nonce, snapshot: &Snapshot) -> Self {
        Self { nonce: nonce.to_string(), waits_since_unix_ms: snapshot.since_unix_us / 1000, was_active: false }
    }

    /// Who has been active stands at the end of the line again.
    fn note(&mut self, role: Role) {
        let is_active = matches!(role, Role::Active | Role::Stopping);
        if self.was_active && !is_active {
            self.waits_since_unix_ms = unix_us() / 1000;
        }
        self.was_active = is_active;
    }

    fn say(&self, snapshot: &Snapshot) -> Announcement {
        let health = &snapshot.health;
        Announcement {
            name: snapshot.name.clone(),
            nonce: self.nonce.clone(),
            role: snapshot.told_role().to_string(),
            healthy: health.healthy,
            why: (!health.healthy).then(|| sentence(&health.why)),
            leaving: snapshot.leaving.is_some(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since_unix_ms: self.waits_since_unix_ms,
            at_unix_ms: unix_us() / 1000,
        }
    }
}

/// Some changes at once, then one each [`CHANGE_PACE`]: the instant at which the next would use up all that was saved.
struct Pace(Instant);

impl Pace {
    fn new(now: Instant) -> Self {
        Self(now)
    }

    /// When the next change may be announced.
    fn next(&self) -> Instant {
        self.0.checked_sub(CHANGE_PACE * (CHANGES_AT_ONCE - 1)).unwrap_or_else(Instant::now)
    }

    fn take(&mut self) {
        self.0 = self.0.max(Instant::now()) + CHANGE_PACE;
    }
}

fn spread() -> Duration {
    let thousandths = u32::try_from(KernelEntropy.bits() % 1_000).unwrap_or(0);
    SPREAD * thousandths / 1_000
}

/// Hears of changes. Where that fails, a look after a while stands in for it.
async fn hear(board: &impl Board) -> Result<Changes, LockError> {
    let result = board.changed().await;
    if result.is_err() {
        tokio::time::sleep(LOOK_PACE).await;
    }
    result
}

/// Whether nobody needs to hear the one who knows the other.
fn says_the_same(one: &Announcement, other: &Announcement) -> bool {
    one == &Announcement { at_unix_ms: one.at_unix_ms, ..other.clone() }
}

/// How long an announcement still counts.
fn life_left(member: &Announcement) -> Duration {
    let age = Duration::from_millis((unix_us() / 1000).saturating_sub(member.at_unix_ms));
    ANNOUNCEMENT_LIFE.saturating_sub(age)
}

#[cfg(test)]
mod tests;
