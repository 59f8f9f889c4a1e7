//! On one API server, within `testbed/run control-plane`.

mod access;
mod contender;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use testkit::audit::{AUDITED, Audit};
use testkit::cluster::Cluster;

use self::access::Access;
use self::contender::Contender;
use super::arena::{Arena, Contender as _, Seat, Start};
use super::cost::Cost;
use super::round::{Event, Pair};
use super::table::{Row, Table};
use super::{fresh_name, play};
use crate::beat;
use crate::lease::visible::Visible;
use crate::lease::{QUIET, raw_limit, route_target};
use crate::peer::Peer;
use crate::report::{Host, Target};

/// Where programs that run in a cluster look for their credentials.
const CREDENTIALS: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// So many pairs wait for their leases side by side. Handovers of milliseconds are measured one by one.
const SIDE_BY_SIDE: usize = 12;

/// Plays everything, `rounds` times each.
pub fn measure(rounds: usize, quick: bool, peers: Vec<Peer>) -> Result<Table<Contender>> {
    let cluster = Cluster::connect()?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AUDITED}}))?;
    let before = Host::load_now();
    let mut contenders = vec![Contender::Soloist, Contender::StandIn, Contender::ClientGo, Contender::Deaf];
    contenders.extend(peers.into_iter().map(Contender::Peer));
    let mut rows = Vec::new();
    let raw = raw_limit(&cluster, rounds)?;
    for event in Event::ALL {
        for contender in &contenders {
            eprintln!("{event}: {contender}, {rounds} rounds");
            let is_short = contender.is_ours() && event.leaves_a_chance();
            let players = if is_short { 1 } else { SIDE_BY_SIDE };
            let outcomes = play(&Namespace::new(&cluster, QUIET)?, contender, event, rounds, players)?;
            rows.push(Row::of(event, contender, &outcomes));
        }
    }
    let visible = Visible::measure(rounds)?;
    let watch = Duration::from_secs(if quick { 10 } else { 60 });
    let mut costs = Vec::new();
    for contender in contenders {
        eprintln!("what {contender} costs in {} s", watch.as_secs());
        costs.push(cost(&cluster, contender, watch)?);
    }
    let overlaps: usize = rows.iter().filter(|row| row.contender.is_ours()).map(|row| row.overlaps).sum();
    let violations = overlaps + visible.violations.len();
    let mut targets = vec![Target::new("overlaps and other violations of soloist", violations as f64, 0.0)];
    targets.extend(visible.rows.iter().map(route_target));
    let host = Host::here("a Lease".to_owned(), before);
    Ok(Table { host, raw, routes: visible.rows.into_iter().flatten().collect(), rows, costs, targets })
}

fn cost(cluster: &Cluster, contender: Contender, watch: Duration) -> Result<Cost<Contender>> {
    let (audit, namespace) = (Audit::begin()?, Namespace::new(cluster, AUDITED)?);
    let pair = Pair::start(&namespace, &contender, beat::PACE, false)?;
    let asked = |is_active: bool| {
        let account = &namespace.accounts[usize::from(!is_active)];
        audit.requests_of(&account.name).map(|requests| requests.by_kind)
    };
    Cost::measure(contender, &pair, watch, asked)
}

/// A namespace in which two may do with Leases what any contender does.
struct Namespace<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    accounts: [Account; 2],
}

/// One of them.
struct Account {
    name: String,
    token: String,
}

impl<'a> Namespace<'a> {
    fn new(cluster: &'a Cluster, name: &'static str) -> Result<Self> {
        Ok(Self { cluster, name, accounts: [account(cluster, name)?, account(cluster, name)?] })
    }
}

fn account(cluster: &Cluster, namespace: &str) -> Result<Account> {
    let name = fresh_name();
    let rule = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "watch", "create", "update"]});
    cluster.grant(namespace, &name, &json!([rule]))?;
    let token = cluster.token(namespace, &name)?;
    Ok(Account { name, token })
}

impl Arena for Namespace<'_> {
    type Contender = Contender;

    /// More than the retry period of those who poll.
    const SETTLE: Duration = Duration::from_millis(2_500);

    fn free_lock(&self) -> Result<String> {
        let lease = fresh_name();
        self.cluster.initial_lease(self.name, &lease)?;
        Ok(lease)
    }

    fn seat(&self, contender: &Contender, start: &Start<'_>) -> Result<Seat> {
        let token = &self.accounts.get(start.index).context("no such account")?.token;
        let (access, relay) = match start.is_relayed {
            true => Access::relayed(self.cluster, self.name, token).map(|(access, relay)| (access, Some(relay)))?,
            false => (Access::direct(self.name, token)?, None),
        };
        let own = std::env::current_exe().context("failed to find this program")?;
        let began = access.mounted().join("began");
        let mut words = vec![own.into(), "contain".into(), "--below".into(), "/run".into()];
        words.extend([access.mounted(), Path::new(CREDENTIALS), &began].map(Into::into));
        words.extend(contender.words(self.name, start, &access)?);
        Ok(Seat { words, relay, _folder: access.into_folder() })
    }
}
