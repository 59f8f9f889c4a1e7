//! What must hold of every plan, whatever is there.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

use super::tests::{group, pod};
use super::*;
use crate::controller::critical::Mark;
use crate::controller::node::Node;
use crate::controller::notice::Notice;
use crate::controller::pod::{Container, State};

/// The version of every record.
const VERSION: u64 = 20;

/// Plans until nothing is left to be done.
const ROUNDS: usize = 40;

const NOW: Instant = Instant::from_nanos(5_000_000_000);

/// One pod and what is remembered of it.
#[derive(Clone, Debug)]
struct Known {
    pod: Pod,
    has_fallen: bool,
    is_settled: bool,
    node: Option<Node>,
}

/// Anything that a controller may see.
#[derive(Clone, Debug)]
struct Any {
    group: Group,
    pods: Vec<Known>,
    record: Record,
    version: Option<u64>,
    seen_stopped: BTreeSet<String>,
    told: BTreeSet<(String, u64)>,
    is_missing: bool,
    may_delete: bool,
    deletes_max: usize,
}

impl Any {
    fn plan(&self) -> Plan {
        let seen: Vec<Seen<'_>> = self.pods.iter().map(Known::seen).collect();
        let deletes_from = if self.may_delete { NOW } else { NOW + std::time::Duration::from_secs(1) };
        plan(&Sight {
            group: &self.group,
            pods: &seen,
            record: &self.record,
            version: self.version,
            is_missing: self.is_missing,
            seen_stopped: &self.seen_stopped,
            told: &self.told,
            now: NOW,
            deletes_from,
            deletes_max: self.deletes_max,
        })
    }

    fn known(&self, uid: &str) -> Option<&Known> {
        self.pods.iter().find(|known| known.pod.uid == uid)
    }

    fn is_labelled_active(&self, pod: &Pod) -> bool {
        pod.label("role") == Some("active")
    }

    fn labelled(&self) -> usize {
        self.pods.iter().filter(|known| self.is_labelled_active(&known.pod)).count()
    }

    fn token(&self, place: &Place) -> Option<u64> {
        place.token.or(self.version)
    }

    /// Whether a place may be given away at all, for the state of its pod.
    fn is_free(&self, place: &Place) -> bool {
        let Group { promote_after, handover, .. } = &self.group;
        match (self.known(&place.uid), promote_after) {
            (None, PromoteAfter::Removed) => true,
            (None, PromoteAfter::Stopped) => self.seen_stopped.contains(&place.uid),
            (Some(known), PromoteAfter::Stopped) => known.is_stopped() && !known.is_fit(),
            (Some(known), PromoteAfter::Removed) if known.has_fallen || known.pod.has_ended => true,
            (Some(known), PromoteAfter::Removed) => known.pod.is_deleting && *handover == Handover::DrainFirst,
        }
    }

    /// Whether a fit pod may have to leave its place.
    fn may_be_sent_away(&self) -> bool {
        let request = self.group.switchover.as_ref();
        let is_asked = |known: &Known| request.is_some_and(|request| request.to == known.pod.name);
        let is_wanted =
            |known: &Known| (known.pod.is_wanted || is_asked(known)) && self.record.place_of(&known.pod.uid).is_none();
        self.record.places.len() > self.group.active || self.pods.iter().any(is_wanted)
    }

    /// Everything is written and answered.
    fn apply(&mut self, plan: &Plan) {
        self.pods.retain(|known| !known.pod.is_deleting || !known.pod.has_ended);
        for write in &plan.writes {
            if let Write::Record(record) = write {
                (self.record, self.version) = (record.clone(), Some(self.version.unwrap_or(VERSION) + 1));
                self.is_missing = false;
            }
            if let Write::Tell { uid, token } = write {
                self.told.insert((uid.clone(), *token));
            }
            let Some(known) = self.pods.iter_mut().find(|known| write.uid() == Some(&*known.pod.uid)) else { continue };
            match write {
                Write::Label { part, token, .. } => {
                    known.is_settled = true;
                    known.pod.token = *token;
                    let value = if *part == Part::Active { "active" } else { "standby" };
                    known.pod.labels.insert("role".to_owned(), value.to_owned());
                    known.pod.is_wanted &= *part == Part::Standby;
                }
                Write::Settle { .. } => known.is_settled = true,
                // Its kubelet does what it is asked for.
                Write::Delete { uid, .. } => {
                    (known.pod.is_deleting, known.pod.has_ended) = (true, true);
                    self.seen_stopped.insert(uid.clone());
                }
                Write::Record(_) | Write::Tell { .. } => {}
            }
        }
    }
}

impl Known {
    fn is_fit(&self) -> bool {
        !self.pod.is_deleting && !self.pod.has_ended && !self.has_fallen
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            pod: &self.pod,
            fallen: self.has_fallen.then_some("main"),
            is_settled: self.is_settled,
            node: self.node.as_ref(),
        }
    }

    fn is_stopped(&self) -> bool {
        let is_out = self.node.as_ref().is_some_and(|node| node.is_out_of_service);
        self.pod.is_stopped() || (self.pod.is_deleting && is_out)
    }
}

fn often(permille: u32) -> impl Strategy<Value = bool> {
    prop::bool::weighted(f64::from(permille) / 1000.0)
}

fn known(number: usize) -> impl Strategy<Value = Known> {
    let label = select(vec![Some("active"), Some("active"), Some("standby"), Some("standby"), Some("odd"), None]);
    let marks = (label, option::of(select(vec![5, VERSION])), often(150), -1_i64..2);
    let life = (often(800), often(200), often(100), often(900));
    let state = select(vec![State::Running, State::Running, State::Ended, State::Waiting, State::Lost]);
    let nodes = option::of((often(300), often(300)).prop_map(|(is_bad, is_out_of_service)| Node {
        name: "n1".to_owned(),
        is_bad,
        is_out_of_service,
    }));
    (marks, life, vec(state, 1..3), often(150), often(600), nodes).prop_map(
        move |((label, token, is_wanted, priority), life, states, has_fallen, is_settled, node_seen)| {
            let (is_ready, is_deleting, has_ended, is_bound) = life;
            let labels = label.map(|value| ("role".to_owned(), value.to_owned())).into_iter().collect();
            let name = |at: usize| if at == 0 { "main".to_owned() } else { "beside".to_owned() };
            let mark = |at| if at == 0 { vec![Mark::default()] } else { Vec::new() };
            let container = |(at, state)| Container { name: name(at), variables: mark(at), state, restarts: 0 };
            let containers = states.into_iter().enumerate().map(container).collect();
            let node = is_bound.then(|| "n1".to_owned());
            let plain = pod(&format!("p{number}"));
            let pod =
                Pod { labels, token, is_wanted, priority, is_ready, is_deleting, has_ended, node, containers, ..plain };
            Known { pod, has_fallen, is_settled, node: node_seen }
        },
    )
}

fn any_group() -> impl Strategy<Value = Group> {
    let promote_after = select(vec![PromoteAfter::Removed, PromoteAfter::Stopped]);
    let handover = select(vec![Handover::DrainFirst, Handover::StopFirst]);
    let switchover = option::weighted(
        0.2,
        (0_usize..8).prop_map(|number| Switchover { to: format!("p{number}"), request: "r1".to_owned() }),
    );
    (1_usize..4, promote_after, handover, any::<bool>(), switchover).prop_map(
        |(active, promote_after, handover, is_told, switchover)| Group {
            active,
            promote_after,
            handover,
            notice: is_told.then_some(Notice::Udp { port: 1, payload: None }),
            switchover,
            ..group()
        },
    )
}

/// Places of pods that are there, and of some that are gone.
fn record() -> impl Strategy<Value = Record> {
    let numbers = prop::sample::subsequence((0..8).collect::<Vec<usize>>(), 0..4).prop_shuffle();
    (numbers, vec((option::of(5_u64..VERSION), any::<bool>()), 8)).prop_map(|(numbers, rest)| {
        let place = |number: usize| {
            let (token, is_told) = rest[number];
            Place { pod: format!("p{number}"), uid: format!("uid-p{number}"), token, is_told }
        };
        Record { places: numbers.into_iter().map(place).collect(), ..Record::default() }
    })
}

fn any_sight() -> impl Strategy<Value = Any> {
    let pods = prop::sample::subsequence((0..7).collect::<Vec<usize>>(), 0..7)
        .prop_flat_map(|numbers| numbers.into_iter().map(known).collect::<Vec<_>>());
    let stopped = prop::sample::subsequence((0..8).collect::<Vec<usize>>(), 0..8);
    let (are_told, course, rounds) = (any::<bool>(), (often(800), often(100), 1_usize..3), 0_usize..4);
    (any_group(), pods, option::weighted(0.9, record()), stopped, are_told, course, rounds).prop_map(
        |(group, pods, record, stopped, are_told, (may_delete, is_missing, deletes_max), rounds)| {
            let is_missing = is_missing && record.is_some();
            let version = record.as_ref().map(|_| VERSION);
            let record = record.unwrap_or_default();
            let told = record.places.iter().filter(|_| are_told);
            let told = told.map(|place| (place.uid.clone(), place.token.unwrap_or(VERSION))).collect();
            let seen_stopped = stopped.into_iter().map(|number| format!("uid-p{number}")).collect();
            let mut sight =
                Any { group, pods, record, version, seen_stopped, told, is_missing, may_delete, deletes_max };
            // So that all steps on the way are seen often enough.
            for _ in 0..rounds {
                let plan = sight.plan();
                sight.apply(&plan);
            }
            sight
        },
    )
}

fn promoted(plan: &Plan) -> impl Iterator<Item = (&str, Option<u64>)> {
    plan.writes.iter().filter_map(|write| match write {
        Write::Label { uid, part: Part::Active, token, .. } => Some((uid.as_str(), *token)),
        _ => None,
    })
}

fn demoted(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.writes.iter().filter_map(|write| match write {
        Write::Label { uid, part: Part::Standby, .. } => Some(uid.as_str()),
        _ => None,
    })
}

fn recorded(plan: &Plan) -> Option<&Record> {
    plan.writes.iter().find_map(|write| match write {
        Write::Record(record) => Some(record),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nobody_is_labelled_as_active_while_another_one_may_be(sight in any_sight()) {
        let plan = sight.plan();
        if promoted(&plan).next().is_none() {
            return Ok(());
        }
        prop_assert_eq!(demoted(&plan).next(), None);
        prop_assert_eq!(recorded(&plan), None);
        for known in sight.pods.iter().filter(|known| sight.record.place_of(&known.pod.uid).is_none()) {
            prop_assert!(known.is_settled && known.pod.label("role") == Some("standby"), "{:?}", known.pod);
        }
        let mut after = sight.clone();
        after.apply(&plan);
        prop_assert!(after.labelled() <= sight.group.active, "{:?}", plan);
    }

    #[test]
    fn only_who_is_recorded_and_fit_is_labelled_as_active_with_its_token(sight in any_sight()) {
        let plan = sight.plan();
        for (uid, token) in promoted(&plan) {
            let place = sight.record.place_of(uid);
            prop_assert!(place.is_some_and(|place| sight.token(place) == token && token.is_some()), "{}", uid);
            prop_assert!(sight.known(uid).is_some_and(Known::is_fit), "{}", uid);
        }
    }

    #[test]
    fn a_place_is_given_away_on_evidence_only(sight in any_sight()) {
        let plan = sight.plan();
        let Some(record) = recorded(&plan) else { return Ok(()) };
        prop_assert!(record.places.len() <= sight.group.active.max(sight.record.places.len()));
        for place in &sight.record.places {
            match record.place_of(&place.uid) {
                Some(kept) => prop_assert_eq!(kept.token, sight.token(place)),
                None => {
                    let is_removed = sight.group.promote_after == PromoteAfter::Removed;
                    let is_sent_away = is_removed && sight.may_be_sent_away() && sight.known(&place.uid).is_some_and(Known::is_fit);
                    prop_assert!(sight.is_free(place) || is_sent_away, "{}", place.uid);
                }
            }
        }
        for place in record.places.iter().filter(|place| sight.record.place_of(&place.uid).is_none()) {
            prop_assert!(record.places.len() <= sight.group.active);
            prop_assert!(place.token.is_none() && sight.known(&place.uid).is_some_and(Known::is_fit), "{}", place.uid);
        }
    }

    #[test]
    fn who_keeps_its_place_is_not_deleted_and_never_too_many_at_once(sight in any_sight()) {
        let writes = sight.plan().writes;
        let deleted = writes.iter().filter(|write| matches!(write, Write::Delete { .. })).count();
        prop_assert!(deleted <= sight.deletes_max, "{}", deleted);
        for write in &writes {
            let Write::Delete { uid, .. } = write else { continue };
            let known = sight.known(uid).unwrap();
            let is_recorded = sight.record.place_of(uid).is_some();
            let must_end = is_recorded && sight.group.promote_after == PromoteAfter::Stopped && sight.may_be_sent_away();
            prop_assert!(known.has_fallen || must_end, "{}", uid);
            prop_assert!(!known.pod.is_deleting && sight.may_delete, "{}", uid);
        }
    }

    #[test]
    fn whatever_is_wrong_is_put_right_and_then_nothing_more_is_written(sight in any_sight()) {
        let mut sight = Any { may_delete: true, ..sight };
        let mut plans = Vec::new();
        while plans.len() < ROUNDS {
            let plan = sight.plan();
            if plan.writes.is_empty() && sight.pods.iter().all(|known| !known.pod.is_deleting || !known.pod.has_ended) {
                break;
            }
            sight.apply(&plan);
            plans.push(plan);
        }
        prop_assert!(plans.len() < ROUNDS, "{:?}", plans);
        prop_assert!(sight.labelled() <= sight.group.active);
        let is_odd = |known: &&Known| known.is_fit() && !["active", "standby"].map(Some).contains(&known.pod.label("role"));
        prop_assert_eq!(sight.pods.iter().find(is_odd).map(|known| &known.pod), None);
        let unproven = sight.record.places.iter().filter(|place| {
            !sight.is_free(place) && !sight.known(&place.uid).is_some_and(Known::is_fit)
        });
        let ready = sight.pods.iter().filter(|known| known.is_fit() && known.pod.is_ready).count();
        let expected = ready.min(sight.group.active.saturating_sub(unproven.count()));
        prop_assert!(sight.labelled() >= expected, "{} of {}", sight.labelled(), expected);
    }
}

#[test]
fn what_is_shown_of_all_plans_is_shown_of_many() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let plans: Vec<Plan> = (0..2_000)
        .map(|_| any_sight().new_tree(&mut runner).map(|tree| tree.current().plan()).unwrap_or_default())
        .collect();
    let count = |wanted: fn(&Plan) -> bool| plans.iter().filter(|plan| wanted(plan)).count();
    let seen = [
        count(|plan| promoted(plan).next().is_some()),
        count(|plan| demoted(plan).next().is_some()),
        count(|plan| recorded(plan).is_some()),
        count(|plan| plan.writes.iter().any(|write| matches!(write, Write::Delete { .. }))),
        count(|plan| plan.writes.iter().any(|write| matches!(write, Write::Settle { .. }))),
        count(|plan| plan.writes.iter().any(|write| matches!(write, Write::Tell { .. }))),
        count(|plan| plan.writes.is_empty()),
    ];
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
