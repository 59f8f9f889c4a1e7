//! soloist beside what people use instead, on one real API server and in one run: how long nobody is active after each
//! kind of event, how long two are, what each costs. Within `testbed/run control-plane`.

mod access;
mod contender;
mod cost;
mod member;
mod round;
mod table;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use testkit::audit::AUDITED;
use testkit::cluster::Cluster;

use self::contender::Contender;
use self::cost::Cost;
use self::round::{Event, Outcome, Pair};
use self::table::{Row, Table};
use crate::lease::QUIET;
use crate::report::Host;

pub use self::contender::Peer;

/// So many pairs wait for their leases side by side. Handovers of milliseconds are measured one by one.
const SIDE_BY_SIDE: usize = 12;

/// Plays everything, `rounds` times each.
pub fn measure(rounds: usize, quick: bool, peers: Vec<Peer>) -> Result<Table> {
    let cluster = Cluster::connect()?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
    let before = Host::load_now();
    let mut contenders = vec![Contender::Soloist, Contender::StandIn, Contender::ClientGo, Contender::Deaf];
    contenders.extend(peers.into_iter().map(Contender::Peer));
    let mut rows = Vec::new();
    let raw = crate::lease::raw_limit(&cluster, rounds)?;
    for event in Event::ALL {
        for contender in &contenders {
            eprintln!("{event}: {contender}, {rounds} rounds");
            let outcomes = play(&cluster, contender, event, rounds)?;
            rows.push(Row::of(event, contender, &outcomes));
        }
    }
    let watch = Duration::from_secs(if quick { 10 } else { 60 });
    let mut costs = Vec::new();
    for contender in &contenders {
        eprintln!("what {contender} costs in {} s", watch.as_secs());
        costs.push(Cost::measure(&cluster, contender, watch)?);
    }
    Ok(Table { host: Host::here("a Lease".to_owned(), before), raw: (raw, rounds), rows, costs })
}

fn play(cluster: &Cluster, contender: &Contender, event: Event, rounds: usize) -> Result<Vec<Outcome>> {
    let players = if contender.is_quick() && event.leaves_a_chance() { 1 } else { SIDE_BY_SIDE };
    let token = account(cluster, QUIET)?.token;
    let left = AtomicUsize::new(rounds);
    let play_some = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let pair = Pair::start(cluster, contender, QUIET, [&token, &token], event == Event::BlackHole)?;
            outcomes.push(pair.round(event)?);
        }
        Ok(outcomes)
    };
    let all: Result<Vec<Vec<Outcome>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..players).map(|_| scope.spawn(play_some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a player panicked"))).collect()
    });
    Ok(all?.concat())
}

/// A service account that may do with Leases what any contender does.
struct Account {
    name: String,
    token: String,
}

fn account(cluster: &Cluster, namespace: &str) -> Result<Account> {
    let name = fresh_name();
    let rule = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "watch", "create", "update"]});
    cluster.grant(namespace, &name, &json!([rule]))?;
    let token = cluster.token(namespace, &name)?;
    Ok(Account { name, token })
}

/// A name that nothing else has in this run.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("duel-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
