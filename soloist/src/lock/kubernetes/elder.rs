//! The object by which a group elected before it moved to another one. Whoever elects by the new one waits for the old
//! one's holder as well: programs that know only the old one see nothing of the new.
//!
//! It is watched, and never written.

use std::time::Duration;

use election::{Claim, FOREIGN_FACTOR, Instant, Plain, Record, Version};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::calls::{Calls, Peeked};
use super::watch::{FORBIDDEN_PAUSE, Watcher};
use super::{Access, ObjectName, lease};
use crate::clock;
use crate::lock::LockError;
use crate::lock::board::CALL_LIMIT;
use crate::patience::within;
use crate::workload::nothing::{Bar, Bars};

/// Follows the old object.
pub struct Elder {
    access: Access,
    place: ObjectName,
    /// How long a member of this group may be silent at least.
    lease: Duration,
    /// Between two looks while nothing is told.
    period: Duration,
    tell: watch::Sender<Option<Bar>>,
    /// What was logged last; nothing before the first look.
    said: Option<Bar>,
}

impl Elder {
    /// The object at `place`, and why a member must not be active for its sake. As long as nobody has looked, it must not.
    pub fn new(access: Access, place: ObjectName, lease: Duration, period: Duration) -> (Self, Bars) {
        let why = format!("{} was not looked at yet", called(&place));
        let (tell, bars) = watch::channel(Some(Bar { why, holder: None }));
        (Self { access, place, lease, period, tell, said: None }, bars)
    }

    /// Follows it for ever.
    ///
    /// # Errors
    /// Credentials that cannot be used.
    pub async fn follow(mut self) -> anyhow::Result<()> {
        let calls = Calls::open(self.access.clone(), self.place.clone()).await?;
        self.first_look(&calls).await;
        let _watcher = Watcher::start(&calls, Version::ABSENT);
        let mut news = calls.hub().news();
        let mut sight = Sight::new(self.lease);
        loop {
            let is_told = news.borrow_and_update().is_live;
            let began = clock::now();
            let must_look = !is_told || sight.is_due(began);
            // What cannot be seen is as it was: the wait for it goes on.
            let has_looked = must_look && within(CALL_LIMIT, calls.peek()).await.is_ok();
            let newest = calls.hub().newest().borrow().lease().cloned();
            sight.take(clock::now(), newest.as_deref());
            if has_looked {
                sight.settle(began);
            }
            self.say(&sight);
            tokio::select! {
                told = news.changed() => told?,
                () = sleep(self.period), if must_look => {}
                () = clock::sleep_until(sight.until), if !sight.is_due(began) => {}
            }
        }
    }

    /// Looks until there is an answer. Where no rule allows a look, whoever holds it goes unnoticed for as long.
    async fn first_look(&mut self, calls: &Calls) {
        let mut is_told = false;
        loop {
            let pause = match within(CALL_LIMIT, calls.peek()).await {
                Ok(Peeked::Known) => return,
                Ok(Peeked::Forbidden(why)) => {
                    if self.tell.send_replace(None).is_some() {
                        let object = called(&self.place);
                        tracing::warn!(
                            "a holder of {object} will not be noticed, because it must not be looked at: {why}"
                        );
                    }
                    FORBIDDEN_PAUSE
                }
                Err(failed) => {
                    if !std::mem::replace(&mut is_told, true) {
                        let error = LockError::from(failed);
                        tracing::warn!("waiting for a look at {}: {error}", called(&self.place));
                    }
                    self.period
                }
            };
            sleep(pause).await;
        }
    }

    /// Tells what is known now, and logs each change once.
    fn say(&mut self, sight: &Sight) {
        let bar = sight.until.map(|_| {
            let holder = sight.subject.as_ref().and_then(|subject| subject.holder.clone());
            Bar { why: why(&self.place, holder.as_deref()), holder }
        });
        self.tell.send_if_modified(|before| {
            let is_news = *before != bar;
            before.clone_from(&bar);
            is_news
        });
        let (object, wait) = (called(&self.place), Plain(sight.wait));
        match (std::mem::replace(&mut self.said, bar.clone()), bar) {
            (before, now) if before == now => {}
            (_, Some(Bar { why, .. })) => {
                tracing::warn!("{why}: waiting for it as well, until it has said nothing new for {wait}");
            }
            (_, None) => tracing::info!("{object} has said nothing new for {wait}: waiting for it no more"),
        }
    }
}

fn called(place: &ObjectName) -> String {
    format!("the {} {:?}, the lock of old,", place.kind.word(), place.name)
}

fn why(place: &ObjectName, holder: Option<&str>) -> String {
    match holder {
        Some(holder) => format!("{} names {holder}", called(place)),
        None => format!("{} was let go of a moment ago", called(place)),
    }
}

/// What is seen of the old object, timed by the own clock from first sight.
struct Sight {
    /// What a member of this group may be silent for at least.
    lease: Duration,
    is_first: bool,
    subject: Option<Subject>,
    /// When it has been silent for long enough; nothing once a look has shown that it has.
    until: Option<Instant>,
    /// How long it has to be silent.
    wait: Duration,
}

/// A lock, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    holder: Option<String>,
    /// Other with each renewal.
    record: Record,
}

impl Subject {
    /// Nothing where nobody ever elected by it.
    fn of(object: &Value) -> Option<Self> {
        let is_lock = !object["spec"].is_null() || lease::annotation(object, lease::RECORD).is_some();
        let record = lease::decode(object);
        let holder = match &record.claim {
            Claim::Held(holder) => Some(holder.member.name.clone()),
            Claim::Foreign(foreign) => foreign.holder.clone(),
            Claim::Released(_) | Claim::Vacant(_) => None,
        };
        is_lock.then_some(Self { holder, record })
    }
}

impl Sight {
    fn new(lease: Duration) -> Self {
        Self { lease, is_first: true, subject: None, until: None, wait: Duration::ZERO }
    }

    fn take(&mut self, now: Instant, object: Option<&Value>) {
        let subject = object.and_then(Subject::of);
        let is_first = std::mem::replace(&mut self.is_first, false);
        if subject == self.subject {
            return;
        }
        let before = std::mem::replace(&mut self.subject, subject);
        let of = |subject: &Option<Subject>| subject.as_ref().map_or(self.lease, |subject| subject.record.lease);
        let lease = self.lease.max(of(&self.subject)).max(of(&before));
        let is_named = self.subject.as_ref().is_some_and(|subject| subject.holder.is_some());
        let is_lock = self.subject.is_some();
        // That nobody is named or nothing is there any more is no proof where somebody was named a moment ago.
        self.wait = match (is_named, is_lock && is_first || self.until.is_some()) {
            // Whoever stands by for the old object takes it after one.
            (true, _) => lease * FOREIGN_FACTOR,
            (false, true) => lease,
            (false, false) => return,
        };
        self.until = Some(now + self.wait);
    }

    /// Whether the wait is over, unless a look shows something new. A watch may have broken unnoticed.
    fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// A look that was begun at `began` has shown what is known.
    fn settle(&mut self, began: Instant) {
        if self.is_due(began) {
            self.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::object::{Kind, LEADER};
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(7) + Duration::from_secs(seconds)
    }

    /// What a program of old wrote, or has made of that.
    fn old(holder: &str, renewed: u64) -> Value {
        let text = json!({"holderIdentity": holder, "leaseDurationSeconds": 20,
            "renewTime": format!("2020-02-17T05:35:{renewed:02}Z")});
        let annotations = json!({LEADER: text.to_string()});
        Kind::Endpoints.read(json!({"kind": "Endpoints", "metadata": {"name": "x", "annotations": annotations}}))
    }

    fn bare() -> Value {
        Kind::Endpoints.read(json!({"kind": "Endpoints", "metadata": {"name": "x"}}))
    }

    /// Until when each of `objects` is waited for, in seconds; they are seen one second after the other.
    fn waits(objects: &[Option<Value>]) -> Vec<Option<u64>> {
        let mut sight = Sight::new(LEASE);
        let seconds = |until: Instant| until.since(at(0)).as_secs();
        (0..)
            .zip(objects)
            .map(|(second, object)| {
                sight.take(at(second), object.as_ref());
                sight.until.map(seconds)
            })
            .collect()
    }

    #[test]
    fn what_nobody_elects_by_costs_nothing() {
        assert_eq!(waits(&[None, Some(bare()), None, Some(bare())]), [None; 4]);
    }

    #[test]
    fn a_holder_is_waited_for_until_it_has_been_silent_for_three_leases() {
        let (first, second) = (Some(old("c1", 1)), Some(old("c1", 2)));
        assert_eq!(waits(&[first.clone(), first.clone(), second]), [Some(60), Some(60), Some(62)]);
        assert_eq!(waits(&[None, first]), [None, Some(61)], "also where it comes later");
    }

    #[test]
    fn what_was_let_go_of_or_is_gone_costs_a_lease_where_somebody_was_there_a_moment_ago() {
        let (held, free) = (Some(old("c1", 1)), Some(old("", 2)));
        assert_eq!(waits(&[free.clone(), free.clone()]), [Some(20), Some(20)]);
        assert_eq!(waits(&[held.clone(), free.clone(), None]), [Some(60), Some(21), Some(22)]);
        let mut sight = Sight::new(LEASE);
        for (second, object) in [(0, &held), (60, &held), (61, &free), (62, &None), (63, &Some(bare()))] {
            sight.take(at(second), object.as_ref());
            sight.settle(at(second));
            assert_eq!(sight.until.is_some(), second == 0, "its holder has been silent for long: {second}");
        }
        sight.take(at(64), Some(&old("c2", 4)));
        assert_eq!(sight.until, Some(at(64) + LEASE * 6));
    }

    #[test]
    fn silence_is_believed_after_a_look_and_not_because_nothing_was_told() {
        let mut sight = Sight::new(LEASE);
        sight.take(at(0), Some(&old("c1", 1)));
        sight.settle(at(59));
        assert!(sight.until.is_some() && !sight.is_due(at(59)) && sight.is_due(at(60)));
        sight.take(at(61), Some(&old("c1", 2)));
        sight.settle(at(61));
        assert_eq!(sight.until, Some(at(121)), "the look has shown that it lives");
        sight.take(at(121), Some(&old("c1", 2)));
        assert!(sight.until.is_some(), "believed without a look");
        sight.settle(at(121));
        assert_eq!(sight.until, None);
    }
}
