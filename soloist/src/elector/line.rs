//! The way to the lock of one slot: what is asked of it, what it answered last, and what that counts for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use election::{Attempt, Input, Instant, Seen, Timing, Version, Write};
use tokio::time::timeout;

use super::count::Count;
use super::predecessor::Predecessor;
use crate::lock::{Lock, LockError};
use crate::metrics::Metrics;
use crate::patience::within;

/// Something under way.
type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// A store operation under way, as the input that it will become.
pub(super) type Operation = Pending<Input>;

/// A watch for changes under way.
pub(super) type Watch = Pending<Result<(), LockError>>;

/// The lock of one slot, and what is remembered of it.
pub(super) struct Line<L> {
    pub(super) lock: Rc<L>,
    /// The version that the last answer named; changes are counted from here.
    pub(super) last_version: Version,
    pub(super) predecessor: Predecessor,
    pub(super) count: Count,
}

impl<L> Line<L> {
    pub(super) fn new(lock: L) -> Self {
        Self {
            lock: Rc::new(lock),
            last_version: Version::ABSENT,
            predecessor: Predecessor::default(),
            count: Count::new(Metrics::default()),
        }
    }

    pub(super) fn count_into(&mut self, metrics: Metrics) {
        self.count = Count::new(metrics);
    }

    /// Something that concerns this slot goes into its machine.
    pub(super) fn note(&mut self, now: Instant, input: &Input) {
        match input {
            Input::Read(Ok(Seen { version, .. }))
            | Input::Written { outcome: Write::Written(version), .. }
            | Input::Gone { released: Some(version), .. } => self.last_version = *version,
            _ => {}
        }
        self.predecessor.note(input);
        self.count.input(now, input);
    }
}

/// The first of what is under way that comes to its end, and of which slot it is. Cancel safe.
pub(super) async fn any_of<T>(slots: &mut [Option<Pending<T>>]) -> (usize, T) {
    poll_fn(|context| {
        for (slot, under_way) in slots.iter_mut().enumerate() {
            if let Some(Poll::Ready(ended)) = under_way.as_mut().map(|future| future.as_mut().poll(context)) {
                *under_way = None;
                return Poll::Ready((slot, ended));
            }
        }
        Poll::Pending
    })
    .await
}

pub(super) fn read<L: Lock + 'static>(lock: Rc<L>, limit: Duration) -> Operation {
    Box::pin(async move { Input::Read(within(limit, lock.read()).await.map_err(|error| error.to_string())) })
}

// docs/safety.md R12: no answer in time is an unknown outcome.
pub(super) fn bounded_write(
    attempt: Attempt,
    limit: Duration,
    write: impl Future<Output = Write> + 'static,
) -> Operation {
    Box::pin(async move {
        let outcome = match timeout(limit, write).await {
            Ok(outcome) => outcome,
            Err(_) => Write::Unknown(format!("no answer within {limit:?}")),
        };
        Input::Written { attempt, outcome }
    })
}

/// Watches the lock; where that fails, a look each period stands in for it.
pub(super) fn watch<L: Lock + 'static>(lock: Rc<L>, since: Version, timing: Timing) -> Watch {
    Box::pin(async move {
        let result = lock.changed(since).await;
        if let Err(error) = &result {
            tracing::warn!("{error}; looking each {:?} instead", timing.period());
            tokio::time::sleep(timing.period()).await;
        }
        result
    })
}
