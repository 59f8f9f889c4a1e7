//! The ways in which an active member ends.

use std::fmt;

use anyhow::Result;
use rustix::process::Signal;

use crate::group::Group;
use crate::history::Span;
use crate::member::Member;
use crate::process;
use crate::stamp;

/// One way in which an active member ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The workload crashes: SIGABRT (a SIGSEGV from outside does not end a Rust program, whose runtime handles it).
    WorkloadCrash,
    /// The workload is done: exit code 0.
    WorkloadDone,
    /// The workload gives up: exit code 3.
    WorkloadFailed,
    /// Somebody kills the workload: SIGKILL.
    WorkloadKilled,
    /// The member is asked to stop.
    Term,
    /// The elector is killed.
    ElectorKilled,
    /// The guard is killed.
    GuardKilled,
    /// Elector and guard are killed at the same instant: neither can do anything about the other.
    KeepersKilled,
    /// The elector hangs.
    ElectorStopped,
    /// The guard hangs.
    GuardStopped,
}

impl End {
    /// All of them.
    pub const ALL: [End; 10] = [
        End::WorkloadCrash,
        End::WorkloadDone,
        End::WorkloadFailed,
        End::WorkloadKilled,
        End::Term,
        End::ElectorKilled,
        End::GuardKilled,
        End::KeepersKilled,
        End::ElectorStopped,
        End::GuardStopped,
    ];

    /// Ends the active `member` in this way; returns the instant just before, in nanoseconds of CLOCK_BOOTTIME.
    pub fn apply(self, group: &Group, member: &Member, active: &Span) -> Result<u64> {
        // Everything is looked up first: looking takes milliseconds.
        let (elector, guard) = (member.elector_pid()?, member.guard_pid()?);
        let command = member.command_pid(active)?;
        let now = stamp::now();
        match self {
            End::WorkloadCrash => process::signal(command, Signal::ABORT)?,
            End::WorkloadDone => group.end_workload(active, 0)?,
            End::WorkloadFailed => group.end_workload(active, 3)?,
            End::WorkloadKilled => process::signal(command, Signal::KILL)?,
            End::Term => process::signal(elector, Signal::TERM)?,
            End::ElectorKilled => process::signal(elector, Signal::KILL)?,
            End::GuardKilled => process::signal(guard, Signal::KILL)?,
            End::ElectorStopped => process::signal(elector, Signal::STOP)?,
            End::GuardStopped => process::signal(guard, Signal::STOP)?,
            End::KeepersKilled => {
                // Stopped first, so that neither sees the other die; and the guard dies first, because the kernel
                // continues a stopped process group (SIGHUP, SIGCONT) when the death of a parent orphans it.
                for signal in [Signal::STOP, Signal::KILL] {
                    process::signal(guard, signal)?;
                    process::signal(elector, signal)?;
                }
            }
        }
        Ok(now)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            End::WorkloadCrash => "workload crashes",
            End::WorkloadDone => "workload exits 0",
            End::WorkloadFailed => "workload exits 3",
            End::WorkloadKilled => "workload killed",
            End::Term => "member SIGTERM",
            End::ElectorKilled => "elector killed",
            End::GuardKilled => "guard killed",
            End::KeepersKilled => "both killed",
            End::ElectorStopped => "elector stopped",
            End::GuardStopped => "guard stopped",
        })
    }
}
