//! One HTTP connection to Consul, with nothing hidden in it: no retries, no redirects, and one that has disappointed is
//! thrown away with all that were idle beside it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tower::{Service, ServiceExt};

use super::access::{Access, Address, Tls};
use super::trust;
use crate::error::chain;
use crate::lock::addresses::Addresses;
use crate::lock::tcp::connector;

/// A longer answer is none: no lock with its members comes near it.
const BODY_MAX: usize = 1 << 20;
/// For everything up to a connection that can be used.
const OPEN_LIMIT: Duration = Duration::from_secs(4);
/// So many idle connections are kept: one for the lock, and one for what goes on beside it at the same moment.
const KEPT_MAX: usize = 2;

/// An answer, read whole.
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
pub enum Silence {
    /// Nothing was sent: the settings do not allow it.
    Refused(String),
    /// Nothing was sent: there is no connection.
    Unreachable(String),
    /// It was sent, and nobody knows what became of it.
    Unanswered(String),
}

trait Stream: hyper::rt::Read + hyper::rt::Write + Unpin + Send {}
impl<T: hyper::rt::Read + hyper::rt::Write + Unpin + Send> Stream for T {}

/// A connection that can be used.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The token that was right when it was opened.
    token: Option<HeaderValue>,
    /// Moves the bytes, and ends with this.
    _driver: JoinSet<()>,
}

/// Keeps connections as long as none disappoints.
pub struct Connections {
    access: Access,
    addresses: Arc<Addresses>,
    kept: Mutex<Vec<Connection>>,
}

/// A call under way. Where it fails or is dropped all connections are forgotten: what is idle beside it most likely leads
/// to the same server.
struct Trial<'a> {
    connections: &'a Connections,
    has_failed: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.has_failed {
            self.connections.forget();
        }
    }
}

impl Connections {
    /// Nothing is read or sent yet.
    pub fn new(access: Access) -> Self {
        Self { access, addresses: Arc::default(), kept: Mutex::default() }
    }

    /// How Consul is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// One more user, with connections of its own.
    pub fn beside(&self) -> Self {
        Self::new(self.access.clone())
    }

    /// The next call opens a fresh one.
    pub fn forget(&self) {
        self.kept().clear();
    }

    /// Sends one request and reads the answer whole. Cancel safe: a connection whose call was given up is not used again.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answered, Silence> {
        let body = Bytes::from(body);
        let mut trial = Trial { connections: self, has_failed: true };
        let kept = self.kept().pop().filter(|connection| !connection.sender.is_closed());
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let request = self.request(&connection, method.clone(), path, body.clone())?;
        let response = match connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                // Not a byte of it left: the connection had been closed meanwhile.
                Some(_) => {
                    connection = self.open().await?;
                    let request = self.request(&connection, method, path, body)?;
                    connection.sender.send_request(request).await.map_err(|error| Silence::Unanswered(chain(&error)))?
                }
                None => return Err(Silence::Unanswered(chain(error.error()))),
            },
        };
        let answered = whole(response).await.map_err(Silence::Unanswered)?;
        if !answered.status.is_server_error() && answered.status != StatusCode::FORBIDDEN {
            trial.has_failed = false;
            let mut kept = self.kept();
            if kept.len() < KEPT_MAX {
                kept.push(connection);
            }
        }
        Ok(answered)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(
        &self,
        connection: &Connection,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Silence> {
        let refused = |error: http::Error| Silence::Refused(format!("the request cannot be made: {error}"));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.access.base))
            .header(header::HOST, host(&self.access.address))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("soloist/", env!("CARGO_PKG_VERSION")));
        for (name, value) in
            [("x-consul-namespace", &self.access.namespace), ("x-consul-partition", &self.access.partition)]
        {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(token) = &connection.token {
            request = request.header("x-consul-token", token);
        }
        request.body(Full::new(body)).map_err(refused)
    }

    async fn open(&self) -> Result<Connection, Silence> {
        let token = self.access.read_token().map_err(Silence::Refused)?;
        let token = token.map(|token| HeaderValue::try_from(token).map(secret)).transpose();
        let token = token.map_err(|_| Silence::Refused("the token has characters that no token has".into()))?;
        let stream = match timeout(OPEN_LIMIT, self.stream()).await {
            Ok(stream) => stream?,
            Err(_) => return Err(Silence::Unreachable(format!("no connection within {OPEN_LIMIT:?}"))),
        };
        let unreachable = |error: hyper::Error| Silence::Unreachable(chain(&error));
        let (sender, driver) = http1::handshake(stream).await.map_err(unreachable)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ = driver.await;
        });
        Ok(Connection { sender, token, _driver: tasks })
    }

    async fn stream(&self) -> Result<Box<dyn Stream>, Silence> {
        let unreachable = |why: String| Silence::Unreachable(format!("Consul at {}: {why}", self.access.address));
        match &self.access.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| unreachable(error.to_string()))?;
                Ok(Box::new(TokioIo::new(stream)))
            }
            address @ Address::Tcp { host, .. } => {
                let uri: Uri = format!("http://{address}")
                    .parse()
                    .map_err(|error| Silence::Refused(format!("the address {address}: {error}")))?;
                let mut connector = connector(Arc::clone(&self.addresses));
                let ready = connector.ready().await.map_err(|error| unreachable(chain(&error)))?;
                let stream = ready.call(uri).await.map_err(|error| unreachable(chain(&error)))?;
                match &self.access.tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => encrypt(stream.into_inner(), tls, host).await,
                }
            }
        }
    }
}

async fn encrypt(stream: tokio::net::TcpStream, tls: &Tls, host: &str) -> Result<Box<dyn Stream>, Silence> {
    let config = trust::config(tls).map_err(Silence::Refused)?;
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| Silence::Refused(format!("{name:?} is no name that a certificate could have")))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
    let stream = stream.map_err(|error| Silence::Unreachable(format!("no TLS with Consul at {host}: {error}")))?;
    Ok(Box::new(TokioIo::new(stream)))
}

fn host(address: &Address) -> String {
    match address {
        Address::Tcp { .. } => address.to_string(),
        Address::Unix(_) => "localhost".into(),
    }
}

fn secret(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

async fn whole(response: http::Response<Incoming>) -> Result<Answered, String> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_MAX)
        .collect()
        .await
        .map_err(|error| format!("the answer cannot be read: {}", chain(&*error)))?;
    Ok(Answered { status: head.status, headers: head.headers, body: body.to_bytes().to_vec() })
}
