//! One EndpointSlice of a Service without selector for each slot: one endpoint, the active member.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::{Age, Api, Resource};
use super::endpoints::Target;
use super::object::{Content, Object, Shape};
use super::open::Obstacle;
use crate::error::{Code, Failure};
use crate::lock::kubernetes::Access;

/// How a slice names its Service.
const SERVICE: &str = "kubernetes.io/service-name";
/// How a slice names who writes it; nobody else may.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "soloist.dev";

/// The slice of one Service.
pub type EndpointSlice = Object<Slice>;

/// What the slice looks like.
pub struct Slice {
    resource: Resource,
    name: String,
    target: Target,
}

impl EndpointSlice {
    /// Nothing is read or asked yet.
    pub fn of(access: Access, target: Target, slot: u32) -> Self {
        Self::new(access, Slice::new(target, slot))
    }
}

/// Refuses a Service that has other endpoints beside ours: whoever asks the Service would reach those as well.
pub async fn check_others(api: &Api, target: &Target) -> Result<(), Obstacle> {
    let own = Slice::new(target.clone(), 1);
    let slices = api.list(&own.resource, &format!("{SERVICE}={}", target.service), Age::Newest).await?;
    let is_other = |slice: &&Value| !own.is_of_some_slot(slice["metadata"]["name"].as_str().unwrap_or_default());
    let has_endpoints = |slice: &&Value| slice["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty());
    let Some(other) = slices.iter().filter(is_other).find(has_endpoints) else { return Ok(()) };
    let name = own.resource.called(other["metadata"]["name"].as_str().unwrap_or_default());
    let manager = other["metadata"]["labels"][MANAGED_BY].as_str().unwrap_or("somebody unknown");
    let service = &target.service;
    let what = format!("Service {service} has other endpoints in {name}, which is managed by {manager}");
    let cure = match manager {
        "endpointslicemirroring-controller.k8s.io" => format!("kubectl delete endpoints {service}"),
        _ => "remove that slice or its manager, or use another Service".to_owned(),
    };
    Err(Failure::new(Code::Configuration, what).hint(cure).into())
}

impl Slice {
    fn new(target: Target, slot: u32) -> Self {
        let resource = Resource {
            group: "discovery.k8s.io",
            version: "v1",
            kind: "EndpointSlice",
            plural: "endpointslices",
            verbs: "get, list, create, update",
            namespace: target.namespace.clone(),
        };
        let first = format!("{}-soloist", target.service);
        let name = if slot == 1 { first } else { format!("{first}-{slot}") };
        Self { resource, name, target }
    }

    /// Whether the slice of the first slot is called this, or one of another slot.
    fn is_of_some_slot(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.name);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|slot| slot.parse::<u32>().is_ok())
        })
    }

    fn family(&self) -> &'static str {
        family(self.target.address)
    }

    fn endpoint(&self) -> Value {
        let conditions = json!({"ready": true, "serving": true, "terminating": false});
        let mut endpoint = json!({"addresses": [self.target.address.to_string()], "conditions": conditions});
        if let Some(node) = &self.target.node {
            endpoint["nodeName"] = node.as_str().into();
        }
        endpoint
    }
}

/// The family of an address, as Services and slices name it.
pub fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

impl Shape for Slice {
    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        self.target.address.to_string()
    }

    fn look(&self, found: &Value) -> Result<(), String> {
        let name = self.resource.called(&self.name);
        let label = |key: &str| found["metadata"]["labels"][key].as_str();
        let manager = label(MANAGED_BY).unwrap_or("nobody");
        if manager != MANAGER {
            return Err(format!("{name} is managed by {manager}, and not written over: remove it, or its manager"));
        }
        if label(SERVICE) != Some(&self.target.service) {
            return Err(format!("{name} belongs to another Service than {:?}: remove it", self.target.service));
        }
        let (family, address) = (found["addressType"].as_str().unwrap_or_default(), self.target.address);
        if family != self.family() {
            let ours = self.family();
            return Err(format!("{name} is for {family}, and {address} is {ours}: give all members one family"));
        }
        Ok(())
    }

    fn fill(&self, object: &mut Value, content: Content) {
        let labels = &mut object["metadata"]["labels"];
        labels[SERVICE] = self.target.service.as_str().into();
        labels[MANAGED_BY] = MANAGER.into();
        object["addressType"] = self.family().into();
        object["ports"] = self.target.ports.clone().into();
        let endpoints = match content {
            Content::Here => vec![self.endpoint()],
            Content::Withdrawn(_) | Content::Nobody => Vec::new(),
        };
        object["endpoints"] = endpoints.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::kubernetes::tests::{Reply, Server, say};
    use crate::route::Route;
    use crate::route::object::tests::{turn, within_soon};

    fn target(address: &str) -> Target {
        Target {
            namespace: "prod".into(),
            service: "app".into(),
            address: address.parse().unwrap(),
            node: Some("node1".into()),
            ports: vec![json!({"name": "http", "port": 8080, "protocol": "TCP"})],
        }
    }

    fn slice(manager: &str, service: &str, family: &str) -> Value {
        let labels = json!({SERVICE: service, MANAGED_BY: manager});
        let metadata = json!({"name": "app-soloist", "labels": labels, "resourceVersion": "4", "uid": "u"});
        json!({"kind": "EndpointSlice", "metadata": metadata, "addressType": family, "endpoints": []})
    }

    fn access(server: &Server) -> Access {
        Access { kubeconfig: Some(server.kubeconfig()), ..Access::default() }
    }

    #[tokio::test]
    async fn one_slice_with_one_ready_endpoint_and_none_after_the_withdrawal() {
        let absent = say(404, json!({"kind": "Status", "details": {"kind": "endpointslices", "name": "app-soloist"}}));
        let server = Server::start(vec![absent, Reply::Store, Reply::Store]).await;
        let route = EndpointSlice::of(access(&server), target("fd00::7"), 1);
        within_soon(route.publish(turn(7))).await.unwrap();
        within_soon(route.withdraw(turn(7))).await.unwrap();
        let requests = server.requests();
        let at = "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices";
        assert_eq!(requests[1].line, format!("POST {at} HTTP/1.1"));
        let written = &requests[1].body;
        assert_eq!(written["apiVersion"], "discovery.k8s.io/v1");
        assert_eq!(written["metadata"]["name"], "app-soloist");
        assert_eq!(written["metadata"]["labels"], json!({SERVICE: "app", MANAGED_BY: MANAGER}));
        assert_eq!(written["metadata"]["annotations"], json!({"soloist.dev/token": "7"}));
        assert_eq!(written["addressType"], "IPv6");
        assert_eq!(written["ports"], Value::from(target("fd00::7").ports));
        let conditions = json!({"ready": true, "serving": true, "terminating": false});
        let endpoint = json!({"addresses": ["fd00::7"], "conditions": conditions, "nodeName": "node1"});
        assert_eq!(written["endpoints"], json!([endpoint]));
        assert_eq!(requests[2].line, format!("PUT {at}/app-soloist HTTP/1.1"));
        assert_eq!(requests[2].body["endpoints"], json!([]));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let ours = Slice::new(target("10.0.0.7"), 1);
        assert_eq!(ours.look(&slice(MANAGER, "app", "IPv4")), Ok(()));
        for (found, expected) in [
            (slice("endpointslice-controller.k8s.io", "app", "IPv4"), "managed by endpointslice-controller"),
            (json!({}), "managed by nobody"),
            (slice(MANAGER, "other", "IPv4"), "another Service than \"app\""),
            (slice(MANAGER, "app", "IPv6"), "is for IPv6, and 10.0.0.7 is IPv4"),
        ] {
            let why = ours.look(&found).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn each_slot_has_a_slice_and_knows_those_of_the_others() {
        let names = [1, 2, 12].map(|slot| Slice::new(target("10.0.0.7"), slot).name);
        assert_eq!(names, ["app-soloist", "app-soloist-2", "app-soloist-12"]);
        let first = Slice::new(target("10.0.0.7"), 1);
        for name in &names {
            assert!(first.is_of_some_slot(name), "{name}");
        }
        for name in ["app-soloist-", "app-soloist-x", "app-soloist2", "app", "app-soloist-2-3", ""] {
            assert!(!first.is_of_some_slot(name), "{name}");
        }
    }

    #[tokio::test]
    async fn other_endpoints_of_the_service_are_refused() {
        let other = |endpoints: Value| {
            let labels = json!({MANAGED_BY: "endpointslicemirroring-controller.k8s.io"});
            let slice = json!({"metadata": {"name": "app-x", "labels": labels}, "endpoints": endpoints});
            let own = json!({"metadata": {"name": "app-soloist"}, "endpoints": [{}]});
            say(200, json!({"kind": "EndpointSliceList", "items": [own, slice]}))
        };
        let server = Server::start(vec![other(json!(null)), other(json!([])), other(json!([{}]))]).await;
        let api = Api::new(access(&server));
        for _ in 0..2 {
            check_others(&api, &target("10.0.0.7")).await.unwrap();
        }
        let Err(Obstacle::Refusal(failure)) = check_others(&api, &target("10.0.0.7")).await else {
            panic!("not refused")
        };
        assert_eq!(failure.code, Code::Configuration);
        assert!(failure.message.contains("EndpointSlice prod/app-x"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some("kubectl delete endpoints app"));
    }
}
