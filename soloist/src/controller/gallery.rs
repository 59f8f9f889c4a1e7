//! What people see of the groups while this controller leads: a copy of each, made when it changes.
//!
//! Who looks does so on a thread of lower priority, and may be put aside in the midst of it. So whoever leads only leaves
//! its news and goes on; they are hung up by the next one who has the walls to himself.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use serde::Serialize;
use tokio::sync::watch;

use super::group::Key;
use super::status::Failover;

/// So many may listen at a time: each of them looks anew at each change.
const VISITORS_MAX: usize = 64;

/// How a group stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// No pod is active.
    Nobody,
    /// Fewer are active than are to be.
    Short,
    /// All that are to be are active, and no other one is ready.
    Lone,
    /// All is well.
    Fine,
}

/// A group as people see it.
#[derive(Debug, PartialEq, Serialize)]
pub struct View {
    /// The namespace of its pods.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// Whether it is left alone.
    pub paused: bool,
    /// Whether somebody has declared it: then there is an object of its own.
    pub declared: bool,
    /// How many are to be active.
    pub wanted: usize,
    /// Who is, as far as record and label say so.
    pub active: Vec<Active>,
    /// How many pods it has.
    pub pods: usize,
    /// How many of them could be active at once.
    pub ready: usize,
    /// The first of them by name, active ones before all others.
    pub members: Vec<Member>,
    /// How often others became active.
    pub transitions: u64,
    /// Why the last ones became so, in one sentence.
    pub reason: String,
    /// What is waited for.
    pub waits: Option<String>,
    /// What somebody has to put right: pods that another group has, an owner that selects by the label, a Service for all.
    pub concern: Option<String>,
    /// The last failover of this term.
    pub last_failover: Option<LastFailover>,
}

/// An active pod.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Active {
    /// Its name.
    pub pod: String,
    /// The fencing token of its promotion.
    pub fencing_token: u64,
}

/// One pod of a group.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name.
    pub pod: String,
    /// What its label says: `active`, `standby`, or nothing yet.
    pub role: Option<&'static str>,
    /// Whether the kubelet says that it is ready.
    pub ready: bool,
    /// Why it cannot become active, if it cannot.
    pub trouble: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
}

/// What happened when others became active.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LastFailover {
    at: String,
    why: String,
    pods: Vec<String>,
    recorded_ms: u64,
    labelled_ms: u64,
}

impl From<&Failover> for LastFailover {
    fn from(failover: &Failover) -> Self {
        let Failover { at, why, pods, recorded_ms, labelled_ms } = failover;
        let (at, why, pods) = (format!("{at:.6}"), why.clone(), pods.clone());
        Self { at, why, pods, recorded_ms: *recorded_ms, labelled_ms: *labelled_ms }
    }
}

impl View {
    /// Whether somebody should look at it: not all places are taken, or not all its pods are its own. One that is paused
    /// was looked at, and is counted as such.
    fn is_in_trouble(&self) -> bool {
        !self.paused && (matches!(self.standing, Standing::Nobody | Standing::Short) || self.concern.is_some())
    }
}

/// How many groups there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub groups: usize,
    /// Those whose places are not all taken, or in which somebody has to put something right, without the paused ones.
    pub trouble: usize,
    /// Those that nobody could take over in.
    pub lone: usize,
    /// Those that are left alone.
    pub paused: usize,
}

impl Counts {
    fn change(&mut self, view: &View, by: fn(usize, usize) -> usize) {
        self.groups = by(self.groups, 1);
        self.trouble = by(self.trouble, view.is_in_trouble().into());
        self.lone = by(self.lone, (view.standing == Standing::Lone).into());
        self.paused = by(self.paused, view.paused.into());
    }
}

/// Which of them are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All.
    #[default]
    All,
    /// Those that somebody should look at.
    Trouble,
    /// Those that nobody could take over in.
    Lone,
    /// Those that are left alone.
    Paused,
}

impl Only {
    fn fits(self, view: &View) -> bool {
        match self {
            Self::All => true,
            Self::Trouble => view.is_in_trouble(),
            Self::Lone => view.standing == Standing::Lone,
            Self::Paused => view.paused,
        }
    }
}

/// What somebody wants to see.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A part of `NAMESPACE/NAME`.
    pub filter: String,
    /// Which of them.
    pub only: Only,
    /// What comes behind this one.
    pub after: Option<Key>,
    /// At most so many.
    pub limit: usize,
}

/// What there is to see of that.
#[derive(Debug)]
pub struct Sight {
    /// The term in which this controller leads, if it does.
    pub term: Option<u64>,
    /// Of all groups.
    pub counts: Counts,
    /// In the order of their names, each with the number of its last change.
    pub groups: Vec<(u64, Arc<View>)>,
    /// Whether there are more behind the last one.
    pub has_more: bool,
}

/// All groups, as they are shown.
#[derive(Debug, Default)]
pub struct Gallery {
    /// Held for as long as a look takes.
    walls: Mutex<Walls>,
    /// Held only to put something in or to take it all out.
    news: Mutex<News>,
    changes: watch::Sender<u64>,
    visitors: AtomicUsize,
}

/// The right to listen, for as long as it is kept.
#[derive(Debug)]
pub struct Visitor(Arc<Gallery>);

impl Visitor {
    /// What is listened to.
    pub fn gallery(&self) -> &Gallery {
        &self.0
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.0.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is not on the walls yet: of each group only the newest.
#[derive(Debug, Default)]
struct News {
    /// A term that has begun or ended; what was there before it does not count.
    term: Option<Option<u64>>,
    /// Groups as they are now; nothing for one that is not there any more.
    views: HashMap<Key, Option<View>>,
}

#[derive(Debug, Default)]
struct Walls {
    term: Option<u64>,
    views: BTreeMap<Key, (u64, Arc<View>)>,
    counts: Counts,
    changes: u64,
}

impl Walls {
    /// Whether anything is different by the news.
    fn hang(&mut self, news: News) -> bool {
        let before = self.changes;
        if let Some(term) = news.term {
            *self = Self { term, changes: self.changes + 1, ..Self::default() };
        }
        for (key, view) in news.views {
            match view {
                Some(view) => self.show(key, view),
                None => self.forget(&key),
            }
        }
        self.changes != before
    }

    fn show(&mut self, key: Key, view: View) {
        if self.views.get(&key).is_some_and(|(_, before)| **before == view) {
            return;
        }
        self.forget(&key);
        self.counts.change(&view, usize::saturating_add);
        self.changes += 1;
        self.views.insert(key, (self.changes, Arc::new(view)));
    }

    fn forget(&mut self, key: &Key) {
        if let Some((_, view)) = self.views.remove(key) {
            self.counts.change(&view, usize::saturating_sub);
            self.changes += 1;
        }
    }
}

impl Gallery {
    /// The walls, with all news on them.
    fn walls(&self) -> MutexGuard<'_, Walls> {
        let mut walls = self.walls.lock().unwrap_or_else(PoisonError::into_inner);
        walls.hang(std::mem::take(&mut *self.news()));
        walls
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves news. Whoever is looking now hears that there are some, and looks once more.
    fn leave(&self, note: impl FnOnce(&mut News)) {
        note(&mut self.news());
        let is_other = match self.walls.try_lock() {
            Ok(mut walls) => walls.hang(std::mem::take(&mut *self.news())),
            Err(TryLockError::Poisoned(walls)) => walls.into_inner().hang(std::mem::take(&mut *self.news())),
            Err(TryLockError::WouldBlock) => true,
        };
        if is_other {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// This controller leads from now on, or does not any more: nothing of what was known before counts.
    pub fn open(&self, term: Option<u64>) {
        self.leave(|news| *news = News { term: Some(term), ..News::default() });
    }

    /// A group is so now.
    pub fn show(&self, key: &Key, view: View) {
        self.leave(|news| drop(news.views.insert(key.clone(), Some(view))));
    }

    /// A group is not there any more.
    pub fn forget(&self, key: &Key) {
        self.leave(|news| drop(news.views.insert(key.clone(), None)));
    }

    /// One more that listens, if there is room.
    pub fn admit(self: &Arc<Self>) -> Option<Visitor> {
        let visitor = Visitor(Arc::clone(self));
        (self.visitors.fetch_add(1, Ordering::Relaxed) < VISITORS_MAX).then_some(visitor)
    }

    /// Tells that there is something new to see.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Of all groups, while this controller leads.
    pub fn counts(&self) -> Option<Counts> {
        let walls = self.walls();
        walls.term.map(|_| walls.counts)
    }

    /// One of them.
    pub fn one(&self, key: &Key) -> Option<Arc<View>> {
        self.walls().views.get(key).map(|(_, view)| Arc::clone(view))
    }

    /// Looks for what somebody wants to see, all of it at one moment.
    pub fn look(&self, wanted: &Wanted) -> Sight {
        let from = wanted.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let walls = self.walls();
        let fits = |(key, shown): &(&Key, &(u64, Arc<View>))| wanted.only.fits(&shown.1) && is_in(&wanted.filter, key);
        let mut found =
            walls.views.range::<Key, _>((from, Bound::Unbounded)).filter(fits).map(|(_, shown)| shown.clone());
        let groups = found.by_ref().take(wanted.limit).collect();
        let has_more = found.next().is_some();
        Sight { term: walls.term, counts: walls.counts, groups, has_more }
    }
}

/// Whether `NAMESPACE/NAME` has this in it.
fn is_in(filter: &str, key: &Key) -> bool {
    match filter.split_once('/') {
        None => key.name.contains(filter) || key.namespace.contains(filter),
        Some((namespace, name)) => key.namespace.ends_with(namespace) && key.name.starts_with(name),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn key(name: &str) -> Key {
        Key { namespace: "prod".to_owned(), name: name.to_owned() }
    }

    /// A group whose pods are `NAME-0` and so on.
    pub fn view(name: &str, standing: Standing) -> View {
        let is_led = standing != Standing::Nobody;
        View {
            namespace: "prod".to_owned(),
            name: name.to_owned(),
            standing,
            paused: false,
            declared: true,
            wanted: 1,
            active: if is_led { vec![Active { pod: format!("{name}-0"), fencing_token: 7 }] } else { Vec::new() },
            pods: 2,
            ready: 2,
            members: Vec::new(),
            transitions: 1,
            reason: "a place is free".to_owned(),
            waits: None,
            concern: None,
            last_failover: None,
        }
    }

    fn names(gallery: &Gallery, wanted: &Wanted) -> (Vec<String>, bool) {
        let sight = gallery.look(wanted);
        (sight.groups.iter().map(|(_, view)| view.name.clone()).collect(), sight.has_more)
    }

    fn of(filter: &str, only: Only) -> Wanted {
        Wanted { filter: filter.to_owned(), only, after: None, limit: 10 }
    }

    #[test]
    fn a_look_goes_by_name_kind_and_page() {
        let gallery = Gallery::default();
        gallery.open(Some(3));
        for (name, standing) in [("b", Standing::Fine), ("a-1", Standing::Nobody), ("a-2", Standing::Lone)] {
            gallery.show(&key(name), view(name, standing));
        }
        gallery.show(&key("c"), View { concern: Some("odd".to_owned()), ..view("c", Standing::Fine) });
        let concern = Some("odd".to_owned());
        gallery.show(&key("d"), View { paused: true, concern, ..view("d", Standing::Nobody) });
        let of_them = |filter: &str, only| names(&gallery, &of(filter, only)).0;
        assert_eq!(of_them("", Only::All), ["a-1", "a-2", "b", "c", "d"]);
        assert_eq!(of_them("a-", Only::All), ["a-1", "a-2"]);
        assert_eq!(of_them("prod", Only::Trouble), ["a-1", "c"]);
        assert_eq!(of_them("od/a", Only::Lone), ["a-2"]);
        assert_eq!((of_them("prod/b", Only::Paused), of_them("", Only::Paused)), (Vec::new(), vec!["d".to_owned()]));
        let page = |after: Option<&str>| Wanted { after: after.map(key), limit: 2, ..Wanted::default() };
        assert_eq!(names(&gallery, &page(None)), (vec!["a-1".to_owned(), "a-2".to_owned()], true));
        assert_eq!(names(&gallery, &page(Some("b"))), (vec!["c".to_owned(), "d".to_owned()], false));
        let counts = Counts { groups: 5, trouble: 2, lone: 1, paused: 1 };
        assert_eq!((gallery.look(&page(None)).term, gallery.look(&page(None)).counts), (Some(3), counts));
    }

    #[test]
    fn only_what_has_changed_is_told_and_an_end_of_the_term_forgets_all() {
        let gallery = Gallery::default();
        let changes = gallery.changes();
        gallery.open(Some(3));
        gallery.show(&key("a"), view("a", Standing::Fine));
        let told = *changes.borrow();
        gallery.show(&key("a"), view("a", Standing::Fine));
        gallery.forget(&key("b"));
        assert_eq!(*changes.borrow(), told, "nothing has changed");
        gallery.show(&key("a"), view("a", Standing::Nobody));
        assert!(*changes.borrow() > told);
        assert_eq!(gallery.look(&of("", Only::Trouble)).counts, Counts { groups: 1, trouble: 1, lone: 0, paused: 0 });
        gallery.forget(&key("a"));
        assert_eq!(gallery.look(&of("", Only::All)).counts, Counts::default());
        gallery.show(&key("a"), view("a", Standing::Nobody));
        let told = *changes.borrow();
        gallery.open(None);
        let sight = gallery.look(&of("", Only::All));
        assert!(sight.term.is_none() && sight.groups.is_empty() && *changes.borrow() > told);
    }

    #[test]
    fn whoever_leads_waits_for_nobody_who_looks_and_its_news_are_seen_by_the_next_one() {
        let gallery = Arc::new(Gallery::default());
        let changes = gallery.changes();
        gallery.open(Some(3));
        gallery.show(&key("a"), view("a", Standing::Fine));
        gallery.show(&key("b"), view("b", Standing::Fine));
        let (told, looking) = (*changes.borrow(), gallery.walls());
        let (end, ended) = std::sync::mpsc::channel();
        let leads = Arc::clone(&gallery);
        std::thread::spawn(move || {
            leads.forget(&key("a"));
            leads.show(&key("b"), view("b", Standing::Lone));
            leads.show(&key("b"), view("b", Standing::Nobody));
            let _ = end.send(());
        });
        assert_eq!(ended.recv_timeout(std::time::Duration::from_secs(10)), Ok(()), "it waits");
        drop(looking);
        assert!(*changes.borrow() > told);
        let sight = gallery.look(&of("", Only::All));
        assert_eq!(sight.counts, Counts { groups: 1, trouble: 1, lone: 0, paused: 0 });
        let looking = gallery.walls();
        let leads = Arc::clone(&gallery);
        std::thread::spawn(move || leads.open(None)).join().unwrap();
        drop(looking);
        assert!(gallery.look(&of("", Only::All)).groups.is_empty() && gallery.counts().is_none());
    }

    #[test]
    fn there_is_room_for_so_many_at_a_time() {
        let gallery = Arc::new(Gallery::default());
        let mut visitors: Vec<Visitor> = (0..VISITORS_MAX).filter_map(|_| gallery.admit()).collect();
        assert!(visitors.len() == VISITORS_MAX && gallery.admit().is_none() && gallery.admit().is_none());
        visitors.pop();
        assert!(gallery.admit().is_some());
    }

    #[test]
    fn ten_thousand_groups_are_searched() {
        let gallery = Gallery::default();
        for number in 0..10_000 {
            let name = format!("group-{number:05}");
            gallery.show(&key(&name), view(&name, Standing::Fine));
        }
        assert_eq!(names(&gallery, &of("09999", Only::All)), (vec!["group-09999".to_owned()], false));
        let (first, has_more) = names(&gallery, &of("", Only::All));
        assert!(first.len() == 10 && has_more);
    }
}
