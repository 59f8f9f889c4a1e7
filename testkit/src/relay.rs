//! A relay between one member and its store, which does to what passes what networks and busy servers do: it ends the
//! TLS of the member, so that it sees requests and answers, and speaks to the server on its own.
//!
//! One relay serves one member. Each connection of the member has one of its own to the server.

mod authority;
mod connection;
mod disorder;
mod faults;
mod gate;
mod meaning;
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot, watch};

use self::connection::{Connections, Shared};
use self::faults::Plan;
use self::gate::Gates;
use crate::kubeconfig::Server;

pub use self::authority::{Authority, NAME};
pub use self::faults::{Answer, Fault, Scope, Which};
pub(crate) use self::upstream::Line;
pub use self::upstream::Upstream;

/// How many held requests may wait to be delivered.
const HELD_MAX: usize = 64;

/// A relay at work; it ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    /// The authority that its certificate is from.
    authority: String,
    shared: Arc<Shared>,
    gates: watch::Sender<Gates>,
    deliveries: mpsc::Sender<oneshot::Sender<Vec<u16>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay before a server, on a free port of the loopback address.
    pub fn start(upstream: Upstream) -> Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), upstream)
    }

    /// The same at this address.
    pub fn start_at(address: SocketAddr, upstream: Upstream) -> Result<Self> {
        let authority = Authority::new().context("failed to make a certificate")?;
        Self::at(address, upstream, &authority)
    }

    /// Starts a relay on the same port of each address, with the same certificate: several servers of one cluster.
    pub fn several(addresses: &[Ipv4Addr], upstream: &Upstream) -> Result<Vec<Self>> {
        let authority = Authority::new().context("failed to make a certificate")?;
        let mut relays: Vec<Self> = Vec::new();
        for address in addresses {
            let port = relays.first().map_or(0, |first| first.address.port());
            relays.push(Self::at(SocketAddr::from((*address, port)), upstream.clone(), &authority)?);
        }
        Ok(relays)
    }

    fn at(address: SocketAddr, upstream: Upstream, authority: &Authority) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to start the relay's runtime")?;
        let listener = TcpListener::bind(address).context("failed to bind the relay")?;
        listener.set_nonblocking(true).context("failed to prepare the relay's socket")?;
        let address = listener.local_addr().context("failed to find the relay's port")?;
        let gates = watch::Sender::new(Gates::default());
        let shared = Arc::new(Shared::new(upstream, authority.tls()));
        let (deliveries, asked) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let connections = Connections { shared: Arc::clone(&shared), gates: gates.subscribe() };
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = connections.accept(listener, asked) => {}
                    _ = ended => {}
                }
            });
        });
        let thread = Some(thread.context("failed to start the relay's thread")?);
        Ok(Self { address, authority: authority.pem(), shared, gates, deliveries, end: Some(end), thread })
    }

    /// Writes a kubeconfig that leads here, with `user` as the credentials: `{}`, or such as `{"tokenFile": PATH}`.
    pub fn write_kubeconfig(&self, path: &Path, user: &serde_json::Value) -> Result<()> {
        self.write_kubeconfig_for(&self.address.ip().to_string(), path, user)
    }

    /// The same with another name of the host.
    pub fn write_kubeconfig_for(&self, host: &str, path: &Path, user: &serde_json::Value) -> Result<()> {
        let trusted = path.with_extension("ca");
        fs::write(&trusted, &self.authority).with_context(|| format!("failed to write {}", trusted.display()))?;
        let url = format!("https://{host}:{}", self.address.port());
        Server { url, authority: trusted }.write_kubeconfig(path, user)
    }

    /// Who vouches for it, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes any more, and nobody is told: bytes wait, connections stay, new ones are taken and stay silent.
    pub fn black_hole(&self) {
        self.gates.send_modify(|gates| (gates.in_closed, gates.out_closed) = (true, true));
    }

    /// Requests pass, answers wait, the watch's events included.
    pub fn hold_answers(&self) {
        self.gates.send_modify(|gates| gates.out_closed = true);
    }

    /// Ends all connections and lets no new one live.
    pub fn cut(&self) {
        self.gates.send_modify(|gates| gates.cut = true);
    }

    /// Ends all connections; new ones live.
    pub fn end_connections(&self) {
        self.gates.send_modify(|gates| gates.ended += 1);
    }

    /// New connections see a certificate of this authority.
    pub fn certify_by(&self, authority: &Authority) {
        self.shared.certify(authority.tls());
    }

    /// Opens what a black hole, held answers or a cut have closed; a fault goes on.
    pub fn reconnect(&self) {
        self.gates.send_modify(|gates| *gates = Gates { ended: gates.ended, ..Gates::default() });
    }

    /// Does `fault` to all requests of `scope` from now on, in place of what it did before.
    pub fn inject(&self, scope: Scope, fault: Fault) {
        self.shared.plan(Some(Plan::new(scope, fault, u64::MAX)));
    }

    /// Does `fault` to the next `times` requests of `scope`.
    pub fn inject_times(&self, scope: Scope, fault: Fault, times: u64) {
        self.shared.plan(Some(Plan::new(scope, fault, times)));
    }

    /// Everything passes again; what waited goes on, except for held requests.
    pub fn heal(&self) {
        self.shared.plan(None);
        self.reconnect();
    }

    /// Sends all requests that [`Fault::Hold`] kept, in their order; returns the server's answers' status codes.
    pub fn deliver_held(&self) -> Result<Vec<u16>> {
        let (reply, answers) = oneshot::channel();
        self.deliveries.blocking_send(reply).context("the relay has ended")?;
        answers.blocking_recv().context("the relay has ended")
    }

    /// How many requests wait for [`Relay::deliver_held`].
    pub fn held(&self) -> usize {
        self.shared.held()
    }

    /// How many requests a fault was done to. A test whose fault never happened proves nothing.
    pub fn fired(&self) -> u64 {
        self.shared.fired()
    }

    /// How many requests came, by `VERB PATH`; a watch or a blocking query has the verb WATCH.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.shared.requests()
    }

    /// How many requests of this verb came.
    pub fn asked(&self, verb: &str) -> u64 {
        let of_verb = |name: &str| name.split(' ').next() == Some(verb);
        self.requests().iter().filter(|(name, _)| of_verb(name)).map(|(_, count)| count).sum()
    }

    /// How many of the server's answers had this status.
    pub fn answered(&self, status: u16) -> u64 {
        self.shared.answered(status)
    }

    /// When the server last stored a renewal of this holder, in nanoseconds of CLOCK_BOOTTIME.
    pub fn last_renewed(&self, holder: &str) -> Option<u64> {
        self.shared.last_renewed(holder)
    }

    /// When that one was sent on: nobody has seen it before.
    pub fn last_sent(&self, holder: &str) -> Option<u64> {
        self.shared.last_sent(holder)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
