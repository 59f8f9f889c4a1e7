//! `kubectl soloist`, by the real kubectl: names, namespaces and contexts are those of kubectl.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::cluster::Cluster;
use testkit::group::{Group, binary};
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::wait::wait_until;

/// kubectl with the plugin on its path, and a group of two on a Lease called `app`.
struct Scene {
    cluster: Cluster,
    folder: TempDir,
    namespace: String,
    _group: Group,
    _members: Vec<Member>,
}

impl Scene {
    fn new() -> Result<Self> {
        let cluster = Cluster::connect()?;
        let namespace = cluster.namespace()?;
        cluster.initial_lease(&namespace, "app")?;
        let folder = tempfile::tempdir()?;
        for name in ["kubectl-soloist", "kubectl_complete-soloist"] {
            symlink(binary("soloist")?, folder.path().join(name))?;
        }
        let mut group = Group::unhurried()?;
        group.set_lock_url(&format!("kubernetes://{namespace}/app"));
        let first = Member::spawn(&group, "a", &[], &[])?;
        first.wait_active(&group, LIMIT)?;
        let second = Member::spawn(&group, "b", &[], &[])?;
        let scene = Self { cluster, folder, namespace, _group: group, _members: vec![first, second] };
        wait_until("both to announce themselves", LIMIT, || {
            scene.status().is_ok_and(|status| status["members"].as_array().map_or(0, Vec::len) == 2)
        })?;
        Ok(scene)
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        self.kubectl(&[&["soloist"], words].concat())
    }

    fn kubectl(&self, words: &[&str]) -> Result<Output> {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH")?);
        let mut command = self.cluster.client().command();
        // What is set for other locks must not matter here.
        command.args(words).env("PATH", path).env("SOLOIST_LOCK", "/nowhere/x.lock");
        command.output().context("failed to run kubectl")
    }

    fn says(&self, words: &[&str], text: &str) -> Result<()> {
        let output = self.run(words)?;
        let out = String::from_utf8_lossy(&output.stdout);
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && out.contains(text), "{words:?}: {:?} {out}{message}", output.status);
        Ok(())
    }

    fn refuses(&self, words: &[&str], code: i32, text: &str) -> Result<()> {
        let output = self.run(words)?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(code) && message.contains(text),
            "{words:?}: {:?} {message}",
            output.status
        );
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        let output = self.run(&["status", "app", "-n", &self.namespace, "-o", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A kubeconfig of which one context is in the namespace of the group, and the other one leads to nobody.
    fn kubeconfig(&self) -> Result<String> {
        let own = std::env::var("KUBECONFIG").context("no KUBECONFIG")?;
        let path = self.folder.path().join("config");
        fs::copy(own, &path)?;
        let kubeconfig = path.display().to_string();
        let cluster = self.cluster.kubectl(&["config", "view", "-o", "jsonpath={.contexts[0].context.cluster}"])?;
        let user = self.cluster.kubectl(&["config", "view", "-o", "jsonpath={.contexts[0].context.user}"])?;
        for (name, namespace) in [("here", self.namespace.as_str()), ("elsewhere", "nowhere")] {
            self.cluster.kubectl(&[
                "--kubeconfig",
                &kubeconfig,
                "config",
                "set-context",
                name,
                "--cluster",
                &cluster,
                "--user",
                &user,
                "--namespace",
                namespace,
            ])?;
        }
        self.cluster.kubectl(&["--kubeconfig", &kubeconfig, "config", "use-context", "elsewhere"])?;
        Ok(kubeconfig)
    }
}

#[test]
fn a_lease_is_named_as_kubectl_names_it_and_every_verb_works() -> Result<()> {
    let scene = Scene::new()?;
    let here = scene.namespace.clone();
    scene.says(&["status", "app", "-n", &here], "a is active with token ")?;
    scene.says(&["status", "lease/app", "--namespace", &here], "a is active with token ")?;
    scene.says(&["list", "-n", &here], "app")?;
    scene.says(&["list", "-A"], &format!("kubernetes://{here}/app"))?;
    scene.says(&["explain", "--lease", "15s", "--lock", "kubernetes"], "to spare")?;
    let undo = format!("kubectl soloist switchover app -n {here} --to a");
    scene.says(&["switchover", "app", "-n", &here, "--to", "b"], &undo)?;
    scene.says(&["history", "app", "-n", &here], "switchover")?;
    scene.says(&["pause", "app", "-n", &here, "--for", "5m"], "paused until")?;
    scene.says(&["resume", "app", "-n", &here], "not paused")?;
    scene.refuses(&["failover", "app", "-n", &here, "--i-have-fenced"], 1, "is not fenced")?;
    scene.refuses(&["switchover", "app", "-n", &here, "--to", "zoe"], 1, "no member \"zoe\"")?;
    scene.refuses(&["status", "nothing", "-n", &here], 69, "there is no Lease \"nothing\"")?;
    scene.refuses(&["status", "pod/app"], 64, "is no name of a Lease")?;
    scene.refuses(&["run", "--", "true"], 64, "run")
}

#[test]
fn kubectl_completes_verbs_flags_and_the_names_of_groups() -> Result<()> {
    let scene = Scene::new()?;
    let here = scene.namespace.clone();
    let completed = |words: &[&str]| -> Result<Vec<String>> {
        let output = scene.kubectl(&[&["__complete", "soloist"], words].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
    };
    assert_eq!(completed(&["sw"])?, ["switchover", ":4"]);
    // Whoever types is not kept waiting for a cluster that is slow.
    let offered = || completed(&["status", "-n", &here, ""]).is_ok_and(|words| words == ["app", ":4"]);
    wait_until("the name of the Lease to be offered", LIMIT, offered)?;
    assert_eq!(completed(&["status", "-n", &here, "x"])?, [":4"]);
    assert_eq!(completed(&["status", "app", "--wat"])?, ["--watch", ":4"]);
    assert_eq!(completed(&["status", "-n", "nowhere", ""])?, [":4"], "nothing goes wrong on a command line");
    Ok(())
}

#[test]
fn the_namespace_is_that_of_the_context_unless_another_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let kubeconfig = scene.kubeconfig()?;
    let config = ["--kubeconfig", kubeconfig.as_str()];
    let with = |words: &[&str]| -> Vec<String> { words.iter().chain(&config).map(|word| (*word).to_owned()).collect() };
    let says = |words: &[&str], text: &str| {
        let words = with(words);
        scene.says(&words.iter().map(String::as_str).collect::<Vec<_>>(), text)
    };
    says(&["status", "app", "--context", "here"], "a is active with token ")?;
    says(&["list", "--context", "here"], "app")?;
    says(&["list"], "no group in")?;
    says(&["status", "app", "-n", &scene.namespace], "a is active with token ")?;
    let words = with(&["status", "app"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    scene.refuses(&words, 69, "in namespace \"nowhere\"")?;
    scene.refuses(&["status", "app", "--context", "none"], 78, "none")
}

/// What an expired login looks like to kubectl's users: one sentence, and which file it is about.
#[test]
fn expired_credentials_are_one_sentence() -> Result<()> {
    let scene = Scene::new()?;
    let path = scene.folder.path().join("expired");
    testkit::kubeconfig::Server::of_testbed()?.write_kubeconfig(&path, &json!({"token": "expired"}))?;
    let refused = |kubeconfig: &Path, code, text: &str| {
        let kubeconfig = kubeconfig.display().to_string();
        let words = ["status", "app", "-n", &scene.namespace, "--kubeconfig", &kubeconfig];
        scene.refuses(&words, code, text)
    };
    refused(&path, 77, "the API server does not accept the credentials")?;
    let program = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false",
        "interactiveMode": "Never"}});
    testkit::kubeconfig::Server::of_testbed()?.write_kubeconfig(&path, &program)?;
    refused(&path, 78, "the credentials")
}
