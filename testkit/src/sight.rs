//! All that was to be seen of the pods of a namespace and of the record of who is active among them, as one watch of
//! each tells it: every state in the order in which the API server stored it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::stamp;
use crate::wait::{wait_for, wait_until};

/// The watch of the record may be told later than that of the pods.
const LATE: Duration = Duration::from_secs(5);

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What its label says.
    pub role: Option<String>,
    /// The token that its label belongs to.
    pub token: Option<u64>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

impl Pod {
    fn is_active(&self) -> bool {
        self.role.as_deref() == Some("active")
    }
}

/// All pods at one time, by UID.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// When it was told, in nanoseconds of CLOCK_BOOTTIME.
    pub at: u64,
    /// The pods.
    pub pods: BTreeMap<String, Pod>,
}

impl Moment {
    /// Who is labelled as active, sorted.
    pub fn active(&self) -> Vec<&str> {
        let active = self.pods.values().filter(|pod| pod.is_active());
        let mut names: Vec<&str> = active.map(|pod| pod.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Whether `active` are labelled so, and all others as standby.
    pub fn shows(&self, active: &[&str]) -> bool {
        let is_labelled = |pod: &Pod| matches!(pod.role.as_deref(), Some("active" | "standby"));
        self.active() == active && self.pods.values().all(is_labelled)
    }
}

/// One state of the record.
#[derive(Clone, Debug)]
struct Recorded {
    version: u64,
    /// The UIDs of the pods that it names, and their tokens where it says them.
    places: Vec<(String, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Seen {
    moments: Vec<Moment>,
    records: Vec<Recorded>,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Sight {
    seen: Arc<Mutex<Seen>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sight {
    /// Of a namespace, and of the record with this name in it.
    pub fn open(config: kube::Config, namespace: &str, record: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (end, ended) = oneshot::channel();
        let pods = format!("/api/v1/namespaces/{namespace}/pods?watch=true");
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases?watch=true");
        let leases = format!("{leases}&fieldSelector=metadata.name%3D{record}");
        let (to_pods, to_records) = (Arc::clone(&seen), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(client) = kube::Client::try_from(config) else { return };
                let pods = follow(&client, &pods, |event| lock(&to_pods).note_pod(event));
                let records = follow(&client, &leases, |event| lock(&to_records).note_record(event));
                tokio::select! {
                    _ = pods => {}
                    _ = records => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { seen, end: Some(end), thread: Some(thread) })
    }

    /// How it is now.
    pub fn now(&self) -> Moment {
        lock(&self.seen).moments.last().cloned().unwrap_or_default()
    }

    /// Everything from the beginning on.
    pub fn moments(&self) -> Vec<Moment> {
        lock(&self.seen).moments.clone()
    }

    /// Waits until it is so; when it was told.
    pub fn wait(&self, what: &str, limit: Duration, is_so: impl Fn(&Moment) -> bool) -> Result<u64> {
        self.wait_since(0, what, limit, is_so)
    }

    /// The same for what is told after `since`, be it over or not.
    pub fn wait_since(&self, since: u64, what: &str, limit: Duration, is_so: impl Fn(&Moment) -> bool) -> Result<u64> {
        let found = || {
            let seen = lock(&self.seen);
            let last = seen.moments.last()?;
            match since {
                0 => is_so(last).then_some(last.at),
                _ => seen.moments.iter().find(|moment| moment.at >= since && is_so(moment)).map(|moment| moment.at),
            }
        };
        wait_for(what, limit, found).with_context(|| format!("{:#?}", self.now()))
    }

    /// Never were more than `most` labelled as active; who became so had a larger token than everybody who was no
    /// longer, and a record that names it with this token.
    pub fn check(&self, most: usize) -> Result<()> {
        let is_alive = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        ensure!(is_alive, "the watches have ended: nothing was to be seen any more");
        promotions(&self.moments(), most)?.iter().try_for_each(|(uid, token)| {
            wait_until(&format!("the record of {uid} with token {token}"), LATE, || self.has_record(uid, *token))
        })
    }

    fn has_record(&self, uid: &str, token: u64) -> bool {
        let names =
            |one: &Recorded| one.places.iter().any(|(of, quoted)| of == uid && quoted.unwrap_or(one.version) == token);
        lock(&self.seen).records.iter().any(names)
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn note_pod(&mut self, event: &Value) {
        let mut moment = self.moments.last().cloned().unwrap_or_default();
        moment.at = stamp::now();
        let metadata = &event["object"]["metadata"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let uid = text(&metadata["uid"]).unwrap_or_default();
        if event["type"] == "DELETED" {
            moment.pods.remove(&uid);
        } else {
            let token = metadata["annotations"]["soloist.dev/token"].as_str();
            let pod = Pod {
                name: text(&metadata["name"]).unwrap_or_default(),
                role: text(&metadata["labels"]["role"]),
                token: token.and_then(|token| token.parse().ok()),
                is_deleting: !metadata["deletionTimestamp"].is_null(),
            };
            moment.pods.insert(uid, pod);
        }
        self.moments.push(moment);
    }

    fn note_record(&mut self, event: &Value) {
        let metadata = &event["object"]["metadata"];
        let version = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let record = metadata["annotations"]["soloist.dev/active-pods"].as_str().unwrap_or_default();
        let record: Value = serde_json::from_str(record).unwrap_or_default();
        let place = |place: &Value| (place["uid"].as_str().unwrap_or_default().to_owned(), place["token"].as_u64());
        let places = record["places"].as_array().into_iter().flatten().map(place).collect();
        self.records.push(Recorded { version, places });
    }
}

/// Who became active, with which token, in this order. Those who are active beside each other have places of their own:
/// their labels are written at the same time, and either may be first.
fn promotions(moments: &[Moment], most: usize) -> Result<Vec<(String, u64)>> {
    let mut promoted: Vec<(String, u64)> = Vec::new();
    for moment in moments {
        ensure!(moment.active().len() <= most, "too many are active at once: {moment:#?}");
        let is_active = |uid: &str| moment.pods.get(uid).is_some_and(Pod::is_active);
        for (uid, pod) in moment.pods.iter().filter(|(_, pod)| pod.is_active()) {
            let token = pod.token.with_context(|| format!("active without a token: {moment:#?}"))?;
            if promoted.iter().any(|(known, of)| known == uid && *of == token) {
                continue;
            }
            let followed = promoted.iter().filter(|(known, _)| known == uid || !is_active(known));
            let largest = followed.map(|(_, token)| *token).max().unwrap_or(0);
            ensure!(token > largest, "token {token} after {largest}: {moment:#?}");
            promoted.push((uid.clone(), token));
        }
    }
    ensure!(!promoted.is_empty(), "nobody was ever active");
    Ok(promoted)
}

/// One watch, until it ends.
async fn follow(client: &kube::Client, path: &str, mut note: impl FnMut(&Value)) -> Result<()> {
    let response = client.send(http::Request::get(path).body(Body::empty())?).await?;
    ensure!(response.status().is_success(), "the watch was refused");
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        pending.extend_from_slice(&piece);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            note(&serde_json::from_slice(&line)?);
        }
    }
    Ok(())
}

/// Nothing that holds it can fail in the middle.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One moment after another, each as the pods that are active in it, with their tokens.
    fn seen(moments: &[&[(&str, u64)]]) -> Vec<Moment> {
        let pod = |(name, token): &(&str, u64)| {
            let role = Some("active".to_owned());
            let pod = Pod { name: (*name).to_owned(), role, token: Some(*token), is_deleting: false };
            ((*name).to_owned(), pod)
        };
        moments.iter().map(|active| Moment { at: 0, pods: active.iter().map(pod).collect() }).collect()
    }

    #[test]
    fn two_that_are_active_beside_each_other_may_be_labelled_in_either_order() {
        for moments in [[&[("a", 7)][..], &[("a", 7), ("b", 9)]], [&[("b", 9)], &[("a", 7), ("b", 9)]]] {
            assert_eq!(promotions(&seen(&moments), 2).unwrap().len(), 2);
        }
        assert_eq!(promotions(&seen(&[&[("a", 7), ("b", 7)]]), 2).unwrap().len(), 2);
    }

    #[test]
    fn a_token_that_is_not_larger_than_one_before_is_found() {
        for moments in [
            &[&[("a", 7)][..], &[], &[("b", 7)]][..],
            &[&[("b", 9)], &[("a", 7)]],
            &[&[("a", 9)], &[], &[("a", 7)]],
            &[&[("a", 9), ("b", 8)], &[("a", 9), ("c", 8)]],
            &[&[("a", 9)], &[("a", 8)]],
        ] {
            assert!(promotions(&seen(moments), 2).is_err(), "{moments:?}");
        }
    }

    #[test]
    fn more_than_may_be_are_found_and_nobody_is_not_enough() {
        let together = seen(&[&[("a", 7), ("b", 9)]]);
        assert!(promotions(&together, 1).is_err() && promotions(&together, 2).is_ok());
        assert!(promotions(&[], 1).is_err());
    }
}
