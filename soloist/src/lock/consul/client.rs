//! Single calls to Consul, whatever they are about.

use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::access::Access;
use super::connection::{Answered, Connections};
use crate::lock::Failed;

/// Everything else in a path is spelled with per cent signs.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Who calls.
pub struct Client {
    connections: Connections,
}

impl Client {
    /// Nothing is read or sent yet.
    pub fn new(access: Access) -> Self {
        Self { connections: Connections::new(access) }
    }

    /// One more caller, with connections of its own.
    pub fn beside(&self) -> Self {
        Self { connections: self.connections.beside() }
    }

    /// The next call opens a fresh connection.
    pub fn forget(&self) {
        self.connections.forget();
    }

    /// One call and, where the token is not accepted, one more with the token as it is now.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call(&self, method: Method, path: &str, query: &str, body: Vec<u8>) -> Result<Answered, Failed> {
        let whole = self.whole(path, query);
        let answered = self.connections.call(method.clone(), &whole, body.clone()).await?;
        match answered.status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(self.connections.call(method, &whole, body).await?),
            _ => Ok(answered),
        }
    }

    /// With the datacenter, where one was chosen.
    fn whole(&self, path: &str, query: &str) -> String {
        let datacenter = self.connections.access().datacenter.as_deref().map(|name| format!("dc={}", spelled(name)));
        let parts = [Some(query), datacenter.as_deref()];
        let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
    }
}

/// A part of a path as it is spelled in one.
pub fn spelled(part: &str) -> String {
    utf8_percent_encode(part, PLAIN).to_string()
}
