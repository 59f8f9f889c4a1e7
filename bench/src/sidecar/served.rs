//! Sidecars with a route and a real kube-proxy: from the leader's SIGTERM until the next one's application answers at the
//! address of the Service. The applications of both answer all the time, at the addresses that the slice names.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use testkit::answers::{Manner, Sampler};
use testkit::cluster::{Cluster, program};
use testkit::root;
use testkit::routed::address;
use testkit::wait::wait_until;

use super::routed::Routed;
use crate::report::Row;
use crate::steps::LIMIT;

/// What kube-proxy takes itself for.
const NODE: &str = "bench";

/// Between two updates of kube-proxy: what it waits by default, and next to nothing.
const PAUSES: [(Duration, &str); 2] = [
    (Duration::from_secs(1), "SIGTERM to traffic, kube-proxy 1 s"),
    (Duration::from_millis(1), "SIGTERM to traffic, kube-proxy 1 ms"),
];

/// A row for each pause, and what must never be.
pub fn measure(rounds: usize) -> Result<(Vec<Row>, Vec<String>)> {
    for name in ["a", "b"] {
        root::run(&["ip", "address", "replace", &format!("{}/32", address(name)), "dev", "lo"])?;
        answer(name)?;
    }
    let (mut rows, mut violations) = (Vec::new(), Vec::new());
    for (pause, name) in PAUSES {
        let mut served = Served::start(pause)?;
        let times: Result<Vec<u64>> = (0..rounds).map(|_| served.round()).collect();
        rows.push(Row::of_times(name, times?));
        violations.extend(served.routed.violations());
    }
    Ok((rows, violations))
}

/// Two sidecars, what sends traffic to their applications, and what asks.
struct Served {
    sampler: Sampler,
    routed: Routed,
    _proxy: KubeProxy,
}

impl Served {
    /// Starts them all.
    fn start(pause: Duration) -> Result<Self> {
        let routed = Routed::start()?;
        let service = routed.service()?;
        // What is sent there turns off before it leaves; but it must be said where to.
        root::run(&["ip", "route", "replace", &format!("{service}/32"), "dev", "lo"])?;
        let proxy = KubeProxy::start(pause)?;
        let sampler = Sampler::start_here(SocketAddr::new(service, 80), Manner::Line)?;
        sampler.wait("a", 0, LIMIT).with_context(|| proxy.log())?;
        Ok(Self { sampler, routed, _proxy: proxy })
    }

    /// Asks the one that is active to leave. Nanoseconds until the next one answers.
    fn round(&mut self) -> Result<u64> {
        let moved = self.routed.round()?;
        self.sampler.wait(&moved.to, moved.at, LIMIT)?;
        let turn = self.sampler.turn(&moved.to, moved.at).context("nobody answers")?;
        Ok(turn.begun - moved.at)
    }
}

/// An application of this name, until this process ends.
fn answer(name: &str) -> Result<()> {
    let place = format!("{}:8080", address(name));
    let listener = TcpListener::bind(&place).with_context(|| format!("failed to bind {place}"))?;
    let line = format!("{name}\n");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever has left meanwhile does not want to know.
            let _ = stream.write_all(line.as_bytes());
        }
    });
    Ok(())
}

/// Killed when this is dropped.
struct KubeProxy {
    child: Child,
    folder: TempDir,
}

impl KubeProxy {
    fn start(pause: Duration) -> Result<Self> {
        let cluster = Cluster::connect()?;
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}))?;
        let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}}).to_string();
        cluster.kubectl(&["patch", "node", NODE, "--subresource=status", "--type=merge", "-p", &addresses])?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = std::env::var("KUBECONFIG").context("no KUBECONFIG")?;
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig}, "hostnameOverride": NODE, "mode": "nftables",
            "conntrack": {"maxPerCore": 0},
            "nftables": {"minSyncPeriod": format!("{}ms", pause.as_millis())},
        });
        let file = folder.path().join("config.json");
        std::fs::write(&file, config.to_string())?;
        let log = File::create(log(folder.path()))?;
        let mut command = Command::new(program("kube-proxy")?);
        command.arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let proxy = Self { child: command.spawn().context("failed to start kube-proxy")?, folder };
        wait_until("kube-proxy", LIMIT, || proxy.log().contains("endpoint slice config\""))
            .with_context(|| proxy.log())?;
        Ok(proxy)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(log(self.folder.path())).unwrap_or_default()
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
