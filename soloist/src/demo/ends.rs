//! What happens to the active member in each round.

use std::fmt;

use serde::Serialize;

/// One way to end the active member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// SIGTERM to the member, as an orchestrator does.
    Term,
    /// The workload crashes.
    Crash,
    /// SIGKILL to the elector.
    ElectorKilled,
    /// SIGKILL to the guard.
    GuardKilled,
    /// SIGSTOP to the elector: it hangs.
    ElectorStopped,
}

impl End {
    const ALL: [End; 5] = [End::Term, End::Crash, End::ElectorKilled, End::GuardKilled, End::ElectorStopped];

    /// Each in turn.
    pub(super) fn of_round(number: u32) -> Self {
        let count = u32::try_from(Self::ALL.len()).unwrap_or(u32::MAX);
        let index = usize::try_from(number % count).unwrap_or(0);
        Self::ALL[index]
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            End::Term => "SIGTERM to the member",
            End::Crash => "crash of the workload",
            End::ElectorKilled => "SIGKILL of the elector",
            End::GuardKilled => "SIGKILL of the guard",
            End::ElectorStopped => "SIGSTOP of the elector",
        })
    }
}
