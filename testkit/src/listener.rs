//! What a kubectl that does not end by itself prints, line by line.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::kubectl::Kubectl;
use crate::stamp;

/// Listens until it is dropped, and keeps what each line came to.
#[derive(Debug)]
pub struct Listener<T> {
    kubectl: Child,
    thread: Option<JoinHandle<()>>,
    heard: Arc<Mutex<Vec<T>>>,
}

impl<T: Clone + Send + 'static> Listener<T> {
    /// Runs kubectl with `words`. `understand` gets each line and when it was there, in nanoseconds of CLOCK_BOOTTIME.
    pub fn start(
        kubectl: &Kubectl,
        words: &[&str],
        mut understand: impl FnMut(u64, String) -> T + Send + 'static,
    ) -> Result<Self> {
        let mut command = kubectl.command();
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut kubectl = command.spawn().context("failed to start kubectl")?;
        let lines = BufReader::new(kubectl.stdout.take().context("no stdout")?).lines();
        let heard: Arc<Mutex<Vec<T>>> = Arc::default();
        let told = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            for line in lines.map_while(std::io::Result::ok) {
                let understood = understand(stamp::now(), line);
                told.lock().unwrap_or_else(PoisonError::into_inner).push(understood);
            }
        });
        Ok(Self { kubectl, thread: Some(thread), heard })
    }

    /// Everything so far.
    pub fn heard(&self) -> Vec<T> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        // It may have ended with the server.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
