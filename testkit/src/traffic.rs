//! Who gets traffic, as a watch tells it: every state in the order in which the API server stored it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::listener::Listener;
use crate::stamp;
use crate::wait::wait_until;

/// Keys and values.
pub type Labels = &'static [(&'static str, &'static str)];

/// One state: who was to be seen, and since when in nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was told.
    pub at: u64,
    /// All that get traffic: addresses, or names of pods.
    pub who: Vec<String>,
}

/// A view of the traffic, from its beginning on.
#[derive(Debug)]
pub struct View(Listener<Seen>);

impl View {
    /// The ready addresses in all slices of a Service.
    pub fn of_slices(kubectl: &Kubectl, namespace: &str, service: &str) -> Result<Self> {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?watch=true&\
             labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        );
        Self::follow(kubectl, &path, ready_addresses)
    }

    /// The addresses in the Endpoints of a Service.
    pub fn of_endpoints(kubectl: &Kubectl, namespace: &str, service: &str) -> Result<Self> {
        let path =
            format!("/api/v1/namespaces/{namespace}/endpoints?watch=true&fieldSelector=metadata.name%3D{service}");
        Self::follow(kubectl, &path, subset_addresses)
    }

    /// The pods that have all these labels.
    pub fn of_pods(kubectl: &Kubectl, namespace: &str, labels: Labels) -> Result<Self> {
        Self::follow_pods(kubectl, namespace, move |pod| is_labelled(pod, labels))
    }

    /// The pods with all these labels that nobody has deleted.
    pub fn of_staying_pods(kubectl: &Kubectl, namespace: &str, labels: Labels) -> Result<Self> {
        let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
        Self::follow_pods(kubectl, namespace, move |pod| stays(pod) && is_labelled(pod, labels))
    }

    fn follow_pods(
        kubectl: &Kubectl,
        namespace: &str,
        counts: impl Fn(&Value) -> bool + Send + 'static,
    ) -> Result<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?watch=true");
        Self::follow(kubectl, &path, move |pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if counts(pod) { vec![name] } else { Vec::new() }
        })
    }

    /// When `who` was seen first after `after`, where nobody else was meant.
    pub fn first(&self, who: Option<&str>, after: u64) -> Option<u64> {
        let wanted: Vec<&str> = who.into_iter().collect();
        self.seen().into_iter().find(|seen| seen.at >= after && seen.who == wanted).map(|seen| seen.at)
    }

    /// When `who` was seen no more, after `after`.
    pub fn left(&self, who: &str, after: u64) -> Option<u64> {
        let is_without = |seen: &Seen| seen.at >= after && !seen.who.iter().any(|one| one == who);
        self.seen().into_iter().find(is_without).map(|seen| seen.at)
    }

    fn follow(kubectl: &Kubectl, path: &str, who: impl Fn(&Value) -> Vec<String> + Send + 'static) -> Result<Self> {
        let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let understand = move |at, line: String| {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let object = &event["object"];
            let name = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str() {
                Some("DELETED") => drop(objects.remove(&name)),
                _ => drop(objects.insert(name, who(object))),
            }
            let mut all: Vec<String> = objects.values().flatten().cloned().collect();
            all.sort();
            Seen { at, who: all }
        };
        Listener::start(kubectl, &["get", "--raw", path], understand).map(Self)
    }

    /// Everything that was seen.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.heard()
    }

    /// Who gets traffic now.
    pub fn now(&self) -> Vec<String> {
        self.seen().pop().map(|seen| seen.who).unwrap_or_default()
    }

    /// Waits until exactly `who` gets traffic: one, or nobody.
    pub fn wait(&self, who: Option<&str>, limit: Duration) -> Result<()> {
        let wanted: Vec<&str> = who.into_iter().collect();
        let is_so = || self.now() == wanted;
        wait_until(&format!("traffic to {wanted:?}"), limit, is_so).with_context(|| format!("{:?}", self.seen()))
    }

    /// The longest time for which two got traffic at once, of what began after `after`.
    pub fn longest_two(&self, after: u64) -> Duration {
        let seen = self.seen();
        let ends = seen.iter().skip(1).map(|next| next.at).chain([stamp::now()]);
        let times = seen.iter().zip(ends).filter(|(seen, _)| seen.at >= after && seen.who.len() > 1);
        Duration::from_nanos(times.map(|(seen, end)| end.saturating_sub(seen.at)).max().unwrap_or_default())
    }

    /// Never did two get traffic at once.
    pub fn never_two(&self) -> Result<()> {
        let seen = self.seen();
        let two = seen.iter().find(|seen| seen.who.len() > 1);
        ensure!(two.is_none(), "two at once: {two:?} in {seen:?}");
        Ok(())
    }

    /// Never did two get traffic at once; `who` got it one after the other.
    pub fn check(&self, who: &[&str]) -> Result<()> {
        self.never_two()?;
        let seen = self.seen();
        let mut order: Vec<String> = seen.into_iter().flat_map(|seen| seen.who).collect();
        order.dedup();
        ensure!(order == who, "traffic went to {order:?}, and not to {who:?}");
        Ok(())
    }
}

fn is_labelled(pod: &Value, labels: Labels) -> bool {
    labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value)
}

fn ready_addresses(slice: &Value) -> Vec<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    ready.flat_map(|endpoint| texts(&endpoint["addresses"])).collect()
}

fn subset_addresses(endpoints: &Value) -> Vec<String> {
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let addresses = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    addresses.filter_map(|address| address["ip"].as_str().map(str::to_owned)).collect()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}
