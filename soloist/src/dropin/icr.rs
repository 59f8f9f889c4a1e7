//! icr, the internal controller of pods with `app=hapod`: one of them is labelled `role=active`, and told so by a datagram.
//! It is itself an active and a standby pod.

use std::ffi::OsString;
use std::path::PathBuf;

use election::{OnExit, OnLoss};

use super::first_look;
use crate::cli::operate::block_on;
use crate::controller::critical::Mark;
use crate::controller::group::{Group, Handover, Order, PromoteAfter, Selector};
use crate::controller::notice::Notice;
use crate::controller::pods::Eye;
use crate::controller::{self, Groups};
use crate::error::{Code, Failure};
use crate::handover;
use crate::lock::kubernetes::{Access, ObjectName};
use crate::log::{self, Format};
use crate::member::{self, Front};
use crate::route::api::{Api, Resource};
use crate::route::open::Wanted;
use crate::route::pod_label::{Label, OwnPod};
use crate::settings::{Place, Raw, Settings};

/// The name of the program that this stands in for.
pub const NAME: &str = "icr";

/// A flag that cannot be read, or the usage.
const USAGE: i32 = 2;
const FAILED: i32 = 1;
/// Where a pod finds its own name.
const OWN_NAME: &str = "MY_POD_NAME";
/// What the active pod is told, and where.
const TEXT: &str = "GoActiveDuringFailover";
const PORT: u16 = 10001;
/// The pods that it looks after.
const SELECTED_BY: &str = "app";
const GROUP: &str = "hapod";
/// What the other program's ClusterRole lacks.
const RULES: &str = "the ClusterRole of icr needs two rules more: {apiGroups: [coordination.k8s.io], resources: [leases], \
                     verbs: [get, create, update, watch]} and {apiGroups: [\"\"], resources: [events], verbs: [create]}";

const HELP: &str = "\
Usage of icr:
  -kubeconfig string
        absolute path to the kubeconfig file (default: the one in the home folder, else the pod's own credentials)
";

/// Takes part until it is sent away, and returns the exit code.
pub fn main(arguments: Vec<OsString>) -> i32 {
    let kubeconfig = match flags(arguments) {
        Ok(kubeconfig) => kubeconfig,
        Err(why) => {
            use std::io::Write as _;
            // Nobody is left to tell if that is closed.
            let _ = write!(std::io::stderr().lock(), "{why}{HELP}");
            return USAGE;
        }
    };
    let flush = log::start(Format::Text);
    let ended = lead(kubeconfig);
    if let Err(failure) = &ended {
        tracing::error!("{}", failure.message);
        if let Some(hint) = &failure.hint {
            tracing::error!("hint: {hint}");
        }
    }
    drop(flush);
    ended.map_or(FAILED, |()| 0)
}

/// As Go reads them: one dash or two, with `=` or a blank.
fn flags(arguments: Vec<OsString>) -> Result<Option<PathBuf>, String> {
    let mut words = arguments.into_iter().map(|word| word.to_string_lossy().into_owned());
    let mut kubeconfig = None;
    while let Some(word) = words.next() {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|flag| !flag.is_empty());
        let Some(flag) = flag else { break };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "kubeconfig" => {
                let value = given.or_else(|| words.next());
                kubeconfig = Some(value.ok_or_else(|| format!("flag needs an argument: -{name}\n"))?);
            }
            "h" | "help" => return Err(String::new()),
            _ => return Err(format!("flag provided but not defined: -{name}\n")),
        }
    }
    Ok(kubeconfig.filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// A file that is not there means the pod's own credentials.
fn access(kubeconfig: Option<PathBuf>) -> Access {
    let home = || std::env::home_dir().map(|home| home.join(".kube/config"));
    let file = kubeconfig.or_else(home).filter(|path| path.is_file());
    Access { pod_only: file.is_none(), kubeconfig: file, ..Access::default() }
}

fn lead(kubeconfig: Option<PathBuf>) -> Result<(), Failure> {
    let access = access(kubeconfig);
    let own_name = std::env::var(OWN_NAME).ok().filter(|name| !name.is_empty());
    let own = block_on(own_pod(&access, own_name.clone()))?;
    let place = ObjectName::lease(own.namespace.clone(), NAME);
    first_look(&access, place.clone()).map_err(with_rules)?;
    let raw = Raw {
        name: own_name,
        lease: "15s".to_owned(),
        stop_grace: "1s".to_owned(),
        access: access.clone(),
        ..Raw::default()
    };
    let mut settings = Settings::at(Place::Kubernetes(place), None, raw, OnExit::Standby, OnLoss::Standby)?;
    if let Some(pod) = own.pod {
        settings.handover = Some(handover::Place {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: Some(pod.uid.clone()),
            node: None,
        });
        settings.routes.push(Wanted::PodLabel(pod, role()));
    }
    let front = Front { task: Some(controller::deed(duties(access))), ..Front::default() };
    member::run(settings, front).map(drop).map_err(with_rules)
}

/// What is missing, and what else will be.
fn with_rules(failure: Failure) -> Failure {
    match failure.message.contains("missing") {
        true => failure.hint(RULES),
        false => failure,
    }
}

/// Where this process is.
struct Own {
    namespace: String,
    pod: Option<OwnPod>,
}

/// The own pod, if the environment names one. It must exist: nobody else may be labelled in its place.
async fn own_pod(access: &Access, name: Option<String>) -> Result<Own, Failure> {
    let api = Api::new(access.clone());
    let refuse = |why: String| Failure::new(Code::Configuration, why);
    let namespace = api.home().await.map_err(|trouble| refuse(trouble.to_string()))?;
    let Some(name) = name else { return Ok(Own { namespace, pod: None }) };
    let verbs = "list, watch, create, get, update, delete";
    let pods = Resource { group: "", version: "v1", kind: "Pod", plural: "pods", verbs, namespace: namespace.clone() };
    match api.get(&pods, &name).await {
        Ok(Some(pod)) => {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            // The other program's ClusterRole has no rule for the ReplicaSet that owns it.
            let pod = OwnPod { namespace: namespace.clone(), name, uid, asks_owner: false };
            Ok(Own { pod: Some(pod), namespace })
        }
        Ok(None) => Err(refuse(format!("{OWN_NAME}={name:?}: there is no such pod in the namespace {namespace:?}"))
            .hint("valueFrom: {fieldRef: {fieldPath: metadata.name}}")),
        Err(trouble) => Err(refuse(format!("{OWN_NAME}={name:?}: {trouble}"))),
    }
}

fn role() -> Label {
    Label { key: "role".to_owned(), active: "active".to_owned(), standby: "standby".to_owned() }
}

/// What it does as the other program does.
fn duties(access: Access) -> controller::Settings {
    let group = Group {
        namespace: String::new(),
        name: GROUP.to_owned(),
        selector: Selector::one(SELECTED_BY, GROUP),
        active: 1,
        label: role(),
        promote_after: PromoteAfter::Removed,
        handover: Handover::DrainFirst,
        critical: Vec::new(),
        mark: Mark::default(),
        delete_grace_s: Some(0),
        notice: Some(Notice::Udp { port: PORT, payload: Some(TEXT.to_owned()) }),
        order: Order::Priority,
        is_paused: false,
        switchover: None,
    };
    // Its ClusterRole has no patch.
    let eye = Eye { keeps_objects: true };
    // Nor rules for nodes and Services.
    let groups = Groups::Each(Box::new(group));
    controller::Settings { access, namespaces: Vec::new(), groups, eye, looks_around: false, gallery: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Option<PathBuf>, String> {
        flags(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_flag_is_taken_as_go_takes_it() {
        for arguments in [&["-kubeconfig", "/k"][..], &["--kubeconfig=/k"], &["-kubeconfig=/k", "word", "-x"]] {
            assert_eq!(read(arguments).unwrap(), Some("/k".into()));
        }
        for arguments in [&[][..], &["-kubeconfig="], &["--"], &["word", "-kubeconfig=/k"]] {
            assert_eq!(read(arguments).unwrap(), None);
        }
    }

    #[test]
    fn what_it_does_not_know_is_refused_with_the_usage() {
        assert_eq!(read(&["-port=1"]).unwrap_err(), "flag provided but not defined: -port\n");
        assert_eq!(read(&["-kubeconfig"]).unwrap_err(), "flag needs an argument: -kubeconfig\n");
        assert_eq!(read(&["-h"]).unwrap_err(), "");
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_means_the_pods_own_credentials() {
        assert!(access(Some("/does/not/exist".into())).pod_only);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!access(Some(file.path().to_owned())).pod_only);
    }

    #[test]
    fn what_is_missing_is_said_with_both_rules() {
        let failure = with_rules(Failure::new(Code::Permission, "missing: verb watch on leases"));
        let hint = failure.hint.unwrap();
        assert!(hint.contains("leases") && hint.contains("events"), "{hint}");
        assert_eq!(with_rules(Failure::new(Code::Unavailable, "no answer")).hint, None);
    }
}
