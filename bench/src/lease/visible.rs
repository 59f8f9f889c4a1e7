//! How long it takes from the decision of a member's machine, which is to be active, to its route as a watch shows it;
//! beside one write of such an object and its delivery to such a watch, by turns on the same server.

mod raw;

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::process::Signal;
use testkit::member::Member;
use testkit::routed::{Site, address};
use testkit::traffic::View;
use testkit::wait::{wait_for, wait_until};
use testkit::{routed, stamp};

use self::raw::Raw;
use crate::beat;
use crate::handover::{FRESH, page};
use crate::report::Row;
use crate::steps::{LIMIT, SETTLE};

/// More are not needed, and each takes a second.
const ROUNDS_MAX: usize = 60;

/// A kind of route.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A slice of a Service.
    EndpointSlice,
    /// The Endpoints of a Service.
    Endpoints,
    /// A label on the pod.
    PodLabel,
}

impl Kind {
    /// All of them.
    const ALL: [Self; 3] = [Self::EndpointSlice, Self::Endpoints, Self::PodLabel];

    /// As members are told.
    fn route(self) -> &'static str {
        let [slice, endpoints, label] = routed::ROUTES;
        match self {
            Self::EndpointSlice => slice,
            Self::Endpoints => endpoints,
            Self::PodLabel => label,
        }
    }

    fn name(self) -> &'static str {
        self.route().split(':').next().unwrap_or_default()
    }
}

/// What was measured.
pub struct Visible {
    /// For each kind of route, what it took and what the raw write took.
    pub rows: Vec<[Row; 2]>,
    /// What must never be.
    pub violations: Vec<String>,
}

impl Visible {
    /// Measures all kinds by turns, so many handovers each.
    pub fn measure(rounds: usize) -> Result<Self> {
        let mut groups = Vec::new();
        for kind in Kind::ALL {
            groups.push((Group::start(kind)?, Raw::start(kind)?, Vec::new(), Vec::new()));
        }
        let rounds = rounds.min(ROUNDS_MAX);
        for round in 1..=rounds {
            eprintln!("routes, round {round} of {rounds}");
            for (group, raw, times, raws) in &mut groups {
                times.push(group.round()?);
                raws.push(raw.round()?);
            }
        }
        let violations = groups.iter().flat_map(|(group, ..)| group.violations()).collect();
        let row = |(group, _, times, raws): (Group, Raw, Vec<u64>, Vec<u64>)| {
            let name = group.kind.name();
            [Row::of_times(&format!("{name}: decision to visible"), times), Row::of_times("  raw: PUT, notice", raws)]
        };
        Ok(Self { rows: groups.into_iter().map(row).collect(), violations })
    }
}

/// Two members with one route.
struct Group {
    kind: Kind,
    view: View,
    members: [Member; 2],
    /// Dropped last.
    site: Site,
}

impl Group {
    fn start(kind: Kind) -> Result<Self> {
        let mut site = Site::with_lease(Duration::from_secs(15))?;
        site.group.group.set_fresh(FRESH);
        let views = site.views()?;
        let view = match kind {
            Kind::EndpointSlice => views.slices,
            Kind::Endpoints => views.endpoints,
            Kind::PodLabel => views.pods,
        };
        let a = spawn(&site, kind, "a")?;
        a.wait_active(&site.group.group, LIMIT)?;
        let b = spawn(&site, kind, "b")?;
        Ok(Self { kind, view, members: [a, b], site })
    }

    /// Asks the active one to leave. Nanoseconds from the decision of the next one to its route.
    fn round(&mut self) -> Result<u64> {
        self.settle()?;
        let [old, next] = &mut self.members;
        let began = stamp::now();
        old.signal(Signal::TERM)?;
        let active = next.wait_active(&self.site.group.group, LIMIT)?;
        let shown = match self.kind {
            Kind::EndpointSlice | Kind::Endpoints => address(next.name()),
            Kind::PodLabel => next.name(),
        };
        let seen = wait_for("the route", LIMIT, || self.view.first(Some(shown), began))?;
        let decided = wait_for("the decision", LIMIT, || decided(&next.own_log(), active.token))?;
        old.wait_exit(LIMIT)?;
        self.site.group.group.archive_before(active.token)?;
        *old = spawn(&self.site, self.kind, old.name())?;
        self.members.reverse();
        Ok(seen.saturating_sub(decided))
    }

    /// Waits until the standby is known to the active one, and nothing is left to do.
    fn settle(&self) -> Result<()> {
        let [_, standby] = &self.members;
        standby.wait_standby(LIMIT)?;
        let is_it = |one: &soloist::snapshot::Announcement| one.name == standby.name() && one.role == "standby";
        let is_announced = || {
            let announced = self.site.cluster.announced(&self.site.group.namespace, &self.site.group.lease);
            announced.is_ok_and(|members| members.iter().any(is_it))
        };
        wait_until("the standby's announcement", LIMIT, is_announced).with_context(|| standby.log())?;
        sleep(SETTLE);
        Ok(())
    }

    fn violations(&self) -> Vec<String> {
        let overlaps = self.site.group.group.history().violations().into_iter().map(|one| one.to_string());
        let two = self.view.never_two().err().map(|error| format!("{}: {error:#}", self.kind.route()));
        overlaps.chain(two).collect()
    }
}

/// With nothing between it and the API server.
fn spawn(site: &Site, kind: Kind, name: &str) -> Result<Member> {
    let workload = beat::command(&page(&site.group.group))?;
    let starter = site.group.group.member(name).wrapper(site.as_pod(name)?);
    starter.options(["--route", kind.route()]).run(&workload)
}

/// When a member's machine decided that it is active with this token, in nanoseconds of CLOCK_BOOTTIME, by its log.
fn decided(log: &str, token: u64) -> Option<u64> {
    let decision = format!("active with token {token}: ");
    let line = log.lines().find(|line| line.contains(&decision))?;
    let at: Timestamp = line.split(' ').next()?.parse().ok()?;
    let ago = Duration::try_from(Timestamp::now().duration_since(at)).ok()?;
    stamp::now().checked_sub(u64::try_from(ago.as_nanos()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_from_the_log() {
        let at = Timestamp::now() - Duration::from_secs(3);
        let log = format!("{at}  INFO standing by\n{at}  INFO active with token 42: x released role=active\n");
        let ago = Duration::from_nanos(stamp::now() - decided(&log, 42).unwrap());
        assert!(ago >= Duration::from_secs(3) && ago < Duration::from_secs(4), "{ago:?}");
        assert_eq!(decided(&log, 4), None);
    }
}
