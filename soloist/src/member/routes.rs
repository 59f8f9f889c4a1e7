//! Opens the routes of a member before it takes part: who cannot be reached must not be active.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::elector::Order;
use crate::error::{Code, Failure};
use crate::member::misconfigured;
use crate::route::Route;
use crate::route::open::{Obstacle, Wanted, open};
use crate::settings::Settings;

/// For all answers of the API server that one try needs.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// How it went.
pub(super) enum Opened {
    /// There are routes, one for each slot, or none were asked for.
    Ready(Vec<Rc<dyn Route>>),
    /// Somebody asked the member to leave meanwhile.
    Left,
}

/// Opens what `settings` ask for, as soon as the API server answers. `lock` is what the members have in common.
///
/// # Errors
/// A route that will never work, or no answer where `--fail-fast` does not wait for one.
pub(super) async fn open_all(
    settings: &Settings,
    lock: &str,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Opened, Failure> {
    if settings.routes.is_empty() {
        return Ok(Opened::Ready(Vec::new()));
    }
    if settings.routes.iter().any(Wanted::is_on_kubernetes) {
        settings.access.load().await.map_err(misconfigured)?;
    }
    let opening = open_patiently(settings, lock);
    tokio::pin!(opening);
    loop {
        tokio::select! {
            opened = &mut opening => return opened.map(Opened::Ready),
            order = orders.recv() => if matches!(order, None | Some(Order::Leave | Order::Hangup)) {
                tracing::info!("leaving before the routes were opened");
                return Ok(Opened::Left);
            }
        }
    }
}

/// Tries until there is an answer: a standby that starts while the API server is away waits for it.
async fn open_patiently(settings: &Settings, lock: &str) -> Result<Vec<Rc<dyn Route>>, Failure> {
    let mut is_told = false;
    loop {
        let why = match timeout(LIMIT, open(&settings.access, &settings.routes, lock, settings.active)).await {
            Ok(Ok(routes)) => return Ok(routes),
            Ok(Err(Obstacle::Refusal(failure))) => return Err(failure),
            Ok(Err(Obstacle::Unavailable(why))) => why,
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        if settings.fail_fast {
            return Err(Failure::new(Code::Unavailable, why).hint("without --fail-fast soloist would wait for it"));
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!("the routes cannot be opened yet, trying again each {PAUSE:?}: {why}");
        }
        sleep(PAUSE).await;
    }
}
