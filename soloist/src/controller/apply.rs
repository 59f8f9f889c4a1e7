//! Sends what was planned. Each write quotes the version that the plan was made from, and is sent only while the term
//! lasts. What is not known of it afterwards is read.

use std::sync::Arc;
use std::time::Duration;

use election::Entropy as _;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::declared::{self, Origin};
use super::group::Group;
use super::plan::{Part, Write};
use super::pod::{Pod, TERM, TOKEN, WANTED, WRITE};
use super::pods::{Eye, Shown};
use super::record::{self, Record, Stored};
use crate::entropy::KernelEntropy;
use crate::lock::kubernetes::Access;
use crate::lock::kubernetes::recorder::event;
use crate::patience::within;
use crate::route::api::{self, Api, Mode, Resource, Trouble};
use crate::route::owner::{Owner, would_lose};
use crate::workload::task::Mandate;

/// For one call. A term is never so short.
const LIMIT: Duration = Duration::from_secs(2);
/// So many calls may be under way without a new connection.
pub const SESSIONS_MAX: usize = 32;

/// What is known of a group's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it must be read.
    Nothing,
    /// It does not exist.
    Absent,
    /// It is this.
    Is(Box<Stored>),
    /// It was this, and does not exist any more.
    Lost(Box<Stored>),
}

/// What is known of the owners of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Why the label must not be changed, if one of them knows its pods by it.
    pub refusal: Option<String>,
    /// The rule without which one of them could not be looked at.
    pub hidden: Option<String>,
}

/// Something to tell people.
#[derive(Clone, Debug)]
pub struct Note {
    /// What it is about, as Events refer to it.
    pub objects: Vec<Value>,
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// When it happened.
    pub since: jiff::Timestamp,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The record is so now; whether this write made it so is in `is_ours`.
    Record {
        /// What is known.
        known: Known,
        /// Whether it is what was to be written.
        is_ours: bool,
    },
    /// A pod.
    Pod {
        /// Its UID.
        uid: String,
        /// As it is now, if that is known.
        shown: Option<Box<Shown>>,
        /// What is known of the write itself.
        end: End,
    },
    /// A pod has been told.
    Told {
        /// Its UID.
        uid: String,
        /// The token of the promotion.
        token: u64,
    },
    /// Nothing came of it.
    Failed(String),
    /// The term is over: it was not sent.
    Over,
}

impl Outcome {
    /// Whether something else was there, which is known now.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Record { known, is_ours } => !is_ours && *known != Known::Nothing,
            Self::Pod { shown, end, .. } => *end == End::Never && shown.is_some(),
            Self::Told { .. } | Self::Failed(_) | Self::Over => false,
        }
    }
}

/// How the write of a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It took effect.
    Done,
    /// It did not and never will.
    Never,
    /// It may have, or may still.
    Unknown,
    /// The pod does not exist any more.
    Gone,
}

/// What a write needs to know of what is there.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The group.
    pub group: Arc<Group>,
    /// Its record.
    pub known: Known,
    /// The pods that are written.
    pub pods: Vec<Shown>,
}

/// Who sends. Clones share their connections.
#[derive(Clone)]
pub struct Hand {
    api: Arc<Api>,
    eye: Eye,
    mandate: Mandate,
}

impl Hand {
    /// Nothing is sent yet.
    pub fn new(access: Access, eye: Eye, mandate: Mandate) -> Self {
        Self { api: Arc::new(Api::keeping(SESSIONS_MAX, access)), eye, mandate }
    }

    /// Sends all writes side by side, and returns what became of each.
    pub async fn send(self, ground: Ground, writes: Vec<Write>) -> Vec<(Write, Outcome)> {
        let (hand, ground) = (&self, &ground);
        let send = |write: Write| async move {
            let outcome = match hand.mandate.lasts() {
                true => hand.send_one(ground, &write).await,
                false => Outcome::Over,
            };
            (write, outcome)
        };
        join_all(writes.into_iter().map(send)).await
    }

    /// Reads the record of a group.
    pub async fn read_record(&self, group: &Group) -> Result<Known, String> {
        let found = within(LIMIT, self.api.get(&leases(group), &group.name)).await;
        match found.map_err(|trouble| trouble.to_string())? {
            None => Ok(Known::Absent),
            Some(object) => Stored::read(object)
                .map(|stored| Known::Is(Box::new(stored)))
                .map_err(|why| format!("the Lease {group} cannot be used: {why}")),
        }
    }

    /// Whether the label of this group may be changed, as far as these owners are concerned.
    ///
    /// # Errors
    /// An owner cannot be read, though that is allowed.
    pub async fn look_at(&self, owners: &[Owner], group: &Group) -> Result<Looked, Trouble> {
        let (key, mut looked) = (&group.label.key, Looked::default());
        for owner in owners {
            match within(LIMIT, owner.selecting_by(key, &self.api, &group.namespace)).await {
                Ok(None) => {}
                Ok(Some(called)) => {
                    let why = would_lose(&called, key);
                    looked.refusal = Some(format!("{why}: choose another label for the group"));
                }
                Err(Trouble::Forbidden(why)) => looked.hidden = Some(why),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(looked)
    }

    /// Writes an Event on each of its objects; where that is not allowed, nobody is told.
    ///
    /// # Errors
    /// The rule that is missing.
    pub async fn tell(&self, group: Arc<Group>, note: Note) -> Result<(), String> {
        let (kind, plural, verbs) = ("Event", "events", "create");
        let of = Resource { group: "", version: "v1", kind, plural, verbs, namespace: group.namespace.clone() };
        for object in &note.objects {
            let event = event(object, note.reason, &note.message, "soloist-controller", note.since);
            let name = event["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match within(LIMIT, self.api.post(&of, &name, &event)).await {
                Err(Trouble::Forbidden(why)) => return Err(why),
                Err(trouble) => tracing::debug!("failed to write an Event: {trouble}"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Writes the status of a declared group, over the one that `origin` quotes. What is there then, or nothing if somebody
    /// else was faster: the watch tells it.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn report(&self, group: &Group, origin: &Origin, status: &Value) -> Result<Option<Value>, Trouble> {
        if !self.mandate.lasts() {
            return Ok(None);
        }
        let patch = json!({
            "metadata": {"uid": origin.uid, "resourceVersion": origin.version},
            "status": status,
        });
        let (of, name) = (declared::resource(&group.namespace), format!("{}/status", group.name));
        match within(LIMIT, self.api.patch(&of, &name, &patch)).await? {
            api::Stored::As(object) => Ok(Some(object)),
            api::Stored::Conflict => Ok(None),
        }
    }

    async fn send_one(&self, ground: &Ground, write: &Write) -> Outcome {
        let pod = |uid: &str| ground.pods.iter().find(|shown| shown.pod.uid == uid);
        match write {
            Write::Record(record) => self.write_record(ground, record).await,
            Write::Label { uid, part, token, .. } => match pod(uid) {
                Some(shown) => self.label(&ground.group, shown, Some((*part, *token))).await,
                None => Outcome::Failed("the pod is gone".to_owned()),
            },
            Write::Settle { uid } => match pod(uid) {
                Some(shown) => self.label(&ground.group, shown, None).await,
                None => Outcome::Failed("the pod is gone".to_owned()),
            },
            Write::Delete { uid, .. } => match pod(uid) {
                Some(shown) => self.delete(&ground.group, &shown.pod).await,
                None => Outcome::Failed("the pod is gone".to_owned()),
            },
            Write::Tell { uid, token } => match (pod(uid), &ground.group.notice) {
                (Some(shown), Some(notice)) => match notice.tell(&ground.group, &shown.pod, *token).await {
                    Ok(()) => Outcome::Told { uid: uid.clone(), token: *token },
                    Err(why) => Outcome::Failed(format!("failed to tell {}: {why}", shown.pod.name)),
                },
                _ => Outcome::Failed("nobody is there to be told".to_owned()),
            },
        }
    }

    async fn write_record(&self, ground: &Ground, record: &Record) -> Outcome {
        let group = &*ground.group;
        let now = jiff::Timestamp::now();
        let leases = leases(group);
        let written = within(LIMIT, async {
            match &ground.known {
                Known::Is(stored) => {
                    let object = stored.with(record, now).map_err(Trouble::Refused)?;
                    self.api.put(&leases, &group.name, &object, Mode::Real).await
                }
                _ => self.api.post(&leases, &group.name, &record::first(group, record, now)).await,
            }
        });
        match written.await {
            Ok(api::Stored::As(object)) => match Stored::read(object) {
                Ok(stored) => Outcome::Record { known: Known::Is(Box::new(stored)), is_ours: true },
                Err(_) => Outcome::Record { known: Known::Nothing, is_ours: false },
            },
            Ok(api::Stored::Conflict) | Err(Trouble::Unavailable(_)) => match self.read_record(group).await {
                Ok(known) => {
                    let is_ours = matches!(&known, Known::Is(stored) if stored.record == *record);
                    Outcome::Record { known, is_ours }
                }
                Err(_) => Outcome::Record { known: Known::Nothing, is_ours: false },
            },
            Err(Trouble::Forbidden(why) | Trouble::Refused(why)) => Outcome::Failed(why),
        }
    }

    /// Writes the term, and a part with it where there is one.
    async fn label(&self, group: &Group, shown: &Shown, part: Option<(Part, Option<u64>)>) -> Outcome {
        let (pod, pods) = (&shown.pod, pods(&shown.pod.namespace));
        let change = change(self.mandate.token(), group, part);
        let written = within(LIMIT, async {
            match &shown.object {
                Some(object) => {
                    let object = changed(object, &change).map_err(Trouble::Refused)?;
                    self.api.put(&pods, &pod.name, &object, Mode::Real).await
                }
                None => {
                    let metadata = json!({"uid": pod.uid, "resourceVersion": pod.version.to_string()});
                    let patch = json!({"metadata": merged(metadata, &change)});
                    self.api.patch(&pods, &pod.name, &patch).await
                }
            }
        });
        match written.await {
            Ok(api::Stored::As(object)) => self.found(&pod.uid, object, End::Done),
            Ok(api::Stored::Conflict) => self.look(pod, End::Never).await,
            Err(Trouble::Unavailable(_)) => self.look(pod, End::Unknown).await,
            Err(Trouble::Forbidden(why) | Trouble::Refused(why)) => Outcome::Failed(why),
        }
    }

    /// What is there now, where it is not known what became of a write, or something else was there.
    async fn look(&self, pod: &Pod, end: End) -> Outcome {
        match within(LIMIT, self.api.get(&pods(&pod.namespace), &pod.name)).await {
            Ok(Some(object)) if object["metadata"]["uid"] == pod.uid.as_str() => self.found(&pod.uid, object, end),
            Ok(_) => Outcome::Pod { uid: pod.uid.clone(), shown: None, end: End::Gone },
            Err(_) => Outcome::Pod { uid: pod.uid.clone(), shown: None, end },
        }
    }

    fn found(&self, uid: &str, object: Value, end: End) -> Outcome {
        let shown = self.eye.read(object).ok();
        Outcome::Pod { uid: uid.to_owned(), shown: shown.map(Box::new), end }
    }

    async fn delete(&self, group: &Group, pod: &Pod) -> Outcome {
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}});
        if let Some(grace) = group.delete_grace_s {
            options["gracePeriodSeconds"] = grace.into();
        }
        let pods = pods(&pod.namespace);
        let deleted = within(LIMIT, self.api.delete(&pods, &pod.name, &options));
        match deleted.await {
            // The watch may tell it later: then it would be deleted twice, and count twice.
            Ok(api::Stored::As(object)) => self.found(&pod.uid, object, End::Done),
            Ok(api::Stored::Conflict) => Outcome::Pod { uid: pod.uid.clone(), shown: None, end: End::Gone },
            Err(trouble) => Outcome::Failed(format!("failed to delete {}: {trouble}", pod.name)),
        }
    }
}

fn pods(namespace: &str) -> Resource {
    let verbs = "get, list, watch, patch, update, delete";
    Resource { group: "", version: "v1", kind: "Pod", plural: "pods", verbs, namespace: namespace.to_owned() }
}

fn leases(group: &Group) -> Resource {
    let (kind, plural, verbs) = ("Lease", "leases", "get, create, update, watch");
    Resource { group: "coordination.k8s.io", version: "v1", kind, plural, verbs, namespace: group.namespace.clone() }
}

/// What is written on a pod. Each is another one: what changes nothing leaves the version as it is, and with it the way
/// free for an older write.
fn change(term: u64, group: &Group, part: Option<(Part, Option<u64>)>) -> Value {
    let (term, write) = (term.to_string(), format!("{:016x}", KernelEntropy.bits()));
    match part {
        None => json!({"annotations": {TERM: term, WRITE: write}}),
        Some((Part::Standby, _)) => json!({
            "labels": {&group.label.key: group.label.standby},
            "annotations": {TERM: term, WRITE: write, TOKEN: null},
        }),
        Some((Part::Active, token)) => json!({
            "labels": {&group.label.key: group.label.active},
            "annotations": {TERM: term, WRITE: write, TOKEN: token.map(|token| token.to_string()), WANTED: null},
        }),
    }
}

/// The object with `change` in its metadata, as a merge patch would leave it.
fn changed(object: &str, change: &Value) -> Result<Value, String> {
    let mut object: Value =
        serde_json::from_str(object).map_err(|error| format!("failed to read a pod again: {error}"))?;
    let metadata = object["metadata"].take();
    object["metadata"] = without_nulls(merged(metadata, change));
    Ok(object)
}

/// `change` is one of labels and annotations.
fn merged(mut metadata: Value, change: &Value) -> Value {
    for (field, values) in change.as_object().into_iter().flatten() {
        for (key, value) in values.as_object().into_iter().flatten() {
            metadata[field][key] = value.clone();
        }
    }
    metadata
}

fn without_nulls(mut metadata: Value) -> Value {
    for field in ["labels", "annotations"] {
        if let Some(values) = metadata.get_mut(field).and_then(Value::as_object_mut) {
            let kept: Map<String, Value> =
                std::mem::take(values).into_iter().filter(|(_, value)| !value.is_null()).collect();
            *values = kept;
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_of_a_pod_is_another_one_so_that_no_older_one_can_land_after_it() {
        let group = crate::controller::plan::tests::group();
        for part in [None, Some((Part::Standby, None)), Some((Part::Active, Some(7)))] {
            assert_ne!(change(5, &group, part), change(5, &group, part), "{part:?}");
        }
    }

    #[test]
    fn a_whole_pod_is_changed_as_a_patch_would() {
        let object = json!({"metadata": {"name": "a", "labels": {"role": "standby", "app": "x"},
            "annotations": {WANTED: "true", "other": "y"}}, "spec": {"nodeName": "n"}});
        let change = json!({"labels": {"role": "active"}, "annotations": {TERM: "5", WANTED: null}});
        let expected = json!({"metadata": {"name": "a", "labels": {"role": "active", "app": "x"},
            "annotations": {TERM: "5", "other": "y"}}, "spec": {"nodeName": "n"}});
        assert_eq!(changed(&object.to_string(), &change).unwrap(), expected);
        let bare = json!({"metadata": {"name": "a"}});
        assert_eq!(changed(&bare.to_string(), &change).unwrap()["metadata"]["labels"], json!({"role": "active"}));
    }
}
