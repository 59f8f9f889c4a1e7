//! At a terminal a member is what its workload would be: Ctrl-C ends it, Ctrl-Z does not leave it hanging, and what is
//! typed reaches the workload.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process::Process;
use testkit::scenario::{LIMIT, check};
use testkit::terminal::Terminal;
use testkit::wait::wait_until;

/// A member with a terminal of its own, as a login shell would start it.
fn at_terminal(group: &Group, probe: &[&str]) -> Result<(Member, Terminal, Span)> {
    let (terminal, side) = Terminal::open(80, 24)?;
    let starter = group.member("a").wrapper(["setsid", "--ctty"]);
    let starter = starter.stdin(side.try_clone()?.into()).stdout(side.try_clone()?.into());
    let member = starter.stderr(side.into()).probe(probe)?;
    let active = member.wait_active(group, LIMIT)?;
    Ok((member, terminal, active))
}

#[test]
fn ctrl_c_ends_workload_and_member_with_130() -> Result<()> {
    let group = Group::unhurried()?;
    let (mut member, mut terminal, active) = at_terminal(&group, &["--mode", "setsid"])?;
    let next = Member::spawn(&group, "b", &[], &[])?;
    next.wait_standby(LIMIT)?;
    terminal.type_in("\x03")?;
    assert_eq!(member.wait_exit_code(LIMIT)?, 130);
    next.wait_active(&group, LIMIT)?;
    check(&group, 2, &active)
}

#[test]
fn ctrl_z_does_not_suspend_it_for_good() -> Result<()> {
    let group = Group::unhurried()?;
    let (member, mut terminal, active) = at_terminal(&group, &[])?;
    terminal.type_in("\x1a")?;
    wait_until("Ctrl-Z at the terminal", LIMIT, || terminal.shows("^Z"))?;
    let stamps = || group.history().spans.first().map_or(0, |span| span.slots.iter().map(|slot| slot.stamps).sum());
    let before: u64 = stamps();
    wait_until("the workload to go on", LIMIT, || stamps() > before + 1000)?;
    let elector = Process::read(member.elector_pid()?).context("the elector is gone")?;
    assert_ne!(elector.state, 'T');
    let tokens: Vec<_> = group.history().spans.iter().map(|span| span.token).collect();
    assert_eq!(tokens, [active.token], "it must not have cost the activation");
    Ok(())
}

#[test]
fn what_is_typed_reaches_the_workload() -> Result<()> {
    let group = Group::unhurried()?;
    let (_member, mut terminal, _) = at_terminal(&group, &["--mode", "stdin-echo"])?;
    terminal.type_in("hello\n")?;
    let stdin = group.probe_dir().join("stdin");
    wait_until("a line at the workload", LIMIT, || fs::read(&stdin).is_ok_and(|bytes| bytes == b"hello\n"))
}

#[test]
fn the_workload_owns_the_terminal() -> Result<()> {
    let group = Group::unhurried()?;
    let (member, _terminal, active) = at_terminal(&group, &[])?;
    let command = Process::read(member.command_pid(&active)?).context("the command is gone")?;
    assert_eq!(command.group, command.foreground, "in the foreground");
    assert_eq!(command.group, command.pid, "in a group of its own");
    Ok(())
}

#[test]
fn a_pipe_reaches_the_workload_and_its_end_too() -> Result<()> {
    let group = Group::unhurried()?;
    let mut member = group.member("a").stdin(std::process::Stdio::piped()).run(&["cat"])?;
    let mut stdin = member.stdin().context("no stdin")?;
    stdin.write_all(b"through\n")?;
    drop(stdin);
    assert_eq!(member.wait_exit_code(LIMIT)?, 0);
    assert_eq!(fs::read(group.folder().join("a.out"))?, b"through\n");
    Ok(())
}
