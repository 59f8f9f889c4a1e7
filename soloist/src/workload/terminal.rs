//! The controlling terminal: the workload has it while it runs.

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgid, tcgetpgrp, tcsetpgrp};

/// Remembers whose the terminal was.
#[derive(Debug)]
pub(super) struct Terminal {
    home: Pid,
}

impl Terminal {
    /// The terminal on stdin, if the process group of `elector` has it now.
    pub(super) fn of(elector: i32) -> Option<Self> {
        let home = getpgid(Some(Pid::from_raw(elector))).ok()?;
        (tcgetpgrp(io::stdin().as_fd()).ok()? == home).then_some(Self { home })
    }

    /// Makes the workload's group the foreground group.
    pub(super) fn lend(&self, group: i32) {
        set_foreground(Pid::from_raw(group));
    }

    /// Takes the terminal back, unless somebody else has it by now.
    pub(super) fn restore(&self, group: i32) {
        let Ok(now) = tcgetpgrp(io::stdin().as_fd()) else { return };
        let is_dead = nix::sys::signal::killpg(now, None) == Err(nix::Error::ESRCH);
        if now.as_raw() == group || is_dead {
            set_foreground(self.home);
        }
    }
}

/// A background process that does this is stopped by SIGTTOU, unless the signal is blocked.
fn set_foreground(group: Pid) {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let Ok(before) = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
    let _ = tcsetpgrp(io::stdin().as_fd(), group);
    let _ = before.thread_set_mask();
}
