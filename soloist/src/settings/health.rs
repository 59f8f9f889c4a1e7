//! `--health-...`: what is asked how often, and what the answers count.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::duration;
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
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A line for the shell.
    Exec(String),
    /// A server.
    Http(Target),
}

/// An HTTP server and what to ask it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// What goes into the request's Host field.
    pub host: String,
    /// Path and query.
    pub path: String,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
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
pub(super) fn health(raw: Raw) -> Result<Option<Health>, Failure> {
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
        (None, Some(url)) => Check::Http(target(&url)?),
        (None, None) => return Ok(None),
    };
    Ok(Some(Health { check, rules }))
}

fn rules(raw: &Raw) -> Result<Rules, Failure> {
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

const URL_HINT: &str = "such as http://127.0.0.1:8080/healthz or http://unix:/run/app.sock:/healthz";

fn target(url: &str) -> Result<Target, Failure> {
    let refuse = |what: &str| Failure::new(Code::Usage, format!("--health-http {url:?} {what}")).hint(URL_HINT);
    if let Some(rest) = url.strip_prefix("http://unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        let path: Uri = path.parse().map_err(|_| refuse("has a path that is none"))?;
        if !socket.starts_with('/') || path.authority().is_some() {
            return Err(refuse("is not an absolute path of a socket, a colon and a path"));
        }
        return Ok(Target {
            address: Address::Unix(socket.into()),
            host: "localhost".to_owned(),
            path: path_of(&path),
        });
    }
    let uri: Uri = url.parse().map_err(|_| refuse("is not a URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            let failure = refuse("asks for TLS, which this check does not speak");
            return Err(failure.hint("--health-exec with a client that does, such as curl"));
        }
        _ => return Err(refuse("does not begin with http://")),
    }
    let authority = uri.authority().ok_or_else(|| refuse("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(refuse("holds a password or a user, which are not sent"));
    }
    // Brackets belong to the URL, not to the address.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str() == authority.host() => 80,
        None => return Err(refuse("has no sensible port")),
    };
    if host.is_empty() || port == 0 {
        return Err(refuse("names no host and port"));
    }
    Ok(Target { address: Address::Tcp(host, port), host: authority.as_str().to_owned(), path: path_of(&uri) })
}

fn path_of(uri: &Uri) -> String {
    uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Result<Option<Health>, Failure> {
        health(Raw { http: Some(url.to_owned()), ..Raw::default() })
    }

    fn refused(raw: Raw) -> Failure {
        let failure = health(raw).unwrap_err();
        assert!(failure.hint.is_some(), "{failure}");
        failure
    }

    #[test]
    fn without_a_check_there_is_none() {
        assert_eq!(health(Raw::default()).unwrap(), None);
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

    #[test]
    fn urls_are_taken_apart() {
        for (text, address, host, path) in [
            ("http://localhost:8080/healthz?x=1", ("localhost", 8080), "localhost:8080", "/healthz?x=1"),
            ("http://127.0.0.1", ("127.0.0.1", 80), "127.0.0.1", "/"),
            ("http://[::1]:81/", ("::1", 81), "[::1]:81", "/"),
        ] {
            let address = Address::Tcp(address.0.to_owned(), address.1);
            let target = Target { address, host: host.to_owned(), path: path.to_owned() };
            assert_eq!(url(text).unwrap().unwrap().check, Check::Http(target), "{text}");
        }
        let Check::Http(target) = url("http://unix:/run/app.sock:/healthz").unwrap().unwrap().check else { panic!() };
        assert_eq!((target.address, target.path.as_str()), (Address::Unix("/run/app.sock".into()), "/healthz"));
    }

    #[test]
    fn urls_that_cannot_be_asked_are_refused() {
        for text in [
            "",
            "localhost:80/x",
            "ftp://localhost/",
            "http://",
            "http://:80/",
            "http://a:0/",
            "http://a:b/",
            "http://a:99999/",
            "http://u:p@localhost/",
            "http://unix:relative.sock:/x",
            "http://unix:/s.sock:x y",
            "http://a b/",
        ] {
            let failure = url(text).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{text}");
            assert!(failure.hint.is_some(), "{text}");
        }
        let failure = url("https://localhost/").unwrap_err();
        assert!(failure.message.contains("TLS"), "{failure}");
    }
}
