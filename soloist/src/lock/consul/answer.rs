//! What an answer of Consul means.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::connection::{Answered, Silence};
use super::entry::Entry;
use crate::lock::Failed;

/// Every answer about stored things says at which change it is true.
const INDEX: &str = "x-consul-index";
/// For who asks to wait without saying how long.
const WAIT_DEFAULT: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// So much of a foreign sentence is shown.
const SHOWN: usize = 200;

/// What a transaction was refused for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusals {
    errors: Option<Vec<Refusal>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    #[serde(default)]
    what: String,
}

/// What a transaction has done.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    results: Option<Vec<Outcome>>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(rename = "KV")]
    key: Option<Entry>,
}

impl From<Silence> for Failed {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Refused(why) => Failed::Denied(why),
            Silence::Unreachable(why) | Silence::Unanswered(why) => Failed::Unknown(why),
        }
    }
}

/// All that a read shows, keys or whatever else, and at which change that is true. Absence is Consul's own word only with
/// that number.
///
/// # Errors
/// Everything else.
pub fn listed<T: DeserializeOwned>(answered: &Answered, rule: &str) -> Result<(u64, Vec<T>), Failed> {
    match (answered.status, index(&answered.headers)) {
        (StatusCode::OK, Some(index)) => Ok((index, json(answered)?)),
        (StatusCode::NOT_FOUND, Some(index)) if answered.body.is_empty() => Ok((index, Vec::new())),
        _ => Err(failed(answered, rule)),
    }
}

/// The keys that a transaction has written, in the order of its operations.
///
/// # Errors
/// It was refused whole, or nobody knows.
pub fn transaction(answered: &Answered, rule: &str) -> Result<Vec<Entry>, Failed> {
    match answered.status {
        StatusCode::OK => {
            let results: Results = json(answered)?;
            Ok(results.results.unwrap_or_default().into_iter().filter_map(|outcome| outcome.key).collect())
        }
        StatusCode::CONFLICT => {
            let refusals: Refusals = json(answered)?;
            let refusals = refusals.errors.unwrap_or_default();
            match refusals.iter().map(|refusal| refused(&refusal.what, rule)).min_by_key(weight) {
                Some(failed) => Err(failed),
                None => Err(Failed::Unknown("Consul refused a transaction and did not say why".into())),
            }
        }
        _ => Err(failed(answered, rule)),
    }
}

/// What matters most of several refusals comes first.
fn weight(failed: &Failed) -> u8 {
    match failed {
        Failed::Denied(_) => 0,
        Failed::Lost(_) => 1,
        _ => 2,
    }
}

/// One operation's refusal. Nothing of a transaction that was refused is stored.
fn refused(what: &str, rule: &str) -> Failed {
    let says = |text: &str| what.contains(text);
    if says("ermission denied") || says("ACL not found") {
        Failed::Denied(forbidden(what, rule))
    } else if says("lock delay") {
        Failed::Lost("the session that held the key was lost, and Consul gives it to nobody for a while".into())
    } else if says("invalid session") {
        Failed::Lost("its session does not exist any more".into())
    } else if says("doesn't exist") {
        Failed::Absent
    } else if says("exists") || says("index") || says("session check") || says("held") {
        Failed::Conflict
    } else {
        Failed::Denied(format!("Consul refuses the write: {}", shown(what)))
    }
}

/// Whatever the answer brings, as JSON.
///
/// # Errors
/// It cannot be read.
pub fn json<T: DeserializeOwned>(answered: &Answered) -> Result<T, Failed> {
    serde_json::from_slice(&answered.body)
        .map_err(|error| Failed::Unknown(format!("the answer of Consul cannot be read: {error}")))
}

/// An answer that is no success. `rule` is the permission that it takes.
pub fn failed(answered: &Answered, rule: &str) -> Failed {
    let text = String::from_utf8_lossy(&answered.body);
    let sentence = format!("Consul answered {}: {}", answered.status, shown(&text));
    match answered.status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failed::Denied(forbidden(&text, rule)),
        StatusCode::TOO_MANY_REQUESTS => Failed::Throttled(retry_after(&answered.headers).unwrap_or(WAIT_DEFAULT)),
        StatusCode::SERVICE_UNAVAILABLE => match retry_after(&answered.headers) {
            Some(after) => Failed::Throttled(after),
            None => Failed::Unknown(sentence),
        },
        status
            if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status != StatusCode::NOT_FOUND =>
        {
            Failed::Denied(sentence)
        }
        _ => Failed::Unknown(sentence),
    }
}

fn forbidden(what: &str, rule: &str) -> String {
    format!("Consul does not permit it ({}): the token needs the rule {rule}", shown(what))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok();
    let seconds = text.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    Some(seconds.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX))
}

fn index(headers: &HeaderMap) -> Option<u64> {
    headers.get(INDEX)?.to_str().ok()?.parse().ok()
}

fn shown(text: &str) -> String {
    text.trim().chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RULE: &str = "key_prefix \"p/\" { policy = \"write\" }";

    fn answered(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answered {
        let headers = headers.iter().map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap()));
        let status = StatusCode::from_u16(status).unwrap();
        Answered { status, headers: headers.collect(), body: body.as_bytes().to_vec() }
    }

    fn transacted(errors: Value) -> Failed {
        transaction(&answered(409, &[], &json!({"Results": null, "Errors": errors}).to_string()), RULE).unwrap_err()
    }

    #[test]
    fn absence_is_the_word_of_consul_alone() {
        let index = [("x-consul-index", "12")];
        assert_eq!(listed::<Entry>(&answered(404, &index, ""), RULE), Ok((12, Vec::new())));
        for (status, headers, body) in [(404, &[][..], ""), (404, &index[..], "404 page not found"), (200, &[], "[]")] {
            let failed = listed::<Entry>(&answered(status, headers, body), RULE).unwrap_err();
            assert!(matches!(failed, Failed::Unknown(_)), "{status} {body:?}: {failed:?}");
        }
        let one = r#"[{"Key": "p/.lock", "ModifyIndex": 9, "Flags": 1}]"#;
        assert_eq!(listed::<Entry>(&answered(200, &index, one), RULE).unwrap().1[0].modify_index, 9);
        for body in ["", "null", "{}", "<html>", "[{}]"] {
            assert!(listed::<Entry>(&answered(200, &index, body), RULE).is_err(), "{body}");
        }
    }

    #[test]
    fn a_refused_transaction_is_told_by_its_reason() {
        let one = |what: &str| transacted(json!([{"OpIndex": 0, "What": what}]));
        assert_eq!(one("failed to check index, key \"p/.lock\" doesn't exist"), Failed::Absent);
        assert_eq!(one("failed index check for key \"p/.lock\", current modify index 9 != 8"), Failed::Conflict);
        assert_eq!(one("key \"p/.lock\" exists"), Failed::Conflict);
        assert_eq!(one("failed to lock key \"p/.lock\", lock is already held"), Failed::Conflict);
        assert_eq!(one("failed to delete key \"p/.lock\", index is stale"), Failed::Conflict);
        assert_eq!(one("failed session check for key \"p/.lock\", current session \"\" != \"s\""), Failed::Conflict);
        assert!(matches!(one("invalid session \"s\""), Failed::Lost(_)));
        assert!(matches!(one("failed to lock key \"p/.lock\" due to lock delay"), Failed::Lost(_)));
        assert!(matches!(one("Permission denied: token lacks permission"), Failed::Denied(why) if why.contains(RULE)));
        assert!(matches!(one("something new"), Failed::Denied(_)));
        let both = json!([{"OpIndex": 0, "What": "key exists"}, {"OpIndex": 1, "What": "Permission denied"}]);
        assert!(matches!(transacted(both), Failed::Denied(_)));
        assert!(matches!(transacted(json!([])), Failed::Unknown(_)));
    }

    #[test]
    fn statuses_are_judged_by_the_table() {
        let judge = |status, headers: &[(&'static str, &str)]| failed(&answered(status, headers, "why\n"), RULE);
        assert_eq!(judge(429, &[]), Failed::Throttled(Duration::from_secs(1)));
        assert_eq!(judge(429, &[("retry-after", "3")]), Failed::Throttled(Duration::from_secs(3)));
        assert_eq!(judge(503, &[("retry-after", "999999")]), Failed::Throttled(WAIT_MAX));
        for status in [301, 404, 408, 500, 502, 503, 504] {
            assert!(matches!(judge(status, &[]), Failed::Unknown(_)), "{status}");
        }
        for status in [400, 405, 413, 422] {
            assert!(matches!(judge(status, &[]), Failed::Denied(_)), "{status}");
        }
        for status in [401, 403] {
            assert!(matches!(judge(status, &[]), Failed::Denied(why) if why.contains(RULE)), "{status}");
        }
    }
}
