//! Against a server that says what each test wants.

use serde_json::json;

use super::*;
use crate::lock::kubernetes::tests::{Reply, Server, say};
use crate::route::object::TOKEN;
use crate::route::object::tests::{conflict, turn, within_soon};

const LOCK_NAME: &str = "prod/app";

/// The route of the pod "own".
fn route(server: &Server) -> PodLabel {
    let access = Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() };
    let pod = OwnPod { namespace: "prod".into(), name: "own".into(), uid: "own-uid".into(), asks_owner: true };
    let label = Label { key: "role".into(), active: "active".into(), standby: "standby".into() };
    PodLabel::new(access, pod, label, LOCK_NAME.into())
}

/// The activation with this token and id, after that one.
fn after(before: u64, token: u64) -> Turn {
    Turn { before: Some(Activation(before.into())), ..turn(token) }
}

/// A pod of the group.
fn pod(name: &str, role: &str, annotations: &Value) -> Value {
    let mut metadata = json!({"name": name, "uid": format!("{name}-uid"), "resourceVersion": "4",
        "labels": {"role": role, "app": "x"}, "annotations": {LOCK: LOCK_NAME}});
    for (key, value) in annotations.as_object().into_iter().flatten() {
        metadata["annotations"][key] = value.clone();
    }
    json!({"kind": "Pod", "metadata": metadata})
}

fn withdrawn(activation: u64) -> Value {
    json!({TOKEN: activation.to_string(), WITHDRAWN: Activation(activation.into()).to_string()})
}

fn list(pods: &[Value]) -> Reply {
    say(200, json!({"kind": "PodList", "items": pods}))
}

/// Method, pod, label, token and withdrawn activation of each write.
fn writes(server: &Server) -> Vec<[String; 4]> {
    let requests = server.requests().into_iter().filter(|request| !request.line.starts_with("GET"));
    let tell = |body: Value| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let metadata = &body["metadata"];
        let annotations = &metadata["annotations"];
        let withdrawn = text(&annotations[WITHDRAWN]).trim_start_matches('0').to_owned();
        [text(&metadata["name"]), text(&metadata["labels"]["role"]), text(&annotations[TOKEN]), withdrawn]
    };
    requests.map(|request| tell(request.body)).collect()
}

fn write(name: &str, role: &str, token: &str, withdrawn: &str) -> [String; 4] {
    [name, role, token, withdrawn].map(str::to_owned)
}

#[tokio::test]
async fn one_write_is_left_where_the_activation_before_has_taken_its_label_back() {
    let pods = [pod("old", "standby", &withdrawn(6)), pod("own", "standby", &json!({}))];
    let server = Server::start(vec![list(&pods), Reply::Store, Reply::Store]).await;
    let route = route(&server);
    within_soon(route.prepare()).await.unwrap();
    within_soon(route.publish(after(6, 7))).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "one list and one write");
    assert!(requests[0].line.contains("resourceVersion=0"), "which waits for nothing: {}", requests[0].line);
    within_soon(route.withdraw(after(6, 7))).await.unwrap();
    assert_eq!(writes(&server), [write("own", "active", "7", "-"), write("own", "standby", "7", "7")]);
}

#[tokio::test]
async fn every_other_pod_gets_the_token_first_where_nothing_was_taken_back() {
    let others = [pod("old", "active", &json!({TOKEN: "6"})), pod("third", "standby", &json!({}))];
    for turn in [after(6, 7), turn(7)] {
        let listed = || list(&[others[0].clone(), others[1].clone(), pod("own", "standby", &json!({}))]);
        let server = Server::start(vec![listed(), listed(), Reply::Store, Reply::Store, Reply::Store]).await;
        let route = route(&server);
        within_soon(route.prepare()).await.unwrap();
        within_soon(route.publish(turn)).await.unwrap();
        assert!(!server.requests()[1].line.contains("resourceVersion"), "nothing may be missing in what decides");
        let mut told = writes(&server);
        assert_eq!(told.pop(), Some(write("own", "active", "7", "-")), "the own one is the last");
        told.sort();
        assert_eq!(told, [write("old", "standby", "7", "-"), write("third", "standby", "7", "-")]);
    }
}

#[tokio::test]
async fn a_label_that_was_put_back_by_hand_is_taken_away() {
    let pods = [pod("old", "active", &withdrawn(6)), pod("own", "standby", &json!({}))];
    let server = Server::start(vec![list(&pods), Reply::Store, Reply::Store]).await;
    within_soon(route(&server).publish(after(6, 7))).await.unwrap();
    assert_eq!(writes(&server), [write("old", "standby", "7", "6"), write("own", "active", "7", "-")]);
}

#[tokio::test]
async fn pods_of_other_groups_are_left_alone() {
    let mut stranger = pod("stranger", "active", &json!({LOCK: "prod/other"}));
    let mut nobodys = stranger.clone();
    nobodys["metadata"]["annotations"] = Value::Null;
    stranger["metadata"]["name"] = "stranger-2".into();
    let pods = [stranger, nobodys, pod("own", "standby", &json!({}))];
    let server = Server::start(vec![list(&pods), list(&pods), Reply::Store]).await;
    let route = route(&server);
    within_soon(route.prepare()).await.unwrap();
    within_soon(route.publish(turn(7))).await.unwrap();
    assert_eq!(writes(&server), [write("own", "active", "7", "-")]);
}

#[tokio::test]
async fn a_newer_activation_anywhere_ends_it_before_the_own_pod_is_labelled() {
    let old = pod("old", "active", &json!({TOKEN: "8"}));
    let server = Server::start(vec![list(&[old, pod("own", "standby", &json!({}))])]).await;
    let why = within_soon(route(&server).publish(turn(7))).await.unwrap_err();
    assert!(why.contains("token 8") && why.contains("newer than 7"), "{why}");
    let own = pod("own", "standby", &json!({TOKEN: "8"}));
    let server = Server::start(vec![list(std::slice::from_ref(&own))]).await;
    within_soon(route(&server).publish(turn(7))).await.unwrap_err();
    assert_eq!(writes(&server), Vec::<[String; 4]>::new());
}

#[tokio::test]
async fn a_pod_that_is_gone_meanwhile_is_in_nobodys_way_and_one_that_cannot_be_written_is() {
    let pods = [pod("old", "active", &json!({})), pod("own", "standby", &json!({}))];
    let gone = || say(404, json!({"kind": "Status", "details": {"kind": "pods", "name": "old"}}));
    let server = Server::start(vec![list(&pods), gone(), gone(), Reply::Store]).await;
    within_soon(route(&server).publish(turn(7))).await.unwrap();
    let server = Server::start(vec![list(&pods), say(500, json!({}))]).await;
    within_soon(route(&server).publish(turn(7))).await.unwrap_err();
    // The kubelet writes the pod as well.
    let again = say(200, pods[0].clone());
    let server = Server::start(vec![list(&pods), conflict(), again, Reply::Store, Reply::Store]).await;
    within_soon(route(&server).publish(turn(7))).await.unwrap();
}

#[tokio::test]
async fn a_member_enters_as_a_standby_whatever_an_earlier_run_has_left() {
    for before in [pod("own", "active", &json!({TOKEN: "5"})), {
        let mut fresh = pod("own", "standby", &json!({}));
        fresh["metadata"]["annotations"] = Value::Null;
        fresh["metadata"]["labels"] = Value::Null;
        fresh
    }] {
        let server = Server::start(vec![say(200, before), list(&[]), Reply::Store]).await;
        route(&server).enter().await.unwrap();
        let body = server.requests().pop().unwrap().body;
        assert_eq!(body["metadata"]["labels"]["role"], "standby");
        assert_eq!(body["metadata"]["annotations"][LOCK], LOCK_NAME);
    }
}

#[tokio::test]
async fn a_label_of_somebody_else_is_refused_at_the_start() {
    let mut templated = pod("own", "active", &json!({}));
    templated["metadata"]["annotations"] = Value::Null;
    let mut other = pod("own", "standby", &json!({}));
    other["metadata"]["uid"] = "another".into();
    for (found, expected) in [
        (templated, "has the label role=active, which soloist did not write"),
        (pod("own", "standby", &json!({LOCK: "prod/other"})), "follows the lock prod/other"),
        (other, "has the UID"),
    ] {
        let server = Server::start(vec![say(200, found)]).await;
        let Err(Obstacle::Refusal(failure)) = route(&server).enter().await else { panic!("not refused") };
        assert_eq!(failure.code, Code::Configuration);
        assert!(failure.message.contains(expected) && failure.hint.is_some(), "{failure}");
    }
    let forbidden = json!({"kind": "Status", "message": "User \"u\" cannot list resource \"pods\""});
    let server = Server::start(vec![say(200, pod("own", "standby", &json!({}))), say(403, forbidden)]).await;
    let Err(Obstacle::Refusal(failure)) = route(&server).enter().await else { panic!("not refused") };
    assert_eq!(failure.code, Code::Permission);
    assert!(
        failure.message.contains("verb list on pods") && failure.message.contains("[get, list, update]"),
        "{failure}"
    );
}
