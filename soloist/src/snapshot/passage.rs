//! What a member itself saw of its own times of being active: the parts of a handover, for people.

use std::sync::Arc;

use election::Role;

use super::Snapshot;
use crate::lock::history::CHANGES_MAX;

/// One own time of being active, in wall-clock microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// It began to write itself into the lock.
    pub acquiring_us: u64,
    /// The lock has confirmed that.
    pub active_us: u64,
    /// The workload ran, where there is one.
    pub running_us: Option<u64>,
    /// Its stop began.
    pub stopping_us: Option<u64>,
}

impl Passage {
    /// Whether the acquiring write that was stamped so is this one's.
    pub fn encloses(&self, from_us: u64) -> bool {
        (self.acquiring_us..=self.active_us).contains(&from_us)
    }
}

impl Snapshot {
    /// This member plays another part from now on.
    pub fn play(&mut self, role: Role, now_unix_us: u64) {
        match (self.role, role) {
            (Role::Acquiring, Role::Active) => {
                let passage = Passage {
                    acquiring_us: self.since_unix_us,
                    active_us: now_unix_us,
                    running_us: None,
                    stopping_us: None,
                };
                let surplus = (self.passages.len() + 1).saturating_sub(CHANGES_MAX);
                self.passages = self.passages[surplus..].iter().copied().chain([passage]).collect();
            }
            (Role::Active, _) => self.note(|passage| passage.stopping_us = Some(now_unix_us)),
            _ => {}
        }
        self.role = role;
        self.since_unix_us = now_unix_us;
    }

    /// The workload runs from now on.
    pub fn note_running(&mut self, now_unix_us: u64) {
        self.note(|passage| passage.running_us = Some(now_unix_us));
    }

    fn note(&mut self, change: impl FnOnce(&mut Passage)) {
        if let Some(last) = Arc::make_mut(&mut self.passages).last_mut() {
            change(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::Health;

    fn member() -> Snapshot {
        let health = Health { healthy: true, why: String::new() };
        Snapshot::new("g", "a", Duration::from_secs(15), health, 0)
    }

    #[test]
    fn the_parts_of_an_own_handover_are_noted() {
        let mut snapshot = member();
        snapshot.note_running(1);
        snapshot.play(Role::Acquiring, 10);
        snapshot.play(Role::Active, 14);
        snapshot.note_running(17);
        let passage = Passage { acquiring_us: 10, active_us: 14, running_us: Some(17), stopping_us: None };
        assert_eq!(*snapshot.passages, [passage]);
        snapshot.play(Role::Stopping, 20);
        snapshot.play(Role::Standby, 25);
        assert_eq!(*snapshot.passages, [Passage { stopping_us: Some(20), ..passage }]);
        assert_eq!((snapshot.role, snapshot.since_unix_us), (Role::Standby, 25));
        assert_eq!([9, 10, 14, 15].map(|at| passage.encloses(at)), [false, true, true, false]);
    }

    #[test]
    fn who_acquires_in_vain_passes_nothing_and_the_oldest_go_first() {
        let mut snapshot = member();
        snapshot.play(Role::Acquiring, 10);
        snapshot.play(Role::Standby, 11);
        assert!(snapshot.passages.is_empty());
        for at in 0..100 {
            snapshot.play(Role::Acquiring, at);
            snapshot.play(Role::Active, at);
            snapshot.play(Role::Stopping, at);
        }
        assert_eq!(snapshot.passages.len(), CHANGES_MAX);
        assert_eq!(snapshot.passages.last().unwrap().active_us, 99);
    }
}
