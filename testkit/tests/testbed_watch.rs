//! `soloist status --watch` hears of a Lease by one watch, and asks for nothing again, by the API server's audit log.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::audit::{AUDITED, Audit, account};
use testkit::cluster::Cluster;
use testkit::group::{Group, binary};
use testkit::member::Member;
use testkit::process;
use testkit::scenario::LIMIT;
use testkit::wait::{holds_for, wait_until};

const NAME: &str = "watched";
/// Many renewals long.
const WINDOW: Duration = Duration::from_secs(6);

#[test]
fn a_watch_of_a_lease_asks_once_and_is_told_the_rest() -> Result<()> {
    let cluster = Cluster::connect()?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
    cluster.initial_lease(AUDITED, NAME)?;
    let mut group = Group::new()?;
    group.set("--lease", "4s");
    group.set_lock_url(&format!("kubernetes://{AUDITED}/{NAME}"));
    let a = Member::spawn(&group, "a", &[], &[])?;
    a.wait_active(&group, LIMIT)?;
    let mut b = Member::spawn(&group, "b", &[], &[])?;
    b.wait_standby(LIMIT)?;

    let kubeconfig = account(&cluster, "watcher", NAME)?;
    let shown = group.folder().join("shown");
    let trouble = group.folder().join("trouble");
    let lock = format!("kubernetes://{AUDITED}/{NAME}");
    let audit = Audit::begin()?;
    let mut watching = Command::new(binary("soloist")?)
        .args(["status", "--watch", "-o", "json", "--lock", &lock, "--kubeconfig"])
        .arg(kubeconfig)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&shown)?)
        .stderr(std::fs::File::create(&trouble)?)
        .spawn()?;
    let last = || -> Option<Value> {
        let text = std::fs::read_to_string(&shown).ok()?;
        serde_json::from_str(text.lines().last()?).ok()
    };
    let has = |count: usize| last().is_some_and(|status| status["members"].as_array().map_or(0, Vec::len) == count);
    wait_until("both to be shown", LIMIT, || has(2))?;
    holds_for("it goes on", WINDOW, || has(2))?;
    b.signal(Signal::TERM)?;
    b.wait_exit(LIMIT)?;
    wait_until("the end of one to be shown", LIMIT, || has(1))?;
    let asked = audit.requests_of("watcher")?;
    // Before the watch tells, it is looked at: twice at the start, and once more where the watch took its time.
    ensure!(asked.watches == 1 && asked.others() <= 4, "{asked:?}");
    let lines = std::fs::read_to_string(&shown).context("nothing was shown")?.lines().count();
    ensure!(lines <= 6, "renewals were told: {lines} lines");

    cluster.service("kill", "kube-apiserver")?;
    let told =
        || std::fs::read_to_string(&trouble).is_ok_and(|text| text.starts_with("soloist: nothing newer is known: "));
    let named = wait_until("the outage to be named", LIMIT, told);
    cluster.service("start", "kube-apiserver")?;
    named?;
    let _c = Member::spawn(&group, "c", &[], &[])?;
    let names = || last().map(|status| status["members"].to_string()).unwrap_or_default();
    wait_until("who came after the outage to be shown", LIMIT, || names().contains("\"name\":\"c\""))?;
    process::signal(watching.id().try_into()?, Signal::TERM)?;
    assert_eq!(watching.wait()?.code(), Some(0));
    Ok(())
}
