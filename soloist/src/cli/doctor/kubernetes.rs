//! What only Kubernetes has: rules, pods with a grace of their own, and Services.

use std::time::Duration;

use http::header::DATE;
use serde_json::{Value, json};

use super::host::is_shell;
use super::{Finding, Terms};
use crate::cli::operate::print::exactly;
use crate::cli::operate::{AnyBoard, Target};
use crate::error::{Code, Failure};
use crate::lock::board::Look;
use crate::lock::kubernetes::ObjectName;
use crate::lock::kubernetes::session::{Session, request};
use crate::member::misconfigured;
use crate::route::api::{Api, Resource, Stored, Trouble};
use crate::settings;

/// What the kubelet gives where a pod says nothing.
const POD_GRACE: u64 = 30;
/// So many pods are looked at.
const PODS_MAX: usize = 16;

/// A verb on something, and what is missed without it; nothing where the group cannot do without.
struct Wanted {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    name: String,
    without: Option<&'static str>,
}

fn wanted(object: &ObjectName) -> Vec<Wanted> {
    let group = match object.kind.group() {
        "\"\"" => "",
        group => group,
    };
    let lock =
        |verb, without| Wanted { verb, group, resource: object.kind.resource(), name: object.name.clone(), without };
    let beside =
        |verb, resource, without| Wanted { verb, group: "", resource, name: String::new(), without: Some(without) };
    vec![
        lock("get", None),
        lock("update", None),
        lock("watch", Some("it is looked at each retry period instead")),
        beside("create", "events", "no Events are written"),
        beside("watch", "pods", "an eviction is not noticed before SIGTERM, and --evidence pod means nothing"),
    ]
}

/// Who may do what with the lock, as the API server says it of whoever asks.
pub(super) async fn permissions(target: &Target) -> Vec<Finding> {
    let object = match object(target).await {
        Ok(object) => object,
        Err(failure) => return vec![Finding::failed("permissions", failure)],
    };
    let api = Api::new(target.access.clone());
    let mut findings = Vec::new();
    let mut allowed = Vec::new();
    for wanted in wanted(&object) {
        match may(&api, &wanted, &object.namespace).await {
            Ok(true) => allowed.push(format!("{} {}", wanted.verb, wanted.resource)),
            Ok(false) => findings.push(missing(&wanted, &object.namespace)),
            Err(trouble) => {
                findings.push(Finding::warning("permissions", trouble.to_string(), "ask an administrator"));
                break;
            }
        }
    }
    if !allowed.is_empty() {
        findings.insert(0, Finding::ok("permissions", format!("may {}", allowed.join(", "))));
    }
    findings
}

/// The object with its namespace.
async fn object(target: &Target) -> Result<ObjectName, Failure> {
    match target.board().await? {
        AnyBoard::Lease(board) => Ok(board.place().clone()),
        _ => Err(Failure::new(Code::Internal, "the lock is not on Kubernetes")),
    }
}

async fn may(api: &Api, wanted: &Wanted, namespace: &str) -> Result<bool, Trouble> {
    let reviews = Resource {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        verbs: "create",
        namespace: String::new(),
    };
    let Wanted { verb, group, resource, name, .. } = wanted;
    let attributes = json!({"namespace": namespace, "verb": verb, "group": group, "resource": resource, "name": name});
    let review = json!({"apiVersion": reviews.api_version(), "kind": reviews.kind,
        "spec": {"resourceAttributes": attributes}});
    match api.post(&reviews, "", &review).await? {
        Stored::As(review) => Ok(review["status"]["allowed"] == true),
        Stored::Conflict => Ok(false),
    }
}

fn missing(wanted: &Wanted, namespace: &str) -> Finding {
    let Wanted { verb, group, resource, name, without } = wanted;
    let named = if name.is_empty() { String::new() } else { format!(", resourceNames: [{name}]") };
    let fix = format!(
        "add to the Role in {namespace}: {{apiGroups: [{group:?}], resources: [{resource}]{named}, verbs: [{verb}]}}"
    );
    let found = format!("may not {verb} {resource}");
    match without {
        None => Finding::problem("permissions", found, fix),
        Some(without) => Finding::warning("permissions", format!("{found}: {without}"), fix),
    }
}

/// The time of the API server.
pub(super) async fn date(target: &Target) -> Result<Option<String>, Failure> {
    let unavailable = |why: String| Failure::new(Code::Unavailable, why);
    let session = Session::open(&target.access).await.map_err(misconfigured)?;
    let asked = request(http::Method::GET, "/version".to_owned(), Vec::new()).map_err(unavailable)?;
    let (_, headers, _) = session.call(asked).await.map_err(unavailable)?;
    Ok(headers.get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
}

/// The members' pods, and the Services that lead to them.
pub(super) async fn examine(target: &Target, look: Option<&Look>, terms: &Terms) -> Vec<Finding> {
    let (Some(look), Ok(object)) = (look, object(target).await) else { return Vec::new() };
    let api = Api::new(target.access.clone());
    let mut pods = Vec::new();
    for member in look.members.iter().take(PODS_MAX) {
        match api.get(&core("Pod", "pods", &object.namespace), &member.name).await {
            Ok(Some(pod)) => pods.push(pod),
            Ok(None) => {}
            Err(trouble) => {
                return vec![Finding::warning("pods", trouble.to_string(), "ask as somebody who may get pods")];
            }
        }
    }
    if pods.is_empty() {
        return vec![Finding::ok("pods", format!("no member has the name of a pod in namespace {}", object.namespace))];
    }
    let mut findings = of_pods(&pods, terms);
    match api.pages(&core("Service", "services", &object.namespace)).await {
        Ok(services) => findings.extend(of_services(&services, &pods)),
        Err(trouble) => {
            findings.push(Finding::warning("service", trouble.to_string(), "ask as somebody who may list services"))
        }
    }
    findings
}

fn core(kind: &'static str, plural: &'static str, namespace: &str) -> Resource {
    Resource { group: "", version: "v1", kind, plural, verbs: "get, list", namespace: namespace.to_owned() }
}

/// Pods of one Deployment are all alike: what was found of one is not said again of the others.
fn of_pods(pods: &[Value], terms: &Terms) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for finding in pods.iter().flat_map(|pod| of_a_pod(pod, terms)) {
        let is_known = |one: &Finding| (one.check, one.level, &one.fix) == (finding.check, finding.level, &finding.fix);
        if !findings.iter().any(is_known) {
            findings.push(finding);
        }
    }
    findings
}

/// The words of a container's command line.
fn words(container: &Value) -> Vec<String> {
    let parts = ["command", "args"].into_iter().filter_map(|part| container[part].as_array()).flatten();
    parts.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What follows a flag, or what its variable says.
fn flag(container: &Value, words: &[String], name: &str, variable: &str) -> Option<String> {
    let after = |(at, word): (usize, &String)| match word.strip_prefix(name) {
        Some("") => words.get(at + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    };
    words.iter().enumerate().find_map(after).or_else(|| {
        let all = container["env"].as_array().into_iter().flatten();
        all.into_iter().find(|one| one["name"] == variable).and_then(|one| one["value"].as_str().map(str::to_owned))
    })
}

fn of_a_pod(pod: &Value, terms: &Terms) -> Vec<Finding> {
    let name = pod["metadata"]["name"].as_str().unwrap_or("?");
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ours = containers.map(|container| (container, words(container)));
    let Some((container, words)) =
        ours.into_iter().find(|(_, words)| words.iter().any(|word| word.contains("soloist")))
    else {
        return vec![Finding::ok("pods", format!("the command of {name} stands in its image"))];
    };
    let mut findings = Vec::new();
    if words.first().is_some_and(|first| is_shell(first)) {
        let found = format!("{name} begins with the shell {}", words[0]);
        let fix = "command: [soloist, run, ...] without a shell around it, or exec before soloist";
        findings.push(Finding::problem("pid-1", found, fix));
    } else {
        findings.push(Finding::ok("pid-1", format!("{name} begins with {}", words[0])));
    }
    let told = flag(container, &words, "--stop-grace", "SOLOIST_STOP_GRACE");
    let told = told.and_then(|told| settings::duration("--stop-grace", &told).ok());
    let stop_grace = told.unwrap_or(terms.stop_grace);
    let given = Duration::from_secs(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(POD_GRACE));
    findings.push(grace(name, stop_grace, given, terms));
    findings
}

/// The kubelet must not end it before it has released.
fn grace(pod: &str, stop_grace: Duration, given: Duration, terms: &Terms) -> Finding {
    let needed = stop_grace + terms.timing.lateness() + terms.timing.proof() + terms.timing.attempt_limit();
    let found = format!("{pod} has {}, and a stop takes up to {}", exactly(given), exactly(needed));
    let seconds = needed.as_secs() + 1;
    let fix = format!("terminationGracePeriodSeconds: {seconds}, or a shorter --stop-grace");
    if given <= stop_grace {
        Finding::problem("grace", found, fix)
    } else if given < needed {
        Finding::warning("grace", found, fix)
    } else {
        Finding::ok("grace", found)
    }
}

/// Where clients end up.
fn of_services(services: &[Value], pods: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in routed(services, pods) {
        findings.push(service);
    }
    for service in services {
        let name = service["metadata"]["name"].as_str().unwrap_or("?");
        let Some(selector) = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty()) else {
            continue;
        };
        let fits = |pod: &Value| selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value);
        let count = pods.iter().filter(|pod| fits(pod)).count();
        match count {
            0 => {}
            1 => findings.push(Finding::ok("service", format!("{name} selects one of {} members", pods.len()))),
            _ => findings.push(Finding::warning(
                "service",
                format!("{name} selects {count} members, standbys too"),
                "--route endpoint-slice:SERVICE and no selector, --route pod-label:KEY and the label in the selector, or \
                 /readyz?role=active as the readiness probe; a Service for all of them, as for /status, is fine",
            )),
        }
    }
    findings
}

/// The Services that members are told to send traffic by.
fn routed(services: &[Value], pods: &[Value]) -> Vec<Finding> {
    let mut named: Vec<String> = Vec::new();
    for container in pods.iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten()) {
        let route = flag(container, &words(container), "--route", "SOLOIST_ROUTE").unwrap_or_default();
        for part in route.split(',') {
            let kinds = ["endpoint-slice:", "endpoints:"];
            named.extend(kinds.iter().filter_map(|kind| part.strip_prefix(kind).map(str::to_owned)));
        }
    }
    named.sort_unstable();
    named.dedup();
    let judged = |name: &String| match services.iter().find(|service| service["metadata"]["name"] == name.as_str()) {
        None => Finding::problem("route", format!("there is no Service {name}"), "create it, without a selector"),
        Some(service) if service["spec"]["selector"].as_object().is_some_and(|selector| !selector.is_empty()) => {
            let found =
                format!("the Service {name} has a selector, so that Kubernetes sends its traffic to all it selects");
            Finding::problem("route", found, "remove spec.selector: the members keep its endpoints")
        }
        Some(_) => Finding::ok("route", format!("the Service {name} has no selector, and leads where the members say")),
    };
    named.iter().map(judged).collect()
}

#[cfg(test)]
mod tests {
    use election::Timing;

    use super::super::Level;
    use super::*;

    fn terms() -> Terms {
        let timing = Timing::new(Duration::from_secs(15), None).unwrap();
        Terms { timing, stop_grace: Duration::from_secs(10), probes: 1 }
    }

    fn pod(name: &str, command: Value, grace: u64) -> Value {
        json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": {
            "terminationGracePeriodSeconds": grace, "containers": [{"name": "c", "command": command}]}})
    }

    fn level_of(findings: &[Finding], check: &str) -> Level {
        findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("{check}: {findings:?}")).level
    }

    #[test]
    fn the_pods_grace_must_hold_a_whole_stop() {
        let of = |command: Value, seconds| level_of(&of_a_pod(&pod("a-1", command, seconds), &terms()), "grace");
        let plain = json!(["soloist", "run", "--", "server"]);
        assert_eq!(
            [of(plain.clone(), 30), of(plain.clone(), 11), of(plain, 10)],
            [Level::Ok, Level::Warning, Level::Problem]
        );
        let long = json!(["soloist", "run", "--stop-grace", "40s", "--", "server"]);
        assert_eq!([of(long.clone(), 30), of(long, 60)], [Level::Problem, Level::Ok]);
        assert_eq!(of(json!(["soloist", "run", "--stop-grace=40s"]), 30), Level::Problem);
    }

    #[test]
    fn a_shell_around_it_is_a_problem() {
        let shell = json!(["/bin/sh", "-c", "soloist run -- server"]);
        assert_eq!(level_of(&of_a_pod(&pod("a-1", shell, 60), &terms()), "pid-1"), Level::Problem);
        let plain = json!(["/usr/bin/soloist", "run"]);
        assert_eq!(level_of(&of_a_pod(&pod("a-1", plain, 60), &terms()), "pid-1"), Level::Ok);
    }

    #[test]
    fn pods_that_are_alike_are_judged_once() {
        let shell = json!(["/bin/sh", "-c", "soloist run -- server"]);
        let pods = [pod("a-1", shell.clone(), 60), pod("a-2", shell, 60), pod("a-3", json!(["soloist", "run"]), 5)];
        let checks: Vec<(&str, Level)> = of_pods(&pods, &terms()).iter().map(|one| (one.check, one.level)).collect();
        assert_eq!(
            checks,
            [("pid-1", Level::Problem), ("grace", Level::Ok), ("pid-1", Level::Ok), ("grace", Level::Problem)]
        );
    }

    #[test]
    fn a_service_that_selects_standbys_is_a_warning_and_a_route_needs_one_without_a_selector() {
        let service = |name: &str, selector: Value| json!({"metadata": {"name": name}, "spec": {"selector": selector}});
        let command = json!(["soloist", "run", "--route", "endpoint-slice:web"]);
        let pods = [pod("a-1", command.clone(), 30), pod("a-2", command, 30)];
        let all = service("all", json!({"app": "a"}));
        let findings = of_services(&[all, service("web", Value::Null)], &pods);
        assert_eq!((level_of(&findings, "service"), level_of(&findings, "route")), (Level::Warning, Level::Ok));
        let findings = of_services(&[service("web", json!({"app": "b"}))], &pods);
        assert_eq!(level_of(&findings, "route"), Level::Problem);
        assert!(findings.iter().all(|finding| finding.check != "service"), "{findings:?}");
        assert_eq!(level_of(&of_services(&[], &pods), "route"), Level::Problem);
    }

    #[test]
    fn what_is_missing_names_the_rule() {
        let object = ObjectName::lease("prod", "app");
        let findings: Vec<Finding> = wanted(&object).iter().map(|wanted| missing(wanted, "prod")).collect();
        assert_eq!(findings[1].level, Level::Problem);
        let fix = findings[1].fix.clone().unwrap();
        for part in ["prod", "coordination.k8s.io", "leases", "[app]", "[update]"] {
            assert!(fix.contains(part), "{part}: {fix}");
        }
        assert_eq!(findings[3].level, Level::Warning);
    }
}
