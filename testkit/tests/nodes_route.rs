//! The traffic of examples/kubernetes/traffic.yml, with real pods on two nodes: who answers at the addresses of its
//! Services, through kube-proxy, while the active one is deleted, crashes, is rolled out, evicted and lost.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;
use testkit::answers::Sampler;
use testkit::history::Span;
use testkit::pods::{CutOff, LIMIT, Pods, shorten_lease};
use testkit::process;
use testkit::traffic::View;
use testkit::wait::{wait_for, wait_until};

/// Both Services of the example.
const SERVICES: [&str; 2] = ["my-routed", "my-routed-labelled"];

/// Everything of the example with a short lease.
fn install(pods: &Pods) -> Result<Span> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes/traffic.yml");
    pods.apply(&example, shorten_lease)?;
    let active = pods.wait_active_after(0, LIMIT)?;
    rolled_out(pods)?;
    Ok(active)
}

/// What a command waits for that waits for the roll-out: all pods ready, and none left on the way out.
fn rolled_out(pods: &Pods) -> Result<()> {
    pods.kubectl(&["rollout", "status", "deployment/my-routed", "--timeout=90s"])?;
    let count = || pods.kubectl(&["get", "pods", "-o", "name"]).is_ok_and(|names| names.lines().count() == 2);
    wait_until("two pods", LIMIT, count).with_context(|| pods.logs())
}

fn address_of(pods: &Pods, service: &str) -> Result<SocketAddr> {
    let ip = pods.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
    Ok(SocketAddr::new(ip.parse().with_context(|| format!("{service} has the address {ip:?}"))?, 80))
}

/// What both Services show, from here on.
struct Traffic {
    samplers: Vec<Sampler>,
    views: Vec<View>,
    labels: View,
}

impl Traffic {
    fn watch(pods: &Pods, node: &str) -> Result<Self> {
        let mut samplers = Vec::new();
        let mut views = Vec::new();
        for service in SERVICES {
            samplers.push(Sampler::start(node, address_of(pods, service)?)?);
            views.push(View::of_slices(pods.client(), "default", service)?);
        }
        Ok(Self { samplers, views, labels: View::of_pods(pods.client(), "default", "role", "active")? })
    }

    fn wait(&self, pod: &str) -> Result<()> {
        self.samplers.iter().try_for_each(|sampler| sampler.wait(pod, LIMIT))?;
        self.labels.wait(Some(pod), LIMIT)
    }

    fn check(&self, pods: &Pods, what: &str) -> Result<()> {
        for (sampler, service) in self.samplers.iter().zip(SERVICES) {
            let (answers, silence) = sampler.check(&pods.history()).with_context(|| pods.logs())?;
            eprintln!("{what}: {service}: {answers} answers, the longest silence {silence:?}");
        }
        for view in self.views.iter().chain([&self.labels]) {
            view.never_two().with_context(|| what.to_owned())?;
        }
        Ok(())
    }
}

/// The latest activation, with its member settled in.
fn next(pods: &Pods, traffic: &Traffic, old: &Span, what: &str) -> Result<Span> {
    pods.wait_active_after(old.token, LIMIT)?;
    rolled_out(pods)?;
    let latest = || pods.history().spans.into_iter().max_by_key(|span| span.token);
    let new = latest().context("nobody")?;
    traffic.wait(&new.member)?;
    traffic.check(pods, what)?;
    Ok(new)
}

#[test]
fn only_the_active_pod_answers_at_the_address_of_the_service() -> Result<()> {
    let pods = Pods::new()?;
    let first = install(&pods)?;
    let traffic = Traffic::watch(&pods, "node1")?;
    traffic.wait(&first.member)?;

    pods.kubectl(&["delete", "pod", &first.member, "--wait=false"])?;
    let second = next(&pods, &traffic, &first, "delete")?;

    pods.kubectl(&["rollout", "restart", "deployment/my-routed"])?;
    let third = next(&pods, &traffic, &second, "rolling update")?;

    pods.evict(&third.member)?;
    let fourth = next(&pods, &traffic, &third, "eviction")?;

    let hostname = format!("HOSTNAME={}", fourth.member);
    let is_command = |one: &process::Process| one.name == "probe" && one.carries(&hostname);
    let command = process::all().into_iter().find(is_command).context("the command does not run")?;
    process::signal(command.pid, Signal::ABORT)?;
    let fifth = next(&pods, &traffic, &fourth, "crash")?;

    let first_process = pods.first_process(&fifth.member)?;
    process::signal(first_process.pid, Signal::KILL)?;
    next(&pods, &traffic, &fifth, "container killed")?;
    pods.check(6)
}

#[test]
fn a_lost_node_takes_its_traffic_along_and_the_others_follow() -> Result<()> {
    let pods = Pods::new()?;
    let active = install(&pods)?;
    let lost = pods.node_of(&active.member)?;
    let other = if lost == "node1" { "node2" } else { "node1" };
    wait_for("a standby on the other node", LIMIT, || {
        let names = pods.kubectl(&["get", "pods", "-o", "name"]).ok()?;
        let mut names = names.lines().filter_map(|name| name.strip_prefix("pod/"));
        names.find(|pod| pods.node_of(pod).is_ok_and(|node| node == other)).map(str::to_owned)
    })
    .with_context(|| pods.logs())?;
    let traffic = Traffic::watch(&pods, other)?;
    traffic.wait(&active.member)?;
    let cut = CutOff::new(&lost)?;
    let new = pods.wait_active_after(active.token, LIMIT)?;
    traffic.wait(&new.member)?;
    drop(cut);
    traffic.check(&pods, "loss of a node")?;
    pods.check(2)
}
