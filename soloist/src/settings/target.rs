//! The URL of a server that is asked by plain HTTP.

use std::net::IpAddr;
use std::path::PathBuf;

use hyper::Uri;

use crate::error::{Code, Failure};

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

const URL_HINT: &str = "such as http://127.0.0.1:8080/healthz or http://unix:/run/app.sock:/healthz";

impl Address {
    /// Whether what is sent there stays on this host.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp(host, _) => is_this_host(host),
        }
    }
}

/// Whether `host` is this one, whatever a name server says.
pub fn is_this_host(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Takes the URL of a flag apart. Who wants TLS is pointed to what is there `instead`.
///
/// # Errors
/// Not a URL of a server by plain HTTP, or one with parts that mean nothing here.
pub fn target(flag: &str, url: &str, instead: &str) -> Result<Target, Failure> {
    let refuse = |what: &str| Failure::new(Code::Usage, format!("{flag} {url:?} {what}")).hint(URL_HINT);
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
            return Err(refuse("asks for TLS, which is not spoken here").hint(instead));
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

    fn url(url: &str) -> Result<Target, Failure> {
        target("--x", url, "use something else")
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
            assert_eq!(url(text).unwrap(), target, "{text}");
        }
        let target = url("http://unix:/run/app.sock:/healthz").unwrap();
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
            assert!(failure.message.starts_with("--x") && failure.hint.is_some(), "{text}");
        }
        let failure = url("https://localhost/").unwrap_err();
        assert!(failure.message.contains("TLS"), "{failure}");
        assert_eq!(failure.hint.as_deref(), Some("use something else"));
    }
}
