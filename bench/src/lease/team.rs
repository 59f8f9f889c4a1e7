//! Members on one Lease, each PID 1 of a PID namespace of its own, one of which ends. The elector is there as well, or in
//! a container beside it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use soloist::lock::board::ANNOUNCEMENT_LIFE;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::Group;
use testkit::lease_group;
use testkit::member::Member;
use testkit::wait;

use super::QUIET;
use crate::beat;
use crate::footprint::pss_of;
use crate::handover::{self, page};
use crate::steps::{Gap, LIMIT, SETTLE};

/// Who runs the workload, and who takes part for it.
struct Player {
    body: Member,
    /// The elector, where it is not the body's.
    sidecar: Option<Member>,
}

impl Player {
    /// Who says that it is active.
    fn elector(&self) -> &Member {
        self.sidecar.as_ref().unwrap_or(&self.body)
    }

    fn wait_ready(&self) -> Result<()> {
        self.elector().wait_standby(LIMIT)?;
        let is_let_in = || self.sidecar.is_none() || self.body.own_log().contains("connected to the sidecar");
        wait::wait_until("the application to be let in", LIMIT, is_let_in)
    }

    /// Waits for its end; what is beside it is sent away.
    fn wait_exit(&mut self) -> Result<()> {
        self.body.wait_exit(LIMIT)?;
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.signal(Signal::TERM)?;
            sidecar.wait_exit(LIMIT)?;
        }
        Ok(())
    }
}

/// A group of some members.
pub struct Team<'a> {
    cluster: &'a Cluster,
    lease: String,
    pace: Duration,
    /// Whether the electors are in containers of their own.
    beside: bool,
    members: Vec<Player>,
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
        Self::of(cluster, name, lease, size, pace, false)
    }

    /// The same with electors in containers of their own.
    pub fn start_beside(cluster: &'a Cluster, name: &str, lease: Duration, size: usize) -> Result<Self> {
        Self::of(cluster, name, lease, size, beat::PACE, true)
    }

    fn of(
        cluster: &'a Cluster,
        name: &str,
        lease: Duration,
        size: usize,
        pace: Duration,
        beside: bool,
    ) -> Result<Self> {
        let name = name.to_owned();
        let mut group = handover::group(&format!("{}s", lease.as_secs()))?;
        cluster.initial_lease(QUIET, &name)?;
        group.set_lock_url(&format!("kubernetes://{QUIET}/{name}"));
        let (members, killed) = (Vec::new(), Vec::new());
        let mut team = Self { cluster, lease: name, pace, beside, members, killed, started: 0, last: 0, group };
        let first = team.spawn()?;
        first.elector().wait_active(&team.group, LIMIT)?;
        team.members.push(first);
        for _ in 1..size {
            let member = team.spawn()?;
            member.wait_ready()?;
            team.members.push(member);
        }
        Ok(team)
    }

    /// Each has a name of its own: what its log says is about this one.
    fn spawn(&mut self) -> Result<Player> {
        self.started += 1;
        let name = format!("m{}", self.started);
        let workload = beat::paced(&page(&self.group), self.pace)?;
        if !self.beside {
            let body = self.group.member(&name).wrapper(lease_group::NAMESPACE).run(&workload)?;
            return Ok(Player { body, sidecar: None });
        }
        let socket = self.group.folder().join(format!("{name}-via/app.sock"));
        let sidecar = self.group.member(&name).sidecar(&socket)?;
        let body = self.group.member(&format!("{name}-app")).wrapper(lease_group::NAMESPACE).via(&socket);
        Ok(Player { body: body.run(&workload)?, sidecar: Some(sidecar) })
    }

    /// Memory of an elector that is beside its workload, of the one that is active.
    pub fn pss_beside_kb(&self) -> Result<u64> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        let player = self.members.iter().find(|player| player.elector().name() == active.member);
        let sidecar = player.and_then(|player| player.sidecar.as_ref()).context("no sidecar")?;
        pss_of(sidecar.elector_pid()?)
    }

    /// Ends the active one in this way, waits for the next, and makes it complete again.
    pub fn round(&mut self, end: End) -> Result<Gap> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        let index = self.members.iter().position(|member| member.elector().name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        self.settle()?;
        let at = end.apply(&self.group, &self.members[index].body, &active)?;
        let next = self.group.wait_active_after(active.token, LIMIT).with_context(|| format!("after: {end}"))?;
        let old = beat::with_token(&page(&self.group), active.token)?;
        let gap =
            Gap { from_last_ns: next.first.saturating_sub(old.last), from_event_ns: next.first.saturating_sub(at) };
        self.group.archive_before(next.token)?;
        if end == End::ElectorKilled && !self.beside {
            self.killed.push(active.member.clone());
        }
        let member = self.spawn()?;
        member.wait_ready()?;
        // It takes its announcement down before it leaves.
        self.members[index].wait_exit()?;
        drop(std::mem::replace(&mut self.members[index], member));
        self.last = active.token;
        Ok(gap)
    }

    /// Waits until those and only those who are there have announced themselves, and nothing is left to do.
    fn settle(&self) -> Result<()> {
        let is_settled = |named: &Vec<String>| {
            let is_there = |name: &String| self.members.iter().any(|member| member.elector().name() == name);
            let is_named = |member: &Player| named.iter().any(|name| name == member.elector().name());
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
        // One that was announced before its application was let in is no successor yet.
        Ok(members.into_iter().filter(|member| member.healthy).map(|member| member.name).collect())
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        self.group.history().violations().iter().map(ToString::to_string).collect()
    }
}
