//! What a standby does with what it sees.

use super::rig::*;
use crate::*;

const A_MOMENT: std::time::Duration = std::time::Duration::from_millis(1);

/// Asserts that the standby tries after exactly `wait` from now, and not before.
fn tries_after(rig: &mut Rig, wait: std::time::Duration) {
    assert!(rig.try_write().is_none(), "tried at once: {:?}", rig.outputs);
    rig.after(wait - A_MOMENT);
    assert!(rig.try_write().is_none(), "tried before {wait:?}: {:?}", rig.outputs);
    rig.after(A_MOMENT);
    assert!(rig.try_write().is_some(), "did not try after {wait:?}: {:?}", rig.outputs);
}

#[test]
fn first_step_reads_the_lock() {
    let rig = Rig::standby();
    assert!(rig.reads());
    assert_eq!(rig.machine.role(), Role::Standby);
}

#[test]
fn first_sight_of_a_holder_starts_the_own_timer() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn new_attempt_restarts_the_timer() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    rig.after(ms(14_000));
    rig.see(Some(held_by("b", 1, 2)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn third_party_write_does_not_restart_the_timer_but_is_quoted() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    rig.after(ms(14_000));
    rig.see(Some(held_by("b", 1, 1)));
    tries_after(&mut rig, ms(1_000));
    assert_eq!(rig.write().0, rig.version(), "compare-and-set on the newest version");
}

#[test]
fn lease_shortened_by_the_holder_counts_from_its_first_sight() {
    let mut rig = Rig::standby();
    let mut long = held_by("b", 1, 1);
    long.lease = ms(600_000);
    rig.read(Some(long));
    rig.after(ms(1_000));
    rig.see(Some(held_by("b", 1, 2)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn lease_shortened_by_hand_does_not_shorten_the_wait() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    let mut edited = held_by("b", 1, 1);
    edited.lease = ms(1);
    rig.see(Some(edited));
    tries_after(&mut rig, LEASE);
}

#[test]
fn lease_of_the_record_is_followed_when_it_is_longer_than_the_own() {
    let mut rig = Rig::standby();
    let mut long = held_by("b", 1, 1);
    long.lease = ms(60_000);
    rig.read(Some(long));
    tries_after(&mut rig, ms(60_000));
}

#[test]
fn version_that_went_backwards_costs_the_longest_lease_even_with_a_release() {
    let mut rig = Rig::standby();
    let mut long = held_by("b", 1, 1);
    long.lease = ms(40_000);
    rig.read(Some(long));
    rig.set_version(10);
    rig.see(Some(released_by("b")));
    tries_after(&mut rig, ms(40_000));
}

#[test]
fn another_object_of_the_same_name_costs_a_lease() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    rig.step(Input::Changed);
    let version = Version { incarnation: 2, number: 500 };
    rig.step(Input::Read(Ok(Seen { version, record: Some(released_by("b")), evidence: Evidence::None })));
    tries_after(&mut rig, LEASE);
}

#[test]
fn absent_lock_is_marked_at_once_and_the_mark_costs_a_lease() {
    let mut rig = Rig::standby();
    rig.read(None);
    let (expected, mark, _) = rig.write();
    assert_eq!(expected, Version::ABSENT);
    assert!(matches!(mark.claim, Claim::Vacant(_)));
    rig.confirm();
    rig.read(Some(mark));
    tries_after(&mut rig, LEASE);
    let (expected, record, _) = rig.write();
    assert_eq!(expected, rig.version(), "the mark has a version that cannot come back");
    assert!(matches!(record.claim, Claim::Held(_)));
}

#[test]
fn absent_lock_that_somebody_else_marked_costs_the_longest_lease_from_first_sight_of_the_mark() {
    let mut rig = Rig::standby();
    rig.read(None);
    rig.after(ms(1_000));
    rig.answer_pending(Write::Conflict);
    let mut mark = record(Claim::Vacant(Vacancy { member: member("b"), attempt: Attempt { count: 1, random: 1 } }));
    mark.lease = ms(40_000);
    rig.read(Some(mark));
    tries_after(&mut rig, ms(40_000));
}

#[test]
fn lock_deleted_twice_within_a_lease_is_waited_for_anew() {
    let mut rig = Rig::standby();
    rig.read(None);
    let (mark, _) = rig.confirm();
    rig.read(Some(mark));
    rig.after(ms(10_000));
    rig.see(None);
    let (second, _) = rig.confirm();
    rig.read(Some(second));
    tries_after(&mut rig, LEASE);
}

#[test]
fn mark_that_cannot_be_written_is_tried_once_a_period() {
    let mut rig = Rig::standby();
    rig.read(None);
    rig.answer(Write::Denied("403".to_owned()));
    rig.read(None);
    assert!(rig.try_write().is_none());
    assert_eq!(rig.wake(), ms(2_000));
    assert!(rig.try_write().is_some());
}

#[test]
fn absent_lock_is_free_where_the_platform_proves_it_and_no_record_was_seen() {
    let mut rig = Rig::new(Settings { absence: Absence::Free, ..settings("a") });
    rig.read(None);
    assert!(rig.try_write().is_some());
}

#[test]
fn deleted_lock_costs_the_longest_lease_even_where_absence_is_free() {
    let mut rig = Rig::new(Settings { absence: Absence::Free, ..settings("a") });
    let mut long = held_by("b", 1, 1);
    long.lease = ms(30_000);
    rig.read(Some(long));
    rig.see(None);
    tries_after(&mut rig, ms(30_000));
}

#[test]
fn lock_that_others_delete_is_free_when_it_is_absent_unless_it_named_a_member() {
    let free_unless_held = || Rig::new(Settings { absence: Absence::FreeUnlessHeld, ..settings("a") });
    let mut rig = free_unless_held();
    rig.read(None);
    assert!(rig.try_write().is_some());
    for left in [released_by("b"), foreign(Some("consul lock"))] {
        let mut rig = free_unless_held();
        rig.read_with(Some(left), Evidence::Busy);
        rig.see(None);
        assert!(rig.try_write().is_some());
    }
    let mut rig = free_unless_held();
    rig.read(Some(held_by("b", 1, 1)));
    rig.see(None);
    let (expected, record, attempt) = rig.write();
    assert!(matches!(record.claim, Claim::Vacant(_)), "marked first: {record:?}");
    assert_eq!(expected, Version::ABSENT);
    let version = Version { incarnation: 1, number: 900 };
    rig.step(Input::Written { attempt, outcome: Write::Written(version) });
    rig.read(Some(record));
    tries_after(&mut rig, LEASE);
}

#[test]
fn release_is_taken_at_first_sight() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    rig.see(Some(released_by("b")));
    let (expected, record, _) = rig.write();
    assert_eq!(expected, rig.version());
    assert!(matches!(record.claim, Claim::Held(holder) if holder.member == rig.machine.member()));
}

#[test]
fn release_that_names_this_member_is_taken_at_first_sight() {
    let mut rig = Rig::standby();
    rig.read(Some(release("b", Some("a"))));
    assert!(rig.try_write().is_some());
}

#[test]
fn release_that_names_another_is_given_a_bounded_courtesy() {
    let mut rig = Rig::standby();
    rig.read(Some(release("b", Some("c"))));
    assert!(rig.has(|action| matches!(action, Action::StepBack { .. })), "must not be in the way");
    tries_after(&mut rig, ms(500));
}

#[test]
fn record_that_is_not_ours_waits_three_times_the_longest_lease() {
    let mut rig = Rig::standby();
    rig.read(Some(foreign(None)));
    tries_after(&mut rig, LEASE * 3);
}

#[test]
fn foreign_record_that_changes_restarts_its_timer() {
    let mut rig = Rig::standby();
    rig.read(Some(foreign(Some("stranger"))));
    rig.after(ms(40_000));
    let changed = Foreign { holder: None, fingerprint: 78, why: "somebody else wrote it".to_owned() };
    rig.see(Some(record(Claim::Foreign(changed))));
    tries_after(&mut rig, LEASE * 3);
}

#[test]
fn renewals_of_a_foreign_holder_are_no_news_but_start_its_silence_anew() {
    let notes = |rig: &Rig| rig.has(|action| matches!(action, Action::Note));
    let renewal = |fingerprint| {
        let mut renewal = foreign(Some("stranger"));
        if let Claim::Foreign(foreign) = &mut renewal.claim {
            foreign.fingerprint = fingerprint;
        }
        renewal
    };
    let mut rig = Rig::standby();
    rig.read(Some(renewal(1)));
    assert!(notes(&rig));
    rig.after(ms(2_000));
    rig.see(Some(renewal(2)));
    assert!(!notes(&rig), "{:?}", rig.outputs);
    let expected = Vigil { since: rig.now, until: rig.now + LEASE * 3 };
    assert_eq!(rig.machine.vigil(), Some(expected));
    rig.see(Some(foreign(Some("another"))));
    assert!(notes(&rig), "another holder is news");
    rig.see(Some(held_by("b", 1, 1)));
    assert_eq!(rig.machine.vigil(), None, "a live member is not waited out");
}

#[test]
fn own_name_with_another_nonce_is_another_member() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("a", 1, 1)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn holder_proven_gone_by_the_platform_is_replaced_at_once() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    rig.see_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::CgroupEmpty));
    assert!(rig.try_write().is_some());
}

#[test]
fn proof_of_a_death_is_taken_without_a_platform_lock_and_whenever_it_comes() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::None);
    assert!(rig.try_write().is_none());
    rig.after(ms(900));
    rig.step(Input::Changed);
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Terminated));
    assert!(rig.try_write().is_some());
    assert!(rig.outputs.iter().any(|output| output.reason.contains("proven gone (terminated)")), "{:?}", rig.outputs);
}

#[test]
fn late_write_of_the_dead_beats_the_one_who_has_proof_and_costs_one_more_try() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Terminated));
    assert!(rig.try_write().is_some());
    rig.answer(Write::Conflict);
    rig.see_with(Some(held_by("b", 1, 2)), Evidence::Gone(Proof::Terminated));
    rig.read_with(Some(held_by("b", 1, 2)), Evidence::Gone(Proof::Terminated));
    let (expected, ..) = rig.try_write().expect("the same activation is still dead");
    assert_eq!(expected, rig.version());
}

#[test]
fn proof_ends_with_the_activation_that_it_is_about() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Restarted));
    assert!(rig.try_write().is_some());
    rig.answer(Write::Conflict);
    rig.see(Some(held_by("c", 2, 1)));
    rig.read(Some(held_by("c", 2, 1)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn store_that_refuses_for_no_reason_is_not_asked_again_at_once_by_who_has_proof() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Terminated));
    assert!(rig.try_write().is_some());
    rig.answer(Write::Conflict);
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Terminated));
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Gone(Proof::Terminated));
    assert!(rig.try_write().is_none(), "{:?}", rig.outputs);
}

#[test]
fn holder_without_proof_costs_its_lease_and_is_reported_unproven() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Unproven);
    tries_after(&mut rig, LEASE);
    assert!(rig.outputs.iter().any(|output| output.reason.contains("unproven")), "{:?}", rig.outputs);
}

#[test]
fn busy_platform_lock_with_a_holder_that_renews_is_left_alone() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    for attempt in 2..20 {
        rig.after(ms(10_000));
        rig.see_with(Some(held_by("b", 1, attempt)), Evidence::Busy);
        assert!(rig.try_write().is_none());
    }
}

#[test]
fn busy_platform_lock_without_a_renewal_for_a_lease_is_tried() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    tries_after(&mut rig, LEASE);
}

#[test]
fn holder_that_was_evicted_is_taken_over_without_another_wait() {
    for evidence in [Evidence::Gone(Proof::CgroupEmpty), Evidence::Unproven] {
        let mut rig = Rig::standby();
        rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
        rig.after(LEASE);
        rig.answer(Write::Conflict);
        rig.read_with(Some(held_by("b", 1, 1)), evidence);
        rig.read_with(Some(held_by("b", 1, 1)), evidence);
        assert!(rig.try_write().is_some(), "{:?}", rig.outputs);
        let unproven = rig.outputs.iter().any(|output| output.reason.contains("unproven"));
        assert_eq!(unproven, evidence == Evidence::Unproven);
    }
}

#[test]
fn busy_platform_lock_with_a_release_waits_for_it_to_be_let_go() {
    let mut rig = Rig::standby();
    rig.read_with(Some(released_by("b")), Evidence::Busy);
    assert!(rig.try_write().is_none());
    rig.see_with(Some(released_by("b")), Evidence::None);
    assert!(rig.try_write().is_some());
}

#[test]
fn busy_platform_lock_that_is_not_let_go_for_a_lease_after_a_release_is_tried() {
    let mut rig = Rig::standby();
    rig.read_with(Some(released_by("b")), Evidence::Busy);
    tries_after(&mut rig, LEASE);
}

#[test]
fn busy_platform_lock_without_a_record_waits_for_a_change() {
    let mut rig = Rig::new(Settings { absence: Absence::Free, ..settings("a") });
    rig.read_with(None, Evidence::Busy);
    assert_eq!(rig.machine.next_wakeup(), None, "only a change can help");
}

#[test]
fn unhealthy_standby_does_not_stand() {
    let mut rig = Rig::standby();
    rig.step(Input::Health(false));
    rig.read(Some(released_by("b")));
    assert!(rig.try_write().is_none());
    rig.after(LEASE * 5);
    assert!(rig.try_write().is_none());
    rig.step(Input::Health(true));
    assert!(rig.try_write().is_some(), "{:?}", rig.outputs);
}

#[test]
fn lost_race_is_first_sight_again() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    rig.answer(Write::Conflict);
    assert!(rig.reads());
    rig.set_version(200);
    rig.read(Some(held_by("c", 2, 1)));
    assert_eq!(rig.machine.role(), Role::Standby);
    assert!(rig.reads());
    rig.read(Some(held_by("c", 2, 1)));
    tries_after(&mut rig, LEASE);
}

#[test]
fn unknown_acquisition_that_landed_counts_from_its_send() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    let sent = rig.now;
    rig.now = rig.now + ms(1_800);
    let (record, _) = rig.answer(Write::Unknown("timeout".to_owned()));
    assert!(!rig.starts());
    rig.wake();
    assert!(rig.reads());
    rig.set_version(150);
    rig.read(Some(record));
    assert!(rig.starts());
    assert_eq!(rig.kill_at(), sent + ms(10_000));
}

#[test]
fn unknown_acquisition_that_did_not_land_is_sent_again_against_the_same_version() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    let (expected, first, _) = rig.write();
    rig.answer(Write::Unknown("timeout".to_owned()));
    rig.wake();
    rig.read(Some(released_by("b")));
    let (again, second, _) = rig.write();
    assert_eq!(again, expected);
    let (Claim::Held(first), Claim::Held(second)) = (first.claim, second.claim) else { panic!("claims") };
    assert_eq!(first.activation, second.activation, "whichever lands, it is the same activation");
    assert_ne!(first.attempt, second.attempt);
}

#[test]
fn earlier_unknown_acquisition_that_landed_behind_a_conflict_counts_from_its_own_send() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    let sent = rig.now;
    let (first, _) = rig.answer(Write::Unknown("timeout".to_owned()));
    rig.wake();
    rig.read(Some(released_by("b")));
    rig.now = rig.now + ms(1_000);
    rig.answer(Write::Conflict);
    rig.set_version(150);
    rig.read(Some(first));
    assert!(rig.starts());
    assert_eq!(rig.kill_at(), sent + ms(10_000));
}

#[test]
fn acquisition_confirmed_too_late_is_released_and_never_started() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    rig.now = rig.now + ms(8_000);
    rig.confirm();
    assert!(!rig.starts());
    let (_, record, _) = rig.write();
    assert!(matches!(record.claim, Claim::Released(release) if release.proof == Proof::NeverStarted));
}

#[test]
fn token_that_is_not_larger_than_one_seen_is_refused() {
    let mut rig = Rig::standby();
    let mut newer = held_by("b", 1, 1);
    if let Claim::Held(holder) = &mut newer.claim {
        holder.token = Some(Token(1_000_000));
    }
    rig.read(Some(newer));
    rig.see(Some(released_by("b")));
    rig.confirm();
    assert!(!rig.starts(), "{:?}", rig.outputs);
    assert!(rig.outputs.iter().any(|output| output.reason.contains("not larger")), "{:?}", rig.outputs);
}

#[test]
fn the_token_of_an_acquiring_write_that_was_seen_counts_though_it_does_not_say_it() {
    let mut rig = Rig::standby();
    rig.set_version(1_000_000);
    let mut acquired = held_by("b", 1, 1);
    if let Claim::Held(holder) = &mut acquired.claim {
        holder.token = None;
    }
    rig.read(Some(acquired));
    // Everything was lost, and the store counts from one again.
    rig.set_version(7);
    rig.see(Some(released_by("b")));
    rig.now = rig.now + ms(15_000);
    rig.wake();
    rig.confirm();
    assert!(!rig.starts(), "{:?}", rig.outputs);
    assert!(rig.outputs.iter().any(|output| output.reason.contains("not larger")), "{:?}", rig.outputs);
}

#[test]
fn no_exit_while_an_acquiring_write_is_unresolved() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    rig.meanwhile(Input::Leave);
    assert_eq!(rig.exit(), None);
    rig.answer(Write::Unknown("timeout".to_owned()));
    assert_eq!(rig.exit(), None);
    rig.wake();
    rig.set_version(150);
    rig.read(Some(held_by("c", 3, 1)));
    assert_eq!(rig.exit(), Some(Exit::StoodBy), "the lock has moved on: nothing of ours can land any more");
}

#[test]
fn member_that_leaves_while_it_acquires_releases_what_it_got() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    rig.meanwhile(Input::Leave);
    rig.confirm();
    assert!(!rig.starts());
    assert!(matches!(rig.write().1.claim, Claim::Released(_)));
    rig.confirm();
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
}

#[test]
fn refused_acquisition_backs_off() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    rig.answer(Write::Denied("read-only file system".to_owned()));
    assert!(rig.reads());
    rig.read(Some(released_by("b")));
    tries_after(&mut rig, ms(2_000));
}

#[test]
fn throttled_acquisition_waits_as_asked_and_never_not_at_all() {
    for (asked, waited) in [(5_000, 5_000), (0, 200)] {
        let mut rig = Rig::standby();
        rig.read(Some(released_by("b")));
        rig.answer(Write::Throttled(ms(asked)));
        rig.read(Some(released_by("b")));
        tries_after(&mut rig, ms(waited));
    }
}

#[test]
fn conflict_without_a_new_version_backs_off() {
    let mut rig = Rig::standby();
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    rig.after(LEASE);
    rig.answer(Write::Conflict);
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    rig.read_with(Some(held_by("b", 1, 1)), Evidence::Busy);
    assert!(rig.try_write().is_none());
    rig.after(LEASE);
    assert!(rig.try_write().is_some());
}

#[test]
fn unreadable_lock_is_read_again_and_never_tried() {
    let mut rig = Rig::standby();
    rig.step(Input::Read(Err("timeout".to_owned())));
    assert!(rig.try_write().is_none());
    let waited = rig.wake();
    assert_eq!(waited, ms(2_000));
    assert!(rig.reads());
}

#[test]
fn change_during_a_read_is_read_again() {
    let mut rig = Rig::standby();
    rig.step(Input::Changed);
    assert!(!rig.reads(), "one operation at a time");
    rig.read(Some(held_by("b", 1, 1)));
    assert!(rig.reads());
}

#[test]
fn every_output_has_a_reason() {
    let mut rig = Rig::standby();
    rig.read(Some(released_by("b")));
    let mut outputs = rig.outputs.clone();
    rig.confirm();
    outputs.extend(rig.outputs.clone());
    assert!(outputs.iter().all(|output| !output.reason.is_empty()));
}

#[test]
fn standby_leaves_at_once() {
    let mut rig = Rig::standby();
    rig.read(Some(held_by("b", 1, 1)));
    rig.step(Input::Leave);
    assert_eq!(rig.exit(), Some(Exit::StoodBy));
    assert_eq!(rig.machine.role(), Role::Ended);
}

#[test]
fn rewound_lock_that_names_an_ended_activation_is_not_released_into() {
    let mut rig = Rig::active();
    let own = rig.own(Attempt { count: 1, random: 1 });
    rig.see(Some(held_by("b", 5, 1)));
    rig.step(Input::Gone { proof: Proof::NoChildLeft, released: None });
    rig.read(Some(held_by("b", 5, 2)));
    rig.set_version(50);
    rig.see(Some(own));
    tries_after(&mut rig, LEASE);
}
