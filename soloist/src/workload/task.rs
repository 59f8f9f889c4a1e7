//! A task of this process that has something to do while the member is active: a term is given to it, is prolonged with
//! each renewal, and ends when the task says that nothing of it is under way any more.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use election::{Instant, Proof};
use tokio::sync::watch;

use super::{Ending, Event, Launch, Workload};
use crate::clock;

/// One time of being active, as the task sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its fencing token: larger than that of every term before.
    pub token: u64,
    /// Nothing may be begun from then on.
    pub until: Instant,
}

/// What the task holds: the present term, and a way to say that it is done with it.
#[derive(Debug)]
pub struct Terms {
    present: watch::Receiver<Option<Term>>,
    done_with: watch::Sender<u64>,
    reserve: Duration,
}

/// A term that can be asked whether it still lasts.
#[derive(Clone, Debug)]
pub struct Mandate {
    token: u64,
    present: watch::Receiver<Option<Term>>,
    done_with: watch::Sender<u64>,
    /// It is said to be over so long before it is.
    reserve: Duration,
}

impl Terms {
    /// Waits for the next term; nothing if there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<Mandate> {
        let term = self.present.wait_for(Option::is_some).await.ok()?.as_ref()?.token;
        let (present, done_with) = (self.present.clone(), self.done_with.clone());
        Some(Mandate { token: term, present, done_with, reserve: self.reserve })
    }
}

impl Mandate {
    /// Its fencing token.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Nothing of this term is under way any more, and nothing will be.
    pub fn finish(&self) {
        self.done_with.send_replace(self.token);
    }

    /// Whether something may be begun now.
    pub fn lasts(&self) -> bool {
        !self.rest().is_zero()
    }

    /// How long it lasts, unless it is prolonged.
    pub fn rest(&self) -> Duration {
        let term = self.present.borrow().filter(|term| term.token == self.token);
        term.map_or(Duration::ZERO, |term| term.until.since(clock::now()).saturating_sub(self.reserve))
    }

    /// Waits until it is not the present term any more. Cancel safe.
    pub async fn followed(&mut self) {
        let token = self.token;
        // An error: there will be no other one.
        let _ = self.present.wait_for(|term| term.is_none_or(|term| term.token != token)).await;
    }

    /// Waits until the term is over, or was not prolonged in time. Cancel safe.
    pub async fn over(&mut self) {
        let token = self.token;
        let is_over = |term: &Option<Term>| term.is_none_or(|term| term.token != token);
        loop {
            let rest = self.rest();
            if rest.is_zero() {
                return;
            }
            tokio::select! {
                ended = self.present.wait_for(is_over) => {
                    let _ = ended;
                    return;
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }
}

/// Stands where the workload would.
#[derive(Debug)]
pub struct Task {
    terms: watch::Sender<Option<Term>>,
    done_with: watch::Receiver<u64>,
    /// The token of the term that is under way, or is coming to its end.
    token: Option<u64>,
    is_ending: bool,
    /// Only its own word ends a term, and may do so at any time.
    is_trusted: bool,
    /// What this process holds while it has a term, and the kernel lets go of with it.
    held: Option<OwnedFd>,
    events: VecDeque<Event>,
}

impl Task {
    /// A task that has no term yet, and what it is to hold. At the deadline a term is over whatever the task says: all
    /// that it does quotes versions, and meets a conflict wherever another one has written since.
    pub fn new() -> (Self, Terms) {
        Self::of(false, Duration::ZERO)
    }

    /// The same for one that does anything: nothing but its own word says that nothing is under way any more. It hears
    /// that a term is over so long before the deadline, and may give one up.
    pub fn trusted(reserve: Duration) -> (Self, Terms) {
        Self::of(true, reserve)
    }

    fn of(is_trusted: bool, reserve: Duration) -> (Self, Terms) {
        let (terms, present) = watch::channel(None);
        let (done_with, done) = watch::channel(0);
        let events = VecDeque::new();
        let task = Self { terms, done_with: done, token: None, is_ending: false, is_trusted, held: None, events };
        (task, Terms { present, done_with, reserve })
    }

    fn gone(&mut self) {
        if self.token.take().is_some() {
            self.is_ending = false;
            self.held = None;
            self.terms.send_replace(None);
            self.events.push_back(Event::Gone { proof: Proof::NeverStarted, released: None });
        }
    }

    /// Takes in that the task is done with its term.
    fn note_done(&mut self) {
        if self.token != Some(*self.done_with.borrow()) {
            return;
        }
        if self.is_trusted && !self.is_ending {
            self.events.push_back(Event::Exited(Ending::Code(0)));
        } else if !self.is_ending {
            return;
        }
        self.gone();
    }
}

impl Workload for Task {
    fn has_processes(&self) -> bool {
        false
    }

    fn start(&mut self, launch: Launch, descriptor: Option<OwnedFd>) {
        let term = Term { token: launch.token.0, until: launch.kill_at };
        (self.token, self.is_ending, self.held) = (Some(term.token), false, descriptor);
        self.terms.send_replace(Some(term));
    }

    fn extend(&mut self, kill_at: Instant) {
        self.terms.send_modify(|term| {
            if let Some(term) = term {
                term.until = kill_at;
            }
        });
    }

    fn stop(&mut self, _grace: Duration, _successor: Option<String>, _why: &str) {
        if self.token.is_some() {
            self.is_ending = true;
            self.terms.send_replace(None);
        }
    }

    fn kill(&mut self) {
        if self.is_trusted {
            self.stop(Duration::ZERO, None, "");
        } else {
            self.gone();
        }
    }

    fn signal(&mut self, _signal: i32) {}

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn try_next(&mut self) -> Option<Event> {
        self.note_done();
        self.events.pop_front()
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            if self.done_with.changed().await.is_err() {
                // The task has ended, and with it all that it did.
                self.gone();
                if self.events.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use election::{Activation, Member, Nonce, Token};

    use super::*;
    use crate::workload::Preparation;

    pub fn launch(token: u64) -> Launch {
        let preparation = Preparation {
            command: Vec::new(),
            activation: Activation(1),
            member: Member { name: "a".to_owned(), nonce: Nonce(1) },
            slot: 1,
            stop_grace: Duration::from_secs(10),
            local_lock: None,
        };
        let kill_at = clock::now() + Duration::from_secs(60);
        Launch { preparation, token: Token(token), kill_at, successor: None }
    }

    const GONE: Event = Event::Gone { proof: Proof::NeverStarted, released: None };

    #[tokio::test]
    async fn a_term_ends_when_the_task_is_done_with_it_and_not_before() {
        let (mut task, mut terms) = Task::new();
        task.stop(Duration::ZERO, None, "not active");
        assert_eq!(task.try_next(), None);
        task.start(launch(7), None);
        let mut mandate = terms.next().await.unwrap();
        assert!(mandate.token() == 7 && mandate.lasts());
        task.stop(Duration::from_secs(1), None, "why");
        mandate.over().await;
        assert!(!mandate.lasts());
        assert_eq!(task.try_next(), None);
        mandate.finish();
        assert_eq!((task.next().await, task.try_next()), (GONE, None));
        task.start(launch(8), None);
        assert!(!mandate.lasts() && terms.next().await.unwrap().token() == 8);
    }

    #[tokio::test]
    async fn a_term_that_is_not_prolonged_is_over_and_one_that_is_killed_is_gone_at_once() {
        let (mut task, mut terms) = Task::new();
        task.start(launch(7), None);
        let mut mandate = terms.next().await.unwrap();
        task.extend(clock::now() + Duration::from_millis(1));
        mandate.over().await;
        assert!(!mandate.lasts());
        task.kill();
        assert_eq!((task.try_next(), task.try_next()), (Some(GONE), None));
    }

    #[tokio::test]
    async fn a_trusted_task_hears_early_that_its_term_is_over_and_only_its_own_word_ends_it() {
        let (mut task, mut terms) = Task::trusted(Duration::from_secs(59));
        let (reader, writer) = std::io::pipe().unwrap();
        task.start(launch(7), Some(writer.into()));
        let mandate = terms.next().await.unwrap();
        assert!(mandate.lasts() && mandate.rest() <= Duration::from_secs(1));
        task.extend(clock::now() + Duration::from_secs(58));
        assert!(!mandate.lasts());
        task.kill();
        assert_eq!(task.try_next(), None);
        mandate.finish();
        assert_eq!((task.try_next(), task.try_next()), (Some(GONE), None));
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }

    #[tokio::test]
    async fn a_trusted_task_may_give_its_term_up() {
        let (mut task, mut terms) = Task::trusted(Duration::ZERO);
        task.start(launch(7), None);
        terms.next().await.unwrap().finish();
        assert_eq!(task.next().await, Event::Exited(Ending::Code(0)));
        assert_eq!((task.next().await, task.try_next()), (GONE, None));
    }

    #[tokio::test]
    async fn a_term_that_was_given_up_is_followed_once_the_elector_has_heard_of_it() {
        let (mut task, mut terms) = Task::trusted(Duration::ZERO);
        task.start(launch(7), None);
        let mut mandate = terms.next().await.unwrap();
        mandate.finish();
        assert!(tokio::time::timeout(Duration::from_millis(20), mandate.followed()).await.is_err());
        while task.next().await != GONE {}
        mandate.followed().await;
        task.start(launch(8), None);
        mandate.followed().await;
    }

    #[tokio::test]
    async fn a_task_that_has_ended_is_done_with_its_term() {
        let (mut task, mut terms) = Task::new();
        task.start(launch(7), None);
        drop(terms.next().await.unwrap());
        drop(terms);
        assert_eq!(task.next().await, GONE);
    }
}
