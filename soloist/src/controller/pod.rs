//! What the controller keeps of a pod. There may be tens of thousands, so everything else is forgotten while it is read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::critical::Mark;
use crate::route::owner::Owner;

/// The annotation with the term of the controller that wrote this pod last.
pub const TERM: &str = "soloist.dev/controller";
/// The annotation that makes each write of a controller another one.
pub const WRITE: &str = "soloist.dev/write";
/// The annotation with the fencing token of the promotion that the label of an active pod belongs to.
pub const TOKEN: &str = "soloist.dev/token";
/// The annotation with which an operator has some pods go first: a number, the largest first.
pub const PRIORITY: &str = "soloist.dev/priority";

/// The annotation with which an operator asks for a pod to become active: `true`.
pub const WANTED: &str = "soloist.dev/become-active";

/// How far one container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not begun, or waits to begin again.
    Waiting,
    /// It runs.
    Running,
    /// It has ended, and the kubelet has seen that itself.
    Ended,
    /// Said to have ended by somebody who cannot know.
    Lost,
}

/// One container that is to run for as long as its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The variables of its environment with values of their own.
    pub variables: Vec<Mark>,
    /// How far it is.
    pub state: State,
    /// How often it was begun again.
    pub restarts: u32,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another pod of the same name is another pod.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The term of the controller that wrote it last.
    pub term: Option<u64>,
    /// The token that its label belongs to.
    pub token: Option<u64>,
    /// The larger, the sooner it becomes active.
    pub priority: i64,
    /// Whether an operator asks for it to become active.
    pub is_wanted: bool,
    /// When the kubelet began with it, or else when it was created: as text that sorts by time.
    pub since: String,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Whether its phase says that it has ended.
    pub has_ended: bool,
    /// Whether the kubelet says that it is ready.
    pub is_ready: bool,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// The node that it is on.
    pub node: Option<String>,
    /// What keeps it in existence.
    pub owner: Option<Box<Owner>>,
    /// Its containers, without those that only prepare it.
    pub containers: Vec<Container>,
}

impl Pod {
    /// Whether nothing of it runs, nor ever will: it never began, or its kubelet has ended it for good and says so by its
    /// last phase. A container that has ended before may begin again, and its kubelet may be late with saying so.
    pub fn is_stopped(&self) -> bool {
        if self.node.is_none() {
            return self.is_deleting || self.has_ended;
        }
        let is_over = |container: &Container| matches!(container.state, State::Ended | State::Waiting);
        self.has_ended && !self.containers.is_empty() && self.containers.iter().all(is_over)
    }

    /// Whether somebody may listen at its address: every container of it has begun.
    pub fn can_hear(&self) -> bool {
        let has_begun = |container: &Container| container.state != State::Waiting || container.restarts > 0;
        self.ip.is_some() && self.containers.iter().all(has_begun)
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn read(raw: Raw) -> Result<Self, String> {
        let Raw { metadata, spec, status } = raw;
        let version = metadata.resource_version.parse();
        let version = version.map_err(|_| format!("pod {:?} has no resource version", metadata.name))?;
        if metadata.uid.is_empty() || metadata.name.is_empty() {
            return Err(format!("pod {:?} has no name or no UID", metadata.name));
        }
        let number = |name: &str| metadata.annotations.get(name).and_then(|text| text.parse().ok());
        let is_ready = status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
        let is_collected = status.conditions.iter().any(RawCondition::is_collection);
        let mut containers = containers(spec.containers, spec.init_containers, &status);
        if is_collected {
            containers.iter_mut().for_each(|container| container.state = State::Lost);
        }
        Ok(Self {
            term: number(TERM),
            token: number(TOKEN),
            is_wanted: metadata.annotations.get(WANTED).is_some_and(|text| text == "true"),
            priority: metadata.annotations.get(PRIORITY).and_then(|text| text.parse().ok()).unwrap_or(0),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            version,
            labels: metadata.labels,
            since: status.start_time.unwrap_or(metadata.creation_timestamp),
            is_deleting: metadata.deletion_timestamp.is_some(),
            has_ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            is_ready,
            ip: status.pod_ip.and_then(|text| text.parse().ok()),
            node: spec.node_name.filter(|name| !name.is_empty()),
            owner: Owner::among(metadata.owner_references).map(Box::new),
            containers,
        })
    }
}

fn containers(main: Vec<RawContainer>, init: Vec<RawContainer>, status: &RawStatus) -> Vec<Container> {
    // One that begins before the others and stays is a workload too.
    let stays = |container: &RawContainer| container.restart_policy.as_deref() == Some("Always");
    let with = |statuses: &[RawContainerStatus], container: RawContainer| {
        let seen = statuses.iter().find(|status| status.name == container.name);
        Container {
            variables: container.env.iter().filter_map(RawVariable::mark).collect(),
            name: container.name,
            state: seen.map_or(State::Waiting, RawContainerStatus::read),
            restarts: seen.map_or(0, |seen| seen.restart_count),
        }
    };
    let init = init.into_iter().filter(stays).map(|one| with(&status.init_container_statuses, one));
    main.into_iter().map(|one| with(&status.container_statuses, one)).chain(init).collect()
}

/// A pod as the API server shows it, as far as it is read.
#[derive(Debug, Default, Deserialize)]
pub struct Raw {
    metadata: RawMetadata,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMetadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    creation_timestamp: String,
    deletion_timestamp: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Option<String>,
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    name: String,
    env: Vec<RawVariable>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawVariable {
    name: String,
    value: Option<String>,
}

impl RawVariable {
    fn mark(&self) -> Option<Mark> {
        self.value.as_deref().map(|value| Mark::of(&self.name, value))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    start_time: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<RawCondition>,
    container_statuses: Vec<RawContainerStatus>,
    init_container_statuses: Vec<RawContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
}

impl RawCondition {
    /// Whether the phase is the word of the garbage collector, which has seen nothing.
    fn is_collection(&self) -> bool {
        self.kind == "DisruptionTarget" && self.reason == "DeletionByPodGC"
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainerStatus {
    name: String,
    restart_count: u32,
    #[serde(rename = "containerID")]
    container_id: String,
    state: RawState,
    last_state: RawState,
}

impl RawContainerStatus {
    fn read(&self) -> State {
        match self.state.read() {
            // It never was: the kubelet calls it lost all the same when it ends the pod.
            State::Lost if self.container_id.is_empty() && self.last_state.terminated.is_none() => State::Waiting,
            state => state,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawState {
    running: Option<RawMoment>,
    terminated: Option<RawMoment>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawMoment {
    reason: String,
}

impl RawState {
    fn read(&self) -> State {
        match (&self.running, &self.terminated) {
            // Written by who has lost sight of the container.
            (_, Some(end)) if matches!(end.reason.as_str(), "ContainerStatusUnknown" | "Unknown") => State::Lost,
            (_, Some(_)) => State::Ended,
            (Some(_), None) => State::Running,
            (None, None) => State::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(pod: Value) -> Result<Pod, String> {
        Pod::read(serde_json::from_value(pod).unwrap())
    }

    fn shown() -> Value {
        json!({
            "metadata": {"namespace": "prod", "name": "app-1", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "hapod", "role": "standby"},
                "annotations": {TERM: "41", TOKEN: "x", PRIORITY: "-2", "other": "y"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "main", "env": [{"name": "pwcriticality", "value": "critical"}, {"name": "x", "valueFrom": {}}]},
                {"name": "beside", "env": [{"name": "pwcriticality", "value": "not"}]}],
                "initContainers": [{"name": "prepares"}, {"name": "stays", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:05Z", "podIP": "10.0.0.7",
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "main", "restartCount": 2, "state": {"running": {"startedAt": "2026-01-01T00:00:06Z"}}},
                    {"name": "beside", "restartCount": 0, "state": {"terminated": {"reason": "Error"}}}],
                "initContainerStatuses": [{"name": "stays", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
        })
    }

    #[test]
    fn what_decides_is_kept_and_nothing_else() {
        let pod = read(shown()).unwrap();
        assert_eq!((pod.version, pod.term, pod.token, pod.priority), (7, Some(41), None, -2));
        assert_eq!((pod.since.as_str(), pod.is_ready, pod.has_ended), ("2026-01-01T00:00:05Z", true, false));
        assert_eq!((pod.label("role"), pod.ip), (Some("standby"), Some("10.0.0.7".parse().unwrap())));
        let container = |name: &str, variables: &[Mark], state, restarts| Container {
            name: name.into(),
            variables: variables.to_vec(),
            state,
            restarts,
        };
        let expected = [
            container("main", &[Mark::default()], State::Running, 2),
            container("beside", &[Mark::of("pwcriticality", "not")], State::Ended, 0),
            container("stays", &[], State::Waiting, 0),
        ];
        assert_eq!(pod.containers, expected);
    }

    #[test]
    fn a_pod_is_stopped_when_its_kubelet_has_ended_it_for_good() {
        let mut pod = read(shown()).unwrap();
        assert!(!pod.is_stopped());
        pod.containers[0].state = State::Ended;
        pod.is_deleting = true;
        assert!(!pod.is_stopped(), "a kubelet that is cut off does not know that, and begins it again");
        pod.has_ended = true;
        assert!(pod.is_stopped());
        pod.containers[1].state = State::Lost;
        assert!(!pod.is_stopped(), "nobody has seen it end");
        pod.node = None;
        assert!(pod.is_stopped(), "it never began");
        (pod.is_deleting, pod.has_ended) = (false, false);
        assert!(!pod.is_stopped(), "it may begin");
    }

    #[test]
    fn an_end_that_the_garbage_collector_made_up_proves_nothing() {
        let mut collected = shown();
        let status = &mut collected["status"];
        status["phase"] = "Failed".into();
        let ended = json!({"terminated": {"reason": "Error"}});
        for (list, at) in [("containerStatuses", 0), ("initContainerStatuses", 0)] {
            status[list][at]["state"] = ended.clone();
        }
        assert!(read(collected.clone()).unwrap().is_stopped(), "its kubelet may say so");
        collected["status"]["conditions"] =
            json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}]);
        let pod = read(collected).unwrap();
        assert!(pod.has_ended && !pod.is_stopped());
    }

    #[test]
    fn a_container_that_never_began_is_not_lost() {
        let mut ended = shown();
        let lost = json!({"terminated": {"reason": "ContainerStatusUnknown"}});
        let main = &mut ended["status"]["containerStatuses"][0];
        (main["state"], main["restartCount"]) = (lost.clone(), 0.into());
        assert_eq!(read(ended.clone()).unwrap().containers[0].state, State::Waiting);
        let mut began = ended.clone();
        began["status"]["containerStatuses"][0]["containerID"] = "containerd://1".into();
        assert_eq!(read(began).unwrap().containers[0].state, State::Lost);
        ended["status"]["containerStatuses"][0]["lastState"] = lost;
        assert_eq!(read(ended).unwrap().containers[0].state, State::Lost);
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for (pointer, value) in [("resourceVersion", json!("x")), ("uid", json!("")), ("name", json!(""))] {
            let mut pod = shown();
            pod["metadata"][pointer] = value;
            assert!(read(pod).is_err(), "{pointer}");
        }
        let mut lost = shown();
        lost["status"]["containerStatuses"][0]["state"] = json!({"terminated": {"reason": "ContainerStatusUnknown"}});
        lost["status"]["containerStatuses"][0]["containerID"] = "containerd://1".into();
        assert_eq!(read(lost).unwrap().containers[0].state, State::Lost);
    }
}
