//! What happens to one connection of the member, and to each request on it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::HELD_MAX;
use super::disorder::Disorder;
use super::faults::{Answer, Fault, Plan, Which};
use super::gate::{Gate, Gates};
use super::meaning::{is_watch, renewal};
use super::upstream::{Line, Upstream, Whole};
use crate::stamp;

/// What goes back to the member.
type Reply = Response<BoxBody<Bytes, hyper::Error>>;

/// What all connections and the test's own thread share.
pub struct Shared {
    upstream: Upstream,
    /// The member's side of TLS.
    tls: Mutex<TlsAcceptor>,
    plan: Mutex<Option<Plan>>,
    held: Mutex<Vec<Whole>>,
    requests: Mutex<BTreeMap<String, u64>>,
    answers: Mutex<BTreeMap<u16, u64>>,
    fired: AtomicU64,
    /// By holder, its last renewal.
    renewed: Mutex<BTreeMap<String, Renewed>>,
}

/// A renewal, with instants in nanoseconds of CLOCK_BOOTTIME.
struct Renewed {
    /// What it is known by.
    mark: Value,
    sent: u64,
    stored: u64,
}

impl Shared {
    pub fn new(upstream: Upstream, tls: TlsAcceptor) -> Self {
        Self {
            upstream,
            tls: Mutex::new(tls),
            plan: Mutex::default(),
            held: Mutex::default(),
            requests: Mutex::default(),
            answers: Mutex::default(),
            fired: AtomicU64::new(0),
            renewed: Mutex::default(),
        }
    }

    pub fn certify(&self, tls: TlsAcceptor) {
        *lock(&self.tls) = tls;
    }

    pub fn plan(&self, plan: Option<Plan>) {
        *lock(&self.plan) = plan;
    }

    pub fn held(&self) -> usize {
        lock(&self.held).len()
    }

    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> BTreeMap<String, u64> {
        lock(&self.requests).clone()
    }

    pub fn answered(&self, status: u16) -> u64 {
        lock(&self.answers).get(&status).copied().unwrap_or(0)
    }

    pub fn last_renewed(&self, holder: &str) -> Option<u64> {
        lock(&self.renewed).get(holder).map(|renewed| renewed.stored)
    }

    pub fn last_sent(&self, holder: &str) -> Option<u64> {
        lock(&self.renewed).get(holder).map(|renewed| renewed.sent)
    }

    fn note_stored(&self, request: &[u8], sent: u64) {
        let Some((holder, mark)) = renewal(request) else { return };
        let mut renewed = lock(&self.renewed);
        if renewed.get(&holder).is_none_or(|known| known.mark != mark) {
            renewed.insert(holder, Renewed { mark, sent, stored: stamp::now() });
        }
    }

    fn count<B>(&self, request: &Request<B>) {
        let verb = if is_watch(request) { "WATCH" } else { request.method().as_str() };
        *lock(&self.requests).entry(format!("{verb} {}", request.uri().path())).or_default() += 1;
    }

    fn draw(&self, request: &Whole) -> Option<Fault> {
        let fault = lock(&self.plan).as_mut()?.draw(request)?;
        self.fired.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }

    /// One request of the member.
    async fn pass(&self, line: &Line, request: Request<Incoming>) -> Result<Reply> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.collect().await?.to_bytes());
        self.count(&request);
        match self.draw(&request) {
            None | Some(Fault::Fail { .. }) => self.send(line, request).await,
            Some(Fault::LoseAnswer) => {
                self.send(line, request).await?;
                bail!("the answer is lost")
            }
            Some(Fault::Delay(time)) => {
                let answer = self.send(line, request).await?;
                tokio::time::sleep(time).await;
                Ok(answer)
            }
            Some(Fault::Late(time)) => {
                tokio::time::sleep(time).await;
                self.send(line, request).await
            }
            Some(Fault::Repeat(which)) => self.repeat(line, request, which).await,
            Some(Fault::Hold) => {
                self.hold(request);
                std::future::pending().await
            }
            Some(Fault::Disorder) => Ok(self.send(line, request).await?.map(|body| Disorder::new(body).boxed())),
            Some(Fault::Stall) => Ok(self.send(line, request).await?.map(|_| Silence.boxed())),
            Some(Fault::Answer(answer)) => self.answer(line, request, answer).await,
        }
    }

    fn hold(&self, request: Whole) {
        let mut held = lock(&self.held);
        if held.len() < HELD_MAX {
            held.push(request);
        }
    }

    async fn send(&self, line: &Line, request: Whole) -> Result<Reply> {
        let is_write = request.method() != Method::GET;
        let (body, sent) = (request.body().clone(), stamp::now());
        let answer = line.send(request).await?;
        *lock(&self.answers).entry(answer.status().as_u16()).or_default() += 1;
        if is_write && answer.status().is_success() {
            self.note_stored(&body, sent);
        }
        Ok(answer.map(BodyExt::boxed))
    }

    /// Sends it twice on the same connection, so that the second one comes second.
    async fn repeat(&self, line: &Line, request: Whole, which: Which) -> Result<Reply> {
        let first = whole(self.send(line, request.clone()).await?).await?;
        let second = whole(self.send(line, request).await?).await?;
        Ok(if which == Which::First { first } else { second })
    }

    async fn answer(&self, line: &Line, request: Whole, answer: Answer) -> Result<Reply> {
        if answer.is_delivered {
            self.send(line, request).await?;
        }
        let reply = Response::builder().status(answer.status);
        let reply = match answer.retry_after {
            Some(seconds) => reply.header(header::RETRY_AFTER, seconds),
            None => reply,
        };
        Ok(reply.body(full(Bytes::new()))?)
    }

    /// Delivers everything that is held; a status of 0 is no answer.
    async fn deliver(&self) -> Vec<u16> {
        let held = std::mem::take(&mut *lock(&self.held));
        let mut statuses = Vec::new();
        for request in held {
            let answer = self.send(&Line::new(self.upstream.clone()), request).await;
            statuses.push(answer.map_or(0, |answer| answer.status().as_u16()));
        }
        statuses
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("requests", &self.requests()).finish_non_exhaustive()
    }
}

/// A body of which nothing comes.
struct Silence;

impl Body for Silence {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Whoever waits for it is woken by the end of the connection.
        Poll::Pending
    }
}

/// Nothing that holds one of these locks can fail in the middle.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn full(bytes: Bytes) -> BoxBody<Bytes, hyper::Error> {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// An answer that has come to its end, so that its connection is free.
async fn whole(answer: Reply) -> Result<Reply> {
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, full(body.collect().await?.to_bytes())))
}

/// Everything that is needed to serve a connection.
#[derive(Clone)]
pub struct Connections {
    pub shared: Arc<Shared>,
    pub gates: watch::Receiver<Gates>,
}

impl Connections {
    /// Takes connections, and orders to deliver what is held, until it is dropped.
    pub async fn accept(self, listener: std::net::TcpListener, mut asked: mpsc::Receiver<oneshot::Sender<Vec<u16>>>) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        // Dropped with everything in it.
        let mut served = JoinSet::new();
        loop {
            tokio::select! {
                taken = listener.accept() => {
                    if let Ok((stream, _)) = taken {
                        served.spawn(self.clone().serve_until_cut(stream));
                    }
                }
                Some(reply) = asked.recv() => {
                    let _ = reply.send(self.shared.deliver().await);
                }
                Some(_) = served.join_next() => {}
            }
        }
    }

    async fn serve_until_cut(self, stream: TcpStream) {
        let mut gates = self.gates.clone();
        let before = gates.borrow().ended;
        tokio::select! {
            // A connection that ends with an error is what a relay is for.
            _ = self.serve(stream) => {}
            _ = gates.wait_for(|gates| gates.cut || gates.ended > before) => {}
        }
    }

    async fn serve(self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let tls = lock(&self.shared.tls).clone();
        let stream = tls.accept(Gate::new(stream, &self.gates)).await?;
        let line = Arc::new(Line::new(self.shared.upstream.clone()));
        let shared = self.shared;
        let service = service_fn(move |request| {
            let (shared, line) = (Arc::clone(&shared), Arc::clone(&line));
            // A task of its own: what has come this far reaches the server, though the member may have gone.
            let passing = tokio::spawn(async move { shared.pass(&line, request).await });
            async move { passing.await?.map_err(|error| io::Error::other(format!("{error:#}"))) }
        });
        Ok(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?)
    }
}
