//! The tutorial on pod redundancy with leader-elector, followed step by step with real pods: examples/sidecar/leader-elector.yaml,
//! with soloist in the place of that image. What the tutorial shows of each step is what is looked for here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::documents::root;
use testkit::pods::{LIMIT, Pods};
use testkit::process;
use testkit::wait::{holds_for, wait_for, wait_until};

const NAMESPACE: &str = "nginx-ha";
const APP: &str = "nginx-ha-container";
const ELECTOR: &str = "leader-election-container";

/// The lease that the image had by default.
const TTL: Duration = Duration::from_secs(10);

/// The kubelet's next look at a new pod: 5 s before the first, and 5 s between two.
const PROBED: Duration = Duration::from_secs(15);

/// What a follower takes to name the next leader after a release, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Two pods of the tutorial.
struct Tutorial {
    pods: Pods,
}

impl Tutorial {
    fn start() -> Result<Self> {
        let tutorial = Self { pods: Pods::new()? };
        tutorial.pods.apply(&root().join("examples/sidecar/leader-elector.yaml"), |object| {
            for container in
                object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut).into_iter().flatten()
            {
                let kind = if container["name"] == ELECTOR { "leader-elector" } else { "web" };
                container["image"] = format!("localhost/soloist-{kind}-test:testbed").into();
            }
        })?;
        Ok(tutorial)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.pods.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// Name and READY of each pod that is not on its way out.
    fn ready(&self) -> Result<Vec<(String, String)>> {
        let text = self.kubectl(&["get", "pods", "--no-headers"])?;
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let running = text.lines().map(words).filter(|words| words.get(2).is_some_and(|state| state == "Running"));
        Ok(running.filter_map(|words| Some((words.first()?.clone(), words.get(1)?.clone()))).collect())
    }

    /// Waits until one of two pods is 2/2 and the other 1/2, and the Deployment says 1/2: leader and follower.
    fn settled(&self) -> Result<[String; 2]> {
        let one_of_two = || {
            let pods = self.ready().ok()?;
            let of = |ready: &str| pods.iter().find(|(_, said)| said == ready).map(|(name, _)| name.clone());
            let (leader, follower) = (of("2/2")?, of("1/2")?);
            let deployment = self.kubectl(&["get", "deploy", "nginx-ha", "--no-headers"]).ok()?;
            let is_so = pods.len() == 2 && deployment.split_ascii_whitespace().nth(1) == Some("1/2");
            (is_so && self.names(&leader).ok()? == leader).then_some([leader, follower])
        };
        wait_for("one of two pods to be ready", LIMIT, one_of_two).with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        self.kubectl(&["get", "pods", "-o", "wide"]).unwrap_or_default()
            + &self.kubectl(&["logs", "--all-containers", "--prefix", "-l", "app=nginx-ha"]).unwrap_or_default()
    }

    /// What the application's container of a pod is answered, as the tutorial asks it.
    fn asks(&self, pod: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "/bin/bash", "-c", "curl -v --silent http://localhost:4040/ 2>&1"])
    }

    /// Who leads, as the sidecar of a pod says.
    fn names(&self, pod: &str) -> Result<String> {
        let said = self.asks(pod)?;
        let (_, rest) = said.rsplit_once(r#"{"name":""#).with_context(|| said.clone())?;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    }

    fn log(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod, "-c", ELECTOR])
    }

    /// What client-go's annotation says.
    fn record(&self) -> Result<Value> {
        let object = self.pods.kubectl(&["get", "endpoints", "example", "-o", "json"])?;
        let object: Value = serde_json::from_str(&object)?;
        let text = object["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"].as_str();
        Ok(serde_json::from_str(text.context("no annotation")?)?)
    }

    /// Both pods and the object name the leader, in the bytes of the tutorial.
    fn agree(&self, leader: &str, follower: &str) -> Result<()> {
        for pod in [leader, follower] {
            let said = self.asks(pod)?;
            let body = format!(r#"{{"name":"{leader}"}}"#);
            for part in ["< HTTP/1.1 200 OK", "text/plain; charset=utf-8", &format!("ength: {}", body.len()), &body] {
                ensure!(said.contains(part), "{pod}: no {part:?}: {said}");
            }
        }
        let record = self.record()?;
        ensure!(record["holderIdentity"] == leader && record["leaseDurationSeconds"] == 10, "{record}");
        Ok(())
    }

    /// Waits until the sidecar of `pod` names somebody else than `old`; how long that took.
    fn follows(&self, pod: &str, old: &str) -> Result<Duration> {
        let began = Instant::now();
        let next = || self.names(pod).is_ok_and(|name| !name.is_empty() && name != old);
        wait_until("the next leader", LIMIT, next).with_context(|| self.logs())?;
        Ok(began.elapsed())
    }

    /// Kills the first process of a container.
    fn kill(&self, pod: &str, container: &str) -> Result<()> {
        let program = if container == ELECTOR { "leader-elector" } else { "httpd" };
        process::signal(self.pods.first_process_called(pod, program)?.pid, Signal::KILL)
    }

    fn delete(&self, pod: &str) -> Result<()> {
        self.kubectl(&["delete", "pod", pod, "--wait=false"]).map(drop)
    }
}

impl Drop for Tutorial {
    fn drop(&mut self) {
        let objects =
            "namespace/nginx-ha,clusterrole/nginx-ha-clusterrole,clusterrolebinding/nginx-ha-clusterrolebinding";
        for words in [vec!["endpoints", "example"], objects.split(',').collect()] {
            let gone = self.pods.kubectl(&[&["delete", "--timeout=60s"], &*words].concat());
            if let Err(error) = gone {
                eprintln!("something is left in the cluster: {error:#}");
            }
        }
    }
}

#[test]
fn the_tutorial_shows_what_it_showed_and_takes_over_sooner() -> Result<()> {
    let tutorial = Tutorial::start()?;
    let [first, second] = tutorial.settled()?;
    tutorial.agree(&first, &second)?;
    let (leads, follows) = (tutorial.log(&first)?, tutorial.log(&second)?);
    ensure!(leads.contains("sucessfully acquired lease default/example"), "{leads}");
    ensure!(leads.contains(&format!("{first} is the leader")), "{leads}");
    ensure!(follows.contains(&format!("{first} is the leader")), "{follows}");
    ensure!(follows.contains(&format!("lock is held by {first} and has not yet expired")), "{follows}");

    // The active pod dies.
    tutorial.delete(&first)?;
    let took = tutorial.follows(&second, &first)?;
    eprintln!("leader's pod deleted: its follower names the next one after {took:?}");
    // The application of the tutorial does not heed SIGTERM; its elector does.
    ensure!(took < PROMPT, "took {took:?}: {}", tutorial.logs());
    let [leader, follower] = tutorial.settled()?;
    ensure!(leader != first, "{}", tutorial.logs());
    tutorial.agree(&leader, &follower)?;

    // The standby pod dies: nothing changes for the other one.
    let transitions = tutorial.record()?["leaderTransitions"].clone();
    tutorial.delete(&follower)?;
    let [still, third] = tutorial.settled()?;
    ensure!(still == leader && tutorial.record()?["leaderTransitions"] == transitions, "{}", tutorial.logs());
    tutorial.agree(&leader, &third)?;
    ensure!(tutorial.log(&third)?.contains(&format!("{leader} is the leader")), "{}", tutorial.log(&third)?);

    // The application's container is none of the elector's business; the elector's own costs a lease at most.
    tutorial.kill(&leader, APP)?;
    holds_for("the leader leads on", PROBED, || tutorial.names(&third).map_or(true, |name| name == leader))?;
    tutorial.settled()?;
    tutorial.kill(&leader, ELECTOR)?;
    // It may be back before the lease has run out, and lead again by the proof that its predecessor is gone.
    let (began, acquired) = (Instant::now(), tutorial.record()?["acquireTime"].clone());
    let again =
        || tutorial.record().is_ok_and(|record| record["acquireTime"] != acquired && record["holderIdentity"] != "");
    wait_until("the next acquisition", LIMIT, again).with_context(|| tutorial.logs())?;
    let took = began.elapsed();
    eprintln!("leader's elector killed: acquired again after {took:?}");
    ensure!(took < TTL + PROMPT, "{}", tutorial.logs());
    let [leader, follower] = tutorial.settled()?;
    tutorial.agree(&leader, &follower)
}
