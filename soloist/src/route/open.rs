//! From what was asked for to routes that are known to work, as far as that can be known at the start.

use std::rc::Rc;

use super::api::{Api, Trouble};
use super::consul_service::{ConsulService, Definition};
use super::endpoint_slice::{self, EndpointSlice};
use super::endpoints::{Endpoints, Target};
use super::object::{Object, Shape};
use super::pod_label::{Label, OwnPod, PodLabel};
use super::{Route, Several, service};
use crate::error::{Code, Failure};
use crate::lock::kubernetes::Access;

/// One route that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An EndpointSlice of a Service, whose ports are not known yet.
    EndpointSlice(Target),
    /// The Endpoints of a Service, whose ports are not known yet.
    Endpoints(Target),
    /// A label on the members' pods.
    PodLabel(OwnPod, Label),
    /// An instance of a service of Consul.
    ConsulService(Box<Definition>),
}

impl Wanted {
    /// Whether each slot can have traffic of its own: the other objects have room for one active member.
    pub fn has_slots(&self) -> bool {
        matches!(self, Self::EndpointSlice(_))
    }

    /// Whether it is about objects of Kubernetes.
    pub fn is_on_kubernetes(&self) -> bool {
        !matches!(self, Self::ConsulService(_))
    }
}

/// Why a route cannot be used.
#[derive(Debug)]
pub enum Obstacle {
    /// It never will be.
    Refusal(Failure),
    /// The API server does not answer.
    Unavailable(String),
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        Self::Refusal(failure)
    }
}

impl From<Trouble> for Obstacle {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Forbidden(why) => Failure::new(Code::Permission, why).into(),
            Trouble::Refused(why) => Failure::new(Code::Configuration, why).into(),
            Trouble::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// Opens all routes: reads what they need to know, and finds out whether they may write. `lock` is what the group's
/// members have in common. One for each slot.
///
/// # Errors
/// The first obstacle.
pub async fn open(access: &Access, wanted: &[Wanted], lock: &str, slots: u32) -> Result<Vec<Rc<dyn Route>>, Obstacle> {
    let mut of_slots = Vec::new();
    for slot in 1..=slots {
        let mut routes: Vec<Rc<dyn Route>> = Vec::with_capacity(wanted.len());
        for one in wanted {
            routes.push(open_one(access, one, lock, slot).await.map_err(|obstacle| about(one, obstacle))?);
        }
        of_slots.push(Rc::new(Several::new(routes)) as Rc<dyn Route>);
    }
    Ok(of_slots)
}

async fn open_one(access: &Access, wanted: &Wanted, lock: &str, slot: u32) -> Result<Rc<dyn Route>, Obstacle> {
    let api = Api::new(access.clone());
    match wanted {
        Wanted::EndpointSlice(target) => {
            let target = with_ports(&api, target).await?;
            endpoint_slice::check_others(&api, &target).await?;
            checked(EndpointSlice::of(access.clone(), target, slot)).await
        }
        Wanted::Endpoints(target) => {
            let target = with_ports(&api, target).await?;
            checked(Endpoints::of(access.clone(), target)).await
        }
        Wanted::PodLabel(pod, label) => {
            let route = PodLabel::new(access.clone(), pod.clone(), label.clone(), lock.to_owned());
            route.enter().await?;
            Ok(Rc::new(route))
        }
        Wanted::ConsulService(definition) => {
            let route = ConsulService::new((**definition).clone(), lock.to_owned());
            route.enter().await?;
            Ok(Rc::new(route))
        }
    }
}

async fn with_ports(api: &Api, target: &Target) -> Result<Target, Obstacle> {
    let ports = service::ports(api, &target.namespace, &target.service, target.address).await?;
    Ok(Target { ports, ..target.clone() })
}

async fn checked<S: Shape>(route: Object<S>) -> Result<Rc<dyn Route>, Obstacle> {
    route.check().await?;
    Ok(Rc::new(route))
}

/// Says which route it is.
fn about(wanted: &Wanted, obstacle: Obstacle) -> Obstacle {
    match obstacle {
        Obstacle::Refusal(failure) => {
            Failure { message: format!("--route {wanted}: {}", failure.message), ..failure }.into()
        }
        Obstacle::Unavailable(why) => Obstacle::Unavailable(format!("--route {wanted}: {why}")),
    }
}

/// As it would be given to `--route`.
impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::EndpointSlice(target) => write!(f, "endpoint-slice:{}", target.service),
            Wanted::Endpoints(target) => write!(f, "endpoints:{}", target.service),
            Wanted::ConsulService(definition) => write!(f, "consul-service:{}", definition.service),
            Wanted::PodLabel(_, Label { key, active, standby }) => write!(f, "pod-label:{key}={active}|{standby}"),
        }
    }
}
