//! `soloist status --watch` shows each change as it comes: drawn in its place on a terminal, a line each elsewhere.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group::Group;
use testkit::member::Member;
use testkit::process::{self, Process};
use testkit::scenario::{LIMIT, start};
use testkit::terminal::Terminal;
use testkit::wait::wait_until;

fn command(group: &Group, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(group.binary("soloist")?);
    command.args(words).arg("--lock").arg(group.lock());
    Ok(command)
}

/// A watch at a pipe, and the lines that come.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn new(group: &Group, words: &[&str]) -> Result<Self> {
        let mut command = command(group, &[&["status", "--watch"], words].concat())?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (told, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
        });
        Ok(Self { child, lines })
    }

    /// The next line that fits.
    fn next(&self, fits: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            let line = self
                .lines
                .recv_timeout(LIMIT)
                .with_context(|| format!("waited {LIMIT:?} in vain for more to be told"))?;
            if fits(&line) {
                return Ok(line);
            }
        }
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        process::signal(self.child.id().try_into()?, signal)?;
        ensure!(self.child.wait()?.code() == Some(0), "{signal:?}");
        Ok(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two members, of which the first is active and has renewed the lock many times.
fn two(group: &Group) -> Result<Vec<Member>> {
    let (members, _) = start(group, &["a", "b"], &[], &[])?;
    wait_until("both to announce themselves", LIMIT, || {
        let output = command(group, &["status", "-o", "json"]).and_then(|mut command| Ok(command.output()?));
        let status: Option<Value> = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        status.is_some_and(|status| status["members"].as_array().map_or(0, Vec::len) == 2)
    })?;
    Ok(members)
}

fn hand_over(group: &Group) -> Result<()> {
    let output = command(group, &["switchover"])?.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn each_change_is_a_line_and_renewals_are_none() -> Result<()> {
    let group = Group::unhurried()?;
    let _members = two(&group)?;
    let mut people = Watching::new(&group, &[])?;
    let mut programs = Watching::new(&group, &["-o", "json"])?;
    let first = people.next(|_| true)?;
    ensure!(first.contains("Z  a is active with token "), "{first}");
    let first: Value = serde_json::from_str(&programs.next(|_| true)?)?;
    assert_eq!((&first["schema"], &first["holder"]), (&1.into(), &"a".into()));
    // Several renewals long: none of them is told.
    let quiet = people.lines.recv_timeout(std::time::Duration::from_secs(2));
    ensure!(quiet.is_err(), "{quiet:?}");

    hand_over(&group)?;
    people.next(|line| line.contains("  b is active with token "))?;
    programs.next(|line| serde_json::from_str::<Value>(line).is_ok_and(|status| status["holder"] == "b"))?;
    people.end(Signal::TERM)?;
    programs.end(Signal::INT)
}

/// A verb at a terminal of its own.
fn at_terminal(group: &Group, words: &[&str], side: OwnedFd) -> Result<Child> {
    let inner = command(group, words)?;
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    command.stdin(side.try_clone()?).stdout(side.try_clone()?).stderr(side);
    command.spawn().context("failed to run setsid")
}

#[test]
fn a_terminal_is_drawn_anew_until_q_and_left_as_it_was() -> Result<()> {
    let group = Group::unhurried()?;
    let _members = two(&group)?;
    for end in ["q", "\x03"] {
        let (mut terminal, side) = Terminal::open(80, 24)?;
        let mut child = at_terminal(&group, &["status", "-w"], side.try_clone()?)?;
        wait_until("the active one to be shown", LIMIT, || terminal.shows(" is active with token "))?;
        let shown = terminal.shown();
        ensure!(shown.starts_with("\x1b[?1049h") && !shown.contains("\x1b[?1049l"), "{shown:?}");
        let before = shown.matches(" is active with token ").count();
        wait_until("it to be drawn anew", LIMIT, || {
            terminal.shown().matches(" is active with token ").count() > before
        })?;
        terminal.type_in(end)?;
        assert_eq!(child.wait()?.code(), Some(0), "{end:?}: {:?}", terminal.shown());
        wait_until("the first screen again", LIMIT, || terminal.shows("\x1b[?25h\x1b[?1049l"))?;
        let modes = rustix::termios::tcgetattr(&side)?.local_modes;
        ensure!(modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO), "{modes:?}");
    }
    Ok(())
}

#[test]
fn suspended_it_gives_the_terminal_back_and_takes_it_again() -> Result<()> {
    let group = Group::unhurried()?;
    let _members = two(&group)?;
    let (mut terminal, side) = Terminal::open(80, 24)?;
    let mut child = at_terminal(&group, &["status", "-w"], side)?;
    wait_until("the active one to be shown", LIMIT, || terminal.shows(" is active with token "))?;
    // setsid has become it: who is started here leads no group yet.
    let inner = i32::try_from(child.id())?;
    terminal.type_in("\x1a")?;
    wait_until("it to stop", LIMIT, || Process::read(inner).is_some_and(|process| process.state == 'T'))?;
    wait_until("the first screen", LIMIT, || terminal.shows("\x1b[?1049l"))?;
    process::signal(inner, Signal::CONT)?;
    wait_until("the other screen again", LIMIT, || terminal.shown().matches("\x1b[?1049h").count() == 2)?;
    terminal.type_in("q")?;
    assert_eq!(child.wait()?.code(), Some(0), "{}", terminal.shown());
    Ok(())
}

#[test]
fn a_terminal_that_is_too_narrow_gets_all_of_it_all_the_same() -> Result<()> {
    let group = Group::unhurried()?;
    let _members = two(&group)?;
    let folder = group.folder().display().to_string();
    for columns in [1, 7, 20, 45] {
        for verb in [&["status"][..], &["history"]] {
            let (terminal, side) = Terminal::open(columns, 10)?;
            let mut child = at_terminal(&group, verb, side)?;
            assert_eq!(child.wait()?.code(), Some(0), "{verb:?} {columns}: {}", terminal.shown());
            wait_until("the name of the active one", LIMIT, || terminal.shows("a"))?;
        }
        let (terminal, side) = Terminal::open(columns, 10)?;
        let mut child = Command::new(group.binary("soloist")?)
            .args(["list", &folder])
            .stdin(Stdio::null())
            .stdout(side.try_clone()?)
            .stderr(side)
            .spawn()?;
        assert_eq!(child.wait()?.code(), Some(0), "{columns}: {}", terminal.shown());
        wait_until("the group", LIMIT, || terminal.shows("app"))?;
        let (mut terminal, side) = Terminal::open(columns, 3)?;
        let mut child = at_terminal(&group, &["status", "--watch"], side)?;
        wait_until("something", LIMIT, || terminal.shows("\x1b[J"))?;
        terminal.type_in("q")?;
        assert_eq!(child.wait()?.code(), Some(0), "{columns}: {}", terminal.shown());
    }
    Ok(())
}

#[test]
fn a_lock_that_is_not_there_is_69_with_watch_too() -> Result<()> {
    let group = Group::unhurried()?;
    let output = command(&group, &["status", "--watch"])?.stdin(Stdio::null()).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(69) && message.contains("there is no lock at"), "{message}");
    Ok(())
}
