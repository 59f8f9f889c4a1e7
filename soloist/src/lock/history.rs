//! The last changes of who was active, kept in the record itself: for people, never for a decision.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::settings::is_member_name;

/// As many changes as are kept at most.
pub const CHANGES_MAX: usize = 32;
/// As many bytes as they may take in the record, as JSON without blanks.
pub const BYTES_MAX: usize = 2048;
/// As many characters as a sentence may have.
const SENTENCE_MAX: usize = 80;

/// One time of being active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The fencing token; absent until a store that names it only in its answer has been written once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Who was active.
    pub member: String,
    /// Since when, in wall-clock microseconds since 1970: the acquiring write.
    pub from_us: u64,
    /// Why it might, in one sentence.
    pub why: String,
    /// Until when nothing of it was left, where that was proven; the clock is the one of the member that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<u64>,
    /// Why it ended, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// Somebody has become active. Whoever was before and has left no release will not do so any more.
pub fn acquired(history: &mut Vec<Change>, token: Option<u64>, member: &str, why: &str, now_us: u64) {
    let why = essence(why);
    if let Some(last) = history.last_mut().filter(|last| last.end.is_none()) {
        last.end = Some(format!("no release: {why}"));
    }
    let member = member.to_owned();
    history.push(Change { token, member, from_us: now_us, why: why.to_owned(), until_us: None, end: None });
    bound(history);
}

/// The activation with this token has ended, and that is proven.
pub fn ended(history: &mut Vec<Change>, token: Option<u64>, member: &str, why: &str, now_us: u64) {
    let is_meant = |last: &&mut Change| last.end.is_none() && (last.token, last.member.as_str()) == (token, member);
    if let Some(last) = history.last_mut().filter(is_meant) {
        last.until_us = Some(now_us);
        last.end = Some(essence(why).to_owned());
    }
    bound(history);
}

/// What somebody stored; nothing if that cannot be read or shown.
pub fn parse(value: Value) -> Vec<Change> {
    let mut history: Vec<Change> = serde_json::from_value(value).unwrap_or_default();
    history.retain(|change| is_member_name(&change.member));
    bound(&mut history);
    history
}

/// Drops the oldest until the rest fits.
fn bound(history: &mut Vec<Change>) {
    let surplus = history.len().saturating_sub(CHANGES_MAX);
    history.drain(..surplus);
    for change in history.iter_mut() {
        change.why = sentence(&change.why);
        change.end = change.end.as_deref().map(sentence);
    }
    // Two for the brackets, and one for the comma or so that there is one too many.
    let size = |change: &Change| serde_json::to_vec(change).map_or(BYTES_MAX, |text| text.len()) + 1;
    let mut total = 2;
    let fits = history.iter().rev().take_while(|change| {
        total += size(change);
        total <= BYTES_MAX
    });
    let surplus = history.len() - fits.count();
    history.drain(..surplus);
}

/// At most so long that it stays one line, and without what a terminal obeys.
pub fn sentence(text: &str) -> String {
    text.chars().take(SENTENCE_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A reason of the machine without what everybody knows who reads a history.
fn essence(reason: &str) -> &str {
    let reason = reason.strip_prefix("acquiring: ").unwrap_or(reason);
    reason.strip_suffix(": stopping the workload").unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(history: &[Change]) -> usize {
        serde_json::to_vec(history).unwrap().len()
    }

    #[test]
    fn a_change_begins_and_ends() {
        let mut history = Vec::new();
        acquired(&mut history, Some(1), "a", "acquiring: there is no record of an active member", 10);
        ended(&mut history, Some(1), "a", "switchover to b: stopping the workload", 20);
        acquired(&mut history, Some(5), "b", "acquiring: a released (no-child-left)", 30);
        let texts: Vec<_> = history.iter().map(|change| (change.why.as_str(), change.end.as_deref())).collect();
        let first = ("there is no record of an active member", Some("switchover to b"));
        assert_eq!(texts, [first, ("a released (no-child-left)", None)]);
        assert_eq!((history[0].from_us, history[0].until_us), (10, Some(20)));
    }

    #[test]
    fn who_left_no_release_is_ended_by_the_next() {
        let mut history = Vec::new();
        acquired(&mut history, Some(1), "a", "first", 10);
        acquired(&mut history, Some(2), "b", "acquiring: the lease of a ran out", 30);
        assert_eq!(history[0].end.as_deref(), Some("no release: the lease of a ran out"));
        assert_eq!(history[0].until_us, None);
        let before = history.clone();
        for (token, member) in [(Some(1), "a"), (Some(2), "a"), (None, "b")] {
            ended(&mut history, token, member, "too late", 40);
            assert_eq!(history, before, "somebody else's release");
        }
        ended(&mut history, Some(2), "b", "once", 50);
        ended(&mut history, Some(2), "b", "twice", 60);
        assert_eq!((history[1].end.as_deref(), history[1].until_us), (Some("once"), Some(50)));
    }

    #[test]
    fn the_oldest_go_first_and_the_rest_fits() {
        for (length, count) in [(0, 25), (30, 12), (300, 5)] {
            let mut history = Vec::new();
            for token in 0..100 {
                acquired(&mut history, Some(token), "m", &"x".repeat(length), token);
                ended(&mut history, Some(token), "m", &"\u{fc}".repeat(length), token);
                assert!(history.len() <= CHANGES_MAX && size(&history) <= BYTES_MAX, "{}", size(&history));
            }
            assert!(history.len() >= count, "{length}: {}", history.len());
            assert_eq!(history.last().unwrap().token, Some(99));
            assert!(history.windows(2).all(|pair| pair[0].token.unwrap() + 1 == pair[1].token.unwrap()));
        }
    }

    #[test]
    fn sentences_are_cut_at_a_character_and_hold_no_control() {
        assert_eq!(sentence(&"\u{20ac}".repeat(100)).chars().count(), SENTENCE_MAX);
        assert_eq!(sentence("a\nb\u{1b}[2Jc"), "a b [2Jc");
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let good = serde_json::json!({"member": "a", "from_us": 1, "why": "x", "later": true});
        let bad = serde_json::json!({"member": "a\u{1b}", "from_us": 1, "why": "x"});
        assert_eq!(parse(serde_json::json!([good, bad])).len(), 1);
        let wrong = serde_json::json!([{"member": "a"}]);
        for garbage in [Value::Null, 5.into(), "x".into(), serde_json::json!({}), serde_json::json!([1]), wrong] {
            assert_eq!(parse(garbage), []);
        }
        let many = vec![good; 10_000];
        let kept = parse(many.into());
        assert_eq!(kept.len(), CHANGES_MAX);
        assert_eq!(parse(serde_json::to_value(&kept).unwrap()), kept);
    }
}
