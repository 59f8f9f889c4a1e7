//! Three servers behind one address, each connection to another one: their leader dies, hangs and starts again while a
//! group runs, and whoever answers, never two are active.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::consul::Consul;
use testkit::consul_group::{ConsulGroup, Pair};
use testkit::history::Span;
use testkit::member::Member;
use testkit::outage::{BACK, Outage};
use testkit::relayed::{LEASE, Placed};
use testkit::root::service;
use testkit::scenario::{LIMIT, check, follow};
use testkit::stamp;
use testkit::statements::outage::SHORT;
use testkit::wait::{holds_for, wait_for, wait_until};

const SERVERS: [&str; 3] = ["consul-1", "consul-2", "consul-3"];

/// The lease of a group that outlasts an election of a new leader: D is 10.5 s.
const LONG: Duration = Duration::from_secs(15);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Groups of two, one with a short lease and one with a long one, alone with the servers.
struct Scene {
    consul: Consul,
    short: (ConsulGroup, Vec<Member>, Span),
    long: (ConsulGroup, Vec<Member>, Span),
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let consul = Consul::connect()?;
        wait_until("a leader", BACK, || consul.takes_writes())?;
        let start = |lease: Duration| {
            let mut group = ConsulGroup::with_lease(&consul, lease)?;
            let (members, active) = group.start(&consul, &["a", "b"])?;
            anyhow::Ok((group, members, active))
        };
        let (short, long) = std::thread::scope(|scope| {
            let long = scope.spawn(|| start(LONG));
            (start(LEASE), long.join())
        });
        let long = long.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        Ok(Self { short: short?, long, consul, _turn: turn })
    }

    /// The server that leads.
    fn leader(&self) -> Result<&'static str> {
        wait_for("a leader", BACK, || {
            let address = self.consul.call("GET", "/v1/status/leader", &Value::Null).ok()?.json();
            let host = address.as_str()?.split(':').next()?.to_owned();
            SERVERS.into_iter().find(|server| host == format!("127.0.0.{}", &server[7..]))
        })
    }

    fn clean(&self) -> bool {
        [&self.short, &self.long].iter().all(|(group, _, _)| group.group.history().violations().is_empty())
    }

    /// The leader stops by `verb` for `time`, and never are two active. A long lease outlasts a moment. Where it takes
    /// longer, Consul may take the server out of the cluster, and every session that was made at it ends with it.
    fn survives(&self, verb: &str, time: Duration) -> Result<()> {
        let leader = self.leader()?;
        let outage = Outage::begin(&self.consul, verb, leader)?;
        let during = holds_for("nothing overlaps", time, || self.clean());
        // Who asks the one that hangs waits for long: nobody is asked in an outage that has to be short.
        let others = if time > LEASE { Some(self.leader()) } else { None };
        outage.end()?;
        during?;
        ensure!(others.transpose()? != Some(leader), "no other one leads");
        holds_for("nothing overlaps", LEASE * 3, || self.clean())?;
        if time <= SHORT {
            let (group, _, active) = &self.long;
            group.stays(active.token, LEASE)?;
        }
        for (group, _, _) in [&self.short, &self.long] {
            wait_until("somebody to be active", LONG * 3, || group.group.active().is_some())
                .with_context(|| group.group.logs())?;
            group.group.check(1, 2)?;
        }
        Ok(())
    }
}

#[test]
fn a_leader_that_was_killed_is_followed_by_another_one() -> Result<()> {
    Scene::new()?.survives("kill", LEASE * 2)
}

#[test]
fn a_leader_that_hangs_is_followed_by_another_one_and_harms_nobody_when_it_wakes() -> Result<()> {
    Scene::new()?.survives("pause", LEASE * 2)
}

#[test]
fn a_leader_that_hangs_for_a_moment_harms_nobody() -> Result<()> {
    Scene::new()?.survives("pause", SHORT)
}

#[test]
fn a_leader_that_was_started_again_at_once_harms_nobody() -> Result<()> {
    Scene::new()?.survives("kill", Duration::ZERO)
}

#[test]
fn servers_that_were_all_killed_and_started_never_make_two() -> Result<()> {
    let scene = &Scene::new()?;
    SERVERS.into_iter().try_for_each(|server| service("kill", server))?;
    let during = holds_for("nothing overlaps", LEASE, || scene.clean());
    SERVERS.into_iter().try_for_each(|server| service("start", server))?;
    during?;
    wait_until("a leader", BACK, || scene.consul.takes_writes())?;
    holds_for("nothing overlaps", LEASE * 2, || scene.clean())?;
    for (group, _, _) in [&scene.short, &scene.long] {
        wait_until("somebody to be active", LONG * 3, || group.group.active().is_some())
            .with_context(|| group.group.logs())?;
        group.group.check(1, 2)?;
    }
    Ok(())
}

#[test]
fn connections_that_each_reach_another_server_are_as_good_as_one() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Pair { group, members, active, .. } = &Pair::placed()?;
    let began = stamp::now();
    while Duration::from_nanos(stamp::now() - began) < LEASE * 4 {
        for name in ["a", "b"] {
            group.relay(name)?.end_connections();
        }
        // The next connections, and the calls on them, reach the next servers.
        group.stays(active.token, Duration::from_millis(700))?;
    }
    members[0].signal(rustix::process::Signal::TERM)?;
    let handover = follow(&group.group, active, stamp::now())?;
    handover.was_proved()?;
    handover.came_within(LIMIT)?;
    check(&group.group, 2, active)
}
