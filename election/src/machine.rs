//! The machine: one member's part of the protocol.
//!
//! ```text
//!               release, or the lease ran out           confirmed by the store
//!    Standby ----------------------------> Acquiring ------------------------> Active
//!       ^  ^                                   |                                 |
//!       |  +------- somebody else was first ---+                                 | stop, loss, end of the workload
//!       |                                                                        v
//!       +------------------- proof, then release (or the role was lost) ----- Stopping
//! ```
//!
//! Each state is a file; what outlives a state is in [`Core`]. States consume themselves and return the next one.

mod acquiring;
mod active;
mod core;
mod standby;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::clock::Instant;
use crate::io::{Action, Exit, Input, Output, RefusalKind, Request, Role, Vigil};
use crate::record::{Activation, Member, Nonce, Token};
use crate::timing::Timing;

use acquiring::Acquiring;
use active::Active;
pub use active::GRACE_IN_A_HURRY;
use core::Core;
pub use standby::FOREIGN_FACTOR;
use standby::Standby;

/// Fresh randomness. Asked once for each send, so that clones of a process (a copied virtual machine) diverge.
pub trait Entropy {
    /// 64 random bits.
    fn bits(&mut self) -> u64;
}

/// What an absent lock means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// Nobody was ever active: free at first sight. Only where the platform's own lock proves it.
    Free,
    /// Programs that share this lock delete it when they let go: free at first sight, unless it named a member of ours
    /// when it was seen last. Members of ours leave a release.
    FreeUnlessHeld,
    /// Somebody may have deleted it: costs a whole lease.
    CostsALease,
}

/// What a member does when its workload's command ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnExit {
    /// Release and leave with the workload's code.
    Exit,
    /// Release in favour of itself and start anew, as a new activation.
    Restart,
    /// Release and stand by.
    Standby,
}

/// What a member does after it lost the role without wanting to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// Contend again.
    Standby,
    /// Leave.
    Exit,
}

/// What a machine is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The member's name.
    pub name: String,
    /// All durations.
    pub timing: Timing,
    /// How long the workload gets on a planned stop.
    pub stop_grace: Duration,
    /// What an absent lock means.
    pub absence: Absence,
    /// Whether a lease may be as long as a pause: not where others time the lock by what the store promises them.
    pub can_pause: bool,
    /// How many members of the group may be active at a time, each with a lock of its own.
    pub slots: u32,
    /// After the workload's own end.
    pub on_exit: OnExit,
    /// After a loss.
    pub on_loss: OnLoss,
    /// Whether it may be active before the first [`Input::Health`].
    pub healthy: bool,
}

/// One member's part of the protocol. Pure: what it knows of time and store comes in through [`Machine::step`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine<E> {
    core: Core<E>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Standby(Standby),
    Acquiring(Acquiring),
    Active(Active),
    Ended,
}

impl<E: Entropy> Machine<E> {
    /// A member that has not looked at the lock yet. Its first outputs come from the first [`Machine::step`].
    pub fn new(settings: Settings, mut entropy: E) -> Self {
        let nonce = Nonce(u128::from(entropy.bits()) << 64 | u128::from(entropy.bits()));
        Self::with_nonce(settings, nonce, entropy)
    }

    /// One of several machines of one process, which have their nonce in common.
    pub(crate) fn with_nonce(settings: Settings, nonce: Nonce, entropy: E) -> Self {
        Self { core: Core::new(settings, nonce, entropy), state: State::Standby(Standby::default()) }
    }

    /// Takes one input at `now` and returns what to do, in order.
    ///
    /// `now` must not go backwards. Every [`Action::Read`] and [`Action::Write`] must be answered by exactly one input;
    /// at most one of them is under way at any time.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Output> {
        self.core.observe(&input);
        let state = std::mem::replace(&mut self.state, State::Ended);
        let state = match state {
            State::Standby(standby) => standby.on(&mut self.core, now, input),
            State::Acquiring(acquiring) => acquiring.on(&mut self.core, now, input),
            State::Active(active) => active.on(&mut self.core, now, input),
            State::Ended => refuse_when_ended(&mut self.core, &input),
        };
        self.state = state;
        self.core.take_outputs()
    }

    /// When [`Machine::step`] wants to be called again with [`Input::Wake`], if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Instant> {
        match &self.state {
            State::Standby(standby) => standby.next_wakeup(&self.core),
            State::Acquiring(acquiring) => acquiring.next_wakeup(&self.core),
            State::Active(active) => active.next_wakeup(&self.core),
            State::Ended => None,
        }
    }

    /// The part that this member plays now.
    pub fn role(&self) -> Role {
        match &self.state {
            State::Standby(_) => Role::Standby,
            State::Acquiring(_) => Role::Acquiring,
            State::Active(active) if active.is_stopping() => Role::Stopping,
            State::Active(_) => Role::Active,
            State::Ended => Role::Ended,
        }
    }

    /// Name and nonce.
    pub fn member(&self) -> Member {
        self.core.member()
    }

    /// The durations in force, as far as measurements have changed them.
    pub fn timing(&self) -> &Timing {
        &self.core.settings.timing
    }

    /// Activation, token and instant of SIGKILL while this member is active or stopping.
    pub fn activation(&self) -> Option<(Activation, Token, Instant)> {
        match &self.state {
            State::Active(active) => Some(active.activation()),
            _ => None,
        }
    }

    /// The wait that is under way on a lock which names no member: neither a live one nor a proof. People wonder about it.
    pub fn vigil(&self) -> Option<Vigil> {
        match &self.state {
            State::Standby(standby) => standby.vigil(&self.core),
            _ => None,
        }
    }

    /// The member that the lock names, as far as a standby knows.
    pub fn holder(&self) -> Option<Member> {
        match &self.state {
            State::Standby(standby) => standby.holder(),
            State::Active(_) => Some(self.core.member()),
            _ => None,
        }
    }

    /// Until when a standby leaves the lock to others, after what happened to it last.
    pub(crate) fn holds_back_until(&self) -> Instant {
        match &self.state {
            State::Standby(standby) => standby.holds_back_until(),
            _ => Instant::default(),
        }
    }

    /// Whether a standby knows what the lock says, or that it cannot be read.
    pub(crate) fn has_looked(&self) -> bool {
        matches!(&self.state, State::Standby(standby) if standby.has_looked())
    }

    /// Whether a standby sees the lock held by this activation.
    pub(crate) fn sees(&self, activation: Activation) -> bool {
        matches!(&self.state, State::Standby(standby) if standby.sees(activation))
    }

    /// Queues again for the platform's own lock, from which it had stayed away.
    pub(crate) fn comes_back(&mut self, now: Instant) {
        if let State::Standby(standby) = &mut self.state {
            standby.comes_back(now);
        }
    }

    /// Goes on with what was measured in the place of another machine of this process.
    pub(crate) fn adopt(&mut self, timing: Timing) {
        self.core.settings.timing = timing;
    }
}

/// After the exit was decided nothing moves any more; requests still get their answer.
fn refuse_when_ended<E: Entropy>(core: &mut Core<E>, input: &Input) -> State {
    if matches!(input, Input::Request(_)) {
        core.refuse(RefusalKind::Conflict, "this member is leaving");
    }
    State::Ended
}

/// The exit of a member that leaves while it has no workload.
fn leave_idle<E: Entropy>(core: &mut Core<E>) -> State {
    core.say(Action::Exit(Exit::StoodBy), "asked to leave while standing by");
    State::Ended
}

/// Requests that only the active member can grant.
fn refuse_as_standby<E: Entropy>(core: &mut Core<E>, request: &Request) {
    match request {
        Request::Switchover { .. } | Request::Pause { .. } | Request::Resume => {
            core.refuse(RefusalKind::WrongMember, "this member is not active");
        }
        Request::Fenced { activation } => {
            core.refuse(RefusalKind::Conflict, &format!("the lock does not name activation {activation}"));
        }
    }
}
