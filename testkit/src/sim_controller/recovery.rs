//! After the last fault: the group has to be as it should be within so many rounds, and to stay so.

use soloist::controller::pod::Pod;

use super::world::World;

/// Rounds until then.
const ROUNDS: usize = 60;

/// Rounds between two reads of the record.
const READS_APART: usize = 20;

/// Steps of a controller and of each kubelet in a round.
const TURNS: usize = 12;

impl World {
    pub(super) fn recover(&mut self) {
        self.history.note(|| "!! nothing goes wrong any more".to_owned());
        self.setting.losses = 0;
        self.is_calm = true;
        self.heal();
        for round in 0..ROUNDS {
            if round % READS_APART == 0 {
                // Nothing else tells it of a record that was changed by hand.
                self.controllers.iter_mut().for_each(|controller| controller.must_read_record = true);
            }
            self.round();
            if !self.history.findings.is_empty() || (self.lacks().is_none() && self.is_at_rest()) {
                return;
            }
        }
        let lacks = self.lacks().unwrap_or_else(|| "it does not come to rest".to_owned());
        self.history.finding(format!("{ROUNDS} rounds after the last fault: {lacks}"));
    }

    /// Everybody does what is to be done.
    fn round(&mut self) {
        self.history.steps += 10;
        if self.leader.is_none() {
            self.elect();
        }
        for _ in 0..TURNS {
            self.owner_turns();
            let uids: Vec<String> = self.nodes.processes.keys().cloned().collect();
            uids.iter().for_each(|uid| self.kubelet_turns(uid));
            self.check();
        }
        self.say_what_has_ended();
        self.nodes.processes.retain(|uid, processes| self.api.pod(uid).is_some() || processes.run());
        self.network.requests.append(&mut self.network.stray);
        while let Some(request) = self.network.requests.pop() {
            self.land(request);
        }
        while let Some((request, answer)) = self.network.answers.pop() {
            self.hear(&request, answer);
        }
        let leader = self.leader.unwrap_or_default();
        while self.controllers[leader].position.is_some_and(|position| position < self.api.log.len()) {
            let position = self.controllers[leader].position.unwrap_or_default();
            self.watch_one(leader, position);
        }
        for at in 0..self.controllers.len() {
            let ids: Vec<u64> = self.controllers[at].under_way.keys().copied().collect();
            ids.iter().for_each(|_| self.give_up(at));
            (0..TURNS).for_each(|_| self.controller_turns(at));
        }
    }

    /// Nothing is under way, and nothing more is planned.
    fn is_at_rest(&mut self) -> bool {
        let leader = self.leader.unwrap_or_default();
        self.network.requests.is_empty() && self.plan(leader).is_some_and(|plan| plan.writes.is_empty())
    }

    /// What is not as it should be.
    fn lacks(&self) -> Option<String> {
        let is_fit = |pod: &&Pod| !pod.is_deleting && !pod.has_ended;
        let fit = self.api.pods().filter(is_fit).count();
        let wanted = self.group.active.min(fit);
        let active: Vec<&Pod> = self.api.pods().filter(|pod| self.is_labelled_active(pod)).collect();
        if fit < self.setting.replicas {
            return Some(format!("{fit} pods are fit"));
        }
        if active.len() != wanted || !active.iter().all(|pod| self.is_recorded(pod)) {
            let uids: Vec<&str> = active.iter().map(|pod| pod.uid.as_str()).collect();
            return Some(format!("{wanted} should be active and {uids:?} are, of {:?}", self.api.record()));
        }
        let standby = self.group.label.standby.as_str();
        let is_odd = |pod: &&Pod| !self.is_labelled_active(pod) && pod.label(&self.group.label.key) != Some(standby);
        self.api.pods().find(is_odd).map(|pod| format!("the label of {} is not repaired", pod.uid))
    }

    /// The record names this pod, and once did so with the token that is on it. Whoever touches the record gives it another
    /// version, which nobody has to see before it is written again.
    fn is_recorded(&self, pod: &Pod) -> bool {
        let is_place = self.api.record().as_ref().is_some_and(|(_, record)| record.place_of(&pod.uid).is_some());
        is_place && pod.token.is_some_and(|token| self.api.named.contains(&(pod.uid.clone(), token)))
    }
}
