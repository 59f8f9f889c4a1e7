//! Hands over before this member's pod is gone: it is being deleted or evicted, or its node is being emptied.
//!
//! A pod that is being deleted gets SIGTERM from the kubelet, but only after its hooks, and those may take as long as they
//! like. Who is on a node that takes no pods any more is not sent away yet; it is only no good successor.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use election::{Activation, Request, Role};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::elector::{Order, Petition};
use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::kubelet::{GIVE_WAY, Waiting, Watched};
use crate::snapshot::Snapshot;

/// Where this member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID, where it is known: another pod of the same name says nothing.
    pub uid: Option<String>,
    /// The node, where it is known.
    pub node: Option<String>,
}

/// Watches pod and node until the elector has ended.
///
/// # Errors
/// None; the result has the form of all tasks around the elector.
pub async fn run(
    access: Access,
    place: Place,
    mut snapshots: watch::Receiver<Snapshot>,
    orders: mpsc::Sender<Order>,
) -> anyhow::Result<()> {
    sleep(GIVE_WAY).await;
    let pod = watch_pod(&access, &place);
    let mut deleted = pod.listen();
    let mut node = place.node.as_deref().map(|name| Node::new(&access, name));
    let mut asked: Option<Activation> = None;
    loop {
        let is_deleted = deleted.borrow_and_update().is_some();
        if is_deleted && ask_once(&snapshots, &mut asked, &orders).await.is_none() {
            return Ok(());
        }
        let is_over = tokio::select! {
            changed = snapshots.changed() => changed.is_err(),
            told = deleted.changed(), if !is_deleted => {
                let why = "its pod is being deleted".to_owned();
                tracing::info!("others go first from now on: {why}");
                told.is_err() || orders.send(Order::Leaving(Some(why))).await.is_err()
            }
            emptied = turned(&mut node), if !is_deleted => {
                let why = emptied.then(|| "its node is being emptied".to_owned());
                match &why {
                    Some(why) => tracing::info!("others go first from now on: {why}"),
                    None => tracing::info!("the node takes pods again"),
                }
                orders.send(Order::Leaving(why)).await.is_err()
            }
        };
        if is_over {
            return Ok(());
        }
    }
}

/// Asks for a handover, once for each activation, as soon as somebody is fit who stays; nothing once the elector has ended.
async fn ask_once(
    snapshots: &watch::Receiver<Snapshot>,
    asked: &mut Option<Activation>,
    orders: &mpsc::Sender<Order>,
) -> Option<()> {
    let active = {
        let snapshot = snapshots.borrow();
        let tenure = snapshot.tenure.filter(|_| snapshot.role == Role::Active && snapshot.another_stays());
        tenure.map(|tenure| tenure.activation).filter(|activation| *asked != Some(*activation))
    };
    let Some(activation) = active else { return Some(()) };
    *asked = Some(activation);
    let (answer_to, answer) = oneshot::channel();
    let by = "the deletion of the pod".to_owned();
    orders.send(Order::Request(Petition { request: Request::Switchover { to: None }, by, answer_to })).await.ok()?;
    // A refusal says that a stop is under way already, or that nobody is fit any more: SIGTERM will come.
    if let Ok(Err(refusal)) = answer.await {
        tracing::debug!("no handover before the end of the pod: {}", refusal.why);
    }
    Some(())
}

fn watch_pod(access: &Access, place: &Place) -> Waiting<()> {
    let watched = Watched::pod(&place.namespace, &place.pod, "a handover waits for SIGTERM when the pod is deleted");
    let uid = place.uid.clone();
    Waiting::start(access.clone(), watched, Arc::new(AtomicBool::new(false)), move |pod| {
        is_being_deleted(pod, uid.as_deref()).then_some(())
    })
}

fn is_being_deleted(pod: &Value, uid: Option<&str>) -> bool {
    let metadata = &pod["metadata"];
    uid.is_none_or(|uid| metadata["uid"] == uid) && metadata["deletionTimestamp"].is_string()
}

/// The node, and how it was seen last.
struct Node {
    access: Access,
    watched: Watched,
    is_told: Arc<AtomicBool>,
    is_emptied: bool,
    waiting: Waiting<()>,
}

impl Node {
    fn new(access: &Access, name: &str) -> Self {
        let watched = Watched::node(name, "a member on a node that is being emptied may become the successor");
        let is_told = Arc::new(AtomicBool::new(false));
        let waiting = wait_for(access, &watched, &is_told, true);
        Self { access: access.clone(), watched, is_told, is_emptied: false, waiting }
    }
}

fn wait_for(access: &Access, watched: &Watched, is_told: &Arc<AtomicBool>, emptied: bool) -> Waiting<()> {
    Waiting::start(access.clone(), watched.clone(), Arc::clone(is_told), move |node| {
        (is_being_emptied(node) == emptied).then_some(())
    })
}

/// Waits until the node begins or ends to be emptied: whether it is. Cancel safe.
async fn turned(node: &mut Option<Node>) -> bool {
    let Some(node) = node else { return std::future::pending().await };
    if node.waiting.listen().wait_for(Option::is_some).await.is_err() {
        return std::future::pending().await;
    }
    node.is_emptied = !node.is_emptied;
    node.waiting = wait_for(&node.access, &node.watched, &node.is_told, !node.is_emptied);
    node.is_emptied
}

/// Cordoned, or with a taint that sends pods away.
fn is_being_emptied(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array();
    let sends_away = |taint: &Value| taint["effect"] == "NoExecute";
    node["spec"]["unschedulable"] == true || taints.into_iter().flatten().any(sends_away)
}

#[cfg(test)]
mod tests;
