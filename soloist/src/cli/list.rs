//! `soloist list`: all groups that can be seen from here.

use clap::Args;
use serde::Serialize;

use super::access;
use super::operate::print::{Format, SCHEMA, since_then, table};
use super::operate::survey::{Group, Survey, survey};
use super::operate::{self, Target};
use super::status::Status;
use crate::clock::unix_us;
use crate::error::{Code, Failure};
use crate::settings::{Place, Realm};

#[derive(Debug, Args)]
#[command(after_help = "\
Without WHERE it looks for lock files in the state folder. Of the Leases and
Endpoints in a namespace, and of the keys of Consul, it shows those that soloist
has written. Who may list Leases and no Endpoints is told so, and sees the Leases.
Leaves with 0 also where there is none; with 77 or 69 where one of them cannot
be read, and names it.

Examples:
  soloist list
  soloist list /srv/app
  soloist list kubernetes://prod/
  soloist list -A
  soloist list consul://127.0.0.1:8500/service/ --output json")]
pub(super) struct Arguments {
    /// A folder, kubernetes://NAMESPACE/ (kubernetes:/// for the own one), or consul://HOST:PORT/PREFIX/
    #[arg(value_name = "WHERE")]
    pub(super) place: Option<String>,
    /// In all namespaces of the cluster
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    #[command(flatten)]
    access: access::Arguments,
    /// A table for people, or JSON for programs
    #[arg(long, short, env = "SOLOIST_OUTPUT", default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// One look at everything.
pub(super) fn main(arguments: Arguments) -> Result<i32, Failure> {
    let realm = Realm::new(arguments.place.as_deref(), arguments.all_namespaces)?;
    if let (Some(_), Realm::Folder(folder)) = (&arguments.place, &realm)
        && matches!(folder.try_exists(), Ok(false))
    {
        // The state folder is made by the first member; one that somebody names is a slip of the pen.
        let failure = Failure::new(Code::Unavailable, format!("there is no folder {}", folder.display()));
        return Err(failure.hint("its groups' locks are files in it; without WHERE it is the state folder"));
    }
    let (allow_plaintext, access) = (arguments.access.allow_plaintext, arguments.access.into());
    if let Realm::Consul { server, .. } = &realm {
        // Any prefix will do to know how the token would travel.
        Realm::consul_place(server, "any")?.check_plaintext(allow_plaintext)?;
    }
    let found = operate::block_on(survey(&realm, &access))?;
    let now = unix_us();
    let list = List::of(&found, now);
    arguments.output.print(&list, || list.text(&realm, now));
    if let Some(why) = &found.left_out {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), "soloist: groups in Endpoints are not shown: {why}");
    }
    match found.unreadable.into_iter().next() {
        None => Ok(0),
        Some((place, failure)) => Err(Failure { message: format!("{place}: {}", failure.message), ..failure }),
    }
}

/// The groups, under the names that programs rely on.
#[derive(Debug, Serialize)]
struct List {
    schema: u32,
    /// Each as `status` shows it.
    groups: Vec<Status>,
    unreadable: Vec<Unreadable>,
    #[serde(skip)]
    lines: Vec<Status>,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    lock: String,
    why: String,
}

impl List {
    fn of(found: &Survey, now: u64) -> Self {
        let unreadable =
            |(place, failure): &(Place, Failure)| Unreadable { lock: place.to_string(), why: failure.message.clone() };
        Self {
            schema: SCHEMA,
            groups: found.groups.iter().map(|group| Status::of(&group.target, &group.looks, now)).collect(),
            unreadable: found.unreadable.iter().map(unreadable).collect(),
            lines: found.groups.iter().flat_map(|group| lines(group, now)).collect(),
        }
    }

    fn text(&self, realm: &Realm, now: u64) -> String {
        if self.lines.is_empty() {
            return format!("no group in {realm}");
        }
        table(
            ["group", "slot", "active", "token", "state", "since", "members", "lock"],
            self.lines.iter().map(|line| line.row(now)),
        )
    }
}

/// A line for each slot.
fn lines(group: &Group, now: u64) -> Vec<Status> {
    let slots = match group.looks.len() {
        1 => vec![None],
        count => (1..=u32::try_from(count).unwrap_or(u32::MAX)).map(Some).collect(),
    };
    let line = |slot| Status::of(&Target { slot, ..group.target.clone() }, &group.looks, now);
    slots.into_iter().map(line).collect()
}

impl Status {
    fn row(&self, now: u64) -> [String; 8] {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let unhealthy = self.members.iter().filter(|member| !member.healthy).count();
        let members = match (self.members.len(), unhealthy) {
            (all, 0) => all.to_string(),
            (all, unhealthy) => format!("{all}, {unhealthy} unhealthy"),
        };
        let token = if self.holder.is_some() { Some(self.token()) } else { None };
        [
            self.group.clone(),
            or_dash(self.slot.map(|slot| format!("{slot}/{}", self.slots.len()))),
            or_dash(self.holder.clone()),
            or_dash(token),
            self.state.to_owned(),
            or_dash(self.unix_us.since.map(|since| since_then(since, now))),
            members,
            self.lock.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::operate::fake::{change, held, released, target_at, with_history, with_members};
    use super::*;
    use crate::lock::board::Look;

    const NOW: u64 = 1_700_000_000_000_000;

    fn group(lock: &str, looks: Vec<Look>) -> Group {
        Group { target: target_at(lock), looks }
    }

    fn rows(list: &List) -> Vec<Vec<String>> {
        let text = list.text(&Realm::Folder("/srv".into()), NOW);
        text.lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect())
            .collect()
    }

    #[test]
    fn each_group_has_a_line_and_each_of_several_slots_too() {
        let held_since = with_history(held("a", 42), &[change("a", 42, NOW - 3_000_000, None)]);
        let one = with_members(held_since, NOW / 1_000, &[("a", true), ("b", false)]);
        let several = vec![held("x", 7), released("y", 8)];
        let found = Survey {
            groups: vec![group("/srv/app.lock", vec![one]), group("/srv/jobs.lock", several)],
            ..Survey::default()
        };
        let list = List::of(&found, NOW);
        let rows = rows(&list);
        assert_eq!(rows.len(), 4, "{rows:?}");
        assert_eq!(rows[1], ["app", "-", "a", "42", "held", "3s", "2, 1 unhealthy", "/srv/app.lock"]);
        assert_eq!(rows[2][1..5], ["1/2", "x", "7", "held"]);
        assert_eq!(rows[3][1..5], ["2/2", "-", "-", "released"]);
        let json = serde_json::to_value(&list).unwrap();
        assert_eq!(
            (&json["groups"][0]["holder"], &json["groups"][1]["slots"][1]["state"]),
            (&"a".into(), &"released".into())
        );
        assert_eq!(json["groups"].as_array().unwrap().len(), 2, "programs get one entry for each group");
    }

    #[test]
    fn nothing_is_said_to_be_nowhere_else() {
        let list = List::of(&Survey::default(), NOW);
        assert_eq!(list.text(&Realm::Folder("/srv".into()), NOW), "no group in /srv");
    }
}
