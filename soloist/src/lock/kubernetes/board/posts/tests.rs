use std::time::Duration;

use serde_json::json;

use super::*;
use crate::lock::board::contract::{asked, member};
use crate::lock::board::{ANNOUNCEMENT_LIFE, REQUEST_LIFE, Refused, Wish};

fn lease_with(annotations: Value) -> Value {
    json!({
        "kind": "Lease",
        "metadata": {"name": "app", "uid": "u", "resourceVersion": "7", "annotations": annotations,
            "labels": {"team": "a"}, "managedFields": [{"manager": "m"}], "later": [1]},
        "spec": {"holderIdentity": "x", "later": {"y": 1}},
    })
}

fn posts(lease: &Value) -> Posts {
    Posts::of(lease)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

fn answer(by: &str) -> Answer {
    Answer { id: "one".into(), by: by.into(), refusal: None }
}

#[test]
fn what_is_put_up_is_read_and_everything_else_stays() {
    let others = json!({"soloist.dev/record": "r", "soloist.dev/digest": "d", "other": "o"});
    let lease = lease_with(others.clone());
    let mut full = posts(&lease);
    assert_eq!(full, Posts::default());
    full.announce(&member("b", 1)).unwrap();
    full.announce(&member("a", 2)).unwrap();
    full.request = Some(asked("one", Wish::Switchover { to: Some("b".into()) }));
    full.answer = Some(answer("a"));
    let put = full.put_on(&lease).unwrap();
    assert_eq!(posts(&put), full);
    assert_eq!(full.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    // The mirror image: with everything of ours taken away again it is the Lease that it was.
    let mut expected = lease.clone();
    expected["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(Posts::default().put_on(&put).unwrap(), expected);
    for name in ["soloist.dev/record", "soloist.dev/digest", "other"] {
        assert_eq!(put["metadata"]["annotations"][name], others[name]);
    }
    assert_eq!((&put["spec"], &put["metadata"]["resourceVersion"]), (&lease["spec"], &"7".into()));
}

#[test]
fn a_second_announcement_replaces_the_first() {
    let mut posts = Posts::default();
    let mut own = member("a", 1);
    posts.announce(&own).unwrap();
    own.role = "active".into();
    posts.announce(&own).unwrap();
    assert_eq!(posts.members, [own.clone()]);
    posts.announce(&member("a", 2)).unwrap();
    assert_eq!(posts.members.len(), 2, "another process of that name");
}

#[test]
fn the_oldest_make_room_and_the_rest_fits() {
    for length in [0, 40, 80] {
        let mut posts = Posts::default();
        for number in 0..200 {
            let mut one = member(&format!("m{number}"), number + 1);
            // One second apart; the last one is of just now.
            one.at_unix_ms -= 1_000 * (200 - u64::try_from(number).unwrap()) / 2;
            one.why = Some("\u{fc}".repeat(length));
            posts.announce(&one).unwrap();
            let size = text(&posts.members).len();
            assert!(size <= MEMBERS_BYTES_MAX && posts.members.len() <= MEMBERS_MAX, "{size}");
            assert!(posts.members.contains(&one));
        }
        let kept = posts.members.len();
        assert!(kept >= 20, "{length}: {kept}");
        let newest = (200 - kept..200).all(|number| posts.members.iter().any(|one| one.name == format!("m{number}")));
        assert!(newest, "{length}");
    }
    // By a clock that is behind: it is the own one all the same.
    let mut posts = Posts::default();
    for number in 0..100 {
        posts.announce(&member(&format!("m{number}"), number + 1)).unwrap();
    }
    let mut behind = member("behind", 1_000);
    behind.at_unix_ms -= 60_000;
    posts.announce(&behind).unwrap();
    assert!(posts.members.contains(&behind));
}

#[test]
fn what_does_not_count_any_more_is_dropped_with_the_next_write() {
    let (mut old, mut ahead) = (member("old", 1), member("ahead", 2));
    old.at_unix_ms -= ms(ANNOUNCEMENT_LIFE);
    ahead.at_unix_ms += ms(ANNOUNCEMENT_LIFE) * 2;
    let mut request = asked("one", Wish::Resume);
    request.at_unix_ms -= ms(REQUEST_LIFE);
    let stale = Posts { members: vec![old, ahead, member("new", 3)], request: Some(request), answer: None };
    let mut read = posts(&stale.put_on(&lease_with(json!({}))).unwrap());
    assert_eq!(read.members.len(), 1);
    assert_eq!(read.request, None);
    read.announce(&member("next", 4)).unwrap();
    let written = read.put_on(&lease_with(json!({}))).unwrap();
    let names: Vec<Value> = serde_json::from_str(annotation(&written, MEMBERS).unwrap()).unwrap();
    assert_eq!(names.len(), 2);
    assert_eq!(annotation(&written, REQUEST), None);
}

#[test]
fn whatever_somebody_wrote_there_is_read_as_far_as_it_makes_sense_and_replaced() {
    let good = serde_json::to_value(member("good", 1)).unwrap();
    let with = |name: &str, value: Value| {
        let mut one = good.clone();
        one[name] = value;
        one
    };
    let members: Vec<(String, usize)> = vec![
        (String::new(), 0),
        ("null".into(), 0),
        ("5".into(), 0),
        ("{}".into(), 0),
        ("[".into(), 0),
        ("[".repeat(20_000), 0),
        ("\u{0}\u{1b}[2J".into(), 0),
        (format!("[{good}] x"), 0),
        (json!([null, 5, "x", [], {}, good]).to_string(), 1),
        (json!([good, good]).to_string(), 1),
        (json!([with("name", "a\u{1b}[2J".into())]).to_string(), 0),
        (json!([with("name", "".into()), with("nonce", "x".into()), with("nonce", 5.into())]).to_string(), 0),
        (json!([with("role", "\n".into()), with("why", "\u{7f}".into())]).to_string(), 0),
        (json!([with("at_unix_ms", (-1).into()), with("at_unix_ms", 1.5.into())]).to_string(), 0),
        (json!([with("at_unix_ms", 0.into()), with("at_unix_ms", u64::MAX.into())]).to_string(), 0),
        (json!([with("later", json!({"any": [1]}))]).to_string(), 1),
        (json!(vec![with("why", "x".repeat(1_000).into()); 100]).to_string(), 0),
    ];
    for (text, count) in members {
        let lease = lease_with(json!({MEMBERS: text, REQUEST: text, ANSWER: text}));
        let mut read = posts(&lease);
        let shown: String = text.chars().take(60).collect();
        assert_eq!((read.members.len(), &read.request, &read.answer), (count, &None, &None), "{shown}");
        read.announce(&member("own", 99)).unwrap();
        let put = read.put_on(&lease).unwrap();
        assert_eq!(posts(&put).members.len(), count + 1, "{shown}");
        assert!(annotation(&put, REQUEST).is_none() && annotation(&put, ANSWER).is_none());
    }
    for annotations in [Value::Null, 5.into(), json!([]), json!({MEMBERS: 5, REQUEST: [], ANSWER: {}})] {
        let lease = lease_with(annotations);
        assert_eq!(posts(&lease), Posts::default());
        let mut own = Posts::default();
        own.announce(&member("own", 99)).unwrap();
        assert_eq!(posts(&own.put_on(&lease).unwrap()), own);
    }
    for lease in [Value::Null, 5.into(), json!([]), json!({"metadata": []})] {
        assert_eq!(posts(&lease), Posts::default());
        assert!(Posts::default().put_on(&lease).unwrap().is_object());
    }
}

#[test]
fn requests_and_answers_are_short_and_obeyed_by_no_terminal() {
    let mut long = Posts { request: Some(asked("one", Wish::Resume)), ..Posts::default() };
    long.request.as_mut().unwrap().by = "x".repeat(NOTE_BYTES_MAX);
    let why = long.put_on(&lease_with(json!({}))).unwrap_err().to_string();
    assert!(why.starts_with("the request would have") && why.contains("2048"), "{why}");
    let mut rude = asked("one", Wish::Resume);
    rude.by = "\u{1b}[2J".into();
    let refusal = Some(Refused { kind: "conflict".into(), why: "\u{1b}[2J".into() });
    for answer in [answer("\u{7}"), Answer { refusal, ..answer("a") }] {
        let rude = Posts { request: Some(rude.clone()), answer: Some(answer), ..Posts::default() };
        let read = posts(&rude.put_on(&lease_with(json!({}))).unwrap());
        assert_eq!((read.request, read.answer), (None, None));
    }
}

#[test]
fn an_announcement_that_fits_nowhere_is_refused() {
    let mut own = member("a", 1);
    own.version = "x".repeat(MEMBERS_BYTES_MAX);
    assert!(Posts::default().announce(&own).is_err());
}
