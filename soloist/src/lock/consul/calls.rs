//! Single calls to Consul about one lock and what is kept beside it.

use std::time::Duration;

use http::header::DATE;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::Access;
use super::answer;
use super::client::{Client, spelled};
use super::connection::Answered;
use super::entry::{Entry, LOCK_FLAGS, encode_value};
use crate::lock::Failed;

/// The names of the keys of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Those that begin with `prefix`.
    pub fn of(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What all of them begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The lock itself, where `consul lock` has it.
    pub fn lock(&self) -> String {
        format!("{}/.lock", self.prefix)
    }

    /// What the lock, the board and nothing else begin with.
    pub fn all(&self) -> String {
        self.lock()
    }

    /// What the posts of the board begin with. No semaphore of `consul lock` has such keys.
    pub fn posts(&self) -> String {
        format!("{}.soloist/", self.lock())
    }

    /// What it takes to write them, as it stands in a policy.
    fn rule(&self) -> String {
        format!("key_prefix {:?} {{ policy = \"write\" }}", format!("{}/", self.prefix))
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation(Value);

impl Operation {
    fn new(verb: &str, key: &str, rest: Value) -> Self {
        let mut fields = json!({"Verb": verb, "Key": key});
        if let (Some(fields), Value::Object(rest)) = (fields.as_object_mut(), rest) {
            fields.extend(rest);
        }
        Self(json!({ "KV": fields }))
    }

    /// The key must not exist.
    pub fn check_absent(key: &str) -> Self {
        Self::new("check-not-exists", key, json!({}))
    }

    /// The key must be at this change.
    pub fn check_index(key: &str, index: u64) -> Self {
        Self::new("check-index", key, json!({ "Index": index }))
    }

    /// This session must hold the key.
    pub fn check_session(key: &str, session: &str) -> Self {
        Self::new("check-session", key, json!({ "Session": session }))
    }

    /// Deletes the key, which must be at this change.
    pub fn delete(key: &str, index: u64) -> Self {
        Self::new("delete-cas", key, json!({ "Index": index }))
    }

    /// Deletes the key, which this transaction has written.
    fn delete_again(key: &str) -> Self {
        Self::new("delete", key, json!({}))
    }

    /// Writes the key and has the session hold it.
    pub fn lock(key: &str, text: &str, session: &str) -> Self {
        let rest = json!({"Value": encode_value(text), "Flags": LOCK_FLAGS, "Session": session});
        Self::new("lock", key, rest)
    }

    /// Writes the key, which the session holds, and has it let go.
    pub fn unlock(key: &str, text: &str, session: &str) -> Self {
        let rest = json!({"Value": encode_value(text), "Flags": LOCK_FLAGS, "Session": session});
        Self::new("unlock", key, rest)
    }

    /// Writes the key as a lock that nobody holds.
    pub fn set_lock(key: &str, text: &str) -> Self {
        Self::new("set", key, json!({"Value": encode_value(text), "Flags": LOCK_FLAGS}))
    }

    /// Writes the key.
    pub fn set(key: &str, text: &str) -> Self {
        Self::new("set", key, json!({"Value": encode_value(text)}))
    }
}

/// Who calls.
pub struct Calls {
    client: Client,
    keys: Keys,
}

impl Calls {
    /// Nothing is read or sent yet.
    pub fn new(access: Access, keys: Keys) -> Self {
        Self { client: Client::new(access), keys }
    }

    /// One more caller, with connections of its own.
    pub fn beside(&self) -> Self {
        Self { client: self.client.beside(), keys: self.keys.clone() }
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The next call opens a fresh connection.
    pub fn forget(&self) {
        self.client.forget();
    }

    /// The lock as the leader has it, and at which change that is true.
    pub async fn get(&self) -> Result<(u64, Option<Entry>), Failed> {
        let answered = self.read(&self.keys.lock(), "consistent").await?;
        let (index, keys) = answer::listed(&answered, &self.keys.rule())?;
        Ok((index, keys.into_iter().next()))
    }

    /// All keys that begin with `prefix`, as the leader has them.
    pub async fn list(&self, prefix: &str) -> Result<(u64, Vec<Entry>), Failed> {
        let answered = self.read(prefix, "consistent&recurse").await?;
        answer::listed(&answered, &self.keys.rule())
    }

    /// The same once something has changed after `index`, or when `wait` has passed.
    pub async fn list_after(&self, prefix: &str, index: u64, wait: Duration) -> Result<(u64, Vec<Entry>), Failed> {
        let query = format!("consistent&recurse&index={index}&wait={}s", wait.as_secs());
        let answered = self.read(prefix, &query).await?;
        answer::listed(&answered, &self.keys.rule())
    }

    /// The time in the head of an answer.
    pub async fn date(&self) -> Result<Option<String>, Failed> {
        let answered = self.client.call(Method::GET, "/v1/status/leader", "", Vec::new()).await?;
        Ok(answered.headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
    }

    async fn read(&self, key: &str, query: &str) -> Result<Answered, Failed> {
        self.client.call(Method::GET, &format!("/v1/kv/{}", spelled(key)), query, Vec::new()).await
    }

    /// Does all of `operations` or nothing, and shows the keys that were written or checked.
    pub async fn transact(&self, operations: &[Operation]) -> Result<Vec<Entry>, Failed> {
        let body = Value::from_iter(operations.iter().map(|operation| operation.0.clone()));
        let answered = self.client.call(Method::PUT, "/v1/txn", "", body.to_string().into_bytes()).await?;
        let result = answer::transaction(&answered, &self.keys.rule());
        if matches!(result, Err(Failed::Denied(_))) {
            // The token may be another one by now.
            self.forget();
        }
        result
    }

    /// Writes a key among the posts and deletes it in the same transaction, so that nobody ever sees it.
    ///
    /// Where no key is, Consul answers a query with the last change of all its keys, and so at each renewal of any lock. It
    /// remembers a deleted key for a quarter of an hour, and answers with that change meanwhile.
    pub async fn leave_trace(&self) -> Result<(), Failed> {
        let key = format!("{}trace", self.keys.posts());
        self.transact(&[Operation::set(&key, ""), Operation::delete_again(&key)]).await.map(drop)
    }

    /// A new session, by its id.
    pub async fn create_session(&self, wanted: &Value) -> Result<String, Failed> {
        let body = wanted.to_string().into_bytes();
        let answered = self.client.call(Method::PUT, "/v1/session/create", "", body).await?;
        if answered.status != StatusCode::OK {
            return Err(answer::failed(&answered, SESSION_RULE));
        }
        let created: Value = answer::json(&answered)?;
        match created["ID"].as_str() {
            Some(id) if !id.is_empty() => Ok(id.to_owned()),
            _ => Err(Failed::Unknown("Consul made a session without an id".into())),
        }
    }

    /// Lets a session live on; absent where it does not live any more.
    pub async fn renew_session(&self, id: &str) -> Result<(), Failed> {
        let answered =
            self.client.call(Method::PUT, &format!("/v1/session/renew/{}", spelled(id)), "", Vec::new()).await?;
        match answered.status {
            StatusCode::OK => Ok(()),
            // Not of something on the way: only Consul names the session.
            StatusCode::NOT_FOUND if String::from_utf8_lossy(&answered.body).contains(id) => Err(Failed::Absent),
            _ => Err(answer::failed(&answered, SESSION_RULE)),
        }
    }

    /// A session as Consul shows it.
    #[cfg(test)]
    pub async fn show_session(&self, id: &str) -> Vec<Value> {
        let answered = self.client.call(Method::GET, &format!("/v1/session/info/{id}"), "", Vec::new()).await;
        answer::json(&answered.unwrap()).unwrap()
    }

    /// Ends an own session.
    pub async fn destroy_session(&self, id: &str) -> Result<(), Failed> {
        let answered =
            self.client.call(Method::PUT, &format!("/v1/session/destroy/{}", spelled(id)), "", Vec::new()).await?;
        if answered.status == StatusCode::OK { Ok(()) } else { Err(answer::failed(&answered, SESSION_RULE)) }
    }
}

/// What it takes to make and renew a session.
const SESSION_RULE: &str = "session_prefix \"\" { policy = \"write\" } (or session \"NODE\" of the agent's node)";
