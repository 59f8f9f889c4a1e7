//! Single calls to the API server about one Lease, or what stands for one. What their answers show goes to the [`Hub`].

use std::sync::Arc;

use election::Version;
use http::Method;
use serde_json::Value;

use super::ObjectName;
use super::access::Access;
use super::answer::{Answer, Ask};
use super::hub::Hub;
use super::lease;
use super::rule::Verb;
use super::session::{Sessions, request};
use crate::lock::{Failed, LockError};

/// Who calls.
pub struct Calls {
    sessions: Arc<Sessions>,
    place: ObjectName,
    /// The namespace that the credentials belong to.
    home: String,
    hub: Arc<Hub>,
}

/// What came of a look at what may be somebody else's.
pub enum Peeked {
    /// The hub knows it.
    Known,
    /// It must not be looked at.
    Forbidden(String),
}

impl Calls {
    /// Reads the credentials; nothing is asked of the API server yet.
    ///
    /// # Errors
    /// Credentials that cannot be read or must not be used.
    pub async fn open(access: Access, place: ObjectName) -> Result<Self, LockError> {
        let sessions = Arc::new(Sessions::new(access));
        let session = sessions.take().await?;
        let home = session.namespace().to_owned();
        session.keep();
        let namespace = if place.namespace.is_empty() { home.clone() } else { place.namespace.clone() };
        let place = ObjectName { namespace, ..place };
        Ok(Self { sessions, place, home, hub: Arc::default() })
    }

    /// One more caller. At the same moment it uses another connection: neither is in the way of the other.
    pub fn beside(&self) -> Self {
        Self {
            sessions: Arc::clone(&self.sessions),
            place: self.place.clone(),
            home: self.home.clone(),
            hub: Arc::clone(&self.hub),
        }
    }

    /// Who calls about another object, over the same connections.
    pub fn about(&self, place: ObjectName) -> Self {
        let place = ObjectName { namespace: self.place.namespace.clone(), ..place };
        Self { place, hub: Arc::default(), ..self.beside() }
    }

    /// How the API server is reached.
    pub fn access(&self) -> &Access {
        self.sessions.access()
    }

    /// Which Lease it is, with its namespace.
    pub fn place(&self) -> &ObjectName {
        &self.place
    }

    /// The namespace that the credentials belong to: in a pod, the pod's.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// What is known of the Lease.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// One quorum read.
    pub async fn get(&self) -> Result<(Version, Value), Failed> {
        self.ask(Verb::Get, Method::GET, self.place.path(), Vec::new()).await
    }

    /// The same of what may be somebody else's. Why it must not be looked at, where no rule allows that.
    pub async fn peek(&self) -> Result<Peeked, Failed> {
        match self.ask_once(Verb::Peek, Method::GET, self.place.path(), Vec::new()).await? {
            Answer::Denied(why) => Ok(Peeked::Forbidden(why)),
            answer => match self.note(answer) {
                Ok(_) | Err(Failed::Absent) => Ok(Peeked::Known),
                Err(failed) => Err(failed),
            },
        }
    }

    /// Replaces the Lease whose UID and resource version `lease` quotes.
    pub async fn put(&self, lease: &Value) -> Result<(Version, Value), Failed> {
        self.ask(Verb::Update, Method::PUT, self.place.path(), self.bytes(lease)?).await
    }

    /// Creates the Lease.
    pub async fn post(&self, lease: &Value) -> Result<(Version, Value), Failed> {
        self.ask(Verb::Create, Method::POST, self.place.collection(), self.bytes(lease)?).await
    }

    fn bytes(&self, lease: &Value) -> Result<Vec<u8>, Failed> {
        serde_json::to_vec(&self.place.kind.write(lease)).map_err(|error| Failed::Denied(error.to_string()))
    }

    /// One call and, where the credentials are not accepted, one more with fresh ones.
    async fn ask(&self, verb: Verb, method: Method, path: String, body: Vec<u8>) -> Result<(Version, Value), Failed> {
        let first = self.ask_once(verb, method.clone(), path.clone(), body.clone()).await?;
        let answer = match first {
            Answer::Unauthorized(_) => self.ask_once(verb, method, path, body).await?,
            answer => answer,
        };
        self.note(answer)
    }

    /// Tells the hub what an answer shows.
    fn note(&self, answer: Answer) -> Result<(Version, Value), Failed> {
        match answer {
            Answer::Lease(lease) => {
                let version = lease::version(&lease).map_err(Failed::Unknown)?;
                self.hub.note(version.number, Some(&lease));
                Ok((version, lease))
            }
            Answer::Absent => {
                self.hub.note_absence();
                Err(Failed::Absent)
            }
            Answer::Conflict => Err(Failed::Conflict),
            Answer::Unauthorized(why) | Answer::Denied(why) => Err(Failed::Denied(why)),
            Answer::Throttled(after) => Err(Failed::Throttled(after)),
            Answer::Unclear(why) => Err(Failed::Unknown(why)),
        }
    }

    /// The session is kept only after an answer that speaks for it.
    async fn ask_once(&self, verb: Verb, method: Method, path: String, body: Vec<u8>) -> Result<Answer, Failed> {
        // Where it fails nothing was sent, so nothing was stored.
        let session = self.sessions.take().await.map_err(|error| Failed::Denied(error.to_string()))?;
        let request = request(method, path, body).map_err(Failed::Denied)?;
        let (status, headers, bytes) = session.call(request).await.map_err(Failed::Unknown)?;
        let answer = Ask { verb, place: &self.place }.judge(status, &headers, &bytes);
        if !matches!(answer, Answer::Unauthorized(_) | Answer::Unclear(_)) {
            session.keep();
        }
        Ok(answer)
    }
}
