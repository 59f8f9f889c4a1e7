//! Ends an elector between any two of its system calls, as a panic or a lack of memory would: between two of them,
//! nobody else can tell how far it has come.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::group::Group;
use crate::history::Span;
use crate::member::Member;
use crate::scenario::{LIMIT, check_stamped};
use crate::wait::wait_for;

/// Of three members the first is told to leave, and the elector of the second is killed before its system call of this
/// number; the third must be active then, and never two. Whether the second came as far as to start its workload.
pub fn killed_before(number: usize, group: &Group, members: &[Member], active: &Span) -> Result<bool> {
    let [first, second, third] = members else { bail!("three members, not {}", members.len()) };
    kill_before(second.elector_pid()?, number, || first.signal(rustix::process::Signal::TERM))?;
    let told = || format!("killed before system call {number}\n{}{}", group.history(), group.logs());
    let next = third.wait_active(group, LIMIT).with_context(told)?;
    ensure!(next.token > active.token, "{}", told());
    // The workload of the second one may have ended with it before it has stamped twice.
    check_stamped(group, 2, active, 1).with_context(told)?;
    Ok(group.history().spans.iter().any(|span| span.member == second.name()))
}

/// Kills a process before its main thread's system call of this number, counted from `begin`.
fn kill_before(pid: i32, number: usize, begin: impl FnOnce() -> Result<()>) -> Result<()> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).context("failed to trace the elector")?;
    ptrace::interrupt(pid)?;
    stopped(pid)?;
    begin()?;
    let (mut entered, mut is_inside, mut signal) = (0, false, None);
    while entered < number {
        ptrace::syscall(pid, signal.take()).context("failed to let the elector go on")?;
        match stopped(pid)? {
            WaitStatus::PtraceSyscall(_) => {
                is_inside = !is_inside;
                entered += usize::from(is_inside);
            }
            WaitStatus::Stopped(_, told) => signal = Some(told),
            WaitStatus::PtraceEvent(..) => {}
            other => bail!("the elector has ended by itself: {other:?}"),
        }
    }
    nix::sys::signal::kill(pid, Signal::SIGKILL).context("failed to kill the elector")
}

/// Waits until the traced process stops.
fn stopped(pid: Pid) -> Result<WaitStatus> {
    let look = || match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
        Ok(WaitStatus::StillAlive) => None,
        other => Some(other),
    };
    wait_for("the next system call", LIMIT, look)?.context("failed to wait for the elector")
}
