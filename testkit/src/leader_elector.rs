//! Members of soloist as leader-elector: processes that run nothing and tell over HTTP who leads.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::documents::root;
use crate::group::binary;
use crate::http::{Connection, Server};
use crate::kubeconfig;
use crate::process;
use crate::relay::Relay;
use crate::wait::{wait_for, wait_until};

/// The name of the election in tests.
pub const NAME: &str = "example";
/// The lease of its members.
pub const LEASE: Duration = Duration::from_secs(4);
/// The annotation that client-go elects by.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Longer than anything takes here that works.
const LIMIT: Duration = Duration::from_secs(40);

/// The binary under the other program's names, in a folder of its own.
#[derive(Debug)]
pub struct DropIn {
    folder: TempDir,
}

impl DropIn {
    /// Makes the links.
    pub fn new() -> Result<Self> {
        Self::of(&binary("soloist")?)
    }

    /// The same of another program.
    pub fn of(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        for name in ["leader-elector", "server"] {
            symlink(&program, folder.path().join(name)).context("failed to link")?;
        }
        Ok(Self { folder })
    }

    /// Where the links are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command line of a member that finds the API server by `kubeconfig`, or none.
    pub fn command(&self, called: &str, flags: &[&str], kubeconfig: Option<&Path>) -> Command {
        let mut command = Command::new(self.folder.path().join(called));
        command.args(flags).stdin(Stdio::null());
        for variable in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "POD_NAME"] {
            command.env_remove(variable);
        }
        command.envs(kubeconfig.map(|path| ("KUBECONFIG", path)));
        command
    }

    /// Starts a member that serves HTTP.
    pub fn start(&self, name: &str, flags: &[&str], kubeconfig: Option<&Path>) -> Result<Elector> {
        let id = format!("--id={name}");
        self.serve(name, self.command("leader-elector", &[&[&*id, "--http=127.0.0.1:0"], flags].concat(), kubeconfig))
    }

    /// The same of a program that does not say where it serves HTTP, and has to be told.
    pub fn start_mute(&self, name: &str, flags: &[&str], kubeconfig: Option<&Path>) -> Result<Elector> {
        // Free a moment ago: another one may be quicker, which its log says then.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (id, http) = (format!("--id={name}"), format!("--http={address}"));
        let mut elector =
            self.spawn(name, self.command("leader-elector", &[&[&*id, &http], flags].concat(), kubeconfig))?;
        elector.server = Server::at(&address);
        wait_until("it to serve", LIMIT, || elector.ask("/").is_ok()).with_context(|| elector.log())?;
        Ok(elector)
    }

    /// Starts what says in its log where it serves HTTP.
    fn serve(&self, name: &str, command: Command) -> Result<Elector> {
        let mut elector = self.spawn(name, command)?;
        let address = || Some(elector.log().split_once("serving http on ")?.1.split_once('\n')?.0.to_owned());
        let address = wait_for("it to serve", LIMIT, address).with_context(|| elector.log())?;
        elector.server = Server::at(&address);
        Ok(elector)
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<Elector> {
        let file = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        let (log, out) = (file("log"), file("out"));
        let child = command.stdout(File::create(&out)?).stderr(File::create(&log)?).spawn()?;
        Ok(Elector { name: name.to_owned(), child, log, out, server: Server::at("") })
    }
}

/// An election in a namespace of its own.
#[derive(Debug)]
pub struct Election {
    /// Its cluster.
    pub cluster: Cluster,
    /// Its namespace.
    pub namespace: String,
    /// The programs.
    pub dropin: DropIn,
    /// How members find the API server.
    pub kubeconfig: PathBuf,
    /// What the lock is in: `endpoints` or `lease`.
    pub kind: &'static str,
}

impl Election {
    /// Of which there is no object.
    pub fn new() -> Result<Self> {
        let cluster = Cluster::connect()?;
        let namespace = cluster.namespace()?;
        let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?);
        Ok(Self { cluster, namespace, dropin: DropIn::new()?, kubeconfig, kind: "endpoints" })
    }

    /// Free at first sight.
    pub fn free() -> Result<Self> {
        let election = Self::new()?;
        let metadata =
            json!({"name": NAME, "namespace": election.namespace, "annotations": {"soloist.dev/initial": "true"}});
        election.cluster.apply(&json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}))?;
        Ok(election)
    }

    /// The same over a Lease.
    pub fn free_lease() -> Result<Self> {
        let election = Self { kind: "lease", ..Self::new()? };
        election.cluster.initial_lease(&election.namespace, NAME)?;
        Ok(election)
    }

    /// Members may do `verbs` on endpoints from now on, and nothing else.
    pub fn restrict(&mut self, verbs: &[&str]) -> Result<()> {
        self.allow(&json!([{"apiGroups": [""], "resources": ["endpoints"], "verbs": verbs}]))
    }

    /// Members may do what `rules` say from now on, and nothing else.
    pub fn allow(&mut self, rules: &Value) -> Result<()> {
        let name = "member";
        self.cluster.grant(&self.namespace, name, rules)?;
        self.become_account(name)
    }

    /// Members may do what the example's objects allow them from now on, and nothing else.
    pub fn restrict_as_the_example(&mut self) -> Result<()> {
        let kubectl = self.cluster.client();
        for mut object in kubectl.objects(&root().join("examples/sidecar/leader-elector.yaml"))? {
            match object["kind"].as_str() {
                Some("ServiceAccount") => object["metadata"]["namespace"] = self.namespace.as_str().into(),
                Some("ClusterRoleBinding") => {
                    object["metadata"]["name"] = self.namespace.as_str().into();
                    object["subjects"][0]["namespace"] = self.namespace.as_str().into();
                }
                Some("ClusterRole") => {}
                _ => continue,
            }
            kubectl.apply(&object)?;
        }
        self.become_account("nginx-ha-serviceaccount")
    }

    fn become_account(&mut self, account: &str) -> Result<()> {
        self.kubeconfig = self.dropin.folder().join("config");
        let user = json!({"token": self.cluster.token(&self.namespace, account)?});
        kubeconfig::Server::of_testbed()?.write_kubeconfig(&self.kubeconfig, &user)
    }

    /// What is started from now on finds the API server behind a relay.
    pub fn relayed(&mut self) -> Result<Relay> {
        let relay = self.cluster.relay(true)?;
        self.kubeconfig = self.dropin.folder().join("relayed");
        relay.write_kubeconfig(&self.kubeconfig, &json!({}))?;
        Ok(relay)
    }

    /// Starts a member.
    pub fn start(&self, name: &str) -> Result<Elector> {
        let mut flags = self.flags();
        flags.push(format!("--lock-kind={}", self.kind));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.dropin.start(name, &flags, Some(&self.kubeconfig))
    }

    /// Starts a member of another program, with the flags that all of them know.
    pub fn start_mute(&self, name: &str) -> Result<Elector> {
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.dropin.start_mute(name, &flags, Some(&self.kubeconfig))
    }

    fn flags(&self) -> Vec<String> {
        vec![
            format!("--election={NAME}"),
            format!("--election-namespace={}", self.namespace),
            format!("--ttl={}s", LEASE.as_secs()),
        ]
    }

    /// Starts a member of the same election by `soloist sidecar`.
    pub fn start_sidecar(&self, name: &str, options: &[&str]) -> Result<Elector> {
        self.start_sidecar_as(name, options, &[])
    }

    /// The same with more in its environment.
    pub fn start_sidecar_as(&self, name: &str, options: &[&str], variables: &[(&str, String)]) -> Result<Elector> {
        let lease = format!("{}s", LEASE.as_secs());
        let mut command = Command::new(binary("soloist")?);
        command.args(["sidecar", "--lock", &self.lock_url(), "--name", name, "--lease", &lease]);
        command.args(["--http", "127.0.0.1:0", "--handover-on", "none"]).args(options).stdin(Stdio::null());
        command.env("KUBECONFIG", &self.kubeconfig).envs(variables.iter().map(|(name, value)| (name, value)));
        self.dropin.serve(name, command)
    }

    /// The first leads and the second follows.
    pub fn pair(&self) -> Result<[Elector; 2]> {
        let a = self.start("a")?;
        a.wait_named("a")?;
        let b = self.start("b")?;
        b.wait_named("a")?;
        Ok([a, b])
    }

    /// The object.
    pub fn object(&self) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", self.kind, NAME, "-n", &self.namespace, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What client-go reads.
    pub fn record(&self) -> Result<Value> {
        let object = self.object()?;
        let text = object["metadata"]["annotations"][LEADER].as_str().context("no annotation")?;
        Ok(serde_json::from_str(text)?)
    }

    /// How the verbs of soloist name the lock.
    pub fn lock_url(&self) -> String {
        let kind = if self.kind == "endpoints" { "endpoints/" } else { "" };
        format!("kubernetes://{}/{kind}{NAME}", self.namespace)
    }
}

/// One member; killed when this is dropped.
#[derive(Debug)]
pub struct Elector {
    name: String,
    child: Child,
    log: PathBuf,
    out: PathBuf,
    server: Server,
}

/// Waits until `next` says that it is the one; never may another one say so after that. How long that took.
pub fn taken_over(all: &[&Elector], next: &Elector, says: impl Fn(&Elector) -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    // Who has ended says nothing.
    let says = |one: &Elector| says(one).unwrap_or(false);
    wait_until(&format!("{} to be the one", next.name()), LIMIT, || says(next)).with_context(|| next.log())?;
    let took = began.elapsed();
    // What another one said before may have been true then.
    let others = all.iter().filter(|one| one.name() != next.name() && says(one));
    let others: Vec<&str> = others.map(|one| one.name()).collect();
    ensure!(others.is_empty(), "{others:?} say that they are the one beside {}", next.name());
    Ok(took)
}

impl Elector {
    /// Whom it is, as `--id` said.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    /// A connection to ask it over.
    pub fn connect(&self) -> Result<Connection> {
        self.server.connect()
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it wrote to standard output.
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// The body that it answers with.
    pub fn ask(&self, path: &str) -> Result<String> {
        let answer = self.server.get(path)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.body)
    }

    /// What it says on `/status`.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask("/status")?)?)
    }

    /// Whether it says on `/active` that it is active.
    pub fn is_active(&self) -> Result<bool> {
        let answer = self.server.get("/active")?;
        ensure!(matches!(answer.status, 200 | 503), "{answer:?}");
        Ok(answer.status == 200)
    }

    /// Whether it says that it leads itself.
    pub fn leads(&self) -> Result<bool> {
        Ok(self.ask("/isLeader")? == r#"{"isLeader": true}"#)
    }

    /// Whether it says that `name` leads.
    pub fn names(&self, name: &str) -> bool {
        self.ask("/").is_ok_and(|body| body == format!(r#"{{"name":"{name}"}}"#))
    }

    /// Waits until it says that `name` leads.
    pub fn wait_named(&self, name: &str) -> Result<()> {
        let what = format!("{} to name {name:?}", self.name);
        wait_until(&what, LIMIT, || self.names(name)).with_context(|| self.log())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid()?, signal)
    }

    /// Waits for its end, and returns its code; nothing where a signal ended it.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let child = &mut self.child;
        let status = wait_for("it to end", LIMIT, || child.try_wait().ok().flatten());
        Ok(status.with_context(|| fs::read_to_string(&self.log).unwrap_or_default())?.code())
    }

    /// Sends it away in peace.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let code = self.wait()?;
        ensure!(code == Some(0), "left with {code:?}: {}", self.log());
        Ok(())
    }
}

impl Drop for Elector {
    fn drop(&mut self) {
        // One that has ended is only to be reaped.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
