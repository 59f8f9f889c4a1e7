//! The snapshot as HTTP sees it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::snapshot::Snapshot;

/// Copies each snapshot once, however often it is asked for: while one is being copied, the elector cannot publish the
/// next. Whether there is a newer one is seen without any lock.
pub(super) struct View(Mutex<(watch::Receiver<Snapshot>, Arc<Snapshot>)>);

impl View {
    pub(super) fn new(mut snapshots: watch::Receiver<Snapshot>) -> Self {
        let first = Arc::new(snapshots.borrow_and_update().clone());
        Self(Mutex::new((snapshots, first)))
    }

    /// What the elector has published last.
    pub(super) fn now(&self) -> Arc<Snapshot> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshots, newest) = &mut *inner;
        // An error says that the elector has ended; its last word stands.
        if snapshots.has_changed().unwrap_or(true) {
            *newest = Arc::new(snapshots.borrow_and_update().clone());
        }
        Arc::clone(newest)
    }
}
