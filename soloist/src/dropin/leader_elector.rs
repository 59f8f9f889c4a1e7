//! leader-elector: takes part in an election and tells over HTTP who leads. It runs nothing.

mod flags;
mod leader;
mod voice;

use std::ffi::OsString;

use election::{OnExit, OnLoss};

use self::flags::{Options, Stop};
use self::voice::Voice;
use super::go;
use crate::error::Failure;
use crate::lock::kubernetes::{Access, Elder, Kind, ObjectName};
use crate::log::{self, Format, klog};
use crate::member::{self, Front, Reader};
use crate::serve::Bound;
use crate::settings::{Place, Raw, Settings, is_label, is_subdomain};
use crate::workload::nothing::Bars;

/// The name of the program that this stands in for.
pub const NAME: &str = "leader-elector";
/// The same in that program's image.
pub const SERVER: &str = "server";

/// What a fatal line of glog ends with.
const FATAL: i32 = 255;
/// Flags that cannot be read, or the usage.
const USAGE: i32 = 2;
/// Nothing is ever stopped for so long here; the settings want to know.
const STOP_GRACE: &str = "1s";

const TEXT: &str = "\
Usage of elector --election=<name>:
      --election string            The name of the election
      --election-namespace string  The Kubernetes namespace for this election (default \"default\")
      --http string                If non-empty, stand up a simple webserver that reports the leader state
      --id string                  The id of this participant (default: the hostname)
      --lock-kind string           What holds the election: endpoints, or lease (default \"endpoints\")
      --ttl duration               The TTL for this election (default 10s)
      --use-cluster-credentials    Use the pod's own credentials and nothing else
";

/// Takes part until it is sent away, and returns the exit code.
pub fn main(arguments: Vec<OsString>) -> i32 {
    let options = match flags::parse(arguments) {
        Ok(options) => options,
        Err(Stop::Help) => return explain(""),
        Err(Stop::Flag(why)) => return explain(&format!("{why}\n")),
    };
    match contend(options) {
        Ok(()) => 0,
        Err(why) => {
            klog::fatal(&why);
            FATAL
        }
    }
}

/// Shows the usage.
fn explain(why: &str) -> i32 {
    use std::io::Write as _;
    // Nobody is left to tell if that is closed.
    let _ = write!(std::io::stderr().lock(), "{why}{TEXT}");
    USAGE
}

fn contend(options: Options) -> Result<(), String> {
    if options.id.as_deref() == Some("") {
        return Err("--id cannot be empty".to_owned());
    }
    if options.election.is_empty() {
        return Err("--election cannot be empty".to_owned());
    }
    let place = place(&options)?;
    let settings = settings(&options, place.clone()).map_err(|failure| in_its_flags(&failure))?;
    let mut readers: Vec<(&'static str, Reader)> = Vec::new();
    let bars = (place.kind == Kind::Lease).then(|| {
        let (elder, bars) = elder(&settings, &place);
        readers.push(("the lock of old", Box::new(|_| Ok(Box::pin(elder.follow())))));
        bars
    });
    let voice = Voice::new(format!("{}/{}", place.namespace, place.name), bars.clone());
    readers.push(("the lines", Box::new(|snapshots| Ok(voice.follow(snapshots)))));
    if let Some(address) = &options.http {
        readers.push(("http", http(go::bind(address)?, bars.clone())));
    }
    let flush = log::start(Format::Klog);
    if options.initial_wait {
        tracing::warn!("--initial-wait has no meaning and is ignored");
    }
    let taken_part = super::first_look(&settings.access, place)
        .and_then(|()| member::run(settings, Front { readers, bars, ..Front::default() }));
    drop(flush);
    taken_part.map(drop).map_err(|failure| format!("failed to create election: {}", in_its_flags(&failure)))
}

fn place(options: &Options) -> Result<ObjectName, String> {
    let Options { namespace, election, lock_kind, .. } = options;
    if !is_label(namespace) {
        return Err(format!("--election-namespace {namespace:?} is not allowed: a-z, 0-9 and '-', at most 63"));
    }
    if !is_subdomain(election) {
        return Err(format!("--election {election:?} is not allowed: a-z, 0-9, '-' and '.', at most 253"));
    }
    Ok(ObjectName { kind: *lock_kind, ..ObjectName::lease(namespace, election) })
}

fn settings(options: &Options, place: ObjectName) -> Result<Settings, Failure> {
    let raw = Raw {
        name: options.id.clone(),
        lease: options.ttl.clone(),
        stop_grace: STOP_GRACE.to_owned(),
        access: Access { pod_only: options.cluster_credentials, ..Access::default() },
        command: None,
        ..Raw::default()
    };
    Settings::at(Place::Kubernetes(place), None, raw, OnExit::Standby, OnLoss::Standby)
}

/// Members that were not moved to a Lease yet elect by the other object of that name, and see nothing of the Lease.
fn elder(settings: &Settings, place: &ObjectName) -> (Elder, Bars) {
    let Settings { access, timing, .. } = settings;
    let old = ObjectName { kind: Kind::Endpoints, ..place.clone() };
    Elder::new(access.clone(), old, timing.lease(), timing.period())
}

/// With the flags that there are here.
fn in_its_flags(failure: &Failure) -> String {
    let flags = [("--lease", "--ttl"), ("--name", "--id")];
    flags.into_iter().fold(failure.to_string(), |text, (ours, theirs)| text.replace(ours, theirs))
}

fn http(bound: Bound, bars: Option<Bars>) -> Reader {
    Box::new(move |snapshots| {
        tracing::info!("serving http on {}", bound.address());
        let serving = bound.start_probe(snapshots, move |snapshot, now, path| {
            leader::answer(snapshot, leader::barred_by(bars.as_ref()).as_deref(), now, path)
        })?;
        Ok(Box::pin(serving))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let arguments = arguments.iter().map(OsString::from).collect();
        contend(flags::parse(arguments).unwrap_or_else(|stop| panic!("{stop:?}"))).unwrap_err()
    }

    #[test]
    fn what_is_missing_is_said_as_of_old_and_in_that_order() {
        assert_eq!(refused(&["--id=", "--election="]), "--id cannot be empty");
        assert_eq!(refused(&[]), "--election cannot be empty");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_flags_that_there_are() {
        for (arguments, part) in [
            (["--election=Example", "--id=a", "--ttl=10s"], "--election \"Example\""),
            (["--election=a/b", "--id=a", "--lock-kind=lease"], "--election \"a/b\""),
            (["--election=e", "--id=a/b", "--ttl=10s"], "--id \"a/b\""),
            (["--election=e", "--id=a", "--ttl=3s"], "--ttl 3s"),
            (["--election=e", "--id=a", "--ttl=10"], "--ttl \"10\""),
            (["--election=e", "--id=a", "--election-namespace=A"], "--election-namespace \"A\""),
        ] {
            let why = refused(&arguments);
            assert!(why.contains(part) && !why.contains("--lease") && !why.contains("--name"), "{why}");
        }
    }

    #[test]
    fn the_lock_is_the_one_that_the_other_program_uses() {
        let options = flags::parse(vec!["--election=example".into()]).unwrap();
        assert_eq!(options.lock_kind, Kind::Endpoints);
        let place = ObjectName::endpoints("default", "example");
        let settings = settings(&Options { id: Some("a".to_owned()), ..options }, place.clone()).unwrap();
        assert_eq!(settings.lock, Place::Kubernetes(place));
        assert_eq!(settings.timing.lease(), std::time::Duration::from_secs(10));
    }
}
