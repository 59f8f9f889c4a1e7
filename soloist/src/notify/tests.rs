use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant as Moment;

use election::{Activation, Role, Token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::health::without_check;
use crate::settings::target::{Address, Target};
use crate::snapshot::{Publisher, Tenure, Workload};
use crate::workload::process::ProcessId;

/// More than anything takes here.
const SOON: Duration = Duration::from_secs(20);

/// A member, and the task that tells of it.
struct Scene {
    publisher: Publisher,
    task: JoinHandle<()>,
}

impl Scene {
    fn new(listener: Listener) -> Self {
        let publisher = Publisher::new(Snapshot::new("g", "a", Duration::from_secs(15), without_check(), 0));
        let task = tokio::spawn(run(listener, Commands::new(None), publisher.subscribe()));
        Self { publisher, task }
    }

    fn promote(&self, token: u64) {
        let stop_at = Instant::from_nanos(clock::now().as_nanos() + 10_000_000_000);
        let tenure = Tenure { activation: Activation(token.into()), token: Token(token), stop_at, kill_at: stop_at };
        self.publisher.update(|snapshot| {
            (snapshot.role, snapshot.tenure) = (Role::Active, Some(tenure));
        });
    }

    fn demote(&self) {
        self.publisher.update(|snapshot| {
            (snapshot.role, snapshot.tenure) = (Role::Standby, None);
        });
    }

    async fn end(self) {
        drop(self.publisher);
        timeout(SOON, self.task).await.expect("it ends with the elector").unwrap();
    }
}

async fn listen() -> (TcpListener, Listener) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp("127.0.0.1".to_owned(), server.local_addr().unwrap().port());
    let target = Target { address, host: "app".to_owned(), path: "/role".to_owned() };
    (server, Listener::Http { target, token_file: None })
}

/// The next request that is not broken off.
async fn request(server: &TcpListener) -> (TcpStream, String, Value) {
    let next = async {
        loop {
            let (stream, _) = server.accept().await.unwrap();
            if let Some(request) = read(stream).await {
                return request;
            }
        }
    };
    timeout(SOON, next).await.expect("it is told")
}

async fn read(mut stream: TcpStream) -> Option<(TcpStream, String, Value)> {
    let mut text = String::new();
    loop {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(notice) = serde_json::from_str(body) {
            let head = head.to_owned();
            return Some((stream, head, notice));
        }
    }
}

async fn answer(mut stream: TcpStream, status: &str) {
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_server_is_told_of_every_change_and_of_the_end() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    let (stream, head, notice) = request(&server).await;
    assert!(head.starts_with("POST /role HTTP/1.1\r\n") && head.contains("content-type: application/json"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert_eq!(
        notice,
        json!({"schema": 1, "group": "g", "member": "a", "role": "standby", "fencing_token": null, "activation": null,
            "valid_until_unix_ms": null})
    );
    answer(stream, "200 OK").await;

    scene.promote(7);
    let (stream, _, notice) = request(&server).await;
    assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("active"), &json!(7)));
    assert_eq!(notice["activation"], Activation(7).to_string());
    let rest = notice["valid_until_unix_ms"].as_u64().unwrap().saturating_sub(clock::unix_us() / 1000);
    assert!((1..=10_000).contains(&rest), "{rest}");
    answer(stream, "204 No Content").await;

    // The elector's last word, of which nobody waits to hear.
    scene.demote();
    let end = tokio::spawn(scene.end());
    let (stream, _, notice) = request(&server).await;
    assert_eq!(notice["role"], "standby");
    answer(stream, "200 OK").await;
    end.await.unwrap();
}

#[tokio::test]
async fn a_notice_is_repeated_until_it_is_understood_and_names_the_activation_that_ended() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    let (stream, ..) = request(&server).await;
    answer(stream, "200 OK").await;
    scene.promote(7);
    for status in ["503 Busy", "301 Moved", "404 Not Found", "200 OK"] {
        let (stream, _, notice) = request(&server).await;
        assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("active"), &json!(7)), "before {status}");
        answer(stream, status).await;
    }
    scene.demote();
    let (stream, _, notice) = request(&server).await;
    assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("standby"), &json!(7)));
    answer(stream, "200 OK").await;
    scene.end().await;
}

#[tokio::test]
async fn nobody_hears_of_an_activation_that_the_warm_workload_was_not_told_of() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    scene.publisher.update(|snapshot| snapshot.is_warm = true);
    let (stream, ..) = request(&server).await;
    answer(stream, "200 OK").await;
    let workload = |workload| scene.publisher.update(|snapshot| snapshot.workload = workload);
    // A launch that never happened, and one that did.
    workload(Workload::Starting);
    scene.promote(7);
    tokio::task::yield_now().await;
    scene.demote();
    scene.promote(8);
    workload(Workload::Running { pid: 1, since_unix_us: 0 });
    let (stream, _, notice) = request(&server).await;
    assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("active"), &json!(8)));
    answer(stream, "200 OK").await;
    scene.end().await;
}

#[tokio::test]
async fn a_command_is_run_until_it_ends_with_0_and_killed_when_it_is_overtaken() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let until = async |what: &str, condition: &dyn Fn() -> bool| {
        let wait = async {
            while !condition() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}: {}", read("told")));
    };
    // Fails once on each promotion, and the second promotion hangs.
    let line = format!(
        "cd {}; echo $SOLOIST_ROLE $SOLOIST_FENCING_TOKEN >> told; case $SOLOIST_ROLE$SOLOIST_FENCING_TOKEN in \
         active7) [ -e again ] || {{ touch again; exit 1; }};; active8) echo $$ > pid; exec sleep 1000;; esac",
        folder.path().display()
    );
    let scene = Scene::new(Listener::Exec { line, limit: SOON });
    until("standby", &|| read("told") == "standby\n").await;
    scene.promote(7);
    until("again", &|| read("told") == "standby\nactive 7\nactive 7\n").await;
    scene.promote(8);
    until("a command that hangs", &|| read("pid").ends_with('\n')).await;
    let hangs = ProcessId::of(read("pid").trim().parse().unwrap()).unwrap();
    scene.demote();
    until("the notice after it", &|| read("told").ends_with("active 8\nstandby 8\n")).await;
    until("what is overtaken to be killed", &|| !hangs.is_alive()).await;
    scene.end().await;
}

#[tokio::test]
async fn what_is_overtaken_is_not_told_any_more() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    let (stream, ..) = request(&server).await;
    answer(stream, "200 OK").await;
    scene.promote(7);
    // Nobody answers this one.
    let (unanswered, _, notice) = request(&server).await;
    assert_eq!(notice["fencing_token"], 7);
    scene.demote();
    let (stream, _, notice) = request(&server).await;
    assert_eq!(notice["role"], "standby");
    answer(stream, "200 OK").await;
    drop(unanswered);
    scene.promote(8);
    let (stream, _, notice) = request(&server).await;
    assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("active"), &json!(8)));
    answer(stream, "200 OK").await;
    scene.end().await;
}

#[tokio::test]
async fn what_was_heard_and_not_answered_is_taken_back() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    let (stream, ..) = request(&server).await;
    answer(stream, "200 OK").await;
    scene.promote(7);
    let (unanswered, ..) = request(&server).await;
    scene.demote();
    let (stream, _, notice) = request(&server).await;
    assert_eq!((&notice["role"], &notice["fencing_token"]), (&json!("standby"), &json!(7)));
    answer(stream, "200 OK").await;
    drop(unanswered);
    scene.end().await;
}

#[tokio::test]
async fn the_token_is_read_for_each_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let (server, listener) = listen().await;
    let Listener::Http { target, .. } = listener else { panic!() };
    let scene = Scene::new(Listener::Http { target, token_file: Some(file.clone()) });
    for (token, next) in [("first", "second"), ("second", "third")] {
        let (stream, head, _) = request(&server).await;
        assert!(head.contains(&format!("authorization: Bearer {token}")), "{head}");
        std::fs::write(&file, next).unwrap();
        answer(stream, "503 Busy").await;
    }
    let (stream, ..) = request(&server).await;
    answer(stream, "200 OK").await;
    scene.end().await;
}

#[tokio::test]
async fn a_listener_that_is_silent_holds_nobody_up_at_the_end() {
    let (server, listener) = listen().await;
    let scene = Scene::new(listener);
    let _unanswered = request(&server).await;
    let start = Moment::now();
    scene.end().await;
    assert!(start.elapsed() < LAST_LIMIT + Duration::from_secs(5), "{:?}", start.elapsed());
}

fn udp(payload: Option<&str>) -> (UdpSocket, Listener) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, Listener::Udp { host: "127.0.0.1".to_owned(), port, payload: payload.map(str::to_owned) })
}

async fn datagram(socket: &UdpSocket) -> String {
    let socket = socket.try_clone().unwrap();
    let receive = move || {
        let mut bytes = [0; 2048];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    tokio::task::spawn_blocking(receive).await.unwrap()
}

#[tokio::test]
async fn a_datagram_says_the_same_and_is_sent_again() {
    let (socket, listener) = udp(None);
    let scene = Scene::new(listener);
    let said = datagram(&socket).await;
    assert!(said.contains(r#""role":"standby""#), "{said}");
    scene.promote(7);
    let mut times = 0;
    while times < 3 {
        let notice: Value = serde_json::from_str(&datagram(&socket).await).unwrap();
        times += u32::from(notice["role"] == "active" && notice["fencing_token"] == 7);
    }
    scene.end().await;
}

#[tokio::test]
async fn the_own_text_is_sent_once_a_promotion() {
    let (socket, listener) = udp(Some("become-active"));
    let scene = Scene::new(listener);
    for token in [7, 8] {
        scene.promote(token);
        assert_eq!(datagram(&socket).await, "become-active");
    }
    scene.demote();
    scene.end().await;
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "nothing else was sent");
}

#[tokio::test]
async fn a_file_is_replaced_whole_and_may_be_read_by_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("role.json");
    let scene = Scene::new(Listener::File(path.clone()));
    let shows = async |role: &str| {
        let read = || std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let wait = async {
            while read().is_none_or(|notice| notice["role"] != role) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, wait).await.expect("the file is written");
    };
    shows("standby").await;
    scene.promote(7);
    shows("active").await;
    scene.demote();
    shows("standby").await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    scene.end().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}
