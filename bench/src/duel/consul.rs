//! On one Consul, within `testbed/run consul`: soloist, its stand-in for `consul lock`, and the real program.

mod contender;
mod targets;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use election::Version;
use soloist::lock::Lock;
use soloist::lock::consul::{self as store, ConsulLock, Keys};
use testkit::consul::Consul;
use testkit::relay::Relay;

use super::arena::{Arena, Contender as _, Seat, Start};
use super::cost::{Cost, Requests};
use super::round::{Event, Outcome, Pair};
use super::table::{Row, Table};
use super::{fresh_name, one_round, play};
use crate::beat;
use crate::register::{self, Parts, Raw, released, written};
use crate::report::Host;

pub use self::contender::Contender;

/// What waits for a lease is slow, and differs little from one time to the next.
const SLOW_ROUNDS_MAX: usize = 16;
/// So many pairs of one contender wait side by side: Consul takes 200 connections from one address.
const SIDE_BY_SIDE: usize = 8;
/// The real program takes most of a minute then.
const REAL_SLOW_ROUNDS_MAX: usize = 6;
/// How often a lock looks to which nothing is told: never here.
const PERIOD: Duration = Duration::from_secs(2);
/// Until nothing is left to do of a pair that was ended.
const CALM: Duration = Duration::from_millis(500);
/// The sessions of the raw limit live for twice as long, unattended between two of its rounds.
const RAW_LEASE: Duration = Duration::from_secs(60);

/// Plays everything: `rounds` times what takes milliseconds, and less often what waits for a lease.
pub fn measure(rounds: usize, quick: bool) -> Result<Table<Contender>> {
    let before = Host::load_now();
    let arena = Server { consul: Consul::connect()? };
    let (mut rows, raw) = by_turns(&arena, rounds)?;
    for event in Event::ALL.into_iter().filter(|event| !event.leaves_a_chance()) {
        rows.extend(side_by_side(&arena, event, rounds.min(SLOW_ROUNDS_MAX))?);
    }
    let watch = Duration::from_secs(if quick { 10 } else { 60 });
    let mut costs = Vec::new();
    for contender in Contender::ALL {
        eprintln!("what {contender} costs in {} s", watch.as_secs());
        costs.push(cost(&arena, contender, watch)?);
    }
    let targets = targets::all(&rows, &raw, &costs);
    let host = Host::here("a key of Consul".to_owned(), before);
    Ok(Table { host, raw, routes: Vec::new(), rows, costs, targets })
}

/// What takes milliseconds, one after the other, by turns with the raw limit: what else the host does meets all alike.
fn by_turns(arena: &Server, rounds: usize) -> Result<(Vec<Row<Contender>>, Vec<crate::report::Row>)> {
    let events = Event::ALL.into_iter().filter(|event| event.leaves_a_chance());
    let mut played: Vec<(Event, Contender, Vec<Outcome>)> =
        events.flat_map(|event| Contender::ALL.map(|contender| (event, contender, Vec::new()))).collect();
    let (mut limit, mut parts) = (raw_limit()?, Vec::<Parts>::new());
    for round in 1..=rounds {
        eprintln!("handovers on Consul, round {round} of {rounds}");
        for turn in played.chunks_mut(Contender::ALL.len()) {
            for (event, contender, outcomes) in turn {
                outcomes.push(one_round(arena, contender, *event)?);
            }
            sleep(CALM);
            parts.push(limit.round()?);
        }
    }
    let rows = played.iter().map(|(event, contender, outcomes)| Row::of(*event, contender, outcomes)).collect();
    Ok((rows, register::rows(&parts, "transaction")))
}

/// What waits for a lease: everybody at once.
fn side_by_side(arena: &Server, event: Event, rounds: usize) -> Result<Vec<Row<Contender>>> {
    let play_one = |contender: Contender| -> Result<Row<Contender>> {
        let rounds = if contender.is_ours() { rounds } else { rounds.min(REAL_SLOW_ROUNDS_MAX) };
        eprintln!("{event}: {contender}, {rounds} rounds");
        Ok(Row::of(event, &contender, &play(arena, &contender, event, rounds, SIDE_BY_SIDE)?))
    };
    std::thread::scope(|scope| {
        let threads = Contender::ALL.map(|contender| scope.spawn(move || play_one(contender)));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a player panicked"))).collect()
    })
}

fn cost(arena: &Server, contender: Contender, watch: Duration) -> Result<Cost<Contender>> {
    let pair = Pair::start(arena, &contender, beat::PACE, true)?;
    Cost::measure(contender, &pair, watch, |is_active| Ok(by_kind(pair.relay(is_active)?)))
}

/// What came by a relay, without the names of keys and sessions.
fn by_kind(relay: &Relay) -> Requests {
    let mut requests = Requests::new();
    for (name, count) in relay.requests() {
        let words: Vec<&str> = name.split(['/', ' ']).collect();
        let kind = match words[..] {
            [verb, _, _, "session", what, ..] => format!("{verb} session/{what}"),
            [verb, _, _, what, ..] => format!("{verb} {what}"),
            _ => name,
        };
        *requests.entry(kind).or_default() += count;
    }
    requests
}

/// A lock on the Consul of the environment.
fn lock(prefix: &str) -> Result<ConsulLock> {
    let variable = |name: &str| std::env::var(name).ok();
    let access = store::Access::new(&store::Server::default(), &variable);
    let access = access.map_err(|why| anyhow::anyhow!("failed to understand the environment: {why}"))?;
    Ok(ConsulLock::new(access, Keys::of(prefix), "bench".to_owned(), RAW_LEASE, PERIOD))
}

fn raw_limit() -> Result<Raw<ConsulLock>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let prefix = fresh_name();
    let two = [lock(&prefix)?, lock(&prefix)?];
    for lock in &two {
        runtime.spawn(lock.session_keeper().run(std::future::pending()));
    }
    Raw::start(runtime, two)
}

/// The Consul of the testbed.
struct Server {
    consul: Consul,
}

impl Arena for Server {
    type Contender = Contender;

    /// All of them wait in a blocking query, and do nothing else.
    const SETTLE: Duration = Duration::from_secs(1);

    /// A key that is absent would cost members of soloist a lease.
    fn free_lock(&self) -> Result<String> {
        let prefix = fresh_name();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lock = lock(&prefix)?;
        written(runtime.block_on(lock.write(Version::ABSENT, &released(0), "free")))?;
        Ok(prefix)
    }

    fn seat(&self, contender: &Contender, start: &Start<'_>) -> Result<Seat> {
        let folder = tempfile::tempdir()?;
        let mut words = vec!["env".into()];
        let relay = start.is_relayed.then(|| self.consul.relay()).transpose()?;
        if let Some(relay) = &relay {
            let authority = folder.path().join("ca.crt");
            fs::write(&authority, relay.authority()).context("failed to write an authority")?;
            words.push(format!("CONSUL_HTTP_ADDR=https://{}", relay.address()).into());
            words.push(format!("CONSUL_CACERT={}", authority.display()).into());
        }
        words.extend(contender.words(start)?);
        Ok(Seat { words, relay, _folder: folder })
    }
}
