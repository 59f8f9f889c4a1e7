//! `--notify`: who is told which part this member plays.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::target::{self, Address};
use crate::error::{Code, Failure};
use crate::secret;

/// What a person typed.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// `--notify`
    pub targets: Vec<String>,
    /// `--notify-token-file`
    pub token_file: Option<PathBuf>,
}

/// Who is told, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A server, by POST, until it answers with 2xx.
    Http {
        /// Where it is.
        target: target::Target,
        /// The file with the bearer token that it expects.
        token_file: Option<PathBuf>,
    },
    /// Whoever listens on a UDP port.
    Udp {
        /// A host name or an IP address.
        host: String,
        /// Its port.
        port: u16,
        /// What is sent instead of the notice, once a promotion.
        payload: Option<String>,
    },
    /// Whoever reads a file, which is replaced as a whole.
    File(PathBuf),
    /// A command.
    Exec {
        /// A line for the shell.
        line: String,
        /// How long it may take.
        limit: Duration,
    },
}

/// All that `--notify` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Who is told by this member.
    pub listeners: Vec<Listener>,
    /// By which signal the workload is told, which is for the guard to do.
    pub signal: Option<Signal>,
}

impl Display for Listener {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { target, .. } => match &target.address {
                Address::Tcp(..) => write!(to, "http://{}{}", target.host, target.path),
                Address::Unix(socket) => write!(to, "http://unix:{}:{}", socket.display(), target.path),
            },
            Self::Udp { host, port, .. } => write!(to, "udp:{host}:{port}"),
            Self::File(path) => write!(to, "file:{}", path.display()),
            Self::Exec { line, .. } => write!(to, "exec:{line}"),
        }
    }
}

/// More than anybody has; each costs a task.
const LISTENERS_MAX: usize = 16;
/// The longest payload that fits into one datagram on every path.
pub(super) const PAYLOAD_MAX: usize = 512;
const HINT: &str = "http://HOST:PORT/PATH, http://unix:SOCKET:/PATH, udp:HOST:PORT, udp:HOST:PORT/PAYLOAD, file:PATH, \
                    exec:LINE, or with --warm signal:NAME";
/// What can say "active". The others end or stop what they are sent to, or say something else: that a child has ended,
/// that the terminal is gone or has another size.
const SIGNALS: [Signal; 4] = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGURG, Signal::SIGIO];
const SIGNALS_HINT: &str = "USR1, USR2, URG or IO: the others end, stop or tell something else";

/// Validates the flags; a command may take `exec_limit`; with `allow_plaintext` a token may leave this host.
pub(super) fn listeners(raw: &Raw, exec_limit: Duration, allow_plaintext: bool) -> Result<Wanted, Failure> {
    if raw.targets.len() > LISTENERS_MAX {
        let what = format!("--notify is given {} times", raw.targets.len());
        return Err(Failure::new(Code::Usage, what).hint(format!("at most {LISTENERS_MAX}")));
    }
    if let Some(file) = &raw.token_file {
        check_token(file)?;
    }
    let Wanted { mut listeners, mut signal } = Wanted::default();
    for text in &raw.targets {
        if let Some(name) = text.strip_prefix("signal:") {
            let what = format!("--notify {text:?} cannot say \"active\"");
            let known = signal_of(name).ok_or_else(|| Failure::new(Code::Usage, what).hint(SIGNALS_HINT))?;
            if signal.replace(known).is_some() {
                let what = "--notify signal:... is given twice";
                return Err(Failure::new(Code::Usage, what).hint("one signal says that it is active"));
            }
            continue;
        }
        let listener = listener(text, raw.token_file.as_ref(), exec_limit, allow_plaintext)?;
        if listeners.contains(&listener) {
            return Err(Failure::new(Code::Usage, format!("--notify {text:?} is given twice")).hint("once will do"));
        }
        listeners.push(listener);
    }
    if raw.token_file.is_some() && !listeners.iter().any(|listener| matches!(listener, Listener::Http { .. })) {
        let what = "--notify-token-file is given without a --notify http://...";
        return Err(Failure::new(Code::Configuration, what).hint("only a request can bring a token"));
    }
    Ok(Wanted { listeners, signal })
}

pub(super) fn check_token(file: &Path) -> Result<(), Failure> {
    let refuse = |why: String| {
        let what = format!("failed to read --notify-token-file {}: {why}", file.display());
        Failure::new(Code::Configuration, what).hint("a file with one line, the bearer token")
    };
    match secret::read(file) {
        Ok(token) if token.is_empty() => Err(refuse("it is empty".to_owned())),
        Ok(token) if !token.iter().all(u8::is_ascii_graphic) => Err(refuse("a token has no blanks in it".to_owned())),
        Ok(_) => Ok(()),
        Err(error) => Err(refuse(error.to_string())),
    }
}

fn listener(
    text: &str,
    token_file: Option<&PathBuf>,
    exec_limit: Duration,
    allow_plaintext: bool,
) -> Result<Listener, Failure> {
    let refuse = |what: &str| Failure::new(Code::Usage, format!("--notify {text:?} {what}")).hint(HINT);
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    // As the other kinds are written, too: http:URL.
    let text = text.strip_prefix("http:").filter(|rest| is_url(rest)).unwrap_or(text);
    if is_url(text) {
        let target = target::target("--notify", text, "--on-active with a client that does, such as curl")?;
        if token_file.is_some() && !allow_plaintext && !target.address.is_local() {
            let failure =
                Failure::new(Code::Configuration, format!("--notify {text:?} would send a token without TLS"));
            return Err(failure.hint("a listener on this host, or --allow-plaintext"));
        }
        return Ok(Listener::Http { target, token_file: token_file.cloned() });
    }
    if let Some(rest) = text.strip_prefix("udp:") {
        return udp(rest).map_err(refuse);
    }
    if let Some(line) = text.strip_prefix("exec:") {
        let line = Some(line).filter(|line| !line.trim().is_empty()).ok_or_else(|| refuse("names no command"))?;
        return Ok(Listener::Exec { line: line.to_owned(), limit: exec_limit });
    }
    let Some(path) = text.strip_prefix("file:") else { return Err(refuse("is not a listener")) };
    let path = PathBuf::from(path);
    if path.file_name().is_none() || path.is_dir() {
        return Err(refuse("names no file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(refuse("is in a folder that does not exist"));
    }
    Ok(Listener::File(path))
}

/// A signal by its name, with SIG in front or without.
fn signal_of(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    let signal = Signal::from_str(&format!("SIG{}", name.strip_prefix("SIG").unwrap_or(&name))).ok()?;
    SIGNALS.contains(&signal).then_some(signal)
}

fn udp(rest: &str) -> Result<Listener, &'static str> {
    let (address, payload) = match rest.split_once('/') {
        Some((address, payload)) => (address, Some(payload)),
        None => (rest, None),
    };
    let (host, port) = address.rsplit_once(':').ok_or("has no port")?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(host)) if host.parse::<std::net::Ipv6Addr>().is_ok() => host,
        None if !host.is_empty() && !host.contains([':', '[', ']', ' ', '@']) => host,
        _ => return Err("names no host"),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("has no sensible port")?;
    match payload.map(str::len) {
        Some(0) => return Err("has an empty payload"),
        Some(length) if length > PAYLOAD_MAX => return Err("has a payload of more than 512 bytes"),
        _ => {}
    }
    Ok(Listener::Udp { host: host.to_owned(), port, payload: payload.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn one(text: &str) -> Result<Listener, Failure> {
        let raw = Raw { targets: vec![text.to_owned()], ..Raw::default() };
        listeners(&raw, LIMIT, false).map(|mut wanted| wanted.listeners.remove(0))
    }

    #[test]
    fn listeners_are_taken_apart_and_shown_again() {
        let udp = |host: &str, port, payload: Option<&str>| Listener::Udp {
            host: host.to_owned(),
            port,
            payload: payload.map(str::to_owned),
        };
        assert_eq!(one("udp:127.0.0.1:7000").unwrap(), udp("127.0.0.1", 7000, None));
        assert_eq!(one("udp:[::1]:7000").unwrap(), udp("::1", 7000, None));
        assert_eq!(one("udp:app:7/become-active/now").unwrap(), udp("app", 7, Some("become-active/now")));
        assert_eq!(one("file:role.json").unwrap(), Listener::File("role.json".into()));
        for text in [
            "http://localhost:8080/role",
            "http://unix:/run/app.sock:/role",
            "udp:a:7",
            "file:/tmp/role",
            "exec:systemctl kill -s USR1 app",
        ] {
            assert_eq!(one(text).unwrap().to_string(), text);
        }
        assert_eq!(one("http:http://localhost/role").unwrap().to_string(), "http://localhost/role");
        for name in ["USR2", "usr2", "SIGUSR2", "sigusr2"] {
            let raw = Raw { targets: vec![format!("signal:{name}")], ..Raw::default() };
            let wanted = Wanted { listeners: vec![], signal: Some(Signal::SIGUSR2) };
            assert_eq!(listeners(&raw, LIMIT, false).unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_listener_is_refused() {
        let long = format!("udp:a:7/{}", "x".repeat(513));
        for text in [
            "",
            "udp:",
            "udp:a",
            "udp::7",
            "udp:a:0",
            "udp:a:70000",
            "udp:a:7/",
            "udp:::1:7",
            "udp:[::1:7",
            &long,
            "file:",
            "file:/",
            "file:/tmp",
            "file:/no/such/folder/x",
            "signal:USR9",
            "signal:",
            "signal:10",
            "signal:KILL",
            "signal:TERM",
            "signal:HUP",
            "signal:CHLD",
            "exec: ",
            "http:localhost",
            "https://localhost/",
            "http://",
        ] {
            let failure = one(text).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{text:?}");
            assert!(failure.message.contains("--notify") && failure.hint.is_some(), "{text:?}: {failure}");
        }
        let many = Raw { targets: (1..=17).map(|port| format!("udp:a:{port}")).collect(), ..Raw::default() };
        assert_eq!(listeners(&many, LIMIT, false).unwrap_err().code, Code::Usage);
        for once in ["udp:a:1", "signal:USR1"] {
            let twice = Raw { targets: vec![once.to_owned(); 2], ..Raw::default() };
            assert_eq!(listeners(&twice, LIMIT, false).unwrap_err().code, Code::Usage);
        }
    }

    #[test]
    fn a_token_leaves_the_host_only_where_that_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let taken = |target: &str, allow_plaintext| {
            let raw = Raw { targets: vec![target.to_owned()], token_file: Some(file.clone()) };
            listeners(&raw, LIMIT, allow_plaintext)
        };
        let code = |target: &str, allow_plaintext| taken(target, allow_plaintext).unwrap_err().code;
        assert_eq!(code("http://localhost/", false), Code::Configuration, "there is no file");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(code("http://localhost/", false), Code::Configuration, "it is empty");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert!(taken("http://localhost/", false).is_ok());
        assert!(taken("http://unix:/run/app.sock:/", false).is_ok());
        assert_eq!(code("http://example.org/", false), Code::Configuration);
        assert!(taken("http://example.org/", true).is_ok());
        assert_eq!(code("udp:a:7", true), Code::Configuration, "nobody is shown it");
    }
}
