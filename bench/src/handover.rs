//! Handovers of soloist: three members, one of which ends.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::ends::End;
use testkit::group::Group;
use testkit::member::Member;

use crate::beat;
use crate::steps::{Gap, LIMIT, SETTLE};

/// A workload that stamped this recently is alive: other work of the host may keep it from stamping for a while.
pub const FRESH: Duration = Duration::from_millis(50);

/// A group of three.
pub struct Trio {
    members: Vec<Member>,
    options: &'static [&'static str],
    last: u64,
    /// Dropped last.
    pub group: Group,
}

impl Trio {
    /// Starts three members with this lease and these options.
    pub fn start(lease: &str, options: &'static [&'static str]) -> Result<Self> {
        let mut trio = Self { members: Vec::new(), options, last: 0, group: group(lease)? };
        for name in ["a", "b", "c"] {
            let member = spawn(&trio.group, name, options)?;
            trio.members.push(member);
        }
        Ok(trio)
    }

    /// Ends the active one in this way, and waits for the next.
    pub fn round(&mut self, end: End) -> Result<Gap> {
        self.round_amid(end, |_, _| Ok(()))
    }

    /// The same amid something that is made of all members and the active one, and kept until the next is active.
    pub fn round_amid<T>(&mut self, end: End, amid: impl FnOnce(&[Member], &Member) -> Result<T>) -> Result<Gap> {
        let group = &self.group;
        let active = group.wait_active_after(self.last, LIMIT)?;
        let index = self.members.iter().position(|member| member.name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        for (other, member) in self.members.iter().enumerate() {
            if other != index {
                member.wait_standby(LIMIT)?;
            }
        }
        let kept = amid(&self.members, &self.members[index])?;
        sleep(SETTLE);
        let at = end.apply(group, &self.members[index], &active)?;
        let next = group.wait_active_after(active.token, LIMIT).with_context(|| format!("after: {end}"))?;
        drop(kept);
        let old = beat::with_token(&page(group), active.token)?;
        let gap =
            Gap { from_last_ns: next.first.saturating_sub(old.last), from_event_ns: next.first.saturating_sub(at) };
        group.archive_before(next.token)?;
        let member = spawn(group, self.members[index].name(), self.options)?;
        drop(std::mem::replace(&mut self.members[index], member));
        self.last = active.token;
        Ok(gap)
    }

    /// What must never be, in all rounds until now.
    pub fn violations(&self) -> Vec<String> {
        self.group.history().violations().iter().map(ToString::to_string).collect()
    }
}

/// A group without members.
pub fn group(lease: &str) -> Result<Group> {
    let mut group = Group::new()?;
    group.set("--lease", lease);
    group.set_fresh(FRESH);
    Ok(group)
}

/// Where the workloads of a group stamp.
pub fn page(group: &Group) -> PathBuf {
    group.probe_dir().join("slots")
}

/// Starts a member with a workload that stamps.
pub fn spawn(group: &Group, name: &str, options: &[&str]) -> Result<Member> {
    group.member(name).options(options.iter().copied()).run(&beat::command(&page(group))?)
}
