//! What goes wrong, and what people do.

use soloist::controller::group::PromoteAfter;
use soloist::controller::pod::{Pod, State};

use super::world::{World, uid_of};

impl World {
    /// Something happens to some pod, the active one by preference.
    pub(super) fn mishap(&mut self) {
        let Some(pod) = self.victim() else { return };
        match self.random.below(18) {
            0 => self.delete(&pod),
            1 => self.delete_by_force(&pod),
            2 | 3 => self.end_a_container(&pod),
            4 => self.hurt_node(&pod),
            5 | 6 => self.heal(),
            7 => self.collect(&pod),
            8..=10 => self.edit_label(&pod),
            11 => self.ask_for(&pod),
            12 => self.make_unready(&pod),
            13 => self.edit_record(),
            14 => self.resize(),
            15 => self.evict(&pod),
            16 => _ = self.api.change(&pod.uid, |pod| pod.priority = 1 - pod.priority),
            _ => self.say_what_has_ended(),
        }
    }

    fn victim(&mut self) -> Option<Pod> {
        let pods: Vec<&Pod> = self.api.pods().collect();
        let active: Vec<&Pod> = pods.iter().copied().filter(|pod| self.is_labelled_active(pod)).collect();
        let among = if active.is_empty() || self.random.chance(500) { pods } else { active };
        (!among.is_empty()).then(|| among[self.random.index(among.len())].clone())
    }

    /// Counts what befalls an active pod.
    fn befalls(&mut self, pod: &Pod, what: &str) {
        self.history.note(|| format!("!! {what}: {}", pod.uid));
        let is_active = self.is_labelled_active(pod);
        self.history.count_if(what, is_active);
    }

    fn runs(&self, pod: &Pod) -> bool {
        self.nodes.processes.get(&pod.uid).is_some_and(super::kubelet::Processes::run)
    }

    fn delete(&mut self, pod: &Pod) {
        if !pod.is_deleting {
            self.befalls(pod, "an active pod is deleted gracefully");
            self.api.delete(&pod.uid);
        }
    }

    fn delete_by_force(&mut self, pod: &Pod) {
        self.history.note(|| format!("!! {} is deleted by force", pod.uid));
        if self.runs(pod) {
            self.befalls(pod, "an active pod is deleted by force while it runs");
        }
        self.api.remove(&pod.uid);
    }

    fn end_a_container(&mut self, pod: &Pod) {
        let at = self.random.index(pod.containers.len());
        let ended = self.nodes.processes.get_mut(&pod.uid).is_some_and(|processes| processes.end_one(at));
        if ended {
            self.befalls(pod, "an active container ends");
        }
    }

    fn hurt_node(&mut self, pod: &Pod) {
        let Some(node) = self.nodes.node_of(&pod.uid) else { return };
        if self.random.chance(500) {
            self.befalls(pod, "a node dies with an active pod");
            self.nodes.kill(node);
        } else {
            self.befalls(pod, "a node with an active pod is cut off");
            self.nodes.nodes[node].is_connected = false;
        }
    }

    pub(super) fn heal(&mut self) {
        self.history.note(|| "!! all nodes are back".to_owned());
        for node in &mut self.nodes.nodes {
            (node.is_alive, node.is_connected) = (true, true);
        }
    }

    /// The garbage collector takes its node for lost. What it says of containers nobody has seen.
    fn collect(&mut self, pod: &Pod) {
        let Some(node) = self.nodes.node_of(&pod.uid).map(|at| self.nodes.nodes[at]) else { return };
        if node.is_alive && node.is_connected {
            return;
        }
        let what = if self.runs(pod) { "although it runs" } else { "although nobody saw its end" };
        self.history.note(|| format!("!! {} is collected {what}", pod.uid));
        self.history.count(&format!("a pod is collected {what}"));
        self.api.change(&pod.uid, |pod| {
            (pod.is_deleting, pod.has_ended) = (true, true);
            pod.containers.iter_mut().for_each(|container| container.state = State::Lost);
        });
        self.api.remove(&pod.uid);
    }

    fn edit_label(&mut self, pod: &Pod) {
        let (key, active) = (self.group.label.key.clone(), self.group.label.active.clone());
        let (was_active, kind) = (self.is_labelled_active(pod), self.random.below(3));
        let (what, value) = match kind {
            0 => ("a label is removed by hand", None),
            1 if was_active => {
                ("the active pod is labelled as a standby by hand", Some(self.group.label.standby.clone()))
            }
            _ if was_active => return,
            _ => {
                self.by_hand.insert(pod.uid.clone());
                ("a pod is labelled as active by hand", Some(active))
            }
        };
        if value.is_none() || was_active {
            self.by_hand.remove(&pod.uid);
        }
        self.history.note(|| format!("!! {what}: {}", pod.uid));
        self.history.count(what);
        self.api.change(&pod.uid, |pod| {
            match value {
                Some(value) => pod.labels.insert(key, value),
                None => pod.labels.remove(&key),
            };
        });
    }

    /// Somebody else is to be active, although nothing has happened to who is.
    pub(super) fn change_minds(&mut self) {
        let Some(pod) = self.victim() else { return };
        match self.random.below(4) {
            0 | 1 => self.ask_for(&pod),
            2 => self.edit_record(),
            _ => self.resize(),
        }
    }

    fn ask_for(&mut self, pod: &Pod) {
        self.history.note(|| format!("!! {} is asked for", pod.uid));
        self.history.count("a pod is asked for");
        self.api.change(&pod.uid, |pod| pod.is_wanted = true);
    }

    fn make_unready(&mut self, pod: &Pod) {
        self.befalls(pod, "an active pod gets unready");
        self.api.change(&pod.uid, |pod| pod.is_ready = false);
    }

    /// Where only one may run, the record is all that is known of what runs: whoever deletes it promises that nothing does.
    fn edit_record(&mut self) {
        let Some((_, record)) = self.api.record().clone() else { return };
        let is_deleted = self.group.promote_after == PromoteAfter::Removed && self.random.chance(500);
        let what = if is_deleted { "the record is deleted by hand" } else { "the record is touched by hand" };
        self.history.note(|| format!("!! {what}"));
        self.history.count(what);
        self.api.put_record((!is_deleted).then_some(record));
    }

    fn resize(&mut self) {
        if self.setting.is_resized {
            self.group.active = 3 - self.group.active;
            self.most = self.most.max(self.group.active);
            let active = self.group.active;
            self.history.note(|| format!("!! {active} are to be active"));
            self.history.count("another number of pods is wanted");
        }
    }

    fn evict(&mut self, pod: &Pod) {
        if let Some(processes) = self.nodes.processes.get_mut(&pod.uid) {
            processes.evict();
            self.history.note(|| format!("!! {} is evicted by its kubelet", pod.uid));
        }
    }

    /// Operators look after pods that are gone: they end what is left of them, and say so.
    pub(super) fn say_what_has_ended(&mut self) {
        let gone: Vec<String> = (1..=self.created).map(uid_of).filter(|uid| self.api.pod(uid).is_none()).collect();
        for uid in gone {
            if let Some(processes) = self.nodes.processes.get_mut(&uid) {
                processes.end_for_good();
            }
            if self.word.insert(uid) {
                self.history.count("an operator says that a pod has ended");
            }
        }
    }
}
