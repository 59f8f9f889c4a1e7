//! What really runs, and what kubelets say of it, late or never.

use std::collections::BTreeMap;

use soloist::controller::critical::Mark;
use soloist::controller::pod::{Container, Pod, State};

use super::api::Api;
use crate::sim::random::Random;

/// One container as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    is_running: bool,
    begun: u32,
}

/// The processes of one pod. They may outlive its object.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    node: usize,
    runs: Vec<Run>,
    /// The kubelet has learned that they are to end.
    is_told_to_end: bool,
    /// They have ended for good.
    pub is_over: bool,
    /// Some of them run, and have run while the pod was labelled as active.
    pub are_active: bool,
}

impl Processes {
    pub(super) fn run(&self) -> bool {
        self.runs.iter().any(|run| run.is_running)
    }

    /// One container ends, if it runs.
    pub(super) fn end_one(&mut self, at: usize) -> bool {
        let ended = self.runs.get_mut(at).is_some_and(|run| std::mem::take(&mut run.is_running));
        self.are_active &= self.run();
        ended
    }

    /// The kubelet ends them for reasons of its own, or somebody else for good.
    pub(super) fn evict(&mut self) {
        self.is_told_to_end = true;
    }

    pub(super) fn end_for_good(&mut self) {
        self.end_all();
        (self.is_told_to_end, self.is_over) = (true, true);
    }

    fn end_all(&mut self) {
        self.runs.iter_mut().for_each(|run| run.is_running = false);
        self.are_active = false;
    }

    fn begin_one(&mut self, random: &mut Random) -> bool {
        let down: Vec<usize> = (0..self.runs.len()).filter(|at| !self.runs[*at].is_running).collect();
        if down.is_empty() {
            return false;
        }
        let run = &mut self.runs[random.pick(&down)];
        (run.is_running, run.begun) = (true, run.begun + 1);
        true
    }

    /// What the kubelet says of a container.
    fn state(&self, at: usize, random: &mut Random) -> (State, u32) {
        let run = self.runs[at];
        let state = match (run.is_running, run.begun) {
            (true, _) => State::Running,
            // One that never began is not said to have ended.
            (false, 0) => State::Waiting,
            // It is said to wait once it waits to begin again.
            (false, _) if !self.is_over && random.chance(500) => State::Waiting,
            (false, _) => State::Ended,
        };
        (state, run.begun.saturating_sub(1))
    }
}

/// A node, and whether its kubelet reaches the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub is_alive: bool,
    pub is_connected: bool,
}

/// All nodes and what runs on them.
#[derive(Debug)]
pub(super) struct Nodes {
    pub nodes: Vec<Node>,
    pub processes: BTreeMap<String, Processes>,
}

/// How a node is called.
pub(super) fn node_name(at: usize) -> String {
    format!("n{at}")
}

impl Nodes {
    pub(super) fn new(count: usize) -> Self {
        let node = Node { is_alive: true, is_connected: true };
        Self { nodes: vec![node; count], processes: BTreeMap::new() }
    }

    pub(super) fn node_of(&self, uid: &str) -> Option<usize> {
        self.processes.get(uid).map(|processes| processes.node)
    }

    /// A pod is bound to a node.
    pub(super) fn bind(&mut self, api: &mut Api, uid: &str, node: usize) {
        let bound = api.change(uid, |pod| pod.node = Some(node_name(node)));
        if let Some(pod) = bound {
            let runs = vec![Run::default(); pod.containers.len()];
            self.processes.insert(uid.to_owned(), Processes { node, runs, ..Processes::default() });
        }
    }

    /// Everything on a node ends, and nobody can say so.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        self.processes.values_mut().filter(|one| one.node == node).for_each(Processes::end_all);
    }

    /// The kubelet does one thing about one pod.
    pub(super) fn turn(&mut self, api: &mut Api, uid: &str, random: &mut Random) -> Option<&'static str> {
        let processes = self.processes.get_mut(uid)?;
        let Node { is_alive, is_connected, .. } = self.nodes[processes.node];
        if !is_alive {
            return None;
        }
        let is_shown = api.pod(uid).is_some_and(|pod| !pod.is_deleting && !pod.has_ended);
        if is_connected && !is_shown && !processes.is_told_to_end {
            processes.is_told_to_end = true;
            return Some("is told to end");
        }
        if processes.is_told_to_end && !processes.is_over {
            processes.end_for_good();
            return Some("has ended");
        }
        if processes.is_over {
            return is_connected.then(|| report_the_end(api, uid, processes, random));
        }
        if random.chance(400) && processes.begin_one(random) {
            return Some("begins a container");
        }
        is_connected.then(|| report(api, uid, processes, random))
    }
}

fn report(api: &mut Api, uid: &str, processes: &Processes, random: &mut Random) -> &'static str {
    let is_ready = processes.runs.iter().all(|run| run.is_running);
    api.change(uid, |pod| {
        show(pod, processes, random);
        pod.is_ready = is_ready;
    });
    "is reported"
}

/// The last report, and then the end of the object.
fn report_the_end(api: &mut Api, uid: &str, processes: &Processes, random: &mut Random) -> &'static str {
    match api.pod(uid) {
        // Nobody has asked for its end: the kubelet leaves it there.
        Some(pod) if pod.has_ended && !pod.is_deleting => return "stays as ended",
        Some(pod) if !pod.has_ended => {}
        _ => {
            api.remove(uid);
            return "is removed";
        }
    }
    api.change(uid, |pod| {
        show(pod, processes, random);
        (pod.is_ready, pod.has_ended) = (false, true);
    });
    "is reported to have ended"
}

fn show(pod: &mut Pod, processes: &Processes, random: &mut Random) {
    for (at, container) in pod.containers.iter_mut().enumerate() {
        (container.state, container.restarts) = processes.state(at, random);
    }
}

/// Containers as they are before anything is known of them.
pub(super) fn containers(count: usize) -> Vec<Container> {
    let new = |at: usize| Container {
        name: if at == 0 { "main".to_owned() } else { "beside".to_owned() },
        variables: if at == 0 { vec![Mark::default()] } else { Vec::new() },
        state: State::Waiting,
        restarts: 0,
    };
    (0..count).map(new).collect()
}
