//! Looking at a board, asking the members for something, and waiting for what comes of it. All of it bounded in time.

use std::future::Future;
use std::time::Duration;

use election::{Activation, Attempt, Claim, Entropy, Holder, Nonce, Record};
use tokio::time::{Instant, timeout, timeout_at};

use super::oneself;
use super::print::{self, since_then};
use crate::clock::unix_us;
use crate::entropy::KernelEntropy;
use crate::error::{Code, Failure};
use crate::lock::LockError;
use crate::lock::board::{Asked, Asking, Board, Look, REQUEST_LIFE, Wish};
use crate::lock::kubernetes::answer::NOT_ACCEPTED;

/// What a store may take for one call.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// A change notice that was missed costs no more than this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// One look at the lock and what is beside it.
pub(in crate::cli) async fn look(board: &impl Board) -> Result<Look, Failure> {
    bounded("read the lock", board.look()).await
}

pub(in crate::cli) async fn bounded<T>(
    what: &str,
    call: impl Future<Output = Result<T, LockError>>,
) -> Result<T, Failure> {
    in_time(CALL_LIMIT, what, call).await?.map_err(failed)
}

/// What a call brings, unless it takes too long.
pub(in crate::cli) async fn in_time<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = T>,
) -> Result<T, Failure> {
    let late = |_| Failure::new(Code::Unavailable, format!("failed to {what}: no answer within {limit:?}"));
    timeout(limit, call).await.map_err(late)
}

/// A store that does not do what it is asked for.
pub(in crate::cli) fn failed(error: LockError) -> Failure {
    match error {
        LockError::Denied(ref why) if why.contains(NOT_ACCEPTED) => Failure::new(Code::Permission, error.to_string())
            .hint("log in anew, or --kubeconfig PATH and --context NAME"),
        LockError::Denied(_) => Failure::new(Code::Permission, error.to_string()).hint(
            "run it as the user of the members, or with what their Role allows: a request is put up beside the lock",
        ),
        LockError::Unavailable(_) => Failure::new(Code::Unavailable, error.to_string()),
    }
}

/// Probes at each change until there is something, for at most `limit`; nothing if there never was.
pub(in crate::cli) async fn until<T>(
    board: &impl Board,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await? {
            return Ok(Some(found));
        }
        let now = Instant::now();
        if now >= end {
            return Ok(None);
        }
        let next = end.min(now + LOOK_AGAIN);
        if let Ok(Err(_)) = timeout_at(next, board.changed()).await {
            // What cannot be watched can still be looked at.
            tokio::time::sleep_until(next).await;
        }
    }
}

/// Whom the lock names, or why there is nobody to be asked.
pub(in crate::cli) fn holder(look: &Look) -> Result<&Holder, Failure> {
    match look.seen.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Held(holder)) => Ok(holder),
        Some(Claim::Released(release)) => {
            Err(no(format!("nobody is active: {} released ({})", release.member.name, release.proof.word())))
        }
        Some(Claim::Vacant(_)) | None => Err(no("nobody is active, and nobody was since the lock is there")),
        Some(Claim::Foreign(foreign)) => Err(unreadable(&foreign.why)),
    }
}

/// A record that says nothing that could be acted on.
fn unreadable(why: &str) -> Failure {
    Failure::new(Code::Data, format!("the lock's record is unreadable or somebody else's: {why}"))
        .hint("its members deal with that: they wait it out, and write it anew")
}

/// The same look, unless its record says nothing.
pub(in crate::cli) fn readable(look: Look) -> Result<Look, Failure> {
    match look.seen.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Foreign(foreign)) => Err(unreadable(&foreign.why)),
        _ => Ok(look),
    }
}

/// The activation that a record names, if it is held.
pub(in crate::cli) fn activation_of(record: Option<&Record>) -> Option<Activation> {
    match &record?.claim {
        Claim::Held(holder) => Some(holder.activation),
        Claim::Released(_) | Claim::Vacant(_) | Claim::Foreign(_) => None,
    }
}

/// What only a holder changes: other members may write beside the record.
pub(in crate::cli) fn attempt_of(record: Option<&Record>) -> Option<(Activation, Attempt)> {
    match &record?.claim {
        Claim::Held(holder) => Some((holder.activation, holder.attempt)),
        Claim::Released(_) | Claim::Vacant(_) | Claim::Foreign(_) => None,
    }
}

/// The answer is no.
pub(in crate::cli) fn no(message: impl Into<String>) -> Failure {
    Failure::new(Code::No, message)
}

/// Asks the member that is active with `activation`, or for a failover the others, and waits until it is granted.
/// Returns when it was asked, in wall-clock microseconds since 1970.
pub(in crate::cli) async fn ask(board: &impl Board, wish: Wish, activation: Activation) -> Result<u64, Failure> {
    let mut entropy = KernelEntropy;
    let id = Nonce(u128::from(entropy.bits()) << 64 | u128::from(entropy.bits()));
    let at_unix_us = unix_us();
    let asked = Asked {
        id: id.to_string(),
        wish,
        activation: activation.to_string(),
        by: oneself(),
        at_unix_ms: at_unix_us / 1_000,
    };
    if let Asking::Busy(first) = bounded("ask", board.ask(&asked)).await? {
        return Err(busy(&first));
    }
    let answer =
        until(board, REQUEST_LIFE, async || bounded("read the answer", board.answered(&asked.id)).await).await?;
    match answer {
        None => Err(unanswered(&asked.wish)),
        Some(answer) => match answer.refusal {
            None => Ok(at_unix_us),
            Some(refused) => Err(no(format!("{} refused {}: {}", answer.by, describe(&asked.wish), refused.why))),
        },
    }
}

fn busy(first: &Asked) -> Failure {
    let ago = since_then(first.at_unix_ms.saturating_mul(1_000), unix_us());
    let what = format!("{} asked first, {ago} ago, for {}, and waits for the answer", first.by, describe(&first.wish));
    no(what).hint("ask again when that is done; soloist history shows what came of it")
}

fn unanswered(wish: &Wish) -> Failure {
    let who = if wish.is_for_the_active() { "the active member" } else { "no standby" };
    let what = match wish.is_for_the_active() {
        true => format!("{who} did not answer within {REQUEST_LIFE:?}; {} did not happen", describe(wish)),
        false => format!("{who} answered within {REQUEST_LIFE:?}; {} did not happen", describe(wish)),
    };
    no(what).hint("soloist status shows who is there")
}

/// A wish in words.
fn describe(wish: &Wish) -> String {
    match wish {
        Wish::Switchover { to: Some(to) } => format!("a switchover to {to}"),
        Wish::Switchover { to: None } => "a switchover".to_owned(),
        Wish::Pause { for_ms } => format!("a pause of {}", print::span(Duration::from_millis(*for_ms))),
        Wish::Resume => "the end of the pause".to_owned(),
        Wish::Fenced => "a failover".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, held};
    use super::*;
    use crate::lock::board::Refused;

    fn switchover(to: Option<&str>) -> Wish {
        Wish::Switchover { to: to.map(str::to_owned) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_who_and_why() {
        let fake = Fake::new(held("a", 1));
        fake.answers(Some(Refused { kind: "no-candidate".to_owned(), why: "there is nobody".to_owned() }));
        let failure = ask(&fake, switchover(Some("b")), Activation(1)).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert_eq!(failure.message, "a refused a switchover to b: there is nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_is_told_who_asked_first_for_what_and_when() {
        let fake = Fake::new(held("a", 1));
        fake.busy_with(Asked {
            id: "x".to_owned(),
            wish: Wish::Pause { for_ms: 90_000 },
            activation: Activation(1).to_string(),
            by: "eve@h (pid 7)".to_owned(),
            at_unix_ms: unix_us() / 1_000 - 3_000,
        });
        let failure = ask(&fake, switchover(None), Activation(1)).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert_eq!(
            failure.message,
            "eve@h (pid 7) asked first, 3s ago, for a pause of 1m 30s, and waits for the answer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_answers_is_waited_for_as_long_as_a_request_lives() {
        let fake = Fake::new(held("a", 1));
        let start = Instant::now();
        let failure = ask(&fake, Wish::Fenced, Activation(1)).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert!(failure.message.starts_with("no standby answered within 10s"), "{failure}");
        assert!(start.elapsed() >= REQUEST_LIFE && start.elapsed() < REQUEST_LIFE * 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_or_does_not_allow_has_its_code() {
        let fake = Fake::new(held("a", 1));
        fake.fails(Some(LockError::Denied("no".to_owned())));
        assert_eq!(look(&fake).await.unwrap_err().code, Code::Permission);
        fake.fails(Some(LockError::Unavailable("gone".to_owned())));
        assert_eq!(look(&fake).await.unwrap_err().code, Code::Unavailable);
        fake.hangs();
        assert_eq!(look(&fake).await.unwrap_err().code, Code::Unavailable);
    }
}
