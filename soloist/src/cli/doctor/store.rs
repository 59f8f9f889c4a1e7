//! The lock and its store: reachable, fast enough, permitted, and of one mind about the time.

use std::time::Duration;

use election::Claim;

use super::{Finding, Terms};
use crate::cli::operate::print::{exactly, span};
use crate::cli::operate::{AnyBoard, Target, asking};
use crate::clock::{now, unix_us};
use crate::error::Failure;
use crate::lock::board::{Look, REQUEST_LIFE};
use crate::lock::file;
use crate::settings::Place;

/// A wall clock that differs by more than this is worth a word: `Date` has whole seconds.
const CLOCK_FINE: Duration = Duration::from_secs(2);

/// What the lock says, if it can be read.
pub(super) async fn first_look(target: &Target, findings: &mut Vec<Finding>) -> Option<Look> {
    let look = async {
        let board = target.board().await?;
        asking::bounded("read the lock", board.look_at_what_is_there()).await
    };
    match look.await {
        Ok(look) => {
            findings.push(record(&look));
            Some(look)
        }
        Err(failure) => {
            findings.push(Finding::failed("lock", failure));
            None
        }
    }
}

fn record(look: &Look) -> Finding {
    match look.seen.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Held(holder)) => Finding::ok("lock", format!("{} is active", holder.member.name)),
        Some(Claim::Released(release)) => {
            Finding::ok("lock", format!("nobody is active: {} released", release.member.name))
        }
        Some(Claim::Vacant(vacancy)) => Finding::warning(
            "lock",
            format!("{} found no record and waits a lease", vacancy.member.name),
            "ship the lock with the manifest: soloist.dev/initial: \"true\" on a Lease spares the first wait",
        ),
        Some(Claim::Foreign(foreign)) => Finding::problem(
            "lock",
            format!("the record is unreadable or somebody else's: {}", foreign.why),
            "find out what else writes it; its members wait three times the lease and write it anew",
        ),
        None => Finding::warning(
            "lock",
            "there is no record: nobody has been active yet, or it was deleted",
            "the first member writes it; over a network that costs it one lease",
        ),
    }
}

/// What the active member was told; nothing in a pause, which is a long lease.
pub(super) fn lease_of_the_holder(look: &Look) -> Option<Duration> {
    let record = look.seen.record.as_ref().filter(|record| record.paused_until_unix_ms.is_none())?;
    matches!(record.claim, Claim::Held(_)).then_some(record.lease)
}

/// Who is there, and whether they fit together.
pub(super) fn of_the_group(look: &Look, terms: &Terms) -> Vec<Finding> {
    let mut findings = vec![members(look), versions(look)];
    if let Some(lease) = lease_of_the_holder(look).filter(|lease| *lease != terms.timing.lease()) {
        let (theirs, own) = (exactly(lease), exactly(terms.timing.lease()));
        let found = format!("the active member's lease is {theirs}, and not {own}");
        findings.push(Finding::warning("lease", found, "start all members of a group with the same --lease"));
    }
    findings
}

fn members(look: &Look) -> Finding {
    let unhealthy: Vec<&str> =
        look.members.iter().filter(|member| !member.healthy).map(|member| member.name.as_str()).collect();
    let names: Vec<&str> = look.members.iter().map(|member| member.name.as_str()).collect();
    if !unhealthy.is_empty() {
        let fix = "soloist status says why; an unhealthy standby does not take over";
        return Finding::warning("members", format!("unhealthy: {}", unhealthy.join(", ")), fix);
    }
    match names.len() {
        0 => Finding::warning("members", "nobody has announced itself within two minutes", "start two members or more"),
        1 => Finding::warning("members", format!("only {} is there", names[0]), "start another one that stands by"),
        _ => Finding::ok("members", names.join(", ")),
    }
}

fn versions(look: &Look) -> Finding {
    let mut versions: Vec<&str> = look.members.iter().map(|member| member.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => Finding::ok("versions", format!("{} here", env!("CARGO_PKG_VERSION"))),
        [one] => Finding::ok("versions", *one),
        several => Finding::warning(
            "versions",
            several.join(", "),
            "fine during a rolling update; else bring all members to one version",
        ),
    }
}

/// How long the store takes, against the time that an attempt has.
pub(super) async fn latency(target: &Target, terms: &Terms) -> Vec<Finding> {
    match probe(target, terms.probes).await {
        Ok(mut took) => {
            took.sort_unstable();
            let median = took.get(took.len() / 2).copied().unwrap_or_default();
            let max = took.last().copied().unwrap_or_default();
            vec![judged(took.len(), median, max, terms.timing.attempt_limit())]
        }
        Err(failure) => vec![Finding::failed("latency", failure)],
    }
}

fn judged(count: usize, median: Duration, max: Duration, limit: Duration) -> Finding {
    let ms = |length: Duration| format!("{:.1} ms", length.as_secs_f64() * 1_000.0);
    let found =
        format!("{count} looks at the lock: p50 {}, max {}; an attempt has {}", ms(median), ms(max), exactly(limit));
    if max >= limit {
        Finding::problem("latency", found, "a longer --lease, or a store that answers sooner")
    } else if max >= limit / 4 {
        Finding::warning("latency", found, "a longer --lease leaves more room for a slow store")
    } else {
        Finding::ok("latency", found)
    }
}

/// The first look makes the connection, and is not counted.
async fn probe(target: &Target, count: u32) -> Result<Vec<Duration>, Failure> {
    let board = target.board().await?;
    let look = || asking::bounded("read the lock", board.look_at_what_is_there());
    look().await?;
    let mut took = Vec::new();
    for _ in 0..count {
        let begun = now();
        look().await?;
        took.push(now().since(begun));
    }
    Ok(took)
}

/// What whoever runs this may do to the lock.
pub(super) async fn permissions(target: &Target) -> Vec<Finding> {
    match &target.lock {
        Place::File(place) if place.is_default && place.path.parent().is_some_and(|folder| !folder.exists()) => {
            vec![Finding::ok("permissions", "the state folder is made by the first member")]
        }
        Place::File(place) => match file::check(&place.path, false) {
            Ok(()) => vec![Finding::ok("permissions", "the lock's folder can be written, and its file system will do")],
            Err(refusal) => {
                let fix = "the members' user must own or write the folder, on a local file system";
                vec![Finding::problem("permissions", refusal.to_string(), fix)]
            }
        },
        Place::Kubernetes(_) => super::kubernetes::permissions(target).await,
        Place::Consul(_) => match target.board().await {
            Ok(AnyBoard::Consul(board)) => match asking::bounded("try what a member does", board.rehearse()).await {
                Ok(()) => vec![Finding::ok("permissions", "keys and sessions can be written")],
                Err(failure) => vec![Finding::failed("permissions", failure)],
            },
            _ => Vec::new(),
        },
    }
}

/// The wall clock beside that of the store. Nothing that is safe depends on it, but requests of the verbs do.
pub(super) async fn clock(target: &Target) -> Vec<Finding> {
    let date = match &target.lock {
        // It is the same clock.
        Place::File(_) => return Vec::new(),
        Place::Kubernetes(_) => super::kubernetes::date(target).await,
        Place::Consul(_) => match target.board().await {
            Ok(AnyBoard::Consul(board)) => asking::bounded("ask for the time", board.date()).await,
            _ => return Vec::new(),
        },
    };
    match date {
        Ok(Some(date)) => match differs_by(&date, unix_us()) {
            Some(difference) => vec![judged_clock(difference)],
            None => {
                vec![Finding::warning("clock", format!("the store's Date is {date:?}"), "is something on the way?")]
            }
        },
        Ok(None) => vec![Finding::ok("clock", "the store does not tell its time")],
        Err(failure) => vec![Finding::failed("clock", failure)],
    }
}

/// How far a `Date` header is from the wall clock.
fn differs_by(date: &str, now_us: u64) -> Option<Duration> {
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let theirs = u64::try_from(theirs.as_microsecond()).ok()?;
    Some(Duration::from_micros(now_us.abs_diff(theirs)))
}

fn judged_clock(difference: Duration) -> Finding {
    let found = format!("differs from the store's by {}, which tells whole seconds", span(difference));
    let fix = "run NTP on both; nothing that is safe depends on it, but what an operator asks for counts for 10s";
    if difference >= REQUEST_LIFE {
        Finding::problem("clock", found, fix)
    } else if difference >= CLOCK_FINE {
        Finding::warning("clock", found, fix)
    } else {
        Finding::ok("clock", found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::cli::operate::fake::{foreign, held, with_members};

    const NOW_MS: u64 = 1_700_000_000_000;

    #[test]
    fn a_record_of_somebody_else_is_a_problem_and_a_holder_is_none() {
        assert_eq!(record(&held("a", 1)).level, Level::Ok);
        assert_eq!(record(&Look::at_nothing(Vec::new())).level, Level::Warning);
        let other = record(&foreign("edited"));
        assert!(other.level == Level::Problem && other.found.contains("edited"), "{other:?}");
    }

    #[test]
    fn who_is_alone_or_unhealthy_is_named() {
        let of = |members: &[(&str, bool)]| members_of(&with_members(held("a", 1), NOW_MS, members));
        fn members_of(look: &Look) -> (Level, String) {
            let finding = members(look);
            (finding.level, finding.found)
        }
        assert_eq!(of(&[("a", true), ("b", true)]), (Level::Ok, "a, b".to_owned()));
        assert_eq!(of(&[("a", true)]), (Level::Warning, "only a is there".to_owned()));
        assert_eq!(of(&[("a", true), ("b", false)]), (Level::Warning, "unhealthy: b".to_owned()));
    }

    #[test]
    fn several_versions_are_a_warning() {
        let mut look = with_members(held("a", 1), NOW_MS, &[("a", true), ("b", true)]);
        assert_eq!(versions(&look).level, Level::Ok);
        look.members[1].version = "0.2.0".to_owned();
        assert_eq!((versions(&look).level, versions(&look).found), (Level::Warning, "0.1.0, 0.2.0".to_owned()));
    }

    #[test]
    fn latency_is_judged_by_the_limit_of_an_attempt() {
        let of = |max_ms| {
            judged(3, Duration::from_millis(1), Duration::from_millis(max_ms), Duration::from_millis(1_800)).level
        };
        assert_eq!([of(2), of(500), of(1_800)], [Level::Ok, Level::Warning, Level::Problem]);
    }

    #[test]
    fn clocks_are_compared_with_a_date() {
        let at = |seconds: u64| differs_by("Tue, 14 Nov 2023 22:13:20 GMT", (NOW_MS / 1_000 + seconds) * 1_000_000);
        assert_eq!(at(7), Some(Duration::from_secs(7)));
        assert_eq!(differs_by("yesterday", 0), None);
        let of = |seconds| judged_clock(Duration::from_secs(seconds)).level;
        assert_eq!([of(0), of(3), of(10)], [Level::Ok, Level::Warning, Level::Problem]);
    }
}
