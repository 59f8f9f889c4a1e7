//! What kubectl shows of one object while it changes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::LIMIT;
use crate::kubectl::Kubectl;
use crate::stamp;
use crate::wait::wait_for;

/// A line that was shown, and when: in nanoseconds of CLOCK_BOOTTIME.
pub type Heard = (u64, String);

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Ear {
    kubectl: Child,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Ear {
    /// Hears `path`, as kubectl's `jsonpath` takes it, of an object: as it is, and again at each change.
    pub(super) fn open(kubectl: &Kubectl, object: &[&str], path: &str) -> Result<Self> {
        let mut kubectl = kubectl
            .command()
            .arg("get")
            .args(object)
            .args(["--watch", "-o", &format!("jsonpath={path}{{\"\\n\"}}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start kubectl")?;
        let lines = BufReader::new(kubectl.stdout.take().context("no stdout")?).lines();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let ear = Self { kubectl, heard: Arc::clone(&heard) };
        // Ends with kubectl's output.
        std::thread::spawn(move || {
            for line in lines.map_while(std::io::Result::ok) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push((stamp::now(), line));
            }
        });
        wait_for("kubectl to show something", LIMIT, || ear.heard().pop())?;
        Ok(ear)
    }

    /// All lines so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line that says anything.
    pub fn told(&self) -> Result<Heard> {
        wait_for("kubectl to show what is waited for", LIMIT, || {
            self.heard().into_iter().find(|(_, line)| !line.trim().is_empty())
        })
    }

    /// When the last line that begins with `start` was shown first.
    pub fn last_change(&self, start: &str) -> Option<u64> {
        let heard: Vec<Heard> = self.heard().into_iter().filter(|(_, line)| line.starts_with(start)).collect();
        let (_, last) = heard.last()?;
        heard.iter().find(|(_, line)| line == last).map(|(at, _)| *at)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // It may have ended with its output.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
