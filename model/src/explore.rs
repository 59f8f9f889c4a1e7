//! Explores one instance and says what came out.

use std::hash::Hash;
use std::time::{Duration, Instant};

use election::TimingError;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::instance::Instance;
use crate::slots::{self, SlotGroup};
use crate::world::{Step, World};

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome<S = Step> {
    /// How many different states there are.
    pub states: usize,
    /// The longest path that was followed.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Rules that do not hold, each with the steps that lead to where it fails.
    pub failed: Vec<(&'static str, Vec<S>)>,
    /// What was to be reached and never was.
    pub missed: Vec<&'static str>,
}

/// Explores the whole of `instance`, depth first: it needs the least memory.
///
/// # Errors
/// The model's durations break the inequality.
pub fn explore(instance: Instance, threads: usize) -> Result<Outcome, TimingError> {
    Ok(explore_all(World::new(instance)?, threads))
}

/// Explores the whole of a group of several slots.
pub fn explore_slots(group: SlotGroup, threads: usize) -> Outcome<slots::Step> {
    explore_all(group, threads)
}

fn explore_all<M>(model: M, threads: usize) -> Outcome<M::Action>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + Clone + PartialEq + 'static,
    M::Action: Clone + PartialEq,
{
    let properties = model.properties();
    let started = Instant::now();
    let checker = model.checker().threads(threads).spawn_dfs().join();
    let mut found = checker.discoveries();
    let mut outcome = Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: started.elapsed(),
        failed: Vec::new(),
        missed: Vec::new(),
    };
    for property in properties {
        match (property.expectation, found.remove(property.name)) {
            (Expectation::Sometimes, None) => outcome.missed.push(property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => outcome.failed.push((property.name, path.into_actions())),
        }
    }
    outcome
}

/// The shortest steps to a state in which `rule` fails, if any does.
///
/// # Errors
/// The model's durations break the inequality.
pub fn shortest_failure(instance: Instance, rule: &'static str) -> Result<Option<Vec<Step>>, TimingError> {
    let wanted = HasDiscoveries::AllOf([rule].into());
    let checker = World::new(instance)?.checker().finish_when(wanted).spawn_bfs().join();
    Ok(checker.discovery(rule).map(stateright::Path::into_actions))
}

/// Prints what every machine says on the way along `steps`.
///
/// # Errors
/// The model's durations break the inequality.
pub fn narrate(instance: Instance, steps: &[Step]) -> Result<(), TimingError> {
    let mut world = World::new(instance)?;
    world.is_loud = true;
    let Some(first) = world.init_states().pop() else { return Ok(()) };
    steps.iter().try_fold(first, |state, step| world.next_state(&state, *step));
    Ok(())
}
