//! What kubectl shows of one object while it changes.

use anyhow::Result;

use super::LIMIT;
use crate::kubectl::Kubectl;
use crate::listener::Listener;
use crate::wait::wait_for;

/// A line that was shown, and when: in nanoseconds of CLOCK_BOOTTIME.
pub type Heard = (u64, String);

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Ear(Listener<Heard>);

impl Ear {
    /// Hears `path`, as kubectl's `jsonpath` takes it, of an object: as it is, and again at each change.
    pub(super) fn open(kubectl: &Kubectl, object: &[&str], path: &str) -> Result<Self> {
        let format = format!("jsonpath={path}{{\"\\n\"}}");
        let words = [&["get"], object, &["--watch", "-o", &format]].concat();
        let ear = Self(Listener::start(kubectl, &words, |at, line| (at, line))?);
        wait_for("kubectl to show something", LIMIT, || ear.heard().pop())?;
        Ok(ear)
    }

    /// All lines so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.0.heard()
    }

    /// The first line that says anything.
    pub fn told(&self) -> Result<Heard> {
        wait_for("kubectl to show what is waited for", LIMIT, || {
            self.heard().into_iter().find(|(_, line)| !line.trim().is_empty())
        })
    }

    /// When the last line that begins with `start` was shown first; nothing if that stood there at the beginning, as it
    /// may have for long.
    pub fn last_change(&self, start: &str) -> Option<u64> {
        let heard = self.heard();
        let (_, last) = heard.iter().rev().find(|(_, line)| line.starts_with(start))?;
        let first = heard.iter().position(|(_, line)| line == last).filter(|first| *first > 0)?;
        heard.get(first).map(|(at, _)| *at)
    }
}
