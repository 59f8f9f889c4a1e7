//! What people do to a Lease, its Role and its credentials while a group uses them: never two are active, and nobody
//! takes absence or an empty field for a release.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::history::Span;
use testkit::lease_group::{LEASE, LeaseGroup, in_time};
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::wait::{holds_for, wait_until};

/// How long those who see a stranger on the Lease wait.
const FOREIGN_WAIT: Duration = Duration::from_secs(3 * LEASE.as_secs());

/// The documented Role.
const VERBS: [&str; 3] = ["get", "watch", "update"];

struct Scene {
    cluster: Cluster,
    group: LeaseGroup,
    members: Vec<Member>,
    active: Span,
}

impl Scene {
    fn new() -> Result<Self> {
        let cluster = Cluster::connect()?;
        let mut group = LeaseGroup::new(&cluster)?;
        let (members, active) = group.start(&cluster, &["a", "b"])?;
        Ok(Self { cluster, group, members, active })
    }

    fn delete_lease(&self) -> Result<()> {
        let (name, namespace) = (&self.group.lease, &self.group.namespace);
        self.cluster.kubectl(&["delete", "lease", name, "-n", namespace]).map(drop)
    }

    fn holds(&self, name: &str) -> bool {
        self.group.read(&self.cluster).is_ok_and(|lease| lease["spec"]["holderIdentity"] == name)
    }

    /// For some leases there is never more than one; in the end there is one, and its tokens grew.
    fn one_at_a_time(&self) -> Result<()> {
        let group = &self.group.group;
        holds_for("nothing overlaps", LEASE * 3, || group.history().violations().is_empty())?;
        wait_until("somebody to be active", LIMIT, || group.active().is_some()).with_context(|| group.logs())?;
        group.history().check(1, 2).with_context(|| group.logs())
    }

    /// The holder takes the Lease back, and nobody else has started meanwhile.
    fn a_takes_it_back(&self) -> Result<()> {
        wait_until("a to hold the Lease again", LEASE, || self.holds("a")).with_context(|| self.group.group.logs())?;
        self.one_at_a_time()?;
        let spans = self.group.group.history().spans;
        ensure!(spans.len() == 1, "others became active:\n{}{}", self.group.group.history(), self.group.group.logs());
        Ok(())
    }
}

/// With two members, `a` active and `b` standing by; once more if something came late.
fn test(test: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    in_time(Scene::new, |scene| &scene.group, test)
}

#[test]
fn a_deleted_lease_lets_nobody_else_in() -> Result<()> {
    test(|scene| {
        scene.delete_lease()?;
        scene.a_takes_it_back()
    })
}

#[test]
fn a_lease_that_was_deleted_and_applied_anew_never_makes_two() -> Result<()> {
    test(|scene| {
        scene.delete_lease()?;
        let (name, namespace) = (&scene.group.lease, &scene.group.namespace);
        // The holder may have been quicker.
        let _ = scene.cluster.initial_lease(namespace, name);
        scene.one_at_a_time()
    })
}

#[test]
fn a_holder_that_was_blanked_is_written_again() -> Result<()> {
    test(|scene| {
        scene.group.patch(&scene.cluster, &json!({"spec": {"holderIdentity": ""}}))?;
        scene.a_takes_it_back()
    })
}

#[test]
fn a_lease_without_a_spec_is_written_again() -> Result<()> {
    test(|scene| {
        scene.group.patch(&scene.cluster, &json!({"spec": null}))?;
        scene.a_takes_it_back()
    })
}

#[test]
fn a_lease_without_our_annotations_never_makes_two() -> Result<()> {
    test(|scene| {
        scene.group.patch(&scene.cluster, &json!({"metadata": {"annotations": null}}))?;
        scene.one_at_a_time()
    })
}

#[test]
fn a_shorter_duration_by_hand_lets_nobody_in_early() -> Result<()> {
    test(|scene| {
        scene.group.patch(&scene.cluster, &json!({"spec": {"leaseDurationSeconds": 1}}))?;
        scene.a_takes_it_back()
    })
}

#[test]
fn another_holder_by_hand_stops_the_workload_at_once_and_is_waited_for() -> Result<()> {
    test(|scene| {
        let before = stamp::now();
        scene.group.patch(&scene.cluster, &json!({"spec": {"holderIdentity": "stranger"}}))?;
        let patched = stamp::now();
        wait_until("a to stop", LIMIT, || scene.group.group.active().is_none())?;
        let handover = follow(&scene.group.group, &scene.active, before)?;
        ensure!(handover.old.last < patched + 1_000_000_000, "a went on for {:?}", handover.old.last - patched);
        let waited = handover.from_event;
        ensure!(waited >= FOREIGN_WAIT, "{waited:?} is no three leases");
        ensure!(waited <= FOREIGN_WAIT + LEASE, "took {waited:?}");
        check(&scene.group.group, 2, &scene.active)
    })
}

/// Two members of one ServiceAccount each, with the documented Role and a token file.
fn with_accounts() -> Result<Scene> {
    let cluster = Cluster::connect()?;
    let mut group = LeaseGroup::new(&cluster)?;
    let (namespace, lease) = (group.namespace.clone(), group.lease.clone());
    let (members, active) = group.settle(&["a", "b"], |group, name| {
        cluster.account(&namespace, name, &lease, &VERBS)?;
        let token = token_file(group, name);
        fs::write(&token, bound_token(&cluster, &namespace, name, "first")?)?;
        group.spawn_as(&cluster, name, &json!({"tokenFile": token}), &[], &[])
    })?;
    Ok(Scene { cluster, group, members, active })
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

fn kill_token(scene: &Scene, account: &str, which: &str) -> Result<()> {
    let secret = format!("{account}-{which}");
    scene.cluster.kubectl(&["delete", "secret", &secret, "-n", &scene.group.namespace]).map(drop)
}

/// The API server remembers for some seconds whom it has let in.
fn wait_dead(scene: &Scene, relay: &str, asked: u64) -> Result<()> {
    let relay = scene.group.relay(relay)?;
    wait_until("the API server to refuse the token", LIMIT, || relay.answered(401) > asked)
}

#[test]
fn a_revoked_role_ends_the_holder_in_time_and_is_named() -> Result<()> {
    in_time(
        with_accounts,
        |scene| &scene.group,
        |scene| {
            scene.cluster.kubectl(&["delete", "rolebinding", "a", "-n", &scene.group.namespace])?;
            let handover = follow(&scene.group.group, &scene.active, stamp::now())?;
            scene.group.came_after_a_lease(&handover, LEASE)?;
            let log = scene.members[0].log();
            ensure!(log.contains("missing: verb update on leases"), "the missing rule is not named:\n{log}");
            scene.cluster.account(&scene.group.namespace, "a", &scene.group.lease, &VERBS)?;
            scene.members[0].wait_standby(LIMIT)?;
            check(&scene.group.group, 2, &scene.active)
        },
    )
}

#[test]
fn a_rotated_token_stops_nobody() -> Result<()> {
    in_time(
        with_accounts,
        |scene| &scene.group,
        |scene| {
            let fresh = bound_token(&scene.cluster, &scene.group.namespace, "a", "second")?;
            // As kubelet does it: the new file takes the place of the old one.
            let (token, new) = (token_file(&scene.group, "a"), scene.group.group.folder().join("new"));
            fs::write(&new, fresh)?;
            fs::rename(new, token)?;
            let before = scene.group.relay("a")?.answered(401);
            kill_token(scene, "a", "first")?;
            wait_dead(scene, "a", before)?;
            holds_for("a stays active", LEASE * 2, || scene.group.group.history().spans.len() == 1)?;
            wait_until("a stamp", LIMIT, || scene.group.group.active().is_some())?;
            scene.group.group.history().check(1, 2)
        },
    )
}

#[test]
fn a_dead_token_ends_the_holder_in_time_and_a_new_one_brings_it_back() -> Result<()> {
    in_time(
        with_accounts,
        |scene| &scene.group,
        |scene| {
            let before = scene.group.relay("a")?.answered(401);
            kill_token(scene, "a", "first")?;
            wait_dead(scene, "a", before)?;
            let handover = follow(&scene.group.group, &scene.active, stamp::now())?;
            scene.group.came_after_a_lease(&handover, LEASE)?;
            fs::write(
                token_file(&scene.group, "a"),
                bound_token(&scene.cluster, &scene.group.namespace, "a", "second")?,
            )?;
            scene.members[0].wait_standby(LIMIT)?;
            let next = scene.group.group.wait_active_after(scene.active.token, LIMIT)?;
            process::signal(scene.members[1].elector_pid()?, rustix::process::Signal::TERM)?;
            ensure!(scene.group.group.wait_active_after(next.token, LIMIT)?.member == "a", "a did not come back");
            check(&scene.group.group, 3, &scene.active)
        },
    )
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
