//! What members ask of the API server while nothing happens, by its audit log.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use election::{Role, Timing};
use serde_json::json;
use testkit::audit::{AUDITED, Audit, account};
use testkit::cluster::Cluster;
use testkit::group::Group;
use testkit::lease_group::LEASE;
use testkit::scenario::LIMIT;
use testkit::wait::{holds_for, wait_until};

const NAME: &str = "quiet";
const WINDOW: Duration = Duration::from_secs(20);

/// Whether these members have announced these roles, and nobody else any.
fn are(cluster: &Cluster, roles: &[(&str, Role)]) -> bool {
    cluster.announced(AUDITED, NAME).is_ok_and(|members| {
        let all = members
            .iter()
            .zip(roles)
            .all(|(member, (name, role))| member.name == *name && member.role == role.to_string());
        members.len() == roles.len() && all
    })
}

#[test]
fn a_standby_has_one_watch_and_asks_for_nothing_and_the_active_one_writes_once_a_renewal() -> Result<()> {
    let cluster = Cluster::connect()?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
    cluster.initial_lease(AUDITED, NAME)?;
    let mut group = Group::new()?;
    group.set("--lease", "4s");
    group.set_lock_url(&format!("kubernetes://{AUDITED}/{NAME}"));
    let spawn = |name: &str| {
        let kubeconfig = account(&cluster, name, NAME)?;
        group.member(name).options(["--kubeconfig".into(), kubeconfig.into_os_string()]).probe::<&str>(&[])
    };
    let a = spawn("a")?;
    let active = a.wait_active(&group, LIMIT)?;
    let b = spawn("b")?;
    b.wait_standby(LIMIT)?;
    // What a start costs is over then.
    wait_until("both to have announced themselves", LIMIT, || {
        are(&cluster, &[("a", Role::Active), ("b", Role::Standby)])
    })?;

    let audit = Audit::begin()?;
    holds_for("nothing happens", WINDOW, || group.history().spans.len() == 1)?;
    let (of_a, of_b) = (audit.requests_of("a")?, audit.requests_of("b")?);
    let told = format!("in {WINDOW:?}: of the active one {of_a:?}, of the standby {of_b:?}");
    eprintln!("{told}");
    // The server ends a watch after some time, and the next one is begun.
    ensure!(of_b.open_watches == 1 && of_b.watches <= 1, "{told}");
    ensure!(of_b.others() <= 1, "more than one request a minute: {told}");
    let period = Timing::new(LEASE, None).map_err(|error| anyhow!("{error}"))?.period();
    // Jitter only shortens, by a tenth; and an announcement may fall into the window.
    let most = WINDOW.as_secs_f64() / (period.as_secs_f64() * 0.9) + 2.0;
    ensure!(of_a.puts as f64 <= most && of_a.puts as f64 >= most / 2.0, "not {most} writes: {told}");
    ensure!(of_a.others() == of_a.puts && of_a.watches <= 1, "{told}");
    wait_until("a stamp", LIMIT, || group.active().is_some_and(|span| span.token == active.token))?;
    group.check(1, 2)
}
