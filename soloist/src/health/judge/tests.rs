use proptest::prelude::*;

use super::*;

fn rules(rise: u32, fall: u32) -> Rules {
    let second = Duration::from_secs(1);
    Rules { interval: second * 5, timeout: second * 2, rise, fall, start: second * 30 }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(0) + Duration::from_secs(1_000 + seconds)
}

fn fail() -> Finding {
    Finding::Fail("no".to_owned())
}

fn healthy(judge: &Judge, seconds: u64) -> bool {
    judge.health(false, at(seconds)).healthy
}

#[test]
fn a_member_is_unproven_until_the_first_success() {
    let mut judge = Judge::new(rules(2, 3), Origin::Unproven);
    assert_eq!(judge.health(false, at(0)).why, "no check has succeeded yet");
    judge.observe(fail(), at(0));
    assert_eq!(judge.health(false, at(0)).why, "no check has succeeded yet, the first: no");
    judge.observe(Finding::Pass, at(5));
    assert!(healthy(&judge, 5), "rise counts only after it was unhealthy");
    assert!(healthy(&Judge::new(rules(2, 3), Origin::Trusted), 0));
}

#[test]
fn rise_and_fall_count_in_a_row_and_the_unknown_does_not_count() {
    let mut judge = Judge::new(rules(2, 3), Origin::Trusted);
    let unknown = || Finding::Unknown("killed".to_owned());
    for finding in [fail(), fail(), Finding::Pass, fail(), unknown(), fail()] {
        judge.observe(finding, at(0));
        assert!(healthy(&judge, 0));
    }
    judge.observe(fail(), at(0));
    assert_eq!(judge.health(false, at(0)).why, "failed 3 times, the last: no");
    for finding in [Finding::Pass, fail(), Finding::Pass, unknown()] {
        judge.observe(finding, at(0));
        assert!(!healthy(&judge, 0));
    }
    judge.observe(Finding::Pass, at(0));
    assert!(healthy(&judge, 0));
}

#[test]
fn failures_while_the_workload_starts_do_not_count() {
    let mut judge = Judge::new(rules(1, 1), Origin::Trusted);
    judge.workload_started(at(0));
    judge.observe(fail(), at(29));
    assert!(healthy(&judge, 29));
    judge.observe(fail(), at(30));
    assert!(!healthy(&judge, 30), "the time to start is over");

    let mut judge = Judge::new(rules(1, 1), Origin::Trusted);
    judge.workload_started(at(0));
    judge.observe(Finding::Pass, at(1));
    judge.observe(fail(), at(2));
    assert!(!healthy(&judge, 2), "it has started with its first success");
}

#[test]
fn who_gave_up_is_held_down_and_each_time_for_longer() {
    let mut judge = Judge::new(rules(1, 1), Origin::Trusted);
    let mut now = 0;
    for length in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        judge.workload_left(true, at(now));
        assert!(!healthy(&judge, now + length - 1));
        assert_eq!(judge.next_change(at(now)), Some(at(now + length)));
        now += length;
        assert!(healthy(&judge, now));
        assert_eq!(judge.next_change(at(now)), None);
    }
    judge.workload_left(false, at(now));
    assert!(healthy(&judge, now), "a planned stop costs nothing");
}

#[test]
fn ten_minutes_of_being_active_and_healthy_make_up_for_it() {
    let mut judge = Judge::new(rules(1, 1), Origin::Trusted);
    for (still_active, next) in [(599, 120), (600, 60)] {
        let mut judge = judge.clone();
        judge.workload_left(true, at(0));
        judge.tick(true, at(100));
        judge.tick(true, at(100 + still_active));
        judge.workload_left(true, at(1_000));
        assert_eq!(judge.next_change(at(1_000)), Some(at(1_000 + next)));
    }
    judge.workload_left(true, at(0));
    judge.tick(true, at(100));
    judge.tick(false, at(400));
    judge.tick(true, at(800));
    judge.workload_left(true, at(1_000));
    assert_eq!(judge.next_change(at(1_000)), Some(at(1_120)), "not in one piece");
}

#[test]
fn nobody_is_held_down_when_there_is_nobody_else() {
    let mut judge = Judge::new(rules(1, 1), Origin::Trusted);
    judge.workload_left(true, at(0));
    assert!(!judge.health(false, at(1)).healthy);
    assert!(judge.health(true, at(1)).healthy);
    judge.observe(fail(), at(1));
    assert!(!judge.health(true, at(1)).healthy, "a check that fails is another matter");
}

#[derive(Clone, Debug)]
enum Event {
    Pass,
    Fail,
    Unknown,
    Started,
    Left,
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let event = prop_oneof![
        6 => Just(Event::Pass),
        6 => Just(Event::Fail),
        1 => Just(Event::Unknown),
        1 => Just(Event::Started),
        1 => Just(Event::Left),
    ];
    proptest::collection::vec((event, 0u64..40), 0..200)
}

proptest! {
    #[test]
    fn a_verdict_never_changes_more_often_than_rise_and_fall_allow(
        rise in 1u32..5, fall in 1u32..5, unproven in any::<bool>(), events in events()
    ) {
        let origin = if unproven { Origin::Unproven } else { Origin::Trusted };
        let mut judge = Judge::new(rules(rise, fall), origin);
        let (mut now, mut passes, mut failures, mut ever_passed) = (0, 0, 0, !unproven);
        for (event, wait) in events {
            now += wait;
            let before = healthy(&judge, now);
            let reset = matches!(event, Event::Left) && origin == Origin::Trusted;
            match event {
                Event::Pass => {
                    judge.observe(Finding::Pass, at(now));
                    (passes, failures) = (passes + 1, 0);
                }
                Event::Fail => {
                    judge.observe(fail(), at(now));
                    (passes, failures) = (0, failures + 1);
                }
                Event::Unknown => judge.observe(Finding::Unknown(String::new()), at(now)),
                Event::Started => judge.workload_started(at(now)),
                Event::Left => judge.workload_left(false, at(now)),
            }
            match (before, healthy(&judge, now)) {
                (true, false) => prop_assert!(failures >= fall),
                (false, true) => prop_assert!(reset || passes >= rise || !ever_passed),
                _ => {}
            }
            ever_passed |= passes > 0;
        }
    }
}
