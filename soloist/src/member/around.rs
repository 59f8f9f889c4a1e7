//! The tasks around an elector: they read snapshots and hand in orders, and are never waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use election::{Exit, Nonce};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::internal;
use crate::commands::Commands;
use crate::elector::Order;
use crate::error::{Code, Failure};
use crate::lock::board::Board;
use crate::settings::Settings;
use crate::settings::notify::Listener;
use crate::snapshot::{Publisher, Snapshot};
use crate::{attend, countdown, handover, health, hooks, notify};

/// Reads snapshots until the elector has ended, and lives on for a moment.
pub(super) type Lingering = Box<dyn FnOnce(watch::Receiver<Snapshot>) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

/// What all of them are made from.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) commands: &'a Commands,
    pub(super) publisher: &'a Publisher,
    pub(super) orders: &'a mpsc::Sender<Order>,
}

/// The tasks around the elector. None of them ends before it; if one does, the member leaves.
#[derive(Default)]
pub(super) struct Around(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Around {
    pub(super) fn add(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.0.spawn(async move { (name, task.await) });
    }

    /// What everybody has who takes part: it tells others of this member, and this member of them. What is to be waited for
    /// when the elector has ended.
    pub(super) fn add_company(
        &mut self,
        parts: &Parts<'_>,
        board: Arc<impl Board + Send + Sync + 'static>,
        nonce: Nonce,
        lingering: Vec<(&'static str, Lingering)>,
    ) -> Result<JoinSet<()>, Failure> {
        let Parts { settings, commands, publisher, orders } = parts;
        let mut farewells = JoinSet::new();
        self.add("the countdown", countdown::run(publisher.subscribe()));
        if let Some(place) = settings.handover.clone() {
            let watching = handover::run(settings.access.clone(), place, publisher.subscribe(), (*orders).clone());
            self.add("the watch of the pod", watching);
        }
        let attending = attend::attend(board, nonce, publisher.subscribe(), (*orders).clone());
        self.add_lingering("board", attending, &mut farewells);
        for (name, task) in lingering {
            self.add_lingering(name, task(publisher.subscribe()), &mut farewells);
        }
        self.add_commands(parts)?;
        if let Some(wanted) = settings.hooks.clone() {
            let hooks = hooks::run(wanted, (*commands).clone(), publisher.subscribe());
            self.add_lingering("the hooks", hooks, &mut farewells);
        }
        for listener in settings.listeners.clone() {
            let telling = notify::run(listener, (*commands).clone(), publisher.subscribe());
            self.add_lingering("a notice", telling, &mut farewells);
        }
        Ok(farewells)
    }

    /// The health check, and who collects what checks and hooks leave behind. Nothing wakes up where there are none.
    fn add_commands(&mut self, parts: &Parts<'_>) -> Result<(), Failure> {
        let Parts { settings, commands, publisher, orders } = parts;
        let tells_by_command = settings.listeners.iter().any(|listener| matches!(listener, Listener::Exec { .. }));
        if settings.health.is_some() || settings.hooks.is_some() || tells_by_command {
            self.add("the reaper", commands.reaper().map_err(internal("handle SIGCHLD"))?);
        }
        if let Some(health) = settings.health.clone() {
            let task = health::run(health, (*commands).clone(), publisher.subscribe(), (*orders).clone());
            self.add("the health check", task);
        }
        Ok(())
    }

    /// A task that outlives the elector for a moment: its end among `farewells` is to be waited for.
    fn add_lingering(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        farewells: &mut JoinSet<()>,
    ) {
        let (lives, mut ended) = mpsc::channel::<()>(1);
        self.add(name, async move {
            ended.recv().await;
            Ok(())
        });
        farewells.spawn(async move {
            let _lives = lives;
            task.await;
        });
    }

    async fn first_end(&mut self) -> String {
        match self.0.join_next().await {
            Some(Ok((name, Ok(())))) => format!("{name} ended"),
            Some(Ok((name, Err(error)))) => format!("{name} failed: {error:#}"),
            Some(Err(error)) => format!("a task failed: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Runs the elector to its end. A member of which a part is missing leaves in order.
    pub(super) async fn keep(
        mut self,
        elector: impl Future<Output = Exit>,
        orders: &mpsc::Sender<Order>,
    ) -> Result<Exit, Failure> {
        tokio::pin!(elector);
        let why = tokio::select! {
            exit = &mut elector => return Ok(exit),
            why = self.first_end() => why,
        };
        tracing::error!("{why}: leaving");
        let leave = async {
            // Fails only if the elector is gone already.
            let _ = orders.send(Order::Leave).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = elector => {}
            () = leave => {}
        }
        Err(Failure::new(Code::Internal, why))
    }
}
