//! All groups of a namespace, or of a whole cluster: the Leases and Endpoints that carry a record of ours.

use serde_json::Value;

use super::board::look_at;
use super::lease::{RECORD, annotation};
use super::{Access, Kind, ObjectName};
use crate::lock::LockError;
use crate::lock::board::Look;
use crate::route::api::{Api, Resource, Trouble};

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In one namespace; in the one that the credentials belong to, where its name is empty.
    Namespace(String),
    /// Everywhere.
    Cluster,
}

/// What was found.
pub struct Found {
    /// Each Lease that soloist wrote, and Endpoints, with what it shows.
    pub looks: Vec<(ObjectName, Look)>,
    /// Why Endpoints were not looked at: whoever has no groups there has no right to list them either.
    pub left_out: Option<String>,
}

/// Looks at all of them.
///
/// # Errors
/// Leases cannot be listed, or Endpoints for another reason than a missing right.
pub async fn survey(access: Access, scope: &Scope) -> Result<Found, LockError> {
    let api = Api::new(access);
    let home = api.home().await.map_err(failed)?;
    let namespace = match scope {
        Scope::Namespace(name) if name.is_empty() => home,
        Scope::Namespace(name) => name.clone(),
        Scope::Cluster => String::new(),
    };
    let mut looks = all(&api, Kind::Lease, &namespace).await.map_err(failed)?;
    let left_out = match all(&api, Kind::Endpoints, &namespace).await {
        Ok(more) => {
            looks.extend(more);
            None
        }
        Err(Trouble::Forbidden(why)) => Some(why),
        Err(trouble) => return Err(failed(trouble)),
    };
    Ok(Found { looks, left_out })
}

async fn all(api: &Api, kind: Kind, namespace: &str) -> Result<Vec<(ObjectName, Look)>, Trouble> {
    let group = match kind {
        Kind::Lease => kind.group(),
        Kind::Endpoints => "",
    };
    let namespace = namespace.to_owned();
    let of = Resource { group, version: "v1", kind: kind.word(), plural: kind.resource(), verbs: "list", namespace };
    Ok(api.pages(&of).await?.into_iter().filter_map(|object| shown(kind, object)).collect())
}

/// One that cannot be read is none of ours, or is gone in a moment.
fn shown(kind: Kind, object: Value) -> Option<(ObjectName, Look)> {
    annotation(&object, RECORD)?;
    let lease = kind.read(object);
    let [namespace, name] = ["namespace", "name"].map(|field| lease["metadata"][field].as_str());
    Some((ObjectName { kind, ..ObjectName::lease(namespace?, name?) }, look_at(&lease).ok()?))
}

fn failed(trouble: Trouble) -> LockError {
    match trouble {
        Trouble::Forbidden(why) | Trouble::Refused(why) => LockError::Denied(why),
        Trouble::Unavailable(why) => LockError::Unavailable(why),
    }
}
