//! `soloist pause` and `soloist resume`: a long lease for maintenance of the store, and its end.

use std::time::Duration;

use clap::Args;
use election::Activation;
use serde::Serialize;

use super::operate::asking::{self, no};
use super::operate::print::{Lease, SCHEMA, time};
use super::operate::{self, Target};
use crate::error::Failure;
use crate::lock::board::{Board, Look, REQUEST_LIFE, Wish};
use crate::settings;

#[derive(Debug, Args)]
#[command(after_help = "\
While it lasts, an outage of the lock's store stops nobody. The price: if the
active member dies without a proof, nobody follows before the pause is over,
unless 'soloist failover --i-have-fenced' says that it is gone. A switchover
ends a pause.

Examples:
  soloist pause --lock ./app.lock --for 30m
  soloist resume --lock ./app.lock")]
pub(super) struct PauseArguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
    /// How long; the active member's lease comes on top
    #[arg(long = "for", allow_hyphen_values = true, value_name = "DURATION")]
    length: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  soloist resume --lock ./app.lock")]
pub(super) struct ResumeArguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
}

/// Pauses, and returns when the lock says so.
pub(super) fn pause(arguments: &PauseArguments) -> Result<i32, Failure> {
    let length = settings::duration("--for", &arguments.length)?;
    carry_out(&arguments.place, Some(length))
}

/// Ends a pause, and returns when the lock says so.
pub(super) fn resume(arguments: &ResumeArguments) -> Result<i32, Failure> {
    carry_out(&arguments.place, None)
}

fn carry_out(place: &operate::Common, length: Option<Duration>) -> Result<i32, Failure> {
    let target = place.target()?;
    let paused = operate::block_on(async { set(&target, &target.board_of_slot().await?, length).await })?;
    place.output.print(&paused, || paused.text());
    Ok(0)
}

/// What holds now, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct Paused {
    schema: u32,
    group: String,
    lock: String,
    holder: String,
    paused_until: Option<String>,
    lease: Lease,
}

async fn set(target: &Target, board: &impl Board, length: Option<Duration>) -> Result<Paused, Failure> {
    let look = asking::look(board).await?;
    let holder = asking::holder(&look)?.clone();
    let wish = match length {
        Some(length) => Wish::Pause { for_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX) },
        None => Wish::Resume,
    };
    let asked_unix_us = asking::ask(board, wish, holder.activation).await?;
    // A second pause may replace a first, so that being paused says nothing yet.
    let least = length.map(|length| Duration::from_micros(asked_unix_us) + length);
    let (paused_until, lease) = written(board, holder.activation, least).await?;
    Ok(Paused {
        schema: SCHEMA,
        group: target.group.clone(),
        lock: target.lock.to_string(),
        holder: holder.member.name,
        paused_until,
        lease: Lease::new(lease),
    })
}

/// Waits until the lock says it: before that nobody but the active member knows.
async fn written(
    board: &impl Board,
    activation: Activation,
    least: Option<Duration>,
) -> Result<(Option<String>, Duration), Failure> {
    let result = asking::until(board, REQUEST_LIFE, async || {
        let look = asking::look(board).await?;
        if asking::activation_of(look.seen.record.as_ref()) != Some(activation) {
            return Err(no("it was granted, but the active role has changed since, and with it the pause ended"));
        }
        Ok(as_wished(&look, least))
    })
    .await?;
    let what = format!("it was granted, but the lock did not say so within {REQUEST_LIFE:?}");
    result.ok_or_else(|| no(what).hint("soloist status shows whether it does now"))
}

/// What the record says, once that is what was asked for. Its milliseconds are whole ones.
fn as_wished(look: &Look, least: Option<Duration>) -> Option<(Option<String>, Duration)> {
    let record = look.seen.record.as_ref()?;
    let until = record.paused_until_unix_ms.map(Duration::from_millis);
    let is_it = match (least, until) {
        (Some(least), Some(until)) => until.as_millis() >= least.as_millis(),
        (None, None) => true,
        _ => false,
    };
    let shown = until.map(|until| time(u64::try_from(until.as_micros()).unwrap_or(u64::MAX)));
    is_it.then_some((shown, record.lease))
}

impl Paused {
    fn text(&self) -> String {
        let lease = self.lease.text();
        match &self.paused_until {
            Some(until) => format!("paused until {until}; {} is active with a lease of {lease}", self.holder),
            None => format!("not paused; {} is active with a lease of {lease}", self.holder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{Fake, held, target_at};
    use super::*;
    use crate::clock::unix_us;
    use crate::error::Code;

    const LENGTH: Duration = Duration::from_secs(1800);

    fn target() -> Target {
        target_at("/srv/app.lock")
    }

    fn paused(by: Duration) -> Look {
        let mut look = held("a", 1);
        let record = look.seen.record.as_mut().unwrap();
        record.lease += by;
        // Later than the test will have asked.
        record.paused_until_unix_ms = Some(unix_us() / 1_000 + 60_000 + u64::try_from(by.as_millis()).unwrap());
        look
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_told_when_the_lock_says_so_itself() {
        let fake = Fake::new(held("a", 1)).then(paused(Duration::from_secs(60))).then(paused(LENGTH));
        fake.answers(None);
        let done = set(&target(), &fake, Some(LENGTH)).await.unwrap();
        assert_eq!(done.lease.text(), "30m 15s", "an earlier pause is not this one");
        assert!(done.text().starts_with("paused until 2"), "{}", done.text());
        assert_eq!(fake.asked()[0].wish, Wish::Pause { for_ms: 1_800_000 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_the_lock_says_so() {
        let fake = Fake::new(paused(LENGTH)).then(paused(LENGTH)).then(held("a", 1));
        fake.answers(None);
        let done = set(&target(), &fake, None).await.unwrap();
        assert_eq!((done.lease.text(), done.paused_until), ("15s".to_owned(), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_never_reaches_the_lock_is_a_no() {
        let fake = Fake::new(held("a", 1));
        fake.answers(None);
        let failure = set(&target(), &fake, Some(LENGTH)).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        let fake = Fake::new(held("a", 1)).then(held("b", 2));
        fake.answers(None);
        assert!(set(&target(), &fake, Some(LENGTH)).await.unwrap_err().message.contains("has changed since"));
    }
}
