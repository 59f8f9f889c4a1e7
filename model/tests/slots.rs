//! Groups of which several may be active hold on every schedule, and their spaces are as large as they were.

use election::TimingError;
use model::{SlotGroup, explore_slots};

fn holds(group: SlotGroup, states: usize) {
    let outcome = explore_slots(group, 1);
    assert!(outcome.failed.is_empty(), "broken: {:?}", outcome.failed);
    assert!(outcome.missed.is_empty(), "never reached: {:?}", outcome.missed);
    assert_eq!(outcome.states, states, "another number of states in {:?}", outcome.took);
}

#[test]
fn two_slots_and_two_members() -> Result<(), TimingError> {
    holds(SlotGroup::new(2, 2, 2, 10)?, 768_300);
    Ok(())
}

#[test]
fn two_slots_and_three_members() -> Result<(), TimingError> {
    holds(SlotGroup::new(2, 3, 1, 2)?, 1_129_954);
    Ok(())
}

#[test]
fn three_slots_and_two_members() -> Result<(), TimingError> {
    holds(SlotGroup::new(3, 2, 1, 4)?, 33_987);
    Ok(())
}
