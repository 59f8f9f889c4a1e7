//! Members of soloist as leader-elector and members of client-go's election by the annotation of Endpoints, in one election:
//! old and new, while one replaces the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::client_go::{self, ClientGo, LEASE, POLL_MAX};
use testkit::leader_elector::{Election, Elector, NAME};
use testkit::wait::{holds_for, wait_until, within};

const LIMIT: Duration = Duration::from_secs(40);
/// What a soloist member waits for whoever is not.
const FOREIGN_WAIT: Duration = Duration::from_secs(12);
/// What a loaded machine adds to a wait.
const LATE: Duration = Duration::from_secs(2);

fn client_go(election: &Election, name: &str, options: &[&str]) -> Result<ClientGo> {
    let mut command = client_go::command(&election.namespace, NAME, name)?;
    command.arg("-endpoints").args(options).args(["sleep", "1000"]);
    ClientGo::start(name, election.dropin.folder(), command)
}

fn wait_leads(member: &Elector) -> Result<Duration> {
    let began = Instant::now();
    wait_until(&format!("{} to lead", member.name()), LIMIT, || member.leads().unwrap_or(false))
        .with_context(|| member.log())?;
    Ok(began.elapsed())
}

#[test]
fn old_members_are_replaced_one_by_one_and_back() -> Result<()> {
    let election = Election::new()?;
    let c1 = client_go(&election, "c1", &[])?;
    let c2 = client_go(&election, "c2", &[])?;
    ensure!(c1.has_led() && c2.has_seen("c1"), "{}{}", c1.log(), c2.log());
    // Each follower names who leads, whichever program that is.
    let s1 = election.start("s1")?;
    s1.wait_named("c1")?;
    c2.terminate()?;
    let s2 = election.start("s2")?;
    s2.wait_named("c1")?;
    ensure!(s1.log().contains("lock is held by c1 and has not yet expired"), "{}", s1.log());
    holds_for("c1 leads on", LEASE * 2, || {
        [&s1, &s2].iter().all(|one| one.names("c1") && !one.leads().unwrap_or(true))
    })?;

    // It has never let go of anything: the same end as that of a pod.
    c1.signal_all(Signal::KILL)?;
    let began = Instant::now();
    wait_until("soloist to lead", LIMIT, || [&s1, &s2].iter().any(|one| one.leads().unwrap_or(false)))?;
    let took = began.elapsed();
    println!("from the old leader's end to the new one: {took:?}");
    ensure!(took + LEASE / 2 > FOREIGN_WAIT, "three leases of silence: {took:?}");
    within("soloist to lead", took, FOREIGN_WAIT + LATE)?;
    let (leader, follower) = if s1.leads()? { (s1, s2) } else { (s2, s1) };
    follower.wait_named(leader.name())?;

    // And back: what soloist lets go of is free to the other one at its next look.
    let c3 = client_go(&election, "c3", &[])?;
    ensure!(c3.has_seen(leader.name()) && !c3.has_led(), "{}", c3.log());
    follower.terminate()?;
    leader.terminate()?;
    let began = Instant::now();
    wait_until("c3 to lead", LIMIT, || c3.has_led()).with_context(|| c3.log())?;
    within("c3 to lead", began.elapsed(), POLL_MAX + LATE)?;
    ensure!(election.record()?["holderIdentity"] == "c3", "{}", election.record()?);
    Ok(())
}

#[test]
fn client_go_waits_a_lease_for_a_soloist_that_was_killed() -> Result<()> {
    let election = Election::free()?;
    let s1 = election.start("s1")?;
    s1.wait_named("s1")?;
    let c1 = client_go(&election, "c1", &[])?;
    holds_for("s1 leads on", LEASE * 2, || s1.leads().unwrap_or(false) && !c1.has_led())?;
    s1.signal(Signal::KILL)?;
    let began = Instant::now();
    wait_until("c1 to lead", LIMIT, || c1.has_led()).with_context(|| c1.log())?;
    let took = began.elapsed();
    ensure!(took > LEASE / 2, "{took:?}");
    within("c1 to lead", took, LEASE + POLL_MAX + LATE)?;
    let s2 = election.start("s2")?;
    s2.wait_named("c1")
}

#[test]
fn a_soloist_that_finds_its_annotation_taken_leads_no_more_at_once() -> Result<()> {
    let election = Election::free()?;
    let s1 = election.start("s1")?;
    s1.wait_named("s1")?;
    let mut record = election.record()?;
    record["holderIdentity"] = "mallory".into();
    record["leaderTransitions"] = 7.into();
    let text = format!("control-plane.alpha.kubernetes.io/leader={record}");
    let namespace = &election.namespace;
    election.cluster.kubectl(&["annotate", "endpoints", NAME, "-n", namespace, "--overwrite", &text])?;
    let began = Instant::now();
    wait_until("it to lead no more", LIMIT, || !s1.leads().unwrap_or(true))?;
    ensure!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
    s1.wait_named("mallory")?;
    ensure!(election.record()?["holderIdentity"] == "mallory", "it does not write over it");
    ensure!(wait_leads(&s1)? + LEASE > FOREIGN_WAIT, "three leases of silence");
    Ok(())
}
