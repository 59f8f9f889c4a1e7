//! Sidecars with a route: from the leader's SIGTERM until a watch shows that traffic goes to the next one.

use std::net::IpAddr;
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::leader_elector::{Election, Elector};
use testkit::routed::{address, environment, furnish};
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::wait_for;

use super::named::CALM;
use crate::steps::LIMIT;

/// The Service.
const SERVICE: &str = "app";

/// What became of a route.
pub struct Moved {
    /// When the one that was active was asked to leave.
    pub at: u64,
    /// Who has it.
    pub to: String,
    /// Nanoseconds until a watch showed that.
    pub shown: u64,
}

/// Two sidecars with one route.
pub struct Routed {
    view: View,
    members: Vec<Elector>,
    /// Dropped last.
    election: Election,
}

impl Routed {
    /// Starts them.
    pub fn start() -> Result<Self> {
        let election = Election::free_lease()?;
        furnish(&election.cluster, &election.namespace)?;
        let view = View::of_slices(election.cluster.client(), &election.namespace, SERVICE)?;
        let mut routed = Self { view, members: Vec::new(), election };
        for name in ["a", "b"] {
            let member = routed.spawn(name)?;
            routed.members.push(member);
        }
        Ok(routed)
    }

    fn spawn(&self, name: &str) -> Result<Elector> {
        let Election { cluster, namespace, .. } = &self.election;
        let variables = environment(cluster, namespace, name)?;
        let route = format!("endpoint-slice:{SERVICE}");
        let member = self.election.start_sidecar_as(name, &["--route", &route], &variables)?;
        if self.members.is_empty() {
            self.view.wait(Some(address(name)), LIMIT)?;
        }
        Ok(member)
    }

    /// Asks the one that is active to leave, and waits until a watch shows the address of the other one, alone.
    pub fn round(&mut self) -> Result<Moved> {
        sleep(CALM);
        let active = self.members.iter().position(|member| member.is_active().unwrap_or(false));
        let mut old = self.members.remove(active.context("nobody is active")?);
        let next = self.members.first().context("nobody follows")?;
        let at = stamp::now();
        old.signal(Signal::TERM)?;
        let shown = wait_for("the route", LIMIT, || self.view.first(Some(address(next.name())), at))?;
        ensure!(old.wait()? == Some(0), "{}", old.log());
        let moved = Moved { at, to: next.name().to_owned(), shown: shown - at };
        let member = self.spawn(old.name())?;
        self.members.push(member);
        Ok(moved)
    }

    /// The address of the Service.
    pub fn service(&self) -> Result<IpAddr> {
        let Election { cluster, namespace, .. } = &self.election;
        let address =
            cluster.kubectl(&["get", "service", SERVICE, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}"])?;
        address.parse().with_context(|| format!("{SERVICE} has the address {address:?}"))
    }

    /// What must never be.
    pub fn violations(&self) -> Vec<String> {
        self.view.never_two().err().map(|error| format!("{error:#}")).into_iter().collect()
    }
}
