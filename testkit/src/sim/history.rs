//! What came of one history: what was counted, what was found, and a hash of everything that happened.

use super::clock::{MS, Nanos};
use super::fault::{Broken, Kind};

/// More findings of one history than these are not kept.
const FINDINGS_MAX: usize = 8;

/// One history, over.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Digest of every input, output and change of the lock, with its time.
    pub hash: u64,
    /// Inputs that the machines took.
    pub steps: u64,
    /// True time that passed.
    pub length: Nanos,
    /// Workloads that were started.
    pub starts: u64,
    /// Whether a member was active in each slot at the same moment.
    pub was_full: bool,
    /// Starts of a member in another slot than the one that it was active in before.
    pub moves: u64,
    /// Starts after another activation had ended without being asked to.
    pub failovers: u64,
    /// Failovers where no fault was strong enough for one.
    pub false_failovers: u64,
    /// Times at which two workloads ran at once, under all assumptions.
    pub overlaps: u64,
    /// Times at which two workloads ran at once after an assumption was broken, with how long at most.
    pub excused: Vec<(Broken, Nanos)>,
    /// Time from the end of one activation to the start of the next, with the last fault before.
    pub gaps: Vec<(Option<Kind>, Nanos)>,
    /// How often each kind of fault had an effect, in the order of [`Kind::ALL`].
    pub fired: Vec<u32>,
    /// Everything that must not be.
    pub findings: Vec<String>,
    /// What happened, for people; only kept when asked for.
    pub trace: Option<Vec<String>>,
}

impl History {
    /// An empty one.
    pub fn new(with_trace: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            fired: vec![0; Kind::ALL.len()],
            trace: with_trace.then(Vec::new),
            ..Self::default()
        }
    }

    /// Folds numbers into the hash.
    pub fn fold(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    /// Folds a text into the hash.
    pub fn fold_text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(&[u64::from_le_bytes(word)]);
        }
    }

    /// Something that must not be.
    pub fn finding(&mut self, at: Nanos, what: impl Into<String>) {
        let what = what.into();
        self.note(at, || format!("FINDING: {what}"));
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("at {:.3} s: {what}", seconds(at)));
        }
    }

    /// One line of the trace, made only when somebody reads it.
    pub fn note(&mut self, at: Nanos, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.4}  {}", seconds(at), line()));
        }
    }

    /// A fault of this kind had its effect.
    pub fn fired(&mut self, kind: Kind) {
        self.fired[kind.index()] += 1;
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn seconds(at: Nanos) -> f64 {
    (at / 1000) as f64 / (MS as f64)
}
