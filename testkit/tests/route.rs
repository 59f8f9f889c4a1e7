//! Traffic on virtual time: before the start, away with the stop, and never in the way of a renewal.

use std::time::Duration;

use anyhow::{Result, bail};
use election::{Claim, Exit, OnExit, Token};
use soloist::elector::Order;
use testkit::virtual_group::{VirtualMember, World, spawn};
use tokio::task::LocalSet;
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(4);

/// Plays on a clock that goes on whenever nothing else does.
fn play(history: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    LocalSet::new().block_on(&runtime, history)
}

fn member(world: &World, name: &str, seed: u64) -> Result<VirtualMember> {
    spawn(world, name, LEASE, 1.0, seed)
}

fn who(world: &World) -> Option<String> {
    world.directory.borrow().entries.get(&1).map(|(member, _)| member.clone())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..100_000 {
        if condition() {
            return Ok(());
        }
        sleep(Duration::from_millis(1)).await;
    }
    bail!("never: {what}")
}

async fn exit(member: VirtualMember) -> Result<Exit> {
    Ok(member.task.await?)
}

#[test]
fn workload_waits_for_its_publication_and_the_lease_is_renewed_meanwhile() -> Result<()> {
    play(async {
        let world = World::default();
        // More than a lease before it takes effect, and as much after it.
        world.directory.borrow_mut().delay = LEASE * 5 / 4;
        let a = member(&world, "a", 1)?;
        until("published", || who(&world).is_some()).await?;
        let b = member(&world, "b", 2)?;
        assert!(world.ledger.borrow().leaders() == 0, "the answer is not there yet");
        until("started", || world.ledger.borrow().leaders() > 0).await?;
        let ledger = world.ledger.borrow();
        assert_eq!((ledger.activations, ledger.unpublished), (1, 0));
        assert_eq!(who(&world).as_deref(), Some("a"), "b has not taken over");
        assert!(!a.task.is_finished() && !b.task.is_finished());
        Ok(())
    })
}

#[test]
fn a_stop_calls_off_what_waits_and_releases_it() -> Result<()> {
    play(async {
        let world = World::default();
        world.directory.borrow_mut().delay = LEASE;
        let a = member(&world, "a", 1)?;
        until("asked", || world.directory.borrow().begun == 1).await?;
        a.orders.send(Order::Leave).await?;
        assert_eq!(exit(a).await?, Exit::StoodBy);
        assert_eq!(world.ledger.borrow().activations, 0, "it never started");
        assert_eq!(who(&world), None, "nor does it get traffic");
        world.directory.borrow_mut().delay = Duration::from_millis(1);
        let _b = member(&world, "b", 2)?;
        let before = tokio::time::Instant::now();
        until("b is active", || world.ledger.borrow().leaders() > 0).await?;
        assert!(before.elapsed() < LEASE / 4, "a had released: {:?}", before.elapsed());
        Ok(())
    })
}

#[test]
fn a_stop_withdraws_before_the_workload_is_gone_and_the_exit_waits_for_it() -> Result<()> {
    play(async {
        let world = World::default();
        let a = member(&world, "a", 1)?;
        until("active", || world.ledger.borrow().leaders() > 0).await?;
        a.orders.send(Order::Leave).await?;
        until("withdrawn", || who(&world).is_none()).await?;
        assert!(world.ledger.borrow().leaders() > 0, "the workload is still stopping");
        exit(a).await?;

        let b = member(&world, "b", 2)?;
        until("active", || world.ledger.borrow().leaders() > 0).await?;
        world.directory.borrow_mut().delay = Duration::from_secs(4);
        b.orders.send(Order::Leave).await?;
        exit(b).await?;
        assert_eq!(who(&world), None);
        Ok(())
    })
}

#[test]
fn a_release_waits_for_the_withdrawal_but_only_for_a_moment() -> Result<()> {
    play(async {
        let world = World::default();
        let is_released =
            || world.stores[0].seen().record.is_some_and(|record| matches!(record.claim, Claim::Released(_)));
        for (name, delay) in [("a", Duration::from_millis(10)), ("b", LEASE / 4)] {
            let member = member(&world, name, 1)?;
            until("active", || world.ledger.borrow().leaders() > 0).await?;
            world.directory.borrow_mut().delay = delay;
            member.orders.send(Order::Leave).await?;
            until("gone", || world.ledger.borrow().leaders() == 0).await?;
            let before = tokio::time::Instant::now();
            until("released", is_released).await?;
            let is_withdrawn = who(&world).is_none();
            assert_eq!(is_withdrawn, name == "a", "one that is answered soon comes first");
            assert!(before.elapsed() < Duration::from_millis(150), "{:?}", before.elapsed());
            exit(member).await?;
            world.directory.borrow_mut().delay = Duration::from_millis(1);
        }
        Ok(())
    })
}

#[test]
fn a_member_whose_route_fails_makes_room_for_one_whose_route_works() -> Result<()> {
    play(async {
        let world = World::default();
        world.directory.borrow_mut().failures = 1;
        let a = member(&world, "a", 1)?;
        until("failed", || world.directory.borrow().failures == 0).await?;
        let _b = member(&world, "b", 2)?;
        until("active", || world.ledger.borrow().leaders() > 0).await?;
        assert_eq!(who(&world).as_deref(), Some("b"), "a stands back for a while");
        assert_eq!((world.ledger.borrow().activations, world.ledger.borrow().unpublished), (1, 0));
        assert!(!a.task.is_finished(), "it stands by");
        Ok(())
    })
}

#[test]
fn a_member_that_may_not_stand_by_leaves_with_1_when_its_route_fails_and_releases() -> Result<()> {
    play(async {
        let world = World { on_exit: OnExit::Exit, ..World::default() };
        world.directory.borrow_mut().failures = 1;
        assert_eq!(exit(member(&world, "a", 1)?).await?, Exit::Workload(1));
        assert_eq!(world.ledger.borrow().activations, 0);
        let before = tokio::time::Instant::now();
        let _b = member(&world, "b", 2)?;
        until("b is active", || world.ledger.borrow().leaders() > 0).await?;
        assert!(before.elapsed() < LEASE / 4, "a had released: {:?}", before.elapsed());
        Ok(())
    })
}

#[test]
fn a_route_that_never_answers_is_a_route_that_fails() -> Result<()> {
    play(async {
        let world = World { on_exit: OnExit::Exit, ..World::default() };
        world.directory.borrow_mut().delay = Duration::from_secs(3600);
        assert_eq!(exit(member(&world, "a", 1)?).await?, Exit::Workload(1));
        Ok(())
    })
}

#[test]
fn what_others_changed_is_published_again_but_not_over_what_is_newer() -> Result<()> {
    play(async {
        let world = World::default();
        let a = member(&world, "a", 1)?;
        until("active", || world.ledger.borrow().leaders() > 0).await?;
        for failures in [0, 1] {
            world.directory.borrow_mut().failures = failures;
            world.directory.borrow_mut().disturb(1, None);
            assert_eq!(who(&world), None);
            until("published again", || who(&world).as_deref() == Some("a")).await?;
        }
        assert_eq!((world.directory.borrow().failures, world.ledger.borrow().activations), (0, 1));

        world.directory.borrow_mut().disturb(1, Some(("b".to_owned(), Token(u64::MAX))));
        sleep(LEASE * 10).await;
        assert_eq!(who(&world).as_deref(), Some("b"));
        assert!(!a.task.is_finished() && world.ledger.borrow().leaders() > 0, "the lock decides, not the route");
        Ok(())
    })
}
