//! `soloist status`: who is active, why, since when, and who else is there.

mod watch;

use std::time::Duration;

use clap::Args;
use election::{Claim, Holder, Record};
use serde::Serialize;

use super::operate::print::{Colour, Lease, SCHEMA, coloured, short_time, since_then, span, table, time, time_and_age};
use super::operate::{self, Target, asking};
use crate::clock::unix_us;
use crate::error::{Code, Failure};
use crate::lock::board::Look;
use crate::lock::history::Change;
use crate::snapshot::Announcement;

#[derive(Debug, Args)]
#[command(after_help = "\
Leaves with 0 while the lock names an active member, with 1 when nobody is
active, with 65 when its record cannot be read, with 69 when there is no lock.
Without --lock and --group it takes the only lock in the state folder.

The lock says who is active, not whether that member is still alive: its age
is shown, and only the other members time it.

With --watch it goes on until q, Ctrl-C or SIGTERM, and leaves with 0. On a
terminal it is drawn anew in its place; elsewhere each change is a line, with
--output json a JSON object on a line of its own.

Examples:
  soloist status --lock ./app.lock
  soloist status --lock ./app.lock --output json
  soloist status --lock ./app.lock --watch")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: operate::Common,
    /// Go on showing it
    #[arg(long, short)]
    watch: bool,
}

/// One look, or many; 1 when nobody is active.
pub(super) fn main(arguments: &Arguments) -> Result<i32, Failure> {
    let target = arguments.place.target_to_look_at()?;
    if arguments.watch {
        return operate::block_on(watch::watch(&target, arguments.place.output));
    }
    let looks = operate::block_on(async { target.looks(asking::look(&target.board().await?).await?).await })?;
    let now = unix_us();
    let status = Status::of(&target, &looks, now);
    arguments.place.output.print(&status, || status.text(now));
    Ok(status.code())
}

/// What is known, under the names that programs rely on.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    schema: u32,
    pub group: String,
    pub lock: String,
    /// `held`, `released`, `vacant`, `foreign` or `absent`.
    pub state: &'static str,
    pub holder: Option<String>,
    fencing_token: Option<u64>,
    activation: Option<String>,
    since: Option<String>,
    lease: Option<Lease>,
    paused_until: Option<String>,
    /// When the record was last written, by the wall clock.
    written: Option<String>,
    written_age_ms: Option<u64>,
    /// The last word of an activation, when nobody is active.
    released: Option<Released>,
    /// Why it is so, in one sentence.
    reason: String,
    /// Where there are several; what is said above is of the first that somebody is active in, or of the one asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    pub members: Vec<Member>,
    /// The one that was asked for.
    #[serde(skip)]
    pub slot: Option<u32>,
    #[serde(skip)]
    pub unix_us: Times,
}

/// One of several slots.
#[derive(Debug, Serialize)]
pub(super) struct Slot {
    slot: usize,
    state: &'static str,
    holder: Option<String>,
    fencing_token: Option<u64>,
    written_age_ms: Option<u64>,
    reason: String,
}

/// The same times as numbers, to tell their age.
#[derive(Debug)]
pub(super) struct Times {
    pub since: Option<u64>,
    until: Option<u64>,
    written: Option<u64>,
    paused_until: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Released {
    by: String,
    proof: &'static str,
    successor: Option<String>,
    at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Member {
    name: String,
    role: String,
    active: bool,
    pub healthy: bool,
    why: Option<String>,
    version: String,
    since: String,
    announced: String,
    announced_age_ms: u64,
    #[serde(skip)]
    announced_unix_us: u64,
}

impl Status {
    pub fn of(target: &Target, looks: &[Look], now: u64) -> Self {
        let asked_for = target.slot.and_then(|slot| usize::try_from(slot).ok()?.checked_sub(1));
        let foremost = asked_for.or_else(|| looks.iter().position(|look| holder(look).is_some())).unwrap_or(0);
        let look = looks.get(foremost).unwrap_or(&looks[0]);
        let (record, written) = (look.seen.record.as_ref(), look.written_unix_us);
        let claim = record.map(|record| &record.claim);
        let last = look.history.last();
        let holder = holder(look);
        let since = last.filter(|change| holder.is_some() && change.until_us.is_none()).map(|change| change.from_us);
        let until = last.filter(|_| holder.is_none()).and_then(|change| change.until_us);
        let paused_until = record.and_then(|record| record.paused_until_unix_ms).map(|ms| ms.saturating_mul(1_000));
        let is_ours = |record: &&Record| !matches!(record.claim, Claim::Foreign(_));
        let active: Vec<String> =
            looks.iter().filter_map(self::holder).map(|holder| holder.member.nonce.to_string()).collect();
        Self {
            schema: SCHEMA,
            group: target.group.clone(),
            lock: target.lock.to_string(),
            state: state(claim),
            holder: holder.map(|holder| holder.member.name.clone()),
            fencing_token: holder.and_then(|holder| holder.token).map(|token| token.0),
            activation: holder.map(|holder| holder.activation.to_string()),
            since: since.map(time),
            lease: record.filter(is_ours).map(|record| Lease::new(record.lease)),
            paused_until: paused_until.map(time),
            written: written.map(time),
            written_age_ms: written.map(|at| now.saturating_sub(at) / 1_000),
            released: released(claim, until),
            reason: reason(claim, last),
            slots: if looks.len() > 1 { Slot::all(looks, now) } else { Vec::new() },
            members: looks[0].members.iter().map(|one| Member::of(one, &active, now)).collect(),
            slot: target.slot,
            unix_us: Times { since, until, written, paused_until },
        }
    }

    fn code(&self) -> i32 {
        match self.state {
            "held" => 0,
            "foreign" => Code::Data as i32,
            _ => Code::No as i32,
        }
    }

    fn text(&self, now: u64) -> String {
        let mut lines = vec![self.headline(), String::new()];
        let mut line = |name: &str, value: String| lines.push(format!("{name:<8} {value}"));
        line("group", self.group.clone());
        line("lock", self.lock.clone());
        if let Some(since) = self.unix_us.since {
            line("since", time_and_age(since, now));
        }
        if let Some(until) = self.unix_us.until {
            line("until", time_and_age(until, now));
        }
        if let Some(lease) = &self.lease {
            line("lease", lease.text());
        }
        if let Some(until) = self.unix_us.paused_until {
            line("paused", paused(until, now));
        }
        if let Some(written) = self.unix_us.written {
            line("written", format!("{} ago by the wall clock", since_then(written, now)));
        }
        line("reason", self.reason.clone());
        lines.push(String::new());
        if !self.slots.is_empty() {
            lines.extend([self.slots_table(), String::new()]);
        }
        lines.push(self.members_table(now));
        lines.join("\n")
    }

    fn slots_table(&self) -> String {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let rows = self.slots.iter().map(|slot| {
            let token = slot.fencing_token.map(|token| token.to_string());
            let (number, state) = (slot.slot.to_string(), slot.state.to_owned());
            [number, or_dash(slot.holder.clone()), or_dash(token), state, slot.reason.clone()]
        });
        table(["slot", "active", "token", "lock", "reason"], rows)
    }

    fn headline(&self) -> String {
        let is_led = self.holder.is_some() || self.slots.iter().any(|slot| slot.holder.is_some());
        coloured(&self.plain_headline(), if is_led { Colour::Good } else { Colour::Bad })
    }

    fn plain_headline(&self) -> String {
        if !self.slots.is_empty() {
            let active = self.slots.iter().filter(|slot| slot.holder.is_some()).count();
            return format!("{active} of at most {} are active", self.slots.len());
        }
        match (&self.holder, self.state) {
            (Some(holder), _) => format!("{holder} is active with token {}", self.token()),
            (None, "foreign") => "the lock's record is unreadable or somebody else's".to_owned(),
            (None, _) => "nobody is active".to_owned(),
        }
    }

    /// On a Lease it is known from the first renewal on.
    pub fn token(&self) -> String {
        self.fencing_token.map_or("?".to_owned(), |token| token.to_string())
    }

    fn members_table(&self, now: u64) -> String {
        if self.members.is_empty() {
            return "no member has announced itself within two minutes".to_owned();
        }
        let rows = self.members.iter().map(|member| {
            [
                if member.active { "*" } else { "" }.to_owned(),
                member.name.clone(),
                member.role.clone(),
                member.health(),
                member.version.clone(),
                format!("{} ago", since_then(member.announced_unix_us, now)),
            ]
        });
        table(["", "member", "role", "health", "version", "last seen"], rows)
    }
}

impl Slot {
    fn all(looks: &[Look], now: u64) -> Vec<Self> {
        let of = |(look, slot): (&Look, usize)| {
            let claim = look.seen.record.as_ref().map(|record| &record.claim);
            Self {
                slot,
                state: state(claim),
                holder: holder(look).map(|holder| holder.member.name.clone()),
                fencing_token: holder(look).and_then(|holder| holder.token).map(|token| token.0),
                written_age_ms: look.written_unix_us.map(|at| now.saturating_sub(at) / 1_000),
                reason: reason(claim, look.history.last()),
            }
        };
        looks.iter().zip(1..).map(of).collect()
    }
}

/// Whom a lock names.
fn holder(look: &Look) -> Option<&Holder> {
    match look.seen.record.as_ref().map(|record| &record.claim) {
        Some(Claim::Held(holder)) => Some(holder),
        _ => None,
    }
}

fn state(claim: Option<&Claim>) -> &'static str {
    match claim {
        Some(Claim::Held(_)) => "held",
        Some(Claim::Released(_)) => "released",
        Some(Claim::Vacant(_)) => "vacant",
        Some(Claim::Foreign(_)) => "foreign",
        None => "absent",
    }
}

fn released(claim: Option<&Claim>, until: Option<u64>) -> Option<Released> {
    let Some(Claim::Released(release)) = claim else { return None };
    Some(Released {
        by: release.member.name.clone(),
        proof: release.proof.word(),
        successor: release.successor.clone(),
        at: until.map(time),
    })
}

fn reason(claim: Option<&Claim>, last: Option<&Change>) -> String {
    match claim {
        Some(Claim::Held(_)) => last.map_or_else(|| "the history does not say why".to_owned(), |last| last.why.clone()),
        Some(Claim::Released(release)) => {
            let end = last.and_then(|last| last.end.as_ref()).map(|end| format!(": {end}"));
            format!("{} released ({}){}", release.member.name, release.proof.word(), end.unwrap_or_default())
        }
        Some(Claim::Vacant(vacancy)) => format!("{} found no record and waits a lease", vacancy.member.name),
        Some(Claim::Foreign(foreign)) => foreign.why.clone(),
        None => "there is a lock but no record: nobody has been active yet, or it was deleted".to_owned(),
    }
}

fn paused(until: u64, now: u64) -> String {
    match until.checked_sub(now) {
        Some(rest) => format!("until {} (in {})", short_time(until), span(Duration::from_micros(rest))),
        None => format!("until {}, which is over", short_time(until)),
    }
}

impl Member {
    fn of(announcement: &Announcement, active: &[String], now: u64) -> Self {
        let announced = announcement.at_unix_ms.saturating_mul(1_000);
        let is_active = active.contains(&announcement.nonce);
        Self {
            name: announcement.name.clone(),
            role: role(&announcement.role, is_active),
            active: is_active,
            healthy: announcement.healthy,
            why: announcement.why.clone(),
            version: announcement.version.clone(),
            since: time(announcement.since_unix_ms.saturating_mul(1_000)),
            announced: time(announced),
            announced_age_ms: now.saturating_sub(announced) / 1_000,
            announced_unix_us: announced,
        }
    }

    fn health(&self) -> String {
        match (self.healthy, &self.why) {
            (true, _) => "healthy".to_owned(),
            (false, Some(why)) => format!("unhealthy: {why}"),
            (false, None) => "unhealthy".to_owned(),
        }
    }
}

/// The lock knows better than an announcement, which may be older than the last handover.
fn role(announced: &str, is_active: bool) -> String {
    match (announced, is_active) {
        ("standby" | "acquiring", true) => "active",
        ("active" | "stopping", false) => "standby",
        (announced, _) => announced,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::operate::fake::{change, foreign, held, released, target_at, with_history, with_members};
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000;

    fn status(look: &Look) -> Status {
        let target = target_at("/srv/app.lock");
        let look = Look { written_unix_us: Some(NOW - 1_200_000), ..look.clone() };
        Status::of(&target, &[look], NOW)
    }

    #[test]
    fn an_active_member_is_shown_with_token_age_and_company() {
        let history = [change("b", 41, NOW - 9_000_000, Some(NOW - 5_000_000)), change("a", 42, NOW - 3_000_000, None)];
        let look = with_history(held("a", 42), &history);
        let look = with_members(look, NOW / 1_000, &[("a", true), ("b", false)]);
        let status = status(&look);
        assert_eq!(status.code(), 0);
        let text = status.text(NOW);
        assert!(text.starts_with("a is active with token 42\n"), "{text}");
        assert!(text.contains("since    2023-11-14T22:13:17Z (3s ago)"), "{text}");
        assert!(text.contains("written  1.2s ago by the wall clock"), "{text}");
        assert!(text.contains("unhealthy: the check said no"), "{text}");
        let marked: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with('*')).collect();
        assert!(marked.len() == 1 && marked[0].contains(" a ") && marked[0].contains(" active "), "{text}");
    }

    #[test]
    fn programs_find_stable_names() {
        let mut look = with_members(held("a", 42), NOW / 1_000, &[("a", true)]);
        look.seen.record.as_mut().unwrap().paused_until_unix_ms = Some(NOW / 1_000 + 60_000);
        let json = serde_json::to_value(status(&look)).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["state"], "held");
        assert_eq!(json["holder"], "a");
        assert_eq!(json["fencing_token"], 42);
        assert_eq!(json["lease"]["seconds"], 15);
        assert_eq!(json["paused_until"], "2023-11-14T22:14:20.000000Z");
        assert_eq!(json["written_age_ms"], 1_200);
        assert_eq!(json["members"][0]["name"], "a");
        assert_eq!(json["members"][0]["active"], true);
        assert_eq!(json["members"][0]["healthy"], true);
        assert_eq!(json["members"][0]["announced_age_ms"], 2_000);
        assert!(json["released"].is_null() && json.get("unix_us").is_none());
    }

    #[test]
    fn nobody_active_says_who_was_and_how_it_ended() {
        let look = with_history(released("a", 42), &[change("a", 42, NOW - 9_000_000, Some(NOW - 5_000_000))]);
        let status = status(&look);
        assert_eq!(status.code(), 1);
        let text = status.text(NOW);
        assert!(text.starts_with("nobody is active\n"), "{text}");
        assert!(text.contains("until    2023-11-14T22:13:15Z (5s ago)"), "{text}");
        assert!(text.contains("a released (no-child-left): switchover"), "{text}");
        assert_eq!(serde_json::to_value(&status).unwrap()["released"]["by"], "a");
    }

    #[test]
    fn all_slots_are_shown_with_who_is_active_in_them() {
        let target = target_at("/srv/app.lock");
        let members = |look| with_members(look, NOW / 1_000, &[("a", true), ("b", true), ("c", true)]);
        let looks = [members(released("c", 7)), held("a", 42), held("b", 43)];
        let status = Status::of(&target, &looks, NOW);
        assert_eq!(status.code(), 0);
        let text = status.text(NOW);
        assert!(text.starts_with("2 of at most 3 are active\n"), "{text}");
        let marked: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with('*')).collect();
        assert_eq!(marked.len(), 2, "{text}");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((&json["holder"], &json["slots"][1]["holder"]), (&"a".into(), &"a".into()));
        assert_eq!((&json["slots"][0]["state"], &json["slots"][2]["fencing_token"]), (&"released".into(), &43.into()));
    }

    #[test]
    fn an_unreadable_record_is_said_plainly() {
        let status = status(&foreign("the record was edited"));
        assert_eq!(status.code(), 65);
        let text = status.text(NOW);
        assert!(text.contains("unreadable") && text.contains("the record was edited"), "{text}");
    }
}
