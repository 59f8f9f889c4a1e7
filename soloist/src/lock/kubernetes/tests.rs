//! The lock against a server that says what each test wants: no API server in its right mind says all of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::lock::contract::held;

mod evidence;

/// Longer than any answer of the server takes.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Long enough to believe that nothing happens.
pub(super) const A_WHILE: Duration = Duration::from_millis(200);

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Say(u16, &'static [(&'static str, &'static str)], String),
    /// The Lease that came, with the next version.
    Store,
    Reset,
    Silent,
    Raw(&'static str),
    /// The beginning of a watch, with these events; it stays open.
    Watch(Vec<Value>),
    /// The same, and then it ends.
    ShortWatch(Vec<Value>),
}

pub(super) fn event(kind: &str, number: u64) -> Value {
    json!({"type": kind, "object": {"metadata": {"name": "app", "uid": "u", "resourceVersion": number.to_string()}}})
}

fn at(number: u64) -> Version {
    lease::version(&event("", number)["object"]).unwrap()
}

pub(crate) fn say(status: u16, body: Value) -> Reply {
    Reply::Say(status, &[], body.to_string())
}

pub(super) fn status(reason: &str) -> Value {
    json!({"kind": "Status", "reason": reason, "message": "told to", "details": {"kind": "leases", "name": "app"}})
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub connection: usize,
    pub line: String,
    pub token: String,
    pub body: Value,
}

/// What the server was told: for watches, and for everything else.
#[derive(Default)]
struct Replies {
    pods: std::collections::VecDeque<Reply>,
    watches: std::collections::VecDeque<Reply>,
    others: std::collections::VecDeque<Reply>,
}

/// A server that answers its requests one after the other as it was told, then goes silent.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub async fn start(replies: Vec<Reply>) -> Self {
        Self::watched(Vec::new(), replies).await
    }

    pub async fn watched(watches: Vec<Reply>, others: Vec<Reply>) -> Self {
        Self::with(Replies { watches: watches.into(), others: others.into(), ..Replies::default() }).await
    }

    /// One that is asked for watches of pods alone.
    pub async fn on_pods(pods: Vec<Reply>) -> Self {
        Self::with(Replies { pods: pods.into(), ..Replies::default() }).await
    }

    async fn with(replies: Replies) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "first").unwrap();
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: c, cluster: {{server: \
             'http://{}'}}}}], users: [{{name: u, user: {{tokenFile: {}/token}}}}], contexts: [{{name: a, context: \
             {{cluster: c, user: u, namespace: prod}}}}]}}",
            listener.local_addr().unwrap(),
            folder.path().display()
        );
        std::fs::write(folder.path().join("config"), config).unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let replies = Arc::new(Mutex::new(replies));
        let heard = Arc::clone(&requests);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, connection, Arc::clone(&replies), Arc::clone(&heard)));
            }
        });
        Self { folder, requests }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Where nothing may depend on looks between notices.
    pub async fn lock(&self) -> KubernetesLock {
        self.lock_that_looks_each(SOON * 2).await
    }

    async fn lock_that_looks_each(&self, period: Duration) -> KubernetesLock {
        let access = Access { kubeconfig: Some(self.kubeconfig()), ..Access::default() };
        KubernetesLock::open(access, ObjectName::lease("", "app"), period, Witnesses::OWN_CONTAINER).await.unwrap()
    }

    fn rotate_token(&self, token: &str) {
        std::fs::write(self.folder.path().join("token"), token).unwrap();
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    replies: Arc<Mutex<Replies>>,
    heard: Arc<Mutex<Vec<Request>>>,
) {
    while let Some(request) = hear(&mut stream, connection).await {
        let version = heard.lock().unwrap().len() + 1;
        heard.lock().unwrap().push(request.clone());
        let next = {
            let mut replies = replies.lock().unwrap();
            let is_watch = request.line.contains("watch=true");
            let queue = match is_watch {
                true if request.line.contains("/pods?") => &mut replies.pods,
                true => &mut replies.watches,
                false => &mut replies.others,
            };
            queue.pop_front()
        };
        let reply = next.unwrap_or(Reply::Silent);
        let text = match reply {
            Reply::Say(code, headers, body) => answer(code, headers, &body),
            Reply::Store => {
                let mut lease = request.body;
                lease["metadata"]["uid"] = "u".into();
                lease["metadata"]["resourceVersion"] = version.to_string().into();
                answer(200, &[], &lease.to_string())
            }
            Reply::Raw(text) => text.to_owned(),
            Reply::Watch(events) => {
                let _ = stream.write_all(watch_text(&events).as_bytes()).await;
                std::future::pending().await
            }
            Reply::ShortWatch(events) => {
                let _ = stream.write_all(watch_text(&events).as_bytes()).await;
                return;
            }
            Reply::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Reply::Silent => std::future::pending().await,
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Without a length: the end of the connection is the end of the watch.
fn watch_text(events: &[Value]) -> String {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    format!("HTTP/1.1 200 Told\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{lines}")
}

fn answer(code: u16, headers: &[(&str, &str)], body: &str) -> String {
    let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "HTTP/1.1 {code} Told\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn hear(stream: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let field = |name: &str| {
        let value = head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        value.unwrap_or_default()
    };
    let length: usize = field("content-length").parse().unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request {
        connection,
        line: head.lines().next().unwrap_or_default().to_owned(),
        token: field("authorization"),
        body: serde_json::from_slice(&bytes[head_end..]).unwrap_or_default(),
    })
}

pub(super) async fn write(lock: &KubernetesLock, expected: Version, attempt: u64) -> Write {
    tokio::time::timeout(SOON, lock.write(expected, &held(1, attempt), "why")).await.expect("an answer")
}

fn written(write: Write) -> Version {
    crate::lock::contract::written(write)
}

/// How a renewal ends that is answered by `reply`.
async fn renewal(reply: Reply) -> Write {
    let server = Server::start(vec![Reply::Store, reply]).await;
    let lock = server.lock().await;
    let version = written(write(&lock, Version::ABSENT, 1).await);
    write(&lock, version, 2).await
}

#[tokio::test]
async fn a_write_names_what_it_replaces() {
    let server = Server::start(vec![Reply::Store, Reply::Store]).await;
    let lock = server.lock().await;
    assert_eq!(lock.place().namespace, "prod", "the credentials' own");
    let first = written(write(&lock, Version::ABSENT, 1).await);
    assert_eq!(first.number, 1);
    let second = written(write(&lock, first, 2).await);
    assert_eq!((second.incarnation, second.number), (first.incarnation, 2));
    let requests = server.requests();
    assert_eq!(requests[0].line, "POST /apis/coordination.k8s.io/v1/namespaces/prod/leases HTTP/1.1");
    assert_eq!(requests[0].body["metadata"]["resourceVersion"], Value::Null);
    assert_eq!(requests[1].line, "PUT /apis/coordination.k8s.io/v1/namespaces/prod/leases/app HTTP/1.1");
    assert_eq!(requests[1].body["metadata"]["resourceVersion"], "1");
    assert_eq!(requests[1].body["metadata"]["uid"], "u");
    assert_eq!(requests[1].connection, requests[0].connection, "a good connection is kept");
}

#[tokio::test]
async fn a_lease_with_a_fraction_of_a_millisecond_is_stored_all_the_same() {
    let server = Server::start(vec![Reply::Store]).await;
    let lock = server.lock().await;
    let mut paused = held(1, 1);
    paused.lease += Duration::from_nanos(1);
    written(lock.write(Version::ABSENT, &paused, "why").await);
}

#[tokio::test]
async fn a_refusal_is_not_stored() {
    assert_eq!(renewal(say(409, status("Conflict"))).await, Write::Conflict);
    assert_eq!(renewal(say(404, status("NotFound"))).await, Write::Gone);
    for code in [403, 422] {
        assert!(matches!(renewal(say(code, status("Told"))).await, Write::Denied(_)), "{code}");
    }
    let throttled = |code| Reply::Say(code, &[("retry-after", "3")], String::new());
    assert_eq!(renewal(throttled(429)).await, Write::Throttled(Duration::from_secs(3)));
    assert_eq!(renewal(throttled(503)).await, Write::Throttled(Duration::from_secs(3)));
}

#[tokio::test]
async fn what_is_not_known_is_unknown() {
    let huge = format!("{{\"kind\": \"Lease\", \"x\": \"{}\"}}", "x".repeat(session::BODY_MAX));
    let replies = [
        say(500, status("InternalError")),
        Reply::Say(503, &[], String::new()),
        say(504, status("Timeout")),
        Reply::Say(307, &[("location", "http://127.0.0.1:1/")], String::new()),
        Reply::Reset,
        Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"kind\""),
        Reply::Raw("garbage\r\n\r\n"),
        Reply::Say(200, &[], "garbage".into()),
        Reply::Say(200, &[], huge),
        say(200, json!({"kind": "Lease", "metadata": {"uid": "u", "resourceVersion": "x"}})),
        // Somebody answers with an older state.
        say(200, json!({"kind": "Lease", "metadata": {"uid": "u", "resourceVersion": "5"}})),
    ];
    for reply in replies {
        let shown = format!("{reply:?}").chars().take(80).collect::<String>();
        // The connection stays open after a cut-off answer: the caller's limit ends it.
        let outcome = tokio::time::timeout(Duration::from_millis(300), renewal(reply)).await;
        let is_unknown = matches!(outcome, Err(_) | Ok(Write::Unknown(_)));
        assert!(is_unknown, "{shown}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_fresh_connection_follows_a_disappointment() {
    for reply in [Reply::Silent, Reply::Reset, say(500, status("InternalError")), say(200, json!({}))] {
        let server = Server::start(vec![Reply::Store, reply, Reply::Store]).await;
        let lock = server.lock().await;
        let version = written(write(&lock, Version::ABSENT, 1).await);
        let _ = tokio::time::timeout(Duration::from_millis(100), lock.write(version, &held(1, 2), "why")).await;
        written(write(&lock, version, 3).await);
        let requests = server.requests();
        assert_eq!(requests.len(), 3, "nothing is sent twice");
        assert_ne!(requests[2].connection, requests[1].connection);
    }
}

#[tokio::test]
async fn a_rotated_token_is_read_when_the_old_one_is_refused() {
    let server = Server::start(vec![Reply::Store, say(401, status("Unauthorized")), Reply::Store]).await;
    let lock = server.lock().await;
    let version = written(write(&lock, Version::ABSENT, 1).await);
    server.rotate_token("second");
    written(write(&lock, version, 2).await);
    let tokens: Vec<String> = server.requests().into_iter().map(|request| request.token).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn credentials_that_stay_refused_are_tried_once_more_only() {
    let refused = || say(401, status("Unauthorized"));
    let server = Server::start(vec![Reply::Store, refused(), refused(), refused(), refused()]).await;
    let lock = server.lock().await;
    let version = written(write(&lock, Version::ABSENT, 1).await);
    assert!(matches!(write(&lock, version, 2).await, Write::Denied(_)));
    assert!(matches!(lock.read().await, Err(LockError::Denied(_))));
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn a_look_says_what_is_there() {
    let lease =
        json!({"kind": "Lease", "metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"holderIdentity": "x"}});
    let replies = vec![
        say(404, status("NotFound")),
        say(200, lease),
        Reply::Say(404, &[], "404 page not found".into()),
        say(500, status("InternalError")),
        Reply::Say(429, &[("retry-after", "3")], String::new()),
    ];
    let server = Server::start(replies).await;
    let lock = server.lock().await;
    let absent = lock.read().await.unwrap();
    assert_eq!((absent.version, absent.record), (Version::ABSENT, None));
    let foreign = lock.read().await.unwrap();
    assert_eq!(foreign.version.number, 7);
    assert!(matches!(foreign.record.unwrap().claim, election::Claim::Foreign(_)));
    for _ in 0..3 {
        assert!(matches!(lock.read().await, Err(LockError::Unavailable(_))));
    }
    assert!(server.requests()[0].line.starts_with("GET "));
    assert!(!server.requests()[0].line.contains('?'), "a quorum read names no version");
}

#[tokio::test]
async fn a_write_against_what_was_not_seen_last_looks_first() {
    let server = Server::start(vec![say(404, status("NotFound"))]).await;
    let lock = server.lock().await;
    let somewhere = Version { incarnation: 1, number: 5 };
    assert_eq!(write(&lock, somewhere, 1).await, Write::Gone);
    assert_eq!(server.requests().len(), 1, "nothing was sent that could be stored");
}

#[tokio::test]
async fn credentials_that_vanish_store_nothing() {
    let server = Server::start(vec![Reply::Store, Reply::Reset]).await;
    let lock = server.lock().await;
    let version = written(write(&lock, Version::ABSENT, 1).await);
    let _ = write(&lock, version, 2).await;
    std::fs::remove_file(server.kubeconfig()).unwrap();
    assert!(matches!(write(&lock, version, 3).await, Write::Denied(_)));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_lease_has_whole_seconds_and_at_least_four() {
    for seconds in [4, 15, 60] {
        check_lease(Duration::from_secs(seconds)).unwrap();
    }
    for lease in [Duration::from_millis(4_500), Duration::from_secs(3), Duration::ZERO] {
        assert!(check_lease(lease).unwrap_err().contains("whole seconds from 4s"), "{lease:?}");
    }
}

async fn changed(lock: &KubernetesLock, since: Version) {
    tokio::time::timeout(SOON, lock.changed(since)).await.expect("wakes").unwrap();
}

async fn stays_quiet(lock: &KubernetesLock, since: Version) -> bool {
    tokio::time::timeout(A_WHILE, lock.changed(since)).await.is_err()
}

fn watches(server: &Server) -> Vec<String> {
    server.requests().into_iter().map(|request| request.line).filter(|line| line.contains("watch=true")).collect()
}

#[tokio::test]
async fn a_watch_wakes_for_what_is_newer_and_asks_for_nothing_else() {
    let events = vec![event("MODIFIED", 5), event("BOOKMARK", 9)];
    let server = Server::watched(vec![Reply::Watch(events)], vec![]).await;
    let lock = server.lock().await;
    changed(&lock, at(3)).await;
    changed(&lock, at(3)).await;
    assert!(stays_quiet(&lock, at(5)).await);
    assert!(stays_quiet(&lock, at(6)).await, "the own write is ahead of its notice");
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    for part in
        ["/namespaces/prod/leases?", "fieldSelector=metadata.name%3Dapp", "resourceVersion=3", "allowWatchBookmarks"]
    {
        assert!(requests[0].line.contains(part), "{part}: {}", requests[0].line);
    }
}

#[tokio::test]
async fn what_the_watch_woke_for_is_not_asked_again() {
    let lease = json!({"kind": "Lease", "metadata": {"uid": "u", "resourceVersion": "7"}});
    let watches = vec![Reply::Watch(vec![event("MODIFIED", 5), event("MODIFIED", 6)])];
    let server = Server::watched(watches, vec![say(200, lease)]).await;
    let lock = server.lock().await;
    changed(&lock, at(5)).await;
    assert_eq!(lock.read().await.unwrap().version, at(6));
    assert_eq!(server.requests().len(), 1);
    assert_eq!(lock.read().await.unwrap().version, at(7), "asked without being woken, it looks");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was() {
    let ends = Reply::ShortWatch(vec![event("MODIFIED", 5), event("BOOKMARK", 9)]);
    let server = Server::watched(vec![ends, Reply::Reset, Reply::Watch(vec![event("DELETED", 12)])], vec![]).await;
    let lock = server.lock().await;
    changed(&lock, at(3)).await;
    tokio::time::timeout(SOON, async {
        while watches(&server).len() < 3 {
            changed(&lock, at(5)).await
        }
    })
    .await
    .unwrap();
    assert!(watches(&server)[1].contains("resourceVersion=9"));
    assert!(watches(&server)[2].contains("resourceVersion=9"));
}

#[tokio::test]
async fn a_gap_in_the_watch_asks_for_a_look() {
    let expired = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}});
    let lease = json!({"kind": "Lease", "metadata": {"uid": "u", "resourceVersion": "5"}});
    let watches_told = vec![Reply::Watch(vec![expired]), Reply::Watch(vec![event("ADDED", 5)])];
    let server = Server::watched(watches_told, vec![say(200, lease)]).await;
    let lock = server.lock().await;
    changed(&lock, at(5)).await;
    tokio::time::timeout(SOON, async {
        while watches(&server).len() < 2 {
            tokio::task::yield_now().await
        }
    })
    .await
    .unwrap();
    assert_eq!(lock.read().await.unwrap().version, at(5));
    assert!(stays_quiet(&lock, at(5)).await);
    assert!(!watches(&server)[1].contains("resourceVersion"), "from the newest state on");
}

#[tokio::test]
async fn a_watch_that_keeps_silent_about_a_known_change_is_begun_anew() {
    let server = Server::watched(vec![Reply::Watch(vec![])], vec![Reply::Store, Reply::Store]).await;
    let lock = server.lock_that_looks_each(Duration::from_millis(400)).await;
    let first = written(write(&lock, Version::ABSENT, 1).await);
    let _ = tokio::time::timeout(A_WHILE, lock.changed(first)).await;
    let second = written(write(&lock, first, 2).await);
    let both = async {
        while watches(&server).len() < 2 {
            let _ = tokio::time::timeout(SOON, lock.changed(second)).await;
        }
    };
    tokio::time::timeout(SOON, both).await.expect("another watch");
    assert!(watches(&server)[1].contains(&format!("resourceVersion={}", second.number)));
}

#[tokio::test]
async fn where_a_watch_is_forbidden_each_period_is_one_look() {
    let forbidden = json!({"kind": "Status", "message": "User \"u\" cannot watch resource \"leases\""});
    let server = Server::watched(vec![say(403, forbidden)], vec![]).await;
    let lock = server.lock_that_looks_each(Duration::from_millis(20)).await;
    for _ in 0..3 {
        changed(&lock, at(5)).await;
    }
    assert_eq!(server.requests().len(), 1, "the elector looks, not the watch, and nothing is tried again so soon");
}

#[tokio::test]
async fn a_lock_that_goes_takes_its_watch_along() {
    let server = Server::watched(vec![Reply::Watch(vec![event("MODIFIED", 5)]), Reply::Watch(vec![])], vec![]).await;
    let lock = server.lock().await;
    changed(&lock, at(3)).await;
    let handle = lock.calls.hub().news();
    drop(lock);
    let mut news = handle;
    tokio::time::timeout(SOON, async { while news.changed().await.is_ok() {} }).await.expect("the task is gone");
}
