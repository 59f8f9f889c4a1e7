//! One machine, a clock that tests move, and a store that they play by hand.

use std::time::Duration;

use crate::*;

/// Counts: every draw is another number, and two rigs with other seeds never meet.
#[derive(Clone, Debug)]
pub struct Counter(pub u64);

impl Entropy for Counter {
    fn bits(&mut self) -> u64 {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

pub const LEASE: Duration = Duration::from_secs(15);

pub fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

pub fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        timing: Timing::new(LEASE, None).unwrap(),
        stop_grace: Duration::from_secs(10),
        absence: Absence::CostsALease,
        can_pause: true,
        slots: 1,
        on_exit: OnExit::Exit,
        on_loss: OnLoss::Standby,
        healthy: true,
    }
}

pub struct Rig {
    pub machine: Machine<Counter>,
    pub now: Instant,
    pub outputs: Vec<Output>,
    pending: Option<Attempt>,
    number: u64,
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        let machine = Machine::new(settings, Counter(7));
        let mut rig = Self {
            machine,
            now: Instant::from_nanos(1_000_000_000_000),
            outputs: Vec::new(),
            pending: None,
            number: 100,
        };
        rig.step(Input::Wake);
        rig
    }

    /// A member called `a` that stands by and has read nothing yet.
    pub fn standby() -> Self {
        Self::new(settings("a"))
    }

    /// A member called `a` that is active since just now, with version 101 and an idle store.
    pub fn active() -> Self {
        Self::active_with(settings("a"))
    }

    pub fn active_with(settings: Settings) -> Self {
        let mut rig = Self::new(settings);
        rig.read(Some(released_by("z")));
        rig.confirm();
        assert_eq!(rig.machine.role(), Role::Active);
        rig
    }

    pub fn step(&mut self, input: Input) {
        self.outputs = self.machine.step(self.now, input);
        self.pending = self.try_write().map(|(_, _, attempt)| attempt).or(self.pending);
    }

    /// An input while an operation is under way, whose request stays to be answered.
    pub fn meanwhile(&mut self, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.step(input);
        let started_another = self.has(|action| matches!(action, Action::Read { .. } | Action::Write { .. }));
        assert!(!started_another, "one operation at a time");
        outputs.append(&mut self.outputs);
        self.outputs = outputs;
    }

    pub fn after(&mut self, time: Duration) {
        self.now = self.now + time;
        self.step(Input::Wake);
    }

    /// Lets time pass until just before the next wake-up, asserts that nothing happens, then wakes.
    pub fn wake(&mut self) -> Duration {
        let at = self.machine.next_wakeup().expect("a wake-up");
        let waited = at.since(self.now);
        self.now = self.now.max(at);
        self.step(Input::Wake);
        waited
    }

    /// Answers a read with a record at the present version.
    pub fn read(&mut self, record: Option<Record>) {
        self.read_with(record, Evidence::None);
    }

    pub fn read_with(&mut self, record: Option<Record>, evidence: Evidence) {
        let version = if record.is_some() { self.version() } else { Version::ABSENT };
        self.step(Input::Read(Ok(Seen { version, record, evidence })));
    }

    /// A change notice, and the answer to the read that follows it.
    pub fn see(&mut self, record: Option<Record>) {
        self.see_with(record, Evidence::None);
    }

    pub fn see_with(&mut self, record: Option<Record>, evidence: Evidence) {
        self.number += 1;
        self.step(Input::Changed);
        self.read_with(record, evidence);
    }

    pub fn version(&self) -> Version {
        Version { incarnation: 1, number: self.number }
    }

    pub fn set_version(&mut self, number: u64) {
        self.number = number;
    }

    /// The write that the last step asked for.
    pub fn write(&self) -> (Version, Record, Attempt) {
        self.try_write().unwrap_or_else(|| panic!("no write in {:?}", self.outputs))
    }

    pub fn try_write(&self) -> Option<(Version, Record, Attempt)> {
        self.outputs.iter().find_map(|output| match &output.action {
            Action::Write { expected, record, attempt, .. } => Some((*expected, record.clone(), *attempt)),
            _ => None,
        })
    }

    /// Answers the write of the last step as stored.
    pub fn confirm(&mut self) -> (Record, Attempt) {
        let (_, record, attempt) = self.write();
        self.number += 1;
        let outcome = Write::Written(self.version());
        self.step(Input::Written { attempt, outcome });
        (record, attempt)
    }

    pub fn answer(&mut self, outcome: Write) -> (Record, Attempt) {
        let (_, record, attempt) = self.write();
        self.step(Input::Written { attempt, outcome });
        (record, attempt)
    }

    pub fn request(&mut self, request: Request) -> Result<(), Refusal> {
        self.step(Input::Request(request));
        self.outputs
            .iter()
            .find_map(|output| match &output.action {
                Action::Answer(answer) => Some(answer.clone()),
                _ => None,
            })
            .expect("every request is answered in the same step")
    }

    /// Answers a write that an earlier step asked for.
    pub fn answer_pending(&mut self, outcome: Write) {
        let attempt = self.pending.expect("a write under way");
        self.step(Input::Written { attempt, outcome });
    }

    pub fn has(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.outputs.iter().any(|output| wanted(&output.action))
    }

    pub fn reads(&self) -> bool {
        self.has(|action| matches!(action, Action::Read { .. }))
    }

    pub fn kills(&self) -> bool {
        self.has(|action| matches!(action, Action::Kill))
    }

    pub fn starts(&self) -> bool {
        self.has(|action| matches!(action, Action::Start { .. }))
    }

    pub fn stops(&self) -> Option<(Duration, Option<String>)> {
        self.outputs.iter().find_map(|output| match &output.action {
            Action::Stop { grace, successor } => Some((*grace, successor.clone())),
            _ => None,
        })
    }

    pub fn exit(&self) -> Option<Exit> {
        self.outputs.iter().find_map(|output| match &output.action {
            Action::Exit(exit) => Some(*exit),
            _ => None,
        })
    }

    pub fn kill_at(&self) -> Instant {
        self.machine.activation().expect("an activation").2
    }

    /// The record of the own claim, as last written.
    pub fn own(&self, attempt: Attempt) -> Record {
        let (activation, token, _) = self.machine.activation().expect("an activation");
        let member = self.machine.member();
        record(Claim::Held(Holder { member, activation, attempt, token: Some(token) }))
    }
}

pub fn record(claim: Claim) -> Record {
    Record { claim, lease: LEASE, slots: 1, paused_until_unix_ms: None }
}

pub fn member(name: &str) -> Member {
    Member { name: name.to_owned(), nonce: Nonce(u128::from(name.len() as u64) << 100 | 0xabc) }
}

/// `name` is active in `activation`; `attempt` counts its renewals.
pub fn held_by(name: &str, activation: u128, attempt: u64) -> Record {
    record(Claim::Held(Holder {
        member: member(name),
        activation: Activation(activation),
        attempt: Attempt { count: attempt, random: attempt },
        token: Some(Token(50)),
    }))
}

pub fn release(name: &str, successor: Option<&str>) -> Record {
    record(Claim::Released(Release {
        member: member(name),
        activation: Activation(9),
        attempt: Attempt { count: 1, random: 1 },
        proof: Proof::NoChildLeft,
        successor: successor.map(str::to_owned),
    }))
}

pub fn released_by(name: &str) -> Record {
    release(name, None)
}

pub fn foreign(holder: Option<&str>) -> Record {
    record(Claim::Foreign(Foreign {
        holder: holder.map(str::to_owned),
        fingerprint: 77,
        why: "somebody else wrote it".to_owned(),
    }))
}
