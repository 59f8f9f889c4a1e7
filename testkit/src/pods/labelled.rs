//! The application of a controller: two pods `app=hapod` of a namespace, one of them active by its label, and the Service
//! that is to have that one alone.

use anyhow::Result;
use serde_json::Value;

use super::Pods;
use crate::traffic::View;

/// All that was to be seen of it.
pub struct Labelled<'a> {
    pods: &'a Pods,
    namespace: &'a str,
    /// Who is labelled as active.
    pub active: View,
    /// Who gets the traffic of the Service.
    pub ready: View,
}

/// One of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
}

/// Both pods, when nothing is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The one that is labelled so, and has the traffic.
    pub active: Pod,
    /// The other one.
    pub standby: Pod,
}

impl<'a> Labelled<'a> {
    /// Looks from now on.
    pub fn watch(pods: &'a Pods, namespace: &'a str, service: &str) -> Result<Self> {
        let kubectl = pods.client();
        let active = View::of_pods(kubectl, namespace, &[("app", "hapod"), ("role", "active")])?;
        let ready = View::of_slices(kubectl, namespace, service)?;
        Ok(Self { pods, namespace, active, ready })
    }

    /// All pods that nobody has deleted.
    pub fn staying(&self) -> Result<Vec<Value>> {
        let words = ["--namespace", self.namespace, "get", "pods", "-l", "app=hapod", "-o", "json"];
        let mut list: Value = serde_json::from_str(&self.pods.kubectl(&words)?)?;
        let mut pods: Vec<Value> = serde_json::from_value(list["items"].take())?;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// Both pods, if they are ready, one is active, the other one stands by, and the Service has just the active one.
    pub fn look(&self) -> Result<Option<Pair>> {
        let pods = self.staying()?;
        let of = |role: &str| pods.iter().find(|pod| pod["metadata"]["labels"]["role"] == role && is_ready(pod));
        let (Some(active), Some(standby)) = (of("active"), of("standby")) else { return Ok(None) };
        let pair = Pair { active: Pod::read(active), standby: Pod::read(standby) };
        Ok((pods.len() == 2 && self.ready.now() == [&*pair.active.ip]).then_some(pair))
    }

    /// Fails if two were labelled as active, or had the traffic, at any time.
    pub fn never_two(&self) -> Result<()> {
        self.active.never_two()?;
        self.ready.never_two()
    }
}

impl Pod {
    /// What is asked of a pod here.
    pub fn read(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self { name: text(&pod["metadata"]["name"]), ip: text(&pod["status"]["podIP"]) }
    }
}

/// Whether the kubelet says that it is.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}
