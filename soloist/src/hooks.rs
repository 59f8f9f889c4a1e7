//! Runs the user's commands when this member becomes active, is stopped, or stands by. Nobody waits for them: a hook
//! that hangs delays other hooks, and nothing else.

pub mod course;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::commands::{Call, Commands, Ended, How};
use crate::settings::hooks::Hooks as Settings;
use crate::snapshot::Snapshot;
use course::{Course, Hook, Step};

/// Hooks that wait for the one that runs; with more, the oldest is dropped.
const QUEUE_MAX: usize = 8;

/// What hooks get in all when the member has released and leaves.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// Runs hooks until the elector has ended, and what is left of them for a moment longer.
pub async fn run(settings: Settings, commands: Commands, mut snapshots: watch::Receiver<Snapshot>) {
    let mut runner = Runner::new(settings, commands);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        runner.follow(&snapshot);
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() {
                break;
            },
            () = runner.next() => {}
        }
    }
    // The last thing that the elector said is still there.
    let last = snapshots.borrow().clone();
    runner.follow(&last);
    if timeout(LAST_LIMIT, runner.finish()).await.is_err() {
        tracing::warn!("leaving without waiting any longer for hooks: {}", runner.names());
    }
}

/// A hook that runs.
struct Running {
    step: Step,
    end: Pin<Box<dyn Future<Output = Ended> + Send>>,
}

struct Runner {
    settings: Settings,
    commands: Commands,
    course: Course,
    queue: VecDeque<(Step, Call)>,
    running: Option<Running>,
}

impl Runner {
    fn new(settings: Settings, commands: Commands) -> Self {
        Self { settings, commands, course: Course::default(), queue: VecDeque::new(), running: None }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        for step in self.course.follow(snapshot) {
            if let Some(line) = self.line(step.hook).cloned() {
                let environment = environment(&step, snapshot);
                self.queue.push_back((step, Call { line, environment, limit: self.settings.timeout }));
            }
        }
        while self.queue.len() > QUEUE_MAX
            && let Some((step, _)) = self.queue.pop_front()
        {
            tracing::warn!("the hook {} is dropped: too many wait for the one that runs", step.hook);
        }
        self.begin();
    }

    fn line(&self, hook: Hook) -> Option<&String> {
        match hook {
            Hook::Active => self.settings.on_active.as_ref(),
            Hook::Standby => self.settings.on_standby.as_ref(),
            Hook::Stop => self.settings.on_stop.as_ref(),
        }
    }

    fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        if let Some((step, call)) = self.queue.pop_front() {
            let commands = self.commands.clone();
            let end = Box::pin(async move { commands.run(&call).await });
            self.running = Some(Running { step, end });
        }
    }

    /// Waits for the end of the hook that runs, and begins the next one. Cancel safe.
    async fn next(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let ended = running.end.as_mut().await;
        note(&running.step, &ended);
        self.running = None;
        self.begin();
    }

    async fn finish(&mut self) {
        while self.running.is_some() {
            self.next().await;
        }
    }

    fn names(&self) -> String {
        let running = self.running.iter().map(|running| running.step.hook);
        let names = running.chain(self.queue.iter().map(|(step, _)| step.hook));
        names.map(|hook| hook.to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn note(step: &Step, ended: &Ended) {
    match ended.how {
        How::Code(0) => tracing::info!("the hook {} {ended}", step.hook),
        _ => tracing::warn!("the hook {} failed: {ended}", step.hook),
    }
}

/// What a hook finds in its environment; what does not apply is taken away.
fn environment(step: &Step, snapshot: &Snapshot) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("SOLOIST_HOOK", Some(step.hook.to_string())),
        ("SOLOIST_ROLE", Some(step.hook.role().to_owned())),
        ("SOLOIST_MEMBER", Some(snapshot.name.clone())),
        ("SOLOIST_GROUP", Some(snapshot.group.clone())),
        ("SOLOIST_REASON", Some(snapshot.reason.clone())),
        ("SOLOIST_FENCING_TOKEN", step.of.map(|of| of.token.to_string())),
        ("SOLOIST_ACTIVATION", step.of.map(|of| of.activation.to_string())),
        ("SOLOIST_SLOT", snapshot.slot.map(|slot| slot.to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use election::Role;

    use super::*;
    use crate::health::without_check;

    #[tokio::test]
    async fn the_oldest_of_too_many_is_dropped_and_the_one_that_runs_is_not() {
        let standby = Snapshot::new("g", "a", Duration::from_secs(15), without_check(), 0);
        let commands = Commands::new(None);
        let line = || Some("true".to_owned());
        let hooks = Settings { on_active: line(), on_standby: line(), on_stop: None, timeout: Duration::from_secs(20) };
        let mut runner = Runner::new(hooks, commands);
        runner.follow(&standby);
        for number in 1..=20 {
            let (stop_at, kill_at) = Default::default();
            let (activation, token) = (election::Activation(number.into()), election::Token(number));
            let mut active = standby.clone();
            active.role = Role::Active;
            active.tenure = Some(crate::snapshot::Tenure { activation, token, stop_at, kill_at });
            active.workload = crate::snapshot::Workload::Running { pid: 1, since_unix_us: 0 };
            runner.follow(&active);
        }
        assert_eq!(runner.running.as_ref().map(|running| running.step.hook), Some(Hook::Standby));
        let waiting: Vec<_> = runner.queue.iter().filter_map(|(step, _)| Some(step.of?.token.0)).collect();
        assert_eq!(waiting, [13, 14, 15, 16, 17, 18, 19, 20]);
        runner.finish().await;
        assert!(runner.queue.is_empty());
    }
}
