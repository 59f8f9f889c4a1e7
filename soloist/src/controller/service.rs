//! Services: whether one sends traffic to all pods of a group instead of the active ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::group::Group;
use super::watch::{Place, Scope};

type Labels = BTreeMap<String, String>;

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    name: String,
    /// What it selects pods by; empty for one that is of no interest here.
    selector: Labels,
}

/// All Services of a namespace, or of all.
#[derive(Clone, Debug)]
pub struct AllServices {
    /// The namespace; all of them where there is none.
    pub namespace: Option<String>,
}

impl Scope for AllServices {
    type Item = Service;

    fn name(&self) -> String {
        "services".to_owned()
    }

    fn place(&self) -> Place {
        Place { root: "/api/v1", namespace: self.namespace.clone(), plural: "services", selector: String::new() }
    }

    fn missing(&self) -> &'static str {
        "the verbs list and watch on services; without them nobody is warned of a Service that sends traffic to standbys \
         too"
    }

    fn read(&self, object: Value) -> Result<Service, String> {
        let raw: Raw = serde_json::from_value(object).map_err(|error| format!("a Service cannot be read: {error}"))?;
        let RawSpec { selector, cluster_ip } = raw.spec;
        // One without an address of its own names pods to each other, as that of a StatefulSet does.
        let selector = selector.filter(|_| cluster_ip.as_deref() != Some("None")).unwrap_or_default();
        Ok(Service { namespace: raw.metadata.namespace, name: raw.metadata.name, selector })
    }
}

#[derive(Deserialize)]
struct Raw {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawSpec,
}

#[derive(Deserialize)]
struct RawMetadata {
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    selector: Option<Labels>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
}

/// All that were seen, to be found by the labels of a pod.
#[derive(Debug, Default)]
pub struct Services {
    /// By namespace and name.
    selectors: BTreeMap<(String, String), Labels>,
    /// Names, by namespace and one label.
    by_label: HashMap<(String, String, String), BTreeSet<String>>,
}

impl Services {
    /// These are all of a namespace, or of all.
    pub fn set_all(&mut self, of: Option<&str>, all: Vec<Service>) {
        let is_of = |(namespace, _): &&(String, String)| of.is_none_or(|of| of == namespace);
        let before: Vec<(String, String)> = self.selectors.keys().filter(is_of).cloned().collect();
        for key in before {
            self.forget(key);
        }
        for service in all {
            self.set(service);
        }
    }

    /// One is so now. Whether it selects otherwise than before.
    pub fn set(&mut self, service: Service) -> bool {
        let Service { namespace, name, selector } = service;
        let key = (namespace, name);
        if self.selectors.get(&key).map_or(selector.is_empty(), |before| *before == selector) {
            return false;
        }
        self.forget(key.clone());
        if let Some((label, value)) = selector.first_key_value() {
            let place = (key.0.clone(), label.clone(), value.clone());
            self.by_label.entry(place).or_default().insert(key.1.clone());
            self.selectors.insert(key, selector);
        }
        true
    }

    /// One is gone. Whether it selected anything.
    pub fn remove(&mut self, service: &Service) -> bool {
        self.forget((service.namespace.clone(), service.name.clone()))
    }

    fn forget(&mut self, key: (String, String)) -> bool {
        let Some(selector) = self.selectors.remove(&key) else { return false };
        let Some((label, value)) = selector.first_key_value() else { return false };
        let place = (key.0, label.clone(), value.clone());
        if let Some(names) = self.by_label.get_mut(&place) {
            names.remove(&key.1);
            if names.is_empty() {
                self.by_label.remove(&place);
            }
        }
        true
    }

    /// What sends traffic to all pods of a group, one of which has these labels, where nothing sends it to the active ones
    /// alone.
    pub fn astray(&self, group: &Group, labels: &Labels) -> Option<String> {
        let (role, active) = (&group.label.key, &group.label.active);
        let mut labels = labels.clone();
        labels.insert(role.clone(), active.clone());
        let by_label = |(key, value): (&String, &String)| {
            self.by_label.get(&(group.namespace.clone(), key.clone(), value.clone())).into_iter().flatten()
        };
        let selector = |name: &String| self.selectors.get(&(group.namespace.clone(), name.clone()));
        let fits = |selector: &Labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        let found: Vec<(&String, &Labels)> = labels
            .iter()
            .flat_map(by_label)
            .filter_map(|name| Some((name, selector(name)?)))
            .filter(|(_, selector)| fits(selector))
            .collect();
        if found.is_empty() || found.iter().any(|(_, selector)| selector.contains_key(role)) {
            return None;
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let (what, send) = if names.len() == 1 { ("Service", "sends") } else { ("Services", "send") };
        let names = names.join(", ");
        Some(format!("the {what} {names} {send} traffic to standbys too: add {role}: {active} to the selector"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, selector: &Value) -> Service {
        let object = json!({"metadata": {"namespace": "prod", "name": name}, "spec": {"selector": selector}});
        AllServices { namespace: None }.read(object).unwrap()
    }

    fn astray(services: &[(&str, Value)]) -> Option<String> {
        let mut known = Services::default();
        known.set_all(None, services.iter().map(|(name, selector)| service(name, selector)).collect());
        let labels = [("app", "hapod"), ("role", "standby")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        known.astray(&crate::controller::plan::tests::group(), &labels.into())
    }

    #[test]
    fn a_service_that_selects_all_pods_is_named_unless_another_one_selects_the_active_ones() {
        let all = || ("all", json!({"app": "hapod"}));
        let why = astray(&[all(), ("other", json!({"app": "x"})), ("none", Value::Null)]).unwrap();
        assert_eq!(why, "the Service all sends traffic to standbys too: add role: active to the selector");
        assert_eq!(astray(&[all(), ("right", json!({"app": "hapod", "role": "active"}))]), None);
        assert_eq!(astray(&[("right", json!({"role": "active"}))]), None);
        assert_eq!(astray(&[]), None);
        assert!(astray(&[all(), ("z", json!({"app": "hapod"}))]).unwrap().contains("Services all, z send"));
    }

    #[test]
    fn one_that_changes_or_goes_is_forgotten() {
        let mut known = Services::default();
        assert!(known.set(service("all", &json!({"app": "hapod"}))));
        assert!(!known.set(service("all", &json!({"app": "hapod"}))));
        assert!(known.set(service("all", &json!({"app": "x"}))));
        known.remove(&service("all", &json!({})));
        assert!(known.selectors.is_empty() && known.by_label.is_empty());
        assert!(!known.set(service("empty", &json!({}))), "of no interest before and after");
        known.set(service("all", &json!({"app": "x"})));
        known.set_all(Some("other"), Vec::new());
        assert_eq!(known.selectors.len(), 1);
        known.set_all(Some("prod"), Vec::new());
        assert!(known.selectors.is_empty() && known.by_label.is_empty());
    }

    #[test]
    fn one_without_an_address_is_for_the_pods_among_themselves() {
        let spec = json!({"clusterIP": "None", "selector": {"app": "hapod"}});
        let object = json!({"metadata": {"namespace": "prod", "name": "peers"}, "spec": spec});
        assert!(AllServices { namespace: None }.read(object).unwrap().selector.is_empty());
    }
}
