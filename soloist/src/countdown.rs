//! Says how long a standby still waits where nothing proves that nobody is active: a lock that was absent, or one that
//! somebody else than soloist holds or has emptied. For people; nothing depends on it.

use std::time::Duration;

use election::{Instant, Plain, Vigil};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::now;
use crate::snapshot::Snapshot;

/// Nothing is said of a shorter rest.
const LEAST: Duration = Duration::from_secs(1);

/// Counts down until the elector has ended.
///
/// # Errors
/// None; the result has the form of all tasks around the elector.
pub async fn run(mut snapshots: watch::Receiver<Snapshot>) -> anyhow::Result<()> {
    let mut said: Option<(Instant, Duration)> = None;
    loop {
        let vigil = snapshots.borrow_and_update().vigil;
        let last = said.filter(|(until, _)| vigil.is_some_and(|vigil| vigil.until == *until)).map(|(_, rest)| rest);
        let next = vigil.and_then(|vigil| Some((vigil, next_rest(&vigil, last)?)));
        let due = async {
            match next {
                Some((vigil, rest)) => sleep((vigil.until - rest).since(now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            alive = snapshots.changed() => {
                if alive.is_err() {
                    return Ok(());
                }
            }
            () = due => {
                if let Some((vigil, rest)) = next {
                    tracing::info!("{}", line(&snapshots.borrow(), &vigil, now()));
                    said = Some((vigil.until, rest));
                }
            }
        }
    }
}

/// With how much left something is said next: two thirds of the wait, and half as much each time. A foreign holder that
/// lives renews within the first third.
fn next_rest(vigil: &Vigil, last: Option<Duration>) -> Option<Duration> {
    let next = last.map_or(vigil.until.since(vigil.since) * 2 / 3, |last| last / 2);
    (next >= LEAST).then_some(next)
}

fn line(snapshot: &Snapshot, vigil: &Vigil, now: Instant) -> String {
    let silence = Plain(whole_seconds(now.since(vigil.since)));
    let rest = Plain(whole_seconds(vigil.until.since(now)));
    match &snapshot.holder {
        Some(holder) => format!("nothing new from {} for {silence}: may start in {rest}", holder.name),
        None => format!("the lock names nobody, and nothing proves that nobody is active: may start in {rest}"),
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs((time + Duration::from_millis(500)).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Health, Holder};

    fn vigil(seconds: u64) -> Vigil {
        let since = Instant::from_nanos(7);
        Vigil { since, until: since + Duration::from_secs(seconds) }
    }

    #[test]
    fn it_is_said_at_two_thirds_and_then_each_half_down_to_a_second() {
        let all = |seconds| {
            let next = |last: &Duration| next_rest(&vigil(seconds), Some(*last));
            std::iter::successors(next_rest(&vigil(seconds), None), next).map(|rest| rest.as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(all(45), [30, 15, 7, 3, 1]);
        assert_eq!(all(12), [8, 4, 2, 1]);
        assert_eq!(all(1), [0; 0]);
    }

    #[test]
    fn a_line_names_a_holder_that_is_silent() {
        let health = Health { healthy: true, why: String::new() };
        let mut snapshot = Snapshot::new("app", "a", Duration::from_secs(4), health, 0);
        let at = vigil(12).since + Duration::from_millis(4_100);
        let nobody = "the lock names nobody, and nothing proves that nobody is active: may start in 8s";
        assert_eq!(line(&snapshot, &vigil(12), at), nobody);
        snapshot.holder = Some(Holder { name: "legacy-1".into(), activation: None, token: None });
        assert_eq!(line(&snapshot, &vigil(12), at), "nothing new from legacy-1 for 4s: may start in 8s");
    }
}
