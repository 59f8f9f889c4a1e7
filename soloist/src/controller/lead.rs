//! One term of the controller that leads: fresh lists first, then each group by itself, several side by side, never two
//! rounds of writes for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use election::Instant;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::apply::{Hand, Known, Looked, Note, Outcome, SESSIONS_MAX};
use super::cache::{Next, Surroundings};
use super::census::{Census, Heard};
use super::declared::{AllDeclared, Origin};
use super::gallery::Gallery;
use super::group::{Group, Key};
use super::node::AllNodes;
use super::plan::Write;
use super::pods::Pods;
use super::service::AllServices;
use super::{Groups, Settings, watch};
use crate::clock;
use crate::route::api::Trouble;
use crate::route::owner::Owner;
use crate::workload::task::Mandate;

/// News that wait to be heard.
const NEWS_MAX: usize = 1024;
/// So many groups are written at the same moment.
const ROUNDS_MAX: usize = SESSIONS_MAX;
/// So many groups' pods are being told at the same moment; others wait.
const TELLS_MAX: usize = 16;
/// Events that are being written at the same moment; more are left out.
const NOTES_MAX: usize = 16;
/// Reports that are being written at the same moment; others wait.
const REPORTS_MAX: usize = 8;

/// What one round brought.
enum Done {
    Read(Result<Known, String>),
    Looked(Vec<Owner>, Result<Looked, Trouble>),
    Written(Vec<(Write, Outcome)>),
}

/// Leads until the term is over and nothing of it is under way any more.
pub async fn lead(settings: &Settings, mut mandate: Mandate) {
    let (sender, mut heard) = mpsc::channel(NEWS_MAX);
    // They end with this.
    let _watches = watches(settings, &sender);
    let mut lead = Lead::new(settings, mandate.clone());
    tracing::info!("leading with the term {}", mandate.token());
    lead.open(Some(mandate.token()));
    loop {
        lead.begin_rounds();
        let next = lead.at.values().min().copied();
        tokio::select! {
            () = mandate.over() => break,
            Some(one) = heard.recv() => {
                lead.census.hear(one);
                // A burst is heard whole before anything is made of it.
                while let Ok(one) = heard.try_recv() {
                    lead.census.hear(one);
                }
                lead.due.append(&mut lead.census.take_due());
            }
            Some(done) = lead.rounds.join_next() => lead.take(done),
            Some(told) = lead.tells.join_next() => lead.take_told(told),
            Some(told) = lead.notes.join_next() => lead.told(told),
            Some(told) = lead.reports.join_next() => lead.take_reported(told),
            () = clock::sleep_until(next) => lead.wake(),
        }
    }
    tracing::info!("the term {} is over", mandate.token());
    lead.open(None);
    // What is under way has a limit of its own, and begins nothing any more.
    while lead.rounds.join_next().await.is_some() {}
}

/// Everything that is watched.
fn watches(settings: &Settings, sender: &mpsc::Sender<Heard>) -> JoinSet<()> {
    let Settings { access, namespaces, groups, eye, looks_around, gallery: _ } = settings;
    let mut watches = JoinSet::new();
    let places: Vec<Option<String>> = match namespaces.is_empty() {
        true => vec![None],
        false => namespaces.iter().cloned().map(Some).collect(),
    };
    if *looks_around {
        watches.spawn(watch::run(access.clone(), AllNodes, sender.clone()));
    }
    for namespace in places {
        if *looks_around {
            let all = AllServices { namespace: namespace.clone() };
            watches.spawn(watch::run(access.clone(), all, sender.clone()));
        }
        let selector = match groups {
            Groups::Each(group) => group.selector.to_string(),
            Groups::Declared { token_file } => {
                let all = AllDeclared { namespace: namespace.clone(), token_file: token_file.clone() };
                watches.spawn(watch::run(access.clone(), all, sender.clone()));
                String::new()
            }
        };
        watches.spawn(watch::run(access.clone(), Pods { namespace, selector, eye: *eye }, sender.clone()));
    }
    watches
}

struct Lead {
    mandate: Mandate,
    hand: Hand,
    census: Census,
    /// Groups to plan for.
    due: BTreeSet<Key>,
    /// Groups to plan for later.
    at: BTreeMap<Key, Instant>,
    rounds: JoinSet<(Key, Done)>,
    /// Pods that are being told that they are active: whoever leads next tells them anew.
    tells: JoinSet<(Key, Vec<(Write, Outcome)>)>,
    /// Events that are being written.
    notes: JoinSet<Result<(), String>>,
    may_tell: bool,
    may_look: bool,
    /// What is being written of declared groups: whoever leads next writes it anew.
    reports: JoinSet<(Key, Result<Option<Value>, Trouble>)>,
    may_report: bool,
    /// Groups that may have had something to tell or to report when there was no room for it.
    without_room: BTreeSet<Key>,
    gallery: Option<Arc<Gallery>>,
}

impl Lead {
    fn new(settings: &Settings, mandate: Mandate) -> Self {
        Self {
            hand: Hand::new(settings.access.clone(), settings.eye, mandate.clone()),
            mandate,
            census: Census::new(settings),
            due: BTreeSet::new(),
            at: BTreeMap::new(),
            rounds: JoinSet::new(),
            tells: JoinSet::new(),
            notes: JoinSet::new(),
            may_tell: true,
            may_look: true,
            reports: JoinSet::new(),
            may_report: true,
            without_room: BTreeSet::new(),
            gallery: settings.gallery.clone(),
        }
    }

    fn open(&self, term: Option<u64>) {
        if let Some(gallery) = &self.gallery {
            gallery.open(term);
        }
    }

    /// Whoever looks sees the group as it is now.
    fn show(&mut self, key: &Key) {
        let Some(gallery) = &self.gallery else { return };
        match self.census.group(key).and_then(|(group, _)| group.view()) {
            Some(view) => gallery.show(key, view),
            None => gallery.forget(key),
        }
    }

    /// Groups whose time has come.
    fn wake(&mut self) {
        let now = clock::now();
        let due: Vec<Key> = self.at.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.at.remove(&key);
            self.due.insert(key);
        }
    }

    /// As many as may be under way at once.
    fn begin_rounds(&mut self) {
        if self.reports.len() < REPORTS_MAX && self.tells.len() < TELLS_MAX {
            self.due.append(&mut self.without_room);
        }
        while self.rounds.len() < ROUNDS_MAX
            && let Some(key) = self.due.pop_first()
        {
            self.at.remove(&key);
            // A pod that was not told of yet is not gone. The list tells of every group.
            if self.census.is_listed(&key.namespace) {
                self.begin_round(&key);
                self.show(&key);
                self.census.release(&key);
            }
        }
    }

    fn begin_round(&mut self, key: &Key) {
        let (term, has_room) = (self.mandate.token(), self.tells.len() < TELLS_MAX);
        let may_report = self.may_report && self.reports.len() < REPORTS_MAX;
        let Some((group, nodes)) = self.census.group(key) else { return };
        let next = group.next(&Surroundings { term, has_room, may_report, nodes, now: clock::now() });
        group.is_busy |= matches!(next, Next::Read(_) | Next::Look(..) | Next::Write(..));
        let (notes, about) = (group.take_notes(), Arc::clone(group.group()));
        self.tell(&about, notes);
        let (hand, key) = (self.hand.clone(), key.clone());
        let has_all_room = has_room && may_report == self.may_report;
        if !has_all_room && matches!(next, Next::Wait(_)) {
            self.without_room.insert(key.clone());
        }
        match next {
            Next::Wait(None) => {}
            Next::Wait(Some(at)) => {
                self.at.insert(key, at);
            }
            Next::Read(group) => {
                self.rounds.spawn(async move { (key, Done::Read(hand.read_record(&group).await)) });
            }
            Next::Look(group, owners) => {
                self.rounds.spawn(async move {
                    let found = hand.look_at(&owners, &group).await;
                    (key, Done::Looked(owners, found))
                });
            }
            Next::Tell(ground, tells) => {
                self.due.insert(key.clone());
                self.tells.spawn(async move { (key, hand.send(*ground, tells).await) });
            }
            Next::Report(group, origin, status) => {
                self.due.insert(key.clone());
                self.reports.spawn(async move { (key, hand.report(&group, &origin, &status).await) });
            }
            Next::Write(ground, writes) => {
                self.rounds.spawn(async move { (key, Done::Written(hand.send(*ground, writes).await)) });
            }
        }
    }

    fn take(&mut self, done: Result<(Key, Done), JoinError>) {
        let Ok((key, done)) = done else { return };
        let now = clock::now();
        let Some((group, nodes)) = self.census.group(&key) else { return };
        group.is_busy = false;
        match done {
            Done::Read(Ok(known)) => group.learn(known),
            Done::Read(Err(why)) => group.fail_to_read(&why, now),
            Done::Looked(owners, Ok(Looked { refusal, hidden })) => {
                if let Some(why) = hidden.filter(|_| std::mem::replace(&mut self.may_look, false)) {
                    tracing::warn!("an owner that selects by the role label would not be seen: {why}");
                }
                group.learn_of(owners, refusal, now);
            }
            Done::Looked(_, Err(trouble)) => group.fail_to_read(&trouble.to_string(), now),
            Done::Written(outcomes) => group.take(outcomes, nodes, now),
        }
        self.due.insert(key);
    }

    fn take_told(&mut self, told: Result<(Key, Vec<(Write, Outcome)>), JoinError>) {
        let Ok((key, outcomes)) = told else { return };
        if let Some((group, nodes)) = self.census.group(&key) {
            group.take_told(outcomes, nodes, clock::now());
            self.due.insert(key);
        }
    }

    /// Tells people, as far as there is room for it.
    fn tell(&mut self, group: &Arc<Group>, notes: Vec<Note>) {
        for note in notes {
            if self.may_tell && self.notes.len() < NOTES_MAX {
                let (hand, group) = (self.hand.clone(), Arc::clone(group));
                self.notes.spawn(async move { hand.tell(group, note).await });
            }
        }
    }

    /// One has been told. What is not allowed is tried no more in this term.
    fn told(&mut self, told: Result<Result<(), String>, JoinError>) {
        if let Ok(Err(why)) = told
            && std::mem::replace(&mut self.may_tell, false)
        {
            tracing::warn!("no Events are written, because that is not allowed: {why}");
        }
    }

    /// One status has been written, or not: then it is tried again a while later.
    fn take_reported(&mut self, told: Result<(Key, Result<Option<Value>, Trouble>), JoinError>) {
        let Ok((key, told)) = told else { return };
        let now = match told {
            Ok(object) => object.as_ref().and_then(Origin::read),
            Err(Trouble::Forbidden(_)) => {
                if std::mem::replace(&mut self.may_report, false) {
                    tracing::warn!(
                        "no status is written; missing: the verb patch on activestandbys/status of soloist.dev"
                    );
                }
                None
            }
            Err(trouble) => {
                tracing::debug!("failed to write the status of {key}: {trouble}");
                None
            }
        };
        if let Some((group, _)) = self.census.group(&key) {
            group.reported(now);
            self.due.insert(key);
        }
    }
}
