//! Takes connections in, and bounds them: in number, in time and in bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;

use super::listener::Listener;
use super::peer::Peer;

/// How long the head of a request may take, from the connection or from the answer before.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The largest head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What is kept of a connection in memory, each way.
const BUFFER_BYTES: usize = 16 * 1024;

/// A client that does not read is given up after this.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// Pause after a connection could not be taken in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The answer to one connection too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 36\r\n\
    cache-control: no-store\r\nconnection: close\r\n\r\n{\"error\":\"too many connections now\"}";

/// How much is served at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Open connections.
    pub(super) connections: usize,
    /// Of these, the ones that listen to events.
    pub(super) streams: usize,
}

impl Limits {
    /// Half of all connections may listen for good: there is always room for a question.
    pub(super) fn of(connections: usize) -> Self {
        Self { connections, streams: connections / 2 }
    }
}

/// All open connections.
///
/// One that waits for a request, or for its answer to be read, can be given up for a new one, the oldest first: whoever
/// opens thousands and says nothing keeps nobody out.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: usize,
    streams: usize,
    next_turn: u64,
    idle: BTreeMap<u64, AbortHandle>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection, perhaps in the place of another.
    fn admit(self: &Arc<Self>, peer: Peer) -> Option<Arc<Connection>> {
        let mut table = self.table();
        if table.open >= self.limits.connections {
            table.idle.pop_first()?.1.abort();
        }
        table.open += 1;
        Some(Arc::new(Connection { peer, all: Arc::clone(self), task: OnceLock::new(), turn: Mutex::new(None) }))
    }

    /// Room for one more that listens to events.
    pub(super) fn admit_stream(self: &Arc<Self>) -> Option<StreamPermit> {
        let mut table = self.table();
        if table.streams >= self.limits.streams {
            return None;
        }
        table.streams += 1;
        Some(StreamPermit(Arc::clone(self)))
    }

    /// How many listen to events.
    pub(super) fn streams(&self) -> usize {
        self.table().streams
    }
}

/// The right to listen to events.
#[derive(Debug)]
pub(super) struct StreamPermit(Arc<Connections>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.table().streams -= 1;
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Who is at the other end.
    pub(super) peer: Peer,
    all: Arc<Connections>,
    task: OnceLock<AbortHandle>,
    /// Its place among the idle ones.
    turn: Mutex<Option<u64>>,
}

impl Connection {
    fn set_idle(&self) {
        let Some(task) = self.task.get() else { return };
        let mut turn = self.turn();
        let mut table = self.all.table();
        let next = table.next_turn;
        table.next_turn += 1;
        table.idle.insert(next, task.clone());
        *turn = Some(next);
    }

    fn set_busy(&self) {
        if let Some(turn) = self.turn().take() {
            self.all.table().idle.remove(&turn);
        }
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.set_busy();
        self.all.table().open -= 1;
    }
}

/// Takes connections in for as long as it is polled.
pub(super) async fn accept(listener: Listener, router: Router, all: Arc<Connections>) -> anyhow::Result<()> {
    let incoming = Taken::of(listener)?;
    let mut failing = false;
    loop {
        let stream = incoming.next().await;
        match stream {
            Ok(Stream::Tcp(stream, peer)) => {
                // Answers are short and nothing follows that would be worth waiting for.
                let _ = stream.set_nodelay(true);
                admit(stream, peer, &router, &all, |stream| stream.try_write(FULL));
            }
            Ok(Stream::Unix(stream, peer)) => admit(stream, peer, &router, &all, |stream| stream.try_write(FULL)),
            Err(error) => {
                if !failing {
                    tracing::warn!("failed to take an http connection in: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                failing = true;
                continue;
            }
        }
        failing = false;
    }
}

/// A listener that the runtime knows.
enum Taken {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream, Peer),
    Unix(UnixStream, Peer),
}

impl Taken {
    fn of(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Taken::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Taken::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn next(&self) -> io::Result<Stream> {
        Ok(match self {
            Taken::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Stream::Tcp(stream, Peer::Address(address))
            }
            Taken::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::of(&stream);
                Stream::Unix(stream, peer)
            }
        })
    }
}

fn admit<S: Socket + 'static>(
    stream: S,
    peer: Peer,
    router: &Router,
    all: &Arc<Connections>,
    refuse: impl FnOnce(&S) -> io::Result<usize>,
) {
    let Some(connection) = all.admit(peer) else {
        // A new connection takes that much at once, or is gone.
        let _ = refuse(&stream);
        return;
    };
    let task = tokio::spawn(serve(Box::new(stream), Arc::clone(&connection), router.clone()));
    // The task has not run yet.
    let _ = connection.task.set(task.abort_handle());
    connection.set_idle();
}

/// One kind for both of them: what serves it is large.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

async fn serve(stream: Box<dyn Socket>, connection: Arc<Connection>, router: Router) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL_MAX));
    let stream: Pin<Box<TimeoutStream<Box<dyn Socket>>>> = Box::pin(stream);
    let service = TowerToHyperService::new(router);
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let (service, connection) = (service.clone(), Arc::clone(&connection));
        async move {
            connection.set_busy();
            let mut request: Request<Incoming> = request;
            request.extensions_mut().insert(Arc::clone(&connection));
            let response: Result<Response, Infallible> = service.call(request).await;
            // Of unknown length is only what goes on for good, which a HEAD of it does not.
            if response.as_ref().is_ok_and(|response| response.body().size_hint().exact().is_some()) {
                connection.set_idle();
            }
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_header_size(HEAD_BYTES_MAX);
    if let Err(error) = builder.max_buf_size(BUFFER_BYTES).serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!("an http connection ended: {error}");
    }
}
