//! The spaces that are explored.

use crate::instance::{Ask, Fault, Instance};
use crate::state::{Flags, mark};
use crate::time::Rate;

/// A slow holder and a fast observer: the worst case of the inequality.
const WORST: &[Rate] = &[Rate::Slow, Rate::Fast];

/// What most instances share.
const BASE: Instance = Instance {
    name: "",
    rates: WORST,
    is_race: false,
    faults: &[],
    fault_budget: 0,
    asks: &[],
    ask_budget: 0,
    window: 3,
    horizon: 24,
    restarts_after: None,
    late_ticks: 10,
    patience: 12,
    is_steady: false,
    marks: Flags(0),
};

/// The spaces that the tests explore whole.
pub fn small() -> Vec<Instance> {
    vec![
        Instance {
            name: "messages",
            faults: &[
                Fault::LoseRequest,
                Fault::LoseReply,
                Fault::HoldRequest,
                Fault::HoldReply,
                Fault::Duplicate,
            ],
            fault_budget: 2,
            marks: mark::LANDED_LATE,
            ..BASE
        },
    ]
}

/// Larger ones.
pub fn deep() -> Vec<Instance> {
    vec![]
}

const _: Ask = Ask::Leave;
