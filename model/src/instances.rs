//! The spaces that are explored.

use crate::instance::{Act, Ask, Fault, Instance};
use crate::state::{Flags, mark};
use crate::time::Rate;

/// A slow holder and a fast observer: the worst case of the inequality.
const WORST: &[Rate] = &[Rate::Slow, Rate::Fast];

/// The holder is the first to fear for its deadline, the observer the last to try.
const TIMID: &[Rate] = &[Rate::Fast, Rate::Slow];

const NOMINAL: &[Rate] = &[Rate::Nominal, Rate::Nominal];

const THREE: &[Rate] = &[Rate::Slow, Rate::Fast, Rate::Nominal];

/// Everything that can happen to one request.
const MESSAGES: &[Fault] = &[
    Fault::LoseRequest,
    Fault::LoseReply,
    Fault::HoldRequest,
    Fault::HoldReply,
    Fault::Duplicate,
    Fault::Refuse,
    Fault::Throttle,
    Fault::LoseNotice,
];

/// What most instances share.
const BASE: Instance = Instance {
    name: "",
    rates: WORST,
    is_race: false,
    faults: &[],
    fault_budget: 0,
    acts: &[],
    act_budget: 0,
    asks: &[],
    ask_budget: 0,
    window: 10,
    horizon: 30,
    restarts_after: None,
    late_ticks: 10,
    patience: 12,
    is_steady: false,
    marks: Flags(0),
};

/// The spaces that the tests explore whole.
pub fn small() -> Vec<Instance> {
    vec![
        Instance { name: "messages", faults: MESSAGES, fault_budget: 2, marks: mark::LANDED_LATE, ..BASE },
        Instance { name: "one small fault", rates: TIMID, faults: MESSAGES, fault_budget: 1, is_steady: true, ..BASE },
        Instance {
            name: "deaths",
            faults: &[
                Fault::Crash,
                Fault::GuardDies,
                Fault::WorkloadEnds,
                Fault::Stop(3),
                Fault::Stop(8),
                Fault::HoldRequest,
                Fault::HoldReply,
            ],
            fault_budget: 2,
            restarts_after: Some(2),
            marks: mark::FAILED_OVER.and(mark::GUARD_KILLED).and(mark::CAME_BACK).and(mark::SWITCHED),
            ..BASE
        },
        Instance {
            name: "partitions",
            faults: &[Fault::Cut(3), Fault::Cut(9), Fault::Outage(4), Fault::LoseReply, Fault::HoldRequest, Fault::Stop(4)],
            fault_budget: 2,
            marks: mark::FAILED_OVER,
            ..BASE
        },
        Instance {
            name: "deleted",
            faults: &[Fault::Crash, Fault::HoldRequest, Fault::Duplicate, Fault::Cut(9)],
            fault_budget: 2,
            acts: &[Act::Delete],
            act_budget: 1,
            restarts_after: Some(2),
            marks: mark::TOOK_ABSENT.and(mark::RECREATED),
            ..BASE
        },
        Instance {
            name: "strangers",
            faults: &[Fault::Crash, Fault::HoldRequest, Fault::LoseReply],
            fault_budget: 1,
            acts: &[Act::Blank, Act::Usurp],
            act_budget: 2,
            restarts_after: Some(2),
            horizon: 60,
            patience: 40,
            marks: mark::TOOK_FOREIGN,
            ..BASE
        },
        Instance {
            name: "rewound",
            faults: &[Fault::HoldRequest, Fault::LoseReply, Fault::Cut(8), Fault::Stop(8)],
            fault_budget: 1,
            acts: &[Act::Rewind(1), Act::Rewind(3)],
            act_budget: 1,
            marks: mark::FAILED_OVER,
            horizon: 40,
            patience: 20,
            ..BASE
        },
        Instance {
            name: "requests",
            faults: &[Fault::LoseReply, Fault::HoldRequest, Fault::Crash, Fault::Stop(3)],
            fault_budget: 1,
            asks: &[Ask::Switchover, Ask::Leave, Ask::Fence],
            ask_budget: 1,
            restarts_after: Some(2),
            marks: mark::SWITCHED.and(mark::LEFT),
            ..BASE
        },
        Instance {
            name: "pauses",
            faults: &[Fault::Outage(9), Fault::LoseReply, Fault::HoldRequest, Fault::Crash],
            fault_budget: 2,
            asks: &[Ask::Pause(8), Ask::Resume],
            ask_budget: 1,
            window: 8,
            horizon: 50,
            patience: 24,
            marks: mark::PAUSED_OUTAGE,
            ..BASE
        },
        Instance {
            name: "health",
            rates: NOMINAL,
            faults: &[Fault::Unwell(5), Fault::LoseReply, Fault::HoldRequest],
            fault_budget: 2,
            marks: mark::SWITCHED,
            ..BASE
        },
        Instance { name: "race of three", rates: THREE, is_race: true, faults: MESSAGES, fault_budget: 1, window: 3, horizon: 20, ..BASE },
        Instance {
            name: "three",
            rates: THREE,
            faults: &[Fault::Crash, Fault::HoldRequest, Fault::Cut(9)],
            fault_budget: 2,
            asks: &[Ask::Switchover],
            ask_budget: 1,
            window: 3,
            horizon: 26,
            marks: mark::FAILED_OVER,
            ..BASE
        },
    ]
}

/// Larger ones.
pub fn deep() -> Vec<Instance> {
    vec![]
}
