//! The loop: one thing happens after the other, in an order that the seed chooses, and everything is checked after each.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use election::Instant;
use soloist::controller::group::Group;
use soloist::controller::plan::Part;
use soloist::controller::pod::Pod;

use super::api::Api;
use super::controller::Controller;
use super::history::History;
use super::kubelet::{Nodes, containers};
use super::network::{Answer, Call, Change, Network, Request};
use super::rules::Rules;
use super::setting::Setting;
use crate::sim::random::Random;

/// Steps before faults end.
const STEPS: u64 = 600;

/// Controllers, of which one leads.
const CONTROLLERS: usize = 2;

/// Nodes.
const NODES: usize = 3;

/// The state of one history.
pub(super) struct World {
    pub setting: Setting,
    pub rules: Rules,
    pub random: Random,
    pub group: Group,
    pub api: Api,
    pub nodes: Nodes,
    pub network: Network,
    pub controllers: Vec<Controller>,
    pub leader: Option<usize>,
    terms: u64,
    pub requests: u64,
    /// Requests that their controller waits for no more.
    pub given_up: BTreeSet<u64>,
    /// Pods that there ever were.
    pub created: u64,
    /// What operators have said about pods that are gone: their processes have ended.
    pub word: BTreeSet<String>,
    /// Pods that are labelled as active by hand and not by a controller.
    pub by_hand: BTreeSet<String>,
    /// The most that may be active: while their number is changed, what it was before.
    pub most: usize,
    /// The last promotion that was labelled.
    pub latest: Option<(u64, String)>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    pub history: History,
}

/// Runs the history of a seed. A panic is a finding like any other.
pub fn run(seed: u64, rules: Rules, with_trace: bool) -> History {
    let play = || {
        let mut world = World::new(seed, rules, with_trace);
        world.play();
        world.history
    };
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let mut history = History::new(false);
        history.finding(format!("panic: {}", text.unwrap_or_default()));
        history
    })
}

impl World {
    fn new(seed: u64, rules: Rules, with_trace: bool) -> Self {
        let setting = Setting::of(seed, &mut Random::stream(seed, 1));
        Self {
            group: setting.group.clone(),
            most: setting.group.active,
            setting,
            rules,
            random: Random::stream(seed, 2),
            api: Api::default(),
            nodes: Nodes::new(NODES),
            network: Network::default(),
            controllers: vec![Controller::default(); CONTROLLERS],
            leader: None,
            terms: 0,
            requests: 0,
            given_up: BTreeSet::new(),
            created: 0,
            word: BTreeSet::new(),
            by_hand: BTreeSet::new(),
            latest: None,
            is_calm: false,
            history: History::new(with_trace),
        }
    }

    fn play(&mut self) {
        let setting = self.setting.clone();
        self.history.note(|| format!("{setting:?}"));
        while self.history.steps < STEPS && self.history.findings.is_empty() {
            self.history.steps += 1;
            self.step();
            self.check();
        }
        if self.history.findings.is_empty() {
            self.recover();
        }
    }

    fn step(&mut self) {
        if self.random.chance(self.setting.faults) {
            return self.mishap();
        }
        if self.leader.is_none() && self.random.chance(100) {
            return self.elect();
        }
        match self.random.below(100) {
            0..40 => {
                let at = self.random.index(self.controllers.len());
                let at = self.leader.filter(|_| self.rules.checks_its_term).unwrap_or(at);
                self.controller_turns(at);
            }
            40 if self.random.chance(150) => self.stray_arrives(),
            40..70 => self.network_turns(),
            70..90 => self.kubelets_turn(),
            90..96 => self.owner_turns(),
            _ => self.term_ends(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.history.steps * 1_000_000)
    }

    // === network ===

    fn network_turns(&mut self) {
        let (requests, answers) = (self.network.requests.len(), self.network.answers.len());
        let which = self.random.index(requests + answers);
        if which < requests {
            self.arrive(which);
        } else if which - requests < answers {
            let (request, answer) = self.network.answers.swap_remove(which - requests);
            self.hear(&request, answer);
        }
    }

    fn arrive(&mut self, which: usize) {
        let request = self.network.requests.swap_remove(which);
        if self.random.chance(self.setting.losses) {
            // Whoever waits for it has to give it up.
            return self.history.note(|| format!("{} is lost", request.id));
        }
        self.land(request);
    }

    /// What nobody waits for any more may take very long, or never arrive.
    pub(super) fn lose_sight(&mut self) {
        let (kept, stray) = std::mem::take(&mut self.network.requests).into_iter().partition(|one| !self.is_late(one));
        self.network.requests = kept;
        let stray: Vec<Request> = stray;
        self.network.stray.extend(stray.into_iter().filter(|one| is_write(&one.call)));
    }

    fn stray_arrives(&mut self) {
        if self.network.stray.is_empty() {
            return;
        }
        let which = self.random.index(self.network.stray.len());
        let request = self.network.stray.swap_remove(which);
        if self.random.chance(100) {
            self.history.count("a write that was given up never lands");
            return self.history.note(|| format!("{} is lost", request.id));
        }
        self.land(request);
    }

    /// Whether nobody waits for this any more.
    fn is_late(&self, request: &Request) -> bool {
        !self.controllers[request.controller].under_way.contains_key(&request.id)
    }

    pub(super) fn land(&mut self, request: Request) {
        let before = match &request.call {
            Call::Pod { uid, .. } => self.api.pod(uid).cloned(),
            _ => None,
        };
        let answer = self.api.serve(&request, &self.group, self.rules);
        self.history.note(|| format!("{} lands: {}", request.id, outcome(&answer)));
        self.check_write(&request, before.as_ref(), &answer);
        self.check();
        if is_promotion(&request.call) && self.random.chance(800) {
            // When it hurts most.
            self.stray_arrives();
        }
        if self.random.chance(self.setting.losses) {
            self.history.count("an answer is lost");
            return;
        }
        self.network.answers.push((request, answer));
    }

    // === nodes and owner ===

    fn kubelets_turn(&mut self) {
        let uids: Vec<String> = self.nodes.processes.keys().cloned().collect();
        if !uids.is_empty() {
            let which = self.random.index(uids.len());
            self.kubelet_turns(&uids[which]);
        }
    }

    pub(super) fn kubelet_turns(&mut self, uid: &str) {
        let before = self.api.pod(uid).cloned();
        let what = self.nodes.turn(&mut self.api, uid, &mut self.random);
        let is_new = self.api.pod(uid) != before.as_ref() || what.is_some_and(|what| !what.contains("report"));
        if let Some(what) = what.filter(|_| is_new) {
            self.history.note(|| format!("{uid} {what}"));
        }
        if let (Some(before), Some(after)) = (before, self.api.pod(uid)) {
            self.history.count_if("a container ends and begins again unseen", has_begun_unseen(&before, after));
        }
    }

    /// The owner keeps so many pods, and the scheduler gives each a node.
    pub(super) fn owner_turns(&mut self) {
        let unbound = self.api.pods().find(|pod| pod.node.is_none() && !pod.is_deleting).map(|pod| pod.uid.clone());
        if let Some(uid) = unbound
            && self.random.chance(600)
        {
            let node = self.random.index(NODES);
            self.history.note(|| format!("{uid} is bound to {node}"));
            return self.nodes.bind(&mut self.api, &uid, node);
        }
        let ended = self.api.pods().find(|pod| pod.has_ended && !pod.is_deleting).map(|pod| pod.uid.clone());
        if let Some(uid) = ended
            && self.random.chance(200)
        {
            self.api.delete(&uid);
        }
        if self.api.pods().filter(|pod| !pod.is_deleting && !pod.has_ended).count() < self.setting.replicas {
            self.create();
        }
    }

    fn create(&mut self) {
        self.created += 1;
        let fresh = uid_of(self.created);
        let name = match self.setting.is_stateful {
            false => Some(fresh.clone()),
            true => (0..self.setting.replicas)
                .map(|at| format!("s{at}"))
                .find(|name| self.api.pods().all(|pod| pod.name != *name)),
        };
        let Some(name) = name else { return };
        self.history.note(|| format!("{fresh} is created as {name}"));
        let count = 1 + self.random.index(2);
        self.api.put(Pod {
            owner: None,
            namespace: self.group.namespace.clone(),
            name,
            uid: fresh,
            version: 0,
            labels: self.first_labels(),
            term: None,
            token: None,
            priority: 0,
            is_wanted: false,
            since: format!("{:08}", self.created),
            is_deleting: false,
            has_ended: false,
            is_ready: false,
            ip: Some([10, 0, 0, 7].into()),
            node: None,
            containers: containers(count),
        });
    }

    /// What its owner's template says.
    fn first_labels(&self) -> BTreeMap<String, String> {
        let label = &self.group.label;
        let first = self.setting.is_labelled_first.then(|| (label.key.clone(), label.standby.clone()));
        first.into_iter().collect()
    }

    // === who leads ===

    fn term_ends(&mut self) {
        if let Some(at) = self.leader.filter(|_| self.random.chance(150)) {
            self.depose(at);
        }
    }

    pub(super) fn elect(&mut self) {
        let at = self.random.index(CONTROLLERS);
        self.terms += 1;
        let term = self.terms;
        self.history.note(|| format!("c{at} begins term {term}"));
        self.controllers[at].begin(term);
        self.leader = Some(at);
    }

    /// Its term is over. What it has sent may land at any time.
    pub(super) fn depose(&mut self, at: usize) {
        if self.leader != Some(at) {
            return;
        }
        self.history.note(|| format!("c{at} is deposed"));
        self.leader = None;
        let has_sent = self.network.requests.iter().any(|one| one.controller == at && is_write(&one.call));
        self.history.count_if("a controller is deposed with writes on their way", has_sent);
        if self.rules.checks_its_term {
            self.controllers[at] = Controller::default();
        }
        self.lose_sight();
    }
}

/// The UID of the pod that was created so-many-th.
pub(super) fn uid_of(number: u64) -> String {
    format!("p{number}")
}

/// Whether a call changes anything.
pub(super) fn is_write(call: &Call) -> bool {
    matches!(call, Call::Pod { .. } | Call::Record { .. })
}

/// Whether a call labels a pod as active.
pub(super) fn is_promotion(call: &Call) -> bool {
    matches!(call, Call::Pod { change: Change::Label(Part::Active, _), .. })
}

fn has_begun_unseen(before: &Pod, after: &Pod) -> bool {
    use soloist::controller::pod::State::Running;
    let pairs = before.containers.iter().zip(&after.containers);
    pairs
        .into_iter()
        .any(|(one, other)| (one.state, other.state) == (Running, Running) && other.restarts > one.restarts)
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Pod(_) | Answer::Record(_) => "done",
        Answer::Gone => "gone",
        Answer::Conflict => "conflict",
    }
}
