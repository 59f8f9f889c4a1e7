use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::controller::critical::Mark;
use crate::controller::group::Selector;
use crate::controller::node::Nodes;
use crate::controller::notice::Notice;
use crate::controller::pod::{Container, State};
use crate::route::pod_label::Label;

/// One active pod, as the predecessor has it.
pub fn group() -> Group {
    let word = str::to_owned;
    Group {
        namespace: word("prod"),
        name: word("hapod"),
        selector: Selector::one("app", "hapod"),
        active: 1,
        label: Label { key: word("role"), active: word("active"), standby: word("standby") },
        promote_after: PromoteAfter::Removed,
        handover: Handover::DrainFirst,
        critical: Vec::new(),
        mark: Mark::default(),
        delete_grace_s: None,
        notice: None,
        order: Order::Priority,
        is_paused: false,
        switchover: None,
    }
}

/// A pod that is ready and stands by.
pub fn pod(name: &str) -> Pod {
    Pod {
        owner: None,
        namespace: "prod".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        version: 10,
        labels: BTreeMap::from([("role".to_owned(), "standby".to_owned())]),
        term: None,
        token: None,
        priority: 0,
        is_wanted: false,
        since: format!("2026-01-01T00:00:00Z {name}"),
        is_deleting: false,
        has_ended: false,
        is_ready: true,
        ip: Some([10, 0, 0, 7].into()),
        node: Some("n1".to_owned()),
        containers: vec![Container {
            name: "main".to_owned(),
            variables: vec![Mark::default()],
            state: State::Running,
            restarts: 0,
        }],
    }
}

fn active(name: &str, token: u64) -> Pod {
    Pod { labels: BTreeMap::from([("role".to_owned(), "active".to_owned())]), token: Some(token), ..pod(name) }
}

/// One scene, as the tests change it.
struct Scene {
    group: Group,
    pods: Vec<Pod>,
    fallen: BTreeMap<String, String>,
    unsettled: BTreeSet<String>,
    record: Record,
    version: Option<u64>,
    seen_stopped: BTreeSet<String>,
    told: BTreeSet<(String, u64)>,
    deletes_from: Instant,
    deletes_max: usize,
    is_missing: bool,
    nodes: Nodes,
}

const NOW: Instant = Instant::from_nanos(5_000_000_000);

impl Scene {
    /// Nobody is active yet.
    fn new(pods: &[Pod]) -> Self {
        Self {
            group: group(),
            pods: pods.to_vec(),
            fallen: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            record: Record::default(),
            version: None,
            seen_stopped: BTreeSet::new(),
            told: BTreeSet::new(),
            deletes_from: NOW,
            deletes_max: usize::MAX,
            is_missing: false,
            nodes: Nodes::new(),
        }
    }

    /// `a` is active by the version 20 of the record, and labelled so.
    fn with_a(pods: &[Pod]) -> Self {
        let a = place("a");
        Self { record: record(vec![a]), version: Some(20), ..Self::new(pods) }
    }

    fn plan(&self) -> Plan {
        let seen: Vec<Seen<'_>> = self
            .pods
            .iter()
            .map(|pod| Seen {
                pod,
                fallen: self.fallen.get(&pod.name).map(String::as_str),
                is_settled: !self.unsettled.contains(&pod.name),
                node: pod.node.as_ref().and_then(|name| self.nodes.get(name)),
            })
            .collect();
        plan(&Sight {
            group: &self.group,
            pods: &seen,
            record: &self.record,
            version: self.version,
            is_missing: self.is_missing,
            seen_stopped: &self.seen_stopped,
            told: &self.told,
            now: NOW,
            deletes_from: self.deletes_from,
            deletes_max: self.deletes_max,
        })
    }

    fn writes(&self) -> Vec<String> {
        self.plan().writes.iter().map(shown).collect()
    }
}

fn record(places: Vec<Place>) -> Record {
    Record { places, ..Record::default() }
}

fn place(name: &str) -> Place {
    Place { pod: name.to_owned(), uid: format!("uid-{name}"), token: None, is_told: false }
}

/// One write on one line.
fn shown(write: &Write) -> String {
    let name = |uid: &str| uid.trim_start_matches("uid-").to_owned();
    match write {
        Write::Record(record) => {
            let shown =
                |place: &Place| format!("{}@{}", place.pod, place.token.map_or("new".to_owned(), |t| t.to_string()));
            format!("record {}", record.places.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Write::Label { uid, part: Part::Active, token, .. } => format!("active {}@{}", name(uid), token.unwrap_or(0)),
        Write::Label { uid, part: Part::Standby, .. } => format!("standby {}", name(uid)),
        Write::Settle { uid } => format!("settle {}", name(uid)),
        Write::Delete { uid, .. } => format!("delete {}", name(uid)),
        Write::Tell { uid, token } => format!("tell {}@{token}", name(uid)),
    }
}

fn why(plan: &Plan) -> String {
    let sentence = |write: &Write| match write {
        Write::Record(Record { why, .. }) | Write::Label { why, .. } | Write::Delete { why, .. } => why.clone(),
        Write::Settle { .. } | Write::Tell { .. } => String::new(),
    };
    plan.writes.iter().map(sentence).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_oldest_that_is_ready_is_recorded_first_and_labelled_then() {
    let late = Pod { is_ready: false, since: "2025".to_owned(), ..pod("c") };
    let mut scene = Scene::new(&[pod("b"), pod("a"), late]);
    assert_eq!(scene.writes(), ["record a@new"]);
    (scene.record, scene.version) = (record(vec![place("a")]), Some(20));
    assert_eq!(scene.writes(), ["active a@20"]);
    scene.pods[1] = active("a", 20);
    assert_eq!(scene.plan(), Plan::default());
}

#[test]
fn where_nobody_is_ready_the_oldest_is_better_than_nobody() {
    let unready = |name: &str| Pod { is_ready: false, ..pod(name) };
    assert_eq!(Scene::new(&[unready("b"), unready("a")]).writes(), ["record a@new"]);
    let mut two = Scene::with_a(&[active("a", 20), unready("b")]);
    two.group.active = 2;
    assert_eq!(two.writes(), Vec::<String>::new(), "one is active, so the next may get ready");
    assert!(two.plan().waits.unwrap().contains("no pod is ready"));
}

#[test]
fn who_goes_first_is_ready_then_by_priority_then_the_oldest() {
    let mut scene =
        Scene::new(&[pod("a"), pod("b"), Pod { priority: 5, ..pod("c") }, Pod { is_ready: false, ..pod("d") }]);
    assert_eq!(scene.writes(), ["record c@new"]);
    scene.pods[2].priority = 0;
    assert_eq!(scene.writes(), ["record a@new"]);
}

#[test]
fn another_controllers_choice_is_taken_first_and_its_other_ones_are_taken_back() {
    let scene = Scene::new(&[pod("a"), active("b", 0), active("c", 0)]);
    assert_eq!(scene.writes(), ["standby c", "record b@new"]);
}

#[test]
fn a_pod_that_is_gone_is_replaced() {
    let scene = Scene::with_a(&[pod("b"), pod("c")]);
    assert_eq!(scene.writes(), ["record b@new"]);
    assert_eq!(why(&scene.plan()), "b becomes active: a is gone");
}

#[test]
fn a_pod_that_is_being_deleted_loses_its_label_while_its_successor_is_recorded() {
    let deleting = Pod { is_deleting: true, ..active("a", 20) };
    let mut scene = Scene::with_a(&[deleting, pod("b")]);
    assert_eq!(scene.writes(), ["standby a", "record b@new"]);
    // Before the label is gone, nobody else gets it.
    (scene.record, scene.version) = (record(vec![place("b")]), Some(21));
    assert_eq!(scene.writes(), ["standby a"]);
    scene.pods[0].labels.insert("role".to_owned(), "standby".to_owned());
    assert_eq!(scene.writes(), ["active b@21"]);
}

#[test]
fn stop_first_keeps_the_traffic_until_the_pod_is_gone() {
    let deleting = Pod { is_deleting: true, ..active("a", 20) };
    let mut scene = Scene::with_a(&[deleting, pod("b")]);
    scene.group.handover = Handover::StopFirst;
    assert_eq!(scene.writes(), Vec::<String>::new());
    assert!(scene.plan().waits.unwrap().contains("waiting for the pod to be gone"));
    scene.pods.remove(0);
    assert_eq!(scene.writes(), ["record b@new"]);
}

#[test]
fn where_only_one_may_run_its_place_is_given_away_when_the_kubelet_has_seen_its_end() {
    let mut scene = Scene::with_a(&[Pod { is_deleting: true, ..active("a", 20) }, pod("b")]);
    scene.group.promote_after = PromoteAfter::Stopped;
    assert_eq!(scene.writes(), ["standby a"]);
    assert!(scene.plan().waits.unwrap().contains("kubelet's word"));
    scene.pods[0].labels.insert("role".to_owned(), "standby".to_owned());
    assert_eq!(scene.writes(), Vec::<String>::new());
    scene.pods[0].containers[0].state = State::Ended;
    assert_eq!(scene.writes(), Vec::<String>::new(), "it may have ended before, and run again");
    scene.pods[0].has_ended = true;
    assert_eq!(scene.writes(), ["record b@new"]);
    // The object alone says nothing: whoever deletes it by force stops no process.
    scene.pods.remove(0);
    assert_eq!(scene.writes(), Vec::<String>::new());
    scene.seen_stopped.insert("uid-a".to_owned());
    assert_eq!(scene.writes(), ["record b@new"]);
}

#[test]
fn where_only_one_may_run_and_nobody_follows_the_record_keeps_what_the_kubelet_has_said() {
    let ended = vec![Container { state: State::Ended, ..pod("a").containers[0].clone() }];
    let mut scene = Scene::with_a(&[Pod { has_ended: true, containers: ended, ..pod("a") }]);
    scene.group.promote_after = PromoteAfter::Stopped;
    assert_eq!(scene.writes(), ["record "]);
    assert_eq!(why(&scene.plan()), "a place is free: a has ended");
}

#[test]
fn a_pod_without_its_critical_container_is_replaced_first_and_deleted_then() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    scene.fallen.insert("a".to_owned(), "main".to_owned());
    assert_eq!(scene.writes(), ["standby a", "record b@new"]);
    assert_eq!(why(&scene.plan()), "main in a has ended; b becomes active: main in a has ended");
    (scene.record, scene.version) = (record(vec![place("b")]), Some(21));
    scene.pods[0].labels.insert("role".to_owned(), "standby".to_owned());
    assert_eq!(scene.writes(), ["active b@21"]);
    scene.pods[1] = active("b", 21);
    assert_eq!(scene.writes(), ["delete a"]);
    scene.pods[0].is_deleting = true;
    assert_eq!(scene.writes(), Vec::<String>::new());
}

#[test]
fn a_pod_that_nobody_can_replace_is_deleted_all_the_same_but_not_again_and_again() {
    let mut scene = Scene::with_a(&[active("a", 20)]);
    scene.fallen.insert("a".to_owned(), "main".to_owned());
    assert_eq!(scene.writes(), ["standby a", "delete a"]);
    scene.deletes_from = NOW + Duration::from_secs(10);
    assert_eq!((scene.writes(), scene.plan().again_at), (vec!["standby a".to_owned()], Some(scene.deletes_from)));
}

#[test]
fn where_only_one_may_run_a_pod_without_its_critical_container_must_end_before_it_is_replaced() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    scene.group.promote_after = PromoteAfter::Stopped;
    scene.fallen.insert("a".to_owned(), "main".to_owned());
    assert_eq!(scene.writes(), ["standby a", "delete a"]);
}

#[test]
fn where_only_one_may_run_an_end_that_a_restart_may_follow_proves_nothing() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    scene.group.promote_after = PromoteAfter::Stopped;
    scene.fallen.insert("a".to_owned(), "main".to_owned());
    scene.pods[0].containers[0].state = State::Ended;
    assert_eq!(scene.writes(), ["standby a", "delete a"]);
}

#[test]
fn labels_are_repaired_and_never_believed() {
    let mut scene = Scene::with_a(&[pod("a"), active("b", 20)]);
    assert_eq!(scene.writes(), ["standby b"], "nobody else while b has it");
    scene.pods[1] = pod("b");
    assert_eq!(scene.writes(), ["active a@20"]);
    scene.pods[0] = active("a", 19);
    assert_eq!(scene.writes(), ["active a@20"]);
    scene.pods[1].labels.clear();
    scene.pods[0] = active("a", 20);
    assert_eq!(scene.writes(), ["standby b"]);
}

#[test]
fn before_somebody_is_promoted_nothing_old_may_take_effect_on_the_others_any_more() {
    let deleting = Pod { is_deleting: true, ..active("a", 20) };
    let mut scene = Scene::with_a(&[deleting, pod("b"), pod("c")]);
    scene.unsettled.extend(["a", "b", "c"].map(str::to_owned));
    assert_eq!(scene.writes(), ["settle c", "standby a", "record b@new"]);
    (scene.record, scene.version) = (record(vec![place("b")]), Some(21));
    scene.pods[0].labels.insert("role".to_owned(), "standby".to_owned());
    scene.unsettled.remove("a");
    assert_eq!(scene.writes(), ["settle c"]);
    scene.unsettled.remove("c");
    assert_eq!(scene.writes(), ["active b@21"]);
}

#[test]
fn who_is_asked_for_becomes_active_if_it_is_ready() {
    let wanted = |is_ready| Pod { is_wanted: true, is_ready, ..pod("c") };
    let mut scene = Scene::with_a(&[active("a", 20), pod("b"), wanted(false)]);
    assert_eq!(scene.writes(), Vec::<String>::new());
    scene.pods[2] = wanted(true);
    assert_eq!(scene.writes(), ["standby a", "record c@new"]);
    assert!(why(&scene.plan()).contains("by request"));
    scene.group.promote_after = PromoteAfter::Stopped;
    assert_eq!(scene.writes(), ["standby a", "delete a"]);
    // Once it is active, the wish is taken back with the label.
    scene.record = record(vec![place("c")]);
    scene.pods = vec![pod("a"), pod("b"), Pod { is_wanted: true, ..active("c", 20) }];
    assert_eq!(scene.writes(), ["active c@20"]);
}

#[test]
fn two_that_are_asked_for_become_active_one_after_the_other() {
    let wanted = |name: &str| Pod { is_wanted: true, ..pod(name) };
    let mut scene = Scene::with_a(&[active("a", 20), wanted("b"), wanted("c")]);
    assert_eq!(scene.writes(), ["standby a", "record b@new"]);
    (scene.record, scene.version) = (record(vec![place("b")]), Some(21));
    scene.pods[0] = pod("a");
    assert_eq!(scene.writes(), ["active b@21"]);
    scene.pods[1] = active("b", 21);
    assert_eq!(scene.writes(), ["standby b", "record c@new"]);
}

#[test]
fn where_fewer_are_wanted_whoever_stays_is_none_of_those_that_leave() {
    let b = Place { token: Some(19), ..place("b") };
    let mut scene = Scene::with_a(&[active("a", 20), active("b", 19)]);
    scene.record.places.push(b);
    assert_eq!(scene.writes(), ["standby b"]);
    scene.pods[1] = pod("b");
    scene.pods[0].is_deleting = true;
    assert_eq!(scene.writes(), ["standby a"]);
    scene.pods.remove(0);
    assert_eq!(scene.writes(), ["active b@19"]);
}

#[test]
fn where_fewer_are_wanted_who_leaves_keeps_no_traffic_beside_who_stays() {
    let deleting = Pod { is_deleting: true, ..active("a", 20) };
    let mut scene = Scene::with_a(&[deleting, active("b", 19)]);
    scene.group.handover = Handover::StopFirst;
    scene.record.places.push(Place { token: Some(19), ..place("b") });
    assert_eq!(scene.writes(), ["standby a"]);
}

#[test]
fn several_places_are_filled_and_keep_their_tokens() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b"), pod("c")]);
    scene.group.active = 2;
    assert_eq!(scene.writes(), ["record a@20 b@new"]);
    let kept = Place { token: Some(20), ..place("a") };
    (scene.record, scene.version) = (record(vec![kept, place("b")]), Some(21));
    assert_eq!(scene.writes(), ["active b@21"]);
    scene.pods[1] = active("b", 21);
    scene.group.active = 1;
    assert_eq!(scene.writes(), ["standby b"]);
}

#[test]
fn the_active_one_is_told_once_and_the_record_says_so() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    scene.group.notice = Some(Notice::Udp { port: 1, payload: None });
    assert_eq!(scene.writes(), ["tell a@20"]);
    scene.told.insert(("uid-a".to_owned(), 20));
    assert_eq!(scene.writes(), ["record a@20"]);
    scene.record = record(vec![Place { token: Some(20), is_told: true, ..place("a") }]);
    scene.told.clear();
    assert_eq!(scene.writes(), Vec::<String>::new());
    scene.record = record(vec![place("a")]);
    scene.pods[0].containers[0].state = State::Waiting;
    assert_eq!(scene.writes(), Vec::<String>::new(), "nobody listens yet");
    scene.pods[0].containers[0].state = State::Running;
    scene.pods[0].ip = None;
    assert_eq!(scene.writes(), Vec::<String>::new(), "nowhere to tell it yet");
}

#[test]
fn a_record_that_somebody_has_deleted_is_written_anew_before_anybody_is_labelled() {
    let mut scene = Scene::with_a(&[pod("a"), pod("b")]);
    scene.is_missing = true;
    assert_eq!(scene.writes(), ["record a@20"]);
    scene.pods.remove(0);
    assert_eq!(scene.writes(), ["record b@new"], "what is written anew is what is so now");
}

#[test]
fn a_request_is_met_once_and_stays_so_when_its_pod_fails_later() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b"), pod("c")]);
    scene.group.switchover = Some(Switchover { to: "c".to_owned(), request: "r1".to_owned() });
    assert_eq!(scene.writes(), ["standby a", "record c@new"]);
    let Some(Write::Record(record)) = scene.plan().writes.pop() else { panic!("no record") };
    assert_eq!(record.request, "r1");
    (scene.record, scene.version) = (record, Some(21));
    (scene.pods[0], scene.pods[2]) = (pod("a"), active("c", 21));
    assert_eq!(scene.writes(), Vec::<String>::new());
    scene.pods[2].is_deleting = true;
    assert_eq!(scene.writes(), ["standby c", "record a@new"]);
    scene.pods[2].is_deleting = false;
    scene.group.switchover = Some(Switchover { to: "a".to_owned(), request: "r2".to_owned() });
    assert_eq!(scene.writes(), ["standby c", "record a@new"], "another text is another request");
}

#[test]
fn a_request_for_who_is_active_already_is_met_and_one_for_nobody_waits() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    let request = |to: &str| Some(Switchover { to: to.to_owned(), request: "r1".to_owned() });
    scene.group.switchover = request("a");
    assert_eq!(scene.writes(), ["record a@20"]);
    scene.group.switchover = request("z");
    let plan = scene.plan();
    assert_eq!((plan.writes, plan.waits.as_deref()), (vec![], Some("z was asked for and is not fit to become active")));
    scene.group.switchover = request("b");
    scene.pods[1].is_ready = false;
    let plan = scene.plan();
    assert_eq!((plan.writes, plan.waits.as_deref()), (vec![], Some("b was asked for and is not fit to become active")));
}

#[test]
fn a_group_that_is_paused_is_left_as_it_is() {
    let mut scene = Scene::with_a(&[active("b", 3), pod("c")]);
    assert!(!scene.writes().is_empty());
    scene.group.is_paused = true;
    let plan = scene.plan();
    assert_eq!((plan.writes, plan.waits.as_deref()), (vec![], Some("paused: nothing is changed")));
}

#[test]
fn a_pod_on_a_bad_node_goes_last_and_one_that_is_out_of_service_runs_nothing() {
    let mut scene = Scene::with_a(&[pod("b"), pod("c")]);
    let node = |name: &str| Node { name: name.to_owned(), is_bad: true, is_out_of_service: false };
    scene.nodes.insert("n1".to_owned(), node("n1"));
    scene.pods[1].node = Some("n2".to_owned());
    assert_eq!(scene.writes(), ["record c@new"]);
    let mut scene = Scene::with_a(&[active("a", 20), pod("b")]);
    scene.group.promote_after = PromoteAfter::Stopped;
    scene.nodes.insert("n1".to_owned(), Node { is_out_of_service: true, ..node("n1") });
    assert_eq!(scene.writes(), Vec::<String>::new(), "nobody has begun to take its pods away");
    scene.pods[0].is_deleting = true;
    assert_eq!(scene.writes(), ["standby a", "record b@new"]);
}

#[test]
fn by_age_alone_a_priority_does_not_count() {
    let mut scene = Scene::with_a(&[pod("b"), pod("c")]);
    scene.pods[1].priority = 7;
    assert_eq!(scene.writes(), ["record c@new"]);
    scene.group.order = Order::Oldest;
    assert_eq!(scene.writes(), ["record b@new"]);
}

#[test]
fn pods_that_crash_together_are_deleted_as_far_as_there_is_room() {
    let mut scene = Scene::with_a(&[active("a", 20), pod("b"), pod("c"), pod("d")]);
    scene.fallen.extend(["b", "c", "d"].map(|name| (name.to_owned(), "main".to_owned())));
    scene.deletes_max = 2;
    assert_eq!(scene.writes(), ["delete b", "delete c"]);
}
