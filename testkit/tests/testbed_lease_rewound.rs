//! The store of the API server is put back to an older state, as from a backup, while a group uses it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::cluster::Cluster;
use testkit::lease_group::LeaseGroup;
use testkit::root::run;
use testkit::scenario::{LIMIT, check};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// Long enough for the servers to be back while the holder still holds: D is 8 s.
const LEASE: Duration = Duration::from_secs(12);

/// So many renewals are forgotten.
const FORGOTTEN: u64 = 4;

/// What etcd has stored.
struct Store<'a> {
    cluster: &'a Cluster,
    at: PathBuf,
    backup: PathBuf,
}

impl<'a> Store<'a> {
    /// Makes a backup.
    fn keep(cluster: &'a Cluster) -> Result<Self> {
        let folder: PathBuf = std::env::var_os("TESTBED_DIR").context("no TESTBED_DIR")?.into();
        let store = Self { cluster, at: folder.join("etcd"), backup: folder.join("etcd-backup") };
        cluster.service("pause", "etcd")?;
        let copied = run(&["cp".as_ref(), "-a".as_ref(), store.at.as_os_str(), store.backup.as_os_str()]);
        cluster.service("resume", "etcd")?;
        copied.map(|()| store)
    }

    /// Puts it back. The API server remembers what etcd has forgotten, so it starts anew as well.
    fn put_back(&self) -> Result<()> {
        for server in ["kube-apiserver", "etcd"] {
            self.cluster.service("kill", server)?;
        }
        std::fs::remove_dir_all(&self.at).context("failed to remove what etcd had stored")?;
        std::fs::rename(&self.backup, &self.at).context("failed to put the backup in its place")?;
        for server in ["etcd", "kube-apiserver"] {
            self.cluster.service("start", server)?;
        }
        wait_until("the API server", LIMIT, || self.cluster.kubectl(&["get", "--raw", "/readyz"]).is_ok())
    }
}

#[test]
fn a_store_that_went_back_ends_the_holder_and_costs_everybody_a_lease() -> Result<()> {
    let cluster = &Cluster::connect()?;
    let mut group = LeaseGroup::with_lease(cluster, "12s")?;
    let (members, active) = group.start(cluster, &["a", "b"])?;
    let relay = group.relay("a")?;
    let store = Store::keep(cluster)?;
    let asked = relay.asked("PUT");
    wait_until("renewals", LIMIT, || relay.asked("PUT") > asked + FORGOTTEN)?;

    let began = stamp::now();
    store.put_back()?;
    let back = stamp::now();
    let next = group.group.wait_active_after(active.token, LEASE * 3)?;
    let spans = group.group.history().spans;
    let old = spans.iter().find(|span| span.token == active.token).context("the first one is lost")?;
    let after = |instant: u64| Duration::from_nanos(instant.saturating_sub(began));
    let told = format!(
        "the store was back after {:?}; the old one ended after {:?}, the next one is {} after {:?}\n{}",
        after(back),
        after(old.last),
        next.member,
        after(next.first),
        group.group.logs()
    );
    // As soon as the holder looks, it sees that the store went back: it does not live to its deadline by much.
    ensure!(old.last < back + 3_000_000_000, "it went on: {told}");
    let waited = Duration::from_nanos(next.first.saturating_sub(old.last));
    ensure!(waited >= LEASE / 2, "a release was believed: {told}");
    ensure!(next.first < back + 2 * 12_000_000_000, "too late: {told}");
    eprintln!("{told}");
    holds_for("it stays so", LEASE / 2, || group.group.history().spans.len() == 2)?;
    for member in &members {
        ensure!(member.elector_pid().is_ok(), "{} has ended: {told}", member.name());
    }
    check(&group.group, 2, &active)
}
