//! An election inside of a program: a builder over a lock, a stream of roles, and a guard object that is there while this
//! process leads.
//!
//! ```no_run
//! use std::time::Duration;
//! use soloist::candidate::{Candidate, Role};
//!
//! # async fn run() -> Result<(), soloist::error::Failure> {
//! let mut roles = Candidate::over("/run/app/app.lock").lease(Duration::from_secs(15)).stand()?;
//! while let Some(role) = roles.next().await {
//!     match role? {
//!         Role::Standby => println!("somebody else leads, or nobody yet"),
//!         Role::Leader(mut lead) => {
//!             println!("leading with token {}", lead.token());
//!             lead.over().await;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **The promise.** At any instant [`Lead::lasts`] is true in at most one process of a group, under the assumptions A1, A2
//! and A4 to A6 of the README. It turns false a grace before anybody else may lead: 2 seconds of a lease of 15. Nothing ends
//! what a program does after that. What must not overlap asks [`Lead::lasts`] before each step that takes less than the
//! grace, or sends [`Lead::token`] along to something that refuses smaller ones.
//!
//! **The guard object.** A lock is released when the [`Lead`] is dropped, and never before: while it is there, the others
//! wait. Where the store cannot be reached they wait for a lease. Who drops it while it lasts gives the lead up: the
//! others go first.
//!
//! The election has a thread of its own, so that nothing the program does keeps a renewal waiting. It handles no signals
//! and starts no process. [`Lead::over`] and the stream need a tokio runtime with its timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use election::{OnExit, OnLoss};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Code, Failure};
use crate::member::{self, Front};
use crate::settings::{Raw, Settings};
use crate::workload::task::{Mandate, Terms};

/// Roles that wait for somebody who does not ask for them; the election goes on meanwhile.
const ROLES_MAX: usize = 2;

/// What takes part in an election, before it does.
#[derive(Clone, Debug)]
#[must_use = "it takes part once it stands"]
pub struct Candidate {
    raw: Raw,
}

impl Candidate {
    /// Over a lock, spelled as for `--lock`: a path, `kubernetes://NAMESPACE/NAME` or `consuls://HOST:PORT/PREFIX`.
    pub fn over(lock: impl Into<String>) -> Self {
        let lease = format!("{}s", DEFAULT_LEASE.as_secs());
        Self { raw: Raw { lock: Some(lock.into()), lease, stop_grace: "10s".into(), has_task: true, ..Raw::default() } }
    }

    /// The name that others see. Without one it is POD_NAME, else the host's, for a lock file with the PID.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.raw.name = Some(name.into());
        self
    }

    /// How long the others wait for a holder that is silent; 15 seconds without this.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.raw.lease = format!("{}ms", lease.as_millis());
        self
    }

    /// Takes part from now on.
    ///
    /// # Errors
    /// What was got, what is allowed and how to fix it, as of the flags of the same names.
    pub fn stand(self) -> Result<Roles, Failure> {
        let settings = Settings::new(self.raw, OnExit::Standby, OnLoss::Standby)?;
        member::check(&settings)?;
        let (sender, roles) = mpsc::channel(ROLES_MAX);
        let (stays, dismissal) = oneshot::channel();
        let (last_word, ended) = oneshot::channel();
        let elect = move || {
            let front = Front { dismissal: Some(dismissal), ..Front::default() };
            let ended = member::run_within(settings, front, Box::new(|terms| Box::pin(tell(terms, sender))));
            // Nobody is left to hear it where the program has dropped the roles.
            let _ = last_word.send(ended.map(drop));
        };
        let failed =
            |error| Failure::new(Code::Internal, format!("failed to start the thread of an election: {error}"));
        std::thread::Builder::new().name("soloist".to_owned()).spawn(elect).map_err(failed)?;
        Ok(Roles { roles, _stays: Some(stays), ended: Some(ended) })
    }
}

/// As of `--lease`.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);

/// Which part this process plays.
#[derive(Debug)]
pub enum Role {
    /// It does not lead.
    Standby,
    /// It leads, as long as the guard object lasts.
    Leader(Lead),
}

/// The lead, from the moment that the lock names this process. The lock is released after this is dropped.
#[derive(Debug)]
pub struct Lead {
    mandate: Mandate,
    /// It was seen to be over. A renewal that comes after that changes nothing.
    is_over: AtomicBool,
    /// Tells when this is dropped.
    _dropped: oneshot::Sender<()>,
}

impl Lead {
    /// The fencing token: larger than that of everybody who led before.
    pub fn token(&self) -> u64 {
        self.mandate.token()
    }

    /// Whether this process leads now. Whoever has heard once that it does not hears nothing else.
    pub fn lasts(&self) -> bool {
        !self.rest().is_zero()
    }

    /// How long it leads without another renewal. A resumed pause takes back what the pause has added; less than the lease
    /// is never taken back.
    pub fn rest(&self) -> Duration {
        let rest = self.mandate.rest();
        if self.is_over.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        if rest.is_zero() {
            self.is_over.store(true, Ordering::Release);
        }
        rest
    }

    /// Waits until this process leads no more. Cancel safe.
    pub async fn over(&mut self) {
        if self.lasts() {
            self.mandate.over().await;
            self.is_over.store(true, Ordering::Release);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.mandate.finish();
    }
}

/// Which part this process plays from now on, change by change. Dropped, the process takes part no more: it lets go of the
/// lock in the background, which a program that ends at once does not wait for. [`Roles::leave`] does.
#[derive(Debug)]
pub struct Roles {
    roles: mpsc::Receiver<Role>,
    /// Dropped, the member leaves.
    _stays: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), Failure>>>,
}

impl Roles {
    /// The next role. Nothing once it has left; an error, once, where the election came to an end by itself. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Role, Failure>> {
        StreamExt::next(self).await
    }

    /// Takes part no more, and returns when the lock is released. A [`Lead`] that is still there is waited for.
    ///
    /// # Errors
    /// The election came to an end by itself.
    pub async fn leave(mut self) -> Result<(), Failure> {
        self._stays = None;
        while let Some(role) = self.next().await {
            role.map(drop)?;
        }
        Ok(())
    }
}

impl Stream for Roles {
    type Item = Result<Role, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(role) = std::task::ready!(self.roles.poll_recv(context)) {
            return Poll::Ready(Some(Ok(role)));
        }
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        let ended = std::task::ready!(Pin::new(ended).poll(context));
        self.ended = None;
        let panicked = |_| Err(Failure::new(Code::Internal, "the thread of an election has panicked"));
        Poll::Ready(ended.unwrap_or_else(panicked).err().map(Err))
    }
}

/// Says which part is played, until nobody listens.
async fn tell(mut terms: Terms, roles: mpsc::Sender<Role>) -> anyhow::Result<()> {
    let mut is_heard = roles.send(Role::Standby).await.is_ok();
    while is_heard && let Some(mandate) = terms.next().await {
        let (dropped, is_dropped) = oneshot::channel();
        let mut term = mandate.clone();
        let lead = Lead { mandate, is_over: AtomicBool::new(false), _dropped: dropped };
        // Where nobody listens any more the lead is dropped with the error.
        if roles.send(Role::Leader(lead)).await.is_err() {
            break;
        }
        let _ = is_dropped.await;
        // What was given up is not handed out once more before the elector has heard of it.
        term.followed().await;
        is_heard = roles.send(Role::Standby).await.is_ok();
    }
    // The elector has ended, or ends.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::clock;
    use crate::workload::Workload as _;
    use crate::workload::task::Task;
    use crate::workload::task::tests::launch;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Where nothing is to run out, so that no other test makes it.
    const LONG: Duration = Duration::from_secs(15);
    const SHORT: Duration = Duration::from_secs(2);

    fn stand(folder: &TempDir, name: &str, lease: Duration) -> Roles {
        let lock = folder.path().join("x.lock").display().to_string();
        Candidate::over(lock).name(name).lease(lease).stand().unwrap()
    }

    /// Waits until it leads.
    async fn lead(roles: &mut Roles) -> Lead {
        loop {
            if let Role::Leader(lead) = timeout(PATIENCE, roles.next()).await.unwrap().unwrap().unwrap() {
                return lead;
            }
        }
    }

    /// A lead that lasts for a minute, and what prolongs it or cuts it short.
    async fn minute() -> (Task, Lead) {
        let (mut task, mut terms) = Task::trusted(Duration::ZERO);
        task.start(launch(7), None);
        let mandate = terms.next().await.unwrap();
        (task, Lead { mandate, is_over: AtomicBool::new(false), _dropped: oneshot::channel().0 })
    }

    #[tokio::test]
    async fn who_has_heard_once_that_it_leads_no_more_hears_nothing_else() {
        for asks in [|lead: &Lead| !lead.lasts(), |lead: &Lead| lead.rest().is_zero()] {
            let (mut task, lead) = minute().await;
            assert!(lead.lasts() && lead.token() == 7);
            task.extend(clock::now());
            // Nobody has asked: a renewal that comes now is in time for all that it knows.
            task.extend(clock::now() + LONG);
            assert!(lead.lasts());
            task.extend(clock::now());
            assert!(asks(&lead));
            task.extend(clock::now() + LONG);
            assert!(!lead.lasts() && lead.rest().is_zero());
        }
        let (mut task, mut lead) = minute().await;
        task.extend(clock::now());
        lead.over().await;
        task.extend(clock::now() + LONG);
        assert!(!lead.lasts());
    }

    #[tokio::test(start_paused = true)]
    async fn the_runtimes_clock_says_nothing_of_a_lead() {
        let (mut task, mut lead) = minute().await;
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(lead.lasts());
        let end = clock::now() + Duration::from_millis(50);
        task.extend(end);
        lead.over().await;
        assert!(clock::now() >= end && !lead.lasts());
    }

    #[tokio::test]
    async fn a_lead_is_over_a_grace_before_the_others_may_think_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut roles = stand(&folder, "first", LONG);
        // Of a lease of 15 s the deadline is at 10 s, counted from before the write, and the grace 2 s.
        assert!(lead(&mut roles).await.rest() <= Duration::from_secs(8));
    }

    async fn is_told_nothing(roles: &mut Roles) -> bool {
        timeout(Duration::from_millis(50), roles.next()).await.is_err()
    }

    #[tokio::test]
    async fn dropping_the_guard_object_gives_the_lead_to_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = stand(&folder, "first", LONG);
        let old = lead(&mut first).await;
        let mut second = stand(&folder, "second", LONG);
        assert!(matches!(second.next().await, Some(Ok(Role::Standby))));
        assert!(is_told_nothing(&mut second).await && old.lasts());
        let token = old.token();
        drop(old);
        let new = lead(&mut second).await;
        assert!(new.token() > token && new.lasts());
        assert!(matches!(first.next().await, Some(Ok(Role::Standby))));
    }

    #[tokio::test]
    async fn who_leaves_is_told_at_once_and_the_others_wait_for_the_guard_object() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = stand(&folder, "first", LONG);
        let mut old = lead(&mut first).await;
        let mut second = stand(&folder, "second", LONG);
        assert!(matches!(second.next().await, Some(Ok(Role::Standby))));
        let leaving = tokio::spawn(first.leave());
        timeout(PATIENCE, old.over()).await.unwrap();
        assert!(!old.lasts() && !leaving.is_finished());
        assert!(is_told_nothing(&mut second).await);
        drop(old);
        assert!(lead(&mut second).await.lasts());
        timeout(PATIENCE, leaving).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_lock_that_is_taken_away_ends_the_lead_before_its_lease_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut roles = stand(&folder, "first", SHORT);
        let mut lead = lead(&mut roles).await;
        std::fs::remove_file(folder.path().join("x.lock")).unwrap();
        timeout(Duration::from_secs(2), lead.over()).await.unwrap();
        assert!(!lead.lasts() && lead.rest().is_zero());
    }

    #[tokio::test]
    async fn a_lead_that_is_not_renewed_runs_out_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut roles = stand(&folder, "first", SHORT);
        let lead = lead(&mut roles).await;
        // Nothing can be written any more, and nothing of that is heard here: the clock says it.
        make_unwritable(folder.path());
        let limit = tokio::time::Instant::now() + Duration::from_secs(2);
        while lead.lasts() && tokio::time::Instant::now() < limit {
            tokio::time::sleep(lead.rest()).await;
        }
        assert!(!lead.lasts());
    }

    /// A folder in the place of a file that each write replaces: refused to root as well.
    fn make_unwritable(folder: &Path) {
        let write = folder.join("x.lock.write");
        let _ = std::fs::remove_file(&write);
        std::fs::create_dir(write).unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_a_lock_is_refused_with_a_way_out() {
        let refused = Candidate::over("/run/x.lock").lease(Duration::from_millis(500)).stand().unwrap_err();
        assert!(refused.code == Code::Configuration && refused.hint.is_some(), "{refused}");
    }
}
