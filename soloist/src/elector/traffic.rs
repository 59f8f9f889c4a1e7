//! Publishes an activation before its workload is started, and withdraws it when its stop begins.
//!
//! The launch waits here while the elector goes on renewing. If its time is up before the route has answered, it ends
//! without having begun.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use election::{Activation, Instant, Proof};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::patience::within;
use crate::route::{Pending, Route, Turn, Watching};
use crate::workload::{Ending, Event, Launch};

/// A preparation that is not done by then has been of no use.
const PREPARE_LIMIT: Duration = Duration::from_secs(1);
/// A route that has not answered by then has failed. The lease is renewed meanwhile.
const PUBLISH_LIMIT: Duration = Duration::from_secs(15);
/// Before what was published once more is looked after again, and where that failed.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// The exit of the process waits for a withdrawal for so long.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(5);
/// The release waits for it for so long: the next one would meet a conflict otherwise, and two answers cost more.
const WITHDRAW_HEAD_START: Duration = Duration::from_millis(50);

/// The launch of an activation, and what goes along with it.
pub(super) type Departure = (Launch, Option<OwnedFd>);

/// The traffic of one member.
#[derive(Default)]
pub(super) struct Traffic {
    /// One for each slot, or none at all.
    routes: Vec<Rc<dyn Route>>,
    /// The launch that waits for its publication.
    waiting: Option<Departure>,
    /// The activation that is published, or may be, and by which route.
    published: Option<(Turn, Rc<dyn Route>)>,
    operation: Option<Pending>,
    /// Whether others have changed what is published.
    watching: Option<Watching>,
    /// Whether the operation is a withdrawal.
    is_withdrawing: watch::Sender<bool>,
    /// For this slot.
    preparation: Option<(usize, Pending)>,
    /// What is to be said of launches that never happened.
    events: VecDeque<Event>,
}

impl Traffic {
    pub(super) fn of(routes: Vec<Rc<dyn Route>>) -> Self {
        Self { routes, ..Self::default() }
    }

    /// Gets ready while the lock of this slot is being acquired.
    pub(super) fn prepare(&mut self, slot: usize) {
        if self.preparation.as_ref().is_none_or(|(of, _)| *of != slot) {
            self.preparation = self.routes.get(slot).map(|route| (slot, route.prepare()));
        }
    }

    /// Publishes the activation, which came after `before`; gives the launch back at once where there is no route.
    pub(super) fn lead(&mut self, slot: usize, departure: Departure, before: Option<Activation>) -> Option<Departure> {
        let Some(route) = self.routes.get(slot) else { return Some(departure) };
        let turn = Turn { activation: departure.0.preparation.activation, token: departure.0.token, before };
        let preparation = self.preparation.take().filter(|(of, _)| *of == slot).map(|(_, preparation)| preparation);
        self.operation = Some(publish(Rc::clone(route), preparation, turn));
        self.published = Some((turn, Rc::clone(route)));
        self.waiting = Some(departure);
        None
    }

    /// The deadline of a launch that waits moves like any other.
    pub(super) fn extend(&mut self, kill_at: Instant) {
        if let Some((launch, _)) = &mut self.waiting {
            launch.kill_at = kill_at;
        }
    }

    /// Sends traffic away from a member that is not active any more. A launch that still waits never happens.
    pub(super) fn leave(&mut self) {
        if self.waiting.take().is_some() {
            self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
        }
        self.watching = None;
        if let Some((turn, route)) = self.published.take() {
            self.operation = Some(Box::pin(within(WITHDRAW_LIMIT, route.withdraw(turn))));
            self.is_withdrawing.send_replace(true);
        }
    }

    /// What happened to a launch that was held back here.
    pub(super) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Waits for the operation under way; the launch that may begin then. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Departure> {
        if let Some(operation) = &mut self.operation {
            let result = operation.await;
            self.operation = None;
            self.is_withdrawing.send_replace(false);
            return self.done(result);
        }
        if let Some((_, preparation)) = &mut self.preparation {
            // What failed here is asked for again, and complained about, when it is needed.
            let _ = preparation.await;
            self.preparation = None;
        } else if let (Some(watching), Some((turn, route))) = (&mut self.watching, &self.published) {
            watching.await;
            self.watching = None;
            self.operation = Some(publish(Rc::clone(route), None, *turn));
        } else {
            std::future::pending::<()>().await;
        }
        None
    }

    fn done(&mut self, result: Result<(), String>) -> Option<Departure> {
        let waiting = self.waiting.take();
        let Some((turn, route)) = &self.published else {
            if let Err(why) = result {
                tracing::warn!("traffic may still go to this member: {why}");
            }
            return None;
        };
        match (result, waiting) {
            (Ok(()), Some(departure)) => {
                self.watching = Some(route.disturbed(*turn));
                return Some(departure);
            }
            (Err(why), Some(_)) => self.fail(why),
            (result, None) => {
                let (pause, now) = match result {
                    Ok(()) => (AGAIN_PAUSE, "it goes to this member again".to_owned()),
                    Err(why) => (FAILED_PAUSE, why),
                };
                tracing::warn!("others had changed where traffic goes: {now}");
                let (turn, route) = (*turn, Rc::clone(route));
                self.watching = Some(Box::pin(async move {
                    sleep(pause).await;
                    route.disturbed(turn).await;
                }));
            }
        }
        None
    }

    fn fail(&mut self, why: String) {
        self.events.push_back(Event::Failed(format!("failed to send traffic to this member: {why}")));
        self.events.push_back(Event::Exited(Ending::NotStarted(1)));
        self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
    }

    /// Ends when nothing is being withdrawn, or has been for long enough. Somebody has to wait for [`Traffic::next`]
    /// meanwhile.
    pub(super) fn withdrawn(&self) -> impl Future<Output = ()> + 'static {
        let mut withdrawing = self.is_withdrawing.subscribe();
        async move {
            let _ = timeout(WITHDRAW_HEAD_START, withdrawing.wait_for(|is_withdrawing| !is_withdrawing)).await;
        }
    }

    /// Waits for the end of a withdrawal, and takes away what is left of this member.
    pub(super) async fn settle(mut self) {
        self.leave();
        if self.operation.is_some() {
            self.next().await;
        }
        for route in &self.routes {
            if let Err(why) = within(WITHDRAW_LIMIT, route.close()).await {
                tracing::warn!("something of this member stays where traffic is sent from: {why}");
            }
        }
    }
}

fn publish(route: Rc<dyn Route>, preparation: Option<Pending>, turn: Turn) -> Pending {
    Box::pin(async move {
        if let Some(preparation) = preparation {
            let _ = within(PREPARE_LIMIT, preparation).await;
        }
        within(PUBLISH_LIMIT, route.publish(turn)).await
    })
}
