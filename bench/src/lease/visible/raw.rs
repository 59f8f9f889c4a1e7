//! One PUT of an object as routes write it, and its delivery to a watch: soloist's own client, with nothing around it.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use soloist::lock::kubernetes::Access;
use soloist::route::api::{Api, Mode, Resource, Stored};
use testkit::routed::Site;
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::wait_for;
use tokio::runtime::Runtime;

use super::Kind;
use crate::steps::LIMIT;

/// The Service, the pod and the label.
const NAME: &str = "raw";
const ADDRESS: &str = "10.0.0.9";

/// An object of this kind that nobody else writes.
pub struct Raw {
    kind: Kind,
    of: Resource,
    api: Api,
    object: Value,
    view: View,
    runtime: Runtime,
}

impl Raw {
    /// Creates it.
    pub fn start(kind: Kind) -> Result<Self> {
        let site = Site::new()?;
        let (kubectl, namespace) = (site.cluster.client(), &site.group.namespace);
        site.pod(NAME, json!({}))?;
        let (of, view, object) = match kind {
            Kind::EndpointSlice => (
                resource("discovery.k8s.io", "EndpointSlice", "endpointslices", namespace),
                View::of_slices(kubectl, namespace, NAME)?,
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME}}, "endpoints": []}),
            ),
            Kind::Endpoints => (
                resource("", "Endpoints", "endpoints", namespace),
                View::of_endpoints(kubectl, namespace, NAME)?,
                json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": NAME}}),
            ),
            Kind::PodLabel => (
                resource("", "Pod", "pods", namespace),
                View::of_pods(kubectl, namespace, &[(NAME, "active")])?,
                site.get("pod", NAME)?,
            ),
        };
        site.apply(object)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let api = Api::new(Access::default());
        let object = runtime.block_on(api.get(&of, NAME))?.context("it was just created")?;
        Ok(Self { kind, of, api, object, view, runtime })
    }

    /// Nanoseconds from the begin of a PUT that sends traffic somewhere to the watch that shows it.
    pub fn round(&mut self) -> Result<u64> {
        self.put(false)?;
        self.view.wait(None, LIMIT)?;
        // At once: a member publishes right after it has acquired the lock, when the servers are awake.
        let began = stamp::now();
        self.put(true)?;
        let shown = match self.kind {
            Kind::EndpointSlice | Kind::Endpoints => ADDRESS,
            Kind::PodLabel => NAME,
        };
        let seen = wait_for("the raw write", LIMIT, || self.view.first(Some(shown), began))?;
        Ok(seen.saturating_sub(began))
    }

    fn put(&mut self, is_active: bool) -> Result<()> {
        let endpoints = if is_active { json!([{"addresses": [ADDRESS]}]) } else { json!([]) };
        match self.kind {
            Kind::EndpointSlice => self.object["endpoints"] = endpoints,
            Kind::Endpoints if is_active => self.object["subsets"] = json!([{"addresses": [{"ip": ADDRESS}]}]),
            Kind::Endpoints => self.object["subsets"] = json!([]),
            Kind::PodLabel => {
                self.object["metadata"]["labels"][NAME] = if is_active { "active" } else { "standby" }.into();
            }
        }
        let stored = self.runtime.block_on(self.api.put(&self.of, NAME, &self.object, Mode::Real))?;
        let Stored::As(object) = stored else { bail!("somebody else writes {NAME}") };
        self.object = object;
        Ok(())
    }
}

fn resource(group: &'static str, kind: &'static str, plural: &'static str, namespace: &str) -> Resource {
    Resource { group, version: "v1", kind, plural, verbs: "get, update", namespace: namespace.to_owned() }
}
