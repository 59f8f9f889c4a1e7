//! The elector that is about to become active ends between any two of its system calls.

use anyhow::{Context, Result, bail, ensure};
use testkit::group::Group;
use testkit::scenario::start;
use testkit::steps::killed_before;

/// From the first step of a takeover until the workload has run for a while.
const STEPS: usize = 160;
/// Not every one: a few more runs hit the others.
const STRIDE: usize = 4;
/// As many go side by side.
const THREADS: usize = 4;

#[test]
fn a_takeover_may_end_at_any_step() -> Result<()> {
    let started = std::thread::scope(|scope| {
        let begin = |first| scope.spawn(move || rounds((first * STRIDE + 1..STEPS).step_by(STRIDE * THREADS)));
        let threads: Vec<_> = (0..THREADS).map(begin).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<bool>>>| {
            thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let started = started.concat();
    let count = started.iter().filter(|started| **started).count();
    eprintln!("of {} killed, {count} had started their workload", started.len());
    ensure!(count > 5 && started.len() - count > 5, "all of them ended at the same stage");
    Ok(())
}

/// Whether the workload was started, for each of these steps.
fn rounds(numbers: impl Iterator<Item = usize>) -> Result<Vec<bool>> {
    let round = |number: usize| {
        let group = Group::new()?;
        let (members, active) = start(&group, &["a", "b", "c"], &[], &[])?;
        killed_before(number, &group, &members, &active).with_context(|| format!("step {number}"))
    };
    numbers.map(round).collect()
}
