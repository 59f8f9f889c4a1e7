//! Who answers at an address, asked again and again from a node: at that of a Service through kube-proxy's rules, or at
//! that of a pod.

mod ask;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use self::ask::{Conversation, PORTS, ask};
use crate::history::{History, Span};
use crate::stamp;
use crate::wait::wait_until;

pub use self::ask::Manner;

/// Between two questions. One that is not answered does not hold up the next.
const PACE: Duration = Duration::from_millis(1);

/// So many answers in a row say that traffic has settled.
const STEADY: usize = 100;

/// What somebody answered from some instant on, in nanoseconds of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// It had begun when the first answer came.
    pub begun: u64,
    /// It had not ended when the last question that it answered was asked.
    pub lasted: u64,
}

/// One question and what came of it.
#[derive(Clone, Debug)]
struct Answer {
    asked: u64,
    answered: u64,
    /// Who answered, or was named, if an answer came.
    who: Option<String>,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    answers: Arc<Mutex<Vec<Answer>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What answers say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Questions.
    pub asked: usize,
    /// From the first question to the last answer.
    pub time: Duration,
    /// Questions that were answered.
    pub answered: usize,
    /// The longest time without an answer, between two or before the first.
    pub silence: Duration,
    /// Answers of a pod that cannot be told apart in time from one of another pod.
    pub of_two: usize,
    /// Answers of a pod that was not active.
    pub of_others: usize,
}

impl Sampler {
    /// Asks at `address`, from the network of `node`.
    pub fn start(node: &str, address: SocketAddr, manner: Manner) -> Result<Self> {
        let path = format!("/run/netns/{node}");
        Self::start_in(Some(File::open(&path).with_context(|| format!("failed to open {path}"))?), address, manner)
    }

    /// The same from this process' own network.
    pub fn start_here(address: SocketAddr, manner: Manner) -> Result<Self> {
        Self::start_in(None, address, manner)
    }

    fn start_in(network: Option<File>, address: SocketAddr, manner: Manner) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (answers, ends): (Arc<Mutex<Vec<Answer>>>, Arc<AtomicBool>) = Default::default();
        let (told, is_over) = (Arc::clone(&answers), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            // For this thread alone.
            let network = network.as_ref().map(AsFd::as_fd);
            if let Some(Err(error)) =
                network.map(|network| move_into_link_name_space(network, Some(LinkNameSpaceType::Network)))
            {
                eprintln!("nothing is sampled: {error}");
                return;
            }
            runtime.block_on(sample(address, manner, &told, &is_over));
        });
        Ok(Self { answers, ends, thread: Some(thread) })
    }

    /// All that was asked from then on, in this order.
    fn since(&self, since: u64) -> Vec<Answer> {
        let all = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late: Vec<Answer> = all.iter().filter(|answer| answer.asked >= since).cloned().collect();
        late.sort_by_key(|answer| answer.asked);
        late
    }

    /// From the first to the last answer of `who` to what was asked from `since` on, if there is one.
    pub fn turn(&self, who: &str, since: u64) -> Option<Turn> {
        let mut answers = self.since(since);
        answers.retain(|answer| answer.who.as_deref() == Some(who));
        let begun = answers.iter().map(|answer| answer.answered).min()?;
        answers.last().map(|last| Turn { begun, lasted: last.asked })
    }

    /// Waits until `who` has answered for a while, and nobody else, of all that was asked from `since` on. Some questions
    /// stay without an answer while a node is lost, and its pods are not known to be gone.
    pub fn wait(&self, who: &str, since: u64, limit: Duration) -> Result<()> {
        let answers = || {
            let all = self.since(since);
            let latest: Vec<_> = all.iter().rev().filter_map(|answer| answer.who.as_deref()).take(STEADY).collect();
            latest.len() == STEADY && latest.iter().all(|answer| *answer == who)
        };
        wait_until(&format!("answers of {who}"), limit, answers)
    }

    /// Fails unless only who was active has answered, and never two at once, of all that was asked from `since` on.
    pub fn check(&self, history: &History, since: u64) -> Result<Findings> {
        let findings = Findings::of(&self.since(since), history);
        ensure!(findings.of_two == 0 && findings.of_others == 0, "{findings}: {history}");
        Ok(findings)
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

async fn sample(address: SocketAddr, manner: Manner, told: &Arc<Mutex<Vec<Answer>>>, is_over: &AtomicBool) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let tell = |told: &Mutex<Vec<Answer>>, asked, who| {
        let answer = Answer { asked, answered: stamp::now(), who };
        told.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    };
    let (mut conversation, mut ports) = (Conversation::with(address), PORTS.cycle());
    // As many as are asked within the time that one has.
    let mut questions = JoinSet::new();
    while !is_over.load(Ordering::Relaxed) {
        pace.tick().await;
        let asked = stamp::now();
        if manner == Manner::Leader {
            tell(told, asked, conversation.ask().await);
            continue;
        }
        while questions.try_join_next().is_some() {}
        let Some(port) = ports.next() else { return };
        let told = Arc::clone(told);
        questions.spawn(async move { tell(&told, asked, ask(address, port, manner).await) });
    }
}

impl Turn {
    /// How long it was nobody's turn between this one and `next`; fails if it was for certain that of both at once.
    pub fn until(&self, next: &Self) -> Result<Duration> {
        let gap = next.begun.checked_sub(self.lasted).context("two at once")?;
        Ok(Duration::from_nanos(gap))
    }
}

impl Findings {
    /// `answers` are sorted by when they were asked.
    fn of(answers: &[Answer], history: &History) -> Self {
        let by = |answer: &Answer| answer.who.clone().map(|who| (answer.asked, answer.answered, who));
        let told: Vec<(u64, u64, String)> = answers.iter().filter_map(by).collect();
        let mut spans: Vec<&Span> = history.spans.iter().collect();
        spans.sort_by_key(|span| span.token);
        let (mut latest, mut of_two, mut of_others) = (BTreeMap::<&str, u64>::new(), 0, 0);
        for (asked, answered, who) in &told {
            let mut others = latest.iter().filter(|(other, _)| **other != who.as_str());
            of_two += usize::from(others.any(|(_, until)| until > asked));
            of_others += usize::from(!was_active(&spans, *asked, *answered, who));
            let until = latest.entry(who).or_default();
            *until = (*until).max(*answered);
        }
        let begin = answers.first().map_or(0, |answer| answer.asked);
        let mut moments: Vec<u64> = told.iter().map(|(_, answered, _)| *answered).chain([begin]).collect();
        moments.sort_unstable();
        let silence = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        let end = answers.iter().map(|answer| answer.answered).max().unwrap_or_default();
        Self {
            asked: answers.len(),
            time: Duration::from_nanos(end.saturating_sub(begin)),
            answered: told.len(),
            silence: Duration::from_nanos(silence),
            of_two,
            of_others,
        }
    }
}

/// Whether an answer can be from a pod's turn: after the last stamp of the one before, and before the first of the next.
/// The own stamps may begin a moment later than answers, and end a moment earlier.
fn was_active(spans: &[&Span], asked: u64, answered: u64, who: &str) -> bool {
    spans.iter().enumerate().any(|(at, span)| {
        let begin = at.checked_sub(1).and_then(|before| spans.get(before)).map_or(0, |before| before.last);
        let end = spans.get(at + 1).map_or(u64::MAX, |next| next.first);
        span.member == who && answered > begin && asked < end
    })
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, time, answered, silence, of_two, of_others } = self;
        let rate = *asked as f64 / time.as_secs_f64();
        write!(
            f,
            "{asked} questions in {time:.1?}, {rate:.0} a second, {answered} answers, the longest silence {silence:.1?}, \
             {of_two} answers of two at once, {of_others} of one that was not active"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Identity, Slot};

    fn history() -> History {
        let slot = |token: u64, member: &str, first: u64, last: u64| Slot {
            identity: Identity { token, activation: token.into(), member: member.into() },
            pid: 1,
            label: "main".into(),
            first,
            last,
            stamps: 2,
        };
        History::of(vec![slot(1, "a", 100, 200), slot(2, "b", 300, 400)])
    }

    fn found(answers: &[(u64, u64, &str)]) -> (usize, usize) {
        let answer = |(asked, answered, who): &(u64, u64, &str)| Answer {
            asked: *asked,
            answered: *answered,
            who: Some((*who).to_owned()),
        };
        let findings = Findings::of(&answers.iter().map(answer).collect::<Vec<_>>(), &history());
        (findings.of_two, findings.of_others)
    }

    #[test]
    fn turns_that_overlap_for_certain_are_found() {
        let turn = |begun, lasted| Turn { begun, lasted };
        assert_eq!(turn(100, 200).until(&turn(230, 300)).unwrap(), Duration::from_nanos(30));
        assert_eq!(turn(100, 200).until(&turn(200, 300)).unwrap(), Duration::ZERO);
        assert!(turn(100, 200).until(&turn(199, 300)).is_err());
    }

    #[test]
    fn answers_are_of_the_active_one_alone() {
        assert_eq!(found(&[(110, 120, "a"), (190, 210, "a"), (290, 310, "b"), (390, 395, "b")]), (0, 0));
    }

    #[test]
    fn answers_of_one_that_is_not_active_are_found() {
        assert_eq!(found(&[(110, 120, "b")]), (0, 1));
        assert_eq!(found(&[(310, 320, "b"), (330, 340, "a")]), (0, 1));
        assert_eq!(found(&[(310, 320, "c")]), (0, 1));
    }

    #[test]
    fn answers_of_two_in_one_moment_are_found() {
        assert_eq!(found(&[(190, 260, "a"), (250, 310, "b"), (320, 330, "b")]), (1, 0));
    }

    #[test]
    fn questions_without_an_answer_count_for_the_rate_alone() {
        let asked = |asked| Answer { asked, answered: asked + 1, who: None };
        let findings = Findings::of(&[asked(100), asked(200)], &history());
        assert_eq!((findings.asked, findings.answered, findings.time.as_nanos()), (2, 0, 101));
    }
}
