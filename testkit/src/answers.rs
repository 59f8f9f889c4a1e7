//! Who answers at the address of a Service, asked again and again from a node, through kube-proxy's rules.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::history::{History, Span};
use crate::stamp;
use crate::wait::wait_until;

/// Between two questions.
const PACE: Duration = Duration::from_millis(1);
/// For one answer: while nobody gets traffic, packets may be dropped.
const PATIENCE: Duration = Duration::from_millis(50);

/// So many answers in a row say that traffic has settled.
const STEADY: usize = 20;

/// One question and what came of it.
#[derive(Clone, Debug)]
struct Answer {
    asked: u64,
    answered: u64,
    /// The pod that answered, if one did.
    who: Option<String>,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    answers: Arc<Mutex<Vec<Answer>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Asks at `address`, from the network of `node`.
    pub fn start(node: &str, address: SocketAddr) -> Result<Self> {
        let path = format!("/run/netns/{node}");
        let network = File::open(&path).with_context(|| format!("failed to open {path}"))?;
        let (answers, ends): (Arc<Mutex<Vec<Answer>>>, Arc<AtomicBool>) = Default::default();
        let (told, is_over) = (Arc::clone(&answers), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            // For this thread alone.
            if let Err(error) = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)) {
                eprintln!("nothing is sampled: {error}");
                return;
            }
            while !is_over.load(Ordering::Relaxed) {
                let asked = stamp::now();
                let who = ask(address);
                let answer = Answer { asked, answered: stamp::now(), who };
                told.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                std::thread::sleep(PACE);
            }
        });
        Ok(Self { answers, ends, thread: Some(thread) })
    }

    fn all(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `who` has answered for a while, and nobody else.
    pub fn wait(&self, who: &str, limit: Duration) -> Result<()> {
        let answers = || {
            let all = self.all();
            let latest: Vec<_> = all.iter().rev().take(STEADY).collect();
            latest.len() == STEADY && latest.iter().all(|answer| answer.who.as_deref() == Some(who))
        };
        wait_until(&format!("answers of {who}"), limit, answers)
    }

    /// Only who was active has answered: after the last stamp of the one before it, and before the first stamp of the next.
    /// What answers is not what stamps, and may begin a moment earlier and end a moment later. Returns how many answers
    /// there were, and the longest time between two.
    pub fn check(&self, history: &History) -> Result<(usize, Duration)> {
        let answers: Vec<Answer> = self.all().into_iter().filter(|answer| answer.who.is_some()).collect();
        let mut spans: Vec<&Span> = history.spans.iter().collect();
        spans.sort_by_key(|span| span.token);
        let mut latest = 0;
        for answer in &answers {
            let was_active = |at: &usize| {
                let begin = at.checked_sub(1).and_then(|before| spans.get(before)).map_or(0, |before| before.last);
                let end = spans.get(at + 1).map_or(u64::MAX, |next| next.first);
                spans[*at].member == *answer.who.as_deref().unwrap_or_default()
                    && answer.answered > begin
                    && answer.asked < end
            };
            let turn = (0..spans.len()).find(was_active);
            let turn = turn.with_context(|| format!("{answer:?} came from one that was not active: {history}"))?;
            ensure!(turn >= latest, "{answer:?} came after an answer of a later one");
            latest = turn;
        }
        let silences = answers.windows(2).map(|pair| pair[1].answered.saturating_sub(pair[0].answered));
        Ok((answers.len(), Duration::from_nanos(silences.max().unwrap_or_default())))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let who = text.trim();
    (!who.is_empty()).then(|| who.to_owned())
}
