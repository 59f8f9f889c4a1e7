//! Calls to the API server about the objects of routes, with nothing hidden in them but bounded patience.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::answer::{NOT_ACCEPTED, retry_after};
use crate::lock::kubernetes::session::{Sessions, request};
use crate::patience::Late;

/// So often may the API server ask to wait before an operation fails.
const TRIES_MAX: u32 = 8;
/// Assumed where the API server asks to wait and does not say for how long.
const WAIT: Duration = Duration::from_secs(1);
/// So many objects come at once: Leases with all that members put there are some 16 KiB long.
const PAGE: usize = 50;
/// More pages than this are taken for a mistake.
const PAGES_MAX: usize = 1_000;
/// As much of the API server's text is shown as fits on a line.
const SHOWN: usize = 300;

/// Where objects of one kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its API group; empty for the core.
    pub group: &'static str,
    /// The version of it.
    pub version: &'static str,
    /// Their kind.
    pub kind: &'static str,
    /// The same in paths and Roles.
    pub plural: &'static str,
    /// The verbs that a member's Role needs for it.
    pub verbs: &'static str,
    /// The namespace that they are in; empty for what is in none.
    pub namespace: String,
}

impl Resource {
    /// As objects name it.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn collection(&self) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let root = format!("{root}/{}", self.api_version());
        match self.namespace.as_str() {
            "" => format!("{root}/{}", self.plural),
            namespace => format!("{root}/namespaces/{namespace}/{}", self.plural),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection())
    }

    /// An object as people call it.
    pub fn called(&self, name: &str) -> String {
        format!("{} {}/{name}", self.kind, self.namespace)
    }

    /// The rule that allows `verb`, on one line.
    fn missing(&self, verb: &str, name: &str) -> String {
        let Self { group, plural, verbs, namespace, .. } = self;
        let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let (place, role) = match namespace.as_str() {
            "" => (String::new(), "a ClusterRole".to_owned()),
            namespace => (format!(" in namespace {namespace:?}"), "the member's Role".to_owned()),
        };
        format!(
            "missing: verb {verb} on {plural}{name}{place}; add to {role}: \
             {{apiGroups: [{group:?}], resources: [{plural}], verbs: [{verbs}]}}"
        )
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// A rule is missing, which the text names.
    #[error("{0}")]
    Forbidden(String),
    /// Asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered, or not in a way that says anything.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Late> for Trouble {
    fn from(late: Late) -> Self {
        Trouble::Unavailable(late.into())
    }
}

/// How a write ended that did not fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// It is stored, as this.
    As(Value),
    /// It exists already, or does not exist, or is another object or version.
    Conflict,
}

/// Whether a write is to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Real,
    /// The API server checks everything and stores nothing.
    Trial,
}

/// How old a list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Nothing stored before the question is missing. The API server may wait for its own cache, for 100 ms.
    Newest,
    /// What the API server knows at the moment, at once.
    Any,
}

/// Who calls, on connections of its own.
pub struct Api {
    sessions: Sessions,
}

/// What one answer says.
#[derive(Debug, PartialEq)]
enum Answer {
    Found(Found),
    Unauthorized(String),
    Throttled(Duration),
    Trouble(Trouble),
}

/// What it says of the object.
#[derive(Debug, PartialEq)]
enum Found {
    /// This is it now.
    Object(Value),
    Absent,
    Conflict,
}

impl Api {
    /// Nothing is read or asked yet.
    pub fn new(access: Access) -> Self {
        Self { sessions: Sessions::new(access) }
    }

    /// For so many calls at the same moment.
    pub fn keeping(sessions_max: usize, access: Access) -> Self {
        Self { sessions: Sessions::keeping(sessions_max, access) }
    }

    /// The namespace that the credentials belong to.
    ///
    /// # Errors
    /// Credentials that cannot be used.
    pub async fn home(&self) -> Result<String, Trouble> {
        let session = self.sessions.take().await.map_err(|error| Trouble::Refused(error.to_string()))?;
        let home = session.namespace().to_owned();
        session.keep();
        Ok(home)
    }

    /// The object, if it exists.
    ///
    /// # Errors
    /// It is not known.
    pub async fn get(&self, of: &Resource, name: &str) -> Result<Option<Value>, Trouble> {
        match self.ask(Ask { verb: "get", of, name }, Method::GET, of.path(name), Vec::new()).await? {
            Found::Object(object) => Ok(Some(object)),
            Found::Absent => Ok(None),
            Found::Conflict => Err(Trouble::Unavailable(
                "the API server answered with a conflict where nothing was written".to_owned(),
            )),
        }
    }

    /// All objects with labels that fit `selector`.
    ///
    /// # Errors
    /// They are not known.
    pub async fn list(&self, of: &Resource, selector: &str, age: Age) -> Result<Vec<Value>, Trouble> {
        let path = format!("{}?labelSelector={}{}", of.collection(), escaped(selector), age.query());
        Ok(self.page(of, path).await?.0)
    }

    /// All objects, in pages that an answer has room for.
    ///
    /// # Errors
    /// They are not known.
    pub async fn pages(&self, of: &Resource) -> Result<Vec<Value>, Trouble> {
        let (mut all, mut rest) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let path = format!("{}?limit={PAGE}{rest}", of.collection());
            let (items, token) = self.page(of, path).await?;
            all.extend(items);
            match token.as_str() {
                "" => return Ok(all),
                token => rest = format!("&continue={token}"),
            }
        }
        Err(Trouble::Unavailable(format!("there are more than {} {}", PAGES_MAX * PAGE, of.plural)))
    }

    async fn page(&self, of: &Resource, path: String) -> Result<(Vec<Value>, String), Trouble> {
        match self.ask(Ask { verb: "list", of, name: "" }, Method::GET, path, Vec::new()).await? {
            Found::Object(mut list) => {
                let rest = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
                match list["items"].take() {
                    Value::Array(items) => Ok((items, rest)),
                    _ => Ok((Vec::new(), rest)),
                }
            }
            Found::Absent | Found::Conflict => Err(Trouble::Unavailable("the API server lists nothing".to_owned())),
        }
    }

    /// Replaces the object whose resource version `wanted` quotes.
    ///
    /// # Errors
    /// It is not known whether it was stored, or it was not and never will be.
    pub async fn put(&self, of: &Resource, name: &str, wanted: &Value, mode: Mode) -> Result<Stored, Trouble> {
        let path = of.path(name) + mode.query();
        self.store(Ask { verb: "update", of, name }, Method::PUT, path, wanted).await
    }

    /// Changes what `wanted` names in the object whose resource version it quotes.
    ///
    /// # Errors
    /// As [`Api::put`].
    pub async fn patch(&self, of: &Resource, name: &str, wanted: &Value) -> Result<Stored, Trouble> {
        self.store(Ask { verb: "patch", of, name }, Method::PATCH, of.path(name), wanted).await
    }

    /// Deletes the object that `options` describe.
    ///
    /// # Errors
    /// As [`Api::put`].
    pub async fn delete(&self, of: &Resource, name: &str, options: &Value) -> Result<Stored, Trouble> {
        self.store(Ask { verb: "delete", of, name }, Method::DELETE, of.path(name), options).await
    }

    /// Creates the object.
    ///
    /// # Errors
    /// As [`Api::put`].
    pub async fn post(&self, of: &Resource, name: &str, wanted: &Value) -> Result<Stored, Trouble> {
        self.store(Ask { verb: "create", of, name }, Method::POST, of.collection(), wanted).await
    }

    async fn store(&self, ask: Ask<'_>, method: Method, path: String, wanted: &Value) -> Result<Stored, Trouble> {
        match self.ask(ask, method, path, wanted.to_string().into_bytes()).await? {
            Found::Object(stored) => Ok(Stored::As(stored)),
            Found::Absent | Found::Conflict => Ok(Stored::Conflict),
        }
    }

    /// Asks until there is an answer on the object itself.
    async fn ask(&self, ask: Ask<'_>, method: Method, path: String, body: Vec<u8>) -> Result<Found, Trouble> {
        let mut is_renewed = false;
        for _ in 0..TRIES_MAX {
            let (status, headers, bytes) = self.call(method.clone(), path.clone(), body.clone()).await?;
            match ask.judge(status, &headers, &bytes) {
                Answer::Found(found) => return Ok(found),
                // The credentials may have been rotated: the next call reads them anew.
                Answer::Unauthorized(_) if !is_renewed => {
                    is_renewed = true;
                    self.sessions.forget();
                }
                Answer::Throttled(after) => sleep(after).await,
                Answer::Unauthorized(why) => return Err(Trouble::Refused(why)),
                Answer::Trouble(trouble) => return Err(trouble),
            }
        }
        Err(Trouble::Unavailable(format!("the API server asked {TRIES_MAX} times to wait")))
    }

    /// A session that disappoints is not kept.
    async fn call(
        &self,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Trouble> {
        let session = self.sessions.take().await.map_err(|error| Trouble::Unavailable(error.to_string()))?;
        let request = request(method, path, body).map_err(Trouble::Refused)?;
        let answer = session.call(request).await.map_err(Trouble::Unavailable)?;
        session.keep();
        Ok(answer)
    }
}

impl Age {
    fn query(self) -> &'static str {
        match self {
            Age::Newest => "",
            Age::Any => "&resourceVersion=0",
        }
    }
}

impl Mode {
    fn query(self) -> &'static str {
        match self {
            Mode::Real => "",
            Mode::Trial => "?dryRun=All",
        }
    }
}

/// As a value of a query: what label keys and values are made of, and what selectors put between them.
fn escaped(selector: &str) -> String {
    selector.replace('/', "%2F").replace('=', "%3D").replace(',', "%2C")
}

/// One request, as an answer is read.
#[derive(Clone, Copy)]
struct Ask<'a> {
    verb: &'a str,
    of: &'a Resource,
    name: &'a str,
}

impl Ask<'_> {
    fn judge(self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let details = &body["details"];
        let is_absent = details["kind"] == self.of.plural && details["name"] == self.name;
        let message = body["message"].as_str().unwrap_or_default();
        let shown: String = message.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let sentence = format!("the API server answered {status}: {shown}");
        match (status, retry_after(headers)) {
            _ if status.is_success() && self.is_expected(&body) => Answer::Found(Found::Object(body)),
            (StatusCode::NOT_FOUND, _) if is_absent => Answer::Found(Found::Absent),
            (StatusCode::CONFLICT, _) if body["kind"] == "Status" => Answer::Found(Found::Conflict),
            (StatusCode::UNAUTHORIZED, _) => Answer::Unauthorized(format!("{NOT_ACCEPTED}: {sentence}")),
            (StatusCode::TOO_MANY_REQUESTS, after) => Answer::Throttled(after.unwrap_or(WAIT)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(after)) => Answer::Throttled(after),
            // Admission forbids as well, and no Role helps there.
            (StatusCode::FORBIDDEN, _) if message.contains(" cannot ") => {
                let rule = self.of.missing(self.verb, self.name);
                Answer::Trouble(Trouble::Forbidden(format!("{sentence}; {rule}")))
            }
            _ if status.is_client_error() && body["kind"] == "Status" => Answer::Trouble(Trouble::Refused(sentence)),
            _ => Answer::Trouble(Trouble::Unavailable(sentence)),
        }
    }

    fn is_expected(self, body: &Value) -> bool {
        let kind = body["kind"].as_str().unwrap_or_default();
        match self.verb {
            "list" => kind.strip_suffix("List") == Some(self.of.kind),
            // What was deleted at once is shown by some, and by others only that it was.
            "delete" => kind == self.of.kind || kind == "Status",
            _ => kind == self.of.kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::route::endpoints;

    fn judged(verb: &str, status: u16, header: Option<&str>, body: &Value) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("retry-after", value.parse().unwrap());
        }
        let of = endpoints::resource("prod");
        let ask = Ask { verb, of: &of, name: "app" };
        ask.judge(StatusCode::from_u16(status).unwrap(), &headers, body.to_string().as_bytes())
    }

    #[test]
    fn only_the_word_on_the_object_itself_counts() {
        let object = json!({"kind": "Endpoints", "metadata": {}});
        assert_eq!(judged("update", 200, None, &object), Answer::Found(Found::Object(object.clone())));
        assert_eq!(judged("create", 201, None, &object), Answer::Found(Found::Object(object.clone())));
        let absent = json!({"kind": "Status", "details": {"kind": "endpoints", "name": "app"}});
        assert_eq!(judged("get", 404, None, &absent), Answer::Found(Found::Absent));
        assert_eq!(judged("update", 409, None, &absent), Answer::Found(Found::Conflict));
        assert_eq!(judged("get", 429, Some("3"), &absent), Answer::Throttled(Duration::from_secs(3)));
        assert_eq!(judged("get", 429, None, &Value::Null), Answer::Throttled(WAIT));
        assert_eq!(judged("get", 503, Some("2"), &Value::Null), Answer::Throttled(Duration::from_secs(2)));
        assert!(matches!(judged("get", 401, None, &absent), Answer::Unauthorized(_)));
        let other = json!({"kind": "Status", "details": {"kind": "namespaces", "name": "prod"}});
        assert!(matches!(judged("get", 404, None, &other), Answer::Trouble(Trouble::Refused(_))));
        for (status, body) in [(200, &absent), (404, &Value::Null), (409, &Value::Null), (503, &absent), (500, &absent)]
        {
            let answer = judged("update", status, None, body);
            assert!(matches!(answer, Answer::Trouble(Trouble::Unavailable(_))), "{status} {body}");
        }
        assert!(matches!(judged("list", 200, None, &object), Answer::Trouble(_)), "one object is no list");
        let list = json!({"kind": "EndpointsList", "items": []});
        assert_eq!(judged("list", 200, None, &list), Answer::Found(Found::Object(list.clone())));
    }

    #[test]
    fn a_missing_permission_names_the_rule() {
        let body = json!({"kind": "Status", "message": "User \"u\" cannot update\nresource \"endpoints\""});
        let Answer::Trouble(Trouble::Forbidden(why)) = judged("update", 403, None, &body) else {
            panic!("not forbidden")
        };
        for part in ["User \"u\" cannot update resource", "verb update", "\"app\"", "\"prod\"", "[get, create, update]"]
        {
            assert!(why.contains(part), "{part}: {why}");
        }
        let webhook = json!({"kind": "Status", "message": "admission webhook \"w\" denied the request: no"});
        let answer = judged("update", 403, None, &webhook);
        assert!(matches!(&answer, Answer::Trouble(Trouble::Refused(why)) if !why.contains("Role")), "{answer:?}");
    }

    #[test]
    fn selectors_fit_into_a_query() {
        assert_eq!(escaped("example.com/role=active"), "example.com%2Frole%3Dactive");
    }
}
