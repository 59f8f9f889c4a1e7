//! One term of the controller that leads: fresh lists first, then each group by itself, several side by side, never two
//! rounds of writes for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use election::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Settings;
use super::apply::{Hand, Known, Note, Outcome, SESSIONS_MAX};
use super::cache::{GroupState, Next};
use super::group::Group;
use super::plan::Write;
use super::watch::{self, News};
use crate::clock;
use crate::workload::task::Mandate;

/// News that wait to be heard.
const NEWS_MAX: usize = 1024;
/// So many groups are written at the same moment.
const ROUNDS_MAX: usize = SESSIONS_MAX;

/// So many groups' pods are being told at the same moment; others wait.
const TELLS_MAX: usize = 16;
/// Events that are being written at the same moment; more are left out.
const NOTES_MAX: usize = 16;

/// What one round brought.
enum Done {
    Read(Result<Known, String>),
    Written(Vec<(Write, Outcome)>),
}

/// Leads until the term is over and nothing of it is under way any more.
pub async fn lead(settings: &Settings, mut mandate: Mandate) {
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let mut watches = JoinSet::new();
    for (at, scope) in settings.scopes.iter().enumerate() {
        let (to, mut from) = mpsc::channel(NEWS_MAX);
        watches.spawn(watch::run(settings.access.clone(), scope.clone(), to));
        let sender = sender.clone();
        watches.spawn(async move {
            while let Some(one) = from.recv().await {
                if sender.send((at, one)).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut lead = Lead {
        settings,
        mandate: mandate.clone(),
        hands: settings.scopes.iter().map(|_| None).collect(),
        groups: BTreeMap::new(),
        listed: BTreeSet::new(),
        due: BTreeSet::new(),
        at: BTreeMap::new(),
        rounds: JoinSet::new(),
        tells: JoinSet::new(),
        notes: JoinSet::new(),
        may_tell: true,
    };
    tracing::info!("leading with the term {}", mandate.token());
    loop {
        lead.begin_rounds();
        let next = lead.at.values().min().copied();
        tokio::select! {
            () = mandate.over() => break,
            Some((scope, one)) = news.recv() => {
                lead.hear(scope, one);
                // A burst is heard whole before anything is made of it.
                while let Ok((scope, one)) = news.try_recv() {
                    lead.hear(scope, one);
                }
            }
            Some(done) = lead.rounds.join_next() => lead.take(done),
            Some(told) = lead.tells.join_next() => lead.take_told(told),
            Some(told) = lead.notes.join_next() => lead.told(told),
            () = clock::sleep_until(next) => lead.wake(),
        }
    }
    tracing::info!("the term {} is over", mandate.token());
    // What is under way has a limit of its own, and begins nothing any more.
    while lead.rounds.join_next().await.is_some() {}
}

/// The place of a group: where its pods are watched, and its namespace.
type Key = (usize, String);

struct Lead<'a> {
    settings: &'a Settings,
    mandate: Mandate,
    /// Who writes in each scope, once something is to be written there.
    hands: Vec<Option<Hand>>,
    groups: BTreeMap<Key, GroupState>,
    /// Scopes of which there is a first list.
    listed: BTreeSet<usize>,
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
}

impl Lead<'_> {
    fn group(&mut self, key: &Key) -> &mut GroupState {
        let settings = self.settings;
        self.groups.entry(key.clone()).or_insert_with(|| GroupState::new(Arc::new(settings.group_in(&key.1))))
    }

    fn mark(&mut self, key: Key) {
        let now = clock::now();
        self.group(&key).since.get_or_insert(now);
        self.due.insert(key);
    }

    fn hear(&mut self, scope: usize, news: News) {
        match news {
            News::All(all) => {
                let mut found: BTreeMap<Key, BTreeSet<String>> = BTreeMap::new();
                let is_new = !self.listed.insert(scope);
                for shown in all {
                    let key = (scope, shown.pod.namespace.clone());
                    found.entry(key.clone()).or_default().insert(shown.pod.uid.clone());
                    self.group(&key).see(shown, is_new);
                    self.mark(key);
                }
                self.forget_all_but(scope, &found);
            }
            News::Now(shown) => {
                let key = (scope, shown.pod.namespace.clone());
                if self.group(&key).see(*shown, true) {
                    self.mark(key);
                }
            }
            News::Gone(pod) => {
                let key = (scope, pod.namespace.clone());
                self.group(&key).lose(&pod);
                self.mark(key);
            }
        }
    }

    fn forget_all_but(&mut self, scope: usize, found: &BTreeMap<Key, BTreeSet<String>>) {
        let none = BTreeSet::new();
        let keys: Vec<Key> = self.groups.keys().filter(|key| key.0 == scope).cloned().collect();
        for key in keys {
            let there = found.get(&key).unwrap_or(&none);
            let group = self.group(&key);
            let lost: Vec<String> = group.uids().filter(|uid| !there.contains(*uid)).cloned().collect();
            for uid in &lost {
                group.lose_unseen(uid);
            }
            if !lost.is_empty() {
                self.mark(key);
            }
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
        while self.rounds.len() < ROUNDS_MAX
            && let Some(key) = self.due.pop_first()
        {
            let (term, now) = (self.mandate.token(), clock::now());
            let has_room = self.tells.len() < TELLS_MAX;
            let next = self.group(&key).next(term, has_room, now);
            self.at.remove(&key);
            match next {
                Next::Wait(None) => {}
                Next::Wait(Some(at)) => {
                    self.at.insert(key, at);
                }
                Next::Read(group) => {
                    let hand = self.begin(&key);
                    self.rounds.spawn(async move { (key, Done::Read(hand.read_record(&group).await)) });
                }
                Next::Tell(ground, tells) => {
                    let (hand, of) = (self.hand(&key), key.clone());
                    self.tells.spawn(async move { (of, hand.send(*ground, tells).await) });
                    self.due.insert(key);
                }
                Next::Write(ground, writes) => {
                    let hand = self.begin(&key);
                    self.rounds.spawn(async move { (key, Done::Written(hand.send(*ground, writes).await)) });
                }
            }
        }
    }

    fn begin(&mut self, key: &Key) -> Hand {
        self.group(key).is_busy = true;
        self.hand(key)
    }

    fn hand(&mut self, key: &Key) -> Hand {
        let Settings { access, form, notice, scopes, .. } = self.settings;
        let mandate = &self.mandate;
        let new = || Hand::new(access.clone(), *form, Arc::new(scopes[key.0].clone()), notice.clone(), mandate.clone());
        self.hands[key.0].get_or_insert_with(new).clone()
    }

    fn take(&mut self, done: Result<(Key, Done), tokio::task::JoinError>) {
        let Ok((key, done)) = done else { return };
        let now = clock::now();
        let group = self.group(&key);
        group.is_busy = false;
        match done {
            Done::Read(Ok(known)) => group.learn(known),
            Done::Read(Err(why)) => group.fail_to_read(&why, now),
            Done::Written(outcomes) => {
                let (notes, group) = (group.take(outcomes, now), Arc::clone(group.group()));
                self.tell(&key, &group, notes);
            }
        }
        self.due.insert(key);
    }

    fn take_told(&mut self, told: Result<(Key, Vec<(Write, Outcome)>), tokio::task::JoinError>) {
        let Ok((key, outcomes)) = told else { return };
        self.group(&key).take_told(outcomes, clock::now());
        self.due.insert(key);
    }

    /// Tells people, as far as there is room for it.
    fn tell(&mut self, key: &Key, group: &Arc<Group>, notes: Vec<Note>) {
        let Some(hand) = self.hands[key.0].clone().filter(|_| self.may_tell) else { return };
        for note in notes {
            if self.notes.len() < NOTES_MAX {
                let (hand, group) = (hand.clone(), Arc::clone(group));
                self.notes.spawn(async move { hand.tell(group, note).await });
            }
        }
    }

    /// One has been told. What is not allowed is tried no more in this term.
    fn told(&mut self, told: Result<Result<(), String>, tokio::task::JoinError>) {
        if let Ok(Err(why)) = told
            && std::mem::replace(&mut self.may_tell, false)
        {
            tracing::warn!("no Events are written, because that is not allowed: {why}");
        }
    }
}
