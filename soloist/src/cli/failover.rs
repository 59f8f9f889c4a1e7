//! `soloist failover --i-have-fenced`: an operator vouches that the holder is gone, where nothing else can prove it.

use std::time::Duration;

use clap::Args;
use election::Holder;
use serde::Serialize;

use super::operate::asking::{self, no};
use super::operate::print::{Colour, Format, SCHEMA, coloured};
use super::operate::{self, Target, oneself};
use super::switchover::next_active;
use crate::error::{Code, Failure};
use crate::lock::board::{Board, Look, Wish};

/// The holder is watched for a renewal for this part of the lease that it wrote: renewals are never further apart.
const LEASE_PART: u32 = 6;
/// But for no longer: the lease of a pause says nothing about renewals.
const OBSERVATION_MAX: Duration = Duration::from_secs(10);
/// What a renewal may take besides.
const SLACK: Duration = Duration::from_secs(1);
/// How long a standby gets to become active, once it has taken the operator's word.
const TAKEOVER: Duration = Duration::from_secs(30);

/// What the operator has to have done.
const FENCED: &str = "fenced means: neither the holder's workload nor its soloist, that is elector and guard, can run \
                      any more, because its host is off or every one of these processes was killed";

#[derive(Debug, Args)]
#[command(after_help = "\
For a holder that is gone and has left no proof, most of all one that died in a
pause: the others would wait for the rest of it. A standby takes the operator's
word for a proof. If it is wrong, two workloads may run at once.

Fenced means: neither the holder's workload nor its soloist, that is elector
and guard, can run any more. Its host is off, or every one of these processes
was killed. Stopping the workload alone is not enough: soloist would start it
again.

Example:
  soloist failover --lock ./app.lock --i-have-fenced")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
    /// The holder cannot run any more: neither its workload nor its soloist
    #[arg(long)]
    i_have_fenced: bool,
}

/// Hands over on the operator's word.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    if !arguments.i_have_fenced {
        let what = "failover needs --i-have-fenced, and that the holder really is";
        return Err(Failure::new(Code::Usage, what).hint(FENCED));
    }
    let target = arguments.place.target()?;
    let format = arguments.place.output;
    let done = operate::block_on(async { fail_over(&target, &target.board_of_slot().await?, format).await })?;
    format.print(&done, || done.text());
    Ok(0)
}

/// What came of it, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct Done {
    schema: u32,
    group: String,
    lock: String,
    previous: String,
    holder: String,
    fencing_token: Option<u64>,
    /// Who vouched that the previous one cannot run any more.
    vouched_by: String,
}

async fn fail_over(target: &Target, board: &impl Board, format: Format) -> Result<Done, Failure> {
    let look = asking::look(board).await?;
    let old = asking::holder(&look)?.clone();
    format.progress(&format!("watching whether {} renews", old.member.name));
    refuse_if_it_renews(board, &look, &old).await?;
    asking::ask(board, Wish::Fenced, old.activation).await?;
    let (_, new) = next_active(board, old.activation, TAKEOVER, format).await?;
    Ok(Done {
        schema: SCHEMA,
        group: target.group.clone(),
        lock: target.lock.to_string(),
        previous: old.member.name,
        holder: new.member.name,
        fencing_token: new.token.map(|token| token.0),
        vouched_by: oneself(),
    })
}

/// A holder that writes has a soloist that runs: whoever vouches for its end is mistaken.
async fn refuse_if_it_renews(board: &impl Board, first: &Look, old: &Holder) -> Result<(), Failure> {
    let lease = first.seen.record.as_ref().map_or(Duration::ZERO, |record| record.lease);
    let moved = asking::until(board, (lease / LEASE_PART + SLACK).min(OBSERVATION_MAX), async || {
        let look = asking::look(board).await?;
        let attempt = |look: &Look| asking::attempt_of(look.seen.record.as_ref());
        Ok((attempt(&look) != attempt(first)).then_some(look))
    })
    .await?;
    let Some(look) = moved else { return Ok(()) };
    let name = &old.member.name;
    if asking::activation_of(look.seen.record.as_ref()) == Some(old.activation) {
        let what = format!("{name} is not fenced: its soloist renewed the lock while it was watched");
        return Err(no(what).hint("soloist switchover asks it to hand over"));
    }
    asking::holder(&look).map_err(|failure| failure.hint("its members go on by themselves"))?;
    Err(no(format!("{name} is not the holder any more; somebody else became active meanwhile")))
}

impl Done {
    fn text(&self) -> String {
        let token = self.fencing_token.map_or("?".to_owned(), |token| token.to_string());
        let headline = coloured(&format!("{} is active with token {token}", self.holder), Colour::Good);
        format!("{headline}\nvouched  {} said that {} is fenced", self.vouched_by, self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{Fake, held, released, target_at};
    use super::*;

    async fn run(fake: &Fake) -> Result<Done, Failure> {
        let target = target_at("/srv/app.lock");
        fail_over(&target, fake, Format::Json).await
    }

    fn renewed(mut look: Look) -> Look {
        if let Some(election::Claim::Held(holder)) = look.seen.record.as_mut().map(|record| &mut record.claim) {
            holder.attempt.count += 1;
        }
        look
    }

    /// As a standby does it that announces itself in the same object.
    fn written_beside(mut look: Look) -> Look {
        look.seen.version.number += 100;
        look
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_renews_is_not_fenced() {
        let fake = Fake::new(held("a", 1)).then(renewed(held("a", 1)));
        let failure = run(&fake).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert!(failure.message.starts_with("a is not fenced"), "{failure}");
        assert!(fake.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_and_somebody_else_need_no_failover() {
        let fake = Fake::new(released("a", 1));
        assert_eq!(run(&fake).await.unwrap_err().code, Code::No);
        let fake = Fake::new(held("a", 1)).then(held("b", 2));
        assert!(run(&fake).await.unwrap_err().message.contains("somebody else"), "a newer holder is not fenced");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_holder_is_replaced_on_the_word_of_whoever_asked() {
        let mut fake = Fake::new(held("a", 1));
        // The looks of the observation.
        for _ in 0..20 {
            fake = fake.then(held("a", 1)).then(written_beside(held("a", 1)));
        }
        let fake = fake.then(held("b", 2));
        fake.answers(None);
        let done = run(&fake).await.unwrap();
        assert_eq!((done.previous.as_str(), done.holder.as_str(), done.fencing_token), ("a", "b", Some(2)));
        assert!(done.vouched_by.contains("(pid "), "{done:?}");
        assert_eq!(fake.asked()[0].wish, Wish::Fenced);
    }
}
