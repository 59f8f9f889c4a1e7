//! What people do to a Lease, its Role and its credentials while a group uses them: never two are active, and nobody
//! takes absence or an empty field for a release.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::lease_group::{LEASE, LeaseGroup, Pair};
use testkit::process;
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until, within};

/// How long those who see a stranger on the Lease wait.
const FOREIGN_WAIT: Duration = Duration::from_secs(3 * LEASE.as_secs());

/// The documented Role.
const VERBS: [&str; 3] = ["get", "watch", "update"];

fn delete_lease(pair: &Pair) -> Result<()> {
    let (name, namespace) = (&pair.group.lease, &pair.group.namespace);
    pair.cluster.kubectl(&["delete", "lease", name, "-n", namespace]).map(drop)
}

fn holds(pair: &Pair, name: &str) -> bool {
    pair.group.read(&pair.cluster).is_ok_and(|lease| lease["spec"]["holderIdentity"] == name)
}

/// For some leases there is never more than one; in the end there is one, and its tokens grew.
fn one_at_a_time(pair: &Pair) -> Result<()> {
    let group = &pair.group.group;
    holds_for("nothing overlaps", LEASE * 3, || group.history().violations().is_empty())?;
    wait_until("somebody to be active", LIMIT, || group.active().is_some()).with_context(|| group.logs())?;
    group.check(1, 2)
}

/// The holder takes the Lease back, and nobody else has started meanwhile.
fn a_takes_it_back(pair: &Pair) -> Result<()> {
    wait_until("a to hold the Lease again", LEASE, || holds(pair, "a")).with_context(|| pair.group.group.logs())?;
    one_at_a_time(pair)?;
    let spans = pair.group.group.history().spans;
    ensure!(spans.len() == 1, "others became active:\n{}{}", pair.group.group.history(), pair.group.group.logs());
    Ok(())
}

#[test]
fn a_deleted_lease_lets_nobody_else_in() -> Result<()> {
    let pair = &Pair::start()?;
    delete_lease(pair)?;
    a_takes_it_back(pair)
}

#[test]
fn a_lease_that_was_deleted_and_applied_anew_never_makes_two() -> Result<()> {
    let pair = &Pair::start()?;
    delete_lease(pair)?;
    let (name, namespace) = (&pair.group.lease, &pair.group.namespace);
    // The holder may have been quicker.
    let _ = pair.cluster.initial_lease(namespace, name);
    one_at_a_time(pair)
}

#[test]
fn a_holder_that_was_blanked_is_written_again() -> Result<()> {
    let pair = &Pair::start()?;
    pair.group.patch(&pair.cluster, &json!({"spec": {"holderIdentity": ""}}))?;
    a_takes_it_back(pair)
}

#[test]
fn a_lease_without_a_spec_is_written_again() -> Result<()> {
    let pair = &Pair::start()?;
    pair.group.patch(&pair.cluster, &json!({"spec": null}))?;
    a_takes_it_back(pair)
}

#[test]
fn a_lease_without_our_annotations_never_makes_two() -> Result<()> {
    let pair = &Pair::start()?;
    pair.group.patch(&pair.cluster, &json!({"metadata": {"annotations": null}}))?;
    one_at_a_time(pair)
}

#[test]
fn a_shorter_duration_by_hand_lets_nobody_in_early() -> Result<()> {
    let pair = &Pair::start()?;
    pair.group.patch(&pair.cluster, &json!({"spec": {"leaseDurationSeconds": 1}}))?;
    a_takes_it_back(pair)
}

#[test]
fn another_holder_by_hand_stops_the_workload_at_once_and_is_waited_for() -> Result<()> {
    let pair = &Pair::start()?;
    let before = stamp::now();
    pair.group.patch(&pair.cluster, &json!({"spec": {"holderIdentity": "stranger"}}))?;
    let patched = stamp::now();
    wait_until("a to stop", LIMIT, || pair.group.group.active().is_none())?;
    let handover = follow(&pair.group.group, &pair.active, before)?;
    let went_on = Duration::from_nanos(handover.old.last.saturating_sub(patched));
    ensure!(went_on < Duration::from_secs(1), "a went on for {went_on:?}");
    let waited = handover.from_event;
    ensure!(waited >= FOREIGN_WAIT, "{waited:?} is no three leases");
    within("the next one to be active", waited, FOREIGN_WAIT + LEASE)?;
    check(&pair.group.group, 2, &pair.active)
}

/// Two members of one ServiceAccount each, with the documented Role and a token file.
fn with_accounts() -> Result<Pair> {
    Pair::by(|group, cluster| {
        let (namespace, lease) = (group.namespace.clone(), group.lease.clone());
        group.settle(&["a", "b"], |group, name| {
            cluster.account(&namespace, name, &lease, &VERBS)?;
            let token = token_file(group, name);
            fs::write(&token, bound_token(cluster, &namespace, name, "first")?)?;
            group.spawn_as(cluster, name, &json!({"tokenFile": token}), &[], &[])
        })
    })
}

fn token_file(group: &LeaseGroup, name: &str) -> std::path::PathBuf {
    group.group.folder().join(format!("{name}.token"))
}

/// A token of an account that dies with a Secret.
fn bound_token(cluster: &Cluster, namespace: &str, account: &str, which: &str) -> Result<String> {
    let secret = format!("{account}-{which}");
    cluster.kubectl(&["create", "secret", "generic", &secret, "-n", namespace])?;
    let bound = ["--bound-object-kind", "Secret", "--bound-object-name", &secret];
    let words = [&["create", "token", account, "-n", namespace][..], &bound].concat();
    Ok(cluster.kubectl(&words)?.trim().to_owned())
}

fn kill_token(pair: &Pair, account: &str, which: &str) -> Result<()> {
    let secret = format!("{account}-{which}");
    pair.cluster.kubectl(&["delete", "secret", &secret, "-n", &pair.group.namespace]).map(drop)
}

/// The API server remembers for some seconds whom it has let in.
fn wait_dead(pair: &Pair, relay: &str, asked: u64) -> Result<()> {
    let relay = pair.group.relay(relay)?;
    wait_until("the API server to refuse the token", LIMIT, || relay.answered(401) > asked)
}

#[test]
fn a_revoked_role_ends_the_holder_in_time_and_is_named() -> Result<()> {
    let pair = &with_accounts()?;
    pair.cluster.kubectl(&["delete", "rolebinding", "a", "-n", &pair.group.namespace])?;
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    pair.group.came_after_a_lease(&handover, LEASE)?;
    let log = pair.members[0].log();
    ensure!(log.contains("missing: verb update on leases"), "the missing rule is not named:\n{log}");
    pair.cluster.account(&pair.group.namespace, "a", &pair.group.lease, &VERBS)?;
    pair.members[0].wait_standby(LIMIT)?;
    check(&pair.group.group, 2, &pair.active)
}

#[test]
fn a_rotated_token_stops_nobody() -> Result<()> {
    let pair = &with_accounts()?;
    let fresh = bound_token(&pair.cluster, &pair.group.namespace, "a", "second")?;
    // As kubelet does it: the new file takes the place of the old one.
    let (token, new) = (token_file(&pair.group, "a"), pair.group.group.folder().join("new"));
    fs::write(&new, fresh)?;
    fs::rename(new, token)?;
    let before = pair.group.relay("a")?.answered(401);
    kill_token(pair, "a", "first")?;
    wait_dead(pair, "a", before)?;
    holds_for("a stays active", LEASE * 2, || pair.group.group.history().spans.len() == 1)?;
    wait_until("a stamp", LIMIT, || pair.group.group.active().is_some())?;
    pair.group.group.check(1, 2)
}

#[test]
fn a_dead_token_ends_the_holder_in_time_and_a_new_one_brings_it_back() -> Result<()> {
    let pair = &with_accounts()?;
    let before = pair.group.relay("a")?.answered(401);
    kill_token(pair, "a", "first")?;
    wait_dead(pair, "a", before)?;
    let handover = follow(&pair.group.group, &pair.active, stamp::now())?;
    pair.group.came_after_a_lease(&handover, LEASE)?;
    fs::write(token_file(&pair.group, "a"), bound_token(&pair.cluster, &pair.group.namespace, "a", "second")?)?;
    pair.members[0].wait_standby(LIMIT)?;
    let next = pair.group.group.wait_active_after(pair.active.token, LIMIT)?;
    process::signal(pair.members[1].elector_pid()?, rustix::process::Signal::TERM)?;
    ensure!(pair.group.group.wait_active_after(next.token, LIMIT)?.member == "a", "a did not come back");
    check(&pair.group.group, 3, &pair.active)
}

/// Starts a member whose kubeconfig was changed, and returns what it says with `--fail-fast`.
fn refused(change: impl FnOnce(&mut Value)) -> Result<String> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    group.add_relay(&cluster, "a", &json!({}))?;
    let path = group.kubeconfig("a");
    let mut config = serde_json::from_str(&fs::read_to_string(&path)?)?;
    change(&mut config);
    fs::write(&path, config.to_string())?;
    let mut member = group.spawn(&cluster, "a", &["--fail-fast"])?;
    assert_eq!(member.wait_exit_code(LIMIT)?, 69);
    ensure!(group.group.history().spans.is_empty(), "it was active");
    ensure!(group.relay("a")?.requests().is_empty(), "it asked: {:?}", group.relay("a")?.requests());
    Ok(member.log())
}

#[test]
fn an_api_server_that_is_not_there_is_named() -> Result<()> {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = refused(|config| config["clusters"][0]["cluster"]["server"] = json!(format!("https://{nobody}")))?;
    ensure!(log.contains("refused"), "{log}");
    Ok(())
}

#[test]
fn an_api_server_that_is_not_trusted_is_refused() -> Result<()> {
    let other = Cluster::connect()?.relay(true)?;
    let folder = tempfile::tempdir()?;
    other.write_kubeconfig(&folder.path().join("other"), &json!({}))?;
    let authority: &Path = &folder.path().join("other.ca");
    let log = refused(|config| config["clusters"][0]["cluster"]["certificate-authority"] = json!(authority))?;
    ensure!(log.contains("certificate"), "{log}");
    Ok(())
}
