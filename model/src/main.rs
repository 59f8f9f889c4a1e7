//! Explores the deep instances, or those that are named, and prints a line for each.

use std::process::ExitCode;

use model::{Instance, Outcome, SlotGroup, beyond, deep, explore, explore_slots, narrate, shortest_failure, small};

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut instances = small();
    instances.extend(deep());
    if !names.is_empty() {
        instances.extend(beyond());
        instances.retain(|instance| names.iter().any(|name| name == instance.name));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all_hold = true;
    println!("{:28} {:>10} {:>6} {:>9}  result", "instance", "states", "depth", "seconds");
    for instance in instances {
        match explore(instance.clone(), threads) {
            Ok(outcome) => all_hold &= report(instance, &outcome),
            Err(error) => {
                eprintln!("{error}");
                all_hold = false;
            }
        }
    }
    if names.is_empty() {
        match SlotGroup::deep() {
            Ok(groups) => groups.into_iter().for_each(|group| {
                let (name, outcome) = (group.name(), explore_slots(group, threads));
                all_hold &= line(&name, &outcome);
            }),
            Err(error) => {
                eprintln!("{error}");
                all_hold = false;
            }
        }
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints one line. Returns whether everything held.
fn line<S>(name: &str, outcome: &Outcome<S>) -> bool {
    let failed: Vec<_> = outcome.failed.iter().map(|(rule, _)| *rule).collect();
    let result = match (failed.is_empty(), outcome.missed.is_empty()) {
        (true, true) => "holds".to_owned(),
        (true, false) => format!("never reached: {}", outcome.missed.join(", ")),
        (false, _) => format!("broken: {}", failed.join(", ")),
    };
    let seconds = outcome.took.as_secs_f64();
    println!("{name:28} {:>10} {:>6} {seconds:>9.1}  {result}", outcome.states, outcome.depth);
    failed.is_empty() && outcome.missed.is_empty()
}

/// Prints one line, and the shortest way to a failure where there is one. Returns whether everything held.
fn report(instance: Instance, outcome: &Outcome) -> bool {
    let holds = line(instance.name, outcome);
    if let Some((rule, _)) = outcome.failed.first()
        && let Ok(Some(steps)) = shortest_failure(instance.clone(), rule)
    {
        println!("shortest way to break \"{rule}\":");
        if let Err(error) = narrate(instance, &steps) {
            eprintln!("{error}");
        }
    }
    holds
}
