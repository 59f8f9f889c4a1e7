//! Controllers that end or are stopped, and what networks and busy servers do between the one that leads and the API
//! server: never are two pods labelled as active, and none for longer than it must be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use rustix::process::Signal;
use serde_json::json;
use testkit::controlled::{APP, PROMPT, Site};
use testkit::lease_group::{BEYOND, LEASE};
use testkit::member::Member;
use testkit::relay::{Answer, Fault, Scope};
use testkit::scenario::LIMIT;
use testkit::stamp;
use testkit::wait::{holds_for, wait_until, within};

/// For what must not happen: many times longer than what must.
const QUIET: Duration = Duration::from_millis(1500);

/// `c1`, which leads, and `c2`, each behind a relay; `a` is active of these pods. Nobody waits for a lease.
fn pair(names: &[&str]) -> Result<(Site, Member, Member)> {
    on(Site::new()?, names)
}

/// The same, where `c2` is to follow after a lease.
fn hurried(names: &[&str]) -> Result<(Site, Member, Member)> {
    on(Site::with_lease(LEASE)?, names)
}

fn on(mut site: Site, names: &[&str]) -> Result<(Site, Member, Member)> {
    let first = site.relayed("c1", &[])?;
    site.leads(&first)?;
    let second = site.relayed("c2", &[])?;
    second.wait_standby(LIMIT)?;
    for name in names {
        site.pods.up(name)?;
    }
    site.pods.wait_active(&names[..1])?;
    Ok((site, first, second))
}

fn holder(site: &Site) -> Result<String> {
    let lease = site.controllers.read(&site.cluster)?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_controller_that_is_sent_away_hands_over_at_once() -> Result<()> {
    let (site, mut first, second) = pair(&["a", "b"])?;
    let third = site.controller("c3", &[])?;
    third.wait_standby(LIMIT)?;
    let sent = Instant::now();
    first.signal(Signal::TERM)?;
    let leads = |one: &Member| one.own_log().contains("leading with the term");
    wait_until("the next one to lead", PROMPT, || leads(&second) || leads(&third))?;
    println!("SIGTERM to the next controller's term: {:?}", sent.elapsed());
    ensure!(first.wait_exit_code(LIMIT)? == 0, "{}", first.log());
    ensure!(holder(&site)? == if leads(&second) { "c2" } else { "c3" }, "the lock names {}", holder(&site)?);
    let since = site.pods.delete("a")?;
    let took = site.pods.follows(since, &["b"])?;
    println!("the first failover of a new leader took {took:?}");
    site.check()
}

#[test]
fn a_controller_that_is_killed_costs_a_lease_and_touches_no_pod() -> Result<()> {
    let (site, first, second) = hurried(&["a", "b", "c"])?;
    first.signal(Signal::KILL)?;
    let killed = Instant::now();
    let since = site.pods.delete("a")?;
    wait_until("the other one to lead", LEASE + PROMPT, || second.own_log().contains("leading with the term"))?;
    println!("SIGKILL to the next controller's term: {:?}", killed.elapsed());
    site.pods.wait_active(&["b"])?;
    let took = site.pods.sight.wait_since(since, "b", PROMPT, |moment| moment.shows(&["b"]))? - since;
    println!("a failover without a controller took {:?}", Duration::from_nanos(took));
    site.check()
}

#[test]
fn a_controller_that_was_stopped_for_longer_than_its_lease_writes_nothing_more() -> Result<()> {
    let (site, first, second) = hurried(&["a", "b", "c"])?;
    first.signal(Signal::STOP)?;
    site.pods.delete("a")?;
    site.leads(&second)?;
    site.pods.wait_active(&["b"])?;
    let before = site.writes("c1")?;
    // What the stopped one will see first is old.
    let since = site.pods.force_delete("b")?;
    first.signal(Signal::CONT)?;
    site.pods.follows(since, &["c"])?;
    wait_until("the resumed one to stand by", LIMIT, || first.is_standby())?;
    holds_for("the resumed one writes nothing", QUIET, || site.writes("c1").is_ok_and(|now| now == before))?;
    ensure!(holder(&site)? == "c2", "the lock names {}", holder(&site)?);
    site.check()
}

#[test]
fn a_label_that_was_held_up_meets_a_conflict() -> Result<()> {
    let (site, first, second) = hurried(&["a", "b", "c"])?;
    let relay = site.relay("c1")?;
    // That of a, which is given up, and then that of b.
    relay.inject_times(Scope::Routes, Fault::Hold, 2);
    site.pods.force_delete("a")?;
    wait_until("both labels to be held", LIMIT, || relay.held() == 2)?;
    first.signal(Signal::STOP)?;
    site.leads(&second)?;
    site.pods.wait_active(&["b"])?;
    let since = site.pods.delete("b")?;
    site.pods.follows(since, &["c"])?;
    let answers = relay.deliver_held()?;
    // Whether a's label was among them depends on what was told of its end first.
    let are_refused = answers.len() == 2 && answers.iter().all(|status| matches!(status, 404 | 409));
    ensure!(are_refused, "the held labels were answered with {answers:?}");
    holds_for("c stays active", QUIET, || site.pods.sight.now().active() == ["c"])?;
    site.check()
}

#[test]
fn a_record_that_was_held_up_meets_a_conflict() -> Result<()> {
    let (site, first, second) = hurried(&["a", "b", "c"])?;
    let relay = site.relay("c1")?;
    // Renewals are held as well.
    relay.inject(Scope::Writes, Fault::Hold);
    site.pods.delete("a")?;
    let asked = || relay.requests().keys().any(|name| name.starts_with("PUT") && name.ends_with(APP));
    wait_until("a record to be held", LIMIT, asked)?;
    first.signal(Signal::STOP)?;
    site.leads(&second)?;
    site.pods.wait_active(&["b"])?;
    let answers = relay.deliver_held()?;
    ensure!(!answers.is_empty() && answers.iter().all(|status| *status == 409), "the held writes: {answers:?}");
    holds_for("b stays active", QUIET, || site.pods.sight.now().active() == ["b"])?;
    site.check()
}

#[test]
fn lost_answers_errors_and_a_busy_server_delay_a_failover_and_break_nothing() -> Result<()> {
    let (site, _first, _second) = pair(&["p0", "p1"])?;
    let relay = site.relay("c1")?;
    // A failover takes three requests: of both seeds one of them fails.
    let faults = [
        (Scope::Routes, Fault::LoseAnswer, 2),
        (Scope::Writes, Fault::LoseAnswer, 2),
        (Scope::All, Fault::Fail { percent: 30, seed: 13 }, u64::MAX),
        (Scope::All, Fault::Fail { percent: 30, seed: 16 }, u64::MAX),
        (Scope::Routes, Fault::throttle(1), 2),
        (Scope::Routes, Fault::Delay(Duration::from_millis(300)), 4),
    ];
    for (round, (scope, fault, times)) in faults.into_iter().enumerate() {
        let [old, new, third] = [round, round + 1, round + 2].map(|number| format!("p{number}"));
        site.pods.up(&third)?;
        site.pods.wait_active(&[&old])?;
        let fired = relay.fired();
        relay.inject_times(scope, fault, times);
        let since = site.pods.delete(&old)?;
        let at = site.pods.sight.wait_since(since, "the next one", LIMIT, |moment| moment.shows(&[&new]))?;
        println!("{fault:?} on {scope:?}: a failover took {:?}", Duration::from_nanos(at - since));
        ensure!(relay.fired() > fired, "{fault:?} never happened");
        relay.heal();
        site.pods.force_delete(&old)?;
    }
    site.check()
}

#[test]
fn a_leader_in_a_black_hole_is_followed_after_its_lease() -> Result<()> {
    let (site, first, second) = hurried(&["a", "b", "c"])?;
    site.relay("c1")?.black_hole();
    let cut = Instant::now();
    site.pods.delete("a")?;
    site.leads(&second)?;
    let waited = cut.elapsed();
    println!("a black hole to the next controller's term: {waited:?}");
    within("the second one to lead", waited, LEASE + BEYOND + PROMPT)?;
    site.pods.wait_active(&["b"])?;
    site.relay("c1")?.heal();
    wait_until("the first one to stand by", LIMIT, || first.is_standby())?;
    let since = site.pods.delete("b")?;
    site.pods.follows(since, &["c"])?;
    site.check()
}

#[test]
fn a_watch_that_falls_silent_is_found_out() -> Result<()> {
    let (site, _first, _second) = pair(&["a", "b"])?;
    let relay = site.relay("c1")?;
    let path = format!("WATCH /api/v1/namespaces/{}/pods", site.pods.namespace);
    let watches = || relay.requests().get(&path).copied().unwrap_or(0);
    let before = watches();
    relay.inject(Scope::Watches, Fault::Stall);
    relay.end_connections();
    wait_until("a watch that is silent", LIMIT, || watches() > before)?;
    relay.heal();
    let since = site.pods.delete("a")?;
    let at = site.pods.sight.wait_since(since, "b", Duration::from_secs(45), |moment| moment.shows(&["b"]))?;
    println!("a failover beside a silent watch took {:?}", Duration::from_nanos(at - since));
    site.check()
}

#[test]
fn where_a_watch_is_refused_again_and_again_lists_tell_what_happened() -> Result<()> {
    let (site, _first, _second) = pair(&["a", "b", "c"])?;
    let relay = site.relay("c1")?;
    let gone = Answer { status: StatusCode::GONE, retry_after: None, is_delivered: false };
    relay.inject(Scope::Watches, Fault::Answer(gone));
    relay.end_connections();
    wait_until("a watch to be refused", LIMIT, || relay.fired() > 1)?;
    for (old, new) in [("a", "b"), ("b", "c")] {
        let since = site.pods.force_delete(old)?;
        let at = site.pods.sight.wait_since(since, new, LIMIT, |moment| moment.shows(&[new]))?;
        println!("a failover told by lists took {:?}", Duration::from_nanos(at - since));
    }
    site.check()
}

#[test]
fn a_record_that_somebody_edits_or_deletes_lets_nobody_in_beside_the_active_one() -> Result<()> {
    let (site, first, _second) = pair(&["a", "b", "c", "d"])?;
    let Site { pods, .. } = &site;
    pods.delete_record()?;
    let since = pods.delete("a")?;
    pods.follows(since, &["b"])?;
    pods.edit_record(&json!({"metadata": {"labels": {"by": "hand"}}, "spec": {"holderIdentity": "x"}}))?;
    let since = pods.delete("b")?;
    pods.follows(since, &["c"])?;
    pods.edit_record(&json!({"metadata": {"annotations": {"soloist.dev/active-pods": "garbage"}}}))?;
    pods.delete("c")?;
    let unread = "its record cannot be read";
    wait_until(unread, LIMIT, || first.log().contains(unread)).with_context(|| first.log())?;
    holds_for("nobody follows", QUIET, || pods.sight.now().active() != ["d"])?;
    pods.delete_record()?;
    pods.wait_active(&["d"])?;
    site.check()
}

#[test]
fn another_pod_of_the_same_name_is_another_pod() -> Result<()> {
    let (site, _first, _second) = pair(&["a", "b"])?;
    let Site { pods, .. } = &site;
    let since = pods.force_delete("a")?;
    pods.up("a")?;
    pods.follows(since, &["b"])?;
    pods.wait_active(&["b"])?;
    pods.force_delete("a")?;
    let since = pods.force_delete("b")?;
    pods.up("b")?;
    pods.follows(since + 1, &["b"])?;
    site.check()
}

#[test]
fn an_answer_that_comes_after_its_pod_is_gone_does_not_bring_it_back() -> Result<()> {
    let (site, _first, _second) = pair(&["a", "b"])?;
    let Site { pods, .. } = &site;
    // The only write is the label of b.
    let fired = site.relay("c1")?.fired();
    site.relay("c1")?.inject_times(Scope::Routes, Fault::Delay(Duration::from_millis(800)), 1);
    pods.force_delete("a")?;
    wait_until("an answer to be late", LIMIT, || site.relay("c1").is_ok_and(|relay| relay.fired() > fired))?;
    pods.sight.wait("b to be labelled", LIMIT, |moment| moment.active() == ["b"])?;
    pods.force_delete("b")?;
    pods.up("c")?;
    pods.wait_active(&["c"])?;
    site.check()
}

#[test]
fn a_new_leader_remembers_whose_end_was_seen() -> Result<()> {
    let mut site = Site::new()?;
    let options = ["--promote-after", "stopped"];
    site.pods.up("a")?;
    let mut first = site.relayed("c1", &options)?;
    site.leads(&first)?;
    site.pods.wait_active(&["a"])?;
    site.pods.delete("a")?;
    site.pods.say_over("a")?;
    site.pods.force_delete("a")?;
    let names_nobody = || site.pods.record().is_ok_and(|lease| lease["spec"]["holderIdentity"] == "");
    wait_until("the place to be given back", LIMIT, names_nobody).context("whoever leads next cannot know")?;
    first.signal(Signal::TERM)?;
    first.wait_exit(LIMIT)?;
    let since = stamp::now();
    let second = site.controller("c2", &options)?;
    site.leads(&second)?;
    site.pods.up("b")?;
    site.pods.sight.wait_since(since, "b", LIMIT, |moment| moment.active() == ["b"])?;
    site.check()
}

#[test]
fn a_record_that_is_deleted_while_a_pod_may_run_frees_no_place() -> Result<()> {
    let site = Site::new()?;
    let Site { pods, .. } = &site;
    let controller = site.lead("c1", &["--promote-after", "stopped", "--active", "2"])?;
    for name in ["a", "b", "c", "d"] {
        pods.up(name)?;
    }
    pods.wait_active(&["a", "b"])?;
    let since = pods.delete("a")?;
    pods.follows(since, &["b"])?;
    pods.delete_record()?;
    // One place is free, and the other one is not: a still runs.
    pods.say_over("b")?;
    pods.wait_active(&["c"])?;
    holds_for("only c is active", QUIET, || pods.sight.now().active() == ["c"])?;
    ensure!(controller.log().contains("a is being deleted"), "{}", controller.log());
    let since = stamp::now();
    pods.say_over("a")?;
    pods.follows(since, &["c", "d"])?;
    pods.sight.check(2)
}
