//! The flags of `consul lock`, as Go's flag package takes them: one dash or two, `-flag value` or `-flag=value`, and the
//! command from the second word that is no flag on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use jiff::SignedDuration;

use crate::lock::consul::boolean;

/// Flags that stand for a variable of the environment.
const VARIABLES: [(&str, &str); 11] = [
    ("http-addr", "CONSUL_HTTP_ADDR"),
    ("token", "CONSUL_HTTP_TOKEN"),
    ("token-file", "CONSUL_HTTP_TOKEN_FILE"),
    ("ca-file", "CONSUL_CACERT"),
    ("ca-path", "CONSUL_CAPATH"),
    ("client-cert", "CONSUL_CLIENT_CERT"),
    ("client-key", "CONSUL_CLIENT_KEY"),
    ("tls-server-name", "CONSUL_TLS_SERVER_NAME"),
    ("datacenter", "CONSUL_DATACENTER"),
    ("namespace", "CONSUL_NAMESPACE"),
    ("partition", "CONSUL_PARTITION"),
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub child_exit_code: bool,
    pub pass_stdin: bool,
    pub shell: bool,
    pub verbose: bool,
    /// Nothing where it waits for ever.
    pub timeout: Option<Duration>,
    /// The name of the session, if one is given.
    pub name: Option<String>,
    /// Values that go before those of the environment.
    pub variables: BTreeMap<&'static str, String>,
    /// Without a slash at its start.
    pub prefix: String,
    /// Whether there was one.
    pub is_absolute: bool,
    /// At least one word.
    pub child: Vec<OsString>,
}

/// Why it does not come to that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The usage was asked for.
    Help,
    /// A flag cannot be read: said with the usage.
    Flag(String),
    /// The flags contradict what can be done.
    Refused(String),
}

struct Raw {
    limit: i64,
    monitor_retry: i64,
    timeout: SignedDuration,
    options: Options,
}

/// Reads the arguments after `consul lock`.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Options, Stop> {
    let mut raw = Raw {
        limit: 1,
        monitor_retry: 3,
        timeout: SignedDuration::ZERO,
        options: Options {
            child_exit_code: false,
            pass_stdin: false,
            shell: true,
            verbose: false,
            timeout: None,
            name: None,
            variables: BTreeMap::new(),
            prefix: String::new(),
            is_absolute: false,
            child: Vec::new(),
        },
    };
    let mut words = arguments.into_iter().peekable();
    while let Some(word) = words.peek().and_then(flag) {
        words.next();
        if word.is_empty() {
            break;
        }
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        raw.take(&name, given, &mut || words.next().map(|word| word.to_string_lossy().into_owned()))?;
    }
    raw.judge(words.collect())
}

/// The flag in a word, without its dashes; empty for the two dashes that end the flags.
fn flag(word: &OsString) -> Option<String> {
    let text = word.to_str()?.strip_prefix('-').filter(|text| !text.is_empty())?;
    Some(text.strip_prefix('-').unwrap_or(text).to_owned())
}

impl Raw {
    fn take(
        &mut self,
        name: &str,
        given: Option<String>,
        next: &mut dyn FnMut() -> Option<String>,
    ) -> Result<(), Stop> {
        let options = &mut self.options;
        match name {
            "h" | "help" => return Err(Stop::Help),
            "child-exit-code" => options.child_exit_code = switch(name, given)?,
            "pass-stdin" => options.pass_stdin = switch(name, given)?,
            "shell" => options.shell = switch(name, given)?,
            "verbose" => options.verbose = switch(name, given)?,
            // Each look is consistent, whatever is asked for.
            "stale" => drop(switch(name, given)?),
            "n" => self.limit = value(name, given, next, |text| text.parse().ok())?,
            "monitor-retry" => self.monitor_retry = value(name, given, next, |text| text.parse().ok())?,
            "timeout" | "try" => self.timeout = value(name, given, next, duration)?,
            "name" => options.name = Some(value(name, given, next, |text| Some(text.to_owned()))?),
            _ => match VARIABLES.iter().find(|(flag, _)| *flag == name) {
                Some((_, variable)) => {
                    let text = value(name, given, next, |text| Some(text.to_owned()))?;
                    options.variables.insert(variable, text);
                }
                None => return Err(Stop::Flag(format!("flag provided but not defined: -{name}"))),
            },
        }
        Ok(())
    }

    /// In the order in which `consul lock` looks at them.
    fn judge(self, rest: Vec<OsString>) -> Result<Options, Stop> {
        let refuse = |why: &str| Err(Stop::Refused(why.to_owned()));
        if self.limit <= 0 {
            return refuse("Lock holder limit must be positive");
        }
        let mut rest = rest.into_iter();
        let (Some(prefix), Some(first)) = (rest.next(), rest.next()) else {
            return refuse("Key prefix and child command must be specified");
        };
        if self.timeout.is_negative() {
            return refuse("Timeout must be positive");
        }
        if self.monitor_retry < 0 {
            return refuse("Number for 'monitor-retry' must be >= 0");
        }
        if self.limit > 1 {
            return refuse("soloist keeps one holder: a limit above 1 needs Consul's own program");
        }
        let child = [first].into_iter().chain(rest).collect();
        let prefix = prefix.to_string_lossy();
        let relative = prefix.strip_prefix('/');
        let (is_absolute, prefix) = (relative.is_some(), relative.unwrap_or(&prefix).to_owned());
        let timeout = Duration::try_from(self.timeout).ok().filter(|timeout| !timeout.is_zero());
        Ok(Options { prefix, is_absolute, child, timeout, ..self.options })
    }
}

fn switch(name: &str, given: Option<String>) -> Result<bool, Stop> {
    let Some(given) = given else { return Ok(true) };
    boolean(name, &given).map_err(|_| Stop::Flag(format!("invalid boolean value {given:?} for -{name}: parse error")))
}

fn value<T>(
    name: &str,
    given: Option<String>,
    next: &mut dyn FnMut() -> Option<String>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, Stop> {
    let Some(text) = given.or_else(next) else { return Err(Stop::Flag(format!("flag needs an argument: -{name}"))) };
    read(&text).ok_or_else(|| Stop::Flag(format!("invalid value {text:?} for flag -{name}: parse error")))
}

/// As Go writes one: only 0 has no unit.
fn duration(text: &str) -> Option<SignedDuration> {
    if text == "0" { Some(SignedDuration::ZERO) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Stop> {
        parse(arguments.iter().map(OsString::from).collect())
    }

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_are_taken_as_go_takes_them() {
        let options = read(&["-verbose", "--name", "N", "-shell=false", "-timeout=1m30s", "/p/x", "echo", "-n", "2"]);
        let options = options.unwrap();
        assert!(options.verbose && !options.shell && !options.child_exit_code && !options.pass_stdin);
        assert_eq!((options.name.as_deref(), options.timeout), (Some("N"), Some(Duration::from_secs(90))));
        assert_eq!((options.prefix.as_str(), options.child), ("p/x", words(&["echo", "-n", "2"])));
        let options = read(&["-http-addr", "h:1", "-token=t", "-stale", "-try", "0", "--", "-p", "-x"]).unwrap();
        assert_eq!(options.variables["CONSUL_HTTP_ADDR"], "h:1");
        assert_eq!(options.variables["CONSUL_HTTP_TOKEN"], "t");
        assert_eq!((options.prefix.as_str(), options.child, options.timeout), ("-p", words(&["-x"]), None));
    }

    #[test]
    fn what_cannot_be_read_is_said_in_its_words() {
        let flag = |what: &str| Err(Stop::Flag(what.to_owned()));
        let refused = |what: &str| Err(Stop::Refused(what.to_owned()));
        assert_eq!(read(&["-bogus", "p", "true"]), flag("flag provided but not defined: -bogus"));
        assert_eq!(read(&["-n", "x", "p", "true"]), flag("invalid value \"x\" for flag -n: parse error"));
        assert_eq!(read(&["-timeout", "5", "p", "true"]), flag("invalid value \"5\" for flag -timeout: parse error"));
        assert_eq!(
            read(&["-shell=perhaps", "p", "true"]),
            flag("invalid boolean value \"perhaps\" for -shell: parse error")
        );
        assert_eq!(read(&["-name"]), flag("flag needs an argument: -name"));
        assert_eq!(read(&["-help"]), Err(Stop::Help));
        assert_eq!(read(&["-n", "0"]), refused("Lock holder limit must be positive"));
        for few in [&[][..], &["p"]] {
            assert_eq!(read(few), refused("Key prefix and child command must be specified"));
        }
        assert_eq!(read(&["-timeout", "-1s", "p", "true"]), refused("Timeout must be positive"));
        assert_eq!(read(&["-monitor-retry", "-1", "p", "true"]), refused("Number for 'monitor-retry' must be >= 0"));
        assert!(matches!(read(&["-n", "2", "p", "true"]), Err(Stop::Refused(_))));
    }
}
