use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;

/// Long enough for anything that comes.
const SOON: Duration = Duration::from_secs(10);
/// Long enough to notice what must not come.
const SILENCE: Duration = Duration::from_millis(200);

/// What a server got: method, path, body.
type Seen = Arc<Mutex<Vec<(Method, String, String)>>>;

/// A server that answers each PUT with its number, and remembers; and a relay before it.
struct Scene {
    relay: Arc<Relay>,
    seen: Seen,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Seen::default());
        let authority = Authority::new().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (path, trusted) = (folder.path().join("server"), folder.path().join("server.ca"));
        std::fs::write(&trusted, authority.pem()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, authority.tls(), Arc::clone(&seen)));
        let server = Server { url: format!("https://{address}"), authority: trusted };
        server.write_kubeconfig(&path, &json!({})).unwrap();
        let relay = Arc::new(Relay::start(way_of(&path).await).unwrap());
        relay.write_kubeconfig(&folder.path().join("relay"), &json!({})).unwrap();
        Self { relay, seen, folder }
    }

    /// A member with a connection of its own.
    async fn member(&self) -> Line {
        Line::new(way_of(&self.folder.path().join("relay")).await)
    }

    fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(method, path, body)| format!("{method} {path} {body}")).collect()
    }

    async fn wait_seen(&self, count: usize) {
        let all = async {
            while self.seen().len() < count {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, all).await.unwrap();
    }
}

async fn way_of(path: &Path) -> Upstream {
    let file = kube::config::Kubeconfig::read_from(path).unwrap();
    Upstream::of(&kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap(), true).unwrap()
}

async fn serve(listener: tokio::net::TcpListener, tls: tokio_rustls::TlsAcceptor, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let (head, body) = request.into_parts();
                    let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
                    let mut seen = seen.lock().unwrap();
                    seen.push((head.method, head.uri.path().to_owned(), body));
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(seen.len().to_string()))))
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls.accept(stream).await?), service).await;
            std::io::Result::Ok(())
        });
    }
}

fn put(body: &'static str) -> Request<Bytes> {
    Request::put("/leases").body(Bytes::from(body)).unwrap()
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

/// The whole answer, or nothing where the connection broke.
async fn answer(member: &Line, request: Request<Bytes>) -> Option<(StatusCode, String)> {
    let answer = member.send(request).await.ok()?;
    let status = answer.status();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8(body.to_vec()).unwrap()))
}

fn ok(body: &str) -> Option<(StatusCode, String)> {
    Some((StatusCode::OK, body.to_owned()))
}

/// Fails if an answer comes.
async fn silent(member: &Line, request: Request<Bytes>) {
    assert!(timeout(SILENCE, answer(member, request)).await.is_err());
}

#[tokio::test]
async fn what_nothing_is_done_to_passes_and_is_counted() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    assert_eq!(answer(&member, get("/leases?watch=true&x=1")).await, ok("2"));
    assert_eq!(answer(&member, get("/leases")).await, ok("3"));
    assert_eq!(scene.seen(), ["PUT /leases a", "GET /leases ", "GET /leases "]);
    let counted: Vec<(String, u64)> = scene.relay.requests().into_iter().collect();
    assert_eq!(
        counted,
        [("GET /leases".to_owned(), 1), ("PUT /leases".to_owned(), 1), ("WATCH /leases".to_owned(), 1)]
    );
    assert_eq!((scene.relay.asked("PUT"), scene.relay.asked("WATCH"), scene.relay.fired()), (1, 1, 0));
    assert_eq!(scene.relay.answered(200), 3);
}

#[tokio::test]
async fn only_another_time_of_the_same_holder_counts_as_a_renewal() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    let renewed = || scene.relay.last_renewed("a");
    assert_eq!(answer(&member, put(r#"{"spec":{"holderIdentity":"a","renewTime":"1"}}"#)).await, ok("1"));
    let first = renewed();
    assert!(first.is_some());
    assert_eq!(answer(&member, put(r#"{"x":1,"spec":{"holderIdentity":"a","renewTime":"1"}}"#)).await, ok("2"));
    assert_eq!(answer(&member, put(r#"{"spec":{"holderIdentity":"b","renewTime":"2"}}"#)).await, ok("3"));
    assert_eq!(renewed(), first);
    assert_eq!(answer(&member, put(r#"{"spec":{"holderIdentity":"a","renewTime":"2"}}"#)).await, ok("4"));
    assert!(renewed() > first);
}

#[tokio::test]
async fn a_black_hole_keeps_connections_and_takes_new_ones_in_silence() {
    let scene = Scene::new().await;
    let (member, late) = (scene.member().await, scene.member().await);
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.black_hole();
    let (held, new) = tokio::join!(timeout(SILENCE, answer(&member, put("b"))), timeout(SILENCE, late.send(put("c"))));
    assert!(held.is_err() && new.is_err());
    assert_eq!(scene.seen().len(), 1, "nothing passes");
    scene.relay.heal();
    assert_eq!(answer(&scene.member().await, put("d")).await.map(|(status, _)| status), Some(StatusCode::OK));
    scene.wait_seen(3).await;
    assert!(scene.seen().contains(&"PUT /leases b".to_owned()), "bytes on the way arrive late");
}

#[tokio::test]
async fn a_short_black_hole_only_delays() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.black_hole();
    let began = Instant::now();
    let heal = async {
        sleep(SILENCE).await;
        scene.relay.heal();
    };
    let (got, ()) = tokio::join!(timeout(SOON, answer(&member, put("b"))), heal);
    assert_eq!(got.unwrap(), ok("2"));
    assert!(began.elapsed() >= SILENCE);
}

#[tokio::test]
async fn held_answers_leave_the_request_done() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.hold_answers();
    silent(&member, put("b")).await;
    assert_eq!(scene.seen().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_breaks_the_connection_after_the_server_got_the_request() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject(Scope::Writes, Fault::LoseAnswer);
    assert_eq!(answer(&member, put("a")).await, None);
    assert_eq!(scene.seen(), ["PUT /leases a"]);
    assert_eq!(answer(&member, get("/leases")).await, ok("2"), "not a write");
    let event = Request::post("/events").body(Bytes::new()).unwrap();
    assert_eq!(answer(&member, event).await, ok("3"), "not of a Lease");
    assert_eq!(scene.relay.fired(), 1);
}

#[tokio::test]
async fn a_delayed_answer_comes_later() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject_times(Scope::All, Fault::Delay(SILENCE), 1);
    let began = Instant::now();
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    let late = began.elapsed();
    assert_eq!(answer(&member, put("b")).await, ok("2"));
    assert!(late >= SILENCE, "{late:?}");
    assert_eq!(scene.relay.fired(), 1, "once");
}

#[tokio::test]
async fn a_repeated_request_reaches_the_server_twice() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject(Scope::Writes, Fault::Repeat(Which::First));
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.inject(Scope::Writes, Fault::Repeat(Which::Second));
    assert_eq!(answer(&member, put("b")).await, ok("4"));
    assert_eq!(scene.seen(), ["PUT /leases a", "PUT /leases a", "PUT /leases b", "PUT /leases b"]);
}

#[tokio::test]
async fn a_held_request_arrives_when_it_is_delivered_though_the_member_has_gone() {
    let scene = Scene::new().await;
    scene.relay.inject_times(Scope::Writes, Fault::Hold, 1);
    {
        let member = scene.member().await;
        silent(&member, put("old")).await;
    }
    assert_eq!(answer(&scene.member().await, put("new")).await, ok("1"));
    assert_eq!(scene.relay.held(), 1);
    let relay = Arc::clone(&scene.relay);
    let statuses = tokio::task::spawn_blocking(move || relay.deliver_held()).await.unwrap().unwrap();
    assert_eq!(statuses, [200]);
    assert_eq!(scene.seen(), ["PUT /leases new", "PUT /leases old"]);
    assert_eq!(scene.relay.held(), 0);
}

#[tokio::test]
async fn an_answer_in_place_of_the_servers_says_how_long_to_wait() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject(Scope::All, Fault::throttle(7));
    let got = member.send(put("a")).await.unwrap();
    assert_eq!((got.status().as_u16(), got.headers()[http::header::RETRY_AFTER].to_str().unwrap()), (429, "7"));
    assert!(scene.seen().is_empty());
}

#[tokio::test]
async fn failures_hit_their_share_the_same_ones_for_a_seed_and_half_of_them_after_the_server() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let before = scene.seen().len();
        scene.relay.inject(Scope::Writes, Fault::Fail { percent: 30, seed: 7 });
        let mut statuses = Vec::new();
        for _ in 0..200 {
            statuses.push(answer(&member, put("a")).await.unwrap().0.as_u16());
        }
        runs.push((statuses, scene.seen().len() - before));
    }
    assert_eq!(runs[0], runs[1]);
    let failed = runs[0].0.iter().filter(|status| **status != 200).count();
    assert!((40..80).contains(&failed), "{failed} of 200");
    let delivered = runs[0].1 - (200 - failed);
    assert!(delivered > failed / 4 && delivered < failed * 3 / 4, "{delivered} of {failed}");
}

#[tokio::test]
async fn a_cut_ends_connections_and_lets_no_new_one_live_until_healed() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.cut();
    assert_eq!(timeout(SOON, answer(&member, put("b"))).await.unwrap(), None);
    assert_eq!(timeout(SOON, answer(&scene.member().await, put("c"))).await.unwrap(), None);
    scene.relay.heal();
    let (status, _) = timeout(SOON, answer(&member, put("d"))).await.unwrap().unwrap();
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_member_that_trusts_another_authority_does_not_get_through() {
    let (one, other) = (Scene::new().await, Scene::new().await);
    let config = std::fs::read_to_string(one.folder.path().join("relay")).unwrap();
    let elsewhere = config.replace(&one.relay.address().to_string(), &other.relay.address().to_string());
    let path = one.folder.path().join("elsewhere");
    std::fs::write(&path, elsewhere).unwrap();
    let error = Line::new(way_of(&path).await).send(put("a")).await.unwrap_err();
    assert!(format!("{error:#}").contains("certificate"), "{error:#}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_stalled_watch_begins_and_tells_nothing() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject(Scope::Watches, Fault::Stall);
    assert_eq!(answer(&member, get("/leases")).await, ok("1"), "not a watch");
    let watch = member.send(get("/leases?watch=true")).await.unwrap();
    assert_eq!(watch.status(), StatusCode::OK);
    assert!(timeout(SILENCE, watch.into_body().collect()).await.is_err());
    assert_eq!(scene.relay.fired(), 1);
}

#[tokio::test]
async fn a_late_request_is_held_and_arrives() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    scene.relay.inject(Scope::All, Fault::Late(SILENCE));
    let began = Instant::now();
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    assert!(began.elapsed() >= SILENCE && scene.relay.fired() == 1);
}

#[tokio::test]
async fn ended_connections_are_ended_once_and_the_next_ones_see_the_new_authority() {
    let scene = Scene::new().await;
    let member = scene.member().await;
    assert_eq!(answer(&member, put("a")).await, ok("1"));
    scene.relay.end_connections();
    assert_eq!(answer(&scene.member().await, put("b")).await, ok("2"));
    let new = Authority::new().unwrap();
    scene.relay.certify_by(&new);
    assert_eq!(answer(&scene.member().await, put("c")).await, None, "it is not trusted");
    std::fs::write(scene.folder.path().join("relay.ca"), new.pem()).unwrap();
    assert_eq!(answer(&scene.member().await, put("d")).await, ok("3"));
}

#[tokio::test]
async fn several_relays_share_a_port_and_an_authority() {
    let scene = Scene::new().await;
    let upstream = way_of(&scene.folder.path().join("server")).await;
    let relays = Relay::several(&[Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)], &upstream).unwrap();
    assert_eq!(relays[0].address().port(), relays[1].address().port());
    assert_eq!(relays[0].authority(), relays[1].authority());
}
