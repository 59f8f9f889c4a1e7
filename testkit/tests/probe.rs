//! The probe alone, without soloist: each mode does what it says, or no test that uses it would prove anything.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testkit::process::{self, Process};
use testkit::stamp::{Identity, Slot, read_page};
use testkit::wait::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// A probe with the variables that soloist would give it.
struct Probe {
    folder: TempDir,
    child: Child,
}

impl Probe {
    fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("slots"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        command.arg("--dir").arg(folder.path()).args(["--pace-us", "100"]).args(arguments);
        command.env("SOLOIST_FENCING_TOKEN", "7").env("SOLOIST_ACTIVATION", "0000000000000000000000000000abcd");
        command.env("SOLOIST_MEMBER", "a").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { folder, child })
    }

    fn slot(&self, label: &str) -> Result<Slot> {
        let page = self.folder.path().join("slots");
        wait_for(&format!("the slot {label}"), LIMIT, || read_page(&page).into_iter().find(|slot| slot.label == label))
    }

    fn process(&self, label: &str) -> Result<Process> {
        let pid = i32::try_from(self.slot(label)?.pid)?;
        Process::read(pid).with_context(|| format!("{label} {pid} is gone"))
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let folder = self.folder.path().display().to_string();
        process::kill_all(|process| process.mentions(&folder));
        let _ = self.child.wait();
    }
}

#[test]
fn the_command_stamps_what_it_was_told() -> Result<()> {
    let probe = Probe::start(&[])?;
    let first = probe.slot("main")?;
    assert_eq!(first.identity, Identity { token: 7, activation: 0xabcd, member: "a".to_owned() });
    assert_eq!(first.pid, probe.child.id());
    wait_until("a hundred stamps", LIMIT, || probe.slot("main").is_ok_and(|slot| slot.stamps > 100))
}

#[test]
fn setsid_starts_a_session() -> Result<()> {
    let probe = Probe::start(&["--mode", "setsid"])?;
    let child = probe.process("setsid")?;
    assert_eq!(child.group, child.pid);
    assert_eq!(child.parent, i32::try_from(probe.child.id())?);
    Ok(())
}

#[test]
fn double_fork_loses_its_parent() -> Result<()> {
    let probe = Probe::start(&["--mode", "double-fork+setsid"])?;
    let child = probe.process("double-fork+setsid")?;
    assert_ne!(child.parent, i32::try_from(probe.child.id())?);
    assert_eq!(child.group, child.pid);
    Ok(())
}

#[test]
fn close_fds_lets_go_of_what_was_inherited() -> Result<()> {
    // A descriptor without close-on-exec, as soloist hands its lock down.
    let inherited = tempfile::NamedTempFile::new()?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("slots"))?;
    let redirect = format!(r#"exec 9<"{}"; exec "$0" "$@""#, inherited.path().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &redirect, env!("CARGO_BIN_EXE_probe"), "--pace-us", "100", "--dir"]).arg(folder.path());
    shell.args(["--mode", "setsid", "--mode", "close-fds"]);
    shell.env("SOLOIST_FENCING_TOKEN", "1").env("SOLOIST_ACTIVATION", "1").env("SOLOIST_MEMBER", "a");
    let probe = Probe { child: shell.spawn()?, folder };
    assert!(probe.process("setsid")?.has_open(inherited.path()));
    assert!(!probe.process("close-fds")?.has_open(inherited.path()));
    Ok(())
}

#[test]
fn scrub_env_leaves_no_trace_of_soloist() -> Result<()> {
    let probe = Probe::start(&["--mode", "setsid", "--mode", "scrub-env+double-fork"])?;
    assert!(probe.process("setsid")?.carries("SOLOIST_MEMBER=a"));
    assert!(!probe.process("scrub-env+double-fork")?.carries("SOLOIST_MEMBER=a"));
    assert_eq!(probe.slot("scrub-env+double-fork")?.identity.token, 7);
    Ok(())
}

#[test]
fn ignore_term_survives_it() -> Result<()> {
    let probe = Probe::start(&["--mode", "ignore-term"])?;
    let before = probe.slot("main")?.stamps;
    let pid = i32::try_from(probe.child.id())?;
    wait_until("SIGTERM to be blocked", LIMIT, || {
        Process::read(pid).and_then(|process| process.status("SigBlk")).is_some_and(|mask| mask != "0000000000000000")
    })?;
    process::signal(pid, rustix::process::Signal::TERM)?;
    wait_until("more stamps", LIMIT, || probe.slot("main").is_ok_and(|slot| slot.stamps > before + 100))
}

#[test]
fn a_fork_storm_keeps_starting_and_leaves_few_files() -> Result<()> {
    let probe = Probe::start(&["--mode", "fork-storm=2"])?;
    let page = probe.folder.path().join("slots");
    for label in ["storm0", "storm1"] {
        let first = probe.slot(label)?;
        wait_until("the next child", LIMIT, || {
            let later = probe.slot(label);
            later.is_ok_and(|later| later.stamps > first.stamps + 50 && later.first == first.first)
        })?;
    }
    assert_eq!(read_page(&page).len(), 4, "command, storm, two shared slots");
    Ok(())
}

#[test]
fn the_command_ends_when_and_how_it_is_told() -> Result<()> {
    let began = Instant::now();
    let mut probe = Probe::start(&["--mode", "exit-after=50", "--code", "7"])?;
    assert_eq!(probe.child.wait()?.code(), Some(7));
    ensure!(began.elapsed() >= Duration::from_millis(50), "lived for {:?}", began.elapsed());
    ensure!(probe.slot("main")?.stamps > 0, "it never stamped");
    let mut probe = Probe::start(&[])?;
    fs::write(probe.folder.path().join("exit-7"), "5")?;
    assert_eq!(probe.child.wait()?.code(), Some(5));
    Ok(())
}

#[test]
fn a_daemon_outlives_its_command() -> Result<()> {
    let mut probe = Probe::start(&["--mode", "daemon"])?;
    assert!(probe.child.wait()?.success());
    let before = probe.slot("setsid")?.stamps;
    wait_until("more stamps", LIMIT, || probe.slot("setsid").is_ok_and(|slot| slot.stamps > before + 10))
}

#[test]
fn it_allocates_echoes_and_notes() -> Result<()> {
    let mut modes = vec!["--mode", "note-signals", "--mode", "stdin-echo", "--mode", "allocate=64"];
    modes.extend(["--mode", "d-state=/dev/null", "--mode", "write-log"]);
    let mut probe = Probe::start(&modes)?;
    let command = probe.process("main")?;
    std::io::Write::write_all(&mut probe.child.stdin.take().context("no stdin")?, b"hello\n")?;
    wait_until("stdin to be copied", LIMIT, || probe.file("stdin") == "hello\n")?;
    process::signal(command.pid, rustix::process::Signal::USR1)?;
    wait_until("the signal to be noted", LIMIT, || probe.file("signals") == "SIGUSR1\n")?;
    wait_until("64 MiB to be touched", LIMIT, || {
        let resident = command.status("VmRSS").and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
        resident.is_some_and(|kibibytes| kibibytes > 64 << 10)
    })?;
    probe.slot("write").map(drop)
}

#[test]
fn a_missing_page_is_an_error() -> Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.arg("--dir").arg(Path::new("/nowhere")).env("SOLOIST_FENCING_TOKEN", "1").stderr(Stdio::null());
    assert!(!command.status()?.success());
    Ok(())
}

#[test]
fn it_tells_whoever_connects_which_member_it_belongs_to() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let _probe = Probe::start(&["--mode", &format!("answer={port}")])?;
    let ask = || {
        let mut answer = String::new();
        TcpStream::connect(("127.0.0.1", port)).ok()?.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    for _ in 0..2 {
        let answer = wait_for("an answer", LIMIT, ask)?;
        ensure!(answer == "a\n", "{answer:?}");
    }
    Ok(())
}
