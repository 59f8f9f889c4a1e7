//! What members on a Lease cost: memory, and requests to the API server while nothing happens, by its audit log.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use testkit::cluster::Cluster;
use testkit::group::Group;
use testkit::member::Member;

use super::cluster::{AUDITED, account, audit_log};
use crate::beat;
use crate::footprint::pss_kb;
use crate::handover::{self, page};
use crate::steps::LIMIT;

/// The Lease of those who are measured.
const LEASE: &str = "footprint";
/// After this, what a start needed once is given back, and everybody has announced what there is to announce.
const CALM: Duration = Duration::from_secs(5);
/// What the default lease comes to, with the shortest jitter.
const RENEWAL_PERIOD_MIN: Duration = Duration::from_millis(1800);
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

/// What one member asked for.
#[derive(Debug, Default, Serialize)]
pub struct Requests {
    /// Watches that were open at the end.
    pub open_watches: u64,
    /// Watches that were begun: the server ends each after a while.
    pub watches: u64,
    /// Updates.
    pub puts: u64,
    /// By verb and resource, all of them.
    pub by_kind: BTreeMap<String, u64>,
}

impl Requests {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.by_kind.values().sum()
    }

    /// All that were no watches.
    pub fn others(&self) -> u64 {
        self.all() - self.watches
    }
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
        let before = audited()?.len();
        eprintln!("counting requests for {} s", watch.as_secs());
        sleep(watch);
        let text = audited()?;
        Ok(Self {
            pss_active_kb,
            pss_standby_kb,
            watched_seconds: watch.as_secs(),
            active: requests(&text, before, "active"),
            standby: requests(&text, before, "standby"),
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

/// Everything that was asked for in the namespace that is watched.
pub fn audited() -> Result<String> {
    let log = audit_log()?;
    fs::read_to_string(&log).with_context(|| format!("failed to read {}: TESTBED_AUDIT is not set", log.display()))
}

/// What `account` has asked for since the log was `before` bytes long.
pub fn requests(log: &str, before: usize, account: &str) -> Requests {
    let user = format!("system:serviceaccount:{AUDITED}:{account}");
    let entries = |part: &str| -> Vec<Value> {
        let all = part.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|entry| entry["user"]["username"] == user.as_str()).collect()
    };
    let mut requests = Requests::default();
    for entry in entries(log.get(before..).unwrap_or_default()) {
        let is_watch = entry["verb"] == "watch";
        // A watch is answered long before it is complete, everything else at once.
        if is_watch != (entry["stage"] == "ResponseStarted") {
            continue;
        }
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let kind = format!("{} {}", word(&entry["verb"]), word(&entry["objectRef"]["resource"]));
        *requests.by_kind.entry(kind).or_default() += 1;
        requests.watches += u64::from(is_watch);
        requests.puts += u64::from(entry["verb"] == "update");
    }
    let of_watches = entries(log).into_iter().filter(|entry| entry["verb"] == "watch");
    let (begun, ended): (Vec<Value>, Vec<Value>) = of_watches.partition(|entry| entry["stage"] == "ResponseStarted");
    requests.open_watches = (begun.len() as u64).saturating_sub(ended.len() as u64);
    requests
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_who_asked_and_watches_by_their_begin() {
        let line = |account: &str, verb: &str, stage: &str| {
            let user = format!("system:serviceaccount:{AUDITED}:{account}");
            let entry = serde_json::json!({
                "verb": verb, "stage": stage, "user": {"username": user}, "objectRef": {"resource": "leases"},
            });
            format!("{entry}\n")
        };
        let early = line("a", "watch", "ResponseStarted") + &line("a", "update", "ResponseComplete");
        let log = early.clone()
            + &line("a", "watch", "ResponseComplete")
            + &line("a", "watch", "ResponseStarted")
            + &line("b", "get", "ResponseComplete")
            + &line("a", "update", "ResponseComplete");
        let requests = requests(&log, early.len(), "a");
        assert_eq!((requests.open_watches, requests.watches, requests.puts, requests.others()), (1, 1, 1, 1));
        assert_eq!(
            requests.by_kind.into_iter().collect::<Vec<_>>(),
            [("update leases".into(), 1), ("watch leases".into(), 1)]
        );
    }
}
