//! A group whose members reach their store each through a relay of its own, and what holds for it whatever the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::group::Group;
use crate::history::Span;
use crate::member::Member;
use crate::outage::Store;
use crate::relay::Relay;
use crate::scenario::{Handover, LIMIT};
use crate::stamp;
use crate::wait::{holds_for, wait_until, within};

/// The lease of most groups: the shortest that a Lease of Kubernetes can carry.
pub const LEASE: Duration = Duration::from_secs(4);

/// How much more than a lease the next one may take, counted from the last sight of the old one.
pub const BEYOND: Duration = Duration::from_millis(500);

/// What is put before a command that shall be PID 1 of a PID namespace of its own, as in a container.
pub const NAMESPACE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// Members behind relays.
#[derive(Debug)]
pub struct Relayed {
    /// By member; more than one are several servers of one name.
    relays: BTreeMap<String, Vec<Relay>>,
    /// What every group has.
    pub group: Group,
}

impl Relayed {
    /// Nobody has a relay yet.
    pub fn new(lease: Duration) -> Result<Self> {
        let mut group = Group::new()?;
        group.set("--lease", &format!("{}ms", lease.as_millis()));
        Ok(Self { relays: BTreeMap::new(), group })
    }

    /// Gives these to a member.
    pub fn insert(&mut self, name: &str, relays: Vec<Relay>) {
        self.relays.insert(name.to_owned(), relays);
    }

    /// Whether a member has one.
    pub fn has_relay(&self, name: &str) -> bool {
        self.relays.contains_key(name)
    }

    /// The file with the authority that a member believes.
    pub fn authority(&self, name: &str) -> PathBuf {
        self.group.folder().join(format!("{name}.ca"))
    }

    /// The relay of a member; the first one if there are several.
    pub fn relay(&self, name: &str) -> Result<&Relay> {
        self.relays(name)?.first().context("no relay")
    }

    /// All relays of a member.
    pub fn relays(&self, name: &str) -> Result<&[Relay]> {
        self.relays.get(name).map(Vec::as_slice).with_context(|| format!("{name} was never started"))
    }

    /// When the last renewal of a member was stored, in nanoseconds of CLOCK_BOOTTIME: the others saw it then.
    pub fn last_sight(&self, name: &str) -> Result<u64> {
        let stored = self.relays(name)?.iter().filter_map(|relay| relay.last_renewed(name)).max();
        stored.with_context(|| format!("{name} has never renewed"))
    }

    /// When that one was sent: nobody can have seen it before.
    pub fn last_sent(&self, name: &str) -> Result<u64> {
        let sent = self.relays(name)?.iter().filter_map(|relay| relay.last_sent(name)).max();
        sent.with_context(|| format!("{name} has never renewed"))
    }

    /// For how long the others had not seen a renewal of this member, at the least, when something happened at `instant`.
    pub fn unseen(&self, name: &str, instant: u64) -> Result<Duration> {
        Ok(Duration::from_nanos(instant.saturating_sub(self.last_sent(name)?)))
    }

    /// Waits until this member has renewed once more: whoever stands by now has seen that.
    pub fn wait_renewal(&self, name: &str) -> Result<()> {
        let since = stamp::now();
        wait_until("a renewal", LIMIT, || self.last_sight(name).is_ok_and(|stored| stored > since))
    }

    /// Fails unless the next one started a lease after the last sight of the old one, and not much later.
    pub fn came_after_a_lease(&self, handover: &Handover, lease: Duration) -> Result<()> {
        let last_sight = self.last_sight(&handover.old.member)?;
        let waited = Duration::from_nanos(handover.new.first.saturating_sub(last_sight));
        let told = || format!("{waited:?} after the last sight: {}\n{}", handover.why, self.group.logs());
        let unseen = self.unseen(&handover.old.member, handover.new.first)?;
        ensure!(unseen >= lease, "too early, {unseen:?} after it was sent: {}", told());
        within("the next one to be active", waited, lease + BEYOND).with_context(told)
    }

    /// Whoever has `token` is active for `time`, and nobody else.
    pub fn stays(&self, token: u64, time: Duration) -> Result<()> {
        holds_for("nobody else becomes active", time, || {
            self.group.history().spans.last().is_some_and(|span| span.token == token)
        })
        .with_context(|| self.group.logs())?;
        wait_until("a stamp of the active one", LIMIT, || self.group.active().is_some_and(|span| span.token == token))
            .with_context(|| self.group.logs())
    }
}

/// Starts members one after the other; when this returns, the first is active, and the others stand by and have seen it
/// renew.
pub fn settle<G: AsRef<Relayed>>(
    group: &mut G,
    names: &[&str],
    mut spawn: impl FnMut(&mut G, &str) -> Result<Member>,
) -> Result<(Vec<Member>, Span)> {
    let mut members: Vec<Member> = Vec::new();
    for name in names {
        let member = spawn(group, name)?;
        match members.is_empty() {
            true => member.wait_active(&(*group).as_ref().group, LIMIT).map(drop)?,
            false => member.wait_standby(LIMIT)?,
        }
        members.push(member);
    }
    let first = members.first().context("no members")?;
    let active = first.wait_active(&(*group).as_ref().group, LIMIT)?;
    if members.len() > 1 {
        (*group).as_ref().wait_renewal(first.name())?;
    }
    Ok((members, active))
}

/// Two members in their places on some store: `a` active, `b` standing by.
pub trait Placed: Sized {
    /// Starts them with this lease.
    fn with_lease(lease: Duration) -> Result<Self>;

    /// Starts them with the lease of most groups.
    fn placed() -> Result<Self> {
        Self::with_lease(LEASE)
    }

    /// Starts each in a PID namespace of its own.
    fn placed_pid1() -> Result<Self>;

    /// The same for whatever store.
    fn view(&self) -> View<'_>;

    /// The member that the store names as the holder.
    fn holder(&self) -> Result<String>;

    /// What they keep their lock in.
    fn store(&self) -> &dyn Store;
}

/// What there is of two members.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The group.
    pub relayed: &'a Relayed,
    /// `a` and `b`.
    pub members: &'a [Member],
    /// What `a` runs.
    pub active: &'a Span,
}
