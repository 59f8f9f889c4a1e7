//! What one process knows of the Lease. The lock's calls and its watch tell it; the notice board listens, and asks for
//! nothing that is known already.

use std::sync::Arc;

use election::Version;
use serde_json::Value;
use tokio::sync::watch;

use crate::lock::news::News;

/// What the watch of a Lease tells.
pub type LeaseNews = News<Value>;

/// The newest state, whoever brought it.
#[derive(Clone, Debug, Default)]
pub struct Newest {
    number: u64,
    /// Whether anything is known.
    is_known: bool,
    lease: Option<Arc<Value>>,
}

impl Newest {
    /// The Lease, if it is known to exist.
    pub fn lease(&self) -> Option<&Arc<Value>> {
        self.lease.as_ref()
    }

    /// The number of the change that made it so.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether anything is known: also that there is no Lease.
    pub fn is_known(&self) -> bool {
        self.is_known
    }
}

/// Where everything comes together that is heard of one Lease.
#[derive(Debug, Default)]
pub struct Hub {
    news: watch::Sender<LeaseNews>,
    newest: watch::Sender<Newest>,
}

impl Hub {
    /// What the watch tells.
    pub fn news(&self) -> watch::Receiver<LeaseNews> {
        self.news.subscribe()
    }

    /// What is known at the moment, and from now on.
    pub fn newest(&self) -> watch::Receiver<Newest> {
        self.newest.subscribe()
    }

    /// Changes what is known of the watch itself.
    pub fn update_news(&self, change: impl FnOnce(&mut LeaseNews)) {
        self.news.send_modify(change);
    }

    /// The watch has told this.
    pub fn tell(&self, version: Version, number: u64, lease: Option<Value>) {
        self.note(number, lease.as_ref());
        self.news.send_modify(|news| news.tell(version, number, lease));
    }

    /// An answer or a notice showed this; what is older than what is known is none.
    pub fn note(&self, number: u64, lease: Option<&Value>) {
        self.newest.send_if_modified(|newest| {
            let is_news = number > newest.number || !newest.is_known;
            if is_news {
                *newest = Newest { number, is_known: true, lease: lease.cloned().map(Arc::new) };
            }
            is_news
        });
    }

    /// An answer said that there is no Lease, and not since when.
    pub fn note_absence(&self) {
        self.newest.send_if_modified(|newest| {
            let is_news = !newest.is_known || newest.lease.is_some();
            (newest.is_known, newest.lease) = (true, None);
            is_news
        });
    }

    /// The store refused what is known and shows this instead, even if it looks older.
    pub fn correct(&self, number: u64, lease: &Value) {
        self.newest.send_replace(Newest { number, is_known: true, lease: Some(Arc::new(lease.clone())) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(hub: &Hub) -> (u64, Option<Value>) {
        let newest = hub.newest();
        let newest = newest.borrow();
        (newest.number, newest.lease().map(|lease| (**lease).clone()))
    }

    #[test]
    fn only_what_is_newer_is_kept_unless_the_store_insists() {
        let hub = Hub::default();
        assert!(!hub.newest().borrow().is_known());
        hub.note(5, Some(&"five".into()));
        let mut listener = hub.newest();
        hub.note(5, Some(&"five again".into()));
        hub.note(4, Some(&"four".into()));
        assert!(!listener.has_changed().unwrap());
        assert_eq!(known(&hub), (5, Some("five".into())));
        hub.tell(Version::ABSENT, 6, None);
        assert!(listener.has_changed().unwrap());
        listener.mark_unchanged();
        assert_eq!(known(&hub), (6, None));
        hub.note_absence();
        assert!(!listener.has_changed().unwrap());
        hub.correct(3, &"three".into());
        assert_eq!(known(&hub), (3, Some("three".into())));
        hub.note_absence();
        assert_eq!(known(&hub), (3, None));
    }
}
