//! What the clients of an application and the application itself notice of a failover: from the call that deletes the
//! active pod, or from the kubelet's report of a critical container that has ended, to the slice of the Service that has
//! the next pod alone, and to its notice. Beside any other program that takes what icr takes.
//!
//! No kubelet runs here: a pod that is being deleted is gone after [`GRACE`], as if its containers had taken so long to
//! end. The slices are written by Kubernetes' own controller.

use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use soloist::lock::kubernetes::Access;
use soloist::route::api::Api;
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::group::binary;
use testkit::stamp;
use testkit::traffic::View;
use testkit::wait::wait_for;

use super::world::{self, Made, delete_pod};
use crate::peer::Peer;
use crate::report::Row;
use crate::steps::{LIMIT, SETTLE};

/// Where the controllers of this kind look after their pods.
const NAMESPACE: &str = "default";
const SERVICE: &str = "bench-traffic";
const NODE: &str = "bench-node";
/// Addresses that reach this process: no slice may hold one of loopback.
const NETWORK: &str = "198.18.7";
/// Where the next pod is told that it is active.
const NOTICES: &str = "0.0.0.0:10001";
/// What its containers take to end.
const GRACE: Duration = Duration::from_secs(1);
/// How long a notice may take after the slice.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);

/// What was measured of all programs.
pub struct Traffic {
    /// Rows of soloist first.
    pub rows: Vec<Row>,
    /// What must never be.
    pub violations: Vec<String>,
}

/// What a round took, in nanoseconds from the call on.
struct Times {
    slice: u64,
    notice: Option<u64>,
}

impl Traffic {
    /// So many rounds of each kind for soloist and each of `peers`, one program after the other.
    pub fn measure(cluster: &Cluster, folder: &TempDir, rounds: usize, peers: &[Peer]) -> Result<Self> {
        let own = Peer { name: "icr (soloist)".to_owned(), path: folder.path().join("icr") };
        symlink(binary("soloist")?, &own.path).context("failed to make a link")?;
        let stage = Stage::set(cluster)?;
        let mut traffic = Self { rows: Vec::new(), violations: Vec::new() };
        for program in std::iter::once(&own).chain(peers) {
            let (deleted, reported) = stage.play(program, rounds)?;
            traffic.add(&program.name, "delete call", deleted);
            traffic.add(&program.name, "kubelet's report", reported);
        }
        if let Err(two) = stage.view.never_two() {
            traffic.violations.push(two.to_string());
        }
        cluster.service("stop", "endpointslice-controller")?;
        Ok(traffic)
    }

    fn add(&mut self, program: &str, from: &str, times: Vec<Times>) {
        let notices: Vec<u64> = times.iter().filter_map(|one| one.notice).collect();
        let unheard = times.len() - notices.len();
        let slices = times.into_iter().map(|one| one.slice).collect();
        self.rows.push(Row::of_times(&format!("{program}: {from} to slice"), slices));
        match unheard {
            0 => self.rows.push(Row::of_times(&format!("{program}: {from} to notice"), notices)),
            _ => self.violations.push(format!("{program}: {unheard} pods were not told")),
        }
    }
}

/// Everything but the program.
struct Stage {
    runtime: tokio::runtime::Runtime,
    api: Api,
    view: View,
    ears: Ears,
}

impl Stage {
    fn set(cluster: &Cluster) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let api = Api::keeping(world::HANDS, Access::default());
        let route = ["route", "replace", "local", &format!("{NETWORK}.0/24"), "dev", "lo"];
        ensure!(Command::new("ip").args(route).status()?.success(), "failed to take addresses: this needs root");
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": NAMESPACE},
                "spec": {"selector": {"app": "hapod", "role": "active"}, "ports": [{"port": 80}]}},
        ]}))?;
        cluster.initial_lease(NAMESPACE, "icr")?;
        cluster.service("start", "endpointslice-controller")?;
        let view = View::of_slices(cluster.client(), NAMESPACE, SERVICE)?;
        Ok(Self { runtime, api, view, ears: Ears::open()? })
    }

    fn play(&self, program: &Peer, rounds: usize) -> Result<(Vec<Times>, Vec<Times>)> {
        let own = format!("icr-{}", stamp::now());
        self.make(&own, 250, &json!({"app": "icr", "role": "standby"}))?;
        let mut active = self.member(0)?;
        let started = stamp::now();
        let controller = Program::start(program, &own)?;
        self.arrival(0, started)?;
        let (mut deleted, mut reported) = (Vec::new(), Vec::new());
        for round in 1..=rounds * 2 {
            eprintln!("{}, round {round} of {}", program.name, rounds * 2);
            let next = self.member(round)?;
            // Until the controller knows of it.
            sleep(SETTLE);
            let called = stamp::now();
            let is_deleted = round % 2 == 0;
            let kubelet = match is_deleted {
                true => Some(self.delete(&active)?),
                false => self.report(&active).map(|()| None)?,
            };
            let slice = self.arrival(round, called)? - called;
            let notice = self.ears.first(called).map(|at| at - called);
            if is_deleted { &mut deleted } else { &mut reported }.push(Times { slice, notice });
            match kubelet {
                Some(kubelet) => join(kubelet)?,
                // The controller deletes the first of them at once and later ones after pauses: nothing to wait for.
                None => self.runtime.block_on(remove(&self.api, &active))?,
            }
            active = next;
        }
        drop(controller);
        for pod in [own, active] {
            self.runtime.block_on(delete_pod(&self.api, NAMESPACE, &pod, true))?;
        }
        Ok((deleted, reported))
    }

    /// A pod of the application, which is ready; how it is called.
    fn member(&self, number: usize) -> Result<String> {
        let name = format!("t{number}-{}", stamp::now());
        self.make(&name, number, &json!({"app": "hapod", "role": "standby"}))?;
        Ok(name)
    }

    fn make(&self, name: &str, number: usize, labels: &serde_json::Value) -> Result<()> {
        let ip = address(number);
        let made = Made { name, labels: labels.clone(), node: NODE, ip: &ip, since: number, is_critical: true };
        self.runtime.block_on(world::make(&self.api, NAMESPACE, &made))
    }

    /// Deletes a pod as everybody does; it is gone when its containers have ended.
    fn delete(&self, pod: &str) -> Result<JoinHandle<Result<()>>> {
        self.runtime.block_on(delete_pod(&self.api, NAMESPACE, pod, false))?;
        let pod = pod.to_owned();
        Ok(spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            sleep(GRACE);
            runtime.block_on(remove(&Api::new(Access::default()), &pod))
        }))
    }

    /// Reports that a critical container has ended.
    fn report(&self, pod: &str) -> Result<()> {
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let status = json!({"status": {"containerStatuses": [world::container_status(&ended)]}});
        let path = format!("{pod}/status");
        let patched = self.runtime.block_on(self.api.patch(&world::pods(NAMESPACE), &path, &status));
        patched.map(drop).context("failed to report")
    }

    /// When traffic went to this pod alone.
    fn arrival(&self, number: usize, after: u64) -> Result<u64> {
        let ip = address(number);
        wait_for(&format!("traffic to {ip}"), LIMIT, || self.view.first(Some(&ip), after))
            .with_context(|| format!("{:?}", self.view.now()))
    }
}

/// When datagrams came, until this is dropped.
struct Ears {
    heard: Arc<Mutex<Vec<u64>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ears {
    fn open() -> Result<Self> {
        let socket = UdpSocket::bind(NOTICES).context("failed to listen for notices")?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context("failed to set a limit")?;
        let (heard, is_over) = (Arc::<Mutex<Vec<u64>>>::default(), Arc::<AtomicBool>::default());
        let (told, ends) = (Arc::clone(&heard), Arc::clone(&is_over));
        let thread = spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if socket.recv_from(&mut [0; 2048]).is_ok() {
                    told.lock().unwrap_or_else(PoisonError::into_inner).push(stamp::now());
                }
            }
        });
        Ok(Self { heard, is_over, thread: Some(thread) })
    }

    /// When the first came after `after`, if one does.
    fn first(&self, after: u64) -> Option<u64> {
        let heard = || {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.iter().find(|at| **at >= after).copied()
        };
        wait_for("a notice", NOTICE_LIMIT, heard).ok()
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says nothing that anybody needs.
            let _ = thread.join();
        }
    }
}

fn join(kubelet: JoinHandle<Result<()>>) -> Result<()> {
    kubelet.join().map_err(|_| anyhow!("a thread has panicked"))?
}

/// Takes a pod away, unless somebody was faster.
async fn remove(api: &Api, pod: &str) -> Result<()> {
    match api.get(&world::pods(NAMESPACE), pod).await? {
        Some(_) => delete_pod(api, NAMESPACE, pod, true).await,
        None => Ok(()),
    }
}

fn address(number: usize) -> String {
    format!("{NETWORK}.{}", number % 200 + 1)
}

/// One that runs, until this is dropped.
struct Program(Child);

impl Program {
    fn start(program: &Peer, own: &str) -> Result<Self> {
        let kubeconfig = std::env::var("KUBECONFIG").context("no KUBECONFIG")?;
        let mut command = Command::new(&program.path);
        command.args(["-kubeconfig", &kubeconfig]).env("MY_POD_NAME", own).env_remove("KUBECONFIG");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("failed to start {}", program.name))?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
