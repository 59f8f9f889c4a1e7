//! What is sent, and what answers mean.

use super::*;

fn target() -> Target {
    Target {
        namespace: "prod".into(),
        service: "app".into(),
        address: "10.0.0.7".parse().unwrap(),
        node: Some("node1".into()),
        ports: ports::parse(r#"[{"name":"http","port":80}]"#).unwrap(),
    }
}

#[test]
fn a_new_object_names_service_address_node_ports_and_token() {
    let target = target();
    let expected = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "app", "namespace": "prod", "managedFields": null, "annotations": {TOKEN: "7"}},
        "subsets": [{
            "addresses": [{"ip": "10.0.0.7", "nodeName": "node1"}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }],
    });
    assert_eq!(encode(None, &target, &[target.subset()], Token(7)), expected);
    let nowhere = Target { node: None, address: "fd00::1".parse().unwrap(), ..target };
    assert_eq!(nowhere.subset()["addresses"], json!([{"ip": "fd00::1"}]));
}

#[test]
fn what_others_put_there_stays_except_the_addresses() {
    let before = json!({
        "metadata": {"name": "app", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}, {"notReadyAddresses": []}],
    });
    let after = encode(Some(&before), &target(), &[], Token(9));
    for key in ["uid", "resourceVersion", "labels"] {
        assert_eq!(after["metadata"][key], before["metadata"][key]);
    }
    assert_eq!(after["metadata"]["annotations"], json!({"c": "d", TOKEN: "9"}));
    assert_eq!(after["subsets"], json!([]));
    assert_eq!((token_of(&before), token_of(&after)), (None, Some(Token(9))));
}

#[test]
fn a_token_that_is_none_is_nobodys() {
    for text in ["", "x", "-1", "1.5", "99999999999999999999999"] {
        assert_eq!(token_of(&json!({"metadata": {"annotations": {TOKEN: text}}})), None, "{text}");
    }
    assert_eq!(token_of(&json!({"metadata": {"annotations": {TOKEN: 7}}})), None);
}

fn judged(status: u16, header: Option<&str>, body: &Value) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(value) = header {
        headers.insert("retry-after", value.parse().unwrap());
    }
    judge("update", &target(), StatusCode::from_u16(status).unwrap(), &headers, body.to_string().as_bytes())
}

#[test]
fn only_the_word_on_the_object_itself_counts() {
    let object = json!({"kind": "Endpoints", "metadata": {}});
    assert_eq!(judged(200, None, &object), Answer::Found(Found::Object(object.clone())));
    assert_eq!(judged(201, None, &object), Answer::Found(Found::Object(object)));
    let absent = json!({"kind": "Status", "details": {"kind": "endpoints", "name": "app"}});
    assert_eq!(judged(404, None, &absent), Answer::Found(Found::Absent));
    assert_eq!(judged(409, None, &absent), Answer::Found(Found::Conflict));
    assert_eq!(judged(429, Some("3"), &absent), Answer::Throttled(Duration::from_secs(3)));
    assert_eq!(judged(429, None, &Value::Null), Answer::Throttled(WAIT));
    assert_eq!(judged(503, Some("2"), &Value::Null), Answer::Throttled(Duration::from_secs(2)));
    assert!(matches!(judged(401, None, &absent), Answer::Unauthorized(_)));
    let other = json!({"kind": "Status", "details": {"kind": "namespaces", "name": "prod"}});
    for (status, body) in [(200, &absent), (404, &other), (404, &Value::Null), (409, &Value::Null), (503, &absent)] {
        assert!(matches!(judged(status, None, body), Answer::Refused(_)), "{status} {body}");
    }
}

#[test]
fn a_missing_permission_names_the_rule() {
    let body = json!({"kind": "Status", "message": "User \"u\" cannot update\nresource \"endpoints\""});
    let Answer::Refused(why) = judged(403, None, &body) else { panic!("not refused") };
    for part in ["User \"u\" cannot update resource", "verb update", "\"app\"", "\"prod\"", "[get, create, update]"] {
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[test]
fn addresses_to_which_nothing_can_be_sent_are_refused() {
    let refused = ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1"];
    for address in refused.into_iter().chain(["::ffff:10.0.0.1"]) {
        assert!(check_address(address.parse().unwrap()).is_err(), "{address}");
    }
    for address in ["10.1.2.3", "fd00::7", "2001:db8::1"] {
        assert_eq!(check_address(address.parse().unwrap()), Ok(()));
    }
}

#[test]
fn endpoints_that_follow_a_selector_are_recognized() {
    let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
    assert!(is_managed(&labelled(json!({MANAGED_BY: "endpoint-controller"}))));
    assert!(!is_managed(&labelled(json!({"a": "b"}))) && !is_managed(&json!({})));
}
