//! The Consul of the testbed, as whoever may do everything there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::relay::{Line, Relay, Upstream};

/// Longer than an answer takes.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One server, or several behind one address, that `testbed/run consul` has started around this process.
#[derive(Debug)]
pub struct Consul {
    program: PathBuf,
    url: String,
    upstream: Upstream,
    token: Option<String>,
}

/// A key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The number of its last change.
    pub index: u64,
    /// The session that holds it, if one does.
    pub session: Option<String>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Entry {
    /// The value as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.value).unwrap_or_default()
    }
}

/// How a call went, as Consul sees it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Consul {
    /// The one that the environment names.
    pub fn connect() -> Result<Self> {
        Self::at("CONSUL_HTTP_ADDR")
    }

    /// The one whose address this variable of the environment holds.
    pub fn at(variable: &str) -> Result<Self> {
        let program = std::env::var_os("CONSUL").context("this test needs a real Consul: make consul")?;
        let url = std::env::var(variable).with_context(|| format!("no {variable}"))?;
        let token = std::env::var("TESTBED_CONSUL_ROOT_TOKEN").ok();
        Ok(Self { program: program.into(), upstream: upstream(&url)?, url, token })
    }

    /// Consul's own program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The beginning of keys that nobody has used in this run.
    pub fn prefix(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("test/{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// What Consul's own program prints; fails if it does.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(words).env("CONSUL_HTTP_ADDR", &self.url);
        let output = command.envs(self.token.iter().map(|token| ("CONSUL_HTTP_TOKEN", token))).output();
        let output = output.with_context(|| format!("failed to run {}", self.program.display()))?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "consul {} failed: {}", words.join(" "), message.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Does `save` or `restore` with all that is stored, and this file.
    pub fn snapshot(&self, verb: &str, file: &Path) -> Result<()> {
        self.run(&["snapshot", verb, file.to_str().context("a name that is no text")?]).map(drop)
    }

    /// One call, whatever comes of it.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = request.body(body)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asking = async {
                let response = Line::new(self.upstream.clone()).send(request).await?;
                let status = response.status();
                anyhow::Ok(Answer { status, body: response.into_body().collect().await?.to_bytes() })
            };
            // One of several servers may hang.
            timeout(ANSWER_LIMIT, asking).await.context("Consul does not answer")?
        })
    }

    /// Changes something; fails if Consul does not.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.call("PUT", path, body)?;
        ensure!(answer.status.is_success(), "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(answer.json())
    }

    /// The lock's key, if there is one.
    pub fn lock(&self, prefix: &str) -> Result<Option<Entry>> {
        let answer = self.call("GET", &format!("/v1/kv/{prefix}/.lock?consistent"), &Value::Null)?;
        match answer.status {
            StatusCode::OK => {
                let key = answer.json()[0].take();
                let session = key["Session"].as_str().filter(|session| !session.is_empty()).map(str::to_owned);
                let value = STANDARD.decode(key["Value"].as_str().unwrap_or_default())?;
                Ok(Some(Entry { index: key["ModifyIndex"].as_u64().context("no index")?, session, value }))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("Consul answered {status}"),
        }
    }

    /// A session as somebody else makes it, which keeps a key from nobody once it is gone.
    pub fn session(&self) -> Result<String> {
        let made = self.put("/v1/session/create", &json!({"Name": "stranger", "TTL": "60s", "LockDelay": "0s"}))?;
        made["ID"].as_str().map(str::to_owned).context("a session without an id")
    }

    /// Ends a session.
    pub fn destroy(&self, session: &str) -> Result<()> {
        self.put(&format!("/v1/session/destroy/{session}"), &Value::Null).map(drop)
    }

    /// Does all of these with keys, or nothing.
    pub fn transact(&self, operations: &[Value]) -> Result<()> {
        let operations: Vec<Value> = operations.iter().map(|operation| json!({ "KV": operation })).collect();
        self.put("/v1/txn", &operations.into()).map(drop)
    }

    /// Whether it knows its leader, and that one takes writes.
    pub fn takes_writes(&self) -> bool {
        self.put("/v1/kv/test/ready", &json!("up")).is_ok_and(|written| written == true)
    }

    /// A relay before it.
    pub fn relay(&self) -> Result<Relay> {
        Relay::start(self.upstream.clone())
    }
}

fn upstream(url: &str) -> Result<Upstream> {
    Ok(Upstream::plain(url.strip_prefix("http://").context("not plain HTTP")?))
}
