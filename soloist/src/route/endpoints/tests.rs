use super::*;

fn subset(address: &str, node: Option<&str>) -> Subset {
    Subset::new(Target {
        namespace: "prod".into(),
        service: "app".into(),
        address: address.parse().unwrap(),
        node: node.map(str::to_owned),
        ports: ports::parse(r#"[{"name":"http","port":80}]"#).unwrap(),
    })
}

fn filled(shape: &Subset, content: Content) -> Value {
    let mut object = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}, {}]});
    shape.fill(&mut object, content);
    object["subsets"].take()
}

#[test]
fn one_subset_names_address_node_and_ports_and_replaces_all_others() {
    let expected = json!([{
        "addresses": [{"ip": "10.0.0.7", "nodeName": "node1"}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }]);
    let shape = subset("10.0.0.7", Some("node1"));
    assert_eq!(filled(&shape, Content::Here), expected);
    assert_eq!(filled(&shape, Content::Nobody), json!([]));
    assert_eq!(filled(&shape, Content::Withdrawn(election::Activation(1))), json!([]));
    assert_eq!(filled(&subset("fd00::1", None), Content::Here)[0]["addresses"], json!([{"ip": "fd00::1"}]));
}

#[test]
fn endpoints_that_follow_a_selector_are_recognized() {
    let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
    assert!(is_managed(&labelled(json!({MANAGED_BY: "endpoint-controller"}))));
    assert!(!is_managed(&labelled(json!({"a": "b"}))) && !is_managed(&json!({})));
}
