//! What an answer of the API server means to a lock. Only what it says of the Lease itself is believed: anything else
//! on the way (proxies, load balancers) answers too.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use super::ObjectName;
use super::rule::{Verb, missing};

/// Assumed where a server asks to wait and does not say for how long, or not in seconds.
const WAIT: Duration = Duration::from_secs(1);
/// Nobody is believed who asks for more.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What is said of credentials that were good once, or never were.
pub const NOT_ACCEPTED: &str = "the API server does not accept the credentials, which may have expired";
/// As much of a text is shown as fits on a line.
const SHOWN: usize = 300;

/// What came of one request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The Lease as it is now.
    Lease(Value),
    /// The Lease does not exist.
    Absent,
    /// Not stored: it exists already, or is another version or another object.
    Conflict,
    /// The credentials are not accepted (any more).
    Unauthorized(String),
    /// Not done, and asking again will not help.
    Denied(String),
    /// Not done: ask again after this.
    Throttled(Duration),
    /// Nobody knows what happened.
    Unclear(String),
}

/// One request, as an answer is read.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What was asked.
    pub verb: Verb,
    /// Of which Lease.
    pub place: &'a ObjectName,
}

impl Ask<'_> {
    /// Reads a whole answer.
    pub fn judge(self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let said = Said { status, body: &body };
        match status {
            _ if status.is_success() => match body {
                Value::Object(_) if body["kind"] == self.place.kind.word() => self.shown(body),
                _ => Answer::Unclear(format!("{status}, but what came is no {}", self.place.kind.word())),
            },
            StatusCode::UNAUTHORIZED => Answer::Unauthorized(format!("{NOT_ACCEPTED}: {}", said.sentence())),
            StatusCode::TOO_MANY_REQUESTS => Answer::Throttled(retry_after(headers).unwrap_or(WAIT)),
            StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(RETRY_AFTER) => {
                Answer::Throttled(retry_after(headers).unwrap_or(WAIT))
            }
            StatusCode::NOT_FOUND if said.names(self.place) => Answer::Absent,
            StatusCode::NOT_FOUND if self.verb == Verb::Create && said.is_status() => Answer::Denied(said.sentence()),
            StatusCode::CONFLICT if said.is_status() => Answer::Conflict,
            StatusCode::FORBIDDEN if said.is_about_roles() => {
                Answer::Denied(format!("{}; {}", said.sentence(), missing(self.verb, self.place)))
            }
            StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => Answer::Denied(said.sentence()),
            _ if status.is_client_error() && said.is_refusal() => Answer::Denied(said.sentence()),
            // Redirects too: who follows one hands the credentials to whoever sent it.
            _ => Answer::Unclear(said.sentence()),
        }
    }
}

impl Ask<'_> {
    fn shown(self, object: Value) -> Answer {
        match self.place.refusal(self.verb, &object) {
            Some(why) => Answer::Denied(why),
            None => Answer::Lease(self.place.kind.read(object)),
        }
    }
}

/// How long the server asks to wait, where it says so in seconds.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

/// The error of an API server, if it is one.
struct Said<'a> {
    status: StatusCode,
    body: &'a Value,
}

impl Said<'_> {
    fn is_status(&self) -> bool {
        self.body["kind"] == "Status"
    }

    /// Not a matter of time or of the way there.
    fn is_refusal(&self) -> bool {
        let is_passing = matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::NOT_FOUND | StatusCode::GONE);
        self.is_status() && !is_passing && self.status != StatusCode::CONFLICT
    }

    /// A 404 of something on the way, or of an API group that is not served, is no word on the Lease.
    fn names(&self, place: &ObjectName) -> bool {
        let details = &self.body["details"];
        self.is_status() && details["kind"] == place.kind.resource() && details["name"] == place.name.as_str()
    }

    /// Admission webhooks and namespaces that are being deleted forbid as well; no Role helps there.
    fn is_about_roles(&self) -> bool {
        let message = self.body["message"].as_str().unwrap_or_default();
        self.body["details"]["causes"].is_null() && (message.contains(" cannot ") || !self.is_status())
    }

    fn sentence(&self) -> String {
        match self.body["message"].as_str() {
            Some(message) => {
                let shown: String = message.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
                format!("the API server answered {}: {shown}", self.status)
            }
            None => format!("the API server answered {}", self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge_with(verb: Verb, status: u16, header: Option<&str>, body: &str) -> Answer {
        let place = ObjectName::lease("prod", "app");
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        Ask { verb, place: &place }.judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    fn judge(verb: Verb, status: u16, body: Value) -> Answer {
        judge_with(verb, status, None, &body.to_string())
    }

    fn denied(answer: Answer) -> String {
        match answer {
            Answer::Denied(why) => why,
            other => panic!("not denied: {other:?}"),
        }
    }

    fn is_unclear(answer: &Answer) -> bool {
        matches!(answer, Answer::Unclear(_))
    }

    #[test]
    fn only_a_lease_is_success() {
        let lease = json!({"kind": "Lease", "metadata": {}});
        assert_eq!(judge(Verb::Get, 200, lease.clone()), Answer::Lease(lease.clone()));
        assert_eq!(judge(Verb::Create, 201, lease.clone()), Answer::Lease(lease));
        for body in ["", "<html>", "{}", "[]", "null", "{\"kind\":\"Status\"}", "{\"kind\":\"Lease\""] {
            assert!(is_unclear(&judge_with(Verb::Update, 200, None, body)), "{body:?}");
        }
    }

    #[test]
    fn only_the_word_of_the_leases_own_api_is_absence() {
        let absent = json!({"kind": "Status", "reason": "NotFound", "details": {"kind": "leases", "name": "app"}});
        assert_eq!(judge(Verb::Get, 404, absent.clone()), Answer::Absent);
        assert_eq!(judge(Verb::Update, 404, absent), Answer::Absent);
        let others = [
            json!({"kind": "Status", "details": {"kind": "leases", "name": "other"}}),
            json!({"kind": "Status", "details": {"kind": "pods", "name": "app"}}),
            json!({"kind": "Status", "message": "the server could not find the requested resource"}),
            json!({"details": {"kind": "leases", "name": "app"}}),
        ];
        for body in others {
            assert!(is_unclear(&judge(Verb::Get, 404, body)));
        }
        assert!(is_unclear(&judge_with(Verb::Get, 404, None, "404 page not found")));
        let namespace = json!({"kind": "Status", "message": "namespaces \"prod\" not found",
            "details": {"kind": "namespaces", "name": "prod"}});
        assert!(denied(judge(Verb::Create, 404, namespace)).contains("namespaces \"prod\" not found"));
    }

    #[test]
    fn conflicts_are_those_of_the_api_server() {
        for reason in ["Conflict", "AlreadyExists"] {
            assert_eq!(judge(Verb::Update, 409, json!({"kind": "Status", "reason": reason})), Answer::Conflict);
        }
        assert!(is_unclear(&judge_with(Verb::Update, 409, None, "")));
    }

    #[test]
    fn a_missing_permission_names_the_rule() {
        let body = json!({"kind": "Status", "message": "leases.coordination.k8s.io \"app\" is forbidden: User \"u\" \
            cannot update resource \"leases\" in API group \"coordination.k8s.io\"",
            "details": {"kind": "leases", "name": "app"}});
        let why = denied(judge(Verb::Update, 403, body.clone()));
        for part in ["User \"u\"", "verb update", "\"app\"", "\"prod\"", "resourceNames: [app]", "get, watch, update"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let why = denied(judge(Verb::Create, 403, body));
        assert!(why.contains("verb create") && !why.contains("resourceNames"), "{why}");
        let webhook = json!({"kind": "Status", "message": "admission webhook \"w\" denied the request: no"});
        let why = denied(judge(Verb::Update, 403, webhook));
        assert!(why.contains("webhook") && !why.contains("Role"), "{why}");
        let terminating = json!({"kind": "Status", "message": "unable to create: cannot, it is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating"}]}});
        assert!(!denied(judge(Verb::Create, 403, terminating)).contains("Role"));
    }

    #[test]
    fn what_is_refused_for_good_is_denied() {
        for status in [400, 403, 405, 413, 415, 422] {
            let why = denied(judge(Verb::Update, status, json!({"kind": "Status", "message": "line\nbreak"})));
            assert!(why.contains("line break"), "{why}");
        }
        denied(judge_with(Verb::Update, 422, None, ""));
        assert!(matches!(judge(Verb::Get, 401, json!({"kind": "Status"})), Answer::Unauthorized(_)));
    }

    #[test]
    fn who_asks_to_wait_is_believed_within_bounds() {
        let table = [
            (429, Some("3"), Some(3)),
            (429, None, Some(1)),
            (429, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some(1)),
            (429, Some("-1"), Some(1)),
            (429, Some("999999"), Some(60)),
            (503, Some("2"), Some(2)),
            (503, Some("x"), Some(1)),
            (503, None, None),
        ];
        for (status, header, seconds) in table {
            let answer = judge_with(Verb::Update, status, header, "");
            match seconds {
                Some(seconds) => assert_eq!(answer, Answer::Throttled(Duration::from_secs(seconds)), "{header:?}"),
                None => assert!(is_unclear(&answer)),
            }
        }
    }

    #[test]
    fn everything_else_is_unclear() {
        for status in [100, 301, 302, 307, 308, 404, 408, 409, 410, 418, 500, 502, 504, 599] {
            assert!(is_unclear(&judge_with(Verb::Update, status, None, "<html>")), "{status}");
        }
        assert!(is_unclear(&judge(Verb::Update, 500, json!({"kind": "Status", "message": "etcd"}))));
        assert!(is_unclear(&judge(Verb::Update, 504, json!({"kind": "Status", "reason": "Timeout"}))));
    }
}
