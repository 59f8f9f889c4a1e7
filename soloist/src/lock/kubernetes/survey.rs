//! All groups of a namespace, or of a whole cluster: the Leases that carry a record of ours.

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

/// Each Lease that soloist wrote, with what it shows.
///
/// # Errors
/// Leases cannot be listed.
pub async fn survey(access: Access, scope: &Scope) -> Result<Vec<(ObjectName, Look)>, LockError> {
    let api = Api::new(access);
    let home = api.home().await.map_err(failed)?;
    let namespace = match scope {
        Scope::Namespace(name) if name.is_empty() => home,
        Scope::Namespace(name) => name.clone(),
        Scope::Cluster => String::new(),
    };
    let leases = Resource {
        group: Kind::Lease.group(),
        version: "v1",
        kind: Kind::Lease.word(),
        plural: Kind::Lease.resource(),
        verbs: "list",
        namespace,
    };
    let all = api.pages(&leases).await.map_err(failed)?;
    Ok(all.iter().filter_map(shown).collect())
}

/// One that cannot be read is none of ours, or is gone in a moment.
fn shown(lease: &Value) -> Option<(ObjectName, Look)> {
    annotation(lease, RECORD)?;
    let [namespace, name] = ["namespace", "name"].map(|field| lease["metadata"][field].as_str());
    Some((ObjectName::lease(namespace?, name?), look_at(lease).ok()?))
}

fn failed(trouble: Trouble) -> LockError {
    match trouble {
        Trouble::Forbidden(why) | Trouble::Refused(why) => LockError::Denied(why),
        Trouble::Unavailable(why) => LockError::Unavailable(why),
    }
}
