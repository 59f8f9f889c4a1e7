//! Which container of which pod this process is in, as far as that is certain: what the pod's environment says through
//! the downward API, what the kubelet mounted, and what the kernel says. A missing fact means no evidence, never a
//! guess.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::workload::process::{ProcessId, boot_id};

/// How many hexadecimal digits the groups of a UID have that the API server gave out.
const UID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// One run of a container, with soloist in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name; believed only where the pod of this name has the UID.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name in the pod.
    pub name: String,
    /// The runtime's id for this run, as the pod's status spells it, once the kubelet has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The boot of the node.
    pub boot_id: String,
    /// Whether soloist is the first process of a PID namespace, which ends with it.
    pub is_pid_1: bool,
    /// When soloist started, in the node's clock ticks since its boot.
    pub start_ticks: u64,
    /// The network namespace, in which the instance lock is.
    pub network: u64,
    /// Whether soloist holds the instance lock.
    pub holds_lock: bool,
}

impl Container {
    /// The one that this process is in. `namespace` is where its credentials belong to.
    pub fn own(namespace: &str) -> Option<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mounts = Mounted::of(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let own = ProcessId::own().ok()?;
        Some(Self {
            namespace: variable("POD_NAMESPACE").unwrap_or_else(|| namespace.to_owned()),
            pod: variable("POD_NAME").or_else(|| nix::unistd::gethostname().ok()?.into_string().ok())?,
            pod_uid: mounts.agreed_uid(variable("POD_UID").as_deref())?,
            name: mounts.container,
            id: None,
            boot_id: boot_id().ok()?,
            is_pid_1: own.pid == 1,
            start_ticks: own.start_ticks,
            network: fs::metadata("/proc/self/ns/net").ok()?.ino(),
            holds_lock: false,
        })
    }

    /// Whether both are the same process. Within one boot no two processes with the number 1 start at the same time in
    /// containers of one name in one pod.
    pub fn is_same_run(&self, other: &Self) -> bool {
        let whose = |one: &Self| (one.pod_uid.clone(), one.name.clone(), one.boot_id.clone(), one.start_ticks);
        whose(self) == whose(other)
    }

    /// Whether the names can be those of a pod: who may write the Lease does not choose what is asked of the API server.
    pub fn has_names(&self) -> bool {
        is_name(&self.namespace) && is_name(&self.pod)
    }

    /// Whether the API server did not give the pod its UID. That of a static pod is made from its manifest, and comes back when
    /// the manifest does.
    pub fn is_static(&self) -> bool {
        let groups: Vec<&str> = self.pod_uid.split('-').collect();
        let is_hex = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_well_formed = groups.len() == UID_GROUPS.len()
            && groups.iter().zip(UID_GROUPS).all(|(group, digits)| group.len() == digits && is_hex(group));
        !is_well_formed
    }
}

/// Whether this can be a part of a path at the API server, as names of pods and namespaces are.
fn is_name(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(is_fit) && !text.starts_with('.')
}

/// What the kubelet's mounts say: each container has a file for its last words under `pods/UID/containers/NAME/`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    uid: String,
    container: String,
}

impl Mounted {
    /// Reads `/proc/self/mountinfo`. Nothing where it says nothing, or two things.
    fn of(mountinfo: &str) -> Option<Self> {
        let mut all: Vec<Self> = mountinfo.lines().filter_map(Self::of_line).collect();
        all.dedup();
        match all.len() {
            1 => all.pop(),
            _ => None,
        }
    }

    fn of_line(line: &str) -> Option<Self> {
        // The fourth field is the path within the mounted file system.
        let mut steps = line.split_ascii_whitespace().nth(3)?.rsplit('/');
        let (run, container, containers) = (steps.next()?, steps.next()?, steps.next()?);
        let (uid, pods) = (steps.next()?, steps.next()?);
        let is_run = run.len() == 8 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_run && containers == "containers" && pods == "pods")
            .then(|| Self { uid: uid.to_owned(), container: container.to_owned() })
    }

    /// The pod's UID, unless the environment says another one.
    fn agreed_uid(&self, told: Option<&str>) -> Option<String> {
        told.is_none_or(|told| told == self.uid).then(|| self.uid.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "4876bad4-06cb-437f-9c2b-930ff4c84159";

    fn mount(root: &str, at: &str) -> String {
        format!("177 162 254:0 {root} {at} rw,relatime - ext4 /dev/vda rw\n")
    }

    fn logs(container: &str) -> String {
        mount(&format!("/var/lib/kubelet/pods/{UID}/containers/{container}/ee7b968c"), "/dev/termination-log")
    }

    #[test]
    fn the_kubelets_mount_names_pod_and_container() {
        let others = mount("/", "/") + &mount(&format!("/var/lib/kubelet/pods/{UID}/etc-hosts"), "/etc/hosts");
        let found = Mounted::of(&(others.clone() + &logs("main"))).unwrap();
        assert_eq!((found.uid.as_str(), found.container.as_str()), (UID, "main"));
        assert_eq!(Mounted::of(&(others.clone() + &logs("main") + &logs("main"))), Some(found), "seen twice");
        let short = mount(&format!("/pods/{UID}/containers/main/ee7b968c"), "/last-words");
        assert_eq!(Mounted::of(&short).unwrap().container, "main", "a file system of its own, another place");
        assert_eq!(Mounted::of(&others), None);
    }

    #[test]
    fn mounts_that_contradict_each_other_say_nothing() {
        assert_eq!(Mounted::of(&(logs("main") + &logs("other"))), None);
        for root in [
            format!("/pods/{UID}/volume-subpaths/config/main/0"),
            format!("/pods/{UID}/containers/main"),
            format!("/pods/{UID}/containers/main/log"),
            format!("/{UID}/containers/main/ee7b968c"),
            "/".to_owned(),
        ] {
            assert_eq!(Mounted::of(&mount(&root, "/x")), None, "{root}");
        }
        assert_eq!(Mounted::of("\n1 2\n"), None);
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["app-0", "a", "app.example", &"x".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "..", "a/b", "a?x=y", "A", "a b", "a%2fb", &"x".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn an_environment_that_says_another_uid_says_nothing() {
        let mounts = Mounted::of(&logs("main")).unwrap();
        assert_eq!(mounts.agreed_uid(None).as_deref(), Some(UID));
        assert_eq!(mounts.agreed_uid(Some(UID)).as_deref(), Some(UID));
        for told in ["", "$(POD_UID)", "4876bad4-06cb-437f-9c2b-930ff4c84150"] {
            assert_eq!(mounts.agreed_uid(Some(told)), None, "{told}");
        }
    }
}
