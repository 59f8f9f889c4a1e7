use super::*;
use crate::lock::contract::{held, released};
use crate::lock::kubernetes::ObjectName;
use election::Vacancy;

const NOW: jiff::Timestamp = jiff::Timestamp::constant(1_800_000_000, 123_456_789);
const LATER: jiff::Timestamp = jiff::Timestamp::constant(1_800_000_002, 0);

fn place() -> ObjectName {
    ObjectName::lease("prod", "app")
}

fn vacant() -> Record {
    let vacancy =
        Vacancy { member: Member { name: "b".into(), nonce: Nonce(2) }, attempt: Attempt { count: 1, random: 1 } };
    Record { claim: Claim::Vacant(vacancy), lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None }
}

fn first(record: &Record) -> Value {
    encode(None, &place(), record, None, "because", NOW).unwrap()
}

fn then(before: &Value, record: &Record) -> Value {
    encode(Some(before), &place(), record, None, "later", LATER).unwrap()
}

fn foreign_in(lease: &Value) -> (Foreign, Duration) {
    let record = decode(lease);
    match record.claim {
        Claim::Foreign(foreign) => (foreign, record.lease),
        other => panic!("not foreign: {other:?}"),
    }
}

/// As client-go writes it, release included.
fn client_go(holder: &str, duration: u64) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "app", "namespace": "prod", "uid": "u", "resourceVersion": "7"},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": 3,
            "acquireTime": "2026-11-21T04:00:00.000000Z", "renewTime": "2026-11-21T04:00:02.000000Z",
        },
    })
}

/// As a server shows it after `kubectl apply` of a manifest with nothing but the mark.
fn fresh_manifest() -> Value {
    json!({
        "kind": "Lease",
        "metadata": {
            "name": "app", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-21T04:00:00Z",
            "annotations": {INITIAL: "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "time": "2026-11-21T04:00:01Z"}],
        },
        "spec": {},
    })
}

#[test]
fn every_record_comes_back() {
    let mut paused = held(1, 2);
    paused.lease = Duration::from_millis(3_600_500);
    paused.paused_until_unix_ms = Some(1_800_000_000_000);
    for record in [held(1, 1), released(1), vacant(), paused] {
        let lease = first(&record);
        assert_eq!(decode(&lease), record);
        assert_eq!(decode(&then(&lease, &held(5, 1))), held(5, 1));
    }
}

#[test]
fn client_go_can_read_the_native_fields() {
    let mut record = held(1, 1);
    record.lease = Duration::from_millis(15_001);
    let lease = first(&record);
    assert_eq!(lease["apiVersion"], "coordination.k8s.io/v1");
    assert_eq!(lease["kind"], "Lease");
    assert_eq!(lease["metadata"]["name"], "app");
    assert_eq!(lease["metadata"]["namespace"], "prod");
    let spec = &lease["spec"];
    assert_eq!(spec["holderIdentity"], "member-1");
    assert_eq!(spec["leaseDurationSeconds"], 16, "whole seconds, rounded up");
    assert_eq!(spec["acquireTime"], "2027-01-15T08:00:00.123456Z");
    assert_eq!(spec["renewTime"], spec["acquireTime"]);
    assert_eq!(spec["leaseTransitions"], 0);
    assert_eq!(first(&released(1))["spec"]["holderIdentity"], "");
    assert_eq!(first(&vacant())["spec"]["holderIdentity"], "b", "an absent lock is not free to client-go either");
}

#[test]
fn transitions_count_activations() {
    let acquired = first(&held(1, 1));
    let renewed = then(&acquired, &held(1, 2));
    assert_eq!(renewed["spec"]["acquireTime"], acquired["spec"]["acquireTime"]);
    assert_eq!(renewed["spec"]["renewTime"], "2027-01-15T08:00:02.000000Z");
    assert_eq!(renewed["spec"]["leaseTransitions"], 0);
    let ended = then(&renewed, &released(1));
    assert_eq!(ended["spec"]["acquireTime"], acquired["spec"]["acquireTime"]);
    assert_eq!(ended["spec"]["leaseTransitions"], 0);
    let next = then(&ended, &held(2, 1));
    assert_eq!(next["spec"]["leaseTransitions"], 1);
    assert_eq!(next["spec"]["acquireTime"], "2027-01-15T08:00:02.000000Z");
    assert_eq!(then(&client_go("x", 15), &held(1, 1))["spec"]["leaseTransitions"], 4);
    assert_eq!(then(&fresh_manifest(), &held(1, 1))["spec"]["leaseTransitions"], 1);
}

#[test]
fn unknown_fields_survive() {
    let mut lease = first(&held(1, 1));
    lease["metadata"]["labels"] = json!({"team": "a"});
    lease["metadata"]["annotations"]["other/thing"] = "kept".into();
    lease["metadata"]["resourceVersion"] = "9".into();
    lease["metadata"]["uid"] = "u".into();
    lease["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    lease["spec"]["strategy"] = "OldestEmulationVersion".into();
    lease["spec"]["preferredHolder"] = "b".into();
    lease["future"] = json!([1]);
    let mut fields: Value = serde_json::from_str(lease["metadata"]["annotations"][RECORD].as_str().unwrap()).unwrap();
    fields["future"] = "kept".into();
    let text = fields.to_string();
    lease["metadata"]["annotations"][DIGEST] = digest(&text, &lease["spec"]).into();
    lease["metadata"]["annotations"][RECORD] = text.into();

    let next = then(&lease, &held(1, 2));
    assert_eq!(decode(&next), held(1, 2));
    for path in [
        "/metadata/labels/team",
        "/metadata/annotations/other~1thing",
        "/metadata/resourceVersion",
        "/metadata/uid",
        "/spec/strategy",
        "/spec/preferredHolder",
        "/future",
    ] {
        assert_eq!(next.pointer(path), lease.pointer(path), "{path}");
        assert!(next.pointer(path).is_some(), "{path}");
    }
    assert!(next["metadata"]["annotations"][RECORD].as_str().unwrap().contains("\"future\":\"kept\""));
    assert_eq!(next["metadata"]["managedFields"], Value::Null);
}

#[test]
fn history_is_kept_in_the_record() {
    let acquired = first(&held(1, 1));
    let mut renewal = held(1, 2);
    if let Claim::Held(holder) = &mut renewal.claim {
        holder.token = Some(election::Token(7));
    }
    let renewed = then(&acquired, &renewal);
    let ended = then(&renewed, &released(1));
    let next = then(&ended, &held(2, 1));
    let told: Vec<_> = history(&next)
        .into_iter()
        .map(|change| (change.token, change.member, change.why, change.end, change.until_us))
        .collect();
    let first_change =
        (Some(7), "member-1".into(), "because".into(), Some("later".into()), Some(1_800_000_002_000_000));
    assert_eq!(told, [first_change, (None, "member-2".into(), "later".into(), None, None)]);
    assert_eq!(history(&client_go("x", 15)), []);
    let mut edited = next.clone();
    edited["spec"]["holderIdentity"] = "".into();
    assert_eq!(history(&then(&edited, &held(2, 2))), history(&next), "rewriting an edit is no change");
}

#[test]
fn an_edit_by_hand_makes_it_foreign() {
    let lease = first(&held(1, 1));
    let (whole, _) = foreign_in(&{
        let mut edited = lease.clone();
        edited["metadata"]["annotations"][DIGEST] = "0".into();
        edited
    });
    let edits: &[(&str, Value)] = &[
        ("/spec/holderIdentity", "mallory".into()),
        ("/spec/holderIdentity", "".into()),
        ("/spec/holderIdentity", Value::Null),
        ("/spec/leaseDurationSeconds", 1.into()),
        ("/spec/leaseDurationSeconds", 16.into()),
        ("/spec/acquireTime", Value::Null),
        ("/spec/acquireTime", "2027-01-15T08:00:00.123457Z".into()),
        ("/spec/renewTime", "2027-01-15T08:00:00.123457Z".into()),
        ("/spec/leaseTransitions", 1.into()),
        ("/spec", Value::Null),
        ("/spec", "x".into()),
        ("/metadata/annotations/soloist.dev~1record", "{}".into()),
        ("/metadata/annotations/soloist.dev~1record", Value::Null),
        ("/metadata/annotations/soloist.dev~1digest", Value::Null),
        ("/metadata/annotations", Value::Null),
    ];
    for (path, value) in edits {
        let mut edited = lease.clone();
        *edited.pointer_mut(path).unwrap() = value.clone();
        let (foreign, _) = foreign_in(&edited);
        assert_ne!(foreign.fingerprint, whole.fingerprint, "{path}");
        assert_eq!(decode(&then(&edited, &held(1, 2))), held(1, 2), "the holder can rewrite it: {path}");
    }
}

#[test]
fn edits_elsewhere_change_nothing() {
    let mut lease = first(&held(1, 1));
    lease["metadata"]["labels"] = json!({"a": "b"});
    lease["metadata"]["annotations"]["soloist.dev/other"] = "x".into();
    lease["metadata"]["annotations"][INITIAL] = "true".into();
    lease["spec"]["preferredHolder"] = "b".into();
    assert_eq!(decode(&lease), held(1, 1));
}

#[test]
fn an_unreadable_record_with_a_right_digest_is_foreign() {
    let mut lease = first(&held(1, 1));
    for text in ["{}", "{\"format\": 2}", "", "x"] {
        lease["metadata"]["annotations"][DIGEST] = digest(text, &lease["spec"]).into();
        lease["metadata"]["annotations"][RECORD] = text.into();
        assert_eq!(foreign_in(&lease).0.holder.as_deref(), Some("member-1"), "{text:?}");
    }
}

#[test]
fn a_lease_of_client_go_is_foreign_and_never_free() {
    let (held, lease) = foreign_in(&client_go("pod-1", 40));
    assert_eq!((held.holder.as_deref(), lease), (Some("pod-1"), Duration::from_secs(40)));
    let (released, lease) = foreign_in(&client_go("", 1));
    assert_eq!((released.holder, lease), (None, Duration::from_secs(1)));
    for (duration, expected) in [
        (json!(0), FOREIGN_LEASE),
        (json!(-5), FOREIGN_LEASE),
        (json!(null), FOREIGN_LEASE),
        (json!("15"), FOREIGN_LEASE),
        (json!(u64::MAX), MAX_LEASE),
    ] {
        let mut lease = client_go("x", 15);
        lease["spec"]["leaseDurationSeconds"] = duration;
        assert_eq!(foreign_in(&lease).1, expected);
    }
}

#[test]
fn the_record_of_a_controller_is_foreign_and_says_who_is_active() {
    let mut lease = client_go("duty-1,duty-2", 15);
    let record = json!({"places": [{"pod": "duty-1", "uid": "u", "token": 41}, {"pod": "duty-2", "uid": "v"}]});
    lease["metadata"]["resourceVersion"] = json!("57");
    lease["metadata"]["annotations"] = json!({ACTIVE_PODS: record.to_string()});
    let why = foreign_in(&lease).0.why;
    for part in ["duty-1 is active with token 41, duty-2 is active with token 57", "kubectl describe lease", "/groups/"]
    {
        assert!(why.contains(part), "{why}");
    }
    lease["metadata"]["annotations"] = json!({ACTIVE_PODS: "{"});
    assert!(foreign_in(&lease).0.why.contains("no pod is active"));
}

#[test]
fn every_renewal_of_a_foreigner_is_seen() {
    let before = foreign_in(&client_go("a", 15)).0;
    for (field, value) in [
        ("holderIdentity", json!("b")),
        ("acquireTime", json!("2026-11-21T04:00:01.000000Z")),
        ("renewTime", json!("2026-11-21T04:00:04.000000Z")),
        ("leaseTransitions", json!(4)),
    ] {
        let mut lease = client_go("a", 15);
        lease["spec"][field] = value;
        assert_ne!(foreign_in(&lease).0.fingerprint, before.fingerprint, "{field}");
    }
    let mut labelled = client_go("a", 15);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(foreign_in(&labelled).0, before, "a label is no sign of life");
}

#[test]
fn a_client_go_member_that_takes_over_leaves_a_foreign_lease() {
    let mut lease = first(&released(1));
    lease["spec"]["holderIdentity"] = "legacy".into();
    lease["spec"]["renewTime"] = "2027-01-15T09:00:00.000000Z".into();
    assert_eq!(foreign_in(&lease).0.holder.as_deref(), Some("legacy"));
}

#[test]
fn only_an_untouched_manifest_is_free_at_first_sight() {
    let is_free = |lease: &Value| matches!(decode(lease).claim, Claim::Released(_));
    assert!(is_free(&fresh_manifest()));
    let mut no_spec = fresh_manifest();
    no_spec["spec"] = Value::Null;
    assert!(is_free(&no_spec));
    let edits: &[(&str, Value)] = &[
        ("/metadata/annotations/soloist.dev~1initial", "false".into()),
        ("/metadata/annotations/soloist.dev~1initial", Value::Null),
        ("/metadata/annotations", json!({INITIAL: "true", "soloist.dev/members": "x"})),
        ("/metadata/annotations", json!({INITIAL: "true", DIGEST: "x"})),
        ("/metadata/creationTimestamp", Value::Null),
        ("/metadata/managedFields", Value::Null),
        ("/metadata/managedFields", json!([])),
        ("/metadata/managedFields/0/time", "2026-11-21T04:00:03Z".into()),
        ("/metadata/managedFields/0/time", "x".into()),
        ("/spec", json!({"holderIdentity": ""})),
        ("/spec", json!({"leaseTransitions": 0})),
        ("/spec", "x".into()),
    ];
    for (path, value) in edits {
        let mut lease = fresh_manifest();
        *lease.pointer_mut(path).unwrap() = value.clone();
        assert!(!is_free(&lease), "{path} {value}");
        foreign_in(&lease);
    }
    // Applied again over one in use: the mark is there, and means nothing.
    assert_eq!(decode(&then(&fresh_manifest(), &held(1, 1))), held(1, 1));
}

#[test]
fn versions_need_a_uid_and_a_number() {
    let version_of = |uid: Value, number: Value| version(&json!({"metadata": {"uid": uid, "resourceVersion": number}}));
    let seven = version_of("a".into(), "7".into()).unwrap();
    assert_eq!(seven, Version { incarnation: fingerprint(b"a"), number: 7 });
    assert_ne!(version_of("b".into(), "7".into()).unwrap(), seven);
    for (uid, number) in [("", "7"), ("a", ""), ("a", "x"), ("a", "-1"), ("a", "0"), ("a", "18446744073709551616")] {
        assert!(version_of(uid.into(), number.into()).is_err(), "{uid:?} {number:?}");
    }
    assert!(version_of(Value::Null, "7".into()).is_err());
    assert!(version(&json!([])).is_err());
}

#[test]
fn the_digest_is_stable() {
    let spec = &client_go("pod-1", 15)["spec"];
    assert_eq!(digest("{}", spec), "def9250d07482b4d", "a changed digest makes every stored Lease foreign");
}
