//! Members on one Lease, each PID 1 of a PID namespace of its own, one of which ends.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use soloist::lock::board::ANNOUNCEMENT_LIFE;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::Group;
use testkit::lease_group;
use testkit::member::Member;
use testkit::wait;

use super::QUIET;
use crate::beat;
use crate::handover::{self, page};
use crate::steps::{Gap, LIMIT, SETTLE};

/// A group of some members.
pub struct Team<'a> {
    cluster: &'a Cluster,
    lease: String,
    pace: Duration,
    members: Vec<Member>,
    /// Those who could not take their announcement down.
    killed: Vec<String>,
    started: usize,
    last: u64,
    /// Dropped last.
    group: Group,
}

impl<'a> Team<'a> {
    /// Starts `size` members with this lease. Their workloads stamp at `pace`.
    pub fn start(cluster: &'a Cluster, name: &str, lease: Duration, size: usize, pace: Duration) -> Result<Self> {
        let name = name.to_owned();
        let mut group = handover::group(&format!("{}s", lease.as_secs()))?;
        cluster.initial_lease(QUIET, &name)?;
        group.set_lock_url(&format!("kubernetes://{QUIET}/{name}"));
        let (members, killed) = (Vec::new(), Vec::new());
        let mut team = Self { cluster, lease: name, pace, members, killed, started: 0, last: 0, group };
        let first = team.spawn()?;
        first.wait_active(&team.group, LIMIT)?;
        team.members.push(first);
        for _ in 1..size {
            let member = team.spawn()?;
            member.wait_standby(LIMIT)?;
            team.members.push(member);
        }
        Ok(team)
    }

    /// Each has a name of its own: what its log says is about this one.
    fn spawn(&mut self) -> Result<Member> {
        self.started += 1;
        let workload = beat::paced(&page(&self.group), self.pace)?;
        self.group.member(&format!("m{}", self.started)).wrapper(lease_group::NAMESPACE).run(&workload)
    }

    /// Ends the active one in this way, waits for the next, and makes it complete again.
    pub fn round(&mut self, end: End) -> Result<Gap> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        let index = self.members.iter().position(|member| member.name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        self.settle()?;
        let at = end.apply(&self.group, &self.members[index], &active)?;
        let next = self.group.wait_active_after(active.token, LIMIT).with_context(|| format!("after: {end}"))?;
        let old = beat::with_token(&page(&self.group), active.token)?;
        let gap =
            Gap { from_last_ns: next.first.saturating_sub(old.last), from_event_ns: next.first.saturating_sub(at) };
        self.group.archive_before(next.token)?;
        if end == End::ElectorKilled {
            self.killed.push(active.member.clone());
        }
        let member = self.spawn()?;
        member.wait_standby(LIMIT)?;
        // It takes its announcement down before it leaves.
        self.members[index].wait_exit(LIMIT)?;
        drop(std::mem::replace(&mut self.members[index], member));
        self.last = active.token;
        Ok(gap)
    }

    /// Waits until those and only those who are there have announced themselves, and nothing is left to do.
    fn settle(&self) -> Result<()> {
        let is_settled = |named: &Vec<String>| {
            let is_there = |name: &String| self.members.iter().any(|member| member.name() == name);
            let is_named = |member: &Member| named.iter().any(|name| name == member.name());
            let mut others = named.iter().filter(|name| !self.killed.contains(name));
            self.members.iter().all(is_named) && others.all(is_there)
        };
        // One that left in a hurry may have left its announcement, which is named as a successor as long as it counts.
        wait::wait_for("the members to announce themselves", ANNOUNCEMENT_LIFE + LIMIT, || {
            let named = self.announced();
            named.as_ref().map_or(true, is_settled).then_some(named)
        })
        .with_context(|| format!("announced: {:?}", self.announced()))??;
        sleep(SETTLE);
        Ok(())
    }

    fn announced(&self) -> Result<Vec<String>> {
        let members = self.cluster.announced(QUIET, &self.lease)?;
        Ok(members.into_iter().map(|member| member.name).collect())
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        self.group.history().violations().iter().map(ToString::to_string).collect()
    }
}
