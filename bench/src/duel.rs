//! soloist beside what people use instead, on one real store and in one run: how long nobody is active after each kind of
//! event, how long two are, what each costs.

mod arena;
pub mod consul;
mod cost;
pub mod kubernetes;
mod member;
mod round;
mod table;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::{Result, bail};

use self::arena::Arena;
use self::round::{Event, Outcome, Pair};

/// Lets `event` happen to so many pairs, as many at once as there are `players`.
fn play<A: Arena>(
    arena: &A,
    contender: &A::Contender,
    event: Event,
    rounds: usize,
    players: usize,
) -> Result<Vec<Outcome>> {
    let left = AtomicUsize::new(rounds);
    let play_some = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            outcomes.push(one_round(arena, contender, event)?);
        }
        Ok(outcomes)
    };
    let all: Result<Vec<Vec<Outcome>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..players).map(|_| scope.spawn(play_some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a player panicked"))).collect()
    });
    Ok(all?.concat())
}

/// Lets `event` happen to one pair.
fn one_round<A: Arena>(arena: &A, contender: &A::Contender, event: Event) -> Result<Outcome> {
    Pair::start(arena, contender, event.pace(), event == Event::BlackHole)?.round(event)
}

/// A name that nothing else has in this run.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("duel-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
