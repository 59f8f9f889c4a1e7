//! Operators of another user than the members, and a holder that dies without a proof, which takes a user who may write
//! no cgroup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use testkit::ends::End;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process;
use testkit::root::{NOBODY, as_nobody, need_root};
use testkit::scenario::{LIMIT, check};
use testkit::wait::wait_until;

/// Two members of a user who may write no cgroup; the first is active, and they know each other.
fn two() -> Result<(Group, Vec<Member>, Span)> {
    let mut group = Group::new()?;
    group.give_to(NOBODY)?;
    let spawn = |name: &str| group.member(name).wrapper(as_nobody()).probe::<&str>(&[]);
    let first = spawn("a")?;
    let active = first.wait_active(&group, LIMIT)?;
    let second = spawn("b")?;
    second.wait_standby(LIMIT)?;
    let both = || status(&group).is_ok_and(|status| status["members"].as_array().is_some_and(|all| all.len() == 2));
    wait_until("both to announce themselves", LIMIT, both)?;
    Ok((group, vec![first, second], active))
}

fn run(group: &Group, wrapper: &[String], verb: &str, options: &[&str]) -> Result<Output> {
    let mut words: Vec<String> = wrapper.to_vec();
    words.extend([group.binary("soloist")?.display().to_string(), verb.to_owned()]);
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).arg("--lock").arg(group.lock()).args(options);
    command.output().context("failed to run soloist")
}

fn status(group: &Group) -> Result<serde_json::Value> {
    let output = run(group, &[], "status", &["--output", "json"])?;
    serde_json::from_slice(&output.stdout).context("not JSON")
}

#[test]
fn a_holder_that_died_in_a_pause_is_replaced_on_the_operators_word() -> Result<()> {
    need_root()?;
    let (group, members, active) = two()?;
    let paused = run(&group, &[], "pause", &["--for", "1h"])?;
    ensure!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    End::KeepersKilled.apply(&group, &members[0], &active)?;
    for pid in members[0].workload_pids(&active) {
        // The standby sweeps at the same time.
        let _ = process::signal(pid, Signal::KILL);
    }
    wait_until("all of a to end", LIMIT, || members[0].processes().is_empty())?;
    assert_eq!(status(&group)?["holder"], "a", "nothing proves that it is gone, and the pause lasts");

    let done = run(&group, &[], "failover", &["--i-have-fenced"])?;
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stderr), group.logs());
    ensure!(text.starts_with("b is active with token ") && text.contains("vouched  root@"), "{text}");
    members[1].wait_active(&group, LIMIT)?;
    let vouches = |log: String| log.contains("an operator fenced a") && log.contains("vouches");
    wait_until("b to say who vouches", LIMIT, || vouches(members[1].log())).with_context(|| members[1].log())?;
    let history = run(&group, &[], "history", &[])?;
    ensure!(String::from_utf8_lossy(&history.stdout).contains("an operator fenced a"), "{history:?}");
    check(&group, 2, &active)
}

#[test]
fn whoever_may_not_write_beside_the_lock_may_look_but_not_ask() -> Result<()> {
    need_root()?;
    let (group, _members, _active) = two()?;
    fs::set_permissions(group.folder(), fs::Permissions::from_mode(0o755))?;
    let other = ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--"].map(str::to_owned);
    let looked = run(&group, &other, "status", &[])?;
    ensure!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    let asked = run(&group, &other, "switchover", &[])?;
    let message = String::from_utf8_lossy(&asked.stderr);
    ensure!(asked.status.code() == Some(77) && message.contains("request"), "{:?}: {message}", asked.status);
    Ok(())
}
