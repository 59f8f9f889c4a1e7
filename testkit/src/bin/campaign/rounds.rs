//! One round: end the active one, wait for the next, bring the group back to three.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process::Process;
use testkit::wait::{wait_for, wait_until};

use crate::deck::Deck;

/// Longer than any way to the next active one takes.
const LIMIT: Duration = Duration::from_secs(30);

/// What the workloads bring along; each can be found by its environment when both keepers are gone.
const WORKLOADS: [&[&str]; 6] = [
    &[],
    &["--mode", "setsid"],
    &["--mode", "double-fork"],
    &["--mode", "close-fds"],
    &["--mode", "setsid+ignore-term"],
    &["--mode", "setsid+double-fork+close-fds+ignore-term"],
];

/// What happened in one round.
#[derive(Clone, Debug)]
pub struct Round {
    /// How the active one was ended.
    pub end: End,
    /// When, in nanoseconds of CLOCK_BOOTTIME.
    pub at: u64,
    /// Token of the one that was ended.
    pub old: u64,
    /// Token of the next one.
    pub new: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, token {} -> {}", self.end, self.old, self.new)
    }
}

/// A group of three, and what was done to it.
#[derive(Debug)]
pub struct Campaign {
    members: Vec<Member>,
    ends: Deck<End>,
    workloads: Deck<&'static [&'static str]>,
    /// The rounds until now.
    pub rounds: Vec<Round>,
    /// Processes that were still there when the next one was active.
    pub left_behind: Vec<String>,
    /// The group; dropped last.
    pub group: Group,
}

impl Campaign {
    /// Starts three members.
    pub fn start(lease: &str, seed: u64) -> Result<Self> {
        let mut group = Group::new()?;
        group.set("--lease", lease);
        let mut campaign = Self {
            members: Vec::new(),
            ends: Deck::new(&End::ALL, seed),
            workloads: Deck::new(&WORKLOADS, seed),
            rounds: Vec::new(),
            left_behind: Vec::new(),
            group,
        };
        for name in ["a", "b", "c"] {
            let member = campaign.spawn(name)?;
            campaign.members.push(member);
        }
        Ok(campaign)
    }

    fn spawn(&mut self, name: &str) -> Result<Member> {
        let workload = self.workloads.draw().context("no workloads")?;
        Member::spawn(&self.group, name, &[], workload)
    }

    /// Ends the active one in the next way, and waits for the next one.
    pub fn round(&mut self) -> Result<Round> {
        let last = self.rounds.last().map_or(0, |round| round.old);
        let active = self.group.wait_active_after(last, LIMIT)?;
        let index = self.members.iter().position(|member| member.name() == active.member);
        let index = index.with_context(|| format!("{active} is none of the members"))?;
        self.wait_standby(index)?;
        let end = self.ends.draw().context("no ends")?;
        let at = end.apply(&self.group, &self.members[index], &active)?;
        let next = self.group.wait_active_after(active.token, LIMIT).with_context(|| format!("after {end}"))?;
        self.look_behind(index, &active, end);
        self.refill()?;
        self.group.archive_before(active.token)?;
        let round = Round { end, at, old: active.token, new: next.token };
        self.rounds.push(round.clone());
        Ok(round)
    }

    /// Waits until one of the others is there to take over, so that a gap does not measure how soloist starts.
    fn wait_standby(&self, active: usize) -> Result<()> {
        wait_until("one of the others to queue for the lock", LIMIT, || {
            let mut others = self.members.iter().enumerate().filter(|(index, _)| *index != active);
            others.any(|(_, other)| other.is_standby())
        })
        .with_context(|| self.group.logs())
    }

    /// With the next one active, nothing of the old tree may be there, whatever it stamps.
    fn look_behind(&mut self, index: usize, old: &Span, end: End) {
        for pid in self.members[index].workload_pids(old) {
            let what = Process::read(pid).map(|process| process.command.join(" ")).unwrap_or_default();
            self.left_behind.push(format!("{pid} of token {} after {end}: {what}", old.token));
        }
    }

    /// Starts those again that have ended, and wakes those that were stopped: what a resumed member does is part of it.
    fn refill(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            let elector = self.members[index].elector_pid().ok().and_then(Process::read);
            if elector.is_some_and(|process| process.state == 'T') {
                self.members[index].signal(Signal::CONT)?;
            }
            if self.has_ended(index)? {
                let name = self.members[index].name().to_owned();
                let member = self.spawn(&name)?;
                drop(std::mem::replace(&mut self.members[index], member));
            }
        }
        Ok(())
    }

    /// Whether a member is gone; waits until that, its activity or its queueing shows.
    fn has_ended(&mut self, index: usize) -> Result<bool> {
        let (group, member) = (&self.group, &mut self.members[index]);
        let what = format!("{} to end, to queue or to be active", member.name());
        wait_for(&what, LIMIT, || {
            if member.try_exit().ok()?.is_some() {
                return Some(true);
            }
            let is_active = group.active().is_some_and(|active| active.member == member.name());
            (is_active || member.is_standby()).then_some(false)
        })
        .with_context(|| self.members[index].log())
    }
}
