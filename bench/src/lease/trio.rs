//! Three members on one Lease, each PID 1 of a PID namespace of its own, one of which ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;
use testkit::wait;

use super::cluster::Cluster;
use crate::beat;
use crate::handover::{self, page};
use crate::steps::{Gap, LIMIT, SETTLE};

const NAMESPACE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

/// A group of three.
pub struct Trio {
    members: Vec<Member>,
    started: usize,
    last: u64,
    /// Dropped last.
    group: Group,
}

impl Trio {
    /// Starts three members with this lease.
    pub fn start(cluster: &Cluster, lease: Duration) -> Result<Self> {
        let name = format!("bench-{}", lease.as_secs());
        let mut group = handover::group(&format!("{}s", lease.as_secs()))?;
        group.set_lock(cluster.free_lease("default", &name)?.into());
        let mut trio = Self { members: Vec::new(), started: 0, last: 0, group };
        let first = trio.spawn()?;
        first.wait_active(&trio.group, LIMIT)?;
        trio.members.push(first);
        for _ in 1..3 {
            let member = trio.spawn()?;
            stands_by(&member)?;
            trio.members.push(member);
        }
        Ok(trio)
    }

    /// Each has a name of its own: what its log says is about this one.
    fn spawn(&mut self) -> Result<Member> {
        self.started += 1;
        let workload = beat::command(&page(&self.group))?;
        self.group.member(&format!("m{}", self.started)).wrapper(NAMESPACE).run(&workload)
    }

    /// Ends the active one in this way, waits for the next, and makes it three again.
    pub fn round(&mut self, end: End) -> Result<Gap> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        let index = self.members.iter().position(|member| member.name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        sleep(SETTLE);
        let at = end.apply(&self.group, &self.members[index], &active)?;
        let next = self.group.wait_active_after(active.token, LIMIT).with_context(|| format!("after: {end}"))?;
        let old = beat::with_token(&page(&self.group), active.token)?;
        let gap =
            Gap { from_last_ns: next.first.saturating_sub(old.last), from_event_ns: next.first.saturating_sub(at) };
        self.group.archive_before(next.token)?;
        let member = self.spawn()?;
        stands_by(&member)?;
        drop(std::mem::replace(&mut self.members[index], member));
        self.last = active.token;
        Ok(gap)
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        self.group.history().violations().iter().map(ToString::to_string).collect()
    }
}

/// Waits until a member has seen who is active.
pub fn stands_by(member: &Member) -> Result<()> {
    wait::wait_until("it to stand by", LIMIT, || member.log().contains("is active (activation"))
        .with_context(|| format!("the log of {}:\n{}", member.name(), member.log()))
}
