//! Stop, proof, release; and what comes after.

use super::rig::*;
use crate::*;

const GONE: Input = Input::Gone { proof: Proof::NoChildLeft, released: None };

#[test]
fn asked_to_leave_it_stops_first_proves_then_releases_then_exits() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    assert_eq!(rig.stops().unwrap().0, ms(10_000));
    assert!(rig.try_write().is_none(), "no release before the proof");
    rig.step(Input::Exited { code: 143 });
    assert!(rig.try_write().is_none());
    rig.step(GONE);
    let (_, record, _) = rig.write();
    assert!(matches!(record.claim, Claim::Released(release) if release.proof == Proof::NoChildLeft));
    assert_eq!(rig.exit(), None, "no exit before the release is stored");
    rig.confirm();
    assert_eq!(rig.exit(), Some(Exit::Workload(143)));
}

#[test]
fn lock_is_renewed_while_the_workload_stops() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    for _ in 0..30 {
        rig.wake();
        if rig.try_write().is_some() {
            let (record, _) = rig.confirm();
            assert!(matches!(record.claim, Claim::Held(_)));
        }
    }
    assert_eq!(rig.machine.role(), Role::Stopping, "a workload that cannot be killed is never released");
}

#[test]
fn release_written_by_the_guard_is_not_written_again() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    rig.step(Input::Exited { code: 0 });
    rig.set_version(130);
    let released = Some(rig.version());
    rig.step(Input::Gone { proof: Proof::CgroupEmpty, released });
    assert!(rig.try_write().is_none());
    assert_eq!(rig.exit(), Some(Exit::Workload(0)));
}

#[test]
fn release_of_the_guard_that_is_seen_before_its_report_is_no_alarm() {
    let mut rig = Rig::active();
    let (activation, ..) = rig.machine.activation().unwrap();
    rig.step(Input::Leave);
    let mut release = released_by("a");
    if let Claim::Released(release) = &mut release.claim {
        release.activation = activation;
    }
    rig.see(Some(release));
    assert!(!rig.kills() && rig.try_write().is_none());
    rig.step(Input::Gone { proof: Proof::CgroupEmpty, released: Some(rig.version()) });
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
}

#[test]
fn release_of_the_guard_that_is_seen_before_it_says_that_the_workload_ended_keeps_its_code() {
    let mut rig = Rig::active();
    let (activation, ..) = rig.machine.activation().unwrap();
    let mut release = released_by("a");
    if let Claim::Released(release) = &mut release.claim {
        release.activation = activation;
    }
    rig.see(Some(release));
    assert!(rig.kills());
    rig.step(Input::Exited { code: 3 });
    rig.step(Input::Gone { proof: Proof::CgroupEmpty, released: Some(rig.version()) });
    assert_eq!(rig.exit(), Some(Exit::Workload(3)));
}

#[test]
fn renewal_under_way_when_the_workload_goes_is_no_release() {
    let mut rig = Rig::active();
    while rig.try_write().is_none() {
        rig.wake();
    }
    rig.meanwhile(Input::Leave);
    rig.meanwhile(GONE);
    rig.confirm();
    assert_eq!(rig.exit(), None);
    let (expected, record, _) = rig.write();
    assert_eq!(expected, rig.version());
    assert!(matches!(record.claim, Claim::Released(_)));
}

#[test]
fn renewal_that_landed_unseen_is_rebased_before_the_release() {
    let mut rig = Rig::active();
    while rig.try_write().is_none() {
        rig.wake();
    }
    let (landed, _) = rig.answer(Write::Unknown("timeout".to_owned()));
    rig.step(Input::Leave);
    rig.step(GONE);
    rig.answer(Write::Conflict);
    rig.set_version(160);
    rig.read(Some(landed));
    let (expected, record, _) = rig.write();
    assert_eq!(expected, rig.version());
    assert!(matches!(record.claim, Claim::Released(_)));
}

#[test]
fn unknown_release_is_read_back_and_written_once() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    rig.step(GONE);
    let (release, _) = rig.answer(Write::Unknown("timeout".to_owned()));
    rig.wake();
    rig.answer(Write::Conflict);
    rig.set_version(160);
    rig.read(Some(release));
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
}

#[test]
fn release_that_cannot_be_stored_ends_when_every_observer_has_waited_it_out() {
    let mut rig = Rig::active();
    let start = rig.now;
    rig.step(Input::Leave);
    rig.step(GONE);
    while rig.exit().is_none() {
        if rig.try_write().is_some() {
            rig.answer(Write::Denied("disk full".to_owned()));
        } else {
            rig.wake();
        }
        assert!(rig.now.since(start) < ms(60_000), "bounded");
    }
    assert!(rig.now.since(start) >= LEASE);
}

#[test]
fn lost_lock_is_never_written_by_its_former_holder() {
    let mut rig = Rig::active();
    rig.see(Some(held_by("b", 5, 1)));
    assert!(rig.kills());
    for _ in 0..10 {
        rig.after(ms(1_000));
        assert!(rig.try_write().is_none());
    }
    rig.step(GONE);
    assert!(rig.try_write().is_none());
    assert_eq!(rig.machine.role(), Role::Standby, "contends again");
}

#[test]
fn lost_role_leaves_with_on_loss_exit() {
    let mut rig = Rig::active_with(Settings { on_loss: OnLoss::Exit, ..settings("a") });
    rig.see(Some(held_by("b", 5, 1)));
    rig.step(GONE);
    assert_eq!(rig.exit(), Some(Exit::LeaseLost));
}

#[test]
fn death_of_the_guard_kills_then_releases_then_stands_by() {
    let mut rig = Rig::active();
    rig.step(Input::GuardLost);
    assert!(rig.kills());
    rig.step(GONE);
    assert!(matches!(rig.write().1.claim, Claim::Released(_)));
    rig.confirm();
    assert_eq!(rig.machine.role(), Role::Standby);
    assert!(rig.reads());
}

#[test]
fn workload_that_is_out_of_sight_is_never_released() {
    let mut rig = Rig::active();
    rig.step(Input::Forsaken);
    assert!(rig.try_write().is_none());
    assert_eq!(rig.exit(), Some(Exit::LeaseLost));
}

#[test]
fn workload_that_ends_by_itself_is_released_and_its_code_is_kept() {
    let mut rig = Rig::active();
    rig.step(Input::Exited { code: 3 });
    assert!(rig.try_write().is_none());
    rig.step(GONE);
    rig.confirm();
    assert_eq!(rig.exit(), Some(Exit::Workload(3)));
}

#[test]
fn workload_that_ends_by_itself_names_who_goes_first() {
    let mut rig = Rig::active();
    rig.step(Input::Candidates(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
    rig.step(Input::Exited { code: 3 });
    rig.step(GONE);
    assert!(matches!(rig.write().1.claim, Claim::Released(release) if release.successor.as_deref() == Some("b")));
}

#[test]
fn restart_names_the_member_itself_and_starts_a_new_activation() {
    let mut rig = Rig::active_with(Settings { on_exit: OnExit::Restart, ..settings("a") });
    let (first, token, _) = rig.machine.activation().unwrap();
    for _ in 0..6 {
        rig.wake();
        if rig.try_write().is_some() {
            rig.confirm();
        }
    }
    rig.step(Input::Exited { code: 3 });
    rig.step(GONE);
    let (release, _) = rig.confirm();
    assert!(matches!(&release.claim, Claim::Released(release) if release.successor.as_deref() == Some("a")));
    rig.read(Some(release));
    rig.confirm();
    assert!(rig.starts());
    let (second, larger, _) = rig.machine.activation().unwrap();
    assert_ne!(first, second);
    assert!(larger > token);
}

#[test]
fn workload_that_ends_quickly_is_not_restarted_at_once() {
    let mut rig = Rig::active_with(Settings { on_exit: OnExit::Restart, ..settings("a") });
    rig.step(Input::Exited { code: 3 });
    rig.step(GONE);
    let (release, _) = rig.confirm();
    rig.read(Some(release));
    assert!(rig.try_write().is_none());
    rig.after(ms(2_000));
    assert!(rig.try_write().is_some());
}

#[test]
fn workload_that_ends_leaves_a_standby_with_on_exit_standby() {
    let mut rig = Rig::active_with(Settings { on_exit: OnExit::Standby, ..settings("a") });
    rig.step(Input::Exited { code: 0 });
    rig.step(GONE);
    let (release, _) = rig.confirm();
    rig.read(Some(release));
    assert_eq!(rig.machine.role(), Role::Standby);
    assert!(rig.try_write().is_none(), "others may go first");
    rig.after(ms(1_000));
    assert!(rig.try_write().is_some());
}

#[test]
fn ended_activation_that_is_seen_again_is_released_once_more() {
    let mut rig = Rig::active();
    let (activation, ..) = rig.machine.activation().unwrap();
    let own = rig.own(Attempt { count: 1, random: 1 });
    rig.step(Input::GuardLost);
    rig.step(GONE);
    rig.confirm();
    rig.read(Some(released_by("a")));
    rig.set_version(500);
    rig.see(Some(own));
    let (expected, record, _) = rig.write();
    assert_eq!(expected, rig.version());
    assert!(matches!(record.claim, Claim::Released(release) if release.activation == activation));
}

#[test]
fn second_request_to_leave_shortens_the_grace_and_skips_nothing() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    rig.step(Input::Leave);
    assert_eq!(rig.stops().unwrap().0, ms(1_000));
    assert_eq!(rig.exit(), None);
    rig.step(GONE);
    assert!(matches!(rig.write().1.claim, Claim::Released(_)));
}

#[test]
fn workload_that_the_guard_ended_on_its_own_is_released() {
    let mut rig = Rig::active();
    rig.step(GONE);
    assert!(matches!(rig.write().1.claim, Claim::Released(_)));
}

#[test]
fn record_that_names_nobody_after_the_deadline_is_not_written_over() {
    let mark = Vacancy { member: member("b"), attempt: Attempt { count: 1, random: 1 } };
    for claim in [foreign(None).claim, Claim::Vacant(mark)] {
        let mut rig = Rig::active();
        rig.now = rig.now + ms(12_000);
        rig.step(Input::Wake);
        while rig.try_write().is_none() {
            rig.wake();
        }
        rig.meanwhile(GONE);
        rig.answer(Write::Conflict);
        rig.set_version(170);
        rig.read(Some(record(claim)));
        assert!(rig.try_write().is_none(), "{:?}", rig.outputs);
        assert_eq!(rig.machine.role(), Role::Standby, "{:?}", rig.outputs);
    }
}

#[test]
fn record_that_names_nobody_after_a_release_was_sent_is_not_written_over() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    rig.step(GONE);
    rig.answer(Write::Unknown("timeout".to_owned()));
    rig.wake();
    rig.answer(Write::Conflict);
    rig.set_version(170);
    rig.read(Some(foreign(None)));
    assert!(
        rig.try_write().is_none(),
        "the release may have landed, and somebody may have followed: {:?}",
        rig.outputs
    );
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
}

#[test]
fn release_of_the_guard_into_a_rewound_lock_is_not_trusted() {
    let mut rig = Rig::active_with(Settings { on_exit: OnExit::Standby, ..settings("a") });
    rig.step(Input::Exited { code: 0 });
    rig.set_version(50);
    rig.step(Input::Gone { proof: Proof::CgroupEmpty, released: Some(rig.version()) });
    rig.read(Some(released_by("a")));
    rig.after(ms(5_000));
    assert!(rig.try_write().is_none(), "{:?}", rig.outputs);
}

#[test]
fn lock_that_vanished_is_not_created_after_the_deadline() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    let kill_at = rig.kill_at();
    while rig.now < kill_at {
        rig.wake();
        if rig.try_write().is_some() {
            rig.answer(Write::Unknown("timeout".to_owned()));
        }
    }
    while rig.try_write().is_none() {
        rig.wake();
    }
    rig.answer(Write::Gone);
    rig.after(ms(5_000));
    assert!(rig.try_write().is_none(), "{:?}", rig.outputs);
}

#[test]
fn absent_lock_is_not_released_into() {
    let mut rig = Rig::active();
    rig.step(Input::Leave);
    rig.step(GONE);
    rig.answer(Write::Gone);
    assert!(rig.try_write().is_none());
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
}
