//! One connection to the API server, with nothing hidden in it: no retries, no redirects, a dead peer is noticed, and a
//! session that has disappointed is thrown away whole.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Builder;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ConfigExt};
use tower::{BoxError, ServiceBuilder};

use super::access::Access;
use crate::error::chain;
use crate::lock::LockError;
use crate::lock::addresses::Addresses;
use crate::lock::tcp::connector;

/// A longer answer is none: no Lease comes near it.
pub const BODY_MAX: usize = 1 << 20;
/// Shorter than the servers' own limit of 90 s, so that none closes a connection which is just being used. Longer than a
/// standby is silent between two announcements: it shall acquire the lock over a connection that is there.
const IDLE_MAX: Duration = Duration::from_secs(80);
/// So many sessions are kept: one for the lock, and one for what goes on beside it at the same moment.
const KEPT_MAX: usize = 2;

/// A client with connections of its own.
#[derive(Clone)]
pub struct Session {
    client: Client,
}

impl Session {
    /// Reads the credentials and prepares a connection; nothing is sent before the first request.
    ///
    /// # Errors
    /// Settings that cannot be read or are not allowed.
    pub async fn open(access: &Access) -> Result<Self, LockError> {
        Self::open_at(access, Arc::default()).await
    }

    /// The same, at the next one of `addresses`.
    async fn open_at(access: &Access, addresses: Arc<Addresses>) -> Result<Self, LockError> {
        let config = access.load().await?;
        let denied = |error: kube::Error| LockError::Denied(format!("the credentials: {}", chain(&error)));
        let https = config.rustls_https_connector_with_connector(connector(addresses)).map_err(denied)?;
        // hyper sends a request again only if not a byte of it left over a connection that had been closed meanwhile.
        let hyper = Builder::new(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_MAX)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(denied)?)
            .layer(config.extra_headers_layer().map_err(denied)?)
            .map_err(BoxError::from)
            .service(hyper);
        Ok(Self { client: Client::new(service, config.default_namespace) })
    }

    /// The namespace that the credentials belong to.
    pub fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Sends one request and reads the answer whole.
    ///
    /// # Errors
    /// No answer, or one that could not be read, in one sentence.
    pub async fn call(&self, request: Request<Body>) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
        let (head, body) = self.send(request).await?.into_parts();
        let bytes = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map_err(|error| format!("the answer cannot be read: {}", chain(&*error)))?;
        Ok((head.status, head.headers, bytes.to_bytes().to_vec()))
    }

    /// Sends one request and leaves the answer's body to the caller.
    ///
    /// # Errors
    /// No answer, in one sentence.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, String> {
        self.client.send(request).await.map_err(|error| chain(&error))
    }
}

/// Keeps sessions as long as none disappoints.
pub struct Sessions {
    access: Access,
    addresses: Arc<Addresses>,
    /// So many are kept.
    kept_max: usize,
    /// Last the one that was used last.
    kept: Mutex<Vec<Session>>,
}

impl Sessions {
    /// Nothing is read or sent yet.
    pub fn new(access: Access) -> Self {
        Self::keeping(KEPT_MAX, access)
    }

    /// For so many calls at the same moment.
    pub fn keeping(kept_max: usize, access: Access) -> Self {
        Self { access, addresses: Arc::default(), kept_max, kept: Mutex::default() }
    }

    /// How the API server is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The session that was kept, or a fresh one, with the credentials as they are now.
    ///
    /// # Errors
    /// As [`Session::open`]. Nothing was sent then.
    pub async fn take(&self) -> Result<Lent<'_>, LockError> {
        let kept = self.kept().pop();
        let session = match kept {
            Some(session) => session,
            None => Session::open_at(&self.access, Arc::clone(&self.addresses)).await?,
        };
        Ok(Lent { session, sessions: self, is_good: false })
    }

    /// The next call begins a fresh one.
    pub fn forget(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Session>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session for one call. Where that is not answered, or is dropped, all sessions are forgotten: what was idle beside it
/// most likely leads to the same server.
pub struct Lent<'a> {
    session: Session,
    sessions: &'a Sessions,
    is_good: bool,
}

impl Lent<'_> {
    /// For the next call: this one was answered.
    pub fn keep(mut self) {
        self.is_good = true;
        let mut kept = self.sessions.kept();
        if kept.len() < self.sessions.kept_max {
            kept.push(self.session.clone());
        }
    }
}

impl Deref for Lent<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.is_good {
            self.sessions.forget();
        }
    }
}

/// A request without a host: the session knows it.
///
/// # Errors
/// A path that is no path.
pub fn request(method: http::Method, path: String, body: Vec<u8>) -> Result<Request<Body>, String> {
    // A patch says what is to change, and nothing else has more than one form.
    let form = if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, form)
        .header(header::USER_AGENT, concat!("soloist/", env!("CARGO_PKG_VERSION")));
    request.body(Body::from(body)).map_err(|error| format!("the request cannot be made: {error}"))
}
