//! `--route`: who gets the group's traffic, and what the environment says of the own pod.

use std::net::IpAddr;

use super::lock_url::{is_label, is_subdomain};
use crate::error::{Code, Failure};
use crate::handover::Place;
use crate::route::check_address;
use crate::route::consul_service::Definition;
use crate::route::endpoints::Target;
use crate::route::open::Wanted;
use crate::route::pod_label::{Label, OwnPod};

const ALLOWED: &str =
    "endpoint-slice:SERVICE, endpoints:SERVICE, pod-label:KEY, pod-label:KEY=ACTIVE|STANDBY or consul-service:NAME";

/// The longest name of a label, and the longest value.
const LABEL_MAX: usize = 63;

/// Looks a variable of the environment up.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The pod that the environment names, where it names one: enough to watch it.
pub(super) fn own_place(variables: Variables<'_>) -> Option<Place> {
    let named = |name: &str, is_valid: fn(&str) -> bool| variables(name).filter(|value| is_valid(value));
    Some(Place {
        namespace: named("POD_NAMESPACE", is_label)?,
        pod: named("POD_NAME", is_subdomain)?,
        uid: variables("POD_UID").filter(|uid| !uid.is_empty()),
        node: named("NODE_NAME", is_subdomain),
    })
}

/// Validates all routes of one member.
pub(super) fn routes(
    raw: &[String],
    consul: &dyn Fn(&str) -> Result<Definition, Failure>,
    variables: Variables<'_>,
) -> Result<Vec<Wanted>, Failure> {
    let read = |text: &String| match text.strip_prefix("consul-service:") {
        Some(service) => consul(service).map(Box::new).map(Wanted::ConsulService),
        None => route(text, variables),
    };
    let wanted: Vec<Wanted> = raw.iter().map(read).collect::<Result<_, _>>()?;
    for (at, one) in wanted.iter().enumerate() {
        if let Some(other) = wanted[..at].iter().find(|other| clash(one, other)) {
            return Err(Failure::new(
                Code::Configuration,
                format!("--route {one} and --route {other} exclude each other"),
            )
            .hint("one route for a Service, and one label for a pod"));
        }
    }
    Ok(wanted)
}

/// Whether both would send traffic of one Service, or write on one pod.
fn clash(one: &Wanted, other: &Wanted) -> bool {
    let written = |wanted: &Wanted| match wanted {
        Wanted::EndpointSlice(target) | Wanted::Endpoints(target) => ("Service", target.service.clone()),
        Wanted::PodLabel(..) => ("pod", String::new()),
        Wanted::ConsulService(definition) => ("service of Consul", definition.service.clone()),
    };
    written(one) == written(other)
}

fn route(text: &str, variables: Variables<'_>) -> Result<Wanted, Failure> {
    let refuse = |why: &str| Err(Failure::new(Code::Usage, format!("--route {text:?} {why}")).hint(ALLOWED));
    let Some((kind, rest)) = text.split_once(':') else { return refuse("has no kind of route") };
    let pod = Pod { text, variables };
    match kind {
        "endpoint-slice" | "endpoints" if !is_label(rest) => {
            refuse("does not name a Service: a-z, 0-9 and '-', at most 63, first and last no '-'")
        }
        "endpoint-slice" => pod.target(rest).map(Wanted::EndpointSlice),
        "endpoints" => pod.target(rest).map(Wanted::Endpoints),
        "pod-label" => match label(rest) {
            Ok(label) => Ok(Wanted::PodLabel(pod.own()?, label)),
            Err(why) => refuse(why),
        },
        _ => refuse("is no kind of route"),
    }
}

/// Reads `KEY` or `KEY=ACTIVE|STANDBY`.
pub(super) fn label(text: &str) -> Result<Label, &'static str> {
    let (key, values) = text.split_once('=').unwrap_or((text, "active|standby"));
    let Some((active, standby)) = values.split_once('|') else { return Err("has one value instead of two") };
    let name = match key.split_once('/') {
        Some((prefix, _)) if !is_subdomain(prefix) => return Err("has a label key with a prefix that is no DNS name"),
        Some((_, name)) => name,
        None => key,
    };
    if !is_label_text(name) {
        return Err("has a label key that is not allowed: letters, digits, '-', '_', '.', at most 63");
    }
    if !is_label_text(active) || !is_label_text(standby) {
        return Err("has a label value that is not allowed: letters, digits, '-', '_', '.', 1 to 63");
    }
    if active == standby {
        return Err("has the same value twice");
    }
    Ok(Label { key: key.to_owned(), active: active.to_owned(), standby: standby.to_owned() })
}

/// Whether this could be the value of a label, or the name in its key.
pub(super) fn is_label_text(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let mut chars = text.chars();
    (1..=LABEL_MAX).contains(&text.len())
        && text.chars().all(is_inner)
        && is_end(chars.clone().next())
        && is_end(chars.next_back())
}

/// What the environment says of the own pod, for one route.
struct Pod<'a> {
    text: &'a str,
    variables: Variables<'a>,
}

impl Pod<'_> {
    fn target(&self, service: &str) -> Result<Target, Failure> {
        let namespace = self.named("POD_NAMESPACE", "metadata.namespace", is_label)?;
        let text = self.required("POD_IP", "status.podIP")?;
        let address: IpAddr =
            text.parse().map_err(|_| self.refuse(&format!("POD_IP={text:?} is not an address"), "status.podIP"))?;
        check_address(address).map_err(|why| self.refuse(&format!("POD_IP: {why}"), "status.podIP"))?;
        let node = match self.optional("NODE_NAME") {
            Some(_) => Some(self.named("NODE_NAME", "spec.nodeName", is_subdomain)?),
            None => None,
        };
        Ok(Target { namespace, service: service.to_owned(), address, node, ports: Vec::new() })
    }

    fn own(&self) -> Result<OwnPod, Failure> {
        Ok(OwnPod {
            namespace: self.named("POD_NAMESPACE", "metadata.namespace", is_label)?,
            name: self.named("POD_NAME", "metadata.name", is_subdomain)?,
            uid: self.required("POD_UID", "metadata.uid")?,
            asks_owner: true,
        })
    }

    fn named(&self, name: &str, field: &str, is_valid: fn(&str) -> bool) -> Result<String, Failure> {
        let value = self.required(name, field)?;
        if is_valid(&value) {
            return Ok(value);
        }
        Err(self.refuse(&format!("{name}={value:?} is no name that Kubernetes could have given"), field))
    }

    /// Kubernetes leaves `$(VAR)` as it is where VAR is defined later, or not at all.
    fn required(&self, name: &str, field: &str) -> Result<String, Failure> {
        match self.optional(name) {
            None => Err(self.refuse(&format!("the variable {name} is not set"), field)),
            Some(value) if value.contains("$(") => {
                Err(self.refuse(&format!("{name}={value:?} contains a variable that nobody expanded"), field))
            }
            Some(value) => Ok(value),
        }
    }

    fn optional(&self, name: &str) -> Option<String> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    fn refuse(&self, what: &str, field: &str) -> Failure {
        Failure::new(Code::Configuration, format!("--route {}: {what}", self.text))
            .hint(format!("in the pod's template: valueFrom: {{fieldRef: {{fieldPath: {field}}}}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_pod(name: &str) -> Option<String> {
        let value = match name {
            "POD_NAMESPACE" => "prod",
            "POD_NAME" => "app-0",
            "POD_UID" => "u",
            "POD_IP" => "10.0.0.7",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn no_consul(service: &str) -> Result<Definition, Failure> {
        Err(Failure::new(Code::Internal, service))
    }

    fn read(texts: &[&str]) -> Result<Vec<Wanted>, Failure> {
        let raw: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        routes(&raw, &no_consul, &in_a_pod)
    }

    #[test]
    fn all_kinds_are_read_and_several_may_be_given() {
        let wanted =
            read(&["endpoint-slice:app", "endpoints:old", "pod-label:example.com/role=primary|replica"]).unwrap();
        let shown: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["endpoint-slice:app", "endpoints:old", "pod-label:example.com/role=primary|replica"]);
        assert_eq!(read(&["pod-label:role"]).unwrap()[0].to_string(), "pod-label:role=active|standby");
        assert_eq!(read(&[]).unwrap(), []);
    }

    #[test]
    fn what_is_no_route_is_refused() {
        let long = format!("pod-label:{}", "x".repeat(64));
        for text in [
            "",
            "app",
            "service:app",
            "endpoint-slice:",
            "endpoint-slice:App",
            "endpoints:a/b",
            "endpoints:$(SERVICE)",
            "pod-label:",
            "pod-label:-role",
            "pod-label:ro le",
            "pod-label:/role",
            "pod-label:Ex_ample/role",
            "pod-label:a/b/c",
            "pod-label:role=active",
            "pod-label:role=|standby",
            "pod-label:role=a|b|c",
            "pod-label:role=x|x",
            &long,
        ] {
            let failure = read(&[text]).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{text:?}: {failure}");
            assert!(failure.message.contains("--route") && failure.hint.is_some(), "{failure}");
        }
    }

    #[test]
    fn two_routes_of_one_service_or_pod_are_refused() {
        for pair in [
            ["endpoint-slice:app", "endpoint-slice:app"],
            ["endpoint-slice:app", "endpoints:app"],
            ["pod-label:a", "pod-label:b"],
        ] {
            assert_eq!(read(&pair).unwrap_err().code, Code::Configuration, "{pair:?}");
        }
        read(&["endpoint-slice:app", "endpoint-slice:other"]).unwrap();
    }

    #[test]
    fn what_is_missing_or_wrong_in_the_environment_is_named_with_its_field() {
        for (route, variable, field) in [
            ("endpoint-slice:app", "POD_IP", "status.podIP"),
            ("endpoint-slice:app", "POD_NAMESPACE", "metadata.namespace"),
            ("endpoints:app", "POD_IP", "status.podIP"),
            ("pod-label:role", "POD_NAME", "metadata.name"),
            ("pod-label:role", "POD_UID", "metadata.uid"),
        ] {
            for value in ["", "$(OTHER)"] {
                let raw = [route.to_owned()];
                let variables = |name: &str| if name == variable { Some(value.to_owned()) } else { in_a_pod(name) };
                let failure = routes(&raw, &no_consul, &variables).unwrap_err();
                assert_eq!(failure.code, Code::Configuration);
                assert!(failure.message.contains(variable), "{failure}");
                assert!(failure.hint.unwrap().contains(field));
            }
        }
        for address in ["nowhere", "127.0.0.1", "10.0.0.7/24"] {
            let raw = ["endpoints:app".to_owned()];
            let variables = |name: &str| if name == "POD_IP" { Some(address.to_owned()) } else { in_a_pod(name) };
            assert!(routes(&raw, &no_consul, &variables).unwrap_err().message.contains("POD_IP"));
        }
    }
}
