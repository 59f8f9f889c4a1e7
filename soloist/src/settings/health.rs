//! `--health-...`: what is asked how often, and what the answers count.

use std::time::Duration;

use super::duration;
use super::target::{Target, target};
use crate::error::{Code, Failure};

/// What a person typed.
#[derive(Clone, Debug)]
pub struct Raw {
    /// `--health-exec`
    pub exec: Option<String>,
    /// `--health-http`
    pub http: Option<String>,
    /// `--health-interval`
    pub interval: String,
    /// `--health-timeout`
    pub timeout: String,
    /// `--health-rise`
    pub rise: u32,
    /// `--health-fall`
    pub fall: u32,
    /// `--health-start`
    pub start: String,
}

/// What is asked where nothing else is said.
pub const INTERVAL: &str = "5s";
/// How long an answer may take.
pub const TIMEOUT: &str = "2s";
/// How many successes make an unhealthy member healthy.
pub const RISE: u32 = 2;
/// How many failures make a healthy member unhealthy.
pub const FALL: u32 = 3;
/// How long a workload may take to start.
pub const START: &str = "30s";

impl Default for Raw {
    fn default() -> Self {
        Self {
            exec: None,
            http: None,
            interval: INTERVAL.to_owned(),
            timeout: TIMEOUT.to_owned(),
            rise: RISE,
            fall: FALL,
            start: START.to_owned(),
        }
    }
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whom to ask.
    pub check: Check,
    /// What the answers count.
    pub rules: Rules,
    /// Who answers.
    pub subject: Subject,
}

/// Who answers a check, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The workload, which runs while this member is active. A command answers on standbys, too.
    Cold,
    /// The workload, which also runs while this member stands by.
    Warm,
    /// What is beside this member and not started by it: it is there all the time.
    Beside,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A line for the shell.
    Exec(String),
    /// A server.
    Http(Target),
}

/// What the answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many successes in a row make an unhealthy member healthy.
    pub rise: u32,
    /// How many failures in a row make a healthy member unhealthy.
    pub fall: u32,
    /// How long failures do not count after the workload was started.
    pub start: Duration,
}

/// A shorter one would cost more than it tells.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// More in a row than anybody waits for.
const IN_A_ROW_MAX: u32 = 100;

/// Validates the flags; nothing if there is no check.
pub(super) fn health(raw: Raw, subject: Subject) -> Result<Option<Health>, Failure> {
    let rules = rules(&raw)?;
    let check = match (raw.exec, raw.http) {
        (Some(_), Some(_)) => {
            let failure = Failure::new(Code::Configuration, "--health-exec and --health-http are both given");
            return Err(failure.hint("one check decides; a command can ask the server itself"));
        }
        (Some(line), None) if line.trim().is_empty() => {
            return Err(Failure::new(Code::Usage, "--health-exec is empty").hint("a line for /bin/sh"));
        }
        (Some(line), None) => Check::Exec(line),
        (None, Some(url)) => {
            Check::Http(target("--health-http", &url, "--health-exec with a client that does, such as curl")?)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Health { check, rules, subject }))
}

/// How the answers count, whatever is asked.
///
/// # Errors
/// Numbers that contradict each other, or that nobody could mean.
pub(crate) fn rules(raw: &Raw) -> Result<Rules, Failure> {
    let interval = duration("--health-interval", &raw.interval)?;
    if interval < INTERVAL_MIN {
        let what = format!("--health-interval {} is too short", raw.interval);
        return Err(Failure::new(Code::Usage, what).hint(format!("at least {INTERVAL_MIN:?}")));
    }
    let timeout = duration("--health-timeout", &raw.timeout)?;
    if timeout > interval {
        let what = format!("--health-timeout {} is longer than --health-interval {}", raw.timeout, raw.interval);
        return Err(Failure::new(Code::Configuration, what).hint("one check ends before the next one begins"));
    }
    for (flag, count) in [("--health-rise", raw.rise), ("--health-fall", raw.fall)] {
        if !(1..=IN_A_ROW_MAX).contains(&count) {
            let what = format!("{flag} {count} is out of range");
            return Err(Failure::new(Code::Usage, what).hint(format!("from 1 to {IN_A_ROW_MAX}")));
        }
    }
    let start = duration("--health-start", &raw.start)?;
    Ok(Rules { interval, timeout, rise: raw.rise, fall: raw.fall, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(raw: Raw) -> Failure {
        let failure = health(raw, Subject::Cold).unwrap_err();
        assert!(failure.hint.is_some(), "{failure}");
        failure
    }

    #[test]
    fn without_a_check_there_is_none() {
        assert_eq!(health(Raw::default(), Subject::Cold).unwrap(), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let exec = || Some("true".to_owned());
        let long = Raw { timeout: "6s".to_owned(), ..Raw::default() };
        let both = Raw { exec: exec(), http: Some("http://localhost/".to_owned()), ..Raw::default() };
        for raw in [long, both] {
            assert_eq!(refused(raw).code, Code::Configuration);
        }
        for raw in [
            Raw { rise: 0, exec: exec(), ..Raw::default() },
            Raw { fall: 101, exec: exec(), ..Raw::default() },
            Raw { exec: Some(" ".to_owned()), ..Raw::default() },
            Raw { interval: "5".to_owned(), ..Raw::default() },
            Raw { interval: "99ms".to_owned(), timeout: "99ms".to_owned(), ..Raw::default() },
            Raw { start: "-1s".to_owned(), ..Raw::default() },
        ] {
            assert_eq!(refused(raw).code, Code::Usage);
        }
    }
}
