//! examples/sidecar/asked.yml as real pods: an application that is warm, and a sidecar that it asks. Of two pods at most one
//! is labelled as active, and at most one says that it is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::documents::root;
use testkit::pods::{LEASE, LIMIT, NAMESPACE, Pods, PowerLoss};
use testkit::traffic::View;
use testkit::wait::{wait_for, wait_until, within};
use testkit::{process, stamp};

const APP: &str = "my-warm";

/// What stands in for the application: a server with one page.
const SERVER: &str = "echo ready > /stamps/index.html; exec /bin/busybox httpd -f -p 8080 -h /stamps";

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine;
/// each question takes a process of kubectl's.
const PROMPT: Duration = Duration::from_millis(2_500);

/// The elector's container is started anew by the kubelet, and its lease runs out meanwhile at the latest.
const BEYOND: Duration = Duration::from_millis(2_500);

/// Which pod, and its fencing token.
#[derive(Default)]
struct Active {
    pod: String,
    token: u64,
}

struct Warm {
    pods: Pods,
    labels: View,
}

impl Warm {
    fn start() -> Result<Self> {
        let pods = Pods::new()?;
        pods.apply(&root().join("examples/sidecar/asked.yml"), |object| {
            let Some(pod) = object.pointer_mut("/spec/template/spec") else { return };
            if let Some(args) = pod.pointer_mut("/initContainers/0/args").and_then(Value::as_array_mut) {
                for argument in args.iter_mut().filter(|argument| **argument == "--lease=15s") {
                    *argument = format!("--lease={}s", LEASE.as_secs()).into();
                }
            }
            if let Some(container) = pod.pointer_mut("/containers/0") {
                container["command"] = json!(["/bin/sh", "-c", SERVER]);
                container["args"] = json!([]);
            }
        })?;
        let labels = View::of_pods(pods.client(), NAMESPACE, &[("role", "active")])?;
        pods.wait_rolled_out(APP, 2).with_context(|| pods.logs())?;
        Ok(Self { pods, labels })
    }

    /// What the application of a pod is told on `/active`; nothing with 503, of which its program shows no more.
    fn asks(&self, pod: &str) -> Result<Value> {
        let question = "wget -q -O - http://127.0.0.1:9090/active || echo '{}'";
        let said = self.pods.kubectl(&["exec", pod, "-c", APP, "--", "/bin/sh", "-c", question])?;
        serde_json::from_str(&said).context(said)
    }

    fn names(&self) -> Result<Vec<String>> {
        let names = self.pods.kubectl(&[
            "get",
            "pods",
            "-l",
            &format!("app={APP}"),
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ])?;
        Ok(names.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// Waits until a pod is labelled as active and says so to its application, with a larger token than `old`'s.
    fn next(&self, old: &Active) -> Result<(Active, Duration)> {
        let began = Instant::now();
        let labelled = || {
            let selector = format!("app={APP},role=active");
            let name = self.pods.kubectl(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].metadata.name}"]);
            let name = name.ok().filter(|name| !name.is_empty() && !name.contains(' '))?;
            let said = self.asks(&name).ok().filter(|said| said["active"] == true)?;
            let token = said["fencing_token"].as_u64().filter(|token| *token > old.token)?;
            Some(Active { pod: name, token })
        };
        let next = wait_for("the next one to be active", LIMIT, labelled).with_context(|| self.pods.logs())?;
        Ok((next, began.elapsed()))
    }

    fn settle(&self) -> Result<()> {
        self.pods.wait_rolled_out(APP, 2)?;
        // Both are known to each other, or the next handover would wait out a courtesy.
        wait_until("two members", LIMIT, || self.names().is_ok_and(|names| names.len() == 2))
    }
}

#[test]
fn a_warm_application_is_told_and_gets_the_traffic_whatever_ends() -> Result<()> {
    let warm = Warm::start()?;
    let (first, _) = warm.next(&Active::default())?;
    warm.settle()?;
    for pod in warm.names()? {
        let said = warm.asks(&pod)?;
        ensure!((said["active"] == true) == (pod == first.pod), "{pod}: {said}");
    }

    warm.pods.kubectl(&["delete", "pod", &first.pod, "--wait=false"])?;
    let (second, took) = warm.next(&first)?;
    eprintln!("pod deleted: {took:?}");
    within("the next one to be active", took, PROMPT).with_context(|| warm.pods.logs())?;
    warm.settle()?;

    // The health check finds an application that does not answer, and the sidecar gives up.
    let application = warm.pods.first_process_called(&second.pod, "httpd")?;
    process::signal(application.pid, Signal::STOP)?;
    let (third, took) = warm.next(&second)?;
    eprintln!("application hangs: {took:?}");
    process::signal(application.pid, Signal::CONT)?;
    ensure!(third.pod != second.pod, "{}", warm.pods.logs());
    warm.settle()?;

    process::signal(warm.pods.first_process_called(&third.pod, "sidecar")?.pid, Signal::KILL)?;
    let (_, took) = warm.next(&third)?;
    eprintln!("sidecar killed: {took:?}");
    within("the next one to be active", took, LEASE + BEYOND).with_context(|| warm.pods.logs())?;
    warm.settle()?;
    warm.labels.never_two()
}

#[test]
fn a_node_without_power_costs_a_lease_and_the_label_moves() -> Result<()> {
    let warm = Warm::start()?;
    let (first, _) = warm.next(&Active::default())?;
    warm.settle()?;
    warm.pods.wait_elsewhere(&first.pod)?;
    let standby = warm.names()?.into_iter().find(|name| *name != first.pod).context("no standby")?;
    let node = warm.pods.node_of(&first.pod)?;
    let began = stamp::now();
    let loss = PowerLoss::new(&node)?;
    // Nobody asks the dead pod: that takes kubectl half a minute.
    let moved = wait_for("the label to move", LIMIT, || warm.labels.first(Some(&standby), began))
        .with_context(|| warm.pods.logs())?;
    let took = Duration::from_nanos(moved.saturating_sub(began));
    eprintln!("a node without power: label moved after {took:?}");
    within("the next one to be active", took, LEASE + BEYOND).with_context(|| warm.pods.logs())?;
    let (second, _) = warm.next(&first)?;
    ensure!(second.pod == standby, "{} is active{}", second.pod, warm.pods.logs());
    loss.end()?;
    warm.pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("node/{node}")])?;
    warm.settle()?;
    // What was active before is a standby, and says so to its application.
    wait_until("the pod of that node to say so", LIMIT, || {
        warm.asks(&first.pod).is_ok_and(|said| said["active"] != true)
            && warm.asks(&second.pod).is_ok_and(|said| said["active"] == true)
    })
    .with_context(|| warm.pods.logs())?;
    warm.labels.never_two()
}
