//! What a controller says of its groups.

use serde_json::Value;

use super::*;
use crate::controller::gallery::tests::{key, view};
use crate::controller::gallery::{Standing, View};

/// A controller that leads and looks after these groups.
fn with(groups: &[(&str, Standing)]) -> (Stand, Arc<Gallery>) {
    let gallery = Arc::new(Gallery::default());
    gallery.open(Some(3));
    for (name, standing) in groups {
        gallery.show(&key(name), view(name, *standing));
    }
    let plan = Plan { groups: Some(Arc::clone(&gallery)), ..Plan::default() };
    (plan.put_up().0, gallery)
}

fn names(page: &Value) -> Vec<&str> {
    page["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect()
}

/// The next event of this name.
fn heard(client: &mut Client, name: &str) -> Value {
    loop {
        let (event, data) = client.named_event();
        if event == name {
            return data;
        }
    }
}

fn listen(stand: &Stand, query: &str) -> Client {
    let mut client = stand.client();
    client.say(&format!("GET /events?{query} HTTP/1.1\r\nhost: x\r\n\r\n"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client
}

#[test]
fn groups_are_told_page_by_page_and_one_by_one() {
    let (stand, gallery) = with(&[("a", Standing::Fine), ("b", Standing::Nobody), ("c", Standing::Lone)]);
    let page = stand.get("/groups?limit=2").json();
    assert_eq!((names(&page), &page["next"], &page["leads"]), (vec!["a", "b"], &"prod/b".into(), &true.into()));
    assert_eq!(page["counts"], serde_json::json!({"groups": 3, "trouble": 1, "lone": 1, "paused": 0}));
    let page = stand.get("/groups?limit=2&after=prod/b").json();
    assert_eq!((names(&page), &page["next"]), (vec!["c"], &Value::Null));
    assert_eq!(names(&stand.get("/groups?only=trouble").json()), ["b"]);
    assert_eq!(names(&stand.get("/groups?filter=prod/c").json()), ["c"]);
    let one = stand.get("/groups/prod/a").json();
    assert_eq!((&one["active"][0]["pod"], &one["standing"]), (&"a-0".into(), &"fine".into()));
    stand.get("/groups/prod/x").refuses(404, "no group prod/x");
    for (query, about) in [
        ("limit=0", "1 to 200"),
        ("limit=201", "1 to 200"),
        ("only=odd", "only= takes"),
        ("after=a", "after= takes"),
        ("odd=1", "odd"),
    ] {
        stand.get(&format!("/groups?{query}")).refuses(400, about);
        stand.get(&format!("/events?with=groups&{query}")).refuses(400, about);
    }
    let counted = stand.get("/metrics").body;
    for line in ["soloist_controller_groups 3", "soloist_controller_groups_in_trouble 1"] {
        assert!(counted.lines().any(|shown| shown == line), "{line}: {counted}");
    }
    gallery.open(None);
    assert!(!stand.get("/metrics").body.contains("soloist_controller_groups"), "another one counts them");
    let page = stand.get("/groups").json();
    assert_eq!((&page["leads"], names(&page).len()), (&false.into(), 0));
}

#[test]
fn who_listens_hears_what_has_changed_of_what_it_sees_and_nothing_else() {
    let (stand, gallery) = with(&[("a", Standing::Fine), ("b", Standing::Fine), ("c", Standing::Fine)]);
    let mut client = listen(&stand, "with=groups&limit=2");
    let first = heard(&mut client, "groups");
    assert_eq!((names(&first), &first["next"]), (vec!["a", "b"], &"prod/b".into()));
    gallery.show(&key("b"), view("b", Standing::Nobody));
    let next = heard(&mut client, "groups");
    assert_eq!((names(&next), &next["counts"]["trouble"]), (vec!["b"], &1.into()));
    assert_eq!(next["order"], serde_json::json!(["prod/a", "prod/b"]), "what is there as before is only named");
    // Nothing that this client sees: it hears of the next one together with it.
    gallery.show(&key("c"), View { reason: "another".to_owned(), ..view("c", Standing::Fine) });
    gallery.forget(&key("a"));
    let next = heard(&mut client, "groups");
    assert_eq!((names(&next), &next["order"]), (vec!["c"], &serde_json::json!(["prod/b", "prod/c"])));
    gallery.open(None);
    assert_eq!(heard(&mut client, "groups")["leads"], false);
}

#[test]
fn a_burst_is_heard_at_the_pace_of_a_listener() {
    let (stand, gallery) = with(&[]);
    let mut client = listen(&stand, "with=groups&limit=200");
    heard(&mut client, "groups");
    let began = std::time::Instant::now();
    for round in 0..100 {
        for name in ["a", "b"] {
            let reason = format!("round {round}");
            gallery.show(&key(name), View { reason, ..view(name, Standing::Fine) });
        }
    }
    // One at the beginning, one at the end, and those between at the pace.
    let most = 4 + began.elapsed().as_millis() / 50;
    let mut frames = 0;
    let mut seen = std::collections::BTreeMap::new();
    while seen.values().filter(|reason| *reason == "round 99").count() < 2 {
        for group in heard(&mut client, "groups")["groups"].as_array().unwrap() {
            seen.insert(group["name"].as_str().unwrap().to_owned(), group["reason"].as_str().unwrap().to_owned());
        }
        frames += 1;
    }
    assert!(frames <= most, "{frames} frames for two hundred changes");
}

#[test]
fn pages_that_nobody_reads_are_bounded_and_make_room_when_they_are_gone() {
    let (stand, gallery) = with(&[]);
    for number in 0..200 {
        let (name, reason) = (format!("g{number}"), "x".repeat(4_000));
        gallery.show(&key(&name), View { reason, ..view(&name, Standing::Fine) });
    }
    let mut readers: Vec<Client> = (0..16).map(|_| stand.client()).collect();
    for reader in &mut readers {
        reader.say("GET /groups?limit=200 HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(reader.head().starts_with("HTTP/1.1 200 "));
    }
    stand.get("/groups?limit=1").refuses(503, "too many clients read groups");
    drop(readers.pop());
    wait_until("room for one more", || stand.get("/groups?limit=1").status == 200);
}

#[test]
fn a_member_has_no_groups_and_a_controller_has_the_page_of_a_member_too() {
    let member = Stand::up();
    member.get("/groups").refuses(404, "nothing is here");
    member.get("/events?with=groups").refuses(400, "this is a member of one group");
    member.get("/events?filter=a").refuses(400, "belong to with=groups");
    let (stand, _gallery) = with(&[]);
    for (path, has) in [("/", "/groups.js"), ("/member", "/dashboard.js")] {
        let answer = stand.get(path);
        assert!(answer.status == 200 && answer.body.contains(has), "{path}");
    }
    stand.get("/nothing").refuses(404, "/groups/NAMESPACE/NAME");
}
