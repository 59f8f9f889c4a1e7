//! The server from outside: over its sockets, with a hand-made snapshot and an elector that says what a test wants.

mod bounds;
mod client;
mod events;
mod groups;
mod page;
mod refusals;
mod requests;
mod states;
mod unix;

use std::net::SocketAddr;
use std::pin::Pin;
use std::thread::JoinHandle;
use std::time::Duration;

use election::{Activation, Instant, Refusal, RefusalKind, Request, Role, Token};

use self::client::{Answer, Client};
use super::*;
use crate::clock;
use crate::snapshot::{Health, Holder, Publisher, Tenure};

/// Longer than anything takes that works.
const LIMIT: Duration = Duration::from_secs(20);

/// So odd that it is found wherever it should not be.
const NAME: &str = "member-zyx";

const TOKEN: u64 = 7;

const LOCK: &str = "/srv/app.lock";

/// A server, and everything that it talks to.
struct Stand {
    address: Address,
    publisher: Publisher,
    metrics: Metrics,
    serving: Option<Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>>,
    _folder: tempfile::TempDir,
}

/// How a stand is put up.
struct Plan {
    is_unix: bool,
    token: Option<&'static str>,
    limits: Limits,
    groups: Option<Arc<Gallery>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { is_unix: false, token: None, limits: Limits::of(64), groups: None }
    }
}

impl Plan {
    /// A unix socket, on which everybody of this test is trusted.
    fn unix() -> Self {
        Self { is_unix: true, ..Self::default() }
    }

    fn put_up(self) -> (Stand, mpsc::Receiver<Order>) {
        let folder = tempfile::tempdir().unwrap();
        let token_file = self.token.map(|token| {
            let path = folder.path().join("token");
            std::fs::write(&path, token).unwrap();
            path
        });
        let address = match self.is_unix {
            true => Address::Unix(folder.path().join("s")),
            false => Address::Tcp(([127, 0, 0, 1], 0).into()),
        };
        let bound = bind(&Http { address, token_file }).unwrap();
        let address = bound.address().clone();
        let publisher = Publisher::new(standby());
        let (orders, taken) = mpsc::channel(1);
        let metrics = Metrics::default();
        let serving =
            bound.start_within(self.limits, publisher.subscribe(), orders, metrics.clone(), LOCK, self.groups).unwrap();
        let serving: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(serving);
        (Stand { address, publisher, metrics, serving: Some(serving), _folder: folder }, taken)
    }
}

impl Stand {
    /// Nobody asks the elector for anything here.
    fn up() -> Self {
        Plan::default().put_up().0
    }

    fn client(&self) -> Client {
        Client::of(&self.address)
    }

    fn get(&self, path: &str) -> Answer {
        self.client().ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    /// A request with a JSON body.
    fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, "content-type: application/json\r\n", body)
    }

    fn post_with(&self, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n");
        self.client().ask(&format!("{head}{headers}\r\n{body}"))
    }

    /// Makes the member active until this instant.
    fn activate(&self, stop_at: Instant) {
        self.publisher.update(|snapshot| {
            let tenure = Tenure { activation: Activation(9), token: Token(TOKEN), stop_at, kill_at: stop_at };
            (snapshot.role, snapshot.tenure) = (Role::Active, Some(tenure));
            let (activation, token) = (Some(tenure.activation), Some(tenure.token));
            snapshot.holder = Some(Holder { name: NAME.to_owned(), activation, token });
        });
    }

    fn socket(&self) -> &std::path::Path {
        match &self.address {
            Address::Unix(path) => path,
            Address::Tcp(_) => panic!("no unix socket"),
        }
    }
}

/// A healthy standby that has seen the lock.
fn standby() -> Snapshot {
    let health = Health { healthy: true, why: "nothing is checked".to_owned() };
    let mut snapshot = Snapshot::new("g", NAME, Duration::from_secs(15), health, clock::unix_us());
    snapshot.store_answered = Some(clock::now());
    snapshot.reason = "waits for the lock".to_owned();
    snapshot
}

fn in_a_while() -> Instant {
    clock::now() + Duration::from_secs(60)
}

/// An elector that answers the first request with this, and tells what it was asked and by whom.
fn elector(mut orders: mpsc::Receiver<Order>, answer: Result<(), Refusal>) -> JoinHandle<(Request, String)> {
    thread::spawn(move || match orders.blocking_recv() {
        Some(Order::Request(petition)) => {
            petition.answer_to.send(answer).unwrap();
            (petition.request, petition.by)
        }
        other => panic!("no request: {other:?}"),
    })
}

fn refusal(kind: RefusalKind) -> Result<(), Refusal> {
    Err(Refusal { kind, why: "the elector says no".to_owned() })
}

/// Looks again and again until it is so.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(_) => panic!("no port"),
    }
}
