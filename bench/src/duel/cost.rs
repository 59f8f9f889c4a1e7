//! What a contender costs while nothing happens: memory, and requests to the store.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::round::Pair;

/// After this, what a start needed once is given back.
const CALM: Duration = Duration::from_secs(5);

/// Requests to a store by kind.
pub type Requests = BTreeMap<String, u64>;

/// What one contender costs.
#[derive(Debug, Serialize)]
pub struct Cost<C> {
    /// Who.
    pub contender: C,
    /// Memory of the active one without its command.
    pub pss_active_kb: u64,
    /// The same of a standby.
    pub pss_standby_kb: u64,
    /// How long requests were counted.
    pub watched_seconds: u64,
    /// What the active one asked for.
    pub active: Requests,
    /// What the standby asked for.
    pub standby: Requests,
}

impl<C> Cost<C> {
    /// Watches a pair for so long. `asked` counts what the active one, or the other one, has asked for until now.
    pub fn measure(
        contender: C,
        pair: &Pair,
        watch: Duration,
        asked: impl Fn(bool) -> Result<Requests>,
    ) -> Result<Self> {
        sleep(CALM);
        let before = [asked(true)?, asked(false)?];
        sleep(watch);
        let [active, standby] = [(asked(true)?, &before[0]), (asked(false)?, &before[1])].map(since);
        let pss = |is_active| pair.member(is_active)?.pss_kb(pair.workload());
        Ok(Self {
            contender,
            pss_active_kb: pss(true)?,
            pss_standby_kb: pss(false)?,
            watched_seconds: watch.as_secs(),
            active,
            standby,
        })
    }

    /// A minute's worth of `count`.
    pub fn per_minute(&self, count: u64) -> f64 {
        count as f64 * 60.0 / self.watched_seconds.max(1) as f64
    }
}

/// What came after `before`.
fn since((now, before): (Requests, &Requests)) -> Requests {
    let new = |(kind, count): (String, u64)| {
        let new = count - before.get(&kind).unwrap_or(&0);
        (new > 0).then_some((kind, new))
    };
    now.into_iter().filter_map(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        let requests = |all: &[(&str, u64)]| all.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        let (before, now) = (requests(&[("a", 3), ("b", 1)]), requests(&[("a", 5), ("b", 1), ("c", 2)]));
        assert_eq!(since((now, &before)), requests(&[("a", 2), ("c", 2)]));
    }
}
