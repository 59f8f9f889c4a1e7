//! The document of the controller that `soloist icr` stands in for, followed step by step with real pods: the manifests of
//! examples/controller/seed. Whatever happens, never are two pods of the application labelled as active, and never has its
//! Service two ready endpoints.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::pods::labelled::{Labelled, Pair, Pod, is_ready};
use testkit::pods::{LIMIT, NAMESPACE, Pods, Seed};
use testkit::process::{self, Process};
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::{wait_for, wait_until, within};

const SERVICE: &str = "myhaservice";

/// What a pod is told that has become active.
const NOTICE: &str = "GoActiveDuringFailover";

/// A failover takes milliseconds. This only tells it from one that waited for the end of a pod, which takes 30 s, or for
/// the lease of a controller, which takes 15 s: on a busy machine.
const PROMPT: Duration = Duration::from_millis(2_500);

/// The kubelet looks at its containers once a second.
const KUBELET: Duration = Duration::from_secs(1);

/// The lease of the controller.
const LEASE: Duration = Duration::from_secs(15);

/// What a container of the application is called, and a word of its command line.
type Container = (&'static str, &'static str);

const CRITICAL: Container = ("critcontainer", "lifecycle");
const OTHER: Container = ("noncritcontainer", "sleep");

/// The application in one namespace, and all that was to be seen of it.
struct Application<'a> {
    pods: &'a Pods,
    namespace: &'a str,
    seen: Labelled<'a>,
    /// Who was not deleted.
    staying: View,
}

impl<'a> Application<'a> {
    fn create(pods: &'a Pods, seed: &Seed, namespace: &'a str) -> Result<Self> {
        let seen = Labelled::watch(pods, namespace, SERVICE)?;
        let staying = View::of_staying_pods(pods.client(), namespace, &[("app", "hapod")])?;
        seed.create(namespace, "hapod_replicaset.yaml")?;
        seed.create(namespace, "ha_service.yaml")?;
        Ok(Self { pods, namespace, seen, staying })
    }

    fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.pods.kubectl(&[&["--namespace", self.namespace], words].concat())
    }

    /// Waits until one of two ready pods is active, the other one stands by, and the Service has just the active one.
    fn settled(&self) -> Result<Pair> {
        let look = || self.seen.look().ok().flatten();
        wait_for("an active pod and a standby", LIMIT, look).with_context(|| self.logs())
    }

    /// The last one by age and name, once both are ready.
    fn youngest_of_two(&self) -> Result<Option<Pod>> {
        let pods = self.seen.staying()?;
        let age = |pod: &&Value| (pod["status"]["startTime"].to_string(), pod["metadata"]["name"].to_string());
        let are_both = pods.len() == 2 && pods.iter().all(is_ready);
        Ok(pods.iter().filter(|_| are_both).max_by_key(age).map(Pod::read))
    }

    /// How often a pod was told that it is active.
    fn notices(&self, pod: &str) -> Result<usize> {
        Ok(self.kubectl(&["logs", pod, "-c", "udpcontainer"])?.matches(NOTICE).count())
    }

    /// Waits until the active pod was told so, which happens once; the standby was told nothing.
    fn told_once(&self, pair: &Pair) -> Result<()> {
        let is_told = || self.notices(&pair.active.name).is_ok_and(|count| count > 0);
        wait_until("the notice", LIMIT, is_told).with_context(|| self.logs())?;
        let counts = [self.notices(&pair.active.name)?, self.notices(&pair.standby.name)?];
        ensure!(counts == [1, 0], "notices to the active one and the standby: {counts:?}{}", self.logs());
        Ok(())
    }

    /// Does something to the active pod that the standby follows on. `act` says when that happened, if it knows better
    /// than the view of the pods.
    fn failover(&self, what: &str, limit: Duration, act: impl FnOnce(&Pod) -> Result<Option<u64>>) -> Result<()> {
        let Pair { active, standby } = self.settled()?;
        let call = stamp::now();
        let at = act(&active).with_context(|| what.to_owned())?;
        let first = |view: &View, who: &str| wait_for(what, LIMIT, || view.first(Some(who), call));
        let labelled = first(&self.seen.active, &standby.name).with_context(|| self.logs())?;
        let ready = first(&self.seen.ready, &standby.ip).with_context(|| self.logs())?;
        let left = || at.or_else(|| self.staying.left(&active.name, call));
        let at = wait_for(what, LIMIT, left).context("nobody saw it happen")?;
        let [called, to_label, to_endpoint] = [(call, ready), (at, labelled), (at, ready)].map(between);
        eprintln!(
            "{what}: label moved after {to_label:?}, endpoint after {to_endpoint:?}; {called:?} from the call on"
        );
        within(what, to_endpoint, limit).with_context(|| self.logs())?;
        let next = self.settled()?;
        ensure!(next.active == standby && next.standby != active, "{what}: {next:?}{}", self.logs());
        self.told_once(&next)?;
        self.seen.never_two().with_context(|| what.to_owned())
    }

    /// Deletes the active pod as the document does.
    fn force(&self, what: &str) -> Result<()> {
        self.failover(what, PROMPT, |active| {
            self.kubectl(&["delete", "pod", "--force", &active.name])?;
            Ok(None)
        })
    }

    /// Deletes the active pod as everybody else does.
    fn delete(&self, what: &str) -> Result<()> {
        self.failover(what, PROMPT, |active| {
            self.kubectl(&["delete", "pod", &active.name, "--wait=false"])?;
            Ok(None)
        })
    }

    /// Makes the critical container of the active pod crash.
    fn crash(&self, what: &str) -> Result<()> {
        self.failover(what, KUBELET + PROMPT, |active| {
            let process = self.process(active, CRITICAL)?;
            let touch = ["exec", &active.name, "--container", CRITICAL.0, "--", "touch", "/tmp/killme"];
            // The crash may come before the end of `touch`.
            let _ = self.kubectl(&touch);
            let has_ended = || Process::read(process.pid).is_none_or(|now| !now.is_alive());
            wait_until("the crash", LIMIT, has_ended)?;
            Ok(Some(stamp::now()))
        })
    }

    fn process(&self, pod: &Pod, (name, word): Container) -> Result<Process> {
        self.pods.first_process_called(&pod.name, word).with_context(|| name.to_owned())
    }

    /// How often a container was started anew.
    fn restarts(&self, pod: &Pod, (name, _): Container) -> Result<u32> {
        let path = format!("jsonpath={{.status.containerStatuses[?(@.name==\"{name}\")].restartCount}}");
        self.kubectl(&["get", "pod", &pod.name, "-o", &path])?.parse().context("no count")
    }

    /// Labels a pod by hand, and waits until it was seen and is as it was.
    fn label(&self, pod: &Pod, role: &str, active: &Pod) -> Result<()> {
        let call = stamp::now();
        self.kubectl(&["label", "pod", &pod.name, role, "--overwrite"])?;
        let repaired = || {
            let seen = self.seen.active.seen();
            let edited = seen.iter().position(|seen| seen.at >= call && seen.who != [&*active.name])?;
            let mut since = seen.get(edited..)?.iter();
            since.find(|seen| seen.who == [&*active.name]).map(|seen| seen.at)
        };
        let at = wait_for("the label to be repaired", LIMIT, repaired).with_context(|| self.logs())?;
        eprintln!("{role} by hand: repaired {:?} after the call", between((call, at)));
        Ok(())
    }

    fn logs(&self) -> String {
        let mut all = self.kubectl(&["get", "pods", "-o", "wide", "--show-labels"]).unwrap_or_default();
        all += &self.kubectl(&["logs", "--prefix", "--all-containers", "-l", "app=hapod"]).unwrap_or_default();
        all += &self.pods.kubectl(&["logs", "--prefix", "--tail=40", "-l", "app=icr"]).unwrap_or_default();
        format!("\n{all}{:#?}", self.seen.active.seen())
    }
}

fn between((earlier, later): (u64, u64)) -> Duration {
    Duration::from_nanos(later.saturating_sub(earlier))
}

/// The controller's own pods.
struct Controller<'a> {
    pods: &'a Pods,
    labelled: View,
}

impl<'a> Controller<'a> {
    fn create(pods: &'a Pods, seed: &Seed) -> Result<Self> {
        seed.create(NAMESPACE, "icr_cr.yaml")?;
        Self::create_with_its_role(pods, seed)
    }

    /// The ClusterRole is there.
    fn create_with_its_role(pods: &'a Pods, seed: &Seed) -> Result<Self> {
        let labelled = View::of_pods(pods.client(), NAMESPACE, &[("app", "icr"), ("role", "active")])?;
        for manifest in ["icr_sa.yaml", "icr_crb.yaml", "icr_replicaset.yaml"] {
            seed.create(NAMESPACE, manifest)?;
        }
        Ok(Self { pods, labelled })
    }

    /// Waits until two pods of it are ready, of which one is labelled as active.
    fn settled(&self) -> Result<String> {
        let leader = || {
            let list = self.pods.kubectl(&["get", "pods", "-l", "app=icr", "-o", "json"]).ok()?;
            let list: Value = serde_json::from_str(&list).ok()?;
            let items = list["items"].as_array()?;
            let [leader] = &*self.labelled.now() else { return None };
            (items.len() == 2 && items.iter().all(is_ready)).then(|| leader.clone())
        };
        wait_for("one controller of two to lead", LIMIT, leader).with_context(|| self.pods.logs())
    }

    /// Deletes the pod that leads, and waits until another one does.
    fn delete(&self, what: &str, words: &[&str], limit: Duration) -> Result<()> {
        let old = self.settled()?;
        let began = Instant::now();
        self.pods.kubectl(&[&["delete", "pod", &old], words].concat())?;
        let next = || self.labelled.now().into_iter().find(|name| *name != old);
        wait_for("the other controller to lead", LIMIT, next).with_context(|| self.pods.logs())?;
        let took = began.elapsed();
        eprintln!("{what}: the other one leads after {took:?}");
        within(what, took, limit).with_context(|| self.pods.logs())?;
        self.settled().map(drop)
    }
}

#[test]
fn the_document_does_what_it_says_step_by_step() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    let controller = Controller::create(&pods, &seed)?;
    let application = Application::create(&pods, &seed, NAMESPACE)?;
    application.told_once(&application.settled()?)?;
    controller.settled()?;

    application.crash("critical container crashed")?;
    application.force("active pod deleted by force")?;
    controller.delete("leading controller deleted by force", &["--force"], LEASE + PROMPT)?;
    application.force("active pod deleted by force, with another controller")?;
    application.crash("critical container crashed, with another controller")
}

#[test]
fn whoever_is_deleted_plainly_hands_over_long_before_its_end() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    let controller = Controller::create(&pods, &seed)?;
    let application = Application::create(&pods, &seed, NAMESPACE)?;
    let Pair { active, .. } = application.settled()?;
    controller.settled()?;

    application.delete("active pod deleted")?;
    let deleted = application.kubectl(&["get", "pod", &active.name, "-o", "jsonpath={.metadata.deletionTimestamp}"])?;
    ensure!(!deleted.is_empty(), "{} has ended before its grace was over", active.name);
    controller.delete("leading controller deleted", &["--wait=false"], PROMPT)?;
    application.delete("active pod deleted, with another controller")?;

    // As an update of the application does: each of its pods, one after the other.
    let Pair { active, standby } = application.settled()?;
    application.kubectl(&["delete", "pod", &standby.name, "--wait=false"])?;
    let left = || application.staying.left(&standby.name, 0);
    wait_for("the standby to be deleted", LIMIT, left)?;
    let pair = application.settled()?;
    ensure!(pair.active == active, "the standby was deleted, and {pair:?}{}", application.logs());
    application.delete("the last old pod deleted")
}

#[test]
fn labels_by_hand_are_repaired_and_other_containers_change_nothing() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    Controller::create(&pods, &seed)?.settled()?;
    let mut application = Application::create(&pods, &seed, NAMESPACE)?;
    let pair = application.settled()?;

    for role in ["role=standby", "role-"] {
        application.label(&pair.active, role, &pair.active)?;
    }
    application.seen.never_two()?;
    // Here the hand itself makes two of them.
    application.label(&pair.standby, "role=active", &pair.active)?;
    application.seen = Labelled::watch(&pods, NAMESPACE, SERVICE)?;
    ensure!(application.settled()? == pair, "a label was believed{}", application.logs());

    for pod in [&pair.active, &pair.standby] {
        process::signal(application.process(pod, OTHER)?.pid, Signal::KILL)?;
        let is_back = || application.restarts(pod, OTHER).is_ok_and(|count| count == 1);
        wait_until("the kubelet to start it anew", LIMIT, is_back)?;
        ensure!(application.settled()? == pair, "a container that is not critical ended{}", application.logs());
    }
    application.told_once(&pair)?;
    application.force("active pod deleted by force, afterwards")
}

#[test]
fn what_another_controller_has_made_active_stays_active() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    let application = Application::create(&pods, &seed, NAMESPACE)?;
    // Not the one that is the next by its age and its name.
    let chosen = wait_for("two pods", LIMIT, || application.youngest_of_two().ok().flatten())?;
    application.kubectl(&["label", "pod", &chosen.name, "role=active", "--overwrite"])?;
    Controller::create(&pods, &seed)?.settled()?;
    let pair = application.settled()?;
    ensure!(pair.active == chosen, "{pair:?}{}", application.logs());
    application.told_once(&pair)?;
    application.seen.active.check(&[&chosen.name])?;
    application.force("active pod deleted by force, of another controller's choice")
}

#[test]
fn the_former_cluster_role_is_refused_with_the_rules_that_it_lacks() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    for mut role in pods.client().objects(&seed.folder().join("icr_cr.yaml"))? {
        let rules = role["rules"].as_array_mut().context("no rules")?;
        rules.retain(|rule| rule["resources"][0] == "pods");
        pods.create(&role)?;
    }
    let controller = Controller::create_with_its_role(&pods, &seed)?;
    let says = || {
        let log = pods.kubectl(&["logs", "-l", "app=icr"]).unwrap_or_default();
        ["leases", "events", "two rules more"].iter().all(|word| log.contains(word))
    };
    wait_until("the rules to be named", LIMIT, says).with_context(|| pods.logs())?;
    let role = seed.folder().join("icr_cr.yaml").display().to_string();
    pods.kubectl(&["replace", "-f", &role])?;
    controller.settled().map(drop)
}

#[test]
fn each_namespace_has_an_active_pod_of_its_own() -> Result<()> {
    let pods = Pods::new()?;
    let seed = Seed::new(&pods)?;
    let other = Namespace::create(&pods, "elsewhere")?;
    let _controller = Controller::create(&pods, &seed)?;
    let here = Application::create(&pods, &seed, NAMESPACE)?;
    let there = Application::create(&pods, &seed, other.name)?;
    let before = here.settled()?;
    there.force("active pod of another namespace deleted by force")?;
    here.told_once(&before)?;
    here.seen.active.check(&[&before.active.name])
}

/// One more namespace, until this is dropped.
struct Namespace<'a> {
    pods: &'a Pods,
    name: &'a str,
}

impl<'a> Namespace<'a> {
    fn create(pods: &'a Pods, name: &'a str) -> Result<Self> {
        pods.kubectl(&["create", "namespace", name])?;
        Ok(Self { pods, name })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.pods.kubectl(&["delete", "namespace", self.name, "--wait=false"]) {
            eprintln!("something is left in the cluster: {error:#}");
        }
    }
}
