//! Switchover, pause, health, fencing by an operator.

use std::time::Duration;

use super::rig::*;
use crate::*;

fn candidates(rig: &mut Rig, names: &[&str]) {
    rig.step(Input::Candidates(names.iter().map(|name| (*name).to_owned()).collect()));
}

fn switchover(to: Option<&str>) -> Request {
    Request::Switchover { to: to.map(str::to_owned) }
}

fn pause(seconds: u64) -> Request {
    Request::Pause { length: ms(seconds * 1_000), until_unix_ms: 1 }
}

#[test]
fn switchover_stops_and_the_release_names_the_successor() {
    let mut rig = Rig::active();
    candidates(&mut rig, &["b", "c"]);
    rig.request(switchover(Some("c"))).unwrap();
    assert_eq!(rig.stops().unwrap(), (ms(10_000), Some("c".to_owned())));
    rig.step(Input::Gone { proof: Proof::NoChildLeft, released: None });
    let (_, record, _) = rig.write();
    assert!(matches!(record.claim, Claim::Released(release) if release.successor.as_deref() == Some("c")));
    rig.confirm();
    assert_eq!(rig.machine.role(), Role::Standby);
}

/// A member that has handed over to c on request, and has read what the lock says since: c released after `time`.
fn handed_over_and_then(time: Duration, successor: Option<&str>) -> Rig {
    let mut rig = Rig::active();
    candidates(&mut rig, &["c"]);
    rig.request(switchover(Some("c"))).unwrap();
    rig.step(Input::Gone { proof: Proof::NoChildLeft, released: None });
    let (record, _) = rig.confirm();
    rig.read(Some(record));
    rig.see(Some(held_by("c", 1, 1)));
    rig.after(time);
    rig.see(Some(release("c", successor)));
    rig
}

#[test]
fn who_has_just_handed_over_and_is_named_takes_over_at_once() {
    let rig = handed_over_and_then(ms(20), Some("a"));
    assert!(rig.try_write().is_some(), "{:?}", rig.outputs);
    assert!(rig.has(|action| matches!(action, Action::StepBack { pause } if pause.is_zero())), "it must queue at once");
}

#[test]
fn who_has_just_handed_over_and_is_not_named_lets_the_others_go_first() {
    for successor in [None, Some("b")] {
        let mut rig = handed_over_and_then(ms(20), successor);
        assert!(rig.try_write().is_none(), "{:?}", rig.outputs);
        assert!(rig.wake() >= ms(500), "{successor:?}");
    }
}

#[test]
fn switchover_to_anybody_names_the_first_candidate() {
    let mut rig = Rig::active();
    candidates(&mut rig, &["a", "b"]);
    rig.request(switchover(None)).unwrap();
    assert_eq!(rig.stops().unwrap().1.as_deref(), Some("b"), "never the member itself");
}

#[test]
fn switchover_to_an_unknown_member_or_to_nobody_is_refused() {
    let mut rig = Rig::active();
    let mut kind = |to| rig.request(switchover(to)).unwrap_err().kind;
    assert_eq!(kind(Some("b")), RefusalKind::NoCandidate);
    assert_eq!(kind(Some("a")), RefusalKind::Conflict, "it is active already");
    assert_eq!(kind(None), RefusalKind::NoCandidate);
    assert_eq!(rig.machine.role(), Role::Active);
}

#[test]
fn second_switchover_is_refused_while_the_first_is_under_way() {
    let mut rig = Rig::active();
    candidates(&mut rig, &["b", "c"]);
    rig.request(switchover(Some("b"))).unwrap();
    let refusal = rig.request(switchover(Some("c"))).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.why.contains("already stopping"), "{refusal:?}");
}

#[test]
fn standby_refuses_what_only_the_active_member_can_grant() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    for request in [switchover(None), pause(60), Request::Resume] {
        assert!(rig.request(request).unwrap_err().why.contains("not active"));
    }
}

#[test]
fn pause_writes_a_long_lease_and_the_longer_deadline_counts_only_after_confirmation() {
    let mut rig = Rig::active();
    rig.after(ms(1_000));
    let before = rig.kill_at();
    rig.request(pause(1_800)).unwrap();
    let (_, record, _) = rig.write();
    assert_eq!(record.lease, ms(1_815_000));
    assert_eq!(record.paused_until_unix_ms, Some(1));
    assert_eq!(rig.kill_at(), before, "not before it is confirmed");
    let sent = rig.now;
    rig.confirm();
    assert!(rig.kill_at() > sent + ms(1_200_000), "an outage of the store inside the pause stops nobody");
}

#[test]
fn every_renewal_of_a_pause_carries_what_is_left_of_it() {
    let mut rig = Rig::active();
    rig.request(pause(60)).unwrap();
    rig.confirm();
    let mut last = ms(75_000);
    while rig.now.since(Instant::from_nanos(0)) < ms(1_061_000) {
        rig.wake();
        if rig.try_write().is_some() {
            let before = rig.kill_at();
            let (_, record, _) = rig.write();
            assert!(record.lease <= last, "{:?} after {last:?}", record.lease);
            last = record.lease;
            rig.confirm();
            assert!(rig.kill_at() >= before && rig.kill_at() <= rig.now + record.lease);
        }
    }
    assert_eq!(last, LEASE, "the pause ended by itself");
}

#[test]
fn resume_shortens_the_deadline_before_it_is_sent_whatever_the_answer() {
    let mut rig = Rig::active();
    rig.request(pause(1_800)).unwrap();
    rig.confirm();
    rig.after(ms(1_000));
    rig.request(Request::Resume).unwrap();
    assert_eq!(rig.write().1.lease, LEASE);
    assert_eq!(rig.kill_at(), rig.now + ms(10_000));
    rig.answer(Write::Unknown("timeout".to_owned()));
    assert!(rig.kill_at() <= rig.now + ms(10_000));
}

#[test]
fn pause_of_nothing_or_of_more_than_a_day_is_refused() {
    let mut rig = Rig::active();
    assert!(rig.request(pause(0)).is_err());
    assert!(rig.request(pause(90_000)).is_err());
    assert!(rig.request(Request::Resume).unwrap_err().why.contains("no pause"));
}

#[test]
fn pause_is_refused_where_a_foreign_holder_was_seen() {
    let mut rig = Rig::standby();
    rig.read(Some(foreign(None)));
    rig.see(Some(released_by("b")));
    rig.confirm();
    assert!(rig.request(pause(60)).unwrap_err().why.contains("foreign"));
}

#[test]
fn acquiring_sets_the_own_lease_and_ends_a_pause() {
    let mut rig = Rig::standby();
    let mut paused = released_by("b");
    paused.lease = ms(1_815_000);
    paused.paused_until_unix_ms = Some(5);
    rig.read(Some(paused));
    let (_, record, _) = rig.write();
    assert_eq!((record.lease, record.paused_until_unix_ms), (LEASE, None));
}

#[test]
fn unhealthy_active_member_gives_up_where_another_is_healthy() {
    let mut rig = Rig::active();
    rig.step(Input::Health(false));
    assert_eq!(rig.machine.role(), Role::Active, "a group whose every member is unhealthy keeps the present one");
    candidates(&mut rig, &["b"]);
    assert_eq!(rig.stops().unwrap().1.as_deref(), Some("b"));
}

#[test]
fn fencing_by_an_operator_takes_over_exactly_that_activation() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    assert!(rig.request(Request::Fenced { activation: Activation(2) }).is_err());
    assert!(rig.try_write().is_none());
    rig.request(Request::Fenced { activation: Activation(1) }).unwrap();
    assert!(rig.try_write().is_some(), "{:?}", rig.outputs);
}

#[test]
fn active_member_cannot_be_fenced_by_asking_it() {
    let mut rig = Rig::active();
    let (activation, ..) = rig.machine.activation().unwrap();
    assert!(rig.request(Request::Fenced { activation }).is_err());
}
