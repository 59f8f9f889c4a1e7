//! Every command that the documents show is run, or its target is looked up.

#![allow(clippy::expect_used, reason = "helpers of tests fail where they stand")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::group::binary;

const PATIENCE: Duration = Duration::from_secs(30);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The lines of all fenced blocks, with the document they stand in.
fn shown_lines() -> Vec<(String, String)> {
    let mut documents = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let folder = std::fs::read_dir(root().join("docs")).expect("docs");
    documents
        .extend(folder.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "md")));
    let mut lines = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("a document");
        let name = document.display().to_string();
        for block in text.split("\n```").skip(1).step_by(2) {
            lines.extend(block.lines().skip(1).map(|line| (name.clone(), line.trim().to_owned())));
        }
    }
    lines
}

fn commands(program: &str) -> Vec<(String, String)> {
    let prefix = format!("{program} ");
    shown_lines().into_iter().filter(|(_, line)| line.starts_with(&prefix)).collect()
}

fn shell(folder: &Path, line: &str) -> Command {
    let binaries = binary("soloist").expect("the binary").parent().expect("its folder").to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).current_dir(folder).env("PATH", path).stdin(Stdio::null());
    command
}

/// Runs a member until its workload runs or it ends, then asks it to leave.
fn run_for_a_moment(folder: &Path, line: &str) -> Output {
    let log = folder.join("stderr");
    let file = std::fs::File::create(&log).expect("a log");
    let mut member =
        shell(folder, &format!("exec {line}")).stdout(Stdio::null()).stderr(file).spawn().expect("a member");
    let limit = Instant::now() + PATIENCE;
    while member.try_wait().expect("a child").is_none() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(Instant::now() < limit, "{line}: {text}");
        if text.contains("the workload runs") {
            let pid = Pid::from_raw(member.id().cast_signed()).expect("a PID");
            let _ = kill_process(pid, Signal::TERM);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
        let local =
            line.replace("/srv/app", &format!("{here}/srv/app")).replace("--group backup", "--lock ./backup.lock");
        let output = run_for_a_moment(folder.path(), &local);
        let text = String::from_utf8_lossy(&output.stderr);
        if line.contains("--lease 1s") {
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

/// Starts a member and waits until `status` shows it.
fn standing(folder: &Path, name: &str) -> Standing {
    let line = format!("exec soloist run --lock ./app.lock --name {name} -- sleep 1000");
    let member = shell(folder, &line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a member");
    let member = Standing(member);
    let limit = Instant::now() + PATIENCE;
    loop {
        let status = shell(folder, "soloist status --lock ./app.lock --output json").output().expect("status");
        if String::from_utf8_lossy(&status.stdout).contains(&format!("\"name\": \"{name}\"")) {
            return member;
        }
        assert!(Instant::now() < limit, "{name} is not there: {status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_verb_of_the_documents_does_what_it_says() {
    let verbs = ["status", "history", "switchover", "pause", "resume", "failover"];
    let is_verb = |line: &str| verbs.iter().any(|verb| line.starts_with(&format!("soloist {verb} ")));
    let shown: Vec<_> = commands("soloist").into_iter().filter(|(_, line)| is_verb(line)).collect();
    assert!(shown.len() >= verbs.len(), "{shown:?}");
    let folder = tempfile::Builder::new().prefix("soloist-docs-").tempdir().expect("a folder");
    let _members = [standing(folder.path(), "a"), standing(folder.path(), "b")];
    for (document, line) in shown {
        let local = line.replace("/srv/app/app.lock", "./app.lock");
        let output = shell(folder.path(), &local).output().expect("a verb");
        let text = String::from_utf8_lossy(&output.stderr);
        // The holder of this test is alive.
        let expected = if line.starts_with("soloist failover") { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{document}: {line}: {text}");
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
        "cargo deny check",
        "lslocks ",
        "rm -rf app.lock",
        "export PATH=",
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
