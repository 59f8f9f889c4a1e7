//! What an operator reads of a declared group: its status, made of what is known at the moment.

use serde_json::{Map, Value, json};

use super::group::Group;

/// What happened when others became active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// When the last label was written.
    pub at: jiff::Timestamp,
    /// In one sentence.
    pub why: String,
    /// Who became active.
    pub pods: Vec<String>,
    /// From the news to the stored record, in milliseconds.
    pub recorded_ms: u64,
    /// From then on to the last label, in milliseconds.
    pub labelled_ms: u64,
}

/// All that a status is made of.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What is wanted.
    pub group: &'a Group,
    /// Which wish this is.
    pub generation: i64,
    /// Name, UID and token of each active pod that is labelled so.
    pub active: Vec<(String, String, u64)>,
    /// How many pods there are.
    pub pods: usize,
    /// How many of them could be active at once.
    pub ready: usize,
    /// How often others became active.
    pub transitions: u64,
    /// The last request that was met.
    pub request: &'a str,
    /// Why the group does not have the pods that it selects, in one word and in one sentence.
    pub unaccepted: Option<(&'static str, &'a str)>,
    /// Which Services send traffic to standbys too.
    pub misrouted: Option<&'a str>,
    /// What is waited for.
    pub waits: Option<&'a str>,
    /// The last failover of this term.
    pub last: Option<&'a Failover>,
}

/// The status, as a merge patch makes it of the one `before`: whatever is null is not there any more.
pub fn status(facts: &Facts<'_>, before: &Value, now: jiff::Timestamp) -> Value {
    let Facts { generation, active, pods, ready, transitions, request, last, .. } = facts;
    let shown = |(pod, uid, token): &(String, String, u64)| json!({"pod": pod, "uid": uid, "token": token.to_string()});
    let misrouted = facts.misrouted.map(|why| Condition {
        kind: "Misrouted",
        is_so: true,
        reason: "ServiceSelectsAll",
        message: why.to_owned(),
    });
    let conditions = [available(facts), redundant(facts), accepted(facts)].into_iter().chain(misrouted);
    let conditions: Vec<Value> = conditions.map(|one| one.since(before, *generation, now)).collect();
    let mut status = json!({
        "observedGeneration": generation,
        "active": active.iter().map(shown).collect::<Vec<_>>(),
        "pods": pods,
        "readyPods": ready,
        "transitions": transitions,
        "metRequest": (!request.is_empty()).then_some(request),
        "conditions": conditions,
    });
    // Whoever leads next knows nothing of the failovers before: they stay as they are.
    if let Some(Failover { at, why, pods, recorded_ms, labelled_ms }) = last {
        status["lastFailover"] = json!({
            "at": second(*at), "why": why, "pods": pods, "recordedMs": recorded_ms, "labelledMs": labelled_ms,
            "totalMs": recorded_ms + labelled_ms,
        });
    }
    status
}

/// Whether `before` says all that `status` does.
pub fn says(before: &Value, status: &Value) -> bool {
    let nothing = Map::new();
    let fields = status.as_object().unwrap_or(&nothing);
    fields.iter().all(|(field, value)| before.get(field).unwrap_or(&Value::Null) == value)
}

/// One condition.
struct Condition {
    kind: &'static str,
    is_so: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    /// With the time since when it is so.
    fn since(self, before: &Value, generation: i64, now: jiff::Timestamp) -> Value {
        let status = if self.is_so { "True" } else { "False" };
        let conditions = before["conditions"].as_array();
        let same = |one: &&Value| one["type"] == self.kind && one["status"] == status;
        let since = conditions.into_iter().flatten().find(same).and_then(|one| one["lastTransitionTime"].as_str());
        let since = since.map_or_else(|| second(now), str::to_owned);
        json!({
            "type": self.kind, "status": status, "reason": self.reason, "message": self.message,
            "observedGeneration": generation, "lastTransitionTime": since,
        })
    }
}

fn second(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn available(facts: &Facts<'_>) -> Condition {
    let (taken, active) = (facts.active.len(), facts.group.active);
    let names: Vec<&str> = facts.active.iter().map(|(pod, ..)| pod.as_str()).collect();
    let are = if taken == 1 { "is" } else { "are" };
    let mut sentences = Vec::new();
    if taken > 0 {
        sentences.push(format!("{} {are} active", names.join(", ")));
    }
    sentences.extend(facts.waits.map(str::to_owned));
    if sentences.is_empty() {
        sentences.push("nobody is active".to_owned());
    }
    let reason = match taken {
        _ if taken >= active => "AllActive",
        0 => "NobodyActive",
        _ => "TooFewActive",
    };
    Condition { kind: "Available", is_so: taken >= active, reason, message: sentences.join("; ") }
}

fn redundant(facts: &Facts<'_>) -> Condition {
    let (ready, wanted) = (facts.ready, facts.group.active + 1);
    let is_so = ready >= wanted;
    let message = format!("{ready} pods are ready; {} active and one to take over are {wanted}", facts.group.active);
    Condition { kind: "Redundant", is_so, reason: if is_so { "EnoughPods" } else { "TooFewPods" }, message }
}

fn accepted(facts: &Facts<'_>) -> Condition {
    let fine = ("Understood", "all pods that the selector fits are its own");
    let (reason, message) = facts.unaccepted.unwrap_or(fine);
    Condition { kind: "Accepted", is_so: facts.unaccepted.is_none(), reason, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    fn condition(status: &Value, kind: &str) -> (String, String) {
        let all = status["conditions"].as_array().unwrap();
        let one = all.iter().find(|one| one["type"] == kind).unwrap();
        let text = |field: &str| one[field].as_str().unwrap().to_owned();
        (format!("{} {} {}", text("status"), text("reason"), text("lastTransitionTime")), text("message"))
    }

    #[test]
    fn it_says_who_is_active_since_when_and_what_is_missing() {
        let group = crate::controller::plan::tests::group();
        let last =
            Failover { at: at(60), why: "a is gone".into(), pods: vec!["b".into()], recorded_ms: 7, labelled_ms: 4 };
        let facts = Facts {
            group: &group,
            generation: 3,
            active: vec![("b".to_owned(), "uid-b".to_owned(), 21)],
            pods: 3,
            ready: 2,
            transitions: 5,
            request: "",
            unaccepted: None,
            misrouted: None,
            waits: None,
            last: Some(&last),
        };
        let first = status(&facts, &Value::Null, at(0));
        assert_eq!(first["active"], json!([{"pod": "b", "uid": "uid-b", "token": "21"}]));
        assert_eq!((&first["lastFailover"]["totalMs"], &first["transitions"]), (&json!(11), &json!(5)));
        let (word, message) = condition(&first, "Available");
        assert_eq!((word.as_str(), message.as_str()), ("True AllActive 1970-01-01T00:00:00Z", "b is active"));
        assert_eq!(condition(&first, "Redundant").0, "True EnoughPods 1970-01-01T00:00:00Z");
        assert_eq!(condition(&first, "Accepted").0, "True Understood 1970-01-01T00:00:00Z");
        let later = status(&facts, &first, at(60));
        assert_eq!(later["conditions"], first["conditions"], "nothing has changed since");
        assert!(says(&first, &later));
        let lost = Facts {
            active: Vec::new(),
            ready: 1,
            unaccepted: Some(("OverlappingSelector", "x is a pod of the group y")),
            misrouted: Some("the Service s sends to all"),
            waits: Some("b is being deleted: waiting"),
            ..facts
        };
        let lost = status(&lost, &first, at(120));
        assert!(!says(&first, &lost));
        let (word, message) = condition(&lost, "Available");
        assert_eq!(word, "False NobodyActive 1970-01-01T00:02:00Z");
        assert_eq!(message, "b is being deleted: waiting");
        assert_eq!(condition(&lost, "Redundant").0, "False TooFewPods 1970-01-01T00:02:00Z");
        assert_eq!(condition(&lost, "Accepted").0, "False OverlappingSelector 1970-01-01T00:02:00Z");
        assert_eq!(condition(&lost, "Misrouted").0, "True ServiceSelectsAll 1970-01-01T00:02:00Z");
    }

    #[test]
    fn what_only_an_earlier_leader_knew_stays() {
        let before = json!({"lastFailover": {"why": "x"}, "pods": 1, "observedGeneration": null});
        assert!(says(&before, &json!({"pods": 1, "metRequest": null})));
        assert!(!says(&before, &json!({"pods": 2})));
        assert!(!says(&Value::Null, &json!({"pods": 2})));
    }
}
