//! What requests mean for a lock, to the API server of Kubernetes and to Consul.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use serde_json::Value;

use super::upstream::Whole;

/// Where Consul takes transactions.
const TRANSACTION: &str = "/v1/txn";
/// The end of the name of a lock's key on Consul.
const LOCK_KEY: &str = "/.lock";

/// Whether this asks for changes that are still to come: a watch of Kubernetes, or a blocking query of Consul.
pub fn is_watch<B>(request: &Request<B>) -> bool {
    let is_mark = |part: &str| part == "watch=true" || part.starts_with("index=");
    request.uri().query().is_some_and(|query| query.split('&').any(is_mark))
}

/// Whether this changes a lock.
pub fn changes_lock(request: &Whole) -> bool {
    let path = request.uri().path();
    *request.method() != Method::GET
        && (path.contains("/leases") || path == TRANSACTION && written_key(&read(request.body())).is_some())
}

/// The holder that the body of a write names, and what differs from one of its renewals to the next: others write in a
/// Lease as well, and leave that as it is.
pub fn renewal(body: &[u8]) -> Option<(String, Value)> {
    let body = read(body);
    let (holder, mark) = match written_key(&body) {
        Some(text) => {
            let claim = read(&STANDARD.decode(text).ok()?)["claim"].take();
            let is_held = claim["state"] == "held";
            (claim["member"]["name"].as_str().filter(|_| is_held)?.to_owned(), claim)
        }
        None => (body["spec"]["holderIdentity"].as_str()?.to_owned(), body["spec"]["renewTime"].clone()),
    };
    Some((holder, mark))
}

/// What a transaction makes the value of the lock's key, in base64.
fn written_key(transaction: &Value) -> Option<&str> {
    let writes_lock = |operation: &&Value| operation["Key"].as_str().is_some_and(|key| key.ends_with(LOCK_KEY));
    let mut operations = transaction.as_array()?.iter().map(|operation| &operation["KV"]).filter(writes_lock);
    operations.find_map(|operation| operation["Value"].as_str())
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn transaction(key: &str, record: &Value) -> Whole {
        let check = json!({"KV": {"Verb": "check-index", "Key": key, "Index": 7}});
        let write = json!({"KV": {"Verb": "lock", "Key": key, "Value": STANDARD.encode(record.to_string())}});
        Request::put(TRANSACTION).body(Bytes::from(json!([check, write]).to_string())).unwrap()
    }

    fn record(state: &str, attempt: &str) -> Value {
        json!({"claim": {"state": state, "member": {"name": "a", "nonce": "n"}, "attempt": attempt}})
    }

    #[test]
    fn on_consul_a_transaction_about_the_lock_is_a_write_and_one_that_holds_it_a_renewal() {
        let first = transaction("p/.lock", &record("held", "1"));
        assert!(changes_lock(&first));
        let (holder, mark) = renewal(first.body()).unwrap();
        assert_eq!(holder, "a");
        assert_ne!(mark, renewal(transaction("p/.lock", &record("held", "2")).body()).unwrap().1);
        let released = transaction("p/.lock", &record("released", "3"));
        assert!(changes_lock(&released) && renewal(released.body()).is_none());
        assert!(!changes_lock(&transaction("p/.lock.soloist/members/n", &record("held", "1"))), "the board is no lock");
    }

    #[test]
    fn a_blocking_query_is_a_watch() {
        let is = |path: &str| is_watch(&Request::get(path).body(()).unwrap());
        assert!(is("/v1/kv/p/.lock?consistent&recurse&index=3&wait=30s") && is("/leases?watch=true"));
        assert!(!is("/v1/kv/p/.lock?consistent&recurse") && !is("/v1/kv/index=3"));
    }
}
