//! The elector that is about to become active on a Lease ends between any two of its system calls.

use anyhow::{Context, Result, bail, ensure};
use testkit::cluster::Cluster;
use testkit::lease_group::LeaseGroup;
use testkit::steps::killed_before;

#[test]
fn a_takeover_may_end_at_any_step() -> Result<()> {
    let cluster = &Cluster::connect()?;
    let round = |number: usize| -> Result<bool> {
        let mut group = LeaseGroup::new(cluster)?;
        let (members, active) = group.start(cluster, &["a", "b", "c"])?;
        killed_before(number, &group.group, &members, &active).with_context(|| format!("step {number}"))
    };
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..160).step_by(20).map(|number| scope.spawn(move || round(number))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<bool>>| {
            thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
        };
        threads.into_iter().map(join).collect::<Result<Vec<bool>>>()
    })?;
    ensure!(started.contains(&true) && started.contains(&false), "all of them ended at the same stage: {started:?}");
    Ok(())
}
