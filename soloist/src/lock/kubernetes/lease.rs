//! The record as a Lease: native fields that client-go can read, ours in two annotations.
//!
//! `soloist.dev/record` is the record as [`codec`] spells it. `soloist.dev/digest` covers that text and the native
//! fields together. Programs that know nothing of us change the native fields alone, and the digest gives them away:
//! the record then names nobody. The Lease travels as JSON, not as a typed struct, so that what this version does not
//! know survives.

use std::time::Duration;

use election::{Activation, Attempt, Claim, Foreign, Member, Nonce, Proof, Record, Release, Version};
use serde_json::{Map, Value, json};

use super::container::Container;
use super::evidence::Recorded;
use crate::lock::codec::{self, Document, EncodeError, FOREIGN_LEASE, MAX_LEASE, fingerprint};
use crate::lock::history::Change;

/// The annotation with the record.
pub const RECORD: &str = "soloist.dev/record";
/// The annotation with the digest over the record and the native fields.
pub const DIGEST: &str = "soloist.dev/digest";
/// The annotation of a Lease that a manifest created and that nobody has used yet.
pub const INITIAL: &str = "soloist.dev/initial";
/// The annotation with the record of a controller, which says which pods are active.
pub const ACTIVE_PODS: &str = "soloist.dev/active-pods";
/// What all our annotations begin with.
const OURS: &str = "soloist.dev/";
/// The two times that tell an untouched Lease are taken one after the other, in whole seconds.
const UNTOUCHED: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// The version of a Lease that the store answered.
///
/// # Errors
/// It has no UID, or a resource version that is no number.
pub fn version(lease: &Value) -> Result<Version, String> {
    let metadata = &lease["metadata"];
    let uid = metadata["uid"].as_str().filter(|uid| !uid.is_empty()).ok_or("the Lease has no UID")?;
    let number = resource_version(metadata)?;
    // 0 stands for an absent lock.
    Ok(Version { incarnation: fingerprint(uid.as_bytes()).max(1), number })
}

/// The resource version in `metadata`, which every write makes larger.
pub fn resource_version(metadata: &Value) -> Result<u64, String> {
    let text = metadata["resourceVersion"].as_str().ok_or("the Lease has no resource version")?;
    let number = text.parse().map_err(|_| format!("the resource version {text:?} is not a number"))?;
    if number == 0 { Err("the resource version is 0".into()) } else { Ok(number) }
}

/// Reads the record. Never fails: what cannot be trusted is a foreign claim.
/// See docs/safety.md R17.
pub fn decode(lease: &Value) -> Record {
    let Some(text) = annotation(lease, RECORD) else {
        return match another_use(lease) {
            Some(why) => foreign(lease, why),
            None if is_initial(lease) => never_used(),
            None => foreign(lease, "it has no record of soloist".into()),
        };
    };
    let expected = digest(text, &lease["spec"]);
    if annotation(lease, DIGEST) != Some(&expected) {
        return foreign(lease, "it was written by something else than soloist, or by hand".into());
    }
    match codec::decode(text.as_bytes()).record {
        Record { claim: Claim::Foreign(unreadable), .. } => foreign(lease, unreadable.why),
        record => record,
    }
}

/// The Lease that says `record`: `before` with what is ours in it replaced, or a new one. `named` is the container of
/// the activation that holds it, as far as that is known.
///
/// # Errors
/// A record that no reader would accept.
pub fn encode(
    before: Option<&Value>,
    place: &super::ObjectName,
    record: &Record,
    named: Option<(Activation, Container)>,
    why: &str,
    now: jiff::Timestamp,
) -> Result<Value, EncodeError> {
    let earlier = before.and_then(|lease| annotation(lease, RECORD)).map(|text| codec::decode(text.as_bytes()));
    let begins = codec::begins(earlier.as_ref().map(|earlier| &earlier.record.claim), &record.claim);
    let native = native_fields(before, begins, record, &place.kind.time(now));
    let text = record_text(earlier, record, named, why, now)?;
    let mut lease = before.and_then(Value::as_object).cloned().unwrap_or_default();
    lease.insert("apiVersion".into(), place.kind.api_version().into());
    lease.insert("kind".into(), place.kind.word().into());
    let mut spec = take_object(&mut lease, "spec");
    spec.extend(native);
    let spec = Value::Object(spec);

    let mut metadata = take_object(&mut lease, "metadata");
    metadata.insert("name".into(), place.name.clone().into());
    metadata.insert("namespace".into(), place.namespace.clone().into());
    // The server keeps the book of who manages which field.
    metadata.remove("managedFields");
    let mut annotations = take_object(&mut metadata, "annotations");
    annotations.insert(DIGEST.into(), digest(&text, &spec).into());
    annotations.insert(RECORD.into(), text.into());
    metadata.insert("annotations".into(), annotations.into());

    lease.insert("metadata".into(), metadata.into());
    lease.insert("spec".into(), spec);
    Ok(Value::Object(lease))
}

/// The last changes of who was active, for people.
pub fn history(lease: &Value) -> Vec<Change> {
    annotation(lease, RECORD).map(|text| codec::decode(text.as_bytes()).history).unwrap_or_default()
}

/// What the backend stored for itself.
pub fn backend(lease: &Value) -> Map<String, Value> {
    annotation(lease, RECORD).map(|text| codec::decode(text.as_bytes()).backend).unwrap_or_default()
}

/// When the native fields say that it was written, in microseconds since 1970: for people.
pub fn written_unix_us(lease: &Value) -> Option<u64> {
    let at: jiff::Timestamp = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok()
}

/// The record's text, with the fields of the earlier one that this version does not know.
fn record_text(
    earlier: Option<Document>,
    record: &Record,
    named: Option<(Activation, Container)>,
    why: &str,
    now: jiff::Timestamp,
) -> Result<String, EncodeError> {
    let now_us = u64::try_from(now.as_microsecond()).unwrap_or_default();
    let mut document = Document::after(earlier, record, why, now_us);
    Recorded::store(&mut document.backend, named)?;
    let spacious: Value = serde_json::from_str(&codec::encode(&document)?)?;
    Ok(spacious.to_string())
}

/// What client-go reads, as client-go would have written it.
fn native_fields(before: Option<&Value>, begins: bool, record: &Record, now: &str) -> Map<String, Value> {
    let stands = |field: &str| before.is_some_and(|lease| !lease["spec"][field].is_null());
    // Rounded up: who goes by the native fields waits for whole seconds.
    let lease_seconds = record.lease.as_millis().div_ceil(1000);

    let mut fields = Map::new();
    fields.insert("leaseDurationSeconds".into(), u64::try_from(lease_seconds).unwrap_or(u64::MAX).into());
    fields.insert("renewTime".into(), now.into());
    fields.insert("holderIdentity".into(), native_holder(&record.claim).into());
    if begins || !stands("acquireTime") {
        fields.insert("acquireTime".into(), now.into());
    }
    if begins || !stands("leaseTransitions") {
        let next = |lease: &Value| lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0).saturating_add(1);
        fields.insert("leaseTransitions".into(), before.map_or(0, next).min(i32::MAX as u64).into());
    }
    fields
}

/// Empty is free to client-go. A lock that was found absent is not: its finder stands in until the wait is over.
fn native_holder(claim: &Claim) -> &str {
    match claim {
        Claim::Held(holder) => &holder.member.name,
        Claim::Vacant(vacancy) => &vacancy.member.name,
        Claim::Released(_) | Claim::Foreign(_) => "",
    }
}

/// FNV-1a over the record's text and everything that others change when they take or renew a Lease.
fn digest(record: &str, spec: &Value) -> String {
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    let sealed = json!([
        record,
        holder,
        spec["leaseDurationSeconds"],
        spec["acquireTime"],
        spec["renewTime"],
        spec["leaseTransitions"]
    ]);
    format!("{:016x}", fingerprint(sealed.to_string().as_bytes()))
}

/// What there is to know where somebody takes the record of a controller for that of members. It has tokens of its own:
/// members must not write there.
pub fn another_use(lease: &Value) -> Option<String> {
    if annotation(lease, RECORD).is_some() {
        return None;
    }
    let metadata = &lease["metadata"];
    let record: Value = serde_json::from_str(annotation(lease, ACTIVE_PODS)?).unwrap_or(Value::Null);
    let active = record["places"].as_array().into_iter().flatten().filter_map(|place| {
        let token = place["token"].as_u64().or_else(|| resource_version(metadata).ok())?;
        Some(format!("{} is active with token {token}", place["pod"].as_str()?))
    });
    let active: Vec<String> = active.collect();
    let active = if active.is_empty() { "no pod is active".to_owned() } else { active.join(", ") };
    let [namespace, name] = ["namespace", "name"].map(|field| metadata[field].as_str().unwrap_or_default());
    Some(format!(
        "it is the record of a controller, which labels pods: {active}; kubectl describe lease {name} -n {namespace} \
         says why, and so does /groups/{namespace}/{name} of the controller"
    ))
}

/// A record for a Lease that somebody else wrote.
fn foreign(lease: &Value, why: String) -> Record {
    let spec = &lease["spec"];
    let holder = spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned);
    let live = json!([
        spec["holderIdentity"],
        spec["leaseDurationSeconds"],
        spec["acquireTime"],
        spec["renewTime"],
        spec["leaseTransitions"],
        annotation(lease, RECORD),
        annotation(lease, DIGEST)
    ]);
    let claim = Claim::Foreign(Foreign { holder, fingerprint: fingerprint(live.to_string().as_bytes()), why });
    Record { claim, lease: native_lease(spec), slots: 1, paused_until_unix_ms: None }
}

/// The Lease's own duration; a longer one than is allowed here is taken as far as it is.
fn native_lease(spec: &Value) -> Duration {
    match spec["leaseDurationSeconds"].as_u64() {
        None | Some(0) => FOREIGN_LEASE,
        Some(seconds) => Duration::from_secs(seconds).min(MAX_LEASE),
    }
}

/// Whether a manifest created this Lease and nothing has touched it since. One that was in use and then emptied by
/// hand carries the mark as well, but another time of change than of creation.
fn is_initial(lease: &Value) -> bool {
    let metadata = &lease["metadata"];
    let ours = metadata["annotations"].as_object().into_iter().flatten().filter(|(name, _)| name.starts_with(OURS));
    let is_marked = annotation(lease, INITIAL) == Some("true");
    let is_empty = match &lease["spec"] {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(Value::is_null),
        _ => false,
    };
    is_marked && is_empty && ours.count() == 1 && is_untouched(metadata)
}

fn is_untouched(metadata: &Value) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<jiff::Timestamp>().ok();
    let Some(created) = time(&metadata["creationTimestamp"]) else { return false };
    let Some(managers) = metadata["managedFields"].as_array().filter(|managers| !managers.is_empty()) else {
        return false;
    };
    managers
        .iter()
        .all(|manager| time(&manager["time"]).is_some_and(|changed| changed.duration_since(created).abs() <= UNTOUCHED))
}

/// What an untouched Lease says: a release of an activation that never was. It is valid at first sight, but not for
/// an observer that has seen another Lease of this name.
fn never_used() -> Record {
    let claim = Claim::Released(Release {
        member: Member { name: "the manifest".into(), nonce: Nonce(0) },
        activation: Activation(0),
        attempt: Attempt { count: 0, random: 0 },
        proof: Proof::NeverStarted,
        successor: None,
    });
    // Nobody waits for it, and it must not lengthen what anybody waits for later.
    Record { claim, lease: Duration::from_secs(1), slots: 1, paused_until_unix_ms: None }
}

/// The text of an annotation.
pub fn annotation<'a>(lease: &'a Value, name: &str) -> Option<&'a str> {
    lease["metadata"]["annotations"][name].as_str()
}

/// The object in a field, taken out; an empty one where there is none.
pub fn take_object(parent: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match parent.remove(name) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
