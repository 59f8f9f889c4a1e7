//! Counts what the elector sees and does. Nothing is decided here.

use std::time::Duration;

use election::{
    Action, Activation, Claim, Evidence, Holder, Input, Instant, Output, Proof, Request, Role, Seen, Timing, Version,
    Write,
};

use crate::metrics::{Bearer, Grade, Metrics, Operation};

/// What must be remembered to count.
#[derive(Debug)]
pub(super) struct Count {
    metrics: Metrics,
    role: Role,
    /// The store operation under way, and since when.
    asked: Option<(Operation, Instant)>,
    newest: Option<Version>,
    /// What the lock said last while this member stood by: an activation begins on it.
    sight: Option<Seen>,
    /// Who is foreign, by the fingerprint of its record.
    foreigner: Option<u64>,
    /// The activation that an operator wants to be taken for ended; whether that was granted is in the answer.
    to_fence: Option<Activation>,
    fenced: Option<Activation>,
    /// The largest token that was seen or used.
    largest_token: u64,
    /// The worst lateness of the guard, and the longest that a kill would have taken.
    worst: (Duration, Duration),
}

impl Count {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            role: Role::Standby,
            asked: None,
            newest: None,
            sight: None,
            foreigner: None,
            to_fence: None,
            fenced: None,
            largest_token: 0,
            worst: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// What goes into the machine.
    pub(super) fn input(&mut self, now: Instant, input: &Input) {
        self.to_fence = None;
        match input {
            Input::Read(result) => {
                self.answered(now);
                if let Ok(seen) = result {
                    self.seen(seen);
                }
            }
            Input::Written { outcome, .. } => {
                self.answered(now);
                match outcome {
                    Write::Unknown(_) => self.metrics.unknown_outcome(),
                    Write::Written(version) => self.newest = Some(*version),
                    _ => {}
                }
            }
            Input::Gone { released: Some(version), .. } => self.newest = Some(*version),
            Input::Measured { lateness, proof } => {
                self.metrics.guard_was_late(*lateness);
                self.worst = (self.worst.0.max(*lateness), self.worst.1.max(*proof));
            }
            Input::Request(Request::Fenced { activation }) => self.to_fence = Some(*activation),
            _ => {}
        }
    }

    /// Where a step of the machine has led, and what it wants done.
    pub(super) fn outputs<'a>(
        &mut self,
        now: Instant,
        outputs: impl IntoIterator<Item = &'a Output>,
        role: Role,
        timing: &Timing,
    ) {
        let mut is_started = false;
        for Output { action, .. } in outputs {
            match action {
                Action::Read { .. } => self.asked = Some((Operation::Read, now)),
                Action::Write { .. } => self.asked = Some((Operation::Write, now)),
                Action::Answer(Ok(())) => self.fenced = self.to_fence.or(self.fenced),
                Action::Start { token, .. } => {
                    is_started = true;
                    self.largest_token = self.largest_token.max(token.0);
                    let (grade, is_proven) = self.grade();
                    self.metrics.promoted(grade, is_proven);
                }
                _ => {}
            }
        }
        if role != self.role {
            if (self.role, role, is_started) == (Role::Acquiring, Role::Stopping, false) {
                self.given_back();
            }
            self.role = role;
            self.metrics.role_changed(role);
        }
        let excess = self.worst.0.saturating_sub(timing.lateness()) + self.worst.1.saturating_sub(timing.proof());
        self.metrics.set_timing(timing.slack().unwrap_or_default(), excess, timing.proof(), timing.lateness());
    }

    /// The lock was acquired and is released without a start.
    fn given_back(&mut self) {
        if self.newest.is_some_and(|version| version.number <= self.largest_token) {
            self.metrics.token_refused(Bearer::Activation);
        }
    }

    fn answered(&mut self, now: Instant) {
        if let Some((operation, since)) = self.asked.take() {
            self.metrics.answered(operation, now.since(since));
        }
    }

    fn seen(&mut self, seen: &Seen) {
        // What follows upon an absent lock is a new one.
        let newest = self.newest.filter(|newest| *newest != Version::ABSENT);
        if newest.is_some_and(|newest| seen.version.rewinds(newest)) {
            self.metrics.store_rewound();
        }
        self.newest = Some(seen.version);
        let foreigner = match seen.record.as_ref().map(|record| &record.claim) {
            Some(Claim::Foreign(foreign)) => Some(foreign.fingerprint),
            _ => None,
        };
        if foreigner.is_some() && foreigner != self.foreigner {
            self.metrics.foreign_write();
        }
        self.foreigner = foreigner;
        if self.role == Role::Standby {
            if let Some(Claim::Held(Holder { token: Some(token), .. })) =
                seen.record.as_ref().map(|record| &record.claim)
            {
                self.largest_token = self.largest_token.max(token.0);
            }
            self.sight = Some(seen.clone());
        }
    }

    /// On what this member begins, and whether that leaves nothing of the one before.
    fn grade(&self) -> (Grade, bool) {
        let Some(Seen { record: Some(record), evidence, .. }) = &self.sight else { return (Grade::Absent, true) };
        match (&record.claim, evidence) {
            (Claim::Vacant(_), _) => (Grade::Absent, true),
            (Claim::Released(_), _) => (Grade::Release, true),
            (Claim::Held(_), Evidence::Gone(Proof::Terminated)) => (Grade::Kubelet, true),
            (Claim::Held(_), Evidence::Gone(_)) => (Grade::Kernel, true),
            (Claim::Held(holder), _) if self.fenced == Some(holder.activation) => (Grade::Operator, true),
            (Claim::Held(_), Evidence::Unproven | Evidence::Busy) => (Grade::Lease, false),
            (Claim::Held(_), _) => (Grade::Lease, true),
            // Nobody has promised that what ran under it ends with it.
            (Claim::Foreign(_), _) => (Grade::Lease, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use election::{Attempt, Foreign, Member, Nonce, Record, Release, Token};

    use super::*;
    use crate::snapshot::{Health, Snapshot};

    const ACTIVATION: Activation = Activation(7);

    fn other() -> Member {
        Member { name: "b".to_owned(), nonce: Nonce(2) }
    }

    fn held() -> Claim {
        let attempt = Attempt { count: 1, random: 1 };
        Claim::Held(Holder { member: other(), activation: ACTIVATION, attempt, token: Some(Token(1)) })
    }

    fn foreign(fingerprint: u64) -> Claim {
        Claim::Foreign(Foreign { holder: Some("x".to_owned()), fingerprint, why: "no digest".to_owned() })
    }

    fn seen(number: u64, claim: Claim, evidence: Evidence) -> Input {
        let record = Some(Record { claim, lease: Duration::from_secs(15), slots: 1, paused_until_unix_ms: None });
        Input::Read(Ok(Seen { version: Version { incarnation: 1, number }, record, evidence }))
    }

    fn start() -> Output {
        let action =
            Action::Start { activation: Activation(8), token: Token(2), kill_at: Instant::default(), successor: None };
        Output { action, reason: String::new() }
    }

    fn text(metrics: &Metrics) -> String {
        let health = Health { healthy: true, why: String::new() };
        let snapshot = Snapshot::new("g", "a", Duration::from_secs(15), health, 0);
        metrics.text(snapshot.into(), Instant::default(), None).unwrap()
    }

    /// What was counted of an activation that was begun after these inputs.
    fn counted(inputs: &[Input], outputs: &[Output]) -> String {
        let metrics = Metrics::default();
        let mut count = Count::new(metrics.clone());
        let timing = Timing::new(Duration::from_secs(15), None).unwrap();
        for input in inputs {
            count.input(Instant::default(), input);
            count.outputs(Instant::default(), outputs, Role::Standby, &timing);
        }
        count.outputs(Instant::default(), &[start()], Role::Active, &timing);
        text(&metrics)
    }

    fn assert_counted(text: &str, line: &str) {
        assert!(text.lines().any(|shown| shown == line), "{line}:\n{text}");
    }

    #[test]
    fn activations_are_counted_by_what_they_were_begun_on() {
        let attempt = Attempt { count: 1, random: 1 };
        let release =
            Release { member: other(), activation: ACTIVATION, attempt, proof: Proof::NoChildLeft, successor: None };
        let cases = [
            ("release", 0, vec![seen(1, Claim::Released(release), Evidence::None)]),
            ("kernel", 0, vec![seen(1, held(), Evidence::Gone(Proof::CgroupEmpty))]),
            ("kernel", 0, vec![seen(1, held(), Evidence::Gone(Proof::Restarted))]),
            ("kubelet", 0, vec![seen(1, held(), Evidence::Gone(Proof::Terminated))]),
            ("lease", 0, vec![seen(1, held(), Evidence::None)]),
            ("lease", 1, vec![seen(1, held(), Evidence::Unproven)]),
            ("lease", 1, vec![seen(1, foreign(1), Evidence::None)]),
            ("absent", 0, vec![]),
        ];
        for (grade, unproven, inputs) in cases {
            let text = counted(&inputs, &[]);
            assert_counted(&text, &format!("soloist_evidence_grade_total{{grade=\"{grade}\"}} 1"));
            assert_counted(&text, &format!("soloist_unproven_promotions_total {unproven}"));
        }
    }

    #[test]
    fn operator_counts_only_when_the_word_was_taken() {
        let asked = Input::Request(Request::Fenced { activation: ACTIVATION });
        let inputs = [seen(1, held(), Evidence::None), asked];
        let granted = Output { action: Action::Answer(Ok(())), reason: String::new() };
        assert_counted(&counted(&inputs, &[granted]), "soloist_evidence_grade_total{grade=\"operator\"} 1");
        assert_counted(&counted(&inputs, &[]), "soloist_evidence_grade_total{grade=\"lease\"} 1");
    }

    #[test]
    fn rewinds_and_foreigners_are_counted_once_each() {
        let inputs = [
            seen(5, held(), Evidence::None),
            seen(3, held(), Evidence::None),
            seen(3, held(), Evidence::None),
            seen(6, foreign(1), Evidence::None),
            seen(6, foreign(1), Evidence::None),
            seen(7, foreign(2), Evidence::None),
        ];
        let text = counted(&inputs, &[]);
        assert_counted(&text, "soloist_store_rewinds_total 1");
        assert_counted(&text, "soloist_foreign_writes_total 2");
    }

    #[test]
    fn a_token_that_is_not_larger_is_counted_when_it_is_given_back() {
        for (token, refused) in [(1, 1), (2, 0)] {
            let metrics = Metrics::default();
            let mut count = Count::new(metrics.clone());
            let timing = Timing::new(Duration::from_secs(15), None).unwrap();
            let mut step = |input: Input, role: Role| {
                count.input(Instant::default(), &input);
                count.outputs(Instant::default(), &[], role, &timing);
            };
            let attempt = Attempt { count: 1, random: 1 };
            let version = Version { incarnation: 1, number: token };
            step(seen(1, held(), Evidence::None), Role::Acquiring);
            step(Input::Written { attempt, outcome: Write::Written(version) }, Role::Stopping);
            assert_counted(
                &text(&metrics),
                &format!("soloist_stale_token_rejects_total{{of=\"activation\"}} {refused}"),
            );
        }
    }

    #[test]
    fn what_was_measured_beyond_the_terms_makes_the_slack_negative() {
        let metrics = Metrics::default();
        let mut count = Count::new(metrics.clone());
        let timing = Timing::new(Duration::from_secs(15), None).unwrap();
        let slack = timing.slack().unwrap();
        let lateness = timing.lateness() + slack + Duration::from_millis(250);
        count.input(Instant::default(), &Input::Measured { lateness, proof: Duration::ZERO });
        count.outputs(Instant::default(), &[], Role::Standby, &timing);
        let text = text(&metrics);
        assert_counted(&text, "soloist_inequality_slack_seconds -0.25");
        assert_counted(&text, "soloist_guard_lateness_allowed_seconds 0.5");
    }

    #[test]
    fn answers_are_timed_from_the_send() {
        let metrics = Metrics::default();
        let mut count = Count::new(metrics.clone());
        let timing = Timing::new(Duration::from_secs(15), None).unwrap();
        let read = Output { action: Action::Read { limit: Duration::from_secs(1) }, reason: String::new() };
        count.outputs(Instant::default(), &[read], Role::Standby, &timing);
        count.input(Instant::from_nanos(4_000_000), &Input::Read(Err("no".to_owned())));
        let text = text(&metrics);
        assert_counted(&text, "soloist_store_latency_seconds_bucket{le=\"0.005\",operation=\"read\"} 1");
        assert_counted(&text, "soloist_store_latency_seconds_sum{operation=\"read\"} 0.004");
    }
}
