//! One answer to every question, for probes that know nothing of soloist.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use election::Instant;
use tokio::sync::watch;

use super::connections::{Connections, Limits};
use super::view::View;
use super::{Bound, serve_on_a_thread};
use crate::clock;
use crate::snapshot::Snapshot;

/// Probes are few; one more takes the place of the connection that has been idle longest.
const CONNECTIONS_MAX: usize = 64;

/// What is answered: code and text.
pub type Answer = (StatusCode, &'static str);

impl Bound {
    /// Answers as `judge` says, whatever is asked. Serves until the future that is returned is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_probe(
        self,
        snapshots: watch::Receiver<Snapshot>,
        judge: impl Fn(&Snapshot, Instant) -> Answer + Clone + Send + Sync + 'static,
    ) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let view = Arc::new(View::new(snapshots));
        let router = Router::new().fallback(move || async move { judge(&view.now(), clock::now()) });
        let connections = Arc::new(Connections::new(Limits::of(CONNECTIONS_MAX)));
        serve_on_a_thread(self.listener, self.file, router, connections, std::future::pending())
    }
}
