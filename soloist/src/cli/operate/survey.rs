//! All groups of a realm, with what their locks say.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::asking::{self, bounded};
use super::place::Target;
use crate::error::{Code, Failure};
use crate::lock::LockError;
use crate::lock::board::Look;
use crate::lock::consul::{self, Server};
use crate::lock::file::locks_in;
use crate::lock::kubernetes::{self, Access};
use crate::member::misconfigured;
use crate::settings::{FilePlace, Place, Realm};

/// For the many Leases of a large cluster, which come in pages.
const LIST_LIMIT: Duration = Duration::from_secs(30);

/// A group, and what the locks of its slots say.
pub(in crate::cli) struct Group {
    pub target: Target,
    /// One for each slot; the first one has the members.
    pub looks: Vec<Look>,
}

/// Everything that was found.
#[derive(Default)]
pub(in crate::cli) struct Survey {
    pub groups: Vec<Group>,
    /// What could not be read, and why.
    pub unreadable: Vec<(Place, Failure)>,
    /// Where nobody looked, and why.
    pub left_out: Option<String>,
}

/// Looks for groups.
///
/// # Errors
/// The realm cannot be looked at.
pub(in crate::cli) async fn survey(realm: &Realm, access: &Access) -> Result<Survey, Failure> {
    match realm {
        Realm::Folder(folder) => one_by_one(files(folder)?, access).await,
        Realm::Kubernetes(scope) => {
            access.load().await.map_err(misconfigured)?;
            let listing = kubernetes::survey(access.clone(), scope);
            let found =
                asking::in_time(LIST_LIMIT, "list Leases and Endpoints", listing).await?.map_err(asking::failed)?;
            let looks = found.looks.into_iter().map(|(object, look)| (Place::Kubernetes(object), look)).collect();
            Ok(Survey { groups: grouped(looks, access), unreadable: Vec::new(), left_out: found.left_out })
        }
        Realm::Consul { server, access: consul, prefix } => {
            let found = bounded("list the keys", consul::survey((**consul).clone(), prefix)).await?;
            one_by_one(keys(server, &found)?, access).await
        }
    }
}

fn files(folder: &Path) -> Result<Vec<Place>, Failure> {
    let locks = match locks_in(folder) {
        Ok(locks) => locks,
        // Nobody has taken part in anything here yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let code = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Code::Permission,
                std::io::ErrorKind::NotADirectory => Code::Usage,
                _ => Code::Unavailable,
            };
            let failure = Failure::new(code, format!("failed to look for groups in {}: {error}", folder.display()));
            return Err(failure.hint("a folder of lock files; soloist status shows one lock"));
        }
    };
    Ok(locks.into_iter().map(|path| Place::File(FilePlace { path, is_default: false })).collect())
}

fn keys(server: &Server, prefixes: &[String]) -> Result<Vec<Place>, Failure> {
    prefixes.iter().map(|prefix| Ok(Place::Consul(Box::new(Realm::consul_place(server, prefix)?)))).collect()
}

/// Where each lock is asked for itself.
async fn one_by_one(places: Vec<Place>, access: &Access) -> Result<Survey, Failure> {
    let (mut looks, mut unreadable) = (Vec::new(), Vec::new());
    for place in places {
        let target = Target::named(None, place.clone(), access.clone());
        match look(&target).await {
            Ok(Some(look)) => looks.push((place, look)),
            Ok(None) => {}
            // The next one would be waited for as long.
            Err(failure) if failure.code == Code::Unavailable && matches!(place, Place::Consul(_)) => {
                return Err(failure);
            }
            Err(failure) => unreadable.push((place, failure)),
        }
    }
    Ok(Survey { groups: grouped(looks, access), unreadable, left_out: None })
}

/// Nothing where the lock is another program's, or gone meanwhile.
async fn look(target: &Target) -> Result<Option<Look>, Failure> {
    let board = target.board().await?;
    let look = match asking::in_time(asking::CALL_LIMIT, "read the lock", board.look_at_what_is_there()).await? {
        Err(LockError::Denied(_)) if matches!(target.lock, Place::Consul(_)) => return Ok(None),
        look => look.map_err(asking::failed)?,
    };
    let is_anothers = matches!(target.lock, Place::Consul(_)) && look.is_foreign() && look.members.is_empty();
    Ok((look.seen.record.is_some() && !is_anothers).then_some(look))
}

/// The slots of a group belong to the group that says how many it has.
fn grouped(looks: Vec<(Place, Look)>, access: &Access) -> Vec<Group> {
    let mut order: Vec<(String, Place)> = Vec::new();
    let mut by_name: HashMap<String, Look> = HashMap::new();
    for (place, look) in looks {
        order.push((place.to_string(), place));
        by_name.extend(order.last().map(|(name, _)| (name.clone(), look)));
    }
    order.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let mut of_slots: HashMap<String, Vec<Look>> = HashMap::new();
    for (name, place) in &order {
        let slots = by_name.get(name).map_or(1, Look::slots);
        let mut others = Vec::new();
        for slot in 2..=slots {
            let look = by_name.remove(&place.of_slot(slot).to_string());
            others.push(look.unwrap_or_else(|| Look::at_nothing(Vec::new())));
        }
        of_slots.insert(name.clone(), others);
    }
    let group = |(name, place): (String, Place)| {
        let first = by_name.remove(&name)?;
        let looks = std::iter::once(first).chain(of_slots.remove(&name).unwrap_or_default()).collect();
        Some(Group { target: Target::named(None, place, access.clone()), looks })
    };
    order.into_iter().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::held;
    use super::*;

    fn file(name: &str) -> Place {
        Place::File(FilePlace { path: format!("/srv/{name}").into(), is_default: false })
    }

    fn with_slots(mut look: Look, slots: u32) -> Look {
        look.seen.record.as_mut().unwrap().slots = slots;
        look
    }

    #[test]
    fn slots_belong_to_the_group_that_counts_them() {
        let looks = vec![
            (file("jobs.lock.2"), with_slots(held("b", 2), 3)),
            (file("jobs.lock"), with_slots(held("a", 1), 3)),
            (file("app.lock"), held("x", 7)),
            (file("app.lock.2"), held("y", 8)),
        ];
        let groups = grouped(looks, &Access::default());
        let shown: Vec<(String, usize)> =
            groups.iter().map(|group| (group.target.lock.to_string(), group.looks.len())).collect();
        assert_eq!(
            shown,
            [("/srv/app.lock".to_owned(), 1), ("/srv/app.lock.2".to_owned(), 1), ("/srv/jobs.lock".to_owned(), 3)],
            "a name alone makes no slot"
        );
        assert!(groups[2].looks[2].seen.record.is_none(), "nobody was in the third slot yet");
    }

    #[test]
    fn a_record_cannot_claim_more_slots_than_there_may_be() {
        let groups = grouped(vec![(file("app.lock"), with_slots(held("a", 1), u32::MAX))], &Access::default());
        assert_eq!(groups[0].looks.len(), 64);
    }
}
