//! The tree of processes below a subreaper: kill all of it, reap it, prove that nothing is left.
//!
//! The caller must be a child subreaper and the only one that reaps. Then every process of the tree is, or becomes
//! when its parents die, a direct child of the caller; and the PID of a direct child cannot change hands before the
//! caller reaps it. So direct children are killed by PID without any race, the rest by pidfd to make it quick, and
//! "no child" (ECHILD) is exactly "nothing left".

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use election::{Instant, Proof};
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::unistd::getpid;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::Leaf;
use super::process::children_of;
use super::process::{Stat, has_live_thread, visible};
use super::sys::{self, Look};
use super::{Containment, Ending};
use crate::clock;

/// Between two rounds that find nothing new: doubles from the first to the second.
const PACE_MIN: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_millis(250);

/// Rounds in a row without a look at anything else, for trees that fork while they are being killed.
const ROUNDS_MAX: usize = 16;

/// Processes that one pass looks at: a chain that forks as fast as it is read must not hold the caller up for ever.
const VISITS_MAX: usize = 1 << 16;

/// How long a tree may take to die before that is reported, and how often it is reported.
const STUCK_AFTER: Duration = Duration::from_secs(2);
const STUCK_AGAIN: Duration = Duration::from_secs(30);

/// How many processes a report names.
const NAMED_MAX: usize = 5;

/// Where the tree is held.
#[derive(Debug)]
pub(super) struct Tree {
    /// The elector is PID 1 of a PID namespace: all that is in it belongs to the workload.
    pub namespace: bool,
    /// The activation's cgroup.
    pub leaf: Option<Leaf>,
    /// The main process, whose PID is that of its group.
    pub main: Option<i32>,
}

impl Tree {
    /// The strongest of what holds it.
    pub(super) fn containment(&self) -> Containment {
        match (self.namespace, &self.leaf) {
            (true, _) => Containment::PidNamespace,
            (false, Some(_)) => Containment::Cgroup,
            (false, None) => Containment::Subreaper,
        }
    }

    /// SIGTERM to all that is there now. Stopped processes are woken, or they would never see it.
    pub(super) fn terminate(&self) {
        visit_descendants(|parent, pid| {
            for signal in [Signal::TERM, Signal::CONT] {
                let _ = match parent {
                    Some(parent) => signal_below(parent, pid, signal),
                    None => sys::send_signal(pid, signal.as_raw()),
                };
            }
        });
    }

    /// SIGKILL to all that is there now.
    fn kill(&self) -> Round {
        let mut round = Round::default();
        if let Some(Err(error)) = self.leaf.as_ref().map(Leaf::kill) {
            round.refused.push(error.to_string());
        }
        if self.namespace {
            // All that the caller may signal, except itself and PID 1.
            let _ = sys::send_signal(-1, SIGKILL);
        }
        visit_descendants(|parent, pid| {
            let killed = match parent {
                Some(parent) => signal_below(parent, pid, Signal::KILL),
                None => self.kill_child(pid),
            };
            if killed == Err(Errno::EPERM) {
                round.refused.push(format!("not allowed to kill {}", describe(pid)));
            }
            round.found.insert(pid);
        });
        round
    }

    /// Kills a direct child with its process group: a group dies as a whole, also while it forks.
    fn kill_child(&self, pid: i32) -> Result<(), Errno> {
        let killed = sys::send_signal(pid, SIGKILL);
        // As long as the child is not reaped, a group of this number can only be its own.
        let _ = sys::send_signal(-pid, SIGKILL);
        // The main process may be reaped; its group lives on with this member, so its number is not reused.
        if let Some(main) = self.main.filter(|main| *main != pid)
            && Stat::read(pid).is_ok_and(|stat| stat.group == main)
        {
            let _ = sys::send_signal(-main, SIGKILL);
        }
        killed
    }

    /// Why nothing is left, right after a look that said so; nothing if there is more than children to account for.
    /// See docs/safety.md R15.
    pub(super) fn proof(&self) -> Option<Proof> {
        let leaf_empty = self.leaf.as_ref().map(|leaf| leaf.is_empty().unwrap_or(false));
        match (self.namespace, leaf_empty) {
            (_, Some(false)) => None,
            (true, _) => strangers()?.is_empty().then_some(Proof::NamespaceEmpty),
            (false, Some(true)) => Some(Proof::CgroupEmpty),
            (false, None) => Some(Proof::NoChildLeft),
        }
    }

    /// Names what is still there.
    fn remaining(&self) -> String {
        let mut pids = children_of(getpid().as_raw());
        if self.namespace {
            pids.extend(strangers().unwrap_or_default());
            pids.sort_unstable();
            pids.dedup();
        }
        let named: Vec<_> = pids.iter().take(NAMED_MAX).map(|pid| describe(*pid)).collect();
        format!("{} left: {}", pids.len(), named.join(", "))
    }
}

/// What one pass over the tree found.
#[derive(Debug, Default)]
struct Round {
    found: HashSet<i32>,
    refused: Vec<String>,
}

/// What one step of a sweep came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is left, for this reason.
    Gone(Proof),
    /// Not yet: go on at [`Sweep::next_at`], or when a child ends.
    Wait,
    /// Not yet, and it has been too long: for people.
    Stuck(String),
}

/// Ends a tree, step by step, so that the caller can attend to other things in between.
#[derive(Debug)]
pub(super) struct Sweep {
    known: HashSet<i32>,
    pace: Duration,
    next_at: Instant,
    stuck_at: Instant,
    refused: bool,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self { known: HashSet::new(), pace: PACE_MIN, next_at: now, stuck_at: now + STUCK_AFTER, refused: false }
    }

    /// A child has ended: there may be something to do.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next_at = now;
    }

    /// When the next step is due at the latest.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Kills what is there and reaps what has died. `ended` hears of every child that is reaped.
    pub(super) fn step(&mut self, tree: &Tree, ended: &mut dyn FnMut(i32, Ending)) -> Step {
        let mut refused = Vec::new();
        let mut progress = false;
        for _ in 0..ROUNDS_MAX {
            let round = tree.kill();
            if reap_all(ended)
                && let Some(proof) = tree.proof()
            {
                return Step::Gone(proof);
            }
            let fresh = !round.found.is_subset(&self.known);
            self.known = round.found;
            refused = round.refused;
            progress |= fresh;
            if !fresh {
                break;
            }
        }
        let now = clock::now();
        self.pace = if progress { PACE_MIN } else { (self.pace * 2).min(PACE_MAX) };
        self.next_at = now + self.pace;
        let first_refusal = !refused.is_empty() && !self.refused;
        self.refused |= first_refusal;
        if !first_refusal && now < self.stuck_at {
            return Step::Wait;
        }
        self.stuck_at = now + STUCK_AGAIN;
        refused.truncate(NAMED_MAX);
        refused.push(tree.remaining());
        Step::Stuck(format!("failed to end the workload so far: {}", refused.join("; ")))
    }
}

/// Reaps every child that has ended. True when there is no child left at all.
pub(super) fn reap_all(ended: &mut dyn FnMut(i32, Ending)) -> bool {
    loop {
        match sys::reap() {
            Look::Ended(pid, ending) => ended(pid, ending),
            Look::NoChild => return true,
            Look::Nothing => return false,
        }
    }
}

/// Visits what is below the caller, parents first, with the parent's PID unless that is the caller.
///
/// Whatever moves up meanwhile because its parent died is a direct child on the next visit.
fn visit_descendants(mut visit: impl FnMut(Option<i32>, i32)) {
    let own = getpid().as_raw();
    let mut pending = vec![own];
    let mut visits = 0;
    while let Some(parent) = pending.pop() {
        for pid in children_of(parent) {
            visit((parent != own).then_some(parent), pid);
            pending.push(pid);
            visits += 1;
        }
        if visits >= VISITS_MAX {
            return;
        }
    }
}

/// Signals a process further down, which its own parent may reap at any time: by pidfd, once its parent is confirmed.
fn signal_below(parent: i32, pid: i32, signal: Signal) -> Result<(), Errno> {
    let Some(target) = Pid::from_raw(pid) else { return Ok(()) };
    let pidfd = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // Without pidfds (gone, or an old sandbox) it is its turn when it has become a direct child.
        Err(_) => return Ok(()),
    };
    let own = getpid().as_raw();
    match Stat::read(pid) {
        Ok(stat) if stat.parent == parent || stat.parent == own => match pidfd_send_signal(&pidfd, signal) {
            Err(rustix::io::Errno::PERM) => Err(Errno::EPERM),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether `elector` is PID 1 of a PID namespace that `/proc` shows.
pub(super) fn is_namespace_of(elector: i32) -> bool {
    elector == 1 && strangers().is_some()
}

/// Who is left in this PID namespace besides PID 1 and the caller; nothing if `/proc` does not show this namespace.
fn strangers() -> Option<Vec<i32>> {
    let own = getpid().as_raw();
    let shown = fs::read_link("/proc/self").ok()?;
    if shown.to_str() != Some(own.to_string().as_str()) {
        return None;
    }
    let pids = visible();
    if !pids.contains(&1) {
        return None;
    }
    let is_live = |pid: i32| Stat::read(pid).is_ok_and(|stat| !stat.is_dead() || has_live_thread(pid));
    Some(pids.into_iter().filter(|pid| *pid != 1 && *pid != own && is_live(*pid)).collect())
}

/// A process, for people.
fn describe(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let state = Stat::read(pid).map_or('?', |stat| char::from(stat.state));
    format!("{pid} ({}, state {state})", name.trim_end())
}
