//! The loop of a controller: plans, sends, hears answers, and gives up on them.

use std::time::Duration;

use soloist::controller::plan::{Plan, Write};

use super::controller::Outside;
use super::network::{Answer, Call, Change, Request};
use super::world::{World, is_promotion};

/// How long no other pod is deleted after one was.
const DELETES_APART: Duration = Duration::from_millis(20);

impl World {
    /// A controller does one thing, if there is anything to do.
    pub(super) fn controller_turns(&mut self, at: usize) {
        if self.controllers[at].term.is_none() {
            return;
        }
        if self.controllers[at].position.is_none() {
            return self.list(at);
        }
        match self.random.below(8) {
            0..3 => self.watch(at),
            3 => self.look(at),
            4 if self.random.chance(3 * self.setting.losses) => self.give_up(at),
            _ if self.controllers[at].queue.is_empty() => _ = self.plan(at),
            _ => self.send(at),
        }
    }

    fn list(&mut self, at: usize) {
        let end = self.api.log.len();
        let pods = self.api.pods_at(end);
        self.history.note(|| format!("c{at} lists {} pods", pods.len()));
        self.controllers[at].list(end, pods, &self.group);
    }

    fn watch(&mut self, at: usize) {
        let end = self.api.log.len();
        let Some(position) = self.controllers[at].position.filter(|position| *position < end) else { return };
        if self.random.chance(20) {
            let to = position + 1 + self.random.index(end - position);
            return self.relist(at, to, position);
        }
        if self.random.chance(self.setting.watches) {
            self.watch_one(at, position);
        }
    }

    pub(super) fn watch_one(&mut self, at: usize, position: usize) {
        let event = self.api.log[position].clone();
        self.controllers[at].watch(event, &self.group);
    }

    fn relist(&mut self, at: usize, to: usize, from: usize) {
        if to > from + 1 {
            self.history.count("a relist skips changes");
        }
        let pods = self.api.pods_at(to);
        let version = self.api.log[to - 1].pod.version;
        self.history.note(|| format!("c{at} lists again, {} changes at once", to - from));
        self.controllers[at].relist(to, pods, version, &self.group);
    }

    /// It reads what it must know before the next plan; and the record now and then.
    fn look(&mut self, at: usize) {
        let controller = &self.controllers[at];
        let is_read = |uid: &&String| {
            !controller.under_way.values().any(|call| matches!(call, Call::Read { uid: other } if other == *uid))
        };
        let pod = controller.to_read.iter().find(is_read).cloned();
        let reads_record = controller.under_way.values().any(|call| matches!(call, Call::ReadRecord));
        let is_idle = controller.queue.is_empty() && controller.under_way.is_empty();
        let is_due = controller.must_read_record || (is_idle && self.random.chance(50));
        if let Some(uid) = pod {
            self.request(at, Call::Read { uid });
        } else if is_due && !reads_record {
            self.controllers[at].must_read_record = true;
            self.request(at, Call::ReadRecord);
        }
    }

    pub(super) fn plan(&mut self, at: usize) -> Option<Plan> {
        let controller = &self.controllers[at];
        if !controller.may_plan() {
            return None;
        }
        let outside = Outside { group: &self.group, word: &self.word, now: self.now() };
        let plan = controller.plan(&outside, self.rules);
        let quoted = controller.record.clone().flatten().map(|(version, _)| version);
        self.count_waits(&plan);
        for write in &plan.writes {
            self.history.note(|| format!("c{at} plans {write:?}"));
            self.note_age(at, write);
            self.queue(at, write, quoted);
        }
        Some(plan)
    }

    fn queue(&mut self, at: usize, write: &Write, record_quoted: Option<u64>) {
        let change = match write {
            Write::Record(record) => {
                self.count_reason(&record.why);
                let call = Call::Record { quoted: record_quoted, record: record.clone() };
                return self.controllers[at].queue.push(call);
            }
            Write::Tell { uid, token } => {
                // What is told may not be heard; then it is told again.
                if self.random.chance(800) {
                    self.history.count("a pod is told");
                    self.controllers[at].has_been_told(uid, *token);
                }
                return;
            }
            Write::Label { part, token, .. } => Change::Label(*part, *token),
            Write::Settle { .. } => Change::Settle,
            Write::Delete { .. } => {
                self.controllers[at].deletes_from = self.now() + DELETES_APART;
                Change::Delete
            }
        };
        let Some(uid) = write.uid() else { return };
        let Some(quoted) = self.controllers[at].cached(uid).map(|pod| pod.version) else { return };
        self.controllers[at].queue.push(Call::Pod { uid: uid.to_owned(), quoted, change });
    }

    /// One of the planned writes is sent, in any order.
    pub(super) fn send(&mut self, at: usize) {
        if self.controllers[at].queue.is_empty() {
            return;
        }
        let which = self.random.index(self.controllers[at].queue.len());
        let mut call = self.controllers[at].queue.swap_remove(which);
        if let Call::Pod { uid, quoted, .. } = &mut call {
            let Some(known) = self.controllers[at].cached(uid) else { return };
            if self.setting.quotes_late {
                *quoted = known.version;
            }
        }
        let often = if is_promotion(&call) { 200 } else { self.setting.losses };
        self.request(at, call);
        if !self.is_calm && self.random.chance(often) {
            self.trouble(at);
        }
    }

    /// What was just sent takes too long, or its sender's term ends; and then trouble seldom comes alone.
    fn trouble(&mut self, at: usize) {
        if self.random.chance(400) {
            self.depose(at);
        } else {
            self.give_up(at);
        }
        if self.random.chance(700) {
            self.change_minds();
        }
    }

    fn request(&mut self, at: usize, call: Call) {
        let Some(term) = self.controllers[at].term else { return };
        self.requests += 1;
        let id = self.requests;
        self.history.note(|| format!("c{at} sends {id}: {call:?}"));
        self.controllers[at].under_way.insert(id, call.clone());
        self.network.requests.push(Request { id, controller: at, term, call });
    }

    /// One request has taken too long. It may still arrive.
    pub(super) fn give_up(&mut self, at: usize) {
        let ids: Vec<u64> = self.controllers[at].under_way.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.random.pick(&ids);
        self.history.note(|| format!("c{at} gives up {id}"));
        let Some(call) = self.controllers[at].under_way.remove(&id) else { return };
        self.given_up.insert(id);
        self.lose_sight();
        if !self.rules.distrusts_unknown {
            return;
        }
        match call {
            Call::Pod { uid, .. } => self.controllers[at].doubt(&uid),
            Call::Record { .. } => self.controllers[at].must_read_record = true,
            // They are sent again.
            Call::Read { .. } | Call::ReadRecord => {}
        }
    }

    /// An answer arrives.
    pub(super) fn hear(&mut self, request: &Request, answer: Answer) {
        let at = request.controller;
        let is_waited_for = self.controllers[at].under_way.remove(&request.id).is_some();
        if !is_waited_for {
            return;
        }
        self.history.note(|| format!("c{at} hears of {}", request.id));
        let controller = &mut self.controllers[at];
        match (&request.call, answer) {
            (Call::Read { uid }, Answer::Pod(pod)) => {
                controller.to_read.remove(uid);
                controller.see(*pod, &self.group);
            }
            (Call::Pod { uid, .. }, Answer::Pod(pod)) => {
                controller.close(uid);
                controller.see(*pod, &self.group);
            }
            (Call::Read { uid } | Call::Pod { uid, .. }, Answer::Gone) => controller.see_gone(uid),
            (Call::Pod { uid, .. }, Answer::Conflict) => {
                self.history.count("a write meets a conflict");
                // Its watch would show it in time, too.
                if self.random.chance(500) {
                    controller.to_read.insert(uid.clone());
                }
            }
            (Call::ReadRecord | Call::Record { .. }, Answer::Record(stored)) => {
                controller.must_read_record = false;
                controller.record = Some(stored);
            }
            (Call::Record { .. }, Answer::Conflict) => {
                self.history.count("a record meets a conflict");
                controller.must_read_record = true;
            }
            (call, answer) => self.history.finding(format!("{call:?} is answered with {answer:?}")),
        }
    }

    /// Whether what is planned rests on a sight that is not the present one any more.
    fn note_age(&mut self, at: usize, write: &Write) {
        let is_old = |uid: &str| {
            let (known, now) = (self.controllers[at].cached(uid), self.api.pod(uid));
            known.map(|pod| pod.version) != now.map(|pod| pod.version)
        };
        if matches!(write, Write::Label { uid, .. } if is_old(uid)) {
            self.history.count("a label is planned from an old sight");
        }
    }
}
