//! The tutorial on pod redundancy with leader-elector, followed step by step with real pods: examples/sidecar/leader-elector.yaml,
//! with soloist in the place of that image. What the tutorial shows of each step is what is looked for here. Meanwhile each
//! pod is asked who leads, and a Service who answers, a thousand times a second.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::answers::{Manner, Sampler};
use testkit::documents::root;
use testkit::pods::{Claims, LIMIT, Pods, PowerLoss};
use testkit::traffic::View;
use testkit::wait::{holds_for, wait_for, wait_until, within};
use testkit::{process, stamp};

const NAMESPACE: &str = "nginx-ha";
const APP: &str = "nginx-ha-container";
const ELECTOR: &str = "leader-election-container";

/// The lease that the image had by default.
const TTL: Duration = Duration::from_secs(10);

/// The kubelet's next look at a new pod: 5 s before the first, and 5 s between two.
const PROBED: Duration = Duration::from_secs(15);

/// A pod that leads no more is unready after three looks in vain, and its container may have to be started for each.
const UNREADY: Duration = Duration::from_secs(20);

/// What a follower takes to name the next leader after a release, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Two pods of the tutorial.
struct Tutorial {
    pods: Pods,
}

/// What is seen of them from one node.
struct Sight<'a> {
    tutorial: &'a Tutorial,
    claims: Claims,
    answers: Sampler,
    slices: View,
}

/// What has ended.
struct Ended<'a> {
    what: &'a str,
    /// When.
    since: u64,
    /// Who led.
    leader: &'a str,
}

impl Ended<'_> {
    fn now<'a>(what: &'a str, leader: &'a str) -> Ended<'a> {
        Ended { what, since: stamp::now(), leader }
    }

    fn took(&self, until: u64) -> Duration {
        Duration::from_nanos(until.saturating_sub(self.since))
    }
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
            let names_it = |pod: &str| self.names(pod).is_ok_and(|named| named == leader);
            (is_so && names_it(&leader) && names_it(&follower)).then_some([leader, follower])
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

    fn address(&self, pod: &str) -> Result<IpAddr> {
        Ok(self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?.parse()?)
    }

    fn node_of(&self, pod: &str) -> Result<String> {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
    }

    /// Looks from `node` from now on, through a Service of the application.
    fn watch(&self, node: &str) -> Result<Sight<'_>> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": APP, "namespace": NAMESPACE},
            "spec": {"selector": {"app": "nginx-ha"}, "ports": [{"port": 80}]}});
        self.pods.client().apply(&service)?;
        let address = self.kubectl(&["get", "service", APP, "-o", "jsonpath={.spec.clusterIP}"])?.parse()?;
        Ok(Sight {
            tutorial: self,
            claims: Claims::from(node),
            answers: Sampler::start(node, SocketAddr::new(address, 80), Manner::Page)?,
            slices: View::of_slices(self.pods.client(), NAMESPACE, APP)?,
        })
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

impl Sight<'_> {
    /// Asks each of these pods as well.
    fn add(&mut self, pods: &[&str]) -> Result<()> {
        pods.iter().try_for_each(|pod| self.claims.add(pod, self.tutorial.address(pod)?))
    }

    /// Waits until a pod says that it leads; when it did first.
    fn wait_claimed(&self, pod: &str, since: u64) -> Result<u64> {
        wait_for(&format!("{pod} to lead"), LIMIT, || self.claims.turn(pod, since))
            .map(|turn| turn.begun)
            .with_context(|| self.tutorial.logs())
    }

    /// Waits until `leader` gets the traffic. Never did two say that they lead. For how long two were ready.
    fn follow(&self, ended: &Ended, leader: &str) -> Result<Duration> {
        let named = ended.took(self.wait_claimed(leader, ended.since)?);
        self.answers.wait(leader, ended.since, LIMIT).with_context(|| self.tutorial.logs())?;
        let nobody = self.claims.handover(ended.since, ended.leader, leader)?;
        let address = self.tutorial.address(leader)?.to_string();
        let ready = self.slices.first(Some(&address), ended.since).map(|at| ended.took(at));
        let served = self.answers.turn(leader, ended.since).map(|turn| ended.took(turn.begun));
        let two = self.slices.longest_two(ended.since);
        eprintln!(
            "{}: {leader} says that it leads after {named:.1?}, nobody did for {nobody:.1?}, it alone is ready after \
             {ready:.1?} and answers first after {served:.1?}, two were ready for {two:.1?}",
            ended.what
        );
        Ok(two)
    }
}

#[test]
fn the_tutorial_shows_what_it_showed_and_takes_over_sooner() -> Result<()> {
    let tutorial = Tutorial::start()?;
    let mut sight = tutorial.watch("node1")?;
    let [first, second] = tutorial.settled()?;
    sight.add(&[&first, &second])?;
    tutorial.agree(&first, &second)?;
    let (leads, follows) = (tutorial.log(&first)?, tutorial.log(&second)?);
    ensure!(leads.contains("sucessfully acquired lease default/example"), "{leads}");
    ensure!(leads.contains(&format!("{first} is the leader")), "{leads}");
    ensure!(follows.contains(&format!("{first} is the leader")), "{follows}");
    ensure!(follows.contains(&format!("lock is held by {first} and has not yet expired")), "{follows}");
    sight.follow(&Ended::now("nothing ended", &first), &first)?;

    let pods = its_pods_are_deleted(&tutorial, &mut sight, &first, &second)?;
    its_containers_are_killed(&tutorial, &sight, pods)?;
    drop(sight);
    its_node_loses_power(&tutorial)
}

/// Who leads then and who follows, on another node.
fn its_pods_are_deleted(tutorial: &Tutorial, sight: &mut Sight, first: &str, second: &str) -> Result<[String; 2]> {
    let ended = Ended::now("leader's pod deleted", first);
    tutorial.delete(first)?;
    let took = ended.took(sight.wait_claimed(second, ended.since)?);
    // The application of the tutorial does not heed SIGTERM; its elector does.
    within("the standby to lead", took, PROMPT).with_context(|| tutorial.logs())?;
    let [leader, follower] = tutorial.settled()?;
    ensure!(leader == second, "{}", tutorial.logs());
    sight.add(&[&follower])?;
    let two = sight.follow(&ended, &leader)?;
    ensure!(two.is_zero(), "two were ready for {two:?}: {:?}", sight.slices.seen());
    tutorial.agree(&leader, &follower)?;

    // The standby pod dies: nothing changes for the other one. The next standby is on the other node.
    let transitions = tutorial.record()?["leaderTransitions"].clone();
    let ended = Ended::now("standby's pod deleted", &leader);
    let node = tutorial.node_of(&leader)?;
    tutorial.kubectl(&["cordon", &node])?;
    tutorial.delete(&follower)?;
    let [still, third] = tutorial.settled()?;
    tutorial.kubectl(&["uncordon", &node])?;
    ensure!(still == leader && tutorial.record()?["leaderTransitions"] == transitions, "{}", tutorial.logs());
    sight.add(&[&third])?;
    ensure!(sight.follow(&ended, &leader)?.is_zero(), "{:?}", sight.slices.seen());
    tutorial.agree(&leader, &third)?;
    ensure!(tutorial.log(&third)?.contains(&format!("{leader} is the leader")), "{}", tutorial.log(&third)?);
    Ok([leader, third])
}

/// The application's container is none of the elector's business; the elector's own costs a lease at most.
fn its_containers_are_killed(tutorial: &Tutorial, sight: &Sight, [mut leader, third]: [String; 2]) -> Result<()> {
    let ended = Ended::now("application killed", &leader);
    tutorial.kill(&leader, APP)?;
    holds_for("the leader leads on", PROBED, || tutorial.names(&third).map_or(true, |name| name == leader))?;
    let [still, _] = tutorial.settled()?;
    ensure!(still == leader, "{}", tutorial.logs());
    sight.follow(&ended, &leader)?;

    for containers in [&[ELECTOR][..], &[ELECTOR, APP]] {
        let what = format!("killed: {}", containers.join(" and "));
        let ended = Ended::now(&what, &leader);
        let acquired = tutorial.record()?["acquireTime"].clone();
        containers.iter().try_for_each(|container| tutorial.kill(ended.leader, container))?;
        // It may be back before the lease has run out, and lead again by the proof that its predecessor is gone.
        let began = Instant::now();
        let again = || {
            tutorial.record().is_ok_and(|record| record["acquireTime"] != acquired && record["holderIdentity"] != "")
        };
        wait_until("the next acquisition", LIMIT, again).with_context(|| tutorial.logs())?;
        let took = began.elapsed();
        within(&what, took, TTL + PROMPT).with_context(|| tutorial.logs())?;
        let [next, follower] = tutorial.settled()?;
        tutorial.agree(&next, &follower)?;
        // Readiness is what the kubelet heard last: that of one that leads no more may outlive it.
        let two = sight.follow(&ended, &next)?;
        ensure!(two < UNREADY, "two were ready for {two:?}: {:?}", sight.slices.seen());
        leader = next;
    }
    Ok(())
}

fn its_node_loses_power(tutorial: &Tutorial) -> Result<()> {
    let [leader, follower] = tutorial.settled()?;
    let (lost, other) = (tutorial.node_of(&leader)?, tutorial.node_of(&follower)?);
    ensure!(lost != other, "both are on {lost}: {}", tutorial.logs());
    let mut sight = tutorial.watch(&other)?;
    sight.add(&[&leader, &follower])?;
    sight.follow(&Ended::now("nothing ended", &leader), &leader)?;
    let ended = Ended::now("leader's node without power", &leader);
    let loss = PowerLoss::new(&lost)?;
    let took = ended.took(sight.wait_claimed(&follower, ended.since)?);
    within("the follower to lead", took, TTL + PROMPT).with_context(|| tutorial.logs())?;
    sight.follow(&ended, &follower)?;
    loss.end()?;
    tutorial.pods.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("node/{lost}")])?;
    let [leader, follower] = tutorial.settled()?;
    tutorial.agree(&leader, &follower)
}
