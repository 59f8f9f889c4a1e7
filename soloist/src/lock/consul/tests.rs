use election::Holder;

use super::*;
use crate::lock::contract::{held, released};

const KEY: &str = "p/.lock";

fn entry(record: &Record, recorded: Option<&str>, holder: Option<&str>) -> Entry {
    let text = entry::text(None, record, recorded, "why", 1).unwrap();
    Entry::written(KEY, 7, holder.map(str::to_owned), &text)
}

fn planned(before: Option<&Entry>, record: &Record, session: Option<&str>) -> Result<Vec<Operation>, Failed> {
    plan(KEY, before, record, session, "text")
}

#[test]
fn a_free_key_is_taken_at_the_version_that_was_seen() {
    let acquire = Operation::lock(KEY, "text", "s");
    assert_eq!(planned(None, &held(1, 1), Some("s")), Ok(vec![Operation::check_absent(KEY), acquire.clone()]));
    for left in [entry(&released(1), None, None), entry(&held(1, 1), Some("gone"), None)] {
        let expected = vec![Operation::check_index(KEY, 7), acquire.clone()];
        assert_eq!(planned(Some(&left), &held(2, 1), Some("s")), Ok(expected));
    }
}

#[test]
fn a_dead_member_is_replaced_without_ending_its_session() {
    let dead = entry(&held(1, 1), Some("old"), Some("old"));
    let expected =
        vec![Operation::check_session(KEY, "old"), Operation::delete(KEY, 7), Operation::lock(KEY, "text", "s")];
    assert_eq!(planned(Some(&dead), &held(2, 1), Some("s")), Ok(expected.clone()));
    assert_eq!(planned(Some(&dead), &held(1, 2), Some("s")), Ok(expected), "the own next session likewise");
}

#[test]
fn a_foreign_holder_is_never_touched() {
    let consul_lock = Entry::written(KEY, 7, Some("t".into()), "");
    let taken = entry(&released(1), None, Some("t"));
    for kept in [consul_lock, taken] {
        assert_eq!(planned(Some(&kept), &held(2, 1), Some("s")), Err(Failed::Conflict));
        assert_eq!(planned(Some(&kept), &released(2), None), Err(Failed::Conflict));
    }
}

#[test]
fn what_was_written_by_hand_under_the_own_session_is_written_again() {
    let overwritten = Entry::written(KEY, 7, Some("s".into()), "nonsense");
    let again = vec![Operation::check_index(KEY, 7), Operation::lock(KEY, "text", "s")];
    assert_eq!(planned(Some(&overwritten), &held(1, 2), Some("s")), Ok(again));
}

#[test]
fn a_holder_that_lost_its_session_stops_and_can_still_release() {
    let lost = entry(&held(1, 1), Some("s"), None);
    assert!(matches!(planned(Some(&lost), &held(1, 2), Some("s")), Err(Failed::Lost(_))));
    assert!(matches!(planned(Some(&lost), &held(1, 2), Some("new")), Err(Failed::Lost(_))));
    let release = vec![Operation::check_index(KEY, 7), Operation::set_lock(KEY, "text")];
    assert_eq!(planned(Some(&lost), &released(1), None), Ok(release));
    let own = entry(&held(1, 1), Some("s"), Some("s"));
    let release = vec![Operation::check_index(KEY, 7), Operation::unlock(KEY, "text", "s")];
    assert_eq!(planned(Some(&own), &released(1), None), Ok(release));
}

#[test]
fn only_the_same_activation_goes_on() {
    let before = entry(&held(1, 1), Some("s"), Some("s"));
    assert!(goes_on(&before, &held(1, 2)) && !goes_on(&before, &held(2, 1)) && !goes_on(&before, &released(1)));
    let Claim::Held(Holder { activation, .. }) = held(1, 1).claim else { panic!() };
    assert_eq!(activation.0, 1);
}

#[test]
fn what_consul_cannot_keep_away_for_long_enough_is_refused() {
    assert!(check_lease(Duration::from_secs(60)).is_ok());
    assert!(check_lease(Duration::from_secs(61)).unwrap_err().contains("60s"));
}
