//! Who tells that a holder is gone: this container, where it is the next run of the holder's, and the kubelet.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use election::{Activation, Claim, Evidence, Proof, Record};
use serde_json::{Map, Value};

use super::ObjectName;
use super::access::Access;
use super::container::Container;
use super::evidence::{Recorded, WhyNot, restarted, shown_id, terminated};
use super::instance::InstanceLock;
use super::kubelet::{GIVE_WAY, Waiting, Watched};
use crate::clock::unix_us;
use crate::workload::process::ProcessId;

/// Who may tell that a holder is gone.
#[derive(Clone, Copy, Debug)]
pub struct Witnesses {
    /// Pods are watched for the kubelet's word.
    pub kubelet: bool,
    /// The own container, whose next run tells of this one. Not where the workload is in another one.
    pub own_container: bool,
}

impl Witnesses {
    /// Nobody but the own container.
    pub const OWN_CONTAINER: Self = Self { kubelet: false, own_container: true };
}

/// Gathers evidence for one lock.
pub struct Witness {
    own: Option<Own>,
    kubelet: Option<Kubelet>,
    /// What was logged last, for which activation.
    said: RefCell<Option<(Activation, WhyNot)>>,
}

/// The container that this process is in.
struct Own {
    container: Container,
    /// Only the first process of a container has one: what it holds tells of all others.
    lock: Option<InstanceLock>,
}

/// What is asked of the API server about pods.
struct Kubelet {
    access: Access,
    is_told: Arc<AtomicBool>,
    /// The runtime's id for the own run.
    own_id: Option<Waiting<String>>,
    /// The end of the holder's container.
    holder: RefCell<Option<(Recorded, Waiting<Proof>)>>,
}

impl Witness {
    /// Finds out where this process is. `namespace` is where its credentials belong to.
    pub fn new(access: &Access, namespace: &str, place: &ObjectName, witnesses: Witnesses) -> Self {
        let container = Container::own(namespace).filter(|_| witnesses.own_container);
        Self::of(container, access, place, witnesses.kubelet)
    }

    /// The same for a process that is in `container`.
    pub fn of(container: Option<Container>, access: &Access, place: &ObjectName, asks_kubelet: bool) -> Self {
        let kubelet = asks_kubelet.then(|| Kubelet::new(access.clone(), container.as_ref()));
        let own = container.map(|container| {
            let lock = container.is_pid_1.then(|| InstanceLock::new(&container.pod_uid, place));
            Own { container, lock }
        });
        Self { own, kubelet, said: RefCell::new(None) }
    }

    /// What the record of a holder says of its container: this one, where it is one.
    pub fn named(&self, claim: &Claim) -> Option<(Activation, Container)> {
        let Claim::Held(holder) = claim else { return None };
        Some((holder.activation, self.container()?))
    }

    /// For guard and workload, so that the next run of the container knows when they are gone.
    pub fn share_lock(&self) -> Option<std::os::fd::OwnedFd> {
        self.own.as_ref()?.lock.as_ref()?.share()
    }

    /// What is known of the activation that `record` names. The kubelet's word on it is waited for from here on.
    pub fn judge(&self, record: &Record, backend: &Map<String, Value>) -> Evidence {
        let recorded = match &record.claim {
            Claim::Held(holder) => {
                Recorded::of(backend, holder.activation).map(|recorded| (holder.activation, recorded))
            }
            _ => None,
        };
        let own = self.container();
        let others =
            recorded.filter(|(_, recorded)| !own.as_ref().is_some_and(|own| own.is_same_run(&recorded.container)));
        let Some((activation, recorded)) = others else {
            self.forget();
            return Evidence::None;
        };
        if let Some(own) = own {
            match restarted(&recorded.container, &own) {
                Ok(proof) => return Evidence::Gone(proof),
                Err(why) => self.say(activation, &recorded, &own, why),
            }
        }
        match self.kubelet.as_ref().and_then(|kubelet| kubelet.word(recorded)) {
            Some(proof) => Evidence::Gone(proof),
            None => Evidence::None,
        }
    }

    /// Nobody's end is waited for any more.
    pub fn forget(&self) {
        if let Some(kubelet) = &self.kubelet {
            kubelet.holder.replace(None);
        }
    }

    /// Returns when the kubelet's word comes on whom [`Witness::judge`] saw last. Once: [`Witness::heard`] says that it
    /// was heard. Cancel safe.
    pub async fn told(&self) {
        let listener = self.kubelet.as_ref().and_then(|kubelet| Some(kubelet.holder.borrow().as_ref()?.1.listen()));
        let has_come = match listener {
            Some(mut listener) => listener.changed().await.is_ok(),
            None => false,
        };
        if !has_come {
            std::future::pending().await
        }
    }

    /// The kubelet's word was heard.
    pub fn heard(&self) {
        let Some(kubelet) = &self.kubelet else { return };
        if let Some((_, waiting)) = kubelet.holder.borrow_mut().as_mut() {
            waiting.hear();
        }
    }

    fn container(&self) -> Option<Container> {
        let own = self.own.as_ref()?;
        let id = self.kubelet.as_ref().and_then(|kubelet| kubelet.own_id.as_ref()?.word());
        let holds_lock = own.lock.as_ref().is_some_and(InstanceLock::is_held);
        Some(Container { id, holds_lock, ..own.container.clone() })
    }

    /// Why this member, which runs in the holder's container, waits all the same.
    fn say(&self, activation: Activation, recorded: &Recorded, own: &Container, why: WhyNot) {
        let is_next_run = recorded.container.pod_uid == own.pod_uid && recorded.container.name == own.name;
        if is_next_run && self.said.replace(Some((activation, why))) != Some((activation, why)) {
            tracing::info!("that this container runs anew is no proof that the holder is gone: {why}");
        }
    }
}

impl Kubelet {
    fn new(access: Access, own: Option<&Container>) -> Self {
        let is_told = Arc::new(AtomicBool::new(false));
        // Where the first process is another one, its end would prove nothing.
        let own_id = own.filter(|own| own.is_pid_1 && own.has_names()).and_then(|own| {
            let started = started()?;
            let container = own.clone();
            let judge = move |pod: &Value| shown_id(&container, started, pod).ok();
            Some(Waiting::start_after(GIVE_WAY, access.clone(), watched(own), Arc::clone(&is_told), judge))
        });
        Self { access, is_told, own_id, holder: RefCell::new(None) }
    }

    /// The kubelet's word on the run that is recorded; waited for until another one is.
    fn word(&self, recorded: Recorded) -> Option<Proof> {
        let mut holder = self.holder.borrow_mut();
        let kept = holder.take().filter(|(known, _)| *known == recorded);
        if kept.is_none() && (recorded.container.id.is_none() || !recorded.container.has_names()) {
            return None;
        }
        let (_, waiting) = holder.insert(kept.unwrap_or_else(|| {
            let container = recorded.container.clone();
            let judge = move |pod: &Value| terminated(&container, pod).ok();
            let waiting =
                Waiting::start(self.access.clone(), watched(&recorded.container), Arc::clone(&self.is_told), judge);
            (recorded, waiting)
        }));
        waiting.hear();
        waiting.word()
    }
}

fn watched(container: &Container) -> Watched {
    Watched::pod(&container.namespace, &container.pod, "the kubelet's word is not waited for")
}

/// When this process started, since 1970 by the wall clock.
/// The wall clock decides here, because the kubelet's word goes by it: the same node's, on both sides.
fn started() -> Option<Duration> {
    Duration::from_micros(unix_us()).checked_sub(ProcessId::own().ok()?.age())
}
