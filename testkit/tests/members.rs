//! Members know of each other by the board beside the lock, requests reach the active one by it, and the record tells
//! what has happened. Nothing on the board decides who is active.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use election::Claim;
use rustix::process::Signal;
use soloist::clock::unix_us;
use soloist::lock::LockError;
use soloist::lock::board::{ANNOUNCEMENT_LIFE, Answer, Asked, Asking, Board, Look, Wish};
use soloist::lock::file::FileBoard;
use soloist::lock::history::Change;
use soloist::snapshot::Announcement;
use testkit::group::Group;
use testkit::history::Span;
use testkit::member::Member;
use testkit::process;
use testkit::scenario::{LIMIT, check, start, wait_family};
use testkit::wait::{wait_for, wait_until};

/// An operator at the board of a group.
struct Operator {
    board: FileBoard,
    runtime: tokio::runtime::Runtime,
}

impl Operator {
    fn new(group: &Group) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { board: FileBoard::open(group.lock())?, runtime })
    }

    fn call<T>(&self, call: impl Future<Output = Result<T, LockError>>) -> Result<T> {
        Ok(self.runtime.block_on(call)?)
    }

    fn look(&self) -> Result<Look> {
        self.call(self.board.look())
    }

    /// Waits until the members are these, by name.
    fn wait_members(&self, names: &[&str]) -> Result<Vec<Announcement>> {
        let seen = || self.look().ok().map(|look| look.members);
        let is_wanted = |members: &Vec<Announcement>| members.iter().map(|member| &member.name).eq(names);
        wait_for(&format!("the members {names:?}"), LIMIT, || seen().filter(is_wanted))
            .with_context(|| format!("there are {:?}", seen()))
    }

    /// Waits until a member plays this part, as it says.
    fn wait_role(&self, name: &str, role: &str) -> Result<()> {
        let plays = |look: Look| look.members.iter().any(|member| member.name == name && member.role == role);
        wait_until(&format!("{name} to say that it is {role}"), LIMIT, || self.look().is_ok_and(plays))
    }

    /// Asks the active member, and waits for its answer.
    fn ask(&self, wish: Wish) -> Result<Answer> {
        let claim = self.look()?.seen.record.context("no record")?.claim;
        let Claim::Held(holder) = claim else { anyhow::bail!("nobody is active: {claim:?}") };
        let at_unix_ms = unix_us() / 1000;
        let (id, by) = (format!("test-{at_unix_ms}"), "a test".to_owned());
        let asked = Asked { id: id.clone(), wish, activation: holder.activation.to_string(), by, at_unix_ms };
        ensure!(self.call(self.board.ask(&asked))? == Asking::Up, "another request is up");
        wait_for("an answer", LIMIT, || self.call(self.board.answered(&id)).ok().flatten())
    }

    fn history(&self) -> Result<Vec<Change>> {
        Ok(self.look()?.history)
    }
}

fn beside(group: &Group, suffix: &str) -> PathBuf {
    let mut path = group.lock().to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

/// Says, as if it were a member, what `announcement` says.
fn post(group: &Group, announcement: &Announcement) -> Result<()> {
    let place = beside(group, ".members").join(format!("{}.json", announcement.nonce));
    fs::write(place, serde_json::to_string(announcement)?).context("failed to post")
}

fn ghost(nonce: u128, age: Duration) -> Announcement {
    let at_unix_ms = unix_us() / 1000 - age.as_millis() as u64;
    Announcement {
        name: format!("ghost{nonce}"),
        nonce: election::Nonce(nonce).to_string(),
        role: "standby".to_owned(),
        healthy: true,
        why: None,
        leaving: false,
        version: "0.0.0".to_owned(),
        since_unix_ms: at_unix_ms,
        at_unix_ms,
    }
}

#[test]
fn members_announce_themselves_and_one_that_is_killed_disappears() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _active) = start(&group, &["a", "b"], &[], &[])?;
    let operator = Operator::new(&group)?;
    operator.wait_members(&["a", "b"])?;
    operator.wait_role("a", "active")?;
    operator.wait_role("b", "standby")?;
    let b = members.pop().context("two were started")?;
    b.signal(Signal::KILL)?;
    operator.wait_members(&["a"])?;
    ensure!(operator.ask(Wish::Switchover { to: Some("b".to_owned()) })?.refusal.is_some(), "b is gone");
    Ok(())
}

#[test]
fn a_member_that_leaves_takes_its_announcement_with_it() -> Result<()> {
    let group = Group::new()?;
    let (mut members, _active) = start(&group, &["a", "b"], &[], &[])?;
    let operator = Operator::new(&group)?;
    operator.wait_members(&["a", "b"])?;
    members[1].signal(Signal::TERM)?;
    ensure!(members[1].wait_exit_code(LIMIT)? == 0);
    ensure!(fs::read_dir(beside(&group, ".members"))?.count() == 1, "its file is gone");
    operator.wait_members(&["a"]).map(drop)
}

#[test]
fn only_a_healthy_member_whose_announcement_is_fresh_can_take_over() -> Result<()> {
    let group = Group::new()?;
    let (members, active) = start(&group, &["a"], &[], &[])?;
    let operator = Operator::new(&group)?;
    operator.wait_members(&["a"])?;
    post(&group, &Announcement { healthy: false, ..ghost(1, Duration::ZERO) })?;
    let left = Duration::from_secs(2);
    post(&group, &Announcement { healthy: false, ..ghost(2, ANNOUNCEMENT_LIFE - left) })?;
    post(&group, &ghost(3, ANNOUNCEMENT_LIFE))?;
    operator.wait_members(&["a", "ghost1", "ghost2"])?;
    for name in ["ghost1", "ghost3", "nobody"] {
        let refusal = operator.ask(Wish::Switchover { to: Some(name.to_owned()) })?.refusal;
        ensure!(refusal.as_ref().is_some_and(|no| no.kind == "no-candidate"), "{name}: {refusal:?}");
    }
    operator.wait_members(&["a", "ghost1"])?;
    ensure!(members[0].wait_active(&group, LIMIT)?.token == active.token, "it was never stopped");
    Ok(())
}

/// Waits until somebody is active after `before`, and says so on the board.
fn next(group: &Group, operator: &Operator, before: &Span) -> Result<Span> {
    let active = group.wait_active_after(before.token, LIMIT)?;
    operator.wait_role(&active.member, "active")?;
    Ok(active)
}

#[test]
fn who_has_waited_longest_is_named_first() -> Result<()> {
    let group = Group::new()?;
    let operator = Operator::new(&group)?;
    let a = Member::spawn(&group, "a", &[], &[])?;
    let mut active = a.wait_active(&group, LIMIT)?;
    operator.wait_members(&["a"])?;
    // Not in the order of their names.
    let _c = Member::spawn(&group, "c", &[], &[])?;
    operator.wait_members(&["a", "c"])?;
    let _b = Member::spawn(&group, "b", &[], &[])?;
    operator.wait_members(&["a", "b", "c"])?;
    for expected in ["c", "b", "a"] {
        let before = active.member.clone();
        let answer = operator.ask(Wish::Switchover { to: None })?;
        ensure!((answer.refusal.as_ref(), answer.by.as_str()) == (None, before.as_str()), "{answer:?}");
        active = next(&group, &operator, &active)?;
        ensure!(active.member == expected, "{} instead of {expected}\n{}", active.member, group.logs());
        operator.wait_role(&before, "standby")?;
    }
    let ends: Vec<_> = operator.history()?.into_iter().filter_map(|change| change.end).collect();
    ensure!(ends == ["switchover to c", "switchover to b", "switchover to a"], "{ends:?}");
    Ok(())
}

#[test]
fn the_record_tells_who_was_active_and_why_it_ended() -> Result<()> {
    let group = Group::new()?;
    let operator = Operator::new(&group)?;
    let (members, first) = start(&group, &["a", "b", "c", "d", "e"], &[], &[])?;
    operator.wait_members(&["a", "b", "c", "d", "e"])?;
    let of = |span: &Span| members.iter().find(|member| member.name() == span.member).context("a member");

    let next = |before: &Span| -> Result<Span> {
        let next = group.wait_active_after(before.token, LIMIT)?;
        wait_family(&group, next.token, 0)
    };
    of(&first)?.signal(Signal::TERM)?;
    let second = next(&first)?;
    process::signal(of(&second)?.command_pid(&second)?, Signal::KILL)?;
    let third = next(&second)?;
    of(&third)?.signal(Signal::KILL)?;
    let fourth = next(&third)?;
    let (elector, guard) = (of(&fourth)?.elector_pid()?, of(&fourth)?.guard_pid()?);
    process::signal(guard, Signal::STOP)?;
    process::signal(elector, Signal::KILL)?;
    process::signal(guard, Signal::KILL)?;
    let fifth = next(&fourth)?;

    let history = operator.history()?;
    let spans = [&first, &second, &third, &fourth, &fifth];
    let told: Vec<_> = history.iter().map(|change| (change.token, change.member.as_str())).collect();
    let were: Vec<_> = spans.iter().map(|span| (Some(span.token), span.member.as_str())).collect();
    ensure!(told == were, "{told:?} instead of {were:?}");
    let ends: Vec<_> = history.iter().map(|change| change.end.clone().unwrap_or_default()).collect();
    let expected =
        ["asked to leave", "the workload ended by itself with code 137", "the elector was gone", "no release: "];
    ensure!(expected.iter().zip(&ends).all(|(start, end)| end.starts_with(start)), "{ends:?}");
    ensure!(ends[4].is_empty(), "it is still active: {ends:?}");
    for (before, after) in history.iter().zip(&history[1..]).take(3) {
        let until = before.until_us.context("a proof has a time")?;
        let gap = after.from_us.checked_sub(until).with_context(|| format!("{before:?} overlaps {after:?}"))?;
        ensure!(until >= before.from_us && gap < 2_000_000, "{before:?}, then {after:?}");
    }
    ensure!(history[3].until_us.is_none(), "nobody knows when: {:?}", history[3]);
    check(&group, 5, &fourth)
}

#[test]
fn garbage_on_the_board_changes_nothing() -> Result<()> {
    let group = Group::new()?;
    let operator = Operator::new(&group)?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    operator.wait_members(&["a", "b"])?;
    let folder = beside(&group, ".members");
    for nonce in 1..300_u128 {
        let name = format!("{}.json", election::Nonce(nonce << 64));
        match nonce % 4 {
            0 => fs::create_dir(folder.join(name))?,
            1 => fs::write(folder.join(name), "{\"name\": \"x\"")?,
            2 => fs::write(folder.join(name), [0xff; 10_000])?,
            _ => std::os::unix::fs::symlink("/etc/passwd", folder.join(name))?,
        }
    }
    for garbage in ["", "null", "{\"wish\": \"resume\"}", &"[".repeat(100_000)] {
        let new = beside(&group, ".request.new");
        fs::write(&new, garbage)?;
        fs::rename(new, beside(&group, ".request"))?;
    }
    // What cannot be read is in nobody's way.
    let refusal = operator.ask(Wish::Resume)?.refusal.context("there is no pause")?;
    ensure!(refusal.kind == "conflict", "{refusal:?}");
    members[0].signal(Signal::TERM)?;
    let second = group.wait_active_after(active.token, LIMIT)?;
    ensure!(second.member == "b");
    check(&group, 2, &active)
}

#[test]
fn a_board_that_cannot_be_is_no_obstacle() -> Result<()> {
    let group = Group::new()?;
    fs::write(beside(&group, ".members"), "a file")?;
    fs::create_dir(beside(&group, ".request"))?;
    let (members, active) = start(&group, &["a", "b"], &[], &[])?;
    let complaints = |member: &Member| member.log().matches("cannot announce this member").count();
    wait_until("both to complain", LIMIT, || members.iter().all(|member| complaints(member) == 1))
        .with_context(|| group.logs())?;
    members[0].signal(Signal::TERM)?;
    let second = group.wait_active_after(active.token, LIMIT)?;
    ensure!(second.member == "b");
    ensure!(members.iter().all(|member| complaints(member) == 1), "they complain again: {}", group.logs());
    check(&group, 2, &active)
}
