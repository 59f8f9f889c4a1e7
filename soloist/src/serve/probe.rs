//! Short answers, whatever is asked, for probes that know nothing of soloist.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::response::IntoResponse;
use election::Instant;
use tokio::sync::watch;

use super::connections::{Connections, Limits};
use super::view::View;
use super::{Bound, serve_on_a_thread};
use crate::clock;
use crate::snapshot::Snapshot;

/// Probes are few; one more takes the place of the connection that has been idle longest.
const CONNECTIONS_MAX: usize = 64;

impl Bound {
    /// Answers as `judge` says, which gets the path that was asked for. Serves until the future that is returned is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_probe<A: IntoResponse>(
        self,
        snapshots: watch::Receiver<Snapshot>,
        judge: impl Fn(&Snapshot, Instant, &str) -> A + Clone + Send + Sync + 'static,
    ) -> io::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
        let view = Arc::new(View::new(snapshots));
        let answer = move |asked: Uri| async move { judge(&view.now(), clock::now(), asked.path()) };
        let router = Router::new().fallback(answer);
        let connections = Arc::new(Connections::new(Limits::of(CONNECTIONS_MAX)));
        serve_on_a_thread(self.listener, self.file, router, connections, std::future::pending())
    }
}
