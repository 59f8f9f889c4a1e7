//! Which hooks are due, from one snapshot to the next: pure.
//!
//! Snapshots come through a channel that keeps only the newest one, so steps in between can be missed:
//! - Each activation that was seen gets its on-stop, also where its stop was missed, or where its workload was never
//!   seen running and on-active was therefore never due.
//! - A missed time of being active or of standing by is left out; nothing is said that is not so any more.

use std::fmt;

use election::{Activation, Role, Token};

use crate::snapshot::{Snapshot, Workload};

/// A moment at which the user may want something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The workload runs.
    Active,
    /// The member stands by.
    Standby,
    /// The stop of the workload has begun, planned or not.
    Stop,
}

impl Hook {
    /// The word for the member's role at this moment.
    pub fn role(self) -> &'static str {
        match self {
            Hook::Active => "active",
            Hook::Standby => "standby",
            Hook::Stop => "stopping",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Active => "on-active",
            Hook::Standby => "on-standby",
            Hook::Stop => "on-stop",
        })
    }
}

/// The time of being active that a hook is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// Which one.
    pub activation: Activation,
    /// Its fencing token.
    pub token: Token,
}

/// A hook that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which one.
    pub hook: Hook,
    /// What it is about; nothing while the member stands by.
    pub of: Option<Of>,
}

/// How far a member has come.
#[derive(Clone, Debug, Default)]
pub struct Course {
    begun: bool,
    /// The activation that was seen last and not seen to stop.
    active: Option<Of>,
    /// Whether its workload was seen running.
    ran: bool,
    /// It was active since it last stood by.
    was_active: bool,
}

impl Course {
    /// What is due now, in order.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Vec<Step> {
        let mut due = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            due.push(Step { hook: Hook::Standby, of: None });
        }
        let tenure = snapshot.tenure.filter(|_| snapshot.role == Role::Active);
        let now = tenure.map(|tenure| Of { activation: tenure.activation, token: tenure.token });
        if self.active != now {
            due.extend(self.active.map(|of| Step { hook: Hook::Stop, of: Some(of) }));
            self.was_active |= self.active.is_some();
            (self.active, self.ran) = (now, false);
        }
        let runs = matches!(snapshot.workload, Workload::Running { .. });
        if let Some(of) = now.filter(|_| runs && !self.ran) {
            due.push(Step { hook: Hook::Active, of: Some(of) });
            self.ran = true;
        }
        match snapshot.role {
            Role::Active => self.was_active = false,
            Role::Standby if std::mem::take(&mut self.was_active) => {
                due.push(Step { hook: Hook::Standby, of: None });
            }
            _ => {}
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use election::Instant;
    use proptest::prelude::*;

    use super::*;
    use crate::health::without_check;
    use crate::snapshot::Tenure;

    const RUNNING: Workload = Workload::Running { pid: 7, since_unix_us: 0 };

    fn snapshot(role: Role, activation: Option<u64>, workload: Workload) -> Snapshot {
        let tenure = activation.map(|number| Tenure {
            activation: Activation(number.into()),
            token: Token(number),
            stop_at: Instant::default(),
            kill_at: Instant::default(),
        });
        let first = Snapshot::new("g", "a", Duration::from_secs(15), without_check(), 0);
        Snapshot { role, tenure, workload, ..first }
    }

    fn standby() -> Snapshot {
        snapshot(Role::Standby, None, Workload::None)
    }

    fn active(number: u64) -> Snapshot {
        snapshot(Role::Active, Some(number), RUNNING)
    }

    fn stopping(number: u64) -> Snapshot {
        snapshot(Role::Stopping, Some(number), Workload::Stopping { pid: Some(7) })
    }

    fn words(snapshots: &[Snapshot]) -> Vec<String> {
        let mut course = Course::default();
        let steps = snapshots.iter().flat_map(|snapshot| course.follow(snapshot));
        steps.map(|step| format!("{}{}", step.hook.role(), step.of.map_or(0, |of| of.token.0))).collect()
    }

    #[test]
    fn a_whole_life_has_its_hooks_in_order() {
        let starting = snapshot(Role::Active, Some(1), Workload::Starting);
        let acquiring = snapshot(Role::Acquiring, None, Workload::None);
        let ended = snapshot(Role::Ended, None, Workload::None);
        let life = [
            standby(),
            acquiring.clone(),
            starting,
            active(1),
            active(1),
            stopping(1),
            standby(),
            acquiring,
            active(2),
            stopping(2),
            ended,
        ];
        assert_eq!(words(&life), ["standby0", "active1", "stopping1", "standby0", "active2", "stopping2"]);
    }

    #[test]
    fn what_was_missed_is_made_up_for_where_it_still_matters() {
        assert_eq!(words(&[active(1), standby()]), ["standby0", "active1", "stopping1", "standby0"]);
        assert_eq!(words(&[active(1), active(2)]), ["standby0", "active1", "stopping1", "active2"]);
        let starting = snapshot(Role::Active, Some(1), Workload::Starting);
        assert_eq!(words(&[starting, stopping(1)]), ["standby0", "stopping1"]);
        let ended = snapshot(Role::Ended, None, Workload::None);
        assert_eq!(words(&[active(1), ended]), ["standby0", "active1", "stopping1"]);
    }

    proptest! {
        #[test]
        fn whatever_is_missed_on_active_and_on_stop_alternate(kept in proptest::collection::vec(any::<bool>(), 40)) {
            let mut life = vec![standby()];
            for number in 1..=10 {
                life.extend([active(number), stopping(number), standby()]);
            }
            let seen: Vec<_> = life.into_iter().zip(kept).filter_map(|(one, kept)| kept.then_some(one)).collect();
            let words = words(&seen);
            let mut last_active = None;
            for word in &words {
                if let Some(number) = word.strip_prefix("active") {
                    prop_assert_eq!(last_active, None, "{:?}", words);
                    last_active = Some(number.to_owned());
                }
                if let Some(number) = word.strip_prefix("stopping") {
                    prop_assert_eq!(last_active.take(), Some(number.to_owned()), "{:?}", words);
                }
            }
        }
    }
}
