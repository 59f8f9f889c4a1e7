//! The Endpoints object of a Service without selector: one address, that of the active member.

pub mod ports;

use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::Resource;
use super::object::{Content, Object, Shape};
use crate::lock::kubernetes::Access;

/// How Kubernetes marks the Endpoints that it writes by itself, with every pod that a selector finds.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// What is published, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace of the Service.
    pub namespace: String,
    /// Its name, which is that of the Endpoints object too.
    pub service: String,
    /// Where this member's workload is reached.
    pub address: IpAddr,
    /// The node that it runs on: kube-proxy's local traffic goes by it.
    pub node: Option<String>,
    /// The ports, as [`ports::parse`] reads them.
    pub ports: Vec<Value>,
}

/// The Endpoints of one Service.
pub type Endpoints = Object<Subset>;

/// What the object looks like: one subset, or none.
pub struct Subset {
    resource: Resource,
    target: Target,
}

impl Endpoints {
    /// Nothing is read or asked yet.
    pub fn of(access: Access, target: Target) -> Self {
        Self::new(access, Subset::new(target))
    }
}

/// All Endpoints of a namespace.
pub fn resource(namespace: &str) -> Resource {
    Resource {
        group: "",
        version: "v1",
        kind: "Endpoints",
        plural: "endpoints",
        verbs: "get, create, update",
        namespace: namespace.to_owned(),
    }
}

impl Subset {
    fn new(target: Target) -> Self {
        Self { resource: resource(&target.namespace), target }
    }
}

impl Shape for Subset {
    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn name(&self) -> &str {
        &self.target.service
    }

    fn target(&self) -> String {
        self.target.address.to_string()
    }

    fn look(&self, found: &Value) -> Result<(), String> {
        if is_managed(found) {
            let name = self.resource.called(&self.target.service);
            tracing::warn!("{name} may be overwritten by Kubernetes itself: the Service must have no selector");
        }
        Ok(())
    }

    fn fill(&self, object: &mut Value, content: Content) {
        let subsets = match content {
            Content::Here => vec![self.target.subset()],
            Content::Withdrawn(_) | Content::Nobody => Vec::new(),
        };
        object["subsets"] = subsets.into();
    }
}

impl Target {
    fn subset(&self) -> Value {
        let mut address = json!({"ip": self.address.to_string()});
        if let Some(node) = &self.node {
            address["nodeName"] = node.as_str().into();
        }
        json!({"addresses": [address], "ports": self.ports})
    }
}

fn is_managed(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY] == "endpoint-controller"
}

#[cfg(test)]
mod tests;
