//! When whoever guards is asked whether it is there, and how long it may take to answer.

use std::time::Duration;

use election::Instant;

/// How long an answer may take, unless the elector says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The patience is counted in so many parts. A part that the asking process itself slept through (stopped, suspended,
/// frozen together with the one that is asked) counts once, however long it was.
const PATIENCE_PARTS: u32 = 4;

/// The questions to one guard.
#[derive(Debug)]
pub(super) struct Attention {
    patience: Duration,
    /// The question that is not answered yet, if any.
    asked: Option<Asked>,
    /// While something runs.
    run: Option<Run>,
}

#[derive(Debug)]
struct Asked {
    /// The newest question; its answer settles all.
    sent: Instant,
    /// When the present part of the patience is over.
    look_at: Instant,
    parts_left: u32,
}

#[derive(Debug)]
struct Run {
    kill_at: Instant,
    /// When the guard is asked, apart from extensions.
    check_at: Instant,
}

impl Attention {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, asked: None, run: None }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Something runs from now on, or its deadline has moved.
    ///
    /// The guard is asked shortly before and at the deadline, so that one which has just been stopped is found out
    /// within the patience, and again and again after it, until the tree is gone.
    pub(super) fn runs_until(&mut self, kill_at: Instant, now: Instant) {
        let checks = [kill_at - self.patience, kill_at];
        let check_at = checks.into_iter().find(|check| *check > now).unwrap_or(now + self.patience);
        self.run = Some(Run { kill_at, check_at });
    }

    /// Nothing runs any more.
    pub(super) fn runs_no_more(&mut self) {
        self.run = None;
    }

    /// A question is sent now. To ask again does not give more time.
    pub(super) fn asks(&mut self, now: Instant) {
        let part = self.patience / PATIENCE_PARTS;
        match &mut self.asked {
            Some(asked) => asked.sent = now,
            None => self.asked = Some(Asked { sent: now, look_at: now + part, parts_left: PATIENCE_PARTS }),
        }
    }

    /// The question that was sent then is answered.
    pub(super) fn answered(&mut self, sent: Instant) {
        self.asked.take_if(|asked| asked.sent <= sent);
    }

    /// Who was asked will not answer any more.
    pub(super) fn forget(&mut self) {
        self.asked = None;
    }

    /// When to call [`Attention::is_to_ask`] and [`Attention::is_over`].
    pub(super) fn look_at(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.look_at);
        let check = self.run.as_ref().map(|run| run.check_at);
        [asked, check].into_iter().flatten().min()
    }

    /// Whether a question is due.
    pub(super) fn is_to_ask(&mut self, now: Instant) -> bool {
        let Some(kill_at) = self.run.as_ref().filter(|run| now >= run.check_at).map(|run| run.kill_at) else {
            return false;
        };
        self.runs_until(kill_at, now);
        true
    }

    /// Whether an answer has taken longer than the patience.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let part = self.patience / PATIENCE_PARTS;
        let Some(asked) = self.asked.as_mut().filter(|asked| now >= asked.look_at) else { return false };
        asked.parts_left = asked.parts_left.saturating_sub(1);
        asked.look_at = now + part;
        asked.parts_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn an_answer_settles_all_questions_before_it_and_none_after_it() {
        let mut attention = Attention::new(SECOND);
        attention.asks(at(0));
        attention.asks(at(100));
        attention.answered(at(0));
        assert_eq!(attention.look_at(), Some(at(250)), "asked again, not later");
        attention.answered(at(100));
        assert_eq!(attention.look_at(), None);
    }

    #[test]
    fn a_part_of_the_patience_that_was_slept_through_counts_once() {
        let mut attention = Attention::new(SECOND);
        attention.asks(at(0));
        assert!(!attention.is_over(at(60_000)));
        assert!(!attention.is_over(at(60_250)) && !attention.is_over(at(60_500)));
        assert!(attention.is_over(at(60_750)));
    }

    #[test]
    fn it_is_asked_before_the_deadline_and_at_it_and_from_then_on() {
        let mut attention = Attention::new(SECOND);
        attention.runs_until(at(10_000), at(0));
        for due in [9_000, 10_000, 11_000, 12_000] {
            assert_eq!(attention.look_at(), Some(at(due)));
            assert!(!attention.is_to_ask(at(due - 1)) && attention.is_to_ask(at(due)));
        }
        attention.runs_no_more();
        assert_eq!(attention.look_at(), None);
    }
}
