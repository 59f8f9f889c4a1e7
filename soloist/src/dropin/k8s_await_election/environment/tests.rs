//! Every variable, one by one.

use std::collections::BTreeMap;

use super::*;

/// A pod as the README of the other program describes it.
const POD: [(&str, &str); 12] = [
    ("ENABLED", "1"),
    ("NAME", "linstor controller"),
    ("LOCK_NAME", "piraeus-op-cs"),
    ("LOCK_NAMESPACE", "default"),
    ("IDENTITY", "my-singleton-7d9f-abcde"),
    ("STATUS_ENDPOINT", ":9999"),
    ("SERVICE_NAME", "my-service"),
    ("SERVICE_NAMESPACE", "prod"),
    ("SERVICE_PORTS_JSON", r#"[{"name":"my-port","port":1024}]"#),
    ("POD_IP", "10.1.2.3"),
    ("NODE_NAME", "node-1.example"),
    ("LEASE_DURATION", "20"),
];

/// The pod with these variables changed; one without a value is not set.
fn read_with(changes: &[(&str, Option<&str>)]) -> Result<Option<Wanted>, Fatal> {
    let mut pod: BTreeMap<String, String> = POD.iter().map(|(name, value)| (full(name), (*value).to_owned())).collect();
    for (name, value) in changes {
        match value {
            Some(value) => pod.insert(full(name), (*value).to_owned()),
            None => pod.remove(&full(name)),
        };
    }
    read(&|name| pod.get(name).cloned())
}

fn refusal(name: &str, value: &str) -> String {
    match read_with(&[(name, Some(value))]) {
        Err(fatal) => fatal.error,
        Ok(wanted) => panic!("{name}={value:?} was taken: {wanted:?}"),
    }
}

fn taken(changes: &[(&str, Option<&str>)]) -> Wanted {
    read_with(changes).unwrap().unwrap()
}

#[test]
fn everything_that_is_set_arrives() {
    let expected = Wanted {
        name: "linstor controller".into(),
        namespace: "default".into(),
        lock: "piraeus-op-cs".into(),
        identity: "my-singleton-7d9f-abcde".into(),
        lease: Duration::from_secs(20),
        status: Some(":9999".into()),
        endpoints: Some(Target {
            namespace: "prod".into(),
            service: "my-service".into(),
            address: "10.1.2.3".parse().unwrap(),
            node: Some("node-1.example".into()),
            ports: ports::parse(r#"[{"name":"my-port","port":1024}]"#).unwrap(),
        }),
    };
    assert_eq!(taken(&[]), expected);
    let settings = expected.settings(Access::default(), vec!["/bin/true".into()]).unwrap();
    assert_eq!(settings.lock.to_string(), "kubernetes://default/piraeus-op-cs");
    assert_eq!((settings.name.as_str(), settings.timing.lease()), ("my-singleton-7d9f-abcde", Duration::from_secs(20)));
    assert_eq!((settings.on_exit, settings.on_loss), (OnExit::Exit, OnLoss::Exit));
}

#[test]
fn any_text_enables_and_none_does_not() {
    for text in ["1", "0", "false", "no", " "] {
        assert!(read_with(&[("ENABLED", Some(text))]).unwrap().is_some(), "{text:?}");
    }
    assert_eq!(read_with(&[("ENABLED", Some(""))]), Ok(None));
    assert_eq!(read_with(&[("ENABLED", None), ("NAME", None), ("POD_IP", Some("nonsense"))]), Ok(None));
}

#[test]
fn what_is_missing_is_named_in_the_order_of_old() {
    let order = ["NAME", "LOCK_NAME", "LOCK_NAMESPACE", "IDENTITY"];
    for first in 0..order.len() {
        for none in [None, Some("")] {
            let missing: Vec<_> = order[first..].iter().map(|name| (*name, none)).collect();
            let name = full(order[first]);
            let error = format!("config: missing required environment variable: '{name}'");
            assert_eq!(read_with(&missing), Err(Fatal { message: "failed to create runner", error }));
        }
    }
}

#[test]
fn without_a_service_nothing_that_describes_it_matters() {
    for none in [None, Some("")] {
        let nonsense = Some("$(NONSENSE)");
        let changes = [
            ("SERVICE_NAME", none),
            ("SERVICE_PORTS_JSON", nonsense),
            ("SERVICE_NAMESPACE", nonsense),
            ("POD_IP", nonsense),
            ("NODE_NAME", nonsense),
        ];
        assert_eq!(taken(&changes).endpoints, None);
    }
}

#[test]
fn ports_that_cannot_be_read_are_fatal_with_a_service() {
    for json in ["", "80", "[{]", r#"[{"port":0}]"#, "$(PORTS)"] {
        let error = refusal("SERVICE_PORTS_JSON", json);
        assert!(error.starts_with("failed to parse ports from env: "), "{error}");
    }
    assert_eq!(taken(&[("SERVICE_PORTS_JSON", Some("[]"))]).endpoints.unwrap().ports, Vec::<serde_json::Value>::new());
}

#[test]
fn pods_have_addresses_of_both_families() {
    for address in ["10.1.2.3", "fd00::7", "2001:db8::1"] {
        assert_eq!(taken(&[("POD_IP", Some(address))]).endpoints.unwrap().address.to_string(), address);
    }
    for address in
        ["nonsense", "$(POD_IP)", "127.0.0.1", "0.0.0.0", "::1", "fe80::1", "10.0.0.256", "10.1.2.3/24", "a b"]
    {
        let error = refusal("POD_IP", address);
        assert!(error.contains("K8S_AWAIT_ELECTION_POD_IP"), "{error}");
    }
}

#[test]
fn a_node_may_be_left_out_and_empty_is_left_out() {
    for none in [None, Some("")] {
        assert_eq!(taken(&[("NODE_NAME", none)]).endpoints.unwrap().node, None);
    }
    for node in ["$(NODE_NAME)", "Node", "a_b"] {
        assert!(refusal("NODE_NAME", node).contains("K8S_AWAIT_ELECTION_NODE_NAME"));
    }
}

#[test]
fn a_service_needs_its_namespace_and_the_pods_address() {
    for name in ["SERVICE_NAMESPACE", "POD_IP"] {
        for none in [None, Some("")] {
            let error = read_with(&[(name, none)]).unwrap_err().error;
            assert_eq!(error, format!("config: K8S_AWAIT_ELECTION_SERVICE_NAME needs '{}'", full(name)));
        }
    }
}

#[test]
fn odd_names_are_refused_with_the_variable_and_what_is_allowed() {
    let long = "x".repeat(254);
    for name in ["LOCK_NAME", "LOCK_NAMESPACE", "IDENTITY", "SERVICE_NAME", "SERVICE_NAMESPACE"] {
        for value in ["$(X)", "a/b", "../x", "a b", "-a", "a-", "\u{fc}", "\u{fffd}", "a\nb", &long] {
            let error = refusal(name, value);
            assert!(error.starts_with(&format!("config: {}=", full(name))), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
    assert!(refusal("NAME", "$(X)").contains("nobody expanded"));
    assert!(refusal("LOCK_NAMESPACE", "a.b").contains("at most 63"));
    assert!(refusal("LOCK_NAME", "App").contains("a-z"));
    assert_eq!(taken(&[("IDENTITY", Some("Host_1.x"))]).identity, "Host_1.x");
}

#[test]
fn durations_default_and_follow_the_old_relations() {
    let with = |lease: &str, deadline: &str, retry: &str| {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let values =
            [("LEASE_DURATION", given(lease)), ("RENEW_DEADLINE", given(deadline)), ("RETRY_PERIOD", given(retry))];
        read_with(&values.each_ref().map(|(name, value)| (*name, value.as_deref())))
    };
    assert_eq!(with("", "", "").unwrap().unwrap().lease, Duration::from_secs(15));
    assert_eq!(with("60", "40", "5").unwrap().unwrap().lease, Duration::from_secs(60));
    assert_eq!(with("4", "3", "1").unwrap().unwrap().lease, Duration::from_secs(4));
    let refused = |lease, deadline, retry| {
        let fatal = with(lease, deadline, retry).unwrap_err();
        assert_eq!(fatal.message, "failed to run");
        fatal.error.strip_prefix("failed to create leader elector: ").unwrap().to_owned()
    };
    assert_eq!(refused("10", "", ""), "leaseDuration must be greater than renewDeadline");
    assert_eq!(refused("0", "0", "0"), "leaseDuration must be greater than renewDeadline");
    assert_eq!(refused("15", "6", "5"), "renewDeadline must be greater than retryPeriod*JitterFactor");
    assert_eq!(
        refused("15", "10", "18446744073709551615"),
        "renewDeadline must be greater than retryPeriod*JitterFactor"
    );
    assert_eq!(refused("15", "10", "0"), "retryPeriod must be greater than zero");
}

#[test]
fn durations_that_are_none_are_refused() {
    for name in ["LEASE_DURATION", "RENEW_DEADLINE", "RETRY_PERIOD"] {
        for text in ["15s", "abc", "-5", "1.5", " ", "1e3", "99999999999999999999999", "$(X)"] {
            let error = refusal(name, text);
            assert!(error.contains(&full(name)) && error.contains("whole seconds"), "{error}");
        }
    }
}

#[test]
fn a_lease_that_kubernetes_or_time_does_not_allow_is_refused() {
    let error = read_with(&[("LEASE_DURATION", Some("3")), ("RENEW_DEADLINE", Some("2")), ("RETRY_PERIOD", Some("1"))]);
    let error = error.unwrap_err().error;
    assert!(error.contains("K8S_AWAIT_ELECTION_LEASE_DURATION") && error.contains("from 4s"), "{error}");
    let wanted = taken(&[("LEASE_DURATION", Some("90000"))]);
    let error = wanted.settings(Access::default(), vec!["/bin/true".into()]).unwrap_err().error;
    assert!(error.contains("K8S_AWAIT_ELECTION_LEASE_DURATION \"90000s\" is longer than a day"), "{error}");
}

#[test]
fn the_pods_own_credentials_come_first() {
    let with = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|name| (*name).to_owned()).collect();
        access(&|name| set.iter().any(|one| one == name).then(|| OsString::from("x"))).map(|access| access.pod_only)
    };
    let pod = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
    assert_eq!(with(&pod), Ok(true));
    assert_eq!(with(&[pod[0], pod[1], "KUBECONFIG"]), Ok(true));
    assert_eq!(with(&["KUBECONFIG"]), Ok(false));
    for set in [&[][..], &[pod[0]][..], &["HOME"][..]] {
        assert!(with(set).unwrap_err().starts_with("failed to read cluster config: "), "{set:?}");
    }
}
