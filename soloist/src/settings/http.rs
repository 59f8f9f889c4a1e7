//! `--http` and `--http-token-file`.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Failure};

/// The longest path that fits into the address of a unix socket, which ends with a zero byte.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// What a refused address should have looked like.
const ALLOWED: &str = "an IP address and a port, such as 127.0.0.1:9090 or [::1]:0, or unix:PATH";

/// Where and to whom HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub address: Address,
    /// The file with the token that requests must bring.
    pub token_file: Option<PathBuf>,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// On a port; 0 is any free one.
    Tcp(SocketAddr),
    /// On a socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Nothing if HTTP is not asked for.
///
/// # Errors
/// An address that is none, or a token file that cannot be read or would have no effect.
pub(super) fn http(address: Option<&str>, token_file: Option<PathBuf>) -> Result<Option<Http>, Failure> {
    match (address, token_file) {
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let message = format!("--http-token-file {} has no effect without --http", path.display());
            Err(Failure::new(Code::Configuration, message).hint("add --http 127.0.0.1:9090, or leave both out"))
        }
        (Some(text), token_file) => {
            let address = parse(text)?;
            if let Some(path) = &token_file {
                check_token_file(path)?;
            }
            Ok(Some(Http { address, token_file }))
        }
    }
}

fn parse(text: &str) -> Result<Address, Failure> {
    let text = text.trim();
    match text.strip_prefix("unix:") {
        Some(path) => unix(path),
        None => text.parse().map(Address::Tcp).map_err(|_| not_an_address(text)),
    }
}

fn unix(path: &str) -> Result<Address, Failure> {
    socket_path("--http", Path::new(path)).map_err(|failure| failure.hint(ALLOWED))?;
    Ok(Address::Unix(path.into()))
}

/// Checks the path of a socket.
///
/// # Errors
/// It does not fit into the address of one.
pub fn socket_path(flag: &str, path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().as_bytes();
    let refuse = |what: &str| {
        Err(Failure::new(Code::Usage, format!("{flag} {path:?} {what}")).hint("such as /run/soloist/app.sock"))
    };
    if bytes.is_empty() {
        return refuse("names no path");
    }
    if bytes.contains(&0) {
        return refuse("holds a zero byte");
    }
    if bytes.len() > UNIX_PATH_BYTES_MAX {
        return refuse(&format!("has a path of {} bytes, at most {UNIX_PATH_BYTES_MAX} fit", bytes.len()));
    }
    Ok(())
}

/// Names are not looked up, and whom an address serves is not guessed.
fn not_an_address(text: &str) -> Failure {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let hint = match port {
        Some(port) if text.starts_with(':') => {
            format!("127.0.0.1:{port} serves this host alone, 0.0.0.0:{port} and [::]:{port} everybody who reaches it")
        }
        Some(port) if text.starts_with("localhost:") => format!("127.0.0.1:{port} or [::1]:{port}"),
        _ => ALLOWED.to_owned(),
    };
    Failure::new(Code::Usage, format!("--http {text:?} is not an address")).hint(hint)
}

/// It is read anew for each request; a path that is wrong from the start is a mistake.
fn check_token_file(path: &Path) -> Result<(), Failure> {
    let hint = "a file that soloist may read, with the token as its only content";
    let refuse =
        |what: String| Failure::new(Code::Configuration, format!("--http-token-file {} {what}", path.display()));
    // A pipe would wait for a writer: the kind is looked at before it is opened.
    let metadata =
        std::fs::metadata(path).map_err(|error| refuse(format!("cannot be looked at: {error}")).hint(hint))?;
    if !metadata.is_file() {
        return Err(refuse("is not a regular file".to_owned()).hint(hint));
    }
    File::open(path).map(drop).map_err(|error| refuse(format!("cannot be read: {error}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_are_taken() {
        for text in ["127.0.0.1:9090", "[::1]:0", "0.0.0.0:80", " 127.0.0.1:1 "] {
            let http = http(Some(text), None).unwrap().unwrap();
            assert_eq!(http.address.to_string(), text.trim());
        }
        let path = "unix:/run/soloist.sock";
        assert_eq!(http(Some(path), None).unwrap().unwrap().address, Address::Unix("/run/soloist.sock".into()));
        assert_eq!(http(None, None).unwrap(), None);
    }

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        let long = format!("unix:/{}", "x".repeat(200));
        let texts = ["", "9090", "localhost:9090", ":9090", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80"];
        for text in texts.into_iter().chain(["unix:", "unix:a\0b", &long]) {
            let failure = http(Some(text), None).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{text:?}");
            assert!(failure.message.contains("--http"), "{failure}");
            assert!(failure.hint.is_some(), "{failure}");
        }
        assert!(http(Some(":9090"), None).unwrap_err().hint.unwrap().contains("127.0.0.1:9090"));
    }

    #[test]
    fn token_file_must_be_readable_and_of_use() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        let refusal = |address, path: &Path| http(address, Some(path.to_owned())).unwrap_err();
        assert_eq!(refusal(Some("127.0.0.1:0"), &token).code, Code::Configuration);
        assert_eq!(refusal(Some("127.0.0.1:0"), folder.path()).code, Code::Configuration);
        std::fs::write(&token, "secret").unwrap();
        assert!(refusal(None, &token).message.contains("--http"));
        assert!(http(Some("127.0.0.1:0"), Some(token)).is_ok());
    }
}
