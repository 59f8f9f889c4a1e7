//! `soloist switchover`: the active member stops, proves it, and another one takes over.

use std::time::Duration;

use clap::Args;
use election::{Activation, Claim, Holder};
use serde::Serialize;

use super::operate::asking::{self, no};
use super::operate::print::{Colour, Format, SCHEMA, coloured, from_to_us, ms};
use super::operate::{self, Target};
use crate::chronicle::gap_ms;
use crate::error::Failure;
use crate::lock::board::{Board, Look, Wish};
use crate::settings;

#[derive(Debug, Args)]
#[command(after_help = "\
Waits until the other one is active, and prints how long nobody was. Leaves
with 1 if it is refused, if it takes longer than --timeout, or if somebody
else became active than was asked for.

Examples:
  soloist switchover --lock ./app.lock
  soloist switchover --lock ./app.lock --to b --timeout 1m")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
    /// Who shall be active [default: the healthy standby that has been there longest]
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// How long to wait for it, once it is granted
    #[arg(long, allow_hyphen_values = true, default_value = "30s", value_name = "DURATION")]
    timeout: String,
}

/// Asks, waits, and tells how it went.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    let timeout = settings::duration("--timeout", &arguments.timeout)?;
    let target = arguments.place.target()?;
    let (format, to) = (arguments.place.output, arguments.to.as_deref());
    let done =
        operate::block_on(async { switch_over(&target, &target.board_of_slot().await?, to, timeout, format).await })?;
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
    /// From the request to the proof that nothing of the previous one was left.
    stop_ms: Option<f64>,
    /// From that proof to the write that made the new one active.
    gap_ms: Option<f64>,
    /// The command that makes the previous one active again.
    undo: String,
}

async fn switch_over(
    target: &Target,
    board: &impl Board,
    to: Option<&str>,
    timeout: Duration,
    format: Format,
) -> Result<Done, Failure> {
    let look = asking::look(board).await?;
    let old = asking::holder(&look)?.clone();
    if let Some(to) = to {
        check_known(to, &old, &look)?;
    }
    let wish = Wish::Switchover { to: to.map(str::to_owned) };
    let asked_unix_us = asking::ask(board, wish, old.activation).await?;
    let (look, new) = next_active(board, old.activation, timeout, format).await?;
    check_new(to, &old, &new)?;
    Ok(Done::of(target, &look, &old, &new, asked_unix_us))
}

/// A name that nobody has is a slip of the pen: the known ones help more than a no from the active member.
fn check_known(to: &str, old: &Holder, look: &Look) -> Result<(), Failure> {
    if to == old.member.name || look.members.iter().any(|member| member.name == to) {
        return Ok(());
    }
    let mut names: Vec<&str> = look.members.iter().map(|member| member.name.as_str()).collect();
    names.push(&old.member.name);
    names.sort_unstable();
    names.dedup();
    Err(no(format!("there is no member {to:?}; known are {}", names.join(", "))))
}

/// Waits until the lock names another activation than `old`.
pub(super) async fn next_active(
    board: &impl Board,
    old: Activation,
    timeout: Duration,
    format: Format,
) -> Result<(Look, Holder), Failure> {
    let mut stage = Stage::default();
    let next = asking::until(board, timeout, async || {
        let look = asking::look(board).await?;
        if let Some(news) = stage.advance(&look, old) {
            format.progress(&news);
        }
        Ok(match look.seen.record.as_ref().map(|record| &record.claim) {
            Some(Claim::Held(holder)) if holder.activation != old => Some((holder.clone(), look)),
            _ => None,
        })
    })
    .await?;
    match next {
        Some((holder, look)) => Ok((look, holder)),
        None => {
            let what = format!("nobody else was active after {timeout:?}: {}", stage.now);
            Err(no(what).hint("it may still come; soloist status shows it, soloist history what came of it"))
        }
    }
}

/// How far a handover is, for people.
#[derive(Default)]
struct Stage {
    now: String,
}

impl Stage {
    /// What is new.
    fn advance(&mut self, look: &Look, old: Activation) -> Option<String> {
        let now = match look.seen.record.as_ref().map(|record| &record.claim) {
            Some(Claim::Held(holder)) if holder.activation == old => format!("{} is stopping", holder.member.name),
            Some(Claim::Held(holder)) => format!("{} is active", holder.member.name),
            Some(Claim::Released(release)) => format!("{} released ({})", release.member.name, release.proof.word()),
            Some(Claim::Vacant(_)) | None => "the lock has no record any more".to_owned(),
            Some(Claim::Foreign(foreign)) => format!("the lock's record is not ours: {}", foreign.why),
        };
        (now != self.now).then(|| {
            self.now.clone_from(&now);
            now
        })
    }
}

/// The right one may have been too slow, or have gone away meanwhile.
fn check_new(to: Option<&str>, old: &Holder, new: &Holder) -> Result<(), Failure> {
    let name = &new.member.name;
    match to {
        Some(to) if name != to => Err(no(format!("{name} became active instead of {to}"))),
        _ if new.member == old.member => Err(no(format!("{name} became active again, because nobody else did"))),
        _ => Ok(()),
    }
}

impl Done {
    fn of(target: &Target, look: &Look, old: &Holder, new: &Holder, asked_unix_us: u64) -> Self {
        let find = |holder: &Holder| {
            let is_it = |change: &&_| is_of(change, holder);
            look.history.iter().rev().find(is_it)
        };
        let (before, after) = (find(old), find(new));
        let until = before.and_then(|before| before.until_us);
        Self {
            schema: SCHEMA,
            group: target.group.clone(),
            lock: target.lock.to_string(),
            previous: old.member.name.clone(),
            holder: new.member.name.clone(),
            fencing_token: new.token.map(|token| token.0),
            stop_ms: until.map(|until| ms(from_to_us(asked_unix_us, until))),
            gap_ms: before.zip(after).and_then(|(before, after)| gap_ms(before, after)),
            undo: undo(target, &old.member.name),
        }
    }

    fn text(&self) -> String {
        let token = self.fencing_token.map_or("?".to_owned(), |token| token.to_string());
        let length = |ms: Option<f64>| ms.map_or("unknown".to_owned(), |ms| format!("{ms:.1} ms"));
        let headline = coloured(&format!("{} is active with token {token}", self.holder), Colour::Good);
        let (stop, gap) = (length(self.stop_ms), length(self.gap_ms));
        format!(
            "{headline}\nstop     {stop}, from the request to the proof that nothing of {} was left\ngap      {gap}, from that proof on\nundo     {}",
            self.previous, self.undo
        )
    }
}

/// Whether a change is of this activation: tokens never repeat. On a Lease nobody knows the token before the first
/// renewal; the last one of that name is it then.
fn is_of(change: &crate::lock::history::Change, holder: &Holder) -> bool {
    let token = holder.token.map(|token| token.0);
    change.member == holder.member.name && (change.token == token || change.token.is_none() || token.is_none())
}

fn undo(target: &Target, to: &str) -> String {
    format!("{} --to {to}", target.command("switchover"))
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{Fake, change, held, released, target_at, with_history, with_members};
    use super::*;
    use crate::clock::unix_us;
    use crate::error::Code;

    fn target() -> Target {
        target_at("/srv/my app.lock")
    }

    async fn run(fake: &Fake, to: Option<&str>) -> Result<Done, Failure> {
        switch_over(&target(), fake, to, Duration::from_secs(30), Format::Json).await
    }

    fn group(look: Look) -> Look {
        with_members(look, unix_us() / 1_000, &[("a", true), ("b", true), ("c", true)])
    }

    #[tokio::test(start_paused = true)]
    async fn it_tells_who_is_active_how_long_nobody_was_and_how_to_undo_it() {
        let now = unix_us();
        let history = [change("a", 1, now - 9_000_000, Some(now + 20_000)), change("b", 2, now + 28_500, None)];
        let fake = Fake::new(group(held("a", 1))).then(released("a", 1)).then(with_history(held("b", 2), &history));
        fake.answers(None);
        let done = run(&fake, Some("b")).await.unwrap();
        assert_eq!((done.holder.as_str(), done.fencing_token, done.gap_ms), ("b", Some(2), Some(8.5)));
        assert!(done.stop_ms.is_some_and(|ms| ms <= 20.0), "{done:?}");
        assert_eq!(done.undo, "soloist switchover --lock '/srv/my app.lock' --to a");
        let asked = fake.asked();
        assert_eq!(asked[0].activation, Activation(1).to_string());
        assert_eq!(asked[0].wish, Wish::Switchover { to: Some("b".to_owned()) });
        assert!(done.text().contains("gap      8.5 ms"), "{}", done.text());
    }

    #[tokio::test(start_paused = true)]
    async fn the_gap_is_told_also_where_a_token_is_not_known_yet() {
        let now = unix_us();
        let without_token = |mut look: Look| {
            if let Some(Claim::Held(holder)) = look.seen.record.as_mut().map(|record| &mut record.claim) {
                holder.token = None;
            }
            look
        };
        let mut after = change("b", 2, now + 28_500, None);
        after.token = None;
        let history = [change("a", 1, now - 9_000_000, Some(now + 20_000)), after];
        let look = without_token(with_history(held("b", 2), &history));
        let fake = Fake::new(group(without_token(held("a", 1)))).then(released("a", 1)).then(look);
        fake.answers(None);
        let done = run(&fake, Some("b")).await.unwrap();
        assert_eq!((done.fencing_token, done.gap_ms), (None, Some(8.5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_nobody_has_is_refused_with_those_that_are_known() {
        let fake = Fake::new(group(held("a", 1)));
        let failure = run(&fake, Some("d")).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert_eq!(failure.message, "there is no member \"d\"; known are a, b, c");
        assert!(fake.asked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_active_is_a_no() {
        let fake = Fake::new(released("a", 1));
        let failure = run(&fake, None).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert!(failure.message.contains("nobody is active: a released"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_third_one_or_the_same_again_is_a_no() {
        let fake = Fake::new(group(held("a", 1))).then(held("c", 2));
        fake.answers(None);
        assert_eq!(run(&fake, Some("b")).await.unwrap_err().message, "c became active instead of b");
        let fake = Fake::new(group(held("a", 1))).then(held("a", 2));
        fake.answers(None);
        assert!(run(&fake, None).await.unwrap_err().message.starts_with("a became active again"));
        let fake = Fake::new(group(held("a", 1))).then(held("c", 2));
        fake.answers(None);
        assert_eq!(run(&fake, None).await.unwrap().holder, "c");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_says_how_far_it_is() {
        let fake = Fake::new(group(held("a", 1))).then(released("a", 1));
        fake.answers(None);
        let failure = run(&fake, None).await.unwrap_err();
        assert_eq!(failure.code, Code::No);
        assert_eq!(failure.message, "nobody else was active after 30s: a released (no-child-left)");
    }
}
