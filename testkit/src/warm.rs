//! Members whose workload is a probe that is warm: told by SIGUSR1, and believed to be ready once it waits for that.

use std::fs;

use anyhow::{Context, Result};

use crate::group::Group;
use crate::member::{Member, Starter};
use crate::process::Process;
use crate::scenario::LIMIT;
use crate::wait::{wait_for, wait_until};

/// Options of such a member, and `more`.
pub fn options(group: &Group, more: &[&str]) -> Vec<String> {
    let check = format!("kill -0 \"$(cat {}/warm-$SOLOIST_MEMBER)\"", group.probe_dir().display());
    let own = ["--warm", "--notify", "signal:USR1", "--health-interval", "100ms", "--health-timeout", "100ms"];
    let own = own.into_iter().chain(["--health-exec", &check]).chain(more.iter().copied());
    own.map(str::to_owned).collect()
}

/// Starts such a member.
pub fn spawn(group: &Group, name: &str, more: &[&str], probe: &[&str]) -> Result<Member> {
    start(group, group.member(name).options(options(group, more)), probe)
}

/// Starts a member that has such options already.
pub fn start(group: &Group, member: Starter<'_>, probe: &[&str]) -> Result<Member> {
    let lock = group.lock().display().to_string();
    let probe: Vec<&str> = ["--warm", &lock].into_iter().chain(probe.iter().copied()).collect();
    member.probe(&probe)
}

/// The PID of a member's workload, once it said that it is warm and its member believes it.
pub fn wait_warm(group: &Group, member: &Member) -> Result<i32> {
    let path = group.probe_dir().join(format!("warm-{}", member.name()));
    let pid = || fs::read_to_string(&path).ok()?.parse().ok();
    let lives = || pid().filter(|pid| Process::read(*pid).is_some_and(|one| one.is_alive()));
    wait_until("its member to believe it", LIMIT, || lives().is_some() && is_believed(member))
        .with_context(|| member.log())?;
    wait_for(&format!("{} to be warm", member.name()), LIMIT, lives)
}

/// Whether the last that a member said of its health is good.
fn is_believed(member: &Member) -> bool {
    let log = member.own_log();
    let last = |text: &str| log.rfind(text);
    let Some(good) = last(" healthy: ") else { return false };
    [last("the standby workload is gone"), last("unhealthy: ")].into_iter().flatten().all(|bad| bad < good)
}
