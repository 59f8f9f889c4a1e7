use serde_json::json;

use super::*;

const UID: &str = "4876bad4-06cb-437f-9c2b-930ff4c84159";
const ID: &str = "containerd://fce1b5cf";
/// 2026-11-21T07:32:29.7Z, when the first process started.
const STARTED: Duration = Duration::from_millis(1_795_246_349_700);

/// A run of soloist in a pod, as it would record itself.
pub fn container() -> Container {
    Container {
        namespace: "prod".into(),
        pod: "app-0".into(),
        pod_uid: UID.into(),
        name: "main".into(),
        id: Some(ID.into()),
        boot_id: "boot".into(),
        is_pid_1: true,
        start_ticks: 100,
        network: 7,
        holds_lock: true,
    }
}

/// A run with `change` made to it.
fn with(change: impl FnOnce(&mut Container)) -> Container {
    let mut changed = container();
    change(&mut changed);
    changed
}

/// The run after the one that `container` tells of, with `change` made to it.
fn next_with(change: impl FnOnce(&mut Container)) -> Container {
    with(|next| {
        next.start_ticks = 300;
        next.id = None;
        change(next);
    })
}

/// The pod in which the container has ended, as the kubelet writes it.
pub fn ended_pod() -> Value {
    json!({
        "metadata": {"name": "app-0", "namespace": "prod", "uid": UID},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"containerStatuses": [{
            "name": "main",
            "containerID": ID,
            "state": {"terminated": {"containerID": ID, "exitCode": 137, "reason": "Error",
                "startedAt": "2026-11-21T07:32:29Z", "finishedAt": "2026-11-21T07:40:00Z"}},
            "lastState": {},
        }]},
    })
}

/// The pod in which the container runs.
fn running_pod() -> Value {
    let mut pod = ended_pod();
    pod["status"]["containerStatuses"][0]["state"] = json!({"running": {"startedAt": "2026-11-21T07:32:29Z"}});
    pod
}

fn changed(mut pod: Value, path: &str, value: Value) -> Value {
    *pod.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
    pod
}

fn added(mut pod: Value, path: &str, name: &str, value: Value) -> Value {
    pod.pointer_mut(path).unwrap()[name] = value;
    pod
}

const STATUS: &str = "/status/containerStatuses/0";
const END: &str = "/status/containerStatuses/0/state/terminated";

// === restart ===

#[test]
fn the_next_run_of_the_same_container_is_proof() {
    assert_eq!(restarted(&container(), &next_with(|_| {})), Ok(Proof::Restarted));
}

#[test]
fn another_pod_of_the_same_name_proves_nothing() {
    let uid = "00000000-06cb-437f-9c2b-930ff4c84159";
    assert_eq!(restarted(&container(), &next_with(|next| next.pod_uid = uid.into())), Err(WhyNot::OtherPod));
}

#[test]
fn another_container_of_the_pod_proves_nothing() {
    assert_eq!(restarted(&container(), &next_with(|next| next.name = "side".into())), Err(WhyNot::OtherContainer));
}

#[test]
fn a_static_pod_proves_nothing() {
    for uid in ["4876bad406cb437f9c2b930ff4c84159", "", "4876bad4-06cb-437f-9c2b-930ff4c8415g", "a-b-c-d-e"] {
        let (recorded, own) = (with(|one| one.pod_uid = uid.into()), next_with(|next| next.pod_uid = uid.into()));
        assert_eq!(restarted(&recorded, &own), Err(WhyNot::Static), "{uid:?}");
        assert_eq!(terminated(&recorded, &changed(ended_pod(), "/metadata/uid", uid.into())), Err(WhyNot::Static));
    }
}

#[test]
fn who_was_not_the_first_process_may_have_left_others() {
    let recorded = with(|one| one.is_pid_1 = false);
    assert_eq!(restarted(&recorded, &next_with(|_| {})), Err(WhyNot::WasNotFirst));
    assert_eq!(terminated(&recorded, &ended_pod()), Err(WhyNot::WasNotFirst));
}

#[test]
fn who_is_not_the_first_process_may_run_beside_it() {
    assert_eq!(restarted(&container(), &next_with(|next| next.is_pid_1 = false)), Err(WhyNot::IsNotFirst));
}

#[test]
fn start_times_of_another_boot_are_not_compared() {
    assert_eq!(restarted(&container(), &next_with(|next| next.boot_id = "other".into())), Err(WhyNot::OtherBoot));
}

#[test]
fn the_own_process_and_a_later_one_are_no_predecessor() {
    for ticks in [100, 99, 0] {
        let own = next_with(|next| next.start_ticks = ticks);
        assert_eq!(restarted(&container(), &own), Err(WhyNot::Later), "{ticks}");
    }
    assert!(container().is_same_run(&with(|one| one.id = None)));
    assert!(!container().is_same_run(&next_with(|_| {})));
}

#[test]
fn the_instance_lock_of_another_network_says_nothing() {
    assert_eq!(restarted(&container(), &next_with(|next| next.network = 8)), Err(WhyNot::OtherNetwork));
}

#[test]
fn a_lock_that_was_never_held_being_free_says_nothing() {
    assert_eq!(restarted(&with(|one| one.holds_lock = false), &next_with(|_| {})), Err(WhyNot::HeldNothing));
}

#[test]
fn something_that_holds_the_instance_lock_may_be_the_predecessor() {
    assert_eq!(restarted(&container(), &next_with(|next| next.holds_lock = false)), Err(WhyNot::StillHeld));
}

// === the kubelet's word ===

#[test]
fn the_end_of_exactly_that_run_is_proof_also_after_the_next_has_begun() {
    assert_eq!(terminated(&container(), &ended_pod()), Ok(Proof::Terminated));
    let end = ended_pod().pointer(END).unwrap().clone();
    let pod = changed(running_pod(), "/status/containerStatuses/0/lastState", json!({"terminated": end}));
    let pod = changed(pod, "/status/containerStatuses/0/containerID", "containerd://other".into());
    assert_eq!(terminated(&container(), &pod), Ok(Proof::Terminated));
    let mut sidecar = ended_pod();
    sidecar["status"]["initContainerStatuses"] = sidecar["status"]["containerStatuses"].take();
    assert_eq!(terminated(&container(), &sidecar), Ok(Proof::Terminated), "a sidecar is an init container");
}

#[test]
fn an_end_of_another_run_says_nothing() {
    for id in ["containerd://fce1b5c", "cri-o://fce1b5cf", "fce1b5cf", ""] {
        let pod = changed(ended_pod(), &format!("{END}/containerID"), id.into());
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::NotTerminated), "{id:?}");
    }
    assert_eq!(terminated(&container(), &running_pod()), Err(WhyNot::NotTerminated));
    let waiting = changed(ended_pod(), &format!("{STATUS}/state"), json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    assert_eq!(terminated(&container(), &waiting), Err(WhyNot::NotTerminated));
}

#[test]
fn a_record_without_the_id_of_the_run_is_not_enough() {
    assert_eq!(terminated(&with(|one| one.id = None), &ended_pod()), Err(WhyNot::NoId));
    let nobody = changed(ended_pod(), &format!("{END}/containerID"), Value::Null);
    assert_eq!(terminated(&container(), &nobody), Err(WhyNot::NotTerminated));
}

#[test]
fn an_end_that_was_made_up_is_refused() {
    for reason in ["ContainerStatusUnknown", "Unknown", ""] {
        let pod = changed(ended_pod(), &format!("{END}/reason"), reason.into());
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::EndUnknown), "{reason}");
    }
    for code in [json!(255), Value::Null, json!("0")] {
        let pod = changed(ended_pod(), &format!("{END}/exitCode"), code.clone());
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::EndUnknown), "{code}");
    }
    for (reason, code) in [("Completed", 0), ("OOMKilled", 137), ("Error", 1)] {
        let pod = changed(ended_pod(), &format!("{END}/reason"), reason.into());
        let pod = changed(pod, &format!("{END}/exitCode"), code.into());
        assert_eq!(terminated(&container(), &pod), Ok(Proof::Terminated), "{reason}");
    }
}

#[test]
fn a_status_that_contradicts_itself_is_refused() {
    let pod = added(ended_pod(), &format!("{STATUS}/state"), "running", json!({}));
    assert_eq!(terminated(&container(), &pod), Err(WhyNot::NotTerminated));
    let mut twice = ended_pod();
    let entry = twice.pointer(STATUS).unwrap().clone();
    twice["status"]["initContainerStatuses"] = json!([entry]);
    assert_eq!(terminated(&container(), &twice), Err(WhyNot::NotShown));
}

#[test]
fn a_pod_of_another_name_or_uid_is_not_asked() {
    for (path, value) in [("/metadata/uid", "00000000-06cb-437f-9c2b-930ff4c84159"), ("/metadata/name", "app-1")] {
        let pod = changed(ended_pod(), path, value.into());
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::OtherPod), "{path}");
        assert_eq!(shown_id(&container(), STARTED, &pod), Err(WhyNot::OtherPod), "{path}");
    }
}

#[test]
fn processes_that_outlive_their_container_cost_the_proof() {
    for field in ["shareProcessNamespace", "hostPID"] {
        let pod = added(ended_pod(), "/spec", field, true.into());
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::SharedProcesses), "{field}");
        let pod = added(ended_pod(), "/spec", field, false.into());
        assert_eq!(terminated(&container(), &pod), Ok(Proof::Terminated), "{field}");
    }
}

#[test]
fn the_image_of_a_static_pod_is_refused() {
    let pod = added(ended_pod(), "/metadata", "annotations", json!({"kubernetes.io/config.mirror": "x"}));
    assert_eq!(terminated(&container(), &pod), Err(WhyNot::Mirror));
}

#[test]
fn a_pod_that_only_ends_or_is_gone_is_no_proof() {
    let deleted = added(running_pod(), "/metadata", "deletionTimestamp", "2026-11-21T07:40:00Z".into());
    assert_eq!(terminated(&container(), &deleted), Err(WhyNot::NotTerminated));
    let failed = added(running_pod(), "/status", "phase", "Failed".into());
    assert_eq!(terminated(&container(), &failed), Err(WhyNot::NotTerminated));
    let emptied = changed(ended_pod(), "/status", json!({"phase": "Failed", "reason": "NodeLost"}));
    assert_eq!(terminated(&container(), &emptied), Err(WhyNot::NotShown));
    for pod in [Value::Null, json!({}), json!([])] {
        assert_eq!(terminated(&container(), &pod), Err(WhyNot::OtherPod));
    }
}

// === the own id ===

#[test]
fn the_own_id_is_known_once_the_kubelet_shows_the_own_run() {
    assert_eq!(shown_id(&container(), STARTED, &running_pod()), Ok(ID.to_owned()), "in the same second");
    let later = changed(running_pod(), &format!("{STATUS}/state/running/startedAt"), "2026-11-21T07:33:29Z".into());
    assert_eq!(shown_id(&container(), STARTED, &later), Ok(ID.to_owned()));
}

#[test]
fn the_run_before_is_not_taken_for_the_own() {
    let at = |time: &str| changed(running_pod(), &format!("{STATUS}/state/running/startedAt"), time.into());
    for time in ["2026-11-21T07:32:28Z", "1969-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
        assert_eq!(shown_id(&container(), STARTED, &at(time)), Err(WhyNot::StartedBefore), "{time}");
    }
    assert_eq!(shown_id(&container(), STARTED, &at("2026-11-21T07:33:30Z")), Err(WhyNot::StartedAfter));
    for time in ["", "soon"] {
        assert_eq!(shown_id(&container(), STARTED, &at(time)), Err(WhyNot::NotRunning), "{time}");
    }
    assert_eq!(shown_id(&container(), STARTED, &ended_pod()), Err(WhyNot::NotRunning));
}

#[test]
fn an_id_that_is_none_is_not_recorded() {
    for id in [Value::Null, "".into(), "containerd://".into(), "fce1b5cf".into()] {
        let pod = changed(running_pod(), &format!("{STATUS}/containerID"), id.clone());
        assert_eq!(shown_id(&container(), STARTED, &pod), Err(WhyNot::NoId), "{id}");
    }
    let other = changed(running_pod(), &format!("{STATUS}/name"), "side".into());
    assert_eq!(shown_id(&container(), STARTED, &other), Err(WhyNot::NotShown));
}

// === in the record ===

#[test]
fn a_container_counts_for_the_activation_that_it_was_recorded_for() {
    let mut backend = Map::new();
    backend.insert("future".into(), 1.into());
    Recorded::store(&mut backend, Some((Activation(1), container()))).unwrap();
    assert_eq!(Recorded::of(&backend, Activation(1)).unwrap().container, container());
    assert_eq!(Recorded::of(&backend, Activation(2)), None, "a member that knows nothing of containers kept it");
    Recorded::store(&mut backend, None).unwrap();
    assert_eq!(Recorded::of(&backend, Activation(1)), None);
    assert_eq!(backend.len(), 1, "what this version does not know stays");
}

#[test]
fn a_container_that_cannot_be_read_is_none() {
    let mut whole = Map::new();
    Recorded::store(&mut whole, Some((Activation(1), container()))).unwrap();
    let fields: Vec<String> = whole[FIELD].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.len(), 11);
    for field in fields.iter().filter(|field| *field != "id") {
        let mut backend = whole.clone();
        backend[FIELD].as_object_mut().unwrap().remove(field);
        assert_eq!(Recorded::of(&backend, Activation(1)), None, "without {field}");
    }
    for garbage in [Value::Null, 5.into(), json!([]), json!({})] {
        let mut backend = whole.clone();
        backend[FIELD] = garbage;
        assert_eq!(Recorded::of(&backend, Activation(1)), None);
    }
}
