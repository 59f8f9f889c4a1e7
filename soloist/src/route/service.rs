//! The Service that a route sends traffic for: whether it can, and to which ports.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::{Api, Resource};
use super::endpoint_slice::family;
use super::open::Obstacle;
use crate::error::{Code, Failure};

/// Reads the Service and returns the ports of its endpoints.
///
/// # Errors
/// It cannot be read, or has a selector, another family than `address`, or ports that nobody can look up.
pub async fn ports(api: &Api, namespace: &str, name: &str, address: IpAddr) -> Result<Vec<Value>, Obstacle> {
    let resource = resource(namespace);
    let called = resource.called(name);
    let Some(service) = api.get(&resource, name).await? else {
        let what = format!("{called} does not exist");
        return Err(Failure::new(Code::Configuration, what).hint("create it without a selector").into());
    };
    judge(&called, &service, address).map_err(Obstacle::Refusal)
}

fn resource(namespace: &str) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        verbs: "get",
        namespace: namespace.to_owned(),
    }
}

fn judge(called: &str, service: &Value, address: IpAddr) -> Result<Vec<Value>, Failure> {
    let refuse = |what: String, cure: &str| Err(Failure::new(Code::Configuration, what).hint(cure));
    let spec = &service["spec"];
    if let Some(selector) = spec["selector"].as_object().filter(|selector| !selector.is_empty()) {
        let shown: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
        let what = format!(
            "{called} has the selector {}: Kubernetes itself sends its traffic to every pod with these labels",
            shown.join(",")
        );
        return refuse(what, "remove spec.selector from the Service, or use --route pod-label:KEY with it");
    }
    if spec["type"] == "ExternalName" {
        return refuse(format!("{called} is of type ExternalName, which has no endpoints"), "use type ClusterIP");
    }
    let families: Vec<&str> = spec["ipFamilies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !families.is_empty() && !families.contains(&family(address)) {
        let what = format!("{called} is for {}, and {address} is {}", families.join(" and "), family(address));
        return refuse(what, "set POD_IP to an address of that family (status.podIPs), or ipFamilies of the Service");
    }
    spec["ports"].as_array().into_iter().flatten().map(|port| endpoint_port(called, port)).collect()
}

/// The port that endpoints have for one port of the Service: of the same name, so that both find each other.
fn endpoint_port(called: &str, port: &Value) -> Result<Value, Failure> {
    let target = match &port["targetPort"] {
        Value::Null => &port["port"],
        target => target,
    };
    let Some(number) = target.as_u64() else {
        let what = format!("{called} has the targetPort {target}, which names a port of whatever its selector finds");
        return Err(Failure::new(Code::Configuration, what).hint("without a selector give targetPort as a number"));
    };
    let mut endpoint = json!({"port": number, "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    for field in ["name", "appProtocol"] {
        if let Some(value) = port[field].as_str() {
            endpoint[field] = value.into();
        }
    }
    Ok(endpoint)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(spec: Value, address: &str) -> Result<Vec<Value>, Failure> {
        judge("Service prod/app", &json!({"spec": spec}), address.parse().unwrap())
    }

    #[test]
    fn ports_are_those_that_the_service_targets() {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "h2c"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]);
        let expected = [
            json!({"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}),
            json!({"name": "dns", "port": 53, "protocol": "UDP"}),
        ];
        for spec in [json!({"ports": ports}), json!({"ports": ports, "ipFamilies": ["IPv6", "IPv4"], "selector": {}})] {
            assert_eq!(judged(spec, "10.0.0.7").unwrap(), expected);
        }
        assert_eq!(judged(json!({"clusterIP": "None"}), "fd00::7").unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn services_that_would_undo_it_are_refused_with_the_fix() {
        for (spec, expected) in [
            (json!({"selector": {"app": "x", "tier": "y"}}), "has the selector app=x,tier=y"),
            (json!({"type": "ExternalName"}), "ExternalName"),
            (json!({"ipFamilies": ["IPv6"]}), "is for IPv6, and 10.0.0.7 is IPv4"),
            (json!({"ports": [{"port": 80, "targetPort": "http"}]}), "targetPort \"http\""),
        ] {
            let failure = judged(spec, "10.0.0.7").unwrap_err();
            assert_eq!(failure.code, Code::Configuration);
            assert!(failure.message.contains(expected) && failure.hint.is_some(), "{failure}");
        }
    }
}
