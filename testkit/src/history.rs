//! The checker: reads what all probes stamped and finds what must never be.
//!
//! The life of an activation is the hull of all its slots, from its first process' first stamp to its last one's last:
//! an activation that has ended never starts again, so a hole in the middle is no excuse for another one in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::stamp::{self, Slot};
use crate::wait::wait_for;

/// A process that was just started may need this for its first stamps, on a machine that is busy.
const ARRIVAL: Duration = Duration::from_secs(20);

/// All that the processes of one activation stamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The slots, by first stamp; never empty.
    pub slots: Vec<Slot>,
    /// First stamp of all, in nanoseconds of CLOCK_BOOTTIME.
    pub first: u64,
    /// Last stamp of all.
    pub last: u64,
    /// The fencing token.
    pub token: u64,
    /// The activation.
    pub activation: u128,
    /// The member's name.
    pub member: String,
}

impl Span {
    fn of(slots: Vec<Slot>) -> Option<Self> {
        let one = slots.first()?.identity.clone();
        let first = slots.iter().map(|slot| slot.first).min()?;
        let last = slots.iter().map(|slot| slot.last).max()?;
        Some(Self { slots, first, last, token: one.token, activation: one.activation, member: one.member })
    }

    /// The slot that was stamped last: who overstayed.
    fn latest(&self) -> Option<&Slot> {
        self.slots.iter().max_by_key(|slot| slot.last)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} of {} (activation {:.8}", self.token, self.member, format!("{:032x}", self.activation))?;
        if let Some(slot) = self.latest() {
            write!(f, ", last process {} {}", slot.label, slot.pid)?;
        }
        write!(f, ") from {} to {} us", self.first / 1000, self.last / 1000)
    }
}

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Processes of two activations were alive at the same instant.
    Overlap {
        /// The one that was there first.
        old: Box<Span>,
        /// The one that came too early.
        new: Box<Span>,
        /// For how long, in microseconds, at least.
        microseconds: u64,
    },
    /// A later activation does not have a larger token.
    Disorder {
        /// The one that was there first.
        old: Box<Span>,
        /// The one whose token is not larger.
        new: Box<Span>,
    },
    /// One activation was told two tokens, or two members ran it.
    TwoFaces(Box<Span>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Overlap { old, new, microseconds } => {
                write!(f, "overlap of {microseconds} us: {old} was still alive with {new}")
            }
            Violation::Disorder { old, new } => {
                write!(f, "tokens out of order: {new} came after {old}")
            }
            Violation::TwoFaces(span) => {
                write!(f, "one activation with two tokens or members: {span}")
            }
        }
    }
}

/// From the last stamp of one activation to the first of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Token of the one that ended.
    pub from: u64,
    /// Token of the one that began.
    pub to: u64,
    /// How long nobody was alive; zero if they overlap.
    pub length: Duration,
}

/// The lives of all activations of a group, by first stamp.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The activations.
    pub spans: Vec<Span>,
}

impl History {
    /// Reads a page, and the folder `old` in it where a long run keeps the slots of earlier activations.
    pub fn read(page: &Path) -> Self {
        let mut slots = stamp::read_page(page);
        slots.extend(stamp::read_page(&page.join("old")));
        Self::of(slots)
    }

    /// Sorts slots into activations.
    pub fn of(slots: Vec<Slot>) -> Self {
        let mut by_activation: BTreeMap<u128, Vec<Slot>> = BTreeMap::new();
        for slot in slots {
            by_activation.entry(slot.identity.activation).or_default().push(slot);
        }
        let sorted = |mut slots: Vec<Slot>| {
            slots.sort_by_key(|slot| slot.first);
            slots
        };
        let mut spans: Vec<Span> = by_activation.into_values().filter_map(|slots| Span::of(sorted(slots))).collect();
        spans.sort_by_key(|span| (span.first, span.token));
        Self { spans }
    }

    /// Everything that must not be.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found: Vec<Violation> = self.spans.iter().filter_map(two_faces).collect();
        for (index, new) in self.spans.iter().enumerate() {
            for old in &self.spans[..index] {
                found.extend(overlap(old, new));
            }
        }
        let pairs = self.spans.iter().zip(self.spans.iter().skip(1));
        found.extend(pairs.filter_map(|(old, new)| {
            let disordered = new.token <= old.token;
            disordered.then(|| Violation::Disorder { old: Box::new(old.clone()), new: Box::new(new.clone()) })
        }));
        found
    }

    /// How many were alive at the same instant, at most: for a group of which several may be active.
    pub fn most_at_once(&self) -> usize {
        let alive = |at: u64| self.spans.iter().filter(|span| span.first <= at && at <= span.last).count();
        self.spans.iter().map(|span| alive(span.first)).max().unwrap_or(0)
    }

    /// From each activation to the next.
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.spans.iter().zip(self.spans.iter().skip(1));
        let gap = |(old, new): (&Span, &Span)| Gap {
            from: old.token,
            to: new.token,
            length: Duration::from_nanos(new.first.saturating_sub(old.last)),
        };
        pairs.map(gap).collect()
    }

    /// The same of a history that is still being written, as soon as it can be said: the newest processes may be just
    /// arriving and get time for their stamps, and what is violated stays so.
    ///
    /// # Errors
    /// What [`History::check`] finds; a run that stays too short is one after a limit.
    pub fn check_soon(read: impl Fn() -> Self, activations: usize, stamps: u64) -> Result<()> {
        let checked = || {
            let history = read();
            let outcome = history.check(activations, stamps);
            (outcome.is_ok() || !history.violations().is_empty()).then_some(outcome)
        };
        match wait_for("enough stamps", ARRIVAL, checked) {
            Ok(outcome) => outcome,
            Err(_) => read().check(activations, stamps),
        }
    }

    /// Fails unless nothing is violated and the run was no empty one: at least `activations` of them, every process of
    /// which stamped at least `stamps` times. A check that saw nothing proves nothing.
    pub fn check(&self, activations: usize, stamps: u64) -> Result<()> {
        let violations = self.violations();
        if !violations.is_empty() {
            let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
            bail!("{} violations:\n{}", lines.len(), lines.join("\n"));
        }
        if self.spans.len() < activations {
            bail!("expected at least {activations} activations, found {}:\n{self}", self.spans.len());
        }
        for slot in self.spans.iter().flat_map(|span| &span.slots) {
            if slot.stamps < stamps {
                bail!("expected at least {stamps} stamps of each process, found {}: {slot:?}", slot.stamps);
            }
        }
        Ok(())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for span in &self.spans {
            writeln!(f, "{span}")?;
        }
        Ok(())
    }
}

fn two_faces(span: &Span) -> Option<Violation> {
    let differs = |slot: &Slot| slot.identity.token != span.token || slot.identity.member != span.member;
    span.slots.iter().any(differs).then(|| Violation::TwoFaces(Box::new(span.clone())))
}

/// `new` did not start before `old`.
fn overlap(old: &Span, new: &Span) -> Option<Violation> {
    if new.first > old.last {
        return None;
    }
    let microseconds = (old.last.min(new.last) - new.first).div_ceil(1000);
    Some(Violation::Overlap { old: Box::new(old.clone()), new: Box::new(new.clone()), microseconds })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::stamp::Identity;

    fn slot(token: u64, activation: u128, first: u64, last: u64) -> Slot {
        let identity = Identity { token, activation, member: format!("m{activation}") };
        Slot { identity, pid: 1, label: "main".to_owned(), first, last, stamps: 10 }
    }

    #[test]
    fn lives_one_after_the_other_are_clean() {
        let history = History::of(vec![slot(2, 22, 2500, 3000), slot(1, 11, 1000, 2000), slot(1, 11, 1500, 2400)]);
        assert!(history.violations().is_empty());
        assert_eq!(history.gaps(), [Gap { from: 1, to: 2, length: Duration::from_nanos(100) }]);
        history.check(2, 10).unwrap();
    }

    #[test]
    fn a_process_that_has_just_arrived_gets_time_for_its_stamps() {
        let looks = Cell::new(0);
        let growing = || {
            looks.set(looks.get() + 1);
            History::of(vec![Slot { stamps: looks.get(), ..slot(1, 11, 1000, 2000) }])
        };
        History::check_soon(growing, 1, 2).unwrap();
        let overlap = || History::of(vec![slot(1, 11, 1_000, 9_000), slot(2, 22, 5_000, 20_000)]);
        assert!(History::check_soon(overlap, 3, 11).unwrap_err().to_string().contains("overlap of 4 us"));
    }

    #[test]
    fn an_overlap_is_found_with_both_sides_and_its_length() {
        let history = History::of(vec![slot(1, 11, 1_000, 9_000), slot(2, 22, 5_000, 20_000)]);
        let violations = history.violations();
        let [Violation::Overlap { old, new, microseconds }] = violations.as_slice() else { panic!("{violations:?}") };
        assert_eq!((old.token, new.token, *microseconds), (1, 2, 4));
        assert!(history.check(1, 1).unwrap_err().to_string().contains("overlap of 4 us: token 1 of m11"));
    }

    #[test]
    fn one_shared_instant_is_an_overlap() {
        let history = History::of(vec![slot(1, 11, 1_000, 5_000), slot(2, 22, 5_000, 6_000)]);
        assert_eq!(history.violations().len(), 1);
    }

    #[test]
    fn an_overlap_with_one_before_the_last_is_found() {
        let slots = vec![slot(1, 11, 1_000, 90_000), slot(2, 22, 2_000, 3_000), slot(3, 33, 4_000, 5_000)];
        let overlaps = History::of(slots).violations();
        assert_eq!(overlaps.len(), 2);
    }

    #[test]
    fn an_escaped_process_stretches_its_activation() {
        let slots = vec![slot(1, 11, 1_000, 2_000), slot(1, 11, 1_500, 4_000), slot(2, 22, 3_000, 5_000)];
        assert_eq!(History::of(slots).violations().len(), 1);
    }

    #[test]
    fn an_activation_that_comes_back_is_an_overlap() {
        let slots = vec![slot(1, 11, 1_000, 2_000), slot(2, 22, 3_000, 4_000), slot(1, 11, 5_000, 6_000)];
        assert_eq!(History::of(slots).violations().len(), 1);
    }

    #[test]
    fn those_alive_at_one_instant_are_counted() {
        let slots = vec![slot(1, 11, 1_000, 4_000), slot(1, 22, 2_000, 3_000), slot(2, 33, 3_000, 5_000)];
        assert_eq!(History::of(slots).most_at_once(), 3);
        let slots = vec![slot(1, 11, 1_000, 4_000), slot(1, 22, 2_000, 3_000), slot(2, 33, 3_001, 5_000)];
        assert_eq!(History::of(slots).most_at_once(), 2);
        assert_eq!(History::default().most_at_once(), 0);
    }

    #[test]
    fn tokens_must_grow() {
        for token in [1, 2] {
            let history = History::of(vec![slot(2, 11, 1_000, 2_000), slot(token, 22, 3_000, 4_000)]);
            assert!(matches!(history.violations().as_slice(), [Violation::Disorder { .. }]));
        }
    }

    #[test]
    fn an_activation_has_one_token_and_one_member() {
        let history = History::of(vec![slot(1, 11, 1_000, 2_000), slot(2, 11, 1_000, 2_000)]);
        assert!(matches!(history.violations().as_slice(), [Violation::TwoFaces(_)]));
    }

    #[test]
    fn a_run_that_saw_too_little_is_no_proof() {
        let history = History::of(vec![slot(1, 11, 1_000, 2_000)]);
        assert!(history.check(2, 1).is_err());
        assert!(history.check(1, 11).is_err());
        assert!(History::default().check(1, 0).is_err());
        history.check(1, 10).unwrap();
    }
}
