//! What members on a Lease cost: memory, and requests to the API server while nothing happens, by its audit log.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use testkit::audit::{AUDITED, Audit, Requests, account};
use testkit::cluster::Cluster;
use testkit::group::Group;
use testkit::member::Member;

use crate::beat;
use crate::footprint::pss_kb;
use crate::handover::{self, page};
use crate::steps::LIMIT;

/// The Lease of those who are measured.
const LEASE: &str = "footprint";
/// After this, what a start needed once is given back, and everybody has announced what there is to announce.
const CALM: Duration = Duration::from_secs(5);
/// What the default lease comes to, with the shortest jitter.
pub const RENEWAL_PERIOD_MIN: Duration = Duration::from_millis(1800);
/// Requests in a minute for which there is no need.
pub const PER_MINUTE_MAX: f64 = 1.0;

/// What members cost and ask for.
#[derive(Debug, Serialize)]
pub struct Footprint {
    /// Of elector and guard together, alone on the host.
    pub pss_active_kb: u64,
    /// Of a standby's elector and guard together, beside the active one.
    pub pss_standby_kb: u64,
    /// How long requests were counted.
    pub watched_seconds: u64,
    /// What the active one asked for meanwhile.
    pub active: Requests,
    /// What the standby asked for meanwhile.
    pub standby: Requests,
}

impl Footprint {
    /// Measures two members with the documented role.
    pub fn measure(cluster: &Cluster, watch: Duration) -> Result<Self> {
        let mut group = handover::group("15s")?;
        cluster.initial_lease(AUDITED, LEASE)?;
        group.set_lock_url(&format!("kubernetes://{AUDITED}/{LEASE}"));
        let active = spawn(cluster, &group, "active")?;
        active.wait_active(&group, LIMIT)?;
        sleep(CALM);
        let pss_active_kb = pss_kb(&active)?;
        let standby = spawn(cluster, &group, "standby")?;
        standby.wait_standby(LIMIT)?;
        sleep(CALM);
        let pss_standby_kb = pss_kb(&standby)?;
        let audit = Audit::begin()?;
        eprintln!("counting requests for {} s", watch.as_secs());
        sleep(watch);
        Ok(Self {
            pss_active_kb,
            pss_standby_kb,
            watched_seconds: watch.as_secs(),
            active: audit.requests_of("active")?,
            standby: audit.requests_of("standby")?,
        })
    }

    /// How often the active one has to renew.
    pub fn renewals_per_minute(&self) -> f64 {
        60.0 / RENEWAL_PERIOD_MIN.as_secs_f64()
    }
}

fn spawn(cluster: &Cluster, group: &Group, name: &str) -> Result<Member> {
    let kubeconfig = account(cluster, name, LEASE)?;
    let workload = beat::command(&page(group))?;
    group.member(name).options(["--kubeconfig".into(), kubeconfig.into_os_string()]).run(&workload)
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requests in {} s:", self.watched_seconds)?;
        for (name, requests) in [("active", &self.active), ("standby", &self.standby)] {
            let kinds: Vec<String> = requests.by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            write!(f, "\n  {name}: {}", kinds.join(", "))?;
        }
        Ok(())
    }
}
