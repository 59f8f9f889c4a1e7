//! `kubectl soloist VERB NAME`: the verbs over a Lease, called as kubectl's own verbs are. The same definitions, with the
//! Lease's name and namespace in the place of a lock's URL.

pub mod completion;

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::operate::Front;
use super::{Cli, Verb};
use crate::error::{Code, Failure};
use crate::settings::{is_label, is_subdomain};

/// What kubectl calls for `kubectl soloist`.
pub const NAME: &str = "kubectl-soloist";
/// What people type.
pub(super) const CALLED: &str = "kubectl soloist";

/// The verbs that make sense there, in the order of the help.
const VERBS: [&str; 9] =
    ["status", "list", "history", "switchover", "pause", "resume", "failover", "doctor", "explain"];
/// Those of them that are about one Lease.
const ABOUT_ONE: [&str; 7] = ["status", "history", "switchover", "pause", "resume", "failover", "doctor"];

const EXAMPLES: &str = "\
Examples:
  kubectl soloist list -A
  kubectl soloist status my-app
  kubectl soloist status my-app -n prod --context east --watch
  kubectl soloist switchover my-app --to my-app-2

NAME is the name of the Lease; endpoints/NAME is an election in Endpoints. The
namespace is that of the context in the kubeconfig, unless -n names another.";

/// Runs a verb, and returns its exit code.
pub fn main(arguments: Vec<OsString>) -> i32 {
    let arguments = std::iter::once(CALLED.into()).chain(arguments);
    match parse(arguments) {
        Ok(verb) => super::finish(verb.and_then(super::run)),
        Err(error) => super::refuse_usage(&error, CALLED),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Result<Verb, Failure>, clap::Error> {
    let matches = definition().try_get_matches_from(arguments)?;
    let mut verb = Verb::from_arg_matches(&matches)?;
    let place = matches.subcommand().map_or(Ok(None), |(name, given)| place(name, given));
    Ok(place.map(|place| {
        verb.aim(place);
        verb
    }))
}

fn definition() -> Command {
    let all = Cli::command();
    let verbs = VERBS.iter().filter_map(|name| all.find_subcommand(name)).map(|verb| fitted(verb.clone()));
    Command::new(CALLED)
        .bin_name(CALLED)
        .about("Look at groups of soloist on Leases, and steer them")
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(EXAMPLES)
        .subcommands(verbs)
}

/// The verb with a name and a namespace instead of what names other locks.
fn fitted(mut verb: Command) -> Command {
    let name = verb.get_name().to_owned();
    let own = ["lock", "group", "place", "allow_plaintext"];
    let has = |verb: &Command, id: &str| verb.get_arguments().any(|argument| argument.get_id() == id);
    if name == "explain" {
        return verb.after_help(None);
    }
    for id in own {
        if has(&verb, id) {
            verb = verb.mut_arg(id, |argument| argument.hide(true).env(Resettable::Reset).conflicts_with("namespace"));
        }
    }
    verb = verb.after_help(None).arg(
        Arg::new("namespace")
            .long("namespace")
            .short('n')
            .value_name("NAMESPACE")
            .action(ArgAction::Set)
            .help("The namespace [default: that of the context]"),
    );
    if !ABOUT_ONE.contains(&name.as_str()) {
        return verb;
    }
    let object = Arg::new("object").value_name("NAME").required(true).index(1).help("The Lease, or endpoints/NAME");
    verb.mut_arg("lock", |argument| argument.conflicts_with("object")).arg(object)
}

/// The lock, or where all are looked for, as the other front door would be told; nothing for a verb that needs neither.
fn place(verb: &str, given: &ArgMatches) -> Result<Option<String>, Failure> {
    if verb == "explain" {
        return Ok(None);
    }
    let namespace = given.get_one::<String>("namespace").map_or("", String::as_str);
    if !namespace.is_empty() && !is_label(namespace) {
        let what = format!("--namespace {namespace:?} is no name of a namespace");
        return Err(Failure::new(Code::Usage, what).hint("a DNS-1123 label: a-z, 0-9, '-', at most 63"));
    }
    if !ABOUT_ONE.contains(&verb) {
        if let Some(other) = given.get_one::<String>("place") {
            let what = format!("got {other:?}, but here groups are looked for on Leases alone");
            return Err(Failure::new(Code::Usage, what).hint("-n NAMESPACE or -A; soloist list looks elsewhere"));
        }
        let is_everywhere = given.get_flag("all_namespaces");
        return Ok(Some(if is_everywhere {
            "kubernetes:///".to_owned()
        } else {
            format!("kubernetes://{namespace}/")
        }));
    }
    let object = given.get_one::<String>("object").map_or("", String::as_str);
    let (kind, name) = object.split_once('/').unwrap_or(("lease", object));
    let folder = match kind {
        "lease" | "leases" | "lease.coordination.k8s.io" | "leases.coordination.k8s.io" => "",
        "endpoints" => "endpoints/",
        _ => "?",
    };
    if folder == "?" || !is_subdomain(name) {
        let what = format!("{object:?} is no name of a Lease");
        return Err(Failure::new(Code::Usage, what).hint("NAME, lease/NAME or endpoints/NAME"));
    }
    Ok(Some(format!("kubernetes://{namespace}/{folder}{name}")))
}

impl Verb {
    /// Is about `place`, whatever else was said.
    fn aim(&mut self, place: Option<String>) {
        let common = match self {
            Verb::Status(arguments) => &mut arguments.place,
            Verb::History(arguments) => &mut arguments.place,
            Verb::Switchover(arguments) => &mut arguments.place,
            Verb::Pause(arguments) => &mut arguments.place,
            Verb::Resume(arguments) => &mut arguments.place,
            Verb::Failover(arguments) => &mut arguments.place,
            Verb::Doctor(arguments) => &mut arguments.place,
            Verb::List(arguments) => return arguments.place = place,
            _ => return,
        };
        common.aim(place, Front::Kubectl);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Verb, Failure> {
        let words = std::iter::once(CALLED).chain(line.split_whitespace()).map(OsString::from);
        parse(words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn target(line: &str) -> String {
        match parsed(line).unwrap() {
            Verb::Status(arguments) => arguments.place.target_to_look_at().unwrap().command("switchover"),
            Verb::List(arguments) => arguments.place.unwrap(),
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn a_lease_is_named_as_kubectl_names_objects() {
        assert_eq!(target("status app"), "kubectl soloist switchover app");
        assert_eq!(target("status lease/app -n prod"), "kubectl soloist switchover app -n prod");
        assert_eq!(target("status --namespace=prod endpoints/app"), "kubectl soloist switchover endpoints/app -n prod");
        assert_eq!(
            target("status app --context east --kubeconfig /k/c -n prod"),
            "kubectl soloist switchover app -n prod --kubeconfig /k/c --context east"
        );
        assert_eq!(target("list"), "kubernetes:///");
        assert_eq!(target("list -n prod"), "kubernetes://prod/");
        assert_eq!(target("list -A"), "kubernetes:///");
    }

    #[test]
    fn what_is_no_lease_is_refused() {
        for line in ["status pod/app", "status App", "status app -n No", "status a/b/c", "list /srv"] {
            assert_eq!(parsed(line).unwrap_err().code, Code::Usage, "{line}");
        }
        for line in ["run -- true", "status", "status app --lock x", "demo", "", "list -n prod /srv"] {
            let words = std::iter::once(CALLED).chain(line.split_whitespace()).map(OsString::from);
            assert!(parse(words).is_err(), "{line}");
        }
    }
}
