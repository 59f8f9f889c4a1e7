//! Asks whether this member may be active, and tells the elector when the answer has changed.
//!
//! A command is asked on active and standby alike; a server only while the own workload runs, because on a cold standby
//! there is nothing that could answer, unless the member runs nothing: what is beside it is there all the time. A workload
//! that is kept warm is asked while it runs, and each one anew. Where nobody can say, nothing changes.

pub mod http;
pub mod judge;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use election::{Activation, Entropy, Instant, Role};
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::commands::{Call, Commands, How};
use crate::elector::Order;
use crate::entropy::KernelEntropy;
use crate::settings::health::{Check, Health as Settings, Subject};
use crate::snapshot::{Health, Snapshot, Workload};
use judge::{Finding, Judge, Origin};

/// What goes to the elector and into announcements is for a line.
const WHY_MAX: usize = 200;

/// Jitter shortens an interval by up to this part.
const JITTER_PART: u32 = 10;

/// What a member without a check says.
pub fn without_check() -> Health {
    Health { healthy: true, why: "there is no health check".to_owned() }
}

/// What the member says before the first check.
pub fn before_the_first(settings: Option<&Settings>) -> Health {
    settings.map_or_else(without_check, |settings| judge(settings).health(false, clock::now()))
}

fn judge(settings: &Settings) -> Judge {
    let origin = match (settings.subject, &settings.check) {
        (Subject::Cold, Check::Http(_)) => Origin::Trusted,
        _ => Origin::Unproven,
    };
    Judge::new(settings.rules, origin)
}

/// Checks until the elector ends.
///
/// # Errors
/// None so far; the tasks around an elector end alike.
pub async fn run(
    settings: Settings,
    commands: Commands,
    mut snapshots: watch::Receiver<Snapshot>,
    orders: mpsc::Sender<Order>,
) -> anyhow::Result<()> {
    let mut watcher = Watcher::new(settings, commands);
    let mut said = snapshots.borrow().health.clone();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        watcher.follow(&snapshot, clock::now());
        let health = watcher.judge.health(is_alone(&snapshot), clock::now());
        if health != said {
            note(&said, &health);
            said = health.clone();
            if orders.send(Order::Health(health)).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                return Ok(());
            },
            () = watcher.next() => {}
        }
    }
}

fn note(before: &Health, after: &Health) {
    match (before.healthy, after.healthy) {
        (true, false) => tracing::warn!("unhealthy: {}", after.why),
        (false, true) => tracing::info!("healthy: {}", after.why),
        (_, false) => tracing::warn!("still unhealthy: {}", after.why),
        (true, true) => {}
    }
}

/// Nobody is active, and no other member is fit to be: a holder that is not there any more counts as nobody.
fn is_alone(snapshot: &Snapshot) -> bool {
    let is_there = |name: &str| snapshot.members.iter().any(|member| member.name == name);
    let holder = snapshot.holder.as_ref().filter(|holder| holder.name != snapshot.name && is_there(&holder.name));
    holder.is_none() && !snapshot.another_is_fit()
}

/// A question under way, and as what the member asked it.
struct Question {
    stance: Stance,
    answer: Pin<Box<dyn Future<Output = Finding> + Send>>,
}

/// How the member stands, as far as a check is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    Standby,
    Active { activation: Activation, runs: bool },
    Stopping,
}

impl Stance {
    fn of(snapshot: &Snapshot) -> Self {
        match (snapshot.role, snapshot.tenure) {
            (Role::Active, Some(tenure)) => {
                let runs = matches!(snapshot.workload, Workload::Running { .. });
                Stance::Active { activation: tenure.activation, runs }
            }
            (Role::Active | Role::Stopping | Role::Ended, _) => Stance::Stopping,
            (Role::Standby | Role::Acquiring, _) => Stance::Standby,
        }
    }

    fn activation(self) -> Option<Activation> {
        match self {
            Stance::Active { activation, .. } => Some(activation),
            Stance::Standby | Stance::Stopping => None,
        }
    }

    fn runs(self) -> bool {
        matches!(self, Stance::Active { runs: true, .. })
    }
}

struct Watcher {
    settings: Settings,
    commands: Commands,
    judge: Judge,
    stance: Stance,
    /// The workload that is kept warm, by its PID.
    warm: Option<i32>,
    snapshot: Option<Snapshot>,
    question: Option<Question>,
    ask_at: Instant,
    /// The last question had no answer: said once in a row.
    unknown: bool,
}

impl Watcher {
    fn new(settings: Settings, commands: Commands) -> Self {
        Self {
            judge: judge(&settings),
            settings,
            commands,
            stance: Stance::Standby,
            warm: None,
            snapshot: None,
            question: None,
            ask_at: clock::now(),
            unknown: false,
        }
    }

    /// Takes in where the member stands now.
    fn follow(&mut self, snapshot: &Snapshot, now: Instant) {
        let before = std::mem::replace(&mut self.stance, Stance::of(snapshot));
        let same = before.activation() == self.stance.activation();
        if !same && before.activation().is_some() {
            let gave_up = self.snapshot.as_ref().is_some_and(|before| gave_up(before, snapshot));
            self.judge.workload_left(gave_up, now);
        }
        let begins = self.stance.runs() && !(same && before.runs());
        if self.settings.subject == Subject::Warm {
            self.follow_warm(snapshot.workload, now);
        } else if begins {
            self.judge.workload_started(now);
        }
        if begins {
            self.ask_at = now;
        }
        self.judge.tick(self.stance.runs(), now);
        self.snapshot = Some(snapshot.clone());
    }

    /// Nothing is known of another process than the one that was asked.
    fn follow_warm(&mut self, workload: Workload, now: Instant) {
        let warm = match workload {
            Workload::Warm { pid, .. } | Workload::Running { pid, .. } => Some(pid),
            Workload::None => None,
            // The same one as before.
            Workload::Starting | Workload::Stopping { .. } => self.warm,
        };
        if warm != self.warm {
            self.warm = warm;
            self.question = None;
            self.judge.begin_anew();
            self.ask_at = now;
        }
    }

    /// Whether there is somebody to ask.
    fn can_ask(&self) -> bool {
        match (self.settings.subject, &self.settings.check) {
            (Subject::Warm, _) => self.warm.is_some() && self.stance != Stance::Stopping,
            (Subject::Beside, _) | (Subject::Cold, Check::Exec(_)) => self.stance != Stance::Stopping,
            (Subject::Cold, Check::Http(_)) => self.stance.runs(),
        }
    }

    /// Waits for an answer, for the time to ask, or for the judge's. Cancel safe.
    async fn next(&mut self) {
        let now = clock::now();
        let asks = (self.question.is_none() && self.can_ask()).then_some(self.ask_at);
        let wakeup = asks.into_iter().chain(self.judge.next_change(now)).min();
        tokio::select! {
            biased;
            finding = answer(&mut self.question) => self.hear(finding),
            () = sleep_until(wakeup, now) => self.ask(),
        }
    }

    fn ask(&mut self) {
        let now = clock::now();
        if self.question.is_some() || !self.can_ask() || now < self.ask_at {
            return;
        }
        self.ask_at = now + jittered(self.settings.rules.interval, KernelEntropy.bits());
        let limit = self.settings.rules.timeout;
        let answer: Pin<Box<dyn Future<Output = Finding> + Send>> = match &self.settings.check {
            Check::Exec(line) => {
                let environment = self.snapshot.as_ref().map(environment).unwrap_or_default();
                let call = Call { line: line.clone(), environment, limit };
                let commands = self.commands.clone();
                Box::pin(async move { ask_command(&commands, &call).await })
            }
            Check::Http(target) => {
                let target = target.clone();
                Box::pin(async move { http::ask(&target, limit).await })
            }
        };
        self.question = Some(Question { stance: self.stance, answer });
    }

    fn hear(&mut self, finding: Finding) {
        let Some(question) = self.question.take() else { return };
        tracing::debug!(?finding, "health check");
        // What was asked as a standby says nothing about the active one, nor the other way round.
        let asked_as = (question.stance.activation(), question.stance.runs());
        if asked_as != (self.stance.activation(), self.stance.runs()) {
            return;
        }
        let was_unknown = std::mem::replace(&mut self.unknown, matches!(finding, Finding::Unknown(_)));
        if let (Finding::Unknown(why), false) = (&finding, was_unknown) {
            tracing::warn!("the health check says nothing: {why}");
        }
        self.judge.observe(finding, clock::now());
    }
}

/// Whether a member stopped being active as an unhealthy one does that gives up: while another one was fit. The elector
/// takes in what it is told and gives up at once, so it may never have been seen active and unhealthy.
fn gave_up(before: &Snapshot, after: &Snapshot) -> bool {
    !after.health.healthy && (before.another_is_fit() || after.another_is_fit())
}

/// The answer to the question, or nothing for ever where there is none.
async fn answer(question: &mut Option<Question>) -> Finding {
    match question {
        Some(question) => question.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>, now: Instant) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now)).await,
        None => std::future::pending().await,
    }
}

fn jittered(interval: Duration, bits: u64) -> Duration {
    const STEPS: u32 = 1 << 10;
    let step = u32::try_from(bits % u64::from(STEPS)).unwrap_or(0);
    interval - interval / JITTER_PART * step / STEPS
}

/// What a check finds in its environment. An activation is none of its business: what carries one is swept with it.
fn environment(snapshot: &Snapshot) -> Vec<(&'static str, Option<String>)> {
    let is_active = snapshot.told_role() == Role::Active;
    let token = snapshot.tenure.filter(|_| is_active).map(|tenure| tenure.token.to_string());
    let role = if is_active { "active" } else { "standby" };
    vec![
        ("SOLOIST_ROLE", Some(role.to_owned())),
        ("SOLOIST_MEMBER", Some(snapshot.name.clone())),
        ("SOLOIST_GROUP", Some(snapshot.group.clone())),
        ("SOLOIST_FENCING_TOKEN", token),
        ("SOLOIST_ACTIVATION", None),
    ]
}

async fn ask_command(commands: &Commands, call: &Call) -> Finding {
    let ended = commands.run(call).await;
    match ended.how {
        How::Code(0) => Finding::Pass,
        How::Unknown(_) => Finding::Unknown(short(&ended.to_string())),
        _ => Finding::Fail(short(&format!("the check {ended}"))),
    }
}

fn short(why: &str) -> String {
    why.chars().take(WHY_MAX).collect()
}

#[cfg(test)]
mod tests;
