//! What kubectl asks for when somebody presses Tab after `kubectl soloist`: a program called `kubectl_complete-soloist`
//! gets the words that are there, of which the last one is to be completed, and says what it could be, line by line. The
//! last line is one of cobra's directives.

use std::ffi::OsString;
use std::io::Write as _;
use std::time::Duration;

use clap::{Arg, Command};

use super::{ABOUT_ONE, definition};
use crate::cli::operate::survey::survey;
use crate::cli::operate::{self, asking};
use crate::lock::kubernetes::{Access, Kind};
use crate::settings::{Place, Realm};

/// What kubectl looks for.
pub const NAME: &str = "kubectl_complete-soloist";
/// What was offered is all: names of files are of no use.
const NO_FILES: &str = ":4";
/// Whoever has pressed Tab does not wait longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says what could come next. Nothing that goes wrong is said: it would stand in the middle of a command line.
pub fn main(words: Vec<OsString>) -> i32 {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let definition = definition();
    let line = Line::read(&definition, before);
    let mut offered = line.offers(last);
    if line.wants_a_group(last) {
        offered.extend(groups(&line));
    }
    offered.retain(|word| word.starts_with(last));
    let mut out = std::io::stdout().lock();
    let text = offered.into_iter().chain([NO_FILES.to_owned()]).collect::<Vec<_>>().join("\n");
    // Nobody is left to tell if that is closed.
    let _ = writeln!(out, "{text}");
    0
}

/// The command line so far.
struct Line<'a> {
    command: &'a Command,
    /// Whether `command` is a verb.
    has_verb: bool,
    /// Words of the verb that belong to no flag.
    objects: usize,
    /// A flag that waits for its value.
    open: Option<&'a Arg>,
    given: Vec<(&'a str, String)>,
}

impl<'a> Line<'a> {
    fn read(definition: &'a Command, words: &[String]) -> Self {
        let mut line = Self { command: definition, has_verb: false, objects: 0, open: None, given: Vec::new() };
        for word in words {
            line.take(word);
        }
        line
    }

    fn take(&mut self, word: &str) {
        if let Some(flag) = self.open.take() {
            self.given.push((flag.get_id().as_str(), word.to_owned()));
        } else if word.starts_with('-') {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let Some(flag) = self.command.get_arguments().find(|flag| is_called(flag, name)) else { return };
            match value {
                Some(value) => self.given.push((flag.get_id().as_str(), value.to_owned())),
                None if flag.get_action().takes_values() => self.open = Some(flag),
                None => self.given.push((flag.get_id().as_str(), String::new())),
            }
        } else if self.has_verb {
            self.objects += 1;
        } else if let Some(verb) = self.command.find_subcommand(word) {
            (self.command, self.has_verb) = (verb, true);
        }
    }

    /// What can be said without asking anybody.
    fn offers(&self, last: &str) -> Vec<String> {
        if let Some(flag) = self.open {
            return flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        }
        if last.starts_with('-') {
            let shown = self.command.get_arguments().filter(|flag| !flag.is_hide_set());
            return shown.filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect();
        }
        if self.has_verb {
            return Vec::new();
        }
        let line = |verb: &Command| match verb.get_about() {
            Some(about) => format!("{}\t{about}", verb.get_name()),
            None => verb.get_name().to_owned(),
        };
        self.command.get_subcommands().map(line).collect()
    }

    fn wants_a_group(&self, last: &str) -> bool {
        let is_free = self.has_verb && self.open.is_none() && self.objects == 0 && !last.starts_with('-');
        is_free && ABOUT_ONE.contains(&self.command.get_name())
    }

    fn value(&self, id: &str) -> Option<&str> {
        self.given.iter().rev().find(|(name, _)| *name == id).map(|(_, value)| value.as_str())
    }
}

fn is_called(flag: &Arg, name: &str) -> bool {
    let is_long = |long: &str| name.strip_prefix("--") == Some(long);
    let is_short = |short: char| name.strip_prefix('-').is_some_and(|rest| rest.chars().eq([short]));
    flag.get_long().is_some_and(is_long) || flag.get_short().is_some_and(is_short)
}

/// The groups of the namespace, as they are named there.
fn groups(line: &Line<'_>) -> Vec<String> {
    let access = Access {
        kubeconfig: line.value("kubeconfig").map(Into::into),
        context: line.value("context").map(str::to_owned),
        ..Access::default()
    };
    let place = format!("kubernetes://{}/", line.value("namespace").unwrap_or_default());
    let Ok(realm) = Realm::new(Some(&place), false) else { return Vec::new() };
    let found = operate::block_on(async {
        asking::in_time(PATIENCE, "list the groups", survey(&realm, &access)).await.and_then(|found| found)
    });
    let name = |place: &Place| match place {
        Place::Kubernetes(object) if object.kind == Kind::Endpoints => Some(format!("endpoints/{}", object.name)),
        Place::Kubernetes(object) => Some(object.name.clone()),
        Place::File(_) | Place::Consul(_) => None,
    };
    found.map_or_else(|_| Vec::new(), |found| found.groups.iter().filter_map(|one| name(&one.target.lock)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> (Vec<String>, bool) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let definition = definition();
        let line = Line::read(&definition, before);
        let words = line.offers(last).into_iter().filter(|word| word.starts_with(last.as_str()));
        (words.map(|word| word.split('\t').next().unwrap().to_owned()).collect(), line.wants_a_group(last))
    }

    #[test]
    fn verbs_flags_and_values_are_completed_and_groups_are_where_a_name_is_due() {
        assert_eq!(offered("s"), (vec!["status".to_owned(), "switchover".to_owned()], false));
        assert_eq!(offered("status "), (vec![], true));
        assert_eq!(offered("status -n prod my-"), (vec![], true));
        assert_eq!(offered("status app "), (vec![], false), "it has a name already");
        assert_eq!(offered("list "), (vec![], false), "it is about no single group");
        assert_eq!(offered("status --namesp"), (vec!["--namespace".to_owned()], false));
        assert_eq!(offered("status app -o "), (vec!["table".to_owned(), "json".to_owned()], false));
        assert_eq!(offered("status --loc"), (vec![], false), "other locks are not named there");
        assert_eq!(offered("status --output=json "), (vec![], true));
        assert_eq!(offered("nothing "), offered(""), "what is no verb is none of ours");
    }

    #[test]
    fn what_was_said_of_the_cluster_counts() {
        let words = ["status", "-n", "prod", "--context=east", "--watch"].map(str::to_owned);
        let definition = definition();
        let line = Line::read(&definition, &words);
        assert_eq!(
            (line.value("namespace"), line.value("context"), line.value("kubeconfig")),
            (Some("prod"), Some("east"), None)
        );
    }
}
