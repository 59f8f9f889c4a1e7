//! The way from the relay to the server: one connection for each connection of the member.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// A request that has come whole.
pub type Whole = Request<Bytes>;

/// A server, and how it is trusted.
#[derive(Clone)]
pub struct Upstream {
    /// `HOST:PORT`.
    address: String,
    /// Nothing for plain HTTP.
    tls: Option<(ServerName<'static>, TlsConnector)>,
}

impl Upstream {
    /// The server of a kubeconfig. With `as_its_user` the relay shows that user's certificate, whoever the member is;
    /// without, the server sees the token that the member sends.
    pub fn of(config: &kube::Config, as_its_user: bool) -> Result<Self> {
        let mut config = config.clone();
        if !as_its_user {
            config.auth_info = kube::config::AuthInfo::default();
        }
        let host = config.cluster_url.host().context("the kubeconfig names no server")?.to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let tls = TlsConnector::from(Arc::new(config.rustls_client_config()?));
        let name = ServerName::try_from(host.clone()).context("the server's name is none")?;
        Ok(Self { address: format!("{host}:{port}"), tls: Some((name, tls)) })
    }

    /// A server that speaks plain HTTP at `HOST:PORT`.
    pub fn plain(address: &str) -> Self {
        Self { address: address.to_owned(), tls: None }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some((name, tls)) => speak(tls.connect(name.clone(), stream).await?).await,
            None => speak(stream).await,
        }
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender, or with the server.
    tokio::spawn(connection);
    Ok(sender)
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A connection to the server, opened when it is used first and again when the server has ended it.
pub struct Line {
    upstream: Upstream,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Line {
    /// Not connected yet.
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream, sender: Mutex::new(None) }
    }

    /// Sends one request and returns the head of its answer.
    pub async fn send(&self, mut request: Whole) -> Result<Response<Incoming>> {
        let host = HeaderValue::from_str(&self.upstream.address)?;
        request.headers_mut().insert(header::HOST, host);
        let mut slot = self.sender.lock().await;
        let mut sender = match slot.take() {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.upstream.connect().await?,
            },
            None => self.upstream.connect().await?,
        };
        let answer = sender.send_request(request.map(Full::new)).await?;
        *slot = Some(sender);
        Ok(answer)
    }
}
