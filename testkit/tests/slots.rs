//! Groups of which several members may be active, on a lock file.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::group::Group;
use testkit::member::Member;
use testkit::scenario::LIMIT;
use testkit::statements::slots::{Site, all_active, check, each_free_slot_is_taken_and_no_other};
use testkit::wait::{holds_for, wait_for, wait_until};

/// Ends of activations in one test; `ROUNDS` chooses another number.
const ROUNDS: u32 = 8;

struct OnAFile(Group);

impl OnAFile {
    fn new(slots: u32) -> Result<Self> {
        let mut group = Group::unhurried()?;
        group.set_slots(slots)?;
        Ok(Self(group))
    }

    fn verb(&self, words: &[&str]) -> Result<Output> {
        let lock = self.0.lock().display().to_string();
        let (verb, rest) = words.split_first().context("no verb")?;
        let arguments = [&[*verb, "--lock", &lock], rest].concat();
        Command::new(self.0.binary("soloist")?).args(arguments).output().context("failed to run soloist")
    }

    fn status(&self) -> Result<Value> {
        let output = self.verb(&["status", "--output", "json"])?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Site for OnAFile {
    fn group(&self) -> &Group {
        &self.0
    }

    fn spawn(&mut self, name: &str) -> Result<Member> {
        self.0.member(name).probe::<&str>(&[])
    }
}

fn spawn(site: &mut OnAFile, names: &[&str]) -> Result<Vec<Member>> {
    names.iter().map(|name| site.spawn(name)).collect()
}

fn rounds() -> u32 {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn two_of_five_are_active_and_who_follows_takes_the_free_slot_alone() -> Result<()> {
    let mut site = OnAFile::new(2)?;
    each_free_slot_is_taken_and_no_other(&mut site, &["a", "b", "c", "d", "e"], rounds())?;
    Ok(())
}

#[test]
fn three_of_four_are_active() -> Result<()> {
    let mut site = OnAFile::new(3)?;
    each_free_slot_is_taken_and_no_other(&mut site, &["a", "b", "c", "d"], rounds())?;
    Ok(())
}

#[test]
fn status_shows_all_slots_and_a_switchover_needs_one() -> Result<()> {
    let mut site = OnAFile::new(2)?;
    let _members = spawn(&mut site, &["a", "b", "c"])?;
    let active = all_active(site.group())?;
    let holder = |status: &Value, slot: usize| status["slots"][slot]["holder"].as_str().map(str::to_owned);
    let announced = || {
        let status = site.status().ok()?;
        let is_complete = status["members"].as_array().is_some_and(|members| members.len() == 3);
        is_complete.then_some(status)
    };
    let status = wait_for("three members", LIMIT, announced)?;
    for (slot, span) in active.iter().enumerate() {
        ensure!(holder(&status, slot).as_ref() == Some(&span.member), "{status}");
    }
    let refused = site.verb(&["switchover"])?;
    let said = text(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("there are 2 slots, and none was named"), "{said}");
    let refused = site.verb(&["switchover", "--slot", "3"])?;
    ensure!(refused.status.code() == Some(64), "{}", text(&refused.stderr));
    let done = site.verb(&["switchover", "--slot", "2"])?;
    ensure!(done.status.success(), "{}", text(&done.stderr));
    let next = site.group().wait_active_in(2, active[1].token, LIMIT)?;
    ensure!(next.member != active[0].member && next.member != active[1].member, "{} follows", next.member);
    ensure!(text(&done.stdout).contains("--slot 2 --to"), "{}", text(&done.stdout));
    let history = site.verb(&["history", "--slot", "2"])?;
    ensure!(text(&history.stdout).contains("switchover"), "{}", text(&history.stdout));
    check(site.group(), 1)
}

#[test]
fn a_member_that_was_told_another_number_takes_no_slot_beyond_the_smaller() -> Result<()> {
    let mut site = OnAFile::new(2)?;
    let _members = spawn(&mut site, &["a", "b"])?;
    let active = all_active(site.group())?;
    site.0.set("--active", "5");
    let greedy = site.spawn("c")?;
    wait_until("it to say so", LIMIT, || greedy.log().contains("2 may be active at a time"))?;
    let stands_by =
        || greedy.role().as_deref() == Some("standby") && (1..=2).all(|slot| site.group().active_in(slot).is_some());
    wait_until("it to stand by", LIMIT, stands_by)?;
    let folder = site.group().folder().to_owned();
    holds_for("nobody is active in a third slot", LIMIT / 10, || !folder.join("app.lock.3.record").exists())?;
    let now = all_active(site.group())?;
    ensure!(
        now.iter().map(|span| span.activation).eq(active.iter().map(|span| span.activation)),
        "slots changed hands"
    );
    Ok(())
}

#[test]
fn one_of_one_is_as_without_the_flag() -> Result<()> {
    let mut site = OnAFile::new(1)?;
    let _members = spawn(&mut site, &["a", "b"])?;
    let active = site.group().wait_active_after(0, LIMIT)?;
    let record = site.group().record().context("no record")?;
    ensure!(record.get("slots").is_none(), "{record}");
    ensure!(site.status()?.get("slots").is_none());
    let now = site.group().wait_active_after(0, LIMIT)?;
    ensure!(now.activation == active.activation, "it changed hands");
    Ok(())
}
