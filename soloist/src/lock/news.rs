//! What a watch has told of a lock, and what of it whoever waits knows already.
//!
//! The elector asks anew after each look, and what happens between two questions must not be lost.

use std::time::Duration;

use election::Version;
use tokio::sync::watch;

use super::LockError;

/// What the watch has told so far.
#[derive(Clone, Debug)]
pub struct News<T> {
    /// Counts what was told.
    count: u64,
    latest: Option<Told<T>>,
    /// The count of the last gap: something may have happened that was not told.
    gap: u64,
    /// Everything up to this version was told, or was known before.
    reached: u64,
    /// Whether changes are being told at the moment.
    pub is_live: bool,
}

/// The newest state that was told.
#[derive(Clone, Debug)]
struct Told<T> {
    version: Version,
    /// The number of the change.
    number: u64,
    /// The count of this piece of news.
    count: u64,
    /// The lock itself; nothing once it is deleted.
    content: Option<T>,
}

impl<T> Default for News<T> {
    fn default() -> Self {
        Self { count: 0, latest: None, gap: 0, reached: 0, is_live: false }
    }
}

impl<T: Clone> News<T> {
    /// A watch begins that tells what happens after the change with this number.
    pub fn begin(&mut self, number: u64) {
        (self.reached, self.is_live) = (number, false);
    }

    /// Everything up to the change with this number was told.
    pub fn reach(&mut self, number: u64) {
        self.reached = number;
    }

    /// How much was told so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the lock may be another than it was at `since`, by what came after the first `known` news.
    pub fn may_differ(&self, since: Version, known: u64) -> bool {
        self.latest.as_ref().is_some_and(|told| told.is_after(since, known)) || self.gap > known
    }

    /// Whether the notice of `since`, which is known otherwise, is still to come.
    pub fn is_behind(&self, since: Version) -> bool {
        self.reached < since.number
    }

    /// The lock as it was told after the first `known` news and after `since`, unless something was missed meanwhile.
    pub fn content_after(&self, since: Version, known: u64) -> Option<(Version, T)> {
        let told = self.latest.as_ref().filter(|told| told.is_after(since, known) && self.gap <= known)?;
        told.content.clone().map(|content| (told.version, content))
    }

    /// Takes in one more state.
    pub fn tell(&mut self, version: Version, number: u64, content: Option<T>) {
        self.count += 1;
        self.reached = number;
        self.latest = Some(Told { version, number, count: self.count, content });
    }

    /// Something may have happened that was not told.
    pub fn miss(&mut self) {
        self.count += 1;
        self.gap = self.count;
    }
}

impl<T> Told<T> {
    fn is_after(&self, since: Version, known: u64) -> bool {
        self.count > known && self.version != since && (since == Version::ABSENT || self.number > since.number)
    }
}

/// Why whoever waits for news is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something was told.
    News,
    /// Nothing is told at the moment, and a while has passed: a look would tell more.
    Period,
    /// Silent about what is known to have happened: held up somewhere on the way. The watch is to be begun anew.
    HeldUp,
}

/// Waits until the lock may be another than it was at `since`, by what comes after the first `known` news, or until
/// that would not be told. Cancel safe.
///
/// # Errors
/// Nothing will ever be told again.
pub async fn wait<T: Clone>(
    news: &mut watch::Receiver<News<T>>,
    since: Version,
    known: u64,
    period: Duration,
) -> Result<Woken, LockError> {
    loop {
        let (is_live, is_behind) = {
            let told = news.borrow_and_update();
            if told.may_differ(since, known) {
                return Ok(Woken::News);
            }
            (told.is_live, told.is_behind(since))
        };
        let patience = if is_live && is_behind { period / 2 } else { period };
        let told = match is_live && !is_behind {
            true => Ok(news.changed().await),
            false => tokio::time::timeout(patience, news.changed()).await,
        };
        match told {
            Ok(told) => told.map_err(|_| LockError::Unavailable("the watch of the lock has ended".into()))?,
            Err(_) if !is_live => return Ok(Woken::Period),
            Err(_) => return Ok(Woken::HeldUp),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const THREE: Version = Version { incarnation: 1, number: 3 };
    const FIVE: Version = Version { incarnation: 1, number: 5 };

    #[test]
    fn only_what_is_newer_is_news() {
        let mut news = News::<Value>::default();
        assert!(!news.may_differ(Version::ABSENT, 0) && !news.may_differ(THREE, 0));
        news.tell(FIVE, 5, Some(Value::Null));
        assert_eq!(news.content_after(THREE, 0), Some((FIVE, Value::Null)));
        assert_eq!(news.content_after(FIVE, 0).or(news.content_after(THREE, 1)), None);
        assert!(news.may_differ(THREE, 0) && news.may_differ(Version::ABSENT, 0));
        assert!(news.may_differ(THREE, 0), "asked again, it is still so");
        assert!(!news.may_differ(FIVE, 0));
        let six = Version { number: 6, ..FIVE };
        assert!(!news.may_differ(six, 0), "the own write is ahead of its notice");
        assert!(news.is_behind(six) && !news.is_behind(FIVE) && !news.is_behind(Version::ABSENT));
        assert!(!news.may_differ(Version::ABSENT, 1), "a look after the notice found it absent");
    }

    #[test]
    fn deletion_and_another_object_are_news() {
        let mut news = News::<Value>::default();
        news.tell(Version::ABSENT, 6, None);
        assert!(news.may_differ(FIVE, 0));
        assert_eq!(news.content_after(FIVE, 0), None, "absence is looked at");
        assert!(!news.may_differ(Version::ABSENT, 0));
        news.tell(Version { incarnation: 2, number: 7 }, 7, Some(Value::Null));
        assert!(news.may_differ(FIVE, 0) && news.may_differ(Version::ABSENT, 1));
    }

    #[test]
    fn a_gap_asks_for_one_look() {
        let mut news = News::<Value>::default();
        news.tell(FIVE, 5, Some(Value::Null));
        news.miss();
        news.tell(FIVE, 5, Some(Value::Null));
        assert!(news.may_differ(FIVE, 1));
        assert_eq!(news.content_after(THREE, 1), None, "there may be more to it");
        assert!(!news.may_differ(FIVE, news.count()));
    }
}
