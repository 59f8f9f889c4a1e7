//! The rules, each a property that holds in every state; and what must be reached, so that none holds in vain.

use stateright::Property;

use crate::instance::Instance;
use crate::state::{Flags, State, broken, mark};
use crate::world::World;

type Condition = fn(&World, &State) -> bool;

/// The rules. Each is named as in the table of the README.
const RULES: [(&str, Condition); 10] = [
    ("exclusion", |_, state| state.up() <= 1),
    ("tokens increase and no activation starts twice", |_, state| !state.broken.has(broken::TOKEN)),
    ("no release without proof, no claim after it", |_, state| !state.broken.has(broken::PROOF)),
    ("no deadline beyond a confirmed send", |_, state| !state.broken.has(broken::DEADLINE)),
    ("one operation at a time", |_, state| !state.broken.has(broken::TWO_OPERATIONS)),
    ("no write for what was lost to another", |_, state| !state.broken.has(broken::AFTER_LOSS)),
    ("what is due moves something", |_, state| !state.broken.has(broken::STUCK)),
    ("no exit while a workload may run", |_, state| !state.broken.has(broken::EXIT)),
    ("no stop for a small fault", |_, state| !state.broken.has(broken::INTERRUPTED)),
    ("somebody leads in time", |world, state| state.idle <= world.instance.patience),
];

/// What an instance can ask to be reached.
const REACHED: [(&str, Flags, Condition); 10] = [
    ("a failover", mark::FAILED_OVER, |_, state| state.marks.has(mark::FAILED_OVER)),
    ("a switchover to the named successor", mark::SWITCHED, |_, state| state.marks.has(mark::SWITCHED)),
    ("a write stored after it was unknown", mark::LANDED_LATE, |_, state| state.marks.has(mark::LANDED_LATE)),
    ("a pause in force in an outage", mark::PAUSED_OUTAGE, |_, state| state.marks.has(mark::PAUSED_OUTAGE)),
    ("an absent lock taken", mark::TOOK_ABSENT, |_, state| state.marks.has(mark::TOOK_ABSENT)),
    ("a stranger's lock taken", mark::TOOK_FOREIGN, |_, state| state.marks.has(mark::TOOK_FOREIGN)),
    ("a restarted process active", mark::CAME_BACK, |_, state| state.marks.has(mark::CAME_BACK)),
    ("a member that left", mark::LEFT, |_, state| state.marks.has(mark::LEFT)),
    ("a kill by the guard on the deadline", mark::GUARD_KILLED, |_, state| state.marks.has(mark::GUARD_KILLED)),
    ("a deleted lock created again by its holder", mark::RECREATED, |_, state| state.marks.has(mark::RECREATED)),
];

/// The properties of one instance.
pub fn of(instance: &Instance) -> Vec<Property<World>> {
    let rules = RULES.into_iter().map(|(name, condition)| Property::always(name, condition));
    let wanted = REACHED.into_iter().filter(|(_, flag, _)| instance.marks.has(*flag));
    rules.chain(wanted.map(|(name, _, condition)| Property::sometimes(name, condition))).collect()
}
