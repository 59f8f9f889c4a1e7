//! Called as k8s-await-election on a real API server: the lock, the command, the traffic.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::group::{Group, MARK, binary};
use testkit::history::Span;
use testkit::kubeconfig::Server;
use testkit::kubectl::Kubectl;
use testkit::process;
use testkit::wait::{wait_for, wait_until, within};

/// Longer than anything takes here that works.
const LIMIT: Duration = Duration::from_secs(60);
/// The lease of these members.
const LEASE: Duration = Duration::from_secs(4);
/// Beyond a few writes to the API server, on busy processors.
const HANDOVER_MAX: Duration = Duration::from_millis(1500);

fn client() -> Result<Kubectl> {
    Kubectl::find("TESTBED_API", "no real API server is there: run this by make cluster")
}

/// Runs kubectl, which must succeed; what it printed.
fn kubectl(arguments: &[&str], input: Option<&Value>) -> Result<String> {
    client()?.run_with(arguments, &input.map(ToString::to_string).unwrap_or_default())
}

/// One lock, one Service, some members.
struct Site {
    name: String,
    group: Group,
    kubeconfig: PathBuf,
}

impl Site {
    fn new(name: &str) -> Result<Self> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]}});
        kubectl(&["create", "-f", "-"], Some(&service))?;
        let group = Group::new()?;
        symlink(binary("soloist")?, group.folder().join("k8s-await-election"))?;
        let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").context("no KUBECONFIG")?);
        Ok(Self { name: name.to_owned(), group, kubeconfig })
    }

    /// Free at first sight.
    fn with_free_lease(name: &str) -> Result<Self> {
        let site = Self::new(name)?;
        client()?.initial_lease("default", name)?;
        Ok(site)
    }

    /// Members may do from now on what `rules` say, and nothing else.
    fn restrict(&mut self, rules: &Value) -> Result<()> {
        let kubectl = client()?;
        kubectl.grant("default", &self.name, rules)?;
        self.kubeconfig = self.group.folder().join("config");
        let user = json!({"token": kubectl.token("default", &self.name)?});
        Server::of_testbed()?.write_kubeconfig(&self.kubeconfig, &user)
    }

    /// The command line of a member; without `address` it has no Service.
    fn member(&self, name: &str, address: Option<&str>) -> Command {
        let mut command = Command::new(self.group.folder().join("k8s-await-election"));
        let variables = [
            ("ENABLED", "1"),
            ("NAME", "test"),
            ("LOCK_NAME", &self.name),
            ("LOCK_NAMESPACE", "default"),
            ("IDENTITY", name),
            ("LEASE_DURATION", "4"),
            ("RENEW_DEADLINE", "3"),
            ("RETRY_PERIOD", "1"),
        ];
        let service = [
            ("SERVICE_NAME", self.name.as_str()),
            ("SERVICE_NAMESPACE", "default"),
            ("SERVICE_PORTS_JSON", r#"[{"name":"http","port":8080}]"#),
            ("POD_IP", address.unwrap_or_default()),
            ("NODE_NAME", "node1"),
        ];
        for (name, value) in variables.into_iter().chain(service.into_iter().filter(|_| address.is_some())) {
            command.env(format!("K8S_AWAIT_ELECTION_{name}"), value);
        }
        command.env("KUBECONFIG", &self.kubeconfig).env(MARK, self.group.folder());
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    fn start(&self, name: &str, mut command: Command) -> Result<Member> {
        let folder = self.group.folder();
        let (log, out) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.out")));
        // What is there to be read must not reach the command.
        command.stdin(fs::File::open("/proc/version")?);
        let child = command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&log)?).spawn()?;
        Ok(Member { name: name.to_owned(), child, log, out })
    }

    fn run(&self, name: &str, address: Option<&str>, words: &[&str]) -> Result<Member> {
        let mut command = self.member(name, address);
        command.args(words);
        self.start(name, command)
    }

    fn probe(&self, name: &str, address: Option<&str>) -> Result<Member> {
        let mut command = self.member(name, address);
        command.arg(self.group.binary("probe")?).arg("--dir").arg(self.group.probe_dir()).args(["--pace-us", "100"]);
        self.start(name, command)
    }

    fn wait_active(&self, member: &Member) -> Result<Span> {
        let own = || self.group.active().filter(|span| span.member == member.name);
        let what = format!("{} to be active", member.name);
        wait_for(&what, LIMIT, own).with_context(|| self.group.logs())
    }

    fn endpoints(&self) -> Result<Value> {
        let text = kubectl(&["get", "endpoints", &self.name, "-o", "json"], None)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The addresses that get traffic.
    fn traffic(&self) -> Result<Vec<String>> {
        let endpoints = self.endpoints()?;
        let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
        let addresses = subsets.iter().flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default());
        Ok(addresses.filter_map(|address| address["ip"].as_str().map(str::to_owned)).collect())
    }

    fn patch_lease(&self, patch: &Value) -> Result<()> {
        kubectl(&["patch", "lease", &self.name, "--type=merge", "-p", &patch.to_string()], None).map(drop)
    }
}

struct Member {
    name: String,
    child: Child,
    log: PathBuf,
    out: PathBuf,
}

impl Member {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_log(&self, text: &str) -> Result<()> {
        let has = || self.log().contains(text);
        wait_until(&format!("{text:?} in the log of {}", self.name), LIMIT, has).with_context(|| self.log())
    }

    fn terminate(&self) -> Result<()> {
        process::signal(i32::try_from(self.child.id())?, rustix::process::Signal::TERM)
    }

    fn wait_exit(&mut self) -> Result<Option<i32>> {
        let child = &mut self.child;
        let ended = || child.try_wait().ok().flatten();
        let status = wait_for("the end of a member", LIMIT, ended).with_context(|| self.log())?;
        Ok(status.code())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[test]
fn sigterm_hands_over_and_traffic_follows() -> Result<()> {
    let site = Site::with_free_lease("handover")?;
    let mut a = site.probe("a", Some("10.0.0.1"))?;
    let first = site.wait_active(&a)?;
    ensure!(site.traffic()? == ["10.0.0.1"], "{}", site.endpoints()?);
    let port = free_port()?;
    let mut b = site.member("b", Some("10.0.0.2"));
    b.env("K8S_AWAIT_ELECTION_STATUS_ENDPOINT", format!(":{port}"));
    b.arg(site.group.binary("probe")?).arg("--dir").arg(site.group.probe_dir()).args(["--pace-us", "100"]);
    let b = site.start("b", b)?;
    b.wait_log("long live our new leader: 'a'!")?;
    for request in ["GET /a HTTP/1.1\r\n", "POST / HTTP/1.1\r\ncontent-length: 0\r\n"] {
        let answer = ask(port, &format!("{request}host: x\r\nconnection: close\r\n\r\n"))?;
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n{\"status\": \"ok\"}"), "{answer}");
    }

    a.terminate()?;
    ensure!(a.wait_exit()? == Some(1), "the command died by the signal: {}", a.log());
    let second = site.wait_active(&b)?;
    let gap = Duration::from_nanos(second.first.saturating_sub(first.last));
    within("b to be active", gap, HANDOVER_MAX)?;
    ensure!(site.traffic()? == ["10.0.0.2"], "{}", site.endpoints()?);
    b.wait_log("long live our new leader: 'b'!")?;
    b.wait_log("msg=\"the workload runs\"")?;
    site.group.check(2, 1)?;
    let log = b.log();
    let at = |text: &str| log.find(text).with_context(|| format!("{text} is not in {log}"));
    ensure!(at("is published: 10.0.0.2")? < at("msg=\"the workload runs\"")?, "{log}");
    at("starting command '")?;
    Ok(())
}

/// So many handovers by SIGTERM; the longest and the median gap.
fn hand_over(site: &Site, times: usize, addresses: [Option<&str>; 2]) -> Result<()> {
    let mut active = site.probe("m0", addresses[0])?;
    site.wait_active(&active)?;
    for turn in 1..=times {
        let next = site.probe(&format!("m{turn}"), addresses[turn % 2])?;
        next.wait_log("long live our new leader")?;
        active.terminate()?;
        active.wait_exit()?;
        site.wait_active(&next)?;
        active = next;
    }
    let history = site.group.history();
    history.check(times + 1, 1)?;
    let mut gaps: Vec<Duration> = history.gaps().iter().map(|gap| gap.length).collect();
    gaps.sort();
    println!("{}: n={times}, median {:?}, longest {:?}", site.name, gaps[times / 2], gaps[times - 1]);
    Ok(())
}

#[test]
fn handovers_with_and_without_traffic_never_overlap() -> Result<()> {
    hand_over(&Site::with_free_lease("without-service")?, 10, [None, None])?;
    hand_over(&Site::with_free_lease("with-service")?, 10, [Some("10.0.0.1"), Some("10.0.0.2")])
}

#[test]
fn exit_codes_and_messages_are_those_of_old() -> Result<()> {
    let site = Site::with_free_lease("codes")?;
    let mut done =
        site.run("done", Some("10.0.0.1"), &["sh", "-c", "cat; echo \"$K8S_AWAIT_ELECTION_NAME\"; exit 0"])?;
    ensure!(done.wait_exit()? == Some(0), "{}", done.log());
    ensure!(fs::read_to_string(&done.out)? == "test\n", "standard input is not passed on, the environment is");
    ensure!(done.log().contains("starting command 'sh' with arguments: '[-c cat; echo"), "{}", done.log());
    ensure!(done.log().contains("msg=\"no status endpoint specified, will not be created\""), "{}", done.log());
    ensure!(site.traffic()?.is_empty(), "withdrawn: {}", site.endpoints()?);

    let before = Instant::now();
    let mut failed = site.run("failed", None, &["sh", "-c", "exit 3"])?;
    ensure!(failed.wait_exit()? == Some(1), "{}", failed.log());
    ensure!(failed.log().ends_with("level=fatal msg=\"failed to run\" err=\"exit status 3\"\n"), "{}", failed.log());
    let mut killed = site.run("killed", None, &["sh", "-c", "kill -9 $$"])?;
    ensure!(killed.wait_exit()? == Some(1), "{}", killed.log());
    ensure!(killed.log().ends_with("msg=\"failed to run\" err=\"signal: killed\"\n"), "{}", killed.log());
    within("three that each release", before.elapsed(), LEASE)
}

#[test]
fn a_standby_that_is_sent_away_leaves_with_0() -> Result<()> {
    let site = Site::with_free_lease("standby")?;
    let a = site.run("a", None, &["sleep", "1000"])?;
    a.wait_log("the workload runs")?;
    let mut b = site.run("b", None, &["sleep", "1000"])?;
    b.wait_log("long live our new leader: 'a'!")?;
    b.terminate()?;
    ensure!(b.wait_exit()? == Some(0), "{}", b.log());
    ensure!(!b.log().contains("fatal"), "{}", b.log());
    Ok(())
}

#[test]
fn the_whole_tree_ends_when_the_lease_is_lost() -> Result<()> {
    let site = Site::with_free_lease("lost")?;
    let mut a = site.run("a", Some("10.0.0.1"), &["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])?;
    a.wait_log("the workload runs")?;
    let sleepers = || {
        let mark = format!("{MARK}={}", site.group.folder().display());
        let all = process::all().into_iter();
        all.filter(|process| process.is_alive() && process.name == "sleep" && process.carries(&mark)).count()
    };
    wait_until("both", LIMIT, || sleepers() == 2)?;
    site.patch_lease(&json!({"spec": {"holderIdentity": "mallory"}}))?;
    ensure!(a.wait_exit()? == Some(1), "{}", a.log());
    ensure!(sleepers() == 0, "somebody is left");
    let log = a.log();
    ensure!(log.contains("msg=\"lost leader status\""), "{log}");
    ensure!(log.contains("level=fatal msg=\"failed to run\" err=\"the lease was lost"), "{log}");
    ensure!(site.traffic()?.is_empty(), "withdrawn: {}", site.endpoints()?);
    Ok(())
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

#[test]
fn the_old_role_will_do_and_the_missing_rule_is_named_once() -> Result<()> {
    let mut site = Site::new("oldrole")?;
    let verbs = ["get", "create", "update"];
    site.restrict(&json!([rule("coordination.k8s.io", "leases", &verbs), rule("", "endpoints", &verbs)]))?;
    let began = Instant::now();
    // Absent, so created and waited for.
    let mut a = site.probe("a", Some("10.0.0.1"))?;
    let first = site.wait_active(&a)?;
    ensure!(began.elapsed() >= LEASE, "absence costs a lease: {:?}", began.elapsed());
    let b = site.probe("b", Some("10.0.0.2"))?;
    b.wait_log("long live our new leader: 'a'!")?;
    a.terminate()?;
    a.wait_exit()?;
    let second = site.wait_active(&b)?;
    let gap = Duration::from_nanos(second.first.saturating_sub(first.last));
    println!("gap without watch: {gap:?}");
    within("one that looks each retry period", gap, LEASE)?;
    ensure!(site.traffic()? == ["10.0.0.2"], "{}", site.endpoints()?);
    for member in [&a, &b] {
        let log = member.log();
        ensure!(log.matches("must not be watched").count() == 1, "{log}");
        ensure!(log.contains("verb watch on leases"), "{log}");
    }
    Ok(())
}

#[test]
fn endpoints_that_may_not_be_written_end_it_before_the_command_starts() -> Result<()> {
    let mut site = Site::with_free_lease("forbidden")?;
    let verbs = ["get", "create", "update", "watch"];
    site.restrict(&json!([rule("coordination.k8s.io", "leases", &verbs)]))?;
    let mut a = site.run("a", Some("10.0.0.1"), &["echo", "started"])?;
    ensure!(a.wait_exit()? == Some(1), "{}", a.log());
    ensure!(fs::read_to_string(&a.out)?.is_empty(), "it was started");
    ensure!(a.log().contains("missing: verb get on endpoints"), "{}", a.log());
    let began = Instant::now();
    let mut b = site.run("b", None, &["true"])?;
    ensure!(b.wait_exit()? == Some(0), "{}", b.log());
    within("one after a that has released", began.elapsed(), LEASE)
}

#[test]
fn an_older_active_never_overwrites_a_newer_one() -> Result<()> {
    let site = Site::with_free_lease("older")?;
    let newer = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": site.name, "annotations": {"soloist.dev/token": "999999999999"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.9"}]}]});
    kubectl(&["create", "-f", "-"], Some(&newer))?;
    let mut a = site.run("a", Some("10.0.0.1"), &["echo", "started"])?;
    ensure!(a.wait_exit()? == Some(1), "{}", a.log());
    ensure!(a.log().contains("which is newer than"), "{}", a.log());
    ensure!(fs::read_to_string(&a.out)?.is_empty() && site.traffic()? == ["10.0.0.9"], "{}", site.endpoints()?);
    Ok(())
}

#[test]
fn endpoints_of_the_other_program_are_taken_over_with_all_that_is_not_ours() -> Result<()> {
    let site = Site::with_free_lease("takeover")?;
    let old = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": site.name, "labels": {"a": "b"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.8", "nodeName": "x"}], "ports": [{"port": 1}]}]});
    kubectl(&["create", "-f", "-"], Some(&old))?;
    let mut member = site.member("a", Some("fd00::7"));
    member.env("K8S_AWAIT_ELECTION_SERVICE_PORTS_JSON", "[]").env("K8S_AWAIT_ELECTION_NODE_NAME", "");
    member.args(["sleep", "1000"]);
    let mut a = site.start("a", member)?;
    a.wait_log("the workload runs")?;
    let endpoints = site.endpoints()?;
    ensure!(endpoints["metadata"]["labels"] == json!({"a": "b"}), "{endpoints}");
    ensure!(endpoints["subsets"] == json!([{"addresses": [{"ip": "fd00::7"}]}]), "{endpoints}");

    // What somebody else has written meanwhile is not withdrawn.
    let annotation = format!("{}-", "soloist.dev/token");
    kubectl(&["annotate", "endpoints", &site.name, &annotation], None)?;
    a.terminate()?;
    a.wait_exit()?;
    ensure!(site.traffic()? == ["fd00::7"], "{}", site.endpoints()?);
    Ok(())
}

#[test]
fn a_lease_that_the_other_program_left_costs_three_leases_once() -> Result<()> {
    for (name, spec) in [
        (
            "released",
            json!({"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 3,
            "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z"}),
        ),
        (
            "expired",
            json!({"holderIdentity": "old-pod", "leaseDurationSeconds": 4, "leaseTransitions": 3,
            "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z"}),
        ),
    ] {
        let site = Site::new(&format!("leftover-{name}"))?;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": site.name}, "spec": spec});
        kubectl(&["create", "-f", "-"], Some(&lease))?;
        let began = Instant::now();
        let mut a = site.run("a", None, &["true"])?;
        ensure!(a.wait_exit()? == Some(0), "{}", a.log());
        let took = began.elapsed();
        println!("{name}: {took:?}");
        ensure!(took >= LEASE * 3, "{name}: {took:?}\n{}", a.log());
        within(&format!("{name}: three leases"), took, LEASE * 4).with_context(|| a.log())?;
        let began = Instant::now();
        let mut again = site.run("again", None, &["true"])?;
        ensure!(again.wait_exit()? == Some(0), "{}", again.log());
        within("one that need not wait any more", began.elapsed(), LEASE)?;
    }
    Ok(())
}

/// Runs `script` where the files of a service account are, as in a pod, and nowhere else.
fn in_a_pod(site: &Site, member: Command) -> Result<Command> {
    let config: Value = serde_json::from_slice(&fs::read(&site.kubeconfig)?)?;
    let folder = site.group.folder().join("account");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("token"), config["users"][0]["user"]["token"].as_str().context("no token")?)?;
    fs::write(folder.join("namespace"), "default")?;
    let Server { url, authority } = Server::of_testbed()?;
    fs::copy(authority, folder.join("ca.crt"))?;
    let (host, port) = url.trim_start_matches("https://").rsplit_once(':').context("no port")?;
    let script = "set -e; mount -t tmpfs none /run; mkdir -p /run/secrets/kubernetes.io; \
         cp -r \"$1\" /run/secrets/kubernetes.io/serviceaccount; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "pod"]).arg(&folder).arg(member.get_program()).args(member.get_args());
    for (name, value) in member.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // Which is for the command, and nothing to go by.
    command.env("KUBECONFIG", "/does/not/exist");
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    Ok(command)
}

#[test]
fn in_a_pod_its_own_credentials_count_whatever_kubeconfig_says() -> Result<()> {
    if !Path::new("/var/run").is_symlink() {
        bail!("/var/run is not a link to /run here, and the test cannot give a process an account of its own");
    }
    let mut site = Site::with_free_lease("inpod")?;
    let verbs = ["get", "update", "watch"];
    site.restrict(&json!([rule("coordination.k8s.io", "leases", &verbs)]))?;
    let mut member = site.member("a", None);
    member.args(["sh", "-c", "echo \"$KUBECONFIG\""]);
    let mut a = site.start("a", in_a_pod(&site, member)?)?;
    ensure!(a.wait_exit()? == Some(0), "{}", a.log());
    ensure!(fs::read_to_string(&a.out)? == "/does/not/exist\n");
    Ok(())
}
