//! examples/sidecar/two-of-five.yml as real pods: of five two are active, and who follows takes the free slot alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::documents::root;
use testkit::history::{History, Span};
use testkit::pods::{LIMIT, Pods, shorten_lease};
use testkit::wait::within;

const APP: &str = "my-two";

/// A handover by a release takes milliseconds. This only tells it from one that waited for a lease, on a busy machine.
const PROMPT: Duration = Duration::from_millis(1_500);

fn both_active(pods: &Pods) -> Result<[Span; 2]> {
    Ok([pods.wait_active_in(1, 0, LIMIT)?, pods.wait_active_in(2, 0, LIMIT)?])
}

/// Deletes the pod that is active in this slot: another one is active in it soon, and the other slot has not moved.
fn delete_in(pods: &Pods, slot: u32) -> Result<()> {
    let active = both_active(pods)?;
    let (own, other) = if slot == 1 { (&active[0], &active[1]) } else { (&active[1], &active[0]) };
    pods.kubectl(&["delete", "pod", &own.member, "--wait=false"])?;
    let next = pods.wait_active_in(slot, own.token, LIMIT)?;
    let ended = pods.history_of(slot).spans.into_iter().find(|span| span.token == own.token).context("lost")?;
    let gap = Duration::from_nanos(next.first.saturating_sub(ended.last));
    eprintln!("slot {slot}: gap {gap:?}");
    within("the next one in the slot", gap, PROMPT).with_context(|| pods.logs())?;
    let now = pods.wait_active_in(3 - slot, 0, LIMIT)?;
    ensure!(now.activation == other.activation, "the other slot changed hands as well{}", pods.logs());
    pods.wait_rolled_out(APP, 5)
}

#[test]
fn two_of_five_pods_are_active_and_a_free_slot_is_taken_at_once() -> Result<()> {
    let pods = Pods::new()?;
    pods.apply(&root().join("examples/sidecar/two-of-five.yml"), shorten_lease)?;
    pods.wait_rolled_out(APP, 5).with_context(|| pods.logs())?;
    let [first, second] = both_active(&pods)?;
    ensure!(first.member != second.member, "{first} {second}");
    for slot in [1, 2, 1] {
        delete_in(&pods, slot)?;
    }
    pods.kubectl(&["rollout", "restart", "deployment/my-two"])?;
    pods.wait_rolled_out(APP, 5)?;
    both_active(&pods)?;
    let spans: Vec<_> = [1, 2].into_iter().flat_map(|slot| pods.history_of(slot).spans).collect();
    let whole = History { spans };
    ensure!(whole.most_at_once() == 2, "{whole}{}", pods.logs());
    [1, 2].into_iter().try_for_each(|slot| pods.history_of(slot).check(2, 2))
}
