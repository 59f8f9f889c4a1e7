//! The spaces that are explored: small ones in the tests, deep ones by hand.

use crate::instance::{Act, Ask, Fault, Instance};
use crate::state::{Flags, mark};
use crate::time::Rate;

/// A slow holder and a fast observer: the worst case of the inequality.
const WORST: &[Rate] = &[Rate::Slow, Rate::Fast];

/// The holder is the first to fear for its deadline, the observer the last to try.
const TIMID: &[Rate] = &[Rate::Fast, Rate::Slow];

const NOMINAL: &[Rate] = &[Rate::Nominal, Rate::Nominal];

const THREE: &[Rate] = &[Rate::Slow, Rate::Fast, Rate::Nominal];

/// Everything that can happen to one message.
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

/// Everything that can happen to processes, and what makes it worse.
const DEATHS: &[Fault] = &[
    Fault::Crash,
    Fault::GuardDies,
    Fault::WorkloadEnds,
    Fault::Stop(3),
    Fault::Stop(8),
    Fault::HoldRequest,
    Fault::HoldReply,
];

const PARTITIONS: &[Fault] =
    &[Fault::Cut(3), Fault::Cut(9), Fault::Outage(4), Fault::LoseReply, Fault::HoldRequest, Fault::Stop(4)];

/// What most instances share: two members of which the first is active.
const BASE: Instance = Instance {
    name: "",
    rates: WORST,
    is_race: false,
    is_absent: false,
    faults: &[],
    fault_budget: 0,
    acts: &[],
    act_budget: 0,
    asks: &[],
    ask_budget: 0,
    window: 6,
    horizon: 26,
    guard_releases: false,
    restarts_after: None,
    late_ticks: 10,
    patience: 9,
    is_steady: false,
    marks: Flags(0),
};

const MESSAGES_TWICE: Instance =
    Instance { name: "messages", faults: MESSAGES, fault_budget: 2, window: 9, marks: mark::LANDED_LATE, ..BASE };

const SMALL_FAULT: Instance = Instance {
    name: "one small fault",
    rates: TIMID,
    faults: MESSAGES,
    fault_budget: 1,
    window: 9,
    is_steady: true,
    ..BASE
};

const DEATHS_TWICE: Instance = Instance {
    name: "deaths",
    faults: DEATHS,
    fault_budget: 2,
    restarts_after: Some(2),
    window: 5,
    marks: mark::FAILED_OVER.and(mark::GUARD_KILLED).and(mark::CAME_BACK).and(mark::SWITCHED),
    ..BASE
};

const PARTITIONED: Instance = Instance {
    name: "partitions",
    faults: PARTITIONS,
    fault_budget: 2,
    marks: mark::FAILED_OVER.and(mark::LANDED_LATE),
    ..BASE
};

const DELETED: Instance = Instance {
    name: "deleted",
    faults: &[Fault::Crash, Fault::HoldRequest, Fault::Duplicate, Fault::Cut(9)],
    fault_budget: 1,
    acts: &[Act::Delete],
    act_budget: 1,
    restarts_after: Some(2),
    marks: mark::TOOK_ABSENT.and(mark::RECREATED).and(mark::LANDED_LATE),
    ..BASE
};

/// A member that is cut off in between takes the second absence for the first.
const DELETED_TWICE: Instance = Instance {
    name: "deleted twice",
    faults: &[Fault::Cut(9)],
    act_budget: 2,
    window: 10,
    horizon: 24,
    marks: mark::TOOK_ABSENT.and(mark::RECREATED),
    ..DELETED
};

const STRANGERS: Instance = Instance {
    name: "strangers",
    faults: &[Fault::Crash, Fault::HoldRequest, Fault::LoseReply],
    fault_budget: 1,
    acts: &[Act::Blank, Act::Usurp],
    act_budget: 2,
    restarts_after: Some(2),
    horizon: 56,
    patience: 23,
    marks: mark::TOOK_FOREIGN,
    ..BASE
};

/// Holds only as long as every process can tell that the lock went back.
const REWOUND: Instance = Instance {
    name: "rewound",
    faults: &[Fault::HoldRequest, Fault::LoseReply, Fault::Cut(8), Fault::Stop(8)],
    fault_budget: 1,
    acts: &[Act::Rewind(1), Act::Rewind(3)],
    act_budget: 1,
    window: 10,
    horizon: 40,
    marks: mark::FAILED_OVER,
    ..BASE
};

const REQUESTS: Instance = Instance {
    name: "requests",
    faults: &[Fault::LoseReply, Fault::HoldRequest, Fault::Crash, Fault::Stop(3)],
    fault_budget: 1,
    asks: &[Ask::Switchover, Ask::Leave, Ask::Fence],
    ask_budget: 1,
    restarts_after: Some(2),
    marks: mark::SWITCHED.and(mark::LEFT),
    ..BASE
};

const GUARD_RELEASES: Instance = Instance {
    name: "guard releases",
    faults: &[Fault::LoseReply, Fault::HoldRequest, Fault::WorkloadEnds, Fault::Stop(8), Fault::GuardDies],
    fault_budget: 1,
    asks: &[Ask::Switchover, Ask::Leave],
    ask_budget: 1,
    guard_releases: true,
    marks: mark::LEFT,
    ..BASE
};

const PAUSES: Instance = Instance {
    name: "pauses",
    faults: &[Fault::Outage(9), Fault::LoseReply, Fault::HoldRequest, Fault::Crash],
    fault_budget: 2,
    asks: &[Ask::Pause(8), Ask::Resume],
    ask_budget: 1,
    window: 4,
    horizon: 40,
    patience: 17,
    marks: mark::PAUSED_OUTAGE,
    ..BASE
};

/// A lease that gets shorter while the store or the line to it fails.
const RESUMED: Instance = Instance {
    name: "resumed",
    faults: &[Fault::LoseReply, Fault::HoldRequest, Fault::Cut(12), Fault::Stop(12)],
    fault_budget: 1,
    asks: &[Ask::Pause(8), Ask::Resume],
    ask_budget: 2,
    window: 4,
    horizon: 34,
    patience: 17,
    marks: mark::FAILED_OVER,
    ..BASE
};

const HEALTH: Instance = Instance {
    name: "health",
    rates: NOMINAL,
    faults: &[Fault::Unwell(5), Fault::LoseReply, Fault::HoldRequest],
    fault_budget: 2,
    marks: mark::SWITCHED,
    ..BASE
};

const RACE: Instance = Instance {
    name: "race of three",
    rates: THREE,
    is_race: true,
    faults: MESSAGES,
    fault_budget: 1,
    window: 3,
    horizon: 20,
    patience: 2,
    ..BASE
};

const FIRST_LOCK: Instance = Instance {
    name: "first lock",
    is_race: true,
    is_absent: true,
    faults: MESSAGES,
    fault_budget: 1,
    window: 12,
    marks: mark::TOOK_ABSENT.and(mark::LANDED_LATE),
    ..BASE
};

const THREE_MEMBERS: Instance = Instance {
    name: "three",
    rates: THREE,
    faults: &[Fault::Crash, Fault::HoldRequest, Fault::Cut(9)],
    fault_budget: 1,
    asks: &[Ask::Switchover],
    ask_budget: 1,
    window: 4,
    marks: mark::FAILED_OVER.and(mark::SWITCHED),
    ..BASE
};

/// The spaces that the tests explore whole.
pub fn small() -> Vec<Instance> {
    vec![
        MESSAGES_TWICE,
        SMALL_FAULT,
        DEATHS_TWICE,
        PARTITIONED,
        DELETED,
        DELETED_TWICE,
        STRANGERS,
        REWOUND,
        REQUESTS,
        GUARD_RELEASES,
        PAUSES,
        RESUMED,
        HEALTH,
        RACE,
        FIRST_LOCK,
        THREE_MEMBERS,
    ]
}

/// The same with longer windows and larger budgets.
pub fn deep() -> Vec<Instance> {
    vec![
        Instance { name: "deep messages", fault_budget: 3, window: 10, horizon: 30, ..MESSAGES_TWICE },
        Instance { name: "deep one small fault", rates: WORST, window: 14, horizon: 34, ..SMALL_FAULT },
        Instance { name: "deep deaths", window: 10, horizon: 30, ..DEATHS_TWICE },
        Instance { name: "deep deaths, timid", rates: TIMID, window: 10, horizon: 30, ..DEATHS_TWICE },
        Instance { name: "deep partitions", fault_budget: 3, window: 7, ..PARTITIONED },
        Instance { name: "deep deleted", fault_budget: 2, window: 10, horizon: 30, ..DELETED },
        Instance { name: "deep strangers", fault_budget: 2, ..STRANGERS },
        // No held writes: one that is stored over a rewound record gives it a new version, which hides the rewind.
        Instance {
            name: "deep rewound",
            faults: &[Fault::LoseReply, Fault::Cut(8), Fault::Stop(8)],
            fault_budget: 2,
            window: 8,
            patience: 12,
            ..REWOUND
        },
        Instance { name: "deep requests", fault_budget: 2, ask_budget: 2, window: 4, patience: 12, ..REQUESTS },
        Instance { name: "deep guard releases", fault_budget: 2, window: 7, patience: 12, ..GUARD_RELEASES },
        Instance { name: "deep pauses", ask_budget: 2, window: 6, horizon: 46, patience: 24, ..PAUSES },
        Instance { name: "deep race of three", fault_budget: 2, window: 4, patience: 12, ..RACE },
        Instance { name: "deep first lock", fault_budget: 2, patience: 12, ..FIRST_LOCK },
        Instance { name: "deep three", fault_budget: 2, patience: 12, ..THREE_MEMBERS },
    ]
}

/// Spaces in which exclusion does not hold and cannot: an assumption of the promise is broken.
pub fn beyond() -> Vec<Instance> {
    vec![
        // The store goes back and gives out the same version numbers again: a compare-and-set then means nothing, and
        // no member can tell.
        Instance {
            name: "restored from a backup",
            acts: &[Act::Restore(1), Act::Restore(3)],
            faults: &[Fault::Cut(8)],
            window: 11,
            horizon: 24,
            marks: Flags(0),
            ..REWOUND
        },
    ]
}
