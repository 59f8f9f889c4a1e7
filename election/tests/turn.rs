//! One member among its slots: who has the turn, who waits, and who is told what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail where they stand")]

use std::time::Duration;

use election::{
    Absence, Action, Activation, Attempt, Claim, Entropy, Evidence, Exit, Holder, Input, Instant, Member, Nonce,
    OnExit, OnLoss, Output, Proof, Record, RefusalKind, Release, Request, Role, Seen, Settings, Slots, Timing, Token,
    Version, Write,
};

const LEASE: Duration = Duration::from_secs(15);

struct Counter(u64);

impl Entropy for Counter {
    fn bits(&mut self) -> u64 {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A member called `a` in two slots, and what it wants done.
struct Rig {
    slots: Slots<Counter>,
    now: Instant,
    outputs: Vec<(usize, Output)>,
    numbers: [u64; 2],
}

impl Rig {
    fn new() -> Self {
        Self::of(OnExit::Standby)
    }

    fn of(on_exit: OnExit) -> Self {
        let settings = Settings {
            name: "a".to_owned(),
            timing: Timing::new(LEASE, None).unwrap(),
            stop_grace: Duration::from_secs(10),
            absence: Absence::CostsALease,
            can_pause: true,
            slots: 2,
            on_exit,
            on_loss: OnLoss::Standby,
            healthy: true,
        };
        let mut seed = 0;
        let slots = Slots::new(&settings, || {
            seed += 1_000;
            Counter(seed)
        });
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut rig = Self { slots, now, outputs: Vec::new(), numbers: [100, 100] };
        rig.step(0, Input::Wake);
        assert_eq!(rig.reads(), [0, 1]);
        rig
    }

    /// Both locks are free, and slot 1 is acquired.
    fn active_in_the_first() -> Self {
        let mut rig = Self::new();
        rig.read(1, released_by("z", None));
        rig.read(0, released_by("z", None));
        rig.confirm(0);
        assert_eq!((rig.slots.role(), rig.slots.turn()), (Role::Active, Some(0)));
        rig
    }

    fn step(&mut self, slot: usize, input: Input) {
        self.outputs = self.slots.step(self.now, slot, input);
    }

    fn read(&mut self, slot: usize, record: Record) {
        let version = Version { incarnation: 1, number: self.numbers[slot] };
        self.step(slot, Input::Read(Ok(Seen { version, record: Some(record), evidence: Evidence::None })));
    }

    fn see(&mut self, slot: usize, record: Record) {
        self.numbers[slot] += 1;
        self.step(slot, Input::Changed);
        self.read(slot, record);
    }

    /// Answers the write of the last step as stored.
    fn confirm(&mut self, slot: usize) -> Claim {
        let (claim, attempt) = self.write(slot).unwrap_or_else(|| panic!("no write in {:?}", self.outputs));
        self.numbers[slot] += 1;
        let outcome = Write::Written(Version { incarnation: 1, number: self.numbers[slot] });
        self.step(slot, Input::Written { attempt, outcome });
        claim
    }

    fn write(&self, slot: usize) -> Option<(Claim, Attempt)> {
        self.outputs.iter().find_map(|(of, output)| match &output.action {
            Action::Write { record, attempt, .. } if *of == slot => Some((record.claim.clone(), *attempt)),
            _ => None,
        })
    }

    fn reads(&self) -> Vec<usize> {
        let is_read = |(_, output): &&(usize, Output)| matches!(output.action, Action::Read { .. });
        self.outputs.iter().filter(is_read).map(|(slot, _)| *slot).collect()
    }

    fn steps_back(&self, slot: usize) -> Option<Duration> {
        self.outputs.iter().find_map(|(of, output)| match output.action {
            Action::StepBack { pause } if *of == slot => Some(pause),
            _ => None,
        })
    }

    fn has(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.outputs.iter().any(|(_, output)| wanted(&output.action))
    }

    fn answer(&self) -> Option<Result<(), RefusalKind>> {
        self.outputs.iter().find_map(|(_, output)| match &output.action {
            Action::Answer(answer) => Some(answer.clone().map_err(|refusal| refusal.kind)),
            _ => None,
        })
    }
}

fn record(claim: Claim) -> Record {
    Record { claim, lease: LEASE, slots: 2, paused_until_unix_ms: None }
}

fn member(name: &str) -> Member {
    Member { name: name.to_owned(), nonce: Nonce(u128::from(name.as_bytes()[0])) }
}

fn released_by(name: &str, successor: Option<&str>) -> Record {
    record(Claim::Released(Release {
        member: member(name),
        activation: Activation(9),
        attempt: Attempt { count: 1, random: 1 },
        proof: Proof::NoChildLeft,
        successor: successor.map(str::to_owned),
    }))
}

fn held_by(name: &str, activation: u128) -> Record {
    record(Claim::Held(Holder {
        member: member(name),
        activation: Activation(activation),
        attempt: Attempt { count: 1, random: 1 },
        token: Some(Token(50)),
    }))
}

#[test]
fn a_further_slot_is_tried_only_once_the_first_says_that_there_are_several() {
    let mut rig = Rig::new();
    rig.read(1, released_by("z", None));
    assert!(rig.write(1).is_none(), "nobody knows yet that there is a second slot");
    rig.read(0, Record { slots: 1, ..held_by("b", 1) });
    assert!(rig.write(1).is_none(), "the group has one");
    rig.see(0, held_by("b", 1));
    assert!(matches!(rig.write(1), Some((Claim::Held(_), _))), "{:?}", rig.outputs);
}

#[test]
fn while_one_slot_is_acquired_no_other_is_tried_whatever_becomes_free() {
    let mut rig = Rig::new();
    rig.read(1, held_by("b", 1));
    rig.read(0, released_by("z", None));
    let (_, attempt) = rig.write(0).unwrap();
    rig.step(0, Input::Written { attempt, outcome: Write::Unknown("no answer".to_owned()) });
    rig.see(1, released_by("b", Some("a")));
    assert!(rig.write(1).is_none(), "the first write is not resolved");
    rig.now = rig.now + LEASE;
    rig.step(0, Input::Wake);
    rig.numbers[0] += 1;
    rig.read(0, held_by("c", 2));
    assert!(rig.write(1).is_some(), "somebody else was first there, so this one is free to try: {:?}", rig.outputs);
}

#[test]
fn the_platforms_own_lock_of_the_others_is_left_alone_until_the_turn_is_over() {
    let mut rig = Rig::new();
    assert!(rig.steps_back(1).is_some_and(|pause| pause > LEASE), "how many slots there are is not known yet");
    rig.read(1, held_by("b", 1));
    rig.read(0, held_by("c", 2));
    assert_eq!(rig.steps_back(1), Some(Duration::ZERO));
    rig.see(0, released_by("c", None));
    assert!(rig.steps_back(1).is_some_and(|pause| pause > LEASE));
    let (_, attempt) = rig.write(0).unwrap();
    rig.step(0, Input::Written { attempt, outcome: Write::Denied("not now".to_owned()) });
    assert_eq!(rig.steps_back(1), Some(Duration::ZERO));
}

#[test]
fn who_was_active_leaves_all_slots_to_others_for_a_moment() {
    let mut rig = Rig::active_in_the_first();
    rig.step(0, Input::Exited { code: 1 });
    rig.step(0, Input::Gone { proof: Proof::NoChildLeft, released: None });
    rig.confirm(0);
    assert_eq!(rig.slots.role(), Role::Standby);
    rig.read(0, released_by("a", None));
    assert!(rig.write(0).is_none() && rig.write(1).is_none(), "the second slot is free, but others go first");
    let at = rig.slots.next_wakeup().unwrap();
    assert!(at > rig.now && at < rig.now + LEASE);
    rig.now = at;
    rig.step(0, Input::Wake);
    assert!(rig.write(0).is_some() != rig.write(1).is_some(), "one of them: {:?}", rig.outputs);
}

#[test]
fn who_starts_anew_goes_on_in_its_own_slot() {
    let mut rig = Rig::of(OnExit::Restart);
    rig.read(0, held_by("b", 1));
    rig.read(1, released_by("z", None));
    rig.confirm(1);
    rig.see(0, released_by("b", None));
    rig.now = rig.now + LEASE / 2;
    rig.step(0, Input::Wake);
    rig.confirm(1);
    rig.step(0, Input::Exited { code: 1 });
    rig.step(0, Input::Gone { proof: Proof::NoChildLeft, released: None });
    rig.confirm(1);
    assert!(rig.write(0).is_none(), "the first slot is free as well");
    rig.read(1, released_by("a", Some("a")));
    assert!(rig.write(1).is_some() && rig.write(0).is_none(), "{:?}", rig.outputs);
}

#[test]
fn who_holds_another_slot_is_no_successor() {
    let mut rig = Rig::active_in_the_first();
    rig.see(1, held_by("b", 1));
    rig.step(0, Input::Candidates(["a", "b", "c"].map(str::to_owned).to_vec()));
    rig.step(0, Input::Request(Request::Switchover { to: Some("b".to_owned()) }));
    assert_eq!(rig.answer(), Some(Err(RefusalKind::NoCandidate)));
    rig.step(0, Input::Request(Request::Switchover { to: None }));
    assert_eq!(rig.answer(), Some(Ok(())));
    assert!(rig.has(|action| matches!(action, Action::Stop { successor: Some(name), .. } if name == "c")));
}

#[test]
fn an_operator_vouches_for_the_end_of_whoever_holds_any_slot() {
    let mut rig = Rig::new();
    rig.read(0, held_by("b", 1));
    rig.read(1, held_by("c", 2));
    rig.step(0, Input::Request(Request::Fenced { activation: Activation(3) }));
    assert_eq!(rig.answer(), Some(Err(RefusalKind::Conflict)));
    rig.step(0, Input::Request(Request::Fenced { activation: Activation(2) }));
    assert_eq!(rig.answer(), Some(Ok(())));
    assert!(rig.write(1).is_some() && rig.write(0).is_none());
}

#[test]
fn who_leaves_does_so_once_its_slot_is_released_and_takes_no_other() {
    let mut rig = Rig::active_in_the_first();
    rig.step(0, Input::Leave);
    assert!(rig.has(|action| matches!(action, Action::Stop { .. })) && !rig.has(is_exit));
    rig.step(0, Input::Gone { proof: Proof::NoChildLeft, released: None });
    rig.confirm(0);
    assert!(rig.has(is_exit) && rig.write(1).is_none(), "{:?}", rig.outputs);
    rig.see_after_the_end();
}

fn is_exit(action: &Action) -> bool {
    matches!(action, Action::Exit(Exit::StoodBy))
}

impl Rig {
    fn see_after_the_end(&mut self) {
        self.step(0, Input::Wake);
        assert!(self.write(0).is_none() && self.write(1).is_none(), "{:?}", self.outputs);
    }
}

#[test]
fn an_unhealthy_member_tries_no_slot() {
    let mut rig = Rig::new();
    rig.step(0, Input::Health(false));
    rig.read(0, released_by("z", None));
    rig.read(1, released_by("z", None));
    assert!(rig.write(0).is_none() && rig.write(1).is_none());
    rig.step(0, Input::Health(true));
    assert!(rig.write(0).is_some() && rig.write(1).is_none(), "the lowest first: {:?}", rig.outputs);
}

#[test]
fn what_was_measured_in_one_slot_counts_in_the_next() {
    let mut rig = Rig::active_in_the_first();
    let before = rig.slots.timing().kill_after();
    rig.step(0, Input::Measured { lateness: Duration::from_millis(1_500), proof: Duration::ZERO });
    let shorter = rig.slots.timing().kill_after();
    assert!(shorter < before);
    rig.step(0, Input::GuardLost);
    rig.step(0, Input::Gone { proof: Proof::NoChildLeft, released: None });
    rig.confirm(0);
    rig.read(0, held_by("b", 1));
    rig.now = rig.slots.next_wakeup().unwrap();
    rig.step(0, Input::Wake);
    rig.confirm(1);
    assert_eq!((rig.slots.turn(), rig.slots.timing().kill_after()), (Some(1), shorter));
}

#[test]
fn who_is_away_from_a_slot_is_not_brought_back_by_its_machine() {
    let mut rig = Rig::active_in_the_first();
    for _ in 0..2 {
        rig.see(1, released_by("z", None));
        assert_eq!(rig.steps_back(1), None, "{:?}", rig.outputs);
        rig.now = rig.now + LEASE / 2;
    }
}
