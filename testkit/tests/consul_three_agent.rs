//! An agent between members and the servers hangs, dies, is started again or leaves the cluster: never two are active, who
//! cannot reach the servers stops in time, who has another agent takes over, and nobody is lost when it comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::consul::Consul;
use testkit::consul_group::{Choice, Pair};
use testkit::outage::Outage;
use testkit::relayed::{BEYOND, LEASE, settle};
use testkit::scenario::{Handover, LIMIT, check, follow};
use testkit::stamp;
use testkit::statements::outage::{SHORT, STOPPED, Scene};
use testkit::wait::within;

const AGENTS: [&str; 2] = ["consul-agent-1", "consul-agent-2"];

/// The lease of a group that outlasts the start of an agent: D - G - p is 6 s.
const LONG: Duration = Duration::from_secs(15);

/// What Consul keeps a key from everybody for, once the session that held it has ended.
const LOCK_DELAY: Duration = Duration::from_secs(15);

/// A look, and a second for a busy machine.
const NOTICED: Duration = Duration::from_secs(2);

fn agents() -> Result<[Consul; 2]> {
    Ok([Consul::at("TESTBED_CONSUL_AGENT_1")?, Consul::at("TESTBED_CONSUL_AGENT_2")?])
}

/// Both members behind the first agent.
fn together(lease: Duration) -> Result<Scene<Pair>> {
    behind("TESTBED_CONSUL_AGENT_1", lease)
}

fn behind(agent: &str, lease: Duration) -> Result<Scene<Pair>> {
    Scene::of(|| Pair::on(Consul::at(agent)?, lease, |group, agent| group.start(agent, &["a", "b"])))
}

/// The active one behind the first agent, the other one behind the second.
fn apart() -> Result<Scene<Pair>> {
    Scene::of(|| {
        let [first, second] = agents()?;
        Pair::on(first, LEASE, |group, first| {
            settle(group, &["a", "b"], |group, name| {
                group.spawn(if name == "a" { first } else { &second }, name, Choice::default())
            })
        })
    })
}

/// The agent of the active one is away, by `verb`, until the other one has taken over, as `judge` likes it; it is given
/// the instants before the agent went and when it was gone.
fn the_other_one_takes_over(verb: &str, judge: impl Fn(&Pair, &Handover, u64, u64) -> Result<()>) -> Result<()> {
    let scene = apart()?;
    let Pair { consul, group, members, active } = &scene.pair;
    let before = stamp::now();
    let outage = Outage::begin(consul, verb, AGENTS[0])?;
    let gone = stamp::now();
    let handover = follow(&group.group, active, gone)?;
    let lived = Duration::from_nanos(handover.old.last.saturating_sub(gone));
    ensure!(lived <= STOPPED, "the holder went on for {lived:?} without its lock\n{}", group.group.logs());
    judge(&scene.pair, &handover, before, gone)?;
    outage.end()?;
    members[0].wait_standby(LIMIT)?;
    group.stays(handover.new.token, LEASE)?;
    check(&group.group, 2, active)
}

/// A lease after the last renewal, which cannot have come later than the agent went.
fn a_lease_later(pair: &Pair, handover: &Handover, _before: u64, _gone: u64) -> Result<()> {
    let group = &pair.group;
    let unseen = group.unseen("a", handover.new.first)?;
    ensure!(unseen >= LEASE, "too early, after {unseen:?}\n{}", group.group.logs());
    handover.came_within(LEASE + BEYOND).with_context(|| group.group.logs())
}

#[test]
fn an_agent_that_hangs_costs_who_is_behind_it_the_role() -> Result<()> {
    the_other_one_takes_over("pause", a_lease_later)
}

#[test]
fn an_agent_that_was_killed_costs_who_is_behind_it_the_role() -> Result<()> {
    the_other_one_takes_over("kill", a_lease_later)
}

#[test]
fn an_agent_that_leaves_ends_the_session_and_the_other_one_waits_for_the_lock_delay() -> Result<()> {
    the_other_one_takes_over("stop", |pair, handover, before, gone| {
        let since = |instant: u64| Duration::from_nanos(handover.new.first.saturating_sub(instant));
        ensure!(since(before) >= LOCK_DELAY, "{:?} is shorter than Consul allows", since(before));
        within("the next one to be active", since(gone), LOCK_DELAY + NOTICED).with_context(|| pair.group.group.logs())
    })
}

/// What the standby's agent does is nothing to the active one, and is over when it is back.
fn the_active_one_does_not_notice(verb: &str) -> Result<()> {
    let scene = apart()?;
    let [_, second] = agents()?;
    let Pair { group, members, active, .. } = &scene.pair;
    let outage = Outage::begin(&second, verb, AGENTS[1])?;
    group.stays(active.token, LEASE * 2)?;
    outage.end()?;
    members[1].wait_standby(LIMIT)?;
    group.stays(active.token, LEASE)?;
    members[0].signal(Signal::TERM)?;
    let handover = follow(&group.group, active, stamp::now())?;
    handover.was_proved().with_context(|| group.group.logs())?;
    handover.came_within(NOTICED).with_context(|| group.group.logs())?;
    check(&group.group, 2, active)
}

#[test]
fn an_agent_of_the_standby_that_hangs_disturbs_nobody() -> Result<()> {
    the_active_one_does_not_notice("pause")
}

#[test]
fn an_agent_of_the_standby_that_was_killed_disturbs_nobody() -> Result<()> {
    the_active_one_does_not_notice("kill")
}

#[test]
fn an_agent_of_the_standby_that_leaves_disturbs_nobody() -> Result<()> {
    the_active_one_does_not_notice("stop")
}

#[test]
fn an_agent_that_hangs_for_a_moment_stops_nobody() -> Result<()> {
    together(LEASE)?.nobody_notices("pause", AGENTS[0], SHORT)
}

#[test]
fn an_agent_that_was_killed_and_started_at_once_stops_nobody_with_a_longer_lease() -> Result<()> {
    together(LONG)?.nobody_notices("kill", AGENTS[0], Duration::ZERO)
}

/// As docs/consul.md advises. The same agent without that setting ends the session, see below.
#[test]
fn an_agent_that_is_told_not_to_leave_may_be_restarted_with_a_longer_lease() -> Result<()> {
    let scene = behind("TESTBED_CONSUL_AGENT_3", LONG)?;
    let session = || -> Result<Option<String>> { Ok(scene.pair.group.entry(&scene.pair.consul)?.session) };
    let before = session()?.context("nobody holds the key")?;
    scene.nobody_notices("stop", "consul-agent-3", Duration::ZERO)?;
    ensure!(session()?.as_ref() == Some(&before), "the session was another one afterwards");
    Ok(())
}

#[test]
fn the_only_agent_hangs_and_somebody_goes_on_when_it_wakes() -> Result<()> {
    together(LEASE)?.it_stops_and_goes_on("pause", AGENTS[0], LEASE * 2)
}

#[test]
fn the_only_agent_was_killed_and_somebody_goes_on_when_it_is_back() -> Result<()> {
    together(LEASE)?.it_stops_and_goes_on("kill", AGENTS[0], LEASE * 2)
}

#[test]
fn the_only_agent_leaves_with_all_sessions_and_somebody_goes_on_when_it_is_back() -> Result<()> {
    let scene = together(LEASE)?;
    let session = scene.pair.group.entry(&scene.pair.consul)?.session.context("nobody holds the key")?;
    // Until Consul gives the key away again, though everybody's session has ended.
    scene.it_stops_and_goes_on("stop", AGENTS[0], LOCK_DELAY)?;
    let found = scene.pair.consul.call("GET", &format!("/v1/session/info/{session}?consistent"), &Value::Null)?;
    ensure!(found.json().as_array().is_some_and(Vec::is_empty), "the session lives: {:?}", found.json());
    Ok(())
}
