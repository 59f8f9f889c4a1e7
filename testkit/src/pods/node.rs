//! Nodes of the testbed that are lost: cut off, or without power.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{LIMIT, Pods};
use crate::history::Span;
use crate::lease_group::BEYOND;
use crate::process::{self, Process};
use crate::wait::{wait_until, within};

/// What runs on a node besides pods, in the order in which it is started.
const SERVERS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

/// As much later than the standby may kubectl hear of a renewal, on a busy machine.
const LATER: Duration = Duration::from_millis(300);

/// How long the runtime may take to come back.
const RUNTIME: Duration = Duration::from_secs(30);

/// A node without its network, until this is dropped.
#[derive(Debug)]
pub struct CutOff(String);

impl CutOff {
    /// Takes the network of `node` away.
    pub fn new(node: &str) -> Result<Self> {
        link(node, "down").map(|()| Self(node.to_owned()))
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Err(error) = link(&self.0, "up") {
            eprintln!("{} stays cut off: {error:#}", self.0);
        }
    }
}

fn link(node: &str, state: &str) -> Result<()> {
    crate::root::run(&["ip", "link", "set", node, state])
}

/// A node all of whose processes ended at once, those of its pods included, until this is dropped.
#[derive(Debug)]
pub struct PowerLoss {
    node: String,
    /// Dropped before the servers are started again.
    cut: Option<CutOff>,
}

impl PowerLoss {
    /// Ends everything on `node`, after its network: what dies first tells nobody.
    pub fn new(node: &str) -> Result<Self> {
        let place = Place::of(node)?;
        let loss = Self { node: node.to_owned(), cut: Some(CutOff::new(node)?) };
        let all: Vec<Process> = process::all().into_iter().filter(|process| place.holds(process)).collect();
        for process in &all {
            // Some end by the end of others.
            let _ = process::signal(process.pid, Signal::KILL);
        }
        // What was being started meanwhile.
        process::kill_all(|process| place.holds(process));
        Ok(loss)
    }

    /// Gives the power back.
    pub fn end(mut self) -> Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> Result<()> {
        if self.cut.take().is_none() {
            return Ok(());
        }
        let socket = folder()?.join(&self.node).join("containerd.sock");
        let socket = socket.display().to_string();
        for server in SERVERS {
            let service = concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/service");
            crate::root::run(&[service, "start", &format!("{server}-{}", self.node)])?;
            // kubelet ends where it finds no runtime.
            wait_until("the runtime", RUNTIME, || crate::root::run(&["ctr", "--address", &socket, "version"]).is_ok())?;
        }
        Ok(())
    }
}

impl Drop for PowerLoss {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("{} stays without power: {error:#}", self.node);
        }
    }
}

/// What the node without power of an active pod leads to.
#[derive(Debug)]
pub struct Failover {
    /// Which node.
    pub node: String,
    /// It lasts.
    pub loss: PowerLoss,
    /// Who is active then.
    pub next: Span,
}

impl Failover {
    /// Takes the power of the node of the pod that is active by this Lease, and waits for the next one, which has to come
    /// when that has been silent for `lease` and not later.
    pub fn of(pods: &Pods, name: &str, lease: Duration, active: &Span) -> Result<Self> {
        let renewals = pods.hear_renewals(name)?;
        let last_sight = || renewals.last_change(&format!("{} ", active.member));
        wait_until("a renewal", LIMIT, || last_sight().is_some())?;
        let node = pods.node_of(&active.member)?;
        let loss = PowerLoss::new(&node)?;
        let next = pods.wait_active_after(active.token, LIMIT)?;
        let last_sight = last_sight().context("no renewal was heard")?;
        let waited = Duration::from_nanos(next.first.saturating_sub(last_sight));
        eprintln!("{name}: a node without power: the next one is active {waited:?} after the last sight");
        ensure!(next.member != active.member, "the pod of the dead node came first{}", pods.logs());
        ensure!(waited + LATER >= lease, "too early, after {waited:?}{}", pods.logs());
        within("the next one to be active", waited, lease + BEYOND).with_context(|| pods.logs())?;
        Ok(Self { node, loss, next })
    }
}

/// How processes of one node are told from others.
struct Place {
    /// Its network, which servers and shims are in.
    network: String,
    /// The cgroup of all its pods.
    cgroup: String,
}

impl Place {
    fn of(node: &str) -> Result<Self> {
        let file = Path::new("/run/netns").join(node);
        let inode = fs::metadata(&file).with_context(|| format!("failed to find {}", file.display()))?.ino();
        let folder = folder()?;
        let run = folder.file_name().context("the folder of the run has no name")?.display();
        Ok(Self { network: format!("net:[{inode}]"), cgroup: format!("/soloist-testbed-{run}/{node}/") })
    }

    fn holds(&self, process: &Process) -> bool {
        let network = fs::read_link(format!("/proc/{}/ns/net", process.pid)).unwrap_or_default();
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        network == Path::new(&self.network) || cgroups.contains(&self.cgroup)
    }
}

fn folder() -> Result<PathBuf> {
    std::env::var_os("TESTBED_DIR").map(PathBuf::from).context("TESTBED_DIR is not set")
}
