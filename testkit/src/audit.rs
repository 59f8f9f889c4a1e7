//! What members ask of the API server, by its audit log: the testbed writes down every request in one namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubeconfig::{Server, testbed};

/// The namespace that is written down where the testbed was started with `TESTBED_AUDIT` and this name.
pub const AUDITED: &str = "audited";

/// The log, and how much of it is about the past.
#[derive(Debug)]
pub struct Audit {
    log: PathBuf,
    before: usize,
}

impl Audit {
    /// Counts from now on.
    ///
    /// # Errors
    /// Nothing is written down.
    pub fn begin() -> Result<Self> {
        let log = Path::new(&testbed("TESTBED_DIR")?).join("logs/audit.log");
        let before = read(&log)?.len();
        Ok(Self { log, before })
    }

    /// What `account` has asked for.
    pub fn requests_of(&self, account: &str) -> Result<Requests> {
        Ok(requests(&read(&self.log)?, self.before, account))
    }
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

/// A service account with the documented role for one Lease in [`AUDITED`]; its kubeconfig.
pub fn account(cluster: &Cluster, name: &str, lease: &str) -> Result<PathBuf> {
    cluster.account(AUDITED, name, lease, &["get", "watch", "update"])?;
    let token = cluster.token(AUDITED, name)?;
    let path = Path::new(&testbed("TESTBED_DIR")?).join(format!("{name}.kubeconfig"));
    Server::of_testbed()?.write_kubeconfig(&path, &json!({"token": token}))?;
    Ok(path)
}

fn read(log: &Path) -> Result<String> {
    fs::read_to_string(log).with_context(|| format!("failed to read {}: TESTBED_AUDIT is not set", log.display()))
}

/// What `account` has asked for since the log was `before` bytes long.
fn requests(log: &str, before: usize, account: &str) -> Requests {
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
