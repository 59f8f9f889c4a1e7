//! What must hold, checked after each step, and what is counted on the way.

use soloist::controller::group::PromoteAfter;
use soloist::controller::plan::{Part, Plan};
use soloist::controller::pod::Pod;

use super::network::{Answer, Call, Change, Request};
use super::world::{World, is_write};

impl World {
    /// Whether a pod is published as an active one.
    pub(super) fn is_labelled_active(&self, pod: &Pod) -> bool {
        pod.label(&self.group.label.key) == Some(&self.group.label.active)
    }

    /// What must hold at any time.
    pub(super) fn check(&mut self) {
        let published: Vec<String> =
            self.api.pods().filter(|pod| self.is_published(pod)).map(|pod| pod.uid.clone()).collect();
        if published.len() > self.most {
            self.history.finding(format!("more than {} are labelled as active: {published:?}", self.most));
        }
        for uid in &published {
            if let Some(processes) = self.nodes.processes.get_mut(uid) {
                processes.are_active |= processes.run();
            }
        }
        let running: Vec<&String> =
            self.nodes.processes.iter().filter(|(_, one)| one.are_active && one.run()).map(|(uid, _)| uid).collect();
        if self.group.promote_after == PromoteAfter::Stopped && running.len() > self.most {
            let finding = format!("more than {} run that were active: {running:?}", self.most);
            self.history.finding(finding);
        }
        let recorded = self.api.record().as_ref().map_or(0, |(_, record)| record.places.len());
        if recorded > self.most {
            self.history.finding(format!("{recorded} are recorded"));
        }
    }

    /// Labelled as active, and not by the hand of somebody.
    fn is_published(&self, pod: &Pod) -> bool {
        self.is_labelled_active(pod) && !self.by_hand.contains(&pod.uid)
    }

    /// What must hold when a request of a controller has arrived.
    pub(super) fn check_write(&mut self, request: &Request, before: Option<&Pod>, answer: &Answer) {
        self.count_late(request, answer);
        match (&request.call, answer) {
            (Call::Pod { change, uid, .. }, Answer::Pod(_)) => {
                if before.and_then(|pod| pod.term).is_some_and(|term| term > request.term) {
                    self.history.finding("a write of an earlier term lands after one of a later term");
                }
                match change {
                    Change::Label(part, token) => {
                        self.by_hand.remove(uid);
                        if *part == Part::Active {
                            self.check_promotion(uid, *token);
                        }
                    }
                    Change::Settle => self.history.count("a pod is settled"),
                    Change::Delete => self.history.count("a pod is deleted by a controller"),
                }
            }
            (Call::Record { record, .. }, Answer::Record(_)) if record.places.len() > self.most => {
                self.history.finding("more are recorded than may be active");
            }
            _ => {}
        }
    }

    fn check_promotion(&mut self, uid: &str, token: Option<u64>) {
        let Some(token) = token else {
            return self.history.finding("a promotion has no token");
        };
        if !self.api.named.contains(&(uid.to_owned(), token)) {
            self.history.finding(format!("no record has ever named {uid} with the token {token}"));
        }
        let is_back =
            self.latest.as_ref().is_some_and(|(latest, who)| *latest > token || (*latest == token && who != uid));
        if self.most == 1 && is_back {
            self.history.finding(format!("the token {token} of {uid} does not follow {:?}", self.latest));
        }
        self.latest = Some((token, uid.to_owned()));
    }

    fn count_late(&mut self, request: &Request, answer: &Answer) {
        if !is_write(&request.call) {
            return;
        }
        let is_conflict = matches!(answer, Answer::Conflict);
        if self.given_up.contains(&request.id) {
            let what = if is_conflict { "meets a conflict" } else { "lands" };
            self.history.count(&format!("a write that was given up {what}"));
        }
        if self.controllers[request.controller].term != Some(request.term) {
            let which = if matches!(request.call, Call::Record { .. }) { "record" } else { "write" };
            let what = if is_conflict { "meets a conflict" } else { "lands" };
            self.history.count(&format!("a {which} of a deposed controller {what}"));
        }
    }

    /// Why somebody is promoted.
    pub(super) fn count_reason(&mut self, why: &str) {
        let reasons = [
            ("is gone", "is gone"),
            ("is being deleted", "is being deleted"),
            (" in ", "a container has ended"),
            ("has ended", "the pod has ended"),
            ("by request", "by request"),
            ("a place is free", "a place is free"),
        ];
        if let Some((_, reason)) = reasons.iter().find(|(word, _)| why.contains(word)) {
            self.history.count(&format!("promoted: {reason}"));
        }
    }

    pub(super) fn count_waits(&mut self, plan: &Plan) {
        for what in ["the kubelet's word", "the pod to be gone"] {
            if plan.waits.as_ref().is_some_and(|waits| waits.contains(what)) {
                self.history.count(&format!("a place is waited for: {what}"));
            }
        }
    }
}
