//! What is counted about this member, and its page for Prometheus.
//!
//! The elector counts with plain atomics: it never waits for somebody who reads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use election::{Instant, Role};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::controller::gallery::Counts as Groups;
use crate::snapshot::Snapshot;

/// The upper bounds of the latency histogram.
const BOUNDS: [Duration; 12] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
];

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A look at the lock.
    Read,
    /// A conditional write.
    Write,
}

/// On what an own activation was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// The one before released, with its proof.
    Release,
    /// The kernel says that nothing of the one before is left.
    Kernel,
    /// The kubelet says that the container of the one before has ended.
    Kubelet,
    /// A lease ran out.
    Lease,
    /// An operator vouched for it.
    Operator,
    /// There was no record of anybody.
    Absent,
}

/// Who brought a token that was not larger than one seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// The store, for an own activation: it was given back.
    Activation,
    /// Somebody who asked for a switchover of an activation that is over.
    Request,
}

const BEARERS: [(Bearer, &str); 2] = [(Bearer::Activation, "activation"), (Bearer::Request, "request")];

const OPERATIONS: [(Operation, &str); 2] = [(Operation::Read, "read"), (Operation::Write, "write")];

const GRADES: [(Grade, &str); 6] = [
    (Grade::Release, "release"),
    (Grade::Kernel, "kernel"),
    (Grade::Kubelet, "kubelet"),
    (Grade::Lease, "lease"),
    (Grade::Operator, "operator"),
    (Grade::Absent, "absent"),
];

const ROLES: [Role; 5] = [Role::Standby, Role::Acquiring, Role::Active, Role::Stopping, Role::Ended];

/// The counters of one member; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    latency: [Latency; OPERATIONS.len()],
    unknown_outcomes: AtomicU64,
    guard_lateness_ns: AtomicU64,
    guard_lateness_allowed_ns: AtomicU64,
    slack_ns: AtomicI64,
    kill_to_proof_ns: AtomicU64,
    evidence: [AtomicU64; GRADES.len()],
    unproven_promotions: AtomicU64,
    foreign_writes: AtomicU64,
    store_rewinds: AtomicU64,
    clock_suspicions: AtomicU64,
    token_rejects: [AtomicU64; BEARERS.len()],
    role_changes: [AtomicU64; ROLES.len()],
}

/// How long answers took.
#[derive(Debug, Default)]
struct Latency {
    /// One for each bound, and one for what took longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Metrics {
    /// The store answered, or the limit ran out.
    pub fn answered(&self, operation: Operation, took: Duration) {
        let latency = &self.0.latency[operation as usize];
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        increment(&latency.buckets[bucket]);
        latency.sum_ns.fetch_add(nanos(took), Ordering::Relaxed);
    }

    /// Nobody knows whether a write was stored.
    pub fn unknown_outcome(&self) {
        increment(&self.0.unknown_outcomes);
    }

    /// The guard was this late.
    pub fn guard_was_late(&self, lateness: Duration) {
        self.0.guard_lateness_ns.fetch_max(nanos(lateness), Ordering::Relaxed);
    }

    /// What the timing in force leaves, by how much more was measured than it has room for, and what it takes killing to
    /// last and the guard to be late.
    pub fn set_timing(&self, slack: Duration, excess: Duration, kill_to_proof: Duration, lateness: Duration) {
        let signed = |length: Duration| i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
        self.0.slack_ns.store(signed(slack).saturating_sub(signed(excess)), Ordering::Relaxed);
        self.0.kill_to_proof_ns.store(nanos(kill_to_proof), Ordering::Relaxed);
        self.0.guard_lateness_allowed_ns.store(nanos(lateness), Ordering::Relaxed);
    }

    /// The clocks of this host disagreed by more than clocks may.
    pub fn clock_suspicion(&self) {
        increment(&self.0.clock_suspicions);
    }

    /// A token was refused because it was not larger than one seen before, or not that of the present activation.
    pub fn token_refused(&self, bearer: Bearer) {
        increment(&self.0.token_rejects[bearer as usize]);
    }

    /// An own activation began.
    pub fn promoted(&self, grade: Grade, is_proven: bool) {
        increment(&self.0.evidence[grade as usize]);
        if !is_proven {
            increment(&self.0.unproven_promotions);
        }
    }

    /// Somebody who is none of ours wrote the lock.
    pub fn foreign_write(&self) {
        increment(&self.0.foreign_writes);
    }

    /// The lock went back to an older state.
    pub fn store_rewound(&self) {
        increment(&self.0.store_rewinds);
    }

    /// The member plays another part.
    pub fn role_changed(&self, role: Role) {
        increment(&self.0.role_changes[role as usize]);
    }

    /// The page in the OpenMetrics format, with what follows from `snapshot` at this instant, and of a controller that leads
    /// its groups.
    ///
    /// # Errors
    /// Only if a name or a label cannot be written, which does not depend on any input.
    pub fn text(&self, snapshot: Arc<Snapshot>, now: Instant, groups: Option<Groups>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { counts: Arc::clone(&self.0), snapshot, now, groups }));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: &AtomicU64) -> f64 {
    Duration::from_nanos(load(nanos)).as_secs_f64()
}

/// One look of Prometheus.
#[derive(Debug)]
struct Scrape {
    counts: Arc<Counts>,
    snapshot: Arc<Snapshot>,
    now: Instant,
    groups: Option<Groups>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.identity(&mut page)?;
        self.member(&mut page)?;
        self.store(&mut page)?;
        self.guard(&mut page)?;
        self.groups.map_or(Ok(()), |groups| of_groups(&mut page, groups))
    }
}

fn of_groups(page: &mut Page, Groups { groups, trouble, lone, paused }: Groups) -> fmt::Result {
    let counted = [
        ("soloist_controller_groups", "Groups that this controller looks after while it leads", groups),
        (
            "soloist_controller_groups_in_trouble",
            "Groups whose places are not all taken, or that somebody has to put right, without the paused ones",
            trouble,
        ),
        ("soloist_controller_groups_without_standby", "Groups that nobody could take over in", lone),
        ("soloist_controller_groups_paused", "Groups that are left alone", paused),
    ];
    let mut all = counted.into_iter();
    all.try_for_each(|(name, help, count)| page.number(name, help, u64::try_from(count).unwrap_or(u64::MAX)))
}

impl Scrape {
    fn identity(&self, page: &mut Page) -> fmt::Result {
        let snapshot = &*self.snapshot;
        let labels = [("group", &*snapshot.group), ("member", &*snapshot.name), ("version", env!("CARGO_PKG_VERSION"))];
        page.info("soloist_member", "Who this is", &labels)?;
        let help = "1 while this member may be active as far as its health check says";
        page.number("soloist_healthy", help, u64::from(snapshot.health.healthy))?;
        let slots = u64::try_from(snapshot.slots.len()).unwrap_or(u64::MAX).max(1);
        page.number("soloist_slots", "How many members of the group may be active at a time", slots)?;
        page.number(
            "soloist_paused",
            "1 while the lease is long for a pause",
            u64::from(snapshot.paused_until_unix_ms.is_some()),
        )?;
        page.seconds("soloist_lease", "How long the others wait for the holder", snapshot.lease.as_secs_f64())
    }

    fn member(&self, page: &mut Page) -> fmt::Result {
        let active_for = self.snapshot.active_for(self.now);
        page.number("soloist_active", "1 while this member is the active one", u64::from(active_for.is_some()))?;
        if let Some(token) = self.snapshot.told_holder().and_then(|holder| holder.token) {
            page.number("soloist_fencing_token", "The holder's fencing token, where it is known", token.0)?;
        }
        let help = "How long this member may stay active without another renewal";
        page.seconds("soloist_lease_remaining", help, active_for.unwrap_or_default().as_secs_f64())?;
        let members = u64::try_from(self.snapshot.members.len()).unwrap_or(u64::MAX);
        page.number("soloist_members", "Members that have announced themselves", members)?;
        let roles = ROLES.map(|role| role.to_string());
        let changes = roles.iter().map(String::as_str).zip(&self.counts.role_changes);
        page.counters("soloist_role_changes", "How often this member began to play a role", "role", changes)?;
        let evidence = GRADES.iter().map(|(_, word)| *word).zip(&self.counts.evidence);
        page.counters("soloist_evidence_grade", "Own activations, by what they were begun on", "grade", evidence)?;
        let help = "Own activations begun when something of the one before could not be ruled out";
        page.counter("soloist_unproven_promotions", help, &self.counts.unproven_promotions)
    }

    fn store(&self, page: &mut Page) -> fmt::Result {
        page.latency(&self.counts.latency)?;
        let counts = &self.counts;
        let help = "Writes of which nobody knew at first whether they were stored";
        page.counter("soloist_store_unknown_outcomes", help, &counts.unknown_outcomes)?;
        page.counter("soloist_foreign_writes", "Times the lock was written by no member", &counts.foreign_writes)?;
        page.counter("soloist_store_rewinds", "Times the lock went back to an older state", &counts.store_rewinds)?;
        let rejects = BEARERS.iter().map(|(_, word)| *word).zip(&counts.token_rejects);
        page.counters("soloist_stale_token_rejects", "Tokens that were refused as not new", "of", rejects)
    }

    fn guard(&self, page: &mut Page) -> fmt::Result {
        let counts = &self.counts;
        let help = "What the timing inequality leaves";
        let slack_ns = counts.slack_ns.load(Ordering::Relaxed);
        page.seconds("soloist_inequality_slack", help, slack_ns as f64 / 1e9)?;
        let help = "How late the guard has been at most";
        page.seconds("soloist_guard_lateness_max", help, seconds(&counts.guard_lateness_ns))?;
        let help = "How late the guard may be with the timing in force";
        page.seconds("soloist_guard_lateness_allowed", help, seconds(&counts.guard_lateness_allowed_ns))?;
        let help = "Times the wall clock and the steady one disagreed by more than clocks may";
        page.counter("soloist_clock_suspicions", help, &counts.clock_suspicions)?;
        let help = "How long killing the workload is taken to last, by its size";
        page.seconds("soloist_kill_to_proof", help, seconds(&counts.kill_to_proof_ns))?;
        match self.snapshot.containment {
            Some(containment) => {
                page.info("soloist_containment", "What holds the workload", &[("containment", containment.word())])
            }
            None => Ok(()),
        }
    }
}

/// Writes metrics one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn number(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(load(value)).encode(encoder)
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, &'a AtomicU64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (word, value) in values {
            ConstCounter::new(load(value)).encode(encoder.encode_family(&[(label, word)])?)?;
        }
        Ok(())
    }

    fn latency(&mut self, latencies: &[Latency; OPERATIONS.len()]) -> fmt::Result {
        let help = "How long the store took to answer";
        let unit = Some(&Unit::Seconds);
        let mut encoder = self.0.encode_descriptor("soloist_store_latency", help, unit, MetricType::Histogram)?;
        for ((_, word), latency) in OPERATIONS.iter().zip(latencies) {
            latency.encode(encoder.encode_family(&[("operation", *word)])?)?;
        }
        Ok(())
    }

    fn info<const N: usize>(&mut self, name: &str, help: &str, labels: &[(&str, &str); N]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }
}

impl Latency {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(&self.buckets).map(|(bound, count)| (bound, load(count))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(&self.sum_ns), count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Health;

    #[test]
    fn page_shows_what_was_counted() {
        let metrics = Metrics::default();
        metrics.answered(Operation::Write, Duration::from_millis(3));
        metrics.answered(Operation::Write, Duration::from_secs(60));
        metrics.unknown_outcome();
        metrics.guard_was_late(Duration::from_millis(7));
        metrics.guard_was_late(Duration::from_millis(2));
        let [slack, proof, late] = [400, 165, 500].map(Duration::from_millis);
        metrics.set_timing(slack, Duration::ZERO, proof, late);
        metrics.clock_suspicion();
        metrics.token_refused(Bearer::Request);
        metrics.promoted(Grade::Lease, false);
        metrics.role_changed(Role::Active);
        let health = Health { healthy: true, why: String::new() };
        let snapshot = Snapshot::new("g", "a", Duration::from_secs(15), health, 0);
        let text = metrics.text(Arc::new(snapshot), Instant::from_nanos(1), None).unwrap();
        for line in [
            "soloist_active 0",
            "soloist_lease_remaining_seconds 0.0",
            "soloist_inequality_slack_seconds 0.4",
            "soloist_guard_lateness_max_seconds 0.007",
            "soloist_kill_to_proof_seconds 0.165",
            "soloist_store_latency_seconds_bucket{le=\"0.005\",operation=\"write\"} 1",
            "soloist_store_latency_seconds_bucket{le=\"+Inf\",operation=\"write\"} 2",
            "soloist_store_latency_seconds_count{operation=\"read\"} 0",
            "soloist_store_unknown_outcomes_total 1",
            "soloist_evidence_grade_total{grade=\"lease\"} 1",
            "soloist_evidence_grade_total{grade=\"release\"} 0",
            "soloist_unproven_promotions_total 1",
            "soloist_role_changes_total{role=\"active\"} 1",
            "soloist_members 0",
            "soloist_member_info{group=\"g\",member=\"a\",version=\"0.1.0\"} 1",
            "soloist_healthy 1",
            "soloist_slots 1",
            "soloist_paused 0",
            "soloist_lease_seconds 15.0",
            "soloist_guard_lateness_allowed_seconds 0.5",
            "soloist_clock_suspicions_total 1",
            "soloist_stale_token_rejects_total{of=\"activation\"} 0",
            "soloist_stale_token_rejects_total{of=\"request\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn tables_are_in_the_order_of_their_enums() {
        assert!(OPERATIONS.iter().enumerate().all(|(index, (operation, _))| *operation as usize == index));
        assert!(BEARERS.iter().enumerate().all(|(index, (bearer, _))| *bearer as usize == index));
        assert!(GRADES.iter().enumerate().all(|(index, (grade, _))| *grade as usize == index));
        assert!(ROLES.iter().enumerate().all(|(index, role)| *role as usize == index));
    }
}
