//! Against a server that says what each test wants. The object is Endpoints, as the simplest one.

use std::time::Duration;

use super::*;
use crate::lock::kubernetes::tests::{Reply, Request, SOON, Server, say};
use crate::route::endpoints::{Endpoints, Target};

/// The activation with this token, which is also its id.
pub fn turn(token: u64) -> Turn {
    Turn { activation: Activation(token.into()), token: Token(token), before: None }
}

/// A while in which an answer would have come.
const A_WHILE: Duration = Duration::from_millis(300);

fn endpoints(server: &Server) -> Endpoints {
    let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
    let address = "10.0.0.7".parse().unwrap();
    let target = Target { namespace: "prod".into(), service: "app".into(), address, node: None, ports: Vec::new() };
    Endpoints::of(access, target)
}

fn absent() -> Reply {
    say(404, json!({"kind": "Status", "details": {"kind": "endpoints", "name": "app"}}))
}

pub fn conflict() -> Reply {
    say(409, json!({"kind": "Status", "reason": "Conflict"}))
}

fn object(version: u64, token: Option<u64>) -> Reply {
    let annotations = token.map(|token| json!({TOKEN: token.to_string()}));
    let metadata =
        json!({"name": "app", "uid": "u", "resourceVersion": version.to_string(), "annotations": annotations});
    say(200, json!({"kind": "Endpoints", "metadata": metadata, "subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}))
}

pub async fn within_soon(operation: Pending) -> Result<(), String> {
    tokio::time::timeout(SOON, operation).await.expect("an end")
}

/// Method, quoted version, token and addresses of each request.
fn told(server: &Server) -> Vec<(String, String, String, usize)> {
    let tell = |request: Request| {
        let method = request.line.split(' ').next().unwrap_or_default().to_owned();
        let metadata = &request.body["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let subsets = request.body["subsets"].as_array().map_or(0, Vec::len);
        (method, text(&metadata["resourceVersion"]), text(&metadata["annotations"][TOKEN]), subsets)
    };
    server.requests().into_iter().map(tell).collect()
}

fn line(method: &str, version: &str, token: &str, subsets: usize) -> (String, String, String, usize) {
    (method.into(), version.into(), token.into(), subsets)
}

#[tokio::test]
async fn what_is_absent_is_created_and_withdrawn_without_another_look() {
    let server = Server::start(vec![absent(), Reply::Store, Reply::Store]).await;
    let route = endpoints(&server);
    within_soon(route.publish(turn(7))).await.unwrap();
    within_soon(route.withdraw(turn(7))).await.unwrap();
    let told = told(&server);
    assert_eq!(told[..2], [line("GET", "-", "-", 0), line("POST", "-", "7", 1)]);
    let (method, version, token, subsets) = &told[2];
    assert_eq!((method.as_str(), token.as_str(), *subsets), ("PUT", "7", 0));
    assert_ne!(version, "-", "it quotes the version that was stored");
}

#[tokio::test]
async fn a_preparation_spares_the_look() {
    let server = Server::start(vec![object(4, Some(3)), Reply::Store]).await;
    let route = endpoints(&server);
    within_soon(route.prepare()).await.unwrap();
    within_soon(route.publish(turn(7))).await.unwrap();
    assert_eq!(told(&server), [line("GET", "-", "-", 0), line("PUT", "4", "7", 1)]);
}

#[tokio::test]
async fn a_conflict_is_looked_at_again_and_a_newer_token_ends_it() {
    let server =
        Server::start(vec![object(4, None), conflict(), object(5, Some(6)), conflict(), object(9, Some(8))]).await;
    let why = within_soon(endpoints(&server).publish(turn(7))).await.unwrap_err();
    assert!(why.contains("token 8") && why.contains("newer than 7"), "{why}");
    let writes: Vec<_> = told(&server).into_iter().filter(|(method, ..)| method == "PUT").collect();
    assert_eq!(writes, [line("PUT", "4", "7", 1), line("PUT", "5", "7", 1)]);
}

#[tokio::test]
async fn conflicts_without_end_come_to_an_end() {
    let replies = (0..TRIES_MAX).flat_map(|_| [object(4, None), conflict()]).collect();
    let why = within_soon(endpoints(&Server::start(replies).await).publish(turn(7))).await.unwrap_err();
    assert!(why.contains("changed by others"), "{why}");
}

#[tokio::test]
async fn who_asks_to_wait_is_asked_again_and_other_errors_are_errors() {
    let busy = || Reply::Say(429, &[("retry-after", "0")], String::new());
    let unauthorized = || say(401, json!({"kind": "Status"}));
    let server = Server::start(vec![busy(), unauthorized(), absent(), busy(), Reply::Store]).await;
    within_soon(endpoints(&server).publish(turn(7))).await.unwrap();
    for replies in [vec![unauthorized(), unauthorized()], vec![say(500, json!({}))], vec![Reply::Reset]] {
        within_soon(endpoints(&Server::start(replies).await).publish(turn(7))).await.unwrap_err();
    }
}

#[tokio::test]
async fn somebody_elses_publication_stays() {
    let server = Server::start(vec![absent(), Reply::Store, conflict(), object(9, Some(8))]).await;
    let route = endpoints(&server);
    within_soon(route.publish(turn(7))).await.unwrap();
    within_soon(route.withdraw(turn(7))).await.unwrap();
    assert_eq!(told(&server).last(), Some(&line("GET", "-", "-", 0)), "nothing was written after the look");
}

#[tokio::test]
async fn what_was_never_sent_is_not_withdrawn() {
    let server = Server::start(vec![say(403, json!({"kind": "Status", "message": "no"}))]).await;
    let route = endpoints(&server);
    within_soon(route.publish(turn(7))).await.unwrap_err();
    within_soon(route.withdraw(turn(7))).await.unwrap();
    assert_eq!(told(&server).len(), 1);
}

/// Cut off while the server kept silent: it may still take effect, unless the object has moved on.
#[tokio::test]
async fn a_publication_that_was_cut_off_finds_another_version_when_it_arrives() {
    for (before, then, expected) in [
        (object(4, Some(3)), object(4, Some(3)), line("PUT", "4", "7", 0)),
        (absent(), absent(), line("POST", "-", "7", 0)),
        (object(4, None), object(5, Some(7)), line("PUT", "5", "7", 0)),
    ] {
        let server = Server::start(vec![before, Reply::Silent, then, Reply::Store]).await;
        let route = endpoints(&server);
        assert!(tokio::time::timeout(A_WHILE, route.publish(turn(7))).await.is_err(), "the server is silent");
        within_soon(route.withdraw(turn(7))).await.unwrap();
        assert_eq!(told(&server).last(), Some(&expected));
    }
}

#[tokio::test]
async fn what_others_put_there_stays() {
    let metadata = json!({"name": "app", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"},
        "annotations": {"c": "d"}});
    let before = json!({"kind": "Endpoints", "metadata": metadata, "subsets": []});
    let server = Server::start(vec![say(200, before.clone()), Reply::Store]).await;
    within_soon(endpoints(&server).publish(turn(9))).await.unwrap();
    let after = server.requests().pop().unwrap().body;
    for key in ["uid", "resourceVersion", "labels"] {
        assert_eq!(after["metadata"][key], before["metadata"][key]);
    }
    assert_eq!(after["metadata"]["annotations"], json!({"c": "d", TOKEN: "9"}));
    assert_eq!((token_of(&before), token_of(&after)), (None, Some(Token(9))));
}

#[test]
fn a_token_that_is_none_is_nobodys() {
    for text in ["", "x", "-1", "1.5", "99999999999999999999999"] {
        assert_eq!(token_of(&json!({"metadata": {"annotations": {TOKEN: text}}})), None, "{text}");
    }
    assert_eq!(token_of(&json!({"metadata": {"annotations": {TOKEN: 7}}})), None);
}

#[tokio::test]
async fn a_check_makes_the_object_and_tries_a_publication() {
    let server =
        Server::start(vec![absent(), Reply::Store, object(4, Some(3)), conflict(), object(5, None), Reply::Store])
            .await;
    let route = endpoints(&server);
    tokio::time::timeout(SOON, route.check()).await.expect("an end").unwrap();
    let told = told(&server);
    assert_eq!(told[1], line("POST", "-", "-", 0), "with no traffic");
    assert_eq!(told[3], line("PUT", "4", "3", 1), "as it would be published");
    assert_eq!(told[5], line("PUT", "5", "-", 1));
    let trials = server.requests().iter().filter(|request| request.line.contains("?dryRun=All ")).count();
    assert_eq!(trials, 2);
}
