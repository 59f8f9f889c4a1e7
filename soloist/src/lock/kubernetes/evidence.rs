//! What proves that the recorded activation is gone, besides a release: the same container runs anew, or the kubelet
//! says that it has ended. Every refusal costs a lease and nothing else.
//! See docs/kubernetes-evidence.md and docs/safety.md R15.

use std::time::Duration;

use election::{Activation, Proof};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::container::Container;

/// Where the container is stored in the record's backend object.
const FIELD: &str = "container";
/// Reasons with which the kubelet or the runtime say that they do not know what became of a container.
const UNKNOWN_REASONS: [&str; 2] = ["ContainerStatusUnknown", "Unknown"];
/// What containerd reports as the code where it lost a container and could not end it either.
const UNKNOWN_CODE: u64 = 255;
/// How much later than its first process a container may be said to have started.
const START_MAX: Duration = Duration::from_secs(60);

/// Which container an activation lives in. It counts for that activation alone, whoever wrote the record since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The activation, as it is spelled in the claim.
    activation: String,
    /// Where it lives.
    #[serde(flatten)]
    pub container: Container,
}

impl Recorded {
    /// The container that a record names for `activation`, if it names one that can be read.
    pub fn of(backend: &Map<String, Value>, activation: Activation) -> Option<Self> {
        let recorded: Self = serde_json::from_value(backend.get(FIELD)?.clone()).ok()?;
        (recorded.activation == activation.to_string()).then_some(recorded)
    }

    /// Has a record name `container` for `activation`, or no container at all.
    ///
    /// # Errors
    /// The JSON writer failed.
    pub fn store(
        backend: &mut Map<String, Value>,
        named: Option<(Activation, Container)>,
    ) -> Result<(), serde_json::Error> {
        backend.remove(FIELD);
        if let Some((activation, container)) = named {
            let recorded = Self { activation: activation.to_string(), container };
            backend.insert(FIELD.into(), serde_json::to_value(recorded)?);
        }
        Ok(())
    }
}

/// Why something is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    #[error("it ran in another pod")]
    OtherPod,
    #[error("it ran in another container of the pod")]
    OtherContainer,
    #[error("the pod is static")]
    Static,
    #[error("it was not the first process of its container")]
    WasNotFirst,
    #[error("this is not the first process of its container")]
    IsNotFirst,
    #[error("the node has booted since")]
    OtherBoot,
    #[error("it started later than this process")]
    Later,
    #[error("the pod has another network since")]
    OtherNetwork,
    #[error("it did not hold the instance lock")]
    HeldNothing,
    #[error("something of it holds the instance lock")]
    StillHeld,
    #[error("the pod's containers share their processes, or the node's")]
    SharedProcesses,
    #[error("the pod is the image of a static one")]
    Mirror,
    #[error("the pod's status does not show the container once")]
    NotShown,
    #[error("the container is not said to run")]
    NotRunning,
    #[error("the container is said to have started before its first process")]
    StartedBefore,
    #[error("the container is said to have started long after its first process")]
    StartedAfter,
    #[error("the record does not say which run of the container it was")]
    NoId,
    #[error("no end of that run of the container is told")]
    NotTerminated,
    #[error("nobody knows how the container ended")]
    EndUnknown,
}

/// Whether `own` is the next run of the container that is recorded, so that nothing of the recorded run can be left.
///
/// The kubelet starts a container anew only after the runtime has reaped its first process, and the kernel lets it be
/// reaped only after everything else in its PID namespace is gone. What kubelet and runtime may have lost still holds
/// the instance lock.
pub fn restarted(recorded: &Container, own: &Container) -> Result<Proof, WhyNot> {
    let conditions = [
        (recorded.pod_uid == own.pod_uid, WhyNot::OtherPod),
        (recorded.name == own.name, WhyNot::OtherContainer),
        (!own.is_static(), WhyNot::Static),
        (recorded.is_pid_1, WhyNot::WasNotFirst),
        (own.is_pid_1, WhyNot::IsNotFirst),
        (recorded.boot_id == own.boot_id, WhyNot::OtherBoot),
        (recorded.start_ticks < own.start_ticks, WhyNot::Later),
        (recorded.network == own.network, WhyNot::OtherNetwork),
        (recorded.holds_lock, WhyNot::HeldNothing),
        (own.holds_lock, WhyNot::StillHeld),
    ];
    all_of(&conditions).map(|()| Proof::Restarted)
}

/// Whether the kubelet says in `pod` that the recorded run of the container has ended. A pod that is gone says nothing.
pub fn terminated(recorded: &Container, pod: &Value) -> Result<Proof, WhyNot> {
    let id = recorded.id.as_deref().ok_or(WhyNot::NoId)?;
    all_of(&[(!recorded.is_static(), WhyNot::Static), (recorded.is_pid_1, WhyNot::WasNotFirst)])?;
    let status = status_of(recorded, pod)?;
    if status["state"]["running"].is_object() && status["containerID"] == id {
        return Err(WhyNot::NotTerminated);
    }
    let ends = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
    let end = ends.into_iter().find(|end| end["containerID"] == id).ok_or(WhyNot::NotTerminated)?;
    let reason = end["reason"].as_str().unwrap_or_default();
    let is_known = !reason.is_empty() && !UNKNOWN_REASONS.contains(&reason);
    let code = end["exitCode"].as_u64();
    if is_known && code.is_some_and(|code| code != UNKNOWN_CODE) {
        Ok(Proof::Terminated)
    } else {
        Err(WhyNot::EndUnknown)
    }
}

/// The runtime's id of the run that `own` is, once the kubelet shows it in `pod`. `started` is when the first process
/// started, since 1970 by the node's wall clock, which the kubelet goes by as well.
///
/// The status may be an older one, and show the run before. The kubelet shows whole seconds, and it looks at containers
/// a second apart: a run that it has seen alive began more than a second before the next.
pub fn shown_id(own: &Container, started: Duration, pod: &Value) -> Result<String, WhyNot> {
    let status = status_of(own, pod)?;
    let shown = status["state"]["running"]["startedAt"].as_str().ok_or(WhyNot::NotRunning)?;
    let shown: jiff::Timestamp = shown.parse().map_err(|_| WhyNot::NotRunning)?;
    let shown = Duration::from_secs(u64::try_from(shown.as_second()).map_err(|_| WhyNot::StartedBefore)?);
    all_of(&[
        (shown.as_secs() >= started.as_secs(), WhyNot::StartedBefore),
        (shown <= started + START_MAX, WhyNot::StartedAfter),
    ])?;
    let id = status["containerID"].as_str().filter(|id| id.split_once("://").is_some_and(|(_, id)| !id.is_empty()));
    id.map(str::to_owned).ok_or(WhyNot::NoId)
}

/// The one entry of `container` in the status of its own pod.
fn status_of<'a>(container: &Container, pod: &'a Value) -> Result<&'a Value, WhyNot> {
    let is_true = |value: &Value| value == &Value::Bool(true);
    all_of(&[
        (pod["metadata"]["uid"] == container.pod_uid.as_str(), WhyNot::OtherPod),
        (pod["metadata"]["name"] == container.pod.as_str(), WhyNot::OtherPod),
        (pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null(), WhyNot::Mirror),
        (!is_true(&pod["spec"]["shareProcessNamespace"]), WhyNot::SharedProcesses),
        (!is_true(&pod["spec"]["hostPID"]), WhyNot::SharedProcesses),
    ])?;
    let list = |name: &str| pod["status"][name].as_array().into_iter().flatten();
    let mut entries = list("containerStatuses")
        .chain(list("initContainerStatuses"))
        .filter(|entry| entry["name"] == container.name.as_str());
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => Err(WhyNot::NotShown),
    }
}

/// The first condition that does not hold.
fn all_of(conditions: &[(bool, WhyNot)]) -> Result<(), WhyNot> {
    match conditions.iter().find(|(holds, _)| !holds) {
        Some((_, why)) => Err(*why),
        None => Ok(()),
    }
}

#[cfg(test)]
pub mod tests;
