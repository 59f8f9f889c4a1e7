//! What is done to requests, and to which.

use std::time::Duration;

use http::{Method, StatusCode};

use super::meaning::{changes_lock, is_watch};
use super::upstream::Whole;
use crate::sim::random::Random;

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that change a lock: on Kubernetes anything in its Lease, on Consul the lock's own key.
    Writes,
    /// Those that change who gets traffic.
    Routes,
    /// Those for changes that are still to come.
    Watches,
}

impl Scope {
    fn holds(self, request: &Whole) -> bool {
        match self {
            Scope::All => true,
            Scope::Writes => changes_lock(request),
            Scope::Routes => *request.method() != Method::GET && is_about_traffic(request.uri().path()),
            Scope::Watches => is_watch(request),
        }
    }
}

fn is_about_traffic(path: &str) -> bool {
    ["/endpoints/", "/endpointslices/", "/pods/"].iter().any(|part| path.contains(part))
}

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server gets it; its answer is lost with the connection.
    LoseAnswer,
    /// The answer comes so much later.
    Delay(Duration),
    /// The server gets it so much later.
    Late(Duration),
    /// The server gets it twice; the member gets one of the two answers.
    Repeat(Which),
    /// The server does not get it before [`super::Relay::deliver_held`]; the member never gets an answer.
    Hold,
    /// The answer's head comes, and nothing behind it, and no end.
    Stall,
    /// The lines of a stream come in pairs, the later one first, and behind each pair the first line of all once more.
    Disorder,
    /// The relay answers.
    Answer(Answer),
    /// So many in a hundred are answered with a status from 500 to 504. The server gets half of those.
    Fail {
        /// How many in a hundred.
        percent: u64,
        /// Draws the same ones again.
        seed: u64,
    },
}

/// One of two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// To the first delivery.
    First,
    /// To the second one.
    Second,
}

/// An answer that is not the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The seconds in its `Retry-After`.
    pub retry_after: Option<u32>,
    /// Whether the server gets the request nevertheless.
    pub is_delivered: bool,
}

impl Fault {
    /// Too many requests: the server is not asked, and wants to be left alone for so many seconds.
    pub fn throttle(seconds: u32) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Fault::Answer(Answer { status, retry_after: Some(seconds), is_delivered: false })
    }
}

/// A fault at work.
#[derive(Debug)]
pub struct Plan {
    scope: Scope,
    fault: Fault,
    left: u64,
    random: Random,
}

impl Plan {
    /// Does `fault` to the next `times` requests of `scope`.
    pub fn new(scope: Scope, fault: Fault, times: u64) -> Self {
        let seed = if let Fault::Fail { seed, .. } = fault { seed } else { 0 };
        Self { scope, fault, left: times, random: Random::stream(seed, 0) }
    }

    /// What is to be done to this request, if anything; of those that fail at random, an answer.
    pub fn draw(&mut self, request: &Whole) -> Option<Fault> {
        if self.left == 0 || !self.scope.holds(request) {
            return None;
        }
        let fault = match self.fault {
            Fault::Fail { percent, .. } => self.fail(percent)?,
            fault => fault,
        };
        self.left -= 1;
        Some(fault)
    }

    fn fail(&mut self, percent: u64) -> Option<Fault> {
        let kinds = [
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        let is_hit = self.random.below(100) < percent;
        let answer =
            Answer { status: self.random.pick(&kinds), retry_after: None, is_delivered: self.random.chance(500) };
        is_hit.then_some(Fault::Answer(answer))
    }
}
