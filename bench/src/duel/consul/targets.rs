//! What has to be reached on Consul.

use std::time::Duration;

use super::contender::Contender;
use crate::duel::arena::Contender as _;
use crate::duel::cost::{Cost, Requests};
use crate::duel::round::Event;
use crate::duel::table::Row;
use crate::lease::requests::{PER_MINUTE_MAX, RENEWAL_PERIOD_MIN};
use crate::register::limit;
use crate::report::{self, AFTER_LEASE_MAX, P50_RATIO_MAX, PSS_MAX_KB, Target, ratio};

/// The default.
const LEASE: Duration = Duration::from_secs(15);
/// A session lives for twice the lease, and is renewed at half of that.
const SESSION_RENEWED: Duration = LEASE;
/// What a standby asks beside one query for each write: one that nothing answers ends after 30 s at the soonest, and one is
/// under way when counting begins.
const IDLE_QUERIES_PER_MINUTE: f64 = 3.0;
/// The active one hears of what is posted beside the key, where each of two announces itself once a minute.
const ACTIVE_QUERIES_PER_MINUTE: f64 = IDLE_QUERIES_PER_MINUTE + 2.0;

/// All of it. Each member announces itself once a minute, which is a look and a write.
pub fn all(rows: &[Row<Contender>], raw: &[report::Row], costs: &[Cost<Contender>]) -> Vec<Target> {
    let ours = || rows.iter().filter(|row| row.contender.is_ours());
    let mut targets: Vec<Target> = Vec::new();
    for row in ours() {
        let (event, who) = (row.event, row.contender);
        if event.leaves_a_chance() {
            let against = |what, limit_us, at_most| {
                Target::new(format!("{event}, {who}: p50 / {what} p50"), ratio(row.gap.p50_us, limit_us), at_most)
            };
            targets.push(against("raw", limit(raw).p50_us, P50_RATIO_MAX));
            targets.push(against("real", real_p50_us(rows, event), 1.0));
        } else {
            let at_most = (LEASE + AFTER_LEASE_MAX).as_micros() as f64;
            targets.push(Target::new(format!("{event}, {who}: max, us"), row.gap.max_us as f64, at_most));
        }
    }
    let overlaps: usize = ours().map(|row| row.overlaps).sum();
    targets.push(Target::new("overlaps of soloist", overlaps as f64, 0.0));
    targets.extend(costs.iter().filter(|cost| cost.contender.is_ours()).flat_map(of_cost));
    targets
}

/// What Consul's own program takes for the same.
fn real_p50_us(rows: &[Row<Contender>], event: Event) -> u64 {
    let real = rows.iter().find(|row| row.event == event && !row.contender.is_ours());
    real.map_or(0, |row| row.gap.p50_us)
}

fn of_cost(cost: &Cost<Contender>) -> Vec<Target> {
    let who = cost.contender;
    let [active, standby] = [&cost.active, &cost.standby].map(Asked::of);
    let watched = Duration::from_secs(cost.watched_seconds);
    // One more than fits may be under way when counting begins.
    let each = |period: Duration| watched.div_duration_f64(period).ceil() + 1.0;
    let minutes = watched.as_secs_f64() / 60.0;
    let per_minute = |count: f64| (count * minutes).ceil();
    let rows = [
        ("PSS, active, kB", cost.pss_active_kb as f64, PSS_MAX_KB as f64),
        ("PSS, standby, kB", cost.pss_standby_kb as f64, PSS_MAX_KB as f64),
        ("active: writes", active.writes, each(RENEWAL_PERIOD_MIN)),
        ("active: renewals of its session", active.sessions, each(SESSION_RENEWED)),
        ("active: queries", active.queries, per_minute(ACTIVE_QUERIES_PER_MINUTE)),
        ("active: others", active.others, per_minute(PER_MINUTE_MAX)),
        (
            "standby: queries beyond writes",
            standby.queries - active.writes - standby.writes,
            per_minute(IDLE_QUERIES_PER_MINUTE),
        ),
        ("standby: renewals of its session", standby.sessions, each(SESSION_RENEWED)),
        ("standby: writes", standby.writes, per_minute(PER_MINUTE_MAX)),
        ("standby: others", standby.others, per_minute(PER_MINUTE_MAX)),
    ];
    rows.map(|(what, got, at_most)| Target::new(format!("{who}: {what}"), got, at_most)).into()
}

/// Requests of one member, as far as there are targets for them.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    writes: f64,
    sessions: f64,
    queries: f64,
    others: f64,
}

impl Asked {
    fn of(requests: &Requests) -> Self {
        let mut asked = Self::default();
        for (kind, count) in requests {
            let place = match kind.as_str() {
                "PUT txn" => &mut asked.writes,
                "PUT session/renew" => &mut asked.sessions,
                "WATCH kv" => &mut asked.queries,
                _ => &mut asked.others,
            };
            *place += *count as f64;
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duel::round::Outcome;

    fn row(event: Event, contender: Contender, gap_ms: u64) -> Row<Contender> {
        Row::of(event, &contender, &[Outcome { gap_ns: gap_ms * 1_000_000, overlap_ns: 0, is_endless: false }])
    }

    #[test]
    fn soloist_is_held_against_the_raw_limit_and_the_real_program_and_that_one_against_nothing() {
        let raw = [report::Row::of_times("raw", vec![10_000_000])];
        let rows = [
            row(Event::Term, Contender::Soloist, 14),
            row(Event::Term, Contender::ConsulLock, 12),
            row(Event::Killed, Contender::Soloist, 15_600),
            row(Event::Killed, Contender::ConsulLock, 39_000),
        ];
        let met: Vec<bool> = all(&rows, &raw, &[]).iter().map(|target| target.met).collect();
        assert_eq!(met, [true, false, false, true]);
    }

    #[test]
    fn each_kind_of_request_is_counted_once() {
        let kinds = [("PUT txn", 3), ("PUT session/renew", 2), ("WATCH kv", 5), ("GET kv", 1), ("PUT kv", 1)];
        let requests = kinds.map(|(kind, count)| (kind.to_owned(), count)).into();
        assert_eq!(Asked::of(&requests), Asked { writes: 3.0, sessions: 2.0, queries: 5.0, others: 2.0 });
    }
}
