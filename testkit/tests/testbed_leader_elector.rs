//! Called as leader-elector on a real API server: who is said to lead, by whom, and from when on.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use testkit::group::binary;
use testkit::leader_elector::{Election, Elector, LEASE, NAME, taken_over};
use testkit::wait::{holds_for, wait_for, wait_until, within};

const LIMIT: Duration = Duration::from_secs(40);
/// Beyond a few writes to the API server, on busy processors.
const HANDOVER_MAX: Duration = Duration::from_millis(1500);
/// What a loaded machine adds to a wait.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn both_name_the_same_one_to_the_letter_and_the_object_does_too() -> Result<()> {
    let election = Election::free()?;
    let [a, b] = election.pair()?;
    for path in ["/", "/healthz", "/x/y?z"] {
        ensure!(a.ask(path)? == r#"{"name":"a"}"# && b.ask(path)? == r#"{"name":"a"}"#, "{path}");
    }
    ensure!(a.ask("/isLeader")? == r#"{"isLeader": true}"# && b.ask("/isLeader")? == r#"{"isLeader": false}"#);
    let record = election.record()?;
    ensure!(record["holderIdentity"] == "a" && record["leaseDurationSeconds"] == 4, "{record}");
    ensure!(b.out().lines().last() == Some("a is the leader"), "{}", b.out());
    ensure!(b.log().contains("] lock is held by a and has not yet expired"), "{}", b.log());
    let acquired = format!("] sucessfully acquired lease {}/{NAME}", election.namespace);
    wait_until("its line", LIMIT, || a.log().contains(&acquired) && a.out().ends_with("\na is the leader\n"))
        .with_context(|| a.log())?;
    ensure!(a.log().starts_with(['I', 'W']), "{}", a.log());
    Ok(())
}

#[test]
fn sigterm_hands_over_in_moments_and_followers_follow() -> Result<()> {
    const ROUNDS: usize = 10;
    let election = Election::free()?;
    let [mut leader, mut next] = election.pair()?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let watcher = election.start(&format!("m{round}"))?;
        watcher.wait_named(leader.name())?;
        leader.signal(Signal::TERM)?;
        let began = Instant::now();
        let follower = [&next, &watcher];
        let new =
            wait_for("somebody to lead", LIMIT, || follower.into_iter().find(|one| one.leads().unwrap_or(false)))?;
        times.push(began.elapsed());
        follower.into_iter().try_for_each(|one| one.wait_named(new.name()))?;
        ensure!(leader.wait()? == Some(0), "{}", leader.log());
        (leader, next) = if new.name() == next.name() { (next, watcher) } else { (watcher, next) };
    }
    times.sort();
    println!(
        "SIGTERM to the next one's word: median {:?}, longest {:?}, n={ROUNDS}",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    within("the next one's word", times[ROUNDS - 1], HANDOVER_MAX)
}

#[test]
fn a_killed_leader_is_followed_after_its_lease() -> Result<()> {
    let election = Election::free()?;
    let [mut a, b] = election.pair()?;
    a.signal(Signal::KILL)?;
    a.wait()?;
    let took = taken_over(&[&b], &b, Elector::leads)?;
    ensure!(took > LEASE / 2, "{took:?}");
    within("b to lead", took, LEASE + LATE)?;
    ensure!(b.ask("/")? == r#"{"name":"b"}"#);
    ensure!(election.record()?["holderIdentity"] == "b");
    Ok(())
}

#[test]
fn a_leader_that_is_cut_off_or_stopped_says_so_no_more_before_the_next_one_does() -> Result<()> {
    let mut election = Election::free()?;
    let direct = election.kubeconfig.clone();
    let relay = election.relayed()?;
    let a = election.start("a")?;
    a.wait_named("a")?;
    election.kubeconfig = direct;
    let b = election.start("b")?;
    b.wait_named("a")?;
    relay.black_hole();
    taken_over(&[&a, &b], &b, Elector::leads)?;
    ensure!(a.ask("/")? == r#"{"name":""}"#, "it does not know");
    relay.reconnect();
    a.wait_named("b")?;

    // What is stopped answers nothing; what wakes up must not say what was true before.
    b.signal(Signal::STOP)?;
    a.wait_named("a")?;
    b.signal(Signal::CONT)?;
    ensure!(!b.leads()?, "its time was up");
    b.wait_named("a")
}

#[test]
fn an_api_server_that_is_away_for_a_moment_changes_nothing() -> Result<()> {
    let mut election = Election::free()?;
    let relay = election.relayed()?;
    let [a, b] = election.pair()?;
    relay.black_hole();
    let leads = || a.leads().unwrap_or(false) && b.names("a");
    holds_for("a leads", LEASE / 4, leads)?;
    relay.reconnect();
    holds_for("a leads on", LEASE * 2, leads)
}

#[test]
fn the_rbac_of_the_example_is_enough() -> Result<()> {
    let mut election = Election::new()?;
    election.restrict_as_the_example()?;
    // Absent, so created and waited for.
    let began = Instant::now();
    let [a, b] = election.pair()?;
    ensure!(began.elapsed() >= LEASE, "absence costs a lease: {:?}", began.elapsed());
    let out = a.out();
    ensure!(out == " is the leader\na is the leader\n", "as of old: {out:?}");
    a.signal(Signal::TERM)?;
    let took = taken_over(&[&a, &b], &b, Elector::leads)?;
    println!("by watch: {took:?}");
    within("b to lead", took, HANDOVER_MAX)?;
    for member in [&a, &b] {
        let log = member.log();
        ensure!(log.matches("missing: ").count() == log.matches("missing: verb create on events").count(), "{log}");
    }
    Ok(())
}

#[test]
fn without_watch_it_looks_each_period_and_says_so_once() -> Result<()> {
    let mut election = Election::free()?;
    election.restrict(&["get", "create", "update"])?;
    let [a, b] = election.pair()?;
    a.signal(Signal::TERM)?;
    let took = taken_over(&[&a, &b], &b, Elector::leads)?;
    println!("by looking: {took:?}");
    within("b to lead", took, LEASE)?;
    ensure!(b.log().matches("must not be watched").count() == 1, "{}", b.log());
    Ok(())
}

#[test]
fn what_will_never_work_is_fatal() -> Result<()> {
    let mut election = Election::new()?;
    let metadata = json!({"name": NAME, "namespace": election.namespace,
        "labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}});
    election.cluster.apply(&json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}))?;
    let flags = [format!("--election={NAME}"), format!("--election-namespace={}", election.namespace)];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let refused = |election: &Election, part: &str| -> Result<()> {
        let output = election.dropin.command("server", &flags, Some(&election.kubeconfig)).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(255) && text.contains(part), "{text}");
        Ok(())
    };
    refused(&election, "belong to a Service with a selector")?;
    election.restrict(&["list"])?;
    refused(&election, "missing: verb get on endpoints")
}

#[test]
fn a_lease_will_do_and_every_verb_works_on_both() -> Result<()> {
    for kind in ["endpoints", "lease"] {
        let mut election = Election::new()?;
        election.kind = kind;
        let [a, b] = election.pair()?;
        let soloist = |verb: &str| -> Result<String> {
            let output = Command::new(binary("soloist")?).args([verb, "--lock", &election.lock_url()]).output()?;
            ensure!(output.status.success(), "{verb}: {output:?}");
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let status = soloist("status")?;
        ensure!(status.contains('a'), "{status}");
        let board =
            || Some(election.object().ok()?["metadata"]["annotations"]["soloist.dev/members"].as_str()?.to_owned());
        let is_announced = || board().is_some_and(|members| members.contains(r#""name":"b""#));
        wait_until("b's announcement", LIMIT, is_announced)?;
        soloist("switchover")?;
        b.wait_named("b")?;
        a.wait_named("b")?;
        let stopped = "] stopped leading";
        wait_until(stopped, LIMIT, || a.log().contains(stopped)).with_context(|| a.log())?;
        ensure!(soloist("history")?.contains('a'));
    }
    Ok(())
}

#[test]
fn members_move_to_a_lease_when_all_have_left() -> Result<()> {
    let mut election = Election::free()?;
    let [a, b] = election.pair()?;
    b.terminate()?;
    a.terminate()?;
    ensure!(election.record()?["holderIdentity"] == "", "let go of: {}", election.record()?);
    election.kind = "lease";
    let began = Instant::now();
    let [c, _d] = election.pair()?;
    ensure!(began.elapsed() >= LEASE, "a Lease that is not there costs one: {:?}", began.elapsed());
    ensure!(c.leads()? && election.object()?["spec"]["holderIdentity"] == "a");
    Ok(())
}
