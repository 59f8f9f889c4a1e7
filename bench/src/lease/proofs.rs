//! The first process of the active one's container is killed, so that nothing is released: how soon the next one is
//! active once there is a proof.

use anyhow::{Context, Result};
use soloist::snapshot::Announcement;
use testkit::cluster::Cluster;
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::wait;

use super::QUIET;
use super::pods::{Kubelet, Pod};
use crate::handover;
use crate::steps::{LIMIT, SETTLE};

/// Who is not believed waits for much longer than anything here takes.
const LEASE: &str = "15s";
/// With a short one the holder soon says which run of its container it is: with its next renewal.
const RENEWED_SOON: &str = "6s";

/// A container that runs anew, alone in its group.
pub struct Restart {
    pod: Pod,
    member: Member,
    last: u64,
    /// Dropped last.
    group: Group,
}

impl Restart {
    /// Starts it for the first time.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let group = group(cluster, "bench-restart", LEASE)?;
        let mut pod = Pod::create(cluster, "bench-restart")?;
        let member = pod.run(&group, &[])?;
        Ok(Self { pod, member, last: 0, group })
    }

    /// Kills it and runs it anew. Nanoseconds from its first instruction until it is active.
    pub fn round(&mut self) -> Result<u64> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        std::thread::sleep(SETTLE);
        kill(&self.group, &mut self.member, &active)?;
        self.member = self.pod.run(&self.group, &[])?;
        let next = self.group.wait_active_after(active.token, LIMIT)?;
        self.group.archive_before(next.token)?;
        self.last = active.token;
        Ok(next.first.saturating_sub(self.pod.began()?))
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        violations(&self.group)
    }
}

/// Two who believe the kubelet's word on each other.
pub struct Word<'a> {
    cluster: &'a Cluster,
    kubelet: Kubelet,
    pods: [Pod; 2],
    members: [Member; 2],
    last: u64,
    /// Dropped last.
    group: Group,
}

const WORD: &str = "bench-word";
const BELIEVES: [&str; 1] = ["--evidence=pod"];

impl<'a> Word<'a> {
    /// Starts both.
    pub fn start(cluster: &'a Cluster) -> Result<Self> {
        let (kubelet, group) = (Kubelet::connect()?, group(cluster, WORD, RENEWED_SOON)?);
        let mut pods = [Pod::create(cluster, "bench-word-a")?, Pod::create(cluster, "bench-word-b")?];
        let members = [run(&kubelet, &mut pods[0], &group)?, run(&kubelet, &mut pods[1], &group)?];
        Ok(Self { cluster, kubelet, pods, members, last: 0, group })
    }

    /// Kills the active one and says so. Nanoseconds from before the word was said until the other one is active.
    pub fn round(&mut self) -> Result<u64> {
        let active = self.group.wait_active_after(self.last, LIMIT)?;
        let index = self.members.iter().position(|member| member.name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        let (id, standby) = (self.pods[index].id(), self.members[1 - index].name().to_owned());
        let is_named = || self.recorded().is_ok_and(|text| text.contains(&id));
        wait::wait_until("the record to name the run", LIMIT, is_named).with_context(|| self.group.logs())?;
        let is_named = |members: Vec<Announcement>| members.iter().any(|member| member.name == standby);
        let is_announced = || self.cluster.announced(QUIET, WORD).is_ok_and(is_named);
        wait::wait_until("the standby's announcement", LIMIT, is_announced)?;
        std::thread::sleep(SETTLE);

        kill(&self.group, &mut self.members[index], &active)?;
        let said = self.kubelet.say_killed(&self.pods[index])?;
        let next = self.group.wait_active_after(active.token, LIMIT)?;
        self.group.archive_before(next.token)?;
        self.members[index] = run(&self.kubelet, &mut self.pods[index], &self.group)?;
        self.last = active.token;
        Ok(next.first.saturating_sub(said))
    }

    fn recorded(&self) -> Result<String> {
        let path = r"jsonpath={.metadata.annotations.soloist\.dev/record}";
        self.cluster.kubectl(&["get", "lease", WORD, "--namespace", QUIET, "--output", path])
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        violations(&self.group)
    }
}

fn group(cluster: &Cluster, name: &str, lease: &str) -> Result<Group> {
    let mut group = handover::group(lease)?;
    cluster.initial_lease(QUIET, name)?;
    group.set_lock_url(&format!("kubernetes://{QUIET}/{name}"));
    Ok(group)
}

fn run(kubelet: &Kubelet, pod: &mut Pod, group: &Group) -> Result<Member> {
    let member = pod.run(group, &BELIEVES)?;
    kubelet.say_running(pod)?;
    Ok(member)
}

/// Kills the first process, and with it everything in its namespace. A kubelet speaks after that.
fn kill(group: &Group, member: &mut Member, active: &Span) -> Result<()> {
    End::ElectorKilled.apply(group, member, active)?;
    member.wait_exit(LIMIT).map(drop)
}

fn violations(group: &Group) -> Vec<String> {
    group.history().violations().iter().map(ToString::to_string).collect()
}
