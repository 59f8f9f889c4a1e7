//! What an operator or a program asks the active member for.

use std::time::Duration;

use super::{Active, Cause, Pause, Phase};
use crate::clock::Instant;
use crate::io::{RefusalKind, Request};
use crate::machine::Entropy;
use crate::machine::core::Core;
use crate::timing::{LEASE_MAX, Plain};

impl Active {
    pub(super) fn answer<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, request: Request) {
        if self.phase != Phase::Running {
            return core.refuse(RefusalKind::Conflict, "this member is already stopping");
        }
        match request {
            Request::Switchover { to } => self.switch_over(core, to),
            Request::Pause { length, until_unix_ms } => self.begin_pause(core, now, length, until_unix_ms),
            Request::Resume if self.pause.is_none() => core.refuse(RefusalKind::Conflict, "there is no pause"),
            Request::Resume => {
                self.end_pause(now);
                core.grant("the pause was ended by request");
            }
            Request::Fenced { .. } => core.refuse(RefusalKind::WrongMember, "this member is active itself"),
        }
    }

    fn switch_over<E: Entropy>(&mut self, core: &mut Core<E>, to: Option<String>) {
        let target = match to {
            Some(name) if name == core.settings.name => {
                return core.refuse(RefusalKind::Conflict, &format!("{name} is active already"));
            }
            Some(name) if !core.candidates.contains(&name) => {
                let why = format!("{name} did not announce itself healthy within two minutes");
                return core.refuse(RefusalKind::NoCandidate, &why);
            }
            Some(name) => name,
            None => match core.candidates.first() {
                Some(name) => name.clone(),
                None => {
                    let why = "no other member announced itself healthy within two minutes";
                    return core.refuse(RefusalKind::NoCandidate, why);
                }
            },
        };
        core.grant(format!("switching over to {target}"));
        let grace = core.settings.stop_grace;
        let why = format!("switchover to {target}: stopping the workload");
        self.stop(core, Cause::Switchover, Some(target), grace, why);
    }

    fn begin_pause<E: Entropy>(&mut self, core: &mut Core<E>, now: Instant, length: Duration, until_unix_ms: u64) {
        if !core.settings.can_pause {
            let why = "this store frees the lock of a silent holder by its own clock, and would not honour a pause";
            return core.refuse(RefusalKind::Invalid, why);
        }
        if core.foreign_seen {
            let why = "a foreign holder was seen on this lock, and it would not honour a pause";
            return core.refuse(RefusalKind::Conflict, why);
        }
        let lease = core.settings.timing.lease();
        if length.is_zero() || length.checked_add(lease).is_none_or(|whole| whole > LEASE_MAX) {
            let (length, most) = (Plain(length), Plain(LEASE_MAX - lease));
            let why = format!("a pause of {length} is not possible: more than 0 and at most {most} is");
            return core.refuse(RefusalKind::Invalid, &why);
        }
        self.pause = Some(Pause { until: now + length, until_unix_ms });
        self.next_send = now;
        core.grant(format!("paused for {}", Plain(length)));
    }

    pub(super) fn end_pause(&mut self, now: Instant) {
        self.pause = None;
        self.next_send = now;
    }
}
