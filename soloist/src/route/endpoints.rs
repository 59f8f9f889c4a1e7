//! The Endpoints object of a Service without selector: one address, that of the active member.
//!
//! It is read and replaced by resource version. Which activation published it stands in an annotation.

pub mod ports;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use election::Token;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Pending, Route};
use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::answer::retry_after;
use crate::lock::kubernetes::session::{Sessions, request};

/// The annotation with the fencing token of whoever wrote the object last.
pub const TOKEN: &str = "soloist.dev/token";

/// How Kubernetes marks the Endpoints that it writes by itself, with every pod that a selector finds.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// So often may somebody else be faster, or the API server ask to wait, before an operation fails.
const TRIES_MAX: u32 = 8;
/// Assumed where the API server asks to wait and does not say for how long.
const WAIT: Duration = Duration::from_secs(1);
/// As much of the API server's text is shown as fits on a line.
const SHOWN: usize = 300;

/// What is published, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace of the Service.
    pub namespace: String,
    /// Its name, which is that of the Endpoints object too.
    pub service: String,
    /// Where this member's workload is reached.
    pub address: IpAddr,
    /// The node that it runs on: kube-proxy's local traffic goes by it.
    pub node: Option<String>,
    /// The ports, as [`ports::parse`] reads them.
    pub ports: Vec<Value>,
}

/// Whether traffic could go to `address`, as the API server sees it.
///
/// # Errors
/// Why not, in one sentence.
pub fn check_address(address: IpAddr) -> Result<(), String> {
    let kind = match address {
        _ if address.is_unspecified() => "unspecified",
        _ if address.is_loopback() => "loopback",
        _ if address.is_multicast() => "multicast",
        IpAddr::V4(four) if four.is_link_local() => "link-local",
        IpAddr::V6(six) if six.is_unicast_link_local() => "link-local",
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => "IPv4 in IPv6 notation",
        _ => return Ok(()),
    };
    Err(format!("{address} is {kind}, and no traffic could go there"))
}

/// The Endpoints of one Service. Clones share what is known of it.
#[derive(Clone)]
pub struct Endpoints(Rc<Shared>);

struct Shared {
    sessions: Sessions,
    target: Target,
    /// The object as it was found last, if it was there, for the next publication.
    found: RefCell<Option<Option<Value>>>,
    /// The object as this member has published it.
    last: RefCell<Option<Value>>,
    /// A publication was sent, and nobody knows whether it took effect, or will.
    unsettled: Cell<bool>,
}

/// What an answer says.
#[derive(Debug, PartialEq)]
enum Answer {
    Found(Found),
    Unauthorized(String),
    Throttled(Duration),
    Refused(String),
}

/// What it says of the object.
#[derive(Debug, PartialEq)]
enum Found {
    /// This is it now.
    Object(Value),
    Absent,
    /// It exists already, or is another object or version.
    Conflict,
}

impl Endpoints {
    /// Nothing is read or asked yet.
    pub fn new(access: Access, target: Target) -> Self {
        Self(Rc::new(Shared {
            sessions: Sessions::new(access),
            target,
            found: RefCell::default(),
            last: RefCell::default(),
            unsettled: Cell::new(false),
        }))
    }
}

impl Route for Endpoints {
    fn prepare(&self) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            let found = shared.get().await?;
            shared.found.replace(Some(found));
            Ok(())
        })
    }

    fn publish(&self, token: Token) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.publish(token).await })
    }

    fn withdraw(&self, token: Token) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.withdraw(token).await })
    }
}

impl Shared {
    async fn publish(&self, token: Token) -> Result<(), String> {
        self.last.replace(None);
        for _ in 0..TRIES_MAX {
            let found = self.found.take();
            let before = match found {
                Some(before) => before,
                None => self.get().await?,
            };
            let newer = before.as_ref().and_then(token_of).filter(|published| *published > token);
            if let Some(newer) = newer {
                return Err(format!("{self} is published with token {newer}, which is newer than {token}"));
            }
            if before.as_ref().is_some_and(is_managed) {
                tracing::warn!("{self} may be overwritten by Kubernetes itself: the Service must have no selector");
            }
            let wanted = encode(before.as_ref(), &self.target, &[self.target.subset()], token);
            self.unsettled.set(true);
            let answer = self.put(before.is_some(), &wanted).await?;
            self.unsettled.set(false);
            if let Some(stored) = answer {
                if token_of(&stored) != Some(token) {
                    return Err(format!("the API server's answer shows another {self} than the one that was sent"));
                }
                tracing::info!("{self} is published: {} with token {token}", self.target.address);
                self.last.replace(Some(stored));
                return Ok(());
            }
        }
        Err(format!("{self} was changed by others {TRIES_MAX} times meanwhile"))
    }

    async fn withdraw(&self, token: Token) -> Result<(), String> {
        let mut known = self.last.take();
        let is_unsettled = self.unsettled.take();
        if known.is_none() && !is_unsettled {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let before = match known.take() {
                Some(published) => Some(published),
                None => self.get().await?,
            };
            let published = before.as_ref().and_then(token_of);
            // What is still on its way meets another version after a write, and has no effect. Whatever stands there with
            // a smaller token or none is older than this activation.
            if published != Some(token) && !(is_unsettled && published < Some(token)) {
                return Ok(());
            }
            let emptied = encode(before.as_ref(), &self.target, &[], token);
            if self.put(before.is_some(), &emptied).await?.is_some() {
                tracing::info!("{self} is withdrawn");
                return Ok(());
            }
        }
        Err(format!("{self} was changed by others {TRIES_MAX} times meanwhile"))
    }

    async fn get(&self) -> Result<Option<Value>, String> {
        match self.ask("get", Method::GET, self.target.path(), Vec::new()).await? {
            Found::Object(object) => Ok(Some(object)),
            Found::Absent => Ok(None),
            Found::Conflict => Err("the API server answered with a conflict where nothing was written".to_owned()),
        }
    }

    /// The object as it is stored; nothing where it has become another one meanwhile.
    async fn put(&self, exists: bool, wanted: &Value) -> Result<Option<Value>, String> {
        let body = wanted.to_string().into_bytes();
        let found = match exists {
            true => self.ask("update", Method::PUT, self.target.path(), body).await?,
            false => self.ask("create", Method::POST, self.target.collection(), body).await?,
        };
        match found {
            Found::Object(stored) => Ok(Some(stored)),
            Found::Absent | Found::Conflict => Ok(None),
        }
    }

    /// Asks until there is an answer on the object itself.
    async fn ask(&self, verb: &str, method: Method, path: String, body: Vec<u8>) -> Result<Found, String> {
        let mut is_renewed = false;
        for _ in 0..TRIES_MAX {
            let (status, headers, bytes) = self.call(method.clone(), path.clone(), body.clone()).await?;
            match judge(verb, &self.target, status, &headers, &bytes) {
                Answer::Found(found) => return Ok(found),
                // The credentials may have been rotated: the next call reads them anew.
                Answer::Unauthorized(_) if !is_renewed => {
                    is_renewed = true;
                    self.sessions.forget();
                }
                Answer::Throttled(after) => sleep(after).await,
                Answer::Unauthorized(why) | Answer::Refused(why) => return Err(why),
            }
        }
        Err(format!("the API server asked {TRIES_MAX} times to wait"))
    }

    async fn call(
        &self,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
        let session = self.sessions.take().await.map_err(|error| error.to_string())?;
        let answer = session.call(request(method, path, body)?).await?;
        self.sessions.keep(session);
        Ok(answer)
    }
}

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoints {}/{}", self.target.namespace, self.target.service)
    }
}

impl Target {
    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/endpoints", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.service)
    }

    fn subset(&self) -> Value {
        let mut address = json!({"ip": self.address.to_string()});
        if let Some(node) = &self.node {
            address["nodeName"] = node.as_str().into();
        }
        json!({"addresses": [address], "ports": self.ports})
    }
}

/// The object that says `subsets`: `before` with what is ours in it replaced, or a new one.
fn encode(before: Option<&Value>, target: &Target, subsets: &[Value], token: Token) -> Value {
    let mut object = before.filter(|before| before.is_object()).cloned().unwrap_or_else(|| json!({}));
    object["apiVersion"] = "v1".into();
    object["kind"] = "Endpoints".into();
    object["subsets"] = subsets.into();
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({"name": target.service, "namespace": target.namespace});
    }
    // The server keeps the book of who manages which field.
    metadata["managedFields"] = Value::Null;
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][TOKEN] = token.to_string().into();
    object
}

/// Who published the object, if it was a member of ours.
fn token_of(object: &Value) -> Option<Token> {
    object["metadata"]["annotations"][TOKEN].as_str()?.parse().ok().map(Token)
}

fn is_managed(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY] == "endpoint-controller"
}

fn judge(verb: &str, target: &Target, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let details = &body["details"];
    let is_absent = details["kind"] == "endpoints" && details["name"] == target.service.as_str();
    let message = body["message"].as_str().unwrap_or_default();
    let shown: String = message.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let sentence = format!("the API server answered {status}: {shown}");
    match (status, retry_after(headers)) {
        _ if status.is_success() && body["kind"] == "Endpoints" => Answer::Found(Found::Object(body)),
        (StatusCode::NOT_FOUND, _) if is_absent => Answer::Found(Found::Absent),
        (StatusCode::CONFLICT, _) if body["kind"] == "Status" => Answer::Found(Found::Conflict),
        (StatusCode::UNAUTHORIZED, _) => Answer::Unauthorized(sentence),
        (StatusCode::TOO_MANY_REQUESTS, after) => Answer::Throttled(after.unwrap_or(WAIT)),
        (StatusCode::SERVICE_UNAVAILABLE, Some(after)) => Answer::Throttled(after),
        (StatusCode::FORBIDDEN, _) => Answer::Refused(format!("{sentence}; {}", missing(verb, target))),
        _ => Answer::Refused(sentence),
    }
}

/// The rule that allows `verb`, on one line.
fn missing(verb: &str, target: &Target) -> String {
    let Target { service, namespace, .. } = target;
    format!(
        "missing: verb {verb} on endpoints {service:?} in namespace {namespace:?}; add to the member's Role: \
         {{apiGroups: [\"\"], resources: [endpoints], verbs: [get, create, update]}}"
    )
}

#[cfg(test)]
mod calls;
#[cfg(test)]
mod tests;
