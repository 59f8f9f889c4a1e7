//! A label on the members' pods: one value on the active one's, another on all others, so that a Service or anything
//! else can select by it.
//!
//! There is an object for each member here, so one compare-and-set is not enough: before a member labels its own pod,
//! the activation before it must not be able to any more. Either that one has taken its label back, which stands on its
//! pod under its random id, or the new token is written on every other pod of the group first.

use std::cell::RefCell;
use std::rc::Rc;

use election::{Activation, Token};
use futures_util::future::join_all;
use serde_json::Value;

use super::api::{Age, Api, Resource, Trouble};
use super::object::{Content, Object, Shape};
use super::open::Obstacle;
use super::{Pending, Route, Turn, owner};
use crate::error::{Code, Failure};
use crate::lock::kubernetes::Access;

/// The annotation that says which lock a pod's label follows: others in the namespace may use the same key.
const LOCK: &str = "soloist.dev/lock";
/// The annotation with the activation that took its label back last.
const WITHDRAWN: &str = "soloist.dev/withdrawn";

/// A label and its two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its key, with or without a prefix.
    pub key: String,
    /// The value on the active one's pod.
    pub active: String,
    /// The value on all others'.
    pub standby: String,
}

/// The own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether what owns it is asked for the labels that it selects by, which takes a rule of its own.
    pub asks_owner: bool,
}

/// The label on the pods of one group. Clones share what is known of them.
#[derive(Clone)]
pub struct PodLabel(Rc<Shared>);

struct Shared {
    api: Rc<Api>,
    own: Object<Labelled>,
    asks_owner: bool,
    /// The pods of the group as they were listed last, for the next publication.
    listed: RefCell<Option<Vec<Value>>>,
}

/// What one pod looks like.
#[derive(Clone)]
struct Labelled {
    resource: Resource,
    name: String,
    uid: String,
    label: Label,
    /// The lock that the label follows.
    lock: String,
}

impl PodLabel {
    /// Nothing is read or asked yet. `lock` is the same for all members of the group and for nobody else.
    pub fn new(access: Access, pod: OwnPod, label: Label, lock: String) -> Self {
        let OwnPod { namespace, name, uid, asks_owner } = pod;
        let resource =
            Resource { group: "", version: "v1", kind: "Pod", plural: "pods", verbs: "get, list, update", namespace };
        let api = Rc::new(Api::new(access));
        let own = Object::with(Rc::clone(&api), Labelled { resource, name, uid, label, lock });
        Self(Rc::new(Shared { api, own, asks_owner, listed: RefCell::default() }))
    }

    /// Labels the own pod as one that stands by, and finds out whether all that a publication needs is allowed.
    ///
    /// # Errors
    /// The label is not ours to change, or something is not allowed or known.
    pub async fn enter(&self) -> Result<(), Obstacle> {
        let shared = &self.0;
        let own = shared.own.shape();
        let Some(pod) = shared.own.get().await? else {
            let what = format!("{} does not exist", own.called());
            return Err(Failure::new(Code::Configuration, what).hint("POD_NAME and POD_NAMESPACE are wrong").into());
        };
        own.check(&pod)?;
        if shared.asks_owner {
            owner::check(&shared.api, &pod, &own.resource.namespace, &own.label.key).await?;
        }
        shared.list(Age::Newest).await?;
        // Another run of this container may have been active.
        Ok(shared.own.end(Some(pod), None).await?)
    }
}

impl Route for PodLabel {
    fn prepare(&self) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            // Where this shows what the activation before took back, it shows all that counts: that one settled the others.
            let pods = shared.list(Age::Any).await.map_err(|trouble| trouble.to_string())?;
            shared.listed.replace(Some(pods));
            Ok(())
        })
    }

    fn publish(&self, turn: Turn) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            shared.settle(turn).await.map_err(|trouble| trouble.to_string())?;
            shared.own.publish(turn).await
        })
    }

    fn withdraw(&self, turn: Turn) -> Pending {
        self.0.own.withdraw(turn)
    }
}

impl Shared {
    /// The pods of the group, this one included.
    async fn list(&self, age: Age) -> Result<Vec<Value>, Trouble> {
        let own = self.own.shape();
        let mut pods = self.api.list(&own.resource, &own.label.key, age).await?;
        pods.retain(|pod| pod["metadata"]["annotations"][LOCK] == own.lock.as_str());
        self.own.know(pods.iter().find(|pod| self.is_own(pod)).cloned());
        Ok(pods)
    }

    fn is_own(&self, pod: &Value) -> bool {
        pod["metadata"]["uid"] == self.own.shape().uid.as_str()
    }

    /// Sees to it that no other pod of the group is labelled as the active one, or can be by what is on its way.
    async fn settle(&self, turn: Turn) -> Result<(), Trouble> {
        let pods = match self.listed.take().filter(|pods| has_withdrawn(pods, turn.before)) {
            Some(pods) => pods,
            None => self.list(Age::Newest).await?,
        };
        let is_settled = has_withdrawn(&pods, turn.before);
        let own = self.own.shape();
        let is_due = |pod: &Value| !self.is_own(pod) && (!is_settled || own.is_active(pod));
        let ended = join_all(pods.into_iter().filter(is_due).map(|pod| self.end(pod, turn.token))).await;
        ended.into_iter().collect()
    }

    /// Takes the label of the active one from another pod, whatever state that is in: its activation has ended, or this
    /// member would not have the lock.
    async fn end(&self, pod: Value, token: Token) -> Result<(), Trouble> {
        let own = self.own.shape();
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let other = Labelled { name: text("name"), uid: text("uid"), ..own.clone() };
        let (called, was_active) = (other.called(), own.is_active(&pod));
        Object::with(Rc::clone(&self.api), other).end(Some(pod), Some(token)).await?;
        if was_active {
            let Label { key, standby, .. } = &own.label;
            tracing::info!("{called} has {key}={standby} now: its activation has ended, token {token} has the lock");
        }
        Ok(())
    }
}

/// Whether the pod of `activation` says that its label was taken back by that activation itself.
fn has_withdrawn(pods: &[Value], activation: Option<Activation>) -> bool {
    let Some(id) = activation.map(|activation| activation.to_string()) else { return false };
    pods.iter().any(|pod| pod["metadata"]["annotations"][WITHDRAWN] == id.as_str())
}

impl Labelled {
    fn called(&self) -> String {
        self.resource.called(&self.name)
    }

    fn is_active(&self, pod: &Value) -> bool {
        pod["metadata"]["labels"][&self.label.key] == self.label.active.as_str()
    }

    /// Whether the label of the own pod is ours to change.
    fn check(&self, pod: &Value) -> Result<(), Failure> {
        let refuse = |what: String, cure: &str| Err(Failure::new(Code::Configuration, what).hint(cure));
        if let Err(what) = self.look(pod) {
            return refuse(what, "POD_UID must be metadata.uid of the pod that POD_NAME names");
        }
        let Label { key, standby, .. } = &self.label;
        let (called, value) = (self.called(), pod["metadata"]["labels"][key].as_str());
        match (pod["metadata"]["annotations"][LOCK].as_str(), value) {
            (Some(lock), _) if lock != self.lock => {
                let what = format!("the label {key} of {called} follows the lock {lock}, and not {}", self.lock);
                refuse(what, "choose another key for each group that the pod is in")
            }
            (None, Some(value)) if value != standby => {
                let what = format!("{called} has the label {key}={value}, which soloist did not write");
                refuse(what, "take it out of the pod's template, or choose another key")
            }
            _ => Ok(()),
        }
    }
}

impl Shape for Labelled {
    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn target(&self) -> String {
        format!("{}={}", self.label.key, self.label.active)
    }

    fn is_made(&self) -> bool {
        false
    }

    fn look(&self, found: &Value) -> Result<(), String> {
        if found["metadata"]["uid"] == self.uid.as_str() {
            return Ok(());
        }
        Err(format!("{} has the UID {}, and not {:?}", self.called(), found["metadata"]["uid"], self.uid))
    }

    fn fill(&self, object: &mut Value, content: Content) {
        let Label { key, active, standby } = &self.label;
        let value = if content == Content::Here { active } else { standby };
        let metadata = &mut object["metadata"];
        metadata["labels"][key] = value.as_str().into();
        metadata["annotations"][LOCK] = self.lock.as_str().into();
        if let Content::Withdrawn(activation) = content {
            metadata["annotations"][WITHDRAWN] = activation.to_string().into();
        }
    }
}

#[cfg(test)]
mod tests;
