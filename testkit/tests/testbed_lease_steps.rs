//! The elector that is about to become active on a Lease ends between any two of its system calls.

use anyhow::{Context, Result, bail, ensure};
use testkit::cluster::Cluster;
use testkit::lease_group::LeaseGroup;
use testkit::scenario::LIMIT;
use testkit::steps::killed_before;
use testkit::wait::wait_until;

#[test]
fn a_takeover_may_end_at_any_step() -> Result<()> {
    let cluster = &Cluster::connect()?;
    let round = |number: usize| -> Result<bool> {
        let mut group = LeaseGroup::new(cluster)?;
        let (members, active) = group.start(cluster, &["a", "b", "c"])?;
        // Then the second one is named as the successor: it has waited longest.
        let count = || cluster.announced(&group.namespace, &group.lease).map_or(0, |members| members.len());
        wait_until("three announcements", LIMIT, || count() == 3)?;
        killed_before(number, &group.group, &members, &active).with_context(|| format!("step {number}"))
    };
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..241).step_by(30).map(|number| scope.spawn(move || round(number))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<bool>>| {
            thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
        };
        threads.into_iter().map(join).collect::<Result<Vec<bool>>>()
    })?;
    eprintln!("who had started its workload: {started:?}");
    ensure!(started.contains(&true) && started.contains(&false), "all of them ended at the same stage: {started:?}");
    Ok(())
}
