//! The log lines that people wait for.

use std::ffi::OsString;

use tokio::sync::watch;

use crate::member::Reading;
use crate::snapshot::{Snapshot, Workload};

/// Says what changed.
pub(super) struct Voice {
    /// What is said when the command starts.
    start: String,
    leader: Option<String>,
    started: Option<u64>,
    led: bool,
}

impl Voice {
    pub(super) fn new(command: &[OsString]) -> Self {
        let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (program, arguments) = words
            .split_first()
            .map_or((String::new(), String::new()), |(program, rest)| (program.clone(), rest.join(" ")));
        let start = format!("starting command '{program}' with arguments: '[{arguments}]'");
        Self { start, leader: None, started: None, led: false }
    }

    /// Follows the elector to its end.
    pub(super) fn follow(mut self, mut snapshots: watch::Receiver<Snapshot>) -> Reading {
        Box::pin(async move {
            loop {
                let lines = self.news(&snapshots.borrow_and_update());
                for line in lines {
                    tracing::info!("{line}");
                }
                if snapshots.changed().await.is_err() {
                    return Ok(());
                }
            }
        })
    }

    fn news(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        let leader = snapshot.holder.as_ref().map(|holder| &holder.name);
        if let Some(name) = leader
            && self.leader.as_ref() != Some(name)
        {
            lines.push(format!("long live our new leader: '{name}'!"));
            self.leader = Some(name.clone());
        }
        if let Some(tenure) = snapshot.tenure
            && snapshot.workload != Workload::None
            && self.started != Some(tenure.token.0)
        {
            lines.push(self.start.clone());
            self.started = Some(tenure.token.0);
        }
        let leads = snapshot.tenure.is_some();
        if std::mem::replace(&mut self.led, leads) && !leads {
            lines.push("lost leader status".to_owned());
        }
        lines
    }
}
