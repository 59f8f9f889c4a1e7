//! What the active member does with the answers of the store.

use super::rig::*;
use crate::*;

/// Lets the next renewal become due and returns when it was sent.
fn renew(rig: &mut Rig) -> Instant {
    while rig.try_write().is_none() {
        rig.wake();
    }
    rig.now
}

#[test]
fn confirmed_renewal_counts_from_its_send() {
    let mut rig = Rig::active();
    let sent = renew(&mut rig);
    rig.now = rig.now + ms(1_500);
    rig.confirm();
    assert_eq!(rig.kill_at(), sent + ms(10_000));
    assert!(rig.has(|action| matches!(action, Action::Extend { .. })));
}

#[test]
fn renewals_are_sent_every_period_counted_from_the_send_and_jitter_only_shortens() {
    let mut rig = Rig::active();
    for _ in 0..50 {
        let before = rig.now;
        let sent = renew(&mut rig);
        let gap = sent.since(before);
        assert!(gap <= ms(2_000) && gap >= ms(1_799), "{gap:?}");
        rig.confirm();
    }
}

#[test]
fn every_attempt_has_an_id_of_its_own_and_the_token_stays() {
    let mut rig = Rig::active();
    let token = rig.machine.activation().unwrap().1;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        renew(&mut rig);
        let (record, attempt) = rig.confirm();
        assert!(seen.insert(attempt));
        assert!(matches!(record.claim, Claim::Held(holder) if holder.token == Some(token)));
    }
    assert_eq!(token, Token(101), "the version that the acquiring write was answered with");
}

#[test]
fn own_conflict_with_own_attempt_is_rebased_at_once_and_counts_from_that_send() {
    let mut rig = Rig::active();
    let first_sent = renew(&mut rig);
    let (first, _) = rig.answer(Write::Unknown("reset".to_owned()));
    renew(&mut rig);
    rig.answer(Write::Conflict);
    assert!(rig.reads());
    rig.set_version(150);
    rig.read(Some(first));
    assert_eq!(rig.kill_at(), first_sent + ms(10_000));
    assert_eq!(rig.machine.role(), Role::Active);
    renew(&mut rig);
    assert_eq!(rig.write().0, rig.version(), "the next one quotes the version that was read");
}

#[test]
fn record_edited_around_the_own_attempt_is_rewritten_and_extends_nothing() {
    let mut rig = Rig::active();
    renew(&mut rig);
    let (_, attempt) = rig.confirm();
    let kill_at = rig.kill_at();
    rig.after(ms(100));
    let edited = Record { lease: ms(1_000), ..rig.own(attempt) };
    rig.see(Some(edited));
    assert_eq!(rig.kill_at(), kill_at);
    let (expected, record, _) = rig.write();
    assert_eq!((expected, record.lease), (rig.version(), LEASE));
}

#[test]
fn what_others_keep_beside_the_record_costs_no_write_and_puts_off_none() {
    let mut rig = Rig::active();
    renew(&mut rig);
    let (_, attempt) = rig.confirm();
    let (due, kill_at) = (rig.machine.next_wakeup(), rig.kill_at());
    rig.after(ms(100));
    rig.see(Some(rig.own(attempt)));
    assert!(rig.try_write().is_none());
    assert_eq!((rig.machine.next_wakeup(), rig.kill_at()), (due, kill_at));
    renew(&mut rig);
    assert_eq!(rig.write().0, rig.version(), "the next renewal quotes the new version");
    // Once more, and this time the renewal comes too late to know of it.
    rig.answer(Write::Conflict);
    assert!(rig.reads());
    rig.set_version(rig.version().number + 1);
    rig.read(Some(rig.own(attempt)));
    assert_eq!(rig.write().0, rig.version(), "written again at once");
    assert_eq!(rig.kill_at(), kill_at, "and nothing is extended before that");
}

#[test]
fn attempt_that_was_never_sent_means_a_clone_and_stops_at_once_with_a_new_nonce() {
    let mut rig = Rig::active();
    let nonce = rig.machine.member().nonce;
    rig.see(Some(rig.own(Attempt { count: 999, random: 1 })));
    assert!(rig.kills());
    assert_ne!(rig.machine.member().nonce, nonce);
}

#[test]
fn another_member_in_the_lock_stops_the_workload_at_once() {
    let mut rig = Rig::active();
    rig.see(Some(held_by("b", 5, 1)));
    assert!(rig.kills());
    assert_eq!(rig.machine.role(), Role::Stopping);
}

#[test]
fn conflict_that_shows_another_member_stops_the_workload_at_once() {
    let mut rig = Rig::active();
    renew(&mut rig);
    rig.answer(Write::Conflict);
    rig.set_version(150);
    rig.read(Some(held_by("b", 5, 1)));
    assert!(rig.kills());
}

#[test]
fn same_name_with_another_nonce_stops_the_workload_at_once() {
    let mut rig = Rig::active();
    rig.see(Some(held_by("a", 5, 1)));
    assert!(rig.kills());
}

#[test]
fn lock_replaced_under_the_holder_stops_the_workload_at_once() {
    let mut rig = Rig::active();
    renew(&mut rig);
    rig.answer(Write::Lost("the lock file was replaced".to_owned()));
    assert!(rig.kills());
}

#[test]
fn answer_older_than_the_own_newest_is_ignored() {
    let mut rig = Rig::active();
    renew(&mut rig);
    rig.confirm();
    rig.set_version(50);
    rig.see(Some(held_by("b", 5, 1)));
    assert_eq!(rig.machine.role(), Role::Active);
    assert!(!rig.kills());
}

#[test]
fn released_by_somebody_else_counts_as_another_activation() {
    let mut rig = Rig::active();
    let (activation, ..) = rig.machine.activation().unwrap();
    let mut forged = released_by("a");
    if let Claim::Released(release) = &mut forged.claim {
        release.activation = activation;
    }
    rig.see(Some(forged));
    assert!(rig.kills());
}

#[test]
fn foreign_record_that_names_nobody_is_contested_and_rewritten_without_an_extension() {
    for holder in [None, Some("a")] {
        let mut rig = Rig::active();
        let kill_at = rig.kill_at();
        rig.after(ms(500));
        rig.see(Some(foreign(holder)));
        if rig.try_write().is_none() {
            rig.wake();
        }
        assert_eq!(rig.kill_at(), kill_at);
        assert_eq!(rig.write().0, rig.version());
        let sent = rig.now;
        rig.confirm();
        assert_eq!(rig.kill_at(), sent + ms(10_000), "only the answer extends");
    }
}

#[test]
fn foreign_record_that_names_another_stops_the_workload_at_once() {
    let mut rig = Rig::active();
    rig.see(Some(foreign(Some("stranger"))));
    assert!(rig.kills());
}

#[test]
fn mark_of_an_observer_in_place_of_the_record_is_rewritten_and_extends_nothing() {
    let mut rig = Rig::active();
    let kill_at = rig.kill_at();
    rig.after(ms(500));
    let mark = Vacancy { member: member("b"), attempt: Attempt { count: 1, random: 1 } };
    rig.see(Some(record(Claim::Vacant(mark))));
    if rig.try_write().is_none() {
        rig.wake();
    }
    assert_eq!((rig.kill_at(), rig.write().0), (kill_at, rig.version()));
}

#[test]
fn conflict_with_an_older_state_means_that_the_store_went_back_and_stops_the_workload() {
    let mut rig = Rig::active();
    renew(&mut rig);
    rig.answer(Write::Conflict);
    rig.set_version(50);
    rig.read(Some(held_by("b", 5, 1)));
    assert!(rig.kills());
}

#[test]
fn conflict_of_a_create_goes_back_to_the_version_that_is_known() {
    let mut rig = Rig::active();
    let known = rig.version();
    rig.see(None);
    while rig.try_write().is_none() {
        rig.wake();
    }
    assert_eq!(rig.write().0, Version::ABSENT);
    rig.answer(Write::Conflict);
    rig.step(Input::Read(Err("timeout".to_owned())));
    renew(&mut rig);
    assert_eq!(rig.write().0, known);
}

#[test]
fn change_notices_never_put_off_a_renewal_that_is_due() {
    let mut rig = Rig::active();
    rig.step(Input::Changed);
    assert!(rig.reads());
    rig.now = rig.now + ms(2_500);
    rig.step(Input::Changed);
    rig.step(Input::Read(Err("timeout".to_owned())));
    renew(&mut rig);
    rig.confirm();
    assert!(rig.reads(), "the notice is heeded afterwards");
}

#[test]
fn vanished_lock_is_created_again_keeps_its_token_and_extends_nothing_before() {
    let mut rig = Rig::active();
    let (_, token, kill_at) = rig.machine.activation().unwrap();
    renew(&mut rig);
    rig.answer(Write::Gone);
    assert_eq!(rig.kill_at(), kill_at);
    renew(&mut rig);
    assert_eq!(rig.write().0, Version::ABSENT);
    let sent = rig.now;
    rig.confirm();
    let (_, after, kill_at) = rig.machine.activation().unwrap();
    assert_eq!((after, kill_at), (token, sent + ms(10_000)));
}

#[test]
fn denied_throttled_and_unknown_never_extend() {
    let outcomes =
        [Write::Denied("403".to_owned()), Write::Throttled(ms(100)), Write::Unknown("timeout".to_owned()), Write::Gone];
    for outcome in outcomes {
        let mut rig = Rig::active();
        let kill_at = rig.kill_at();
        let mut tries = 0;
        while rig.stops().is_none() && !rig.kills() {
            if rig.try_write().is_some() {
                tries += 1;
                rig.now = rig.now + ms(200);
                rig.answer(outcome.clone());
            } else if rig.reads() {
                rig.step(Input::Read(Err("timeout".to_owned())));
            } else {
                rig.wake();
            }
            assert_eq!(rig.kill_at(), kill_at, "{outcome:?}");
        }
        assert!(tries >= 3, "{outcome:?}: at least three attempts fit, got {tries}");
        assert!(rig.now + ms(2_000) >= kill_at, "{outcome:?}: gave up too early");
        assert!(rig.now < kill_at, "{outcome:?}: gave up too late");
    }
}

#[test]
fn three_slow_attempts_fit_before_the_loss_grace() {
    let mut rig = Rig::active();
    let limit = rig.machine.timing().attempt_limit();
    let mut tries = 0;
    while rig.stops().is_none() {
        if rig.try_write().is_some() {
            tries += 1;
            let (_, _, attempt) = rig.write();
            rig.now = rig.now + limit;
            rig.step(Input::Written { attempt, outcome: Write::Unknown("timeout".to_owned()) });
        } else {
            rig.wake();
        }
    }
    assert!(tries >= 3, "{tries}");
}

#[test]
fn throttling_is_honoured_only_within_the_budget() {
    let mut rig = Rig::active();
    renew(&mut rig);
    rig.answer(Write::Throttled(ms(60_000)));
    let waited = rig.wake();
    assert!(waited <= ms(2_100), "{waited:?}");
    assert!(rig.try_write().is_some());
}

#[test]
fn out_of_time_stops_a_grace_before_the_deadline_and_is_irreversible() {
    let mut rig = Rig::active();
    let kill_at = rig.kill_at();
    renew(&mut rig);
    let (_, record, attempt) = rig.write();
    while rig.stops().is_none() {
        rig.wake();
    }
    assert_eq!(rig.now, kill_at - ms(2_000));
    assert_eq!(rig.stops().unwrap().0, ms(2_000));
    rig.set_version(150);
    rig.step(Input::Written { attempt, outcome: Write::Written(rig.version()) });
    assert_eq!(rig.machine.role(), Role::Stopping, "a late confirmation does not bring it back");
    drop(record);
    assert!(rig.kill_at() > kill_at, "but it gives the stop the time that the lease has");
}

#[test]
fn pause_of_the_whole_process_past_the_deadline_stops_on_the_first_step() {
    let mut rig = Rig::active();
    rig.now = rig.now + ms(60_000);
    rig.step(Input::Wake);
    let (grace, _) = rig.stops().expect("stops at once");
    assert!(grace.is_zero(), "{grace:?}");
}

#[test]
fn lateness_beyond_half_of_what_is_assumed_shrinks_the_deadline() {
    let mut rig = Rig::active();
    let kill_at = rig.kill_at();
    rig.step(Input::Measured { lateness: ms(200), proof: ms(0) });
    assert_eq!(rig.kill_at(), kill_at, "less than half changes nothing");
    rig.step(Input::Measured { lateness: ms(1_500), proof: ms(0) });
    assert!(rig.kill_at() < kill_at);
    assert!(rig.has(|action| matches!(action, Action::Extend { .. })));
}

#[test]
fn lateness_that_fits_once_but_not_twice_is_taken_as_it_is() {
    let mut rig = Rig::active();
    rig.step(Input::Measured { lateness: ms(5_500), proof: ms(0) });
    assert_eq!(rig.machine.role(), Role::Active);
    assert_eq!(rig.machine.timing().lateness(), ms(5_500));
}

#[test]
fn lateness_that_no_deadline_can_cover_gives_the_role_up() {
    let mut rig = Rig::active();
    rig.step(Input::Measured { lateness: ms(14_000), proof: ms(0) });
    assert!(rig.stops().is_some());
}

#[test]
fn change_notice_is_read_and_costs_no_renewal() {
    let mut rig = Rig::active();
    renew(&mut rig);
    let (_, attempt) = rig.confirm();
    let due = rig.machine.next_wakeup();
    rig.step(Input::Changed);
    assert!(rig.reads());
    rig.read(Some(rig.own(attempt)));
    assert_eq!(rig.machine.next_wakeup(), due);
}

#[test]
fn first_of_very_many_unanswered_renewals_is_still_known_when_it_is_read_back() {
    let mut rig = Rig::active();
    rig.request(Request::Pause { length: ms(3_600_000), until_unix_ms: 1 }).unwrap();
    rig.confirm();
    renew(&mut rig);
    let (first, _) = rig.answer(Write::Unknown("reset".to_owned()));
    for _ in 0..100 {
        renew(&mut rig);
        rig.answer(Write::Unknown("reset".to_owned()));
    }
    renew(&mut rig);
    rig.answer(Write::Conflict);
    rig.set_version(150);
    rig.read(Some(first));
    assert_eq!(rig.machine.role(), Role::Active);
}

#[test]
fn stale_answers_after_an_absent_one_do_not_look_like_a_clone() {
    let mut rig = Rig::active();
    renew(&mut rig);
    let (earlier, _) = rig.confirm();
    let old = rig.version().number;
    renew(&mut rig);
    rig.confirm();
    rig.see(None);
    rig.set_version(old);
    if rig.try_write().is_some() {
        rig.answer(Write::Conflict);
    }
    rig.step(Input::Changed);
    rig.read(Some(earlier));
    assert_eq!(rig.machine.role(), Role::Active);
}
