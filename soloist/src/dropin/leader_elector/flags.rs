//! The flags of leader-elector, as pflag takes them: two dashes, `--flag value` or `--flag=value`, in any order, and words
//! between them that mean nothing.

use std::ffi::OsString;

use crate::lock::kubernetes::Kind;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Empty where it was not given.
    pub election: String,
    pub namespace: String,
    pub id: Option<String>,
    pub ttl: String,
    pub cluster_credentials: bool,
    pub http: Option<String>,
    pub lock_kind: Kind,
    /// A flag that people pass and that no revision of the other program knows.
    pub initial_wait: bool,
}

/// Why it does not come to that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The usage was asked for.
    Help,
    /// A flag cannot be read: said with the usage.
    Flag(String),
}

/// Reads the arguments.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Options, Stop> {
    let mut options = Options {
        election: String::new(),
        namespace: "default".to_owned(),
        id: None,
        ttl: "10s".to_owned(),
        cluster_credentials: false,
        http: None,
        lock_kind: Kind::Endpoints,
        initial_wait: false,
    };
    let mut words = arguments.into_iter().map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some("") => break,
            Some(flag) => {
                let (name, given) = match flag.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (flag, None),
                };
                options.take(name, given, &mut words)?;
            }
            None => short(&word)?,
        }
    }
    Ok(options)
}

/// There are no short flags.
fn short(word: &str) -> Result<(), Stop> {
    match word.strip_prefix('-').and_then(|letters| letters.chars().next()) {
        None => Ok(()),
        Some('h') => Err(Stop::Help),
        Some(letter) => Err(Stop::Flag(format!("unknown shorthand flag: {letter:?} in {word}"))),
    }
}

impl Options {
    fn take(
        &mut self,
        name: &str,
        given: Option<String>,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Stop> {
        let mut value = |given: Option<String>| {
            given.or_else(|| words.next()).ok_or_else(|| Stop::Flag(format!("flag needs an argument: --{name}")))
        };
        match name {
            "help" => return Err(Stop::Help),
            "election" => self.election = value(given)?,
            "election-namespace" => self.namespace = value(given)?,
            "id" => self.id = Some(value(given)?),
            "ttl" => self.ttl = value(given)?,
            "http" => self.http = Some(value(given)?).filter(|address| !address.is_empty()),
            "use-cluster-credentials" => self.cluster_credentials = switch(name, given.as_deref())?,
            "initial-wait" => self.initial_wait = true,
            "lock-kind" => {
                let text = value(given)?;
                self.lock_kind = match text.as_str() {
                    "endpoints" => Kind::Endpoints,
                    "lease" => Kind::Lease,
                    _ => return Err(invalid(name, &text, "endpoints or lease")),
                };
            }
            _ => return Err(Stop::Flag(format!("unknown flag: --{name}"))),
        }
        Ok(())
    }
}

/// As Go reads one.
fn switch(name: &str, given: Option<&str>) -> Result<bool, Stop> {
    match given {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(text) => Err(invalid(name, text, "true or false")),
    }
}

fn invalid(name: &str, text: &str, allowed: &str) -> Stop {
    Stop::Flag(format!("invalid argument {text:?} for --{name}: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Stop> {
        parse(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn flags_are_taken_as_pflag_takes_them() {
        let options = read(&["--id", "a", "word", "--election=e", "--http=", "--use-cluster-credentials"]).unwrap();
        assert_eq!((options.id.as_deref(), options.election.as_str()), (Some("a"), "e"));
        assert_eq!((options.http, options.cluster_credentials), (None, true));
        // As the image's script passes it: the last one counts.
        let options = read(&["--id=host", "--election=e", "--id=a", "--ttl", "5s", "--http=0.0.0.0:4040"]).unwrap();
        assert_eq!((options.id.as_deref(), options.ttl.as_str()), (Some("a"), "5s"));
        assert_eq!((options.http.as_deref(), options.namespace.as_str()), (Some("0.0.0.0:4040"), "default"));
        assert!(!read(&["--use-cluster-credentials=false", "--", "--election"]).unwrap().cluster_credentials);
        assert_eq!(read(&["--lock-kind=lease"]).unwrap().lock_kind, Kind::Lease);
    }

    #[test]
    fn a_flag_that_never_was_is_accepted_with_whatever_value() {
        for flag in ["--initial-wait", "--initial-wait=true", "--initial-wait=30s"] {
            assert!(read(&[flag, "--election=e"]).unwrap().initial_wait, "{flag}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_in_its_words() {
        for (arguments, expected) in [
            (&["--port=1"][..], "unknown flag: --port"),
            (&["--election"], "flag needs an argument: --election"),
            (&["-v=4"], "unknown shorthand flag: 'v' in -v=4"),
            (&["--use-cluster-credentials=perhaps"], "invalid argument \"perhaps\" for --use-cluster-credentials"),
            (&["--lock-kind=configmap"], "invalid argument \"configmap\" for --lock-kind: endpoints or lease"),
        ] {
            match read(arguments) {
                Err(Stop::Flag(why)) => assert!(why.starts_with(expected), "{why}"),
                other => panic!("{arguments:?}: {other:?}"),
            }
        }
        for help in ["--help", "-h"] {
            assert_eq!(read(&[help]), Err(Stop::Help));
        }
    }
}
