//! Every command that the documents show is run, or its target is looked up.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::documents::{self, root, shown_lines};
use testkit::group::binary;
use testkit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the documents show of `program`, other than what needs a cluster or Consul.
fn commands(program: &str) -> Vec<(String, String)> {
    let is_local = |line: &str| {
        !documents::needs_a_cluster(line) && !documents::needs_consul(line) && !documents::asks_a_controller(line)
    };
    documents::commands(program).into_iter().filter(|(_, line)| is_local(line)).collect()
}

fn shell(folder: &Path, line: &str) -> Command {
    let binaries = binary("soloist").expect("the binary").parent().expect("its folder").to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    command
}

/// The line with the files of HTTP in a folder of the test.
fn at_home(here: &str, line: &str) -> String {
    std::fs::write(format!("{here}/token"), "secret").expect("a token");
    line.replace("/etc/soloist/token", &format!("{here}/token")).replace("/run/app.sock", &format!("{here}/app.sock"))
}

/// Runs a member until its workload runs or it ends, then asks it to leave.
fn run_for_a_moment(folder: &Path, line: &str) -> Output {
    let log = folder.join("stderr");
    let file = std::fs::File::create(&log).expect("a log");
    let mut member =
        shell(folder, &format!("exec {line}")).stdout(Stdio::null()).stderr(file).spawn().expect("a member");
    let pid = Pid::from_raw(member.id().cast_signed()).expect("a PID");
    let has_ended = || {
        if std::fs::read_to_string(&log).is_ok_and(|text| text.contains("the workload runs")) {
            let _ = kill_process(pid, Signal::TERM);
        }
        member.try_wait().expect("a child").is_some()
    };
    wait_until(&format!("{line} to end"), PATIENCE, has_ended).expect("its end");
    let status = member.wait().expect("a child");
    Output { status, stdout: Vec::new(), stderr: std::fs::read(&log).unwrap_or_default() }
}

#[test]
fn every_member_of_the_documents_becomes_active() {
    let shown = commands("soloist");
    let runnable: Vec<_> =
        shown.iter().filter(|(_, line)| line.starts_with("soloist run") && !line.contains('[')).collect();
    assert!(runnable.len() >= 5, "{shown:?}");
    for (document, line) in runnable {
        let folder = tempfile::Builder::new().prefix("soloist-docs-").tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("srv/app")).expect("a folder");
        let here = folder.path().display().to_string();
        let local = at_home(&here, line).replace("127.0.0.1:9090", "127.0.0.1:0");
        let local =
            local.replace("/srv/app", &format!("{here}/srv/app")).replace("--group backup", "--lock ./backup.lock");
        let output = run_for_a_moment(folder.path(), &local);
        let text = String::from_utf8_lossy(&output.stderr);
        // Here it is not the first process of a container; as such it runs in the tests with pods.
        if line.contains("--lease 1s") || line.contains("--via") {
            assert_eq!(output.status.code(), Some(78), "{document} shows a refusal: {text}");
            continue;
        }
        assert!(text.contains("active with token"), "{document}: {line}: {text}");
        assert!(matches!(output.status.code(), Some(0 | 143)), "{document}: {line}: {:?} {text}", output.status);
    }
}

/// A member that runs until it is dropped.
struct Standing(std::process::Child);

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// What goes on until it is ended leaves in order when it is.
fn for_a_moment(line: &str) -> String {
    format!("timeout --preserve-status --signal=TERM 3 {line}")
}

/// Starts a member and waits until `status` shows it.
fn standing(folder: &Path, name: &str, options: &str) -> Standing {
    let line = format!("exec soloist run --lock ./app.lock --name {name} {options} -- sleep 1000");
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).expect("a log");
    let member = shell(folder, &line).stdout(Stdio::null()).stderr(log).spawn().expect("a member");
    let member = Standing(member);
    let is_there = || {
        let status = shell(folder, "soloist status --lock ./app.lock --output json").output().expect("status");
        // Nobody is active yet where it announced itself before its workload ran.
        let is_led = status.status.success();
        is_led && String::from_utf8_lossy(&status.stdout).contains(&format!("\"name\": \"{name}\""))
    };
    wait_until(&format!("{name} to be there"), PATIENCE, is_there).expect("a member");
    member
}

#[test]
fn every_verb_of_the_documents_does_what_it_says() {
    let verbs = ["status", "list", "doctor", "history", "switchover", "pause", "resume", "failover"];
    let is_verb = |line: &str| verbs.iter().any(|verb| line.starts_with(&format!("soloist {verb} ")));
    let shown: Vec<_> = commands("soloist").into_iter().filter(|(_, line)| is_verb(line)).collect();
    assert!(shown.len() >= verbs.len(), "{shown:?}");
    let mut of = String::new();
    let mut folder = tempfile::tempdir().expect("a folder");
    let mut members = Vec::new();
    for (document, line) in shown {
        // Each document begins with one member more than are active.
        if document != of {
            members.clear();
            folder = tempfile::Builder::new().prefix("soloist-docs-").tempdir().expect("a folder");
            let (names, options): (&[&str], _) =
                if document.ends_with("slots.md") { (&["a", "b", "c"], "--active 2") } else { (&["a", "b"], "") };
            members = names.iter().map(|name| standing(folder.path(), name, options)).collect();
            of = document.clone();
        }
        let local = line.replace("/srv/app/app.lock", "./app.lock").replace("./x.lock", "./app.lock");
        let local = local.replace("list /srv/app", "list .");
        let local = if line.contains("--watch") { for_a_moment(&local) } else { local };
        let run = || shell(folder.path(), &local).output().expect("a verb");
        if line.starts_with("soloist doctor") {
            // It has something to say of a machine that is late.
            wait_until(&line, PATIENCE, || run().status.success()).expect("no problem");
            continue;
        }
        let output = run();
        // The holder of this test is alive.
        let expected = if line.starts_with("soloist failover") { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{document}: {line}: {output:?}");
    }
}

#[test]
fn every_explanation_of_the_documents_is_given() {
    let shown: Vec<_> =
        commands("soloist").into_iter().filter(|(_, line)| line.starts_with("soloist explain")).collect();
    assert!(shown.len() >= 2, "{shown:?}");
    for (document, line) in shown {
        let folder = tempfile::tempdir().expect("a folder");
        let output = shell(folder.path(), &line).output().expect("a verb");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("to spare"), "{document}: {line}: {output:?}");
    }
}

/// Two members, of which the active one serves HTTP at `address`, and knows of the other.
fn serving(folder: &Path, address: &str) -> [Standing; 2] {
    let options = format!("--http {address} --http-token-file ./token");
    let members = [standing(folder, "a", &options), standing(folder, "b", "")];
    let knows = "knows of 2";
    let is_known = || {
        let line = format!("{} | grep -q '^soloist_members 2$' && echo {knows}", ask(folder, address, "/metrics"));
        let output = shell(folder, &line).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).contains(knows)
    };
    wait_until("b to be known", PATIENCE, is_known).expect("two members");
    members
}

fn ask(folder: &Path, address: &str, path: &str) -> String {
    match address.strip_prefix("unix:") {
        Some(socket) => format!("curl -s --unix-socket {socket} http://localhost{path}"),
        None => format!("curl -s http://{}{path}", port(folder)),
    }
}

/// Where the member says that it serves.
fn port(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("a.log")).unwrap_or_default();
    let address = log.lines().find_map(|line| line.split_once("serving http on ")).map(|(_, address)| address.trim());
    address.unwrap_or("127.0.0.1:1").to_owned()
}

#[test]
fn every_question_and_request_of_the_documents_is_answered() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("there is no curl: nothing was tried");
        return;
    }
    let shown = commands("curl");
    for (is_unix, least) in [(false, 9), (true, 2)] {
        let lines: Vec<_> = shown.iter().filter(|(_, line)| line.contains("--unix-socket") == is_unix).collect();
        assert!(lines.len() >= least, "{shown:?}");
        let folder = tempfile::Builder::new().prefix("soloist-docs-").tempdir().expect("a folder");
        let here = folder.path().display().to_string();
        std::fs::write(folder.path().join("token"), "secret").expect("a token");
        let address = if is_unix { format!("unix:{here}/app.sock") } else { "127.0.0.1:0".to_owned() };
        let _members = serving(folder.path(), &address);
        for (document, line) in lines {
            let local = at_home(&here, line).replace("127.0.0.1:9090", &port(folder.path()));
            let listens = line.contains("/events");
            let time_s = if listens { 2 } else { 20 };
            let output = shell(folder.path(), &format!("{local} --fail --max-time {time_s}")).output().expect("curl");
            let text = String::from_utf8_lossy(&output.stdout);
            // Who listens is cut off by curl itself.
            let expected = if listens { 28 } else { 0 };
            assert_eq!(output.status.code(), Some(expected), "{document}: {line}: {text}");
            assert!(!listens || text.contains("event: status"), "{document}: {line}: {text}");
        }
    }
}

#[test]
fn every_demo_of_the_documents_runs_clean() {
    let shown: Vec<_> = commands("cargo").into_iter().filter(|(_, line)| line.contains(" -- demo")).collect();
    assert!(shown.len() >= 2, "{shown:?}");
    for (document, line) in shown {
        let arguments = line.split(" -- demo").nth(1).unwrap_or_default();
        let rounds = if arguments.contains("--rounds") { "" } else { " --rounds 1" };
        let folder = tempfile::tempdir().expect("a folder");
        let output = shell(folder.path(), &format!("soloist demo{arguments}{rounds}")).output().expect("the demo");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{document}: {line}: {text}");
    }
}

#[test]
fn every_make_target_of_the_documents_exists() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let shown = commands("make");
    assert!(shown.len() >= 2, "{shown:?}");
    for (document, line) in shown {
        let target = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(makefile.contains(&format!("\n{target}:")), "{document}: {line}");
    }
}

#[test]
fn no_document_shows_a_command_that_nothing_tests() {
    // What remains is run by the Makefile, or needs no test of ours.
    let known = [
        "soloist ",
        "make ",
        "cargo run --release -- demo",
        "cargo build --release",
        "cargo run --example leader",
        "cargo deny check",
        "lslocks ",
        "rm -rf app.lock",
        "export PATH=",
        "curl -s",
        // On two nodes, in nodes_docs.rs.
        "kubectl ",
    ];
    let programs =
        ["soloist", "make", "cargo", "lslocks", "rm", "export", "kubectl", "curl", "docker", "kill", "apt-get"];
    for (document, line) in shown_lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if programs.contains(&first) {
            assert!(known.iter().any(|known| line.starts_with(known)), "{document}: {line}");
        }
    }
}
