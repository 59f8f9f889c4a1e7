//! Members of soloist as leader-elector that elect by a Lease, while others still elect by the Endpoints of the same name:
//! these see nothing of the Lease, so the former wait for both.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use testkit::client_go::{self, ClientGo, LEASE, POLL_MAX};
use testkit::leader_elector::{Election, Elector, NAME};
use testkit::wait::{holds_for, wait_until, within};

const LIMIT: Duration = Duration::from_secs(40);
/// Silence of the old object before a member leads by the new one.
const SILENCE: Duration = Duration::from_secs(12);
/// What a loaded machine adds to a wait.
const LATE: Duration = Duration::from_secs(2);
/// How a member says that it waits for the old object as well.
const WAITS: &str = "waiting for it as well";

/// An election whose members elect by a Lease that is free, and what else uses Endpoints.
fn moved() -> Result<Election> {
    Election::free_lease()
}

fn old_member(election: &Election, name: &str) -> Result<ClientGo> {
    let mut command = client_go::command(&election.namespace, NAME, name)?;
    command.arg("-endpoints").args(["sleep", "1000"]);
    ClientGo::start(name, election.dropin.folder(), command)
}

fn leads(member: &Elector) -> bool {
    member.leads().unwrap_or(false)
}

fn wait_leads(member: &Elector) -> Result<()> {
    let what = format!("{} to lead", member.name());
    wait_until(&what, LIMIT, || leads(member)).with_context(|| member.log())
}

#[test]
fn who_elects_by_a_lease_waits_for_a_holder_of_the_old_object_and_says_so_once() -> Result<()> {
    let election = moved()?;
    let old = old_member(&election, "old")?;
    ensure!(old.has_led(), "{}", old.log());
    let new = [election.start("a")?, election.start("b")?];
    new.iter().try_for_each(|one| one.wait_named("old"))?;
    holds_for("old leads on", LEASE * 4, || new.iter().all(|one| one.names("old") && !leads(one)))
        .with_context(|| format!("{}{}{:?}{:?}", new[0].log(), new[1].log(), new[0].ask("/"), new[1].ask("/")))?;
    ensure!(election.object()?["spec"]["holderIdentity"].is_null(), "nobody took the Lease");

    old.signal_all(Signal::KILL)?;
    let began = Instant::now();
    wait_until("one of them to lead", LIMIT, || new.iter().any(leads)).with_context(|| new[0].log())?;
    let took = began.elapsed();
    println!("from the old leader's end to the new one: {took:?}");
    ensure!(took + LEASE / 2 > SILENCE, "{took:?}");
    within("one of them to lead", took, SILENCE + LATE)?;
    for one in &new {
        let over = "waiting for it no more";
        wait_until(over, LIMIT, || one.log().contains(over)).with_context(|| one.log())?;
        let log = one.log();
        ensure!(log.matches(WAITS).count() == 1 && log.contains("names old: "), "{log}");
        ensure!(log.matches(over).count() == 1, "{log}");
    }
    Ok(())
}

#[test]
fn both_are_waited_for_where_two_hold_them() -> Result<()> {
    let election = moved()?;
    let old = old_member(&election, "old")?;
    let mut by_lease = client_go::command(&election.namespace, NAME, "other")?;
    by_lease.args(["sleep", "1000"]);
    let other = ClientGo::start("other", election.dropin.folder(), by_lease)?;
    ensure!(old.has_led() && other.has_led(), "{}{}", old.log(), other.log());
    let new = election.start("a")?;
    new.wait_named("other")?;
    wait_until("it to say so", LIMIT, || new.log().contains(WAITS)).with_context(|| new.log())?;
    other.signal_all(Signal::KILL)?;
    // The Lease alone would be silent for long enough then.
    holds_for("old leads on", SILENCE + LEASE, || !leads(&new))?;
    old.signal_all(Signal::KILL)?;
    let began = Instant::now();
    wait_leads(&new)?;
    ensure!(began.elapsed() + LEASE / 2 > SILENCE, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn who_leads_by_a_lease_stops_when_a_member_of_old_appears() -> Result<()> {
    let election = moved()?;
    let new = election.start("a")?;
    new.wait_named("a")?;
    let old = old_member(&election, "old")?;
    let began = Instant::now();
    ensure!(old.has_led(), "it sees nothing of the Lease: {}", old.log());
    new.wait_named("old")?;
    println!("from the old one's word to the end of the new one: {:?} at most", began.elapsed());
    ensure!(began.elapsed() < LEASE / 2 && !leads(&new), "{:?}", began.elapsed());
    old.signal_all(Signal::KILL)?;
    wait_leads(&new)?;
    ensure!(new.log().matches(WAITS).count() == 1, "{}", new.log());
    Ok(())
}

#[test]
fn members_move_to_a_lease_in_a_rolling_update() -> Result<()> {
    let mut election = Election::free()?;
    let [a, b] = election.pair()?;
    election.cluster.initial_lease(&election.namespace, NAME)?;
    election.kind = "lease";
    let [c, d] = [election.start("c")?, election.start("d")?];
    [&c, &d].iter().try_for_each(|one| one.wait_named("a"))?;
    a.terminate()?;
    // Who stands by for the old object is first.
    b.wait_named("b")?;
    [&c, &d].iter().try_for_each(|one| one.wait_named("b"))?;
    holds_for("b leads alone", LEASE * 2, || leads(&b) && !leads(&c) && !leads(&d))?;
    b.terminate()?;
    let began = Instant::now();
    wait_until("one of them to lead", LIMIT, || leads(&c) || leads(&d)).with_context(|| c.log())?;
    let took = began.elapsed();
    ensure!(took + POLL_MAX > LEASE, "what was let go of costs a lease: {took:?}");
    within("one of them to lead", took, LEASE + LATE)?;
    Ok(())
}

#[test]
fn old_objects_that_are_not_there_or_must_not_be_looked_at_cost_nothing() -> Result<()> {
    let mut election = moved()?;
    let began = Instant::now();
    let a = election.start("a")?;
    a.wait_named("a")?;
    within("a to lead", began.elapsed(), LEASE)?;
    ensure!(!a.log().contains("the lock of old"), "{}", a.log());
    a.terminate()?;

    let old = old_member(&election, "old")?;
    let rules = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "watch", "create", "update"]}]);
    election.allow(&rules)?;
    let began = Instant::now();
    let b = election.start("b")?;
    b.wait_named("b")?;
    within("b to lead", began.elapsed(), LEASE)?;
    ensure!(old.has_led(), "{}", old.log());
    let unnoticed = "will not be noticed";
    wait_until(unnoticed, LIMIT, || b.log().contains(unnoticed)).with_context(|| b.log())?;
    let log = b.log();
    ensure!(log.matches(unnoticed).count() == 1, "{log}");
    ensure!(log.contains("resources: [endpoints], resourceNames: [example], verbs: [get, watch]"), "{log}");
    Ok(())
}
