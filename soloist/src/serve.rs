//! Serves HTTP: who is active and why, for probes, programs and people, and takes requests.
//!
//! On a thread of its own, of lower priority than the elector's: whatever clients do, the elector only ever meets one
//! short copy of a snapshot a change. Answers that depend on the time are computed when they are asked for.

mod connections;
mod events;
mod extras;
mod groups;
mod listener;
mod page;
mod peer;
mod petitions;
pub mod probe;
mod problem;
mod routes;
mod states;
mod status;
#[cfg(test)]
mod tests;
mod token;
mod view;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use axum::Router;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::{mpsc, oneshot, watch};

use self::connections::{Connections, Limits};
use self::events::Event;
use self::extras::Extras;
use self::listener::Listener;
use self::view::View;
use crate::controller::gallery::Gallery;
use crate::descriptors;
use crate::elector::Order;
use crate::error::Failure;
use crate::metrics::Metrics;
use crate::settings::{Address, Http};
use crate::snapshot::Snapshot;
use crate::socket_file::SocketFile;

/// As many connections as are open at most, as long as descriptors suffice.
const CONNECTIONS_MAX: u64 = 4096;

/// Descriptors for everything else: the elector's files, the guard, and connections that are just being closed.
const DESCRIPTORS_RESERVED: u64 = 64;

/// A limit so low that the reserve does not fit leaves this many connections.
const CONNECTIONS_MIN: u64 = 8;

/// By how much the elector goes before HTTP.
const NICER_BY: i32 = 5;

/// The stack of the thread; only what is used of it takes memory.
const STACK_BYTES: usize = 512 * 1024;

/// What the handlers share.
struct Site {
    view: View,
    orders: mpsc::Sender<Order>,
    metrics: Metrics,
    token_file: Option<PathBuf>,
    events: watch::Receiver<Event>,
    extras: Arc<watch::Sender<Extras>>,
    /// Those that a controller looks after.
    groups: Option<Arc<Gallery>>,
    /// Where the lock is, as a person would write it.
    lock: Arc<str>,
    connections: Arc<Connections>,
}

/// An address that is taken, and not served yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    address: Address,
    token_file: Option<PathBuf>,
    file: Option<SocketFile>,
}

/// Takes the address, so that one that is in use is found out before anything is started.
///
/// # Errors
/// The address cannot be had, and why.
pub fn bind(http: &Http) -> Result<Bound, Failure> {
    let (listener, address, file) = listener::bind(&http.address)?;
    Ok(Bound { listener, address, token_file: http.token_file.clone(), file })
}

impl Bound {
    /// The address that is served; its port is never 0.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves until the future that is returned is dropped; it ends only if serving does.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        self,
        snapshots: watch::Receiver<Snapshot>,
        orders: mpsc::Sender<Order>,
        metrics: Metrics,
        lock: &str,
        groups: Option<Arc<Gallery>>,
    ) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let limits = raise_limit();
        self.start_within(limits, snapshots, orders, metrics, lock, groups)
    }

    fn start_within(
        self,
        limits: Limits,
        snapshots: watch::Receiver<Snapshot>,
        orders: mpsc::Sender<Order>,
        metrics: Metrics,
        lock: &str,
        groups: Option<Arc<Gallery>>,
    ) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let Self { listener, address, token_file, file } = self;
        let (sender, events) = watch::channel(Event::of(&snapshots.borrow().clone()));
        let (connections, lock) = (Arc::new(Connections::new(limits)), Arc::from(lock));
        let extras = Arc::new(watch::Sender::new(Extras::default()));
        let forward = events::forward(
            snapshots.clone(),
            sender,
            Arc::clone(&extras),
            Arc::clone(&connections),
            Arc::clone(&lock),
        );
        let view = View::new(snapshots);
        let all = Arc::clone(&connections);
        let site = Site { view, orders, metrics, token_file, events, extras, groups, lock, connections: all };
        let serving = serve_on_a_thread(listener, file, routes::router(Arc::new(site)), connections, forward)?;
        tracing::info!("serving http on {address}");
        Ok(serving)
    }
}

/// Serves `router` until the future that is returned is dropped; `beside` runs on the same thread.
fn serve_on_a_thread(
    listener: Listener,
    file: Option<SocketFile>,
    router: Router,
    connections: Arc<Connections>,
    beside: impl Future<Output = ()> + Send + 'static,
) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let work = move || {
        let served = work(listener, router, connections, beside, stopped);
        // Nobody listens if the member has ended.
        let _ = end.send(served);
    };
    thread::Builder::new().name("http".to_owned()).stack_size(STACK_BYTES).spawn(work)?;
    Ok(async move {
        let _held = (stop, file);
        ended.await.context("the thread ended")?
    })
}

/// Lets as many connections in as the limit on descriptors bears, once it is as high as it can be.
fn raise_limit() -> Limits {
    let descriptors = descriptors::raise_to(CONNECTIONS_MAX + DESCRIPTORS_RESERVED);
    let connections = descriptors.saturating_sub(DESCRIPTORS_RESERVED).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX);
    if connections < CONNECTIONS_MAX {
        tracing::warn!("at most {connections} http connections: the limit on descriptors allows no more");
    }
    Limits::of(usize::try_from(connections).unwrap_or(usize::MAX))
}

/// The thread's work, until it is stopped.
fn work(
    listener: Listener,
    router: Router,
    connections: Arc<Connections>,
    beside: impl Future<Output = ()> + Send + 'static,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    // A thread may make itself nicer, always.
    let _ = getpriority_process(None).and_then(|priority| setpriority_process(None, priority + NICER_BY));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(beside);
        tokio::select! {
            served = connections::accept(listener, router, connections) => served,
            _ = stopped => Ok(()),
        }
    })
}
