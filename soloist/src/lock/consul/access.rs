//! Where Consul is and who we are, as its own programs take it from the environment. Files are read anew for every fresh
//! connection, so that rotated tokens and certificates are noticed.

use std::fmt;
use std::path::PathBuf;

use crate::settings::target::is_this_host;

/// Where one server or agent, or several behind one address, answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host with a port.
    Tcp {
        /// A name or an address, an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket on this host.
    Unix(PathBuf),
}

impl Address {
    /// Whether nobody else can listen on the way.
    fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => is_this_host(host),
        }
    }
}

/// As it stands in a URL.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// How a server proves who it is, and we to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The file with the authorities; those of the host where neither this nor the folder is given.
    pub ca_file: Option<PathBuf>,
    /// A folder with authorities.
    pub ca_path: Option<PathBuf>,
    /// The own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate, where it is not the host's.
    pub server_name: Option<String>,
    /// Whoever answers is believed to be Consul.
    pub trusts_anybody: bool,
}

/// What says what we may do.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Literal(String),
    /// The file that has it.
    File(PathBuf),
}

/// Never shows the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Literal(_) => f.write_str("Token"),
            Token::File(path) => write!(f, "Token in {path:?}"),
        }
    }
}

/// Everything that it takes to talk to Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where.
    pub address: Address,
    /// What the paths of its interface begin with, where something on the way asks for it.
    pub base: String,
    /// How it is trusted; nothing for plain HTTP.
    pub tls: Option<Tls>,
    /// What we may.
    pub token: Option<Token>,
    /// The namespace, of the enterprise edition.
    pub namespace: Option<String>,
    /// The partition, of the enterprise edition.
    pub partition: Option<String>,
    /// The datacenter; else the agent's own.
    pub datacenter: Option<String>,
}

/// What is said on the command line about where Consul is; the environment says the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// `HOST:PORT`; else `CONSUL_HTTP_ADDR`, else the agent on this host.
    pub address: Option<String>,
    /// Whether it is asked for with TLS by name.
    pub tls: bool,
}

const DEFAULT: &str = "127.0.0.1:8500";

impl Access {
    /// Reads the settings. `variable` gives the variables of the environment.
    ///
    /// # Errors
    /// What was got and what is allowed, for the first thing that cannot be.
    pub fn new(server: &Server, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let flag =
            |name: &str| -> Result<Option<bool>, String> { variable(name).map(|v| boolean(name, &v)).transpose() };
        let (source, given) = match &server.address {
            Some(address) => ("--lock", address.clone()),
            None => ("CONSUL_HTTP_ADDR", variable("CONSUL_HTTP_ADDR").unwrap_or_else(|| DEFAULT.to_owned())),
        };
        let Parsed { address, base, is_https } = parse(&given).map_err(|why| format!("{source} {given:?} {why}"))?;
        let wants_tls = server.tls || is_https.unwrap_or(false) || flag("CONSUL_HTTP_SSL")?.unwrap_or(false);
        let path = |name: &str| variable(name).map(PathBuf::from);
        let identity = match (path("CONSUL_CLIENT_CERT"), path("CONSUL_CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("only one of CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY is set, they belong together".into()),
        };
        let trusts_anybody = !flag("CONSUL_HTTP_SSL_VERIFY")?.unwrap_or(true);
        let tls = Tls {
            ca_file: path("CONSUL_CACERT"),
            ca_path: path("CONSUL_CAPATH"),
            identity,
            server_name: variable("CONSUL_TLS_SERVER_NAME"),
            trusts_anybody,
        };
        let token = match (variable("CONSUL_HTTP_TOKEN"), path("CONSUL_HTTP_TOKEN_FILE")) {
            (_, Some(file)) => Some(Token::File(file)),
            (Some(token), None) => Some(Token::Literal(token)),
            (None, None) => None,
        };
        Ok(Self {
            address,
            base,
            tls: wants_tls.then_some(tls),
            token,
            namespace: variable("CONSUL_NAMESPACE"),
            partition: variable("CONSUL_PARTITION"),
            datacenter: variable("CONSUL_DATACENTER"),
        })
    }

    /// Whether everybody on the way can read what is said.
    pub fn is_plaintext(&self) -> bool {
        self.tls.is_none() && !self.address.is_local()
    }

    /// The token as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or nothing that could be a token is in it.
    pub fn read_token(&self) -> Result<Option<String>, String> {
        match &self.token {
            None => Ok(None),
            Some(Token::Literal(token)) => Ok(Some(token.clone())),
            Some(Token::File(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
                match text.trim() {
                    "" => Err(format!("the token file {} is empty", path.display())),
                    token => Ok(Some(token.to_owned())),
                }
            }
        }
    }
}

struct Parsed {
    address: Address,
    base: String,
    is_https: Option<bool>,
}

/// `HOST[:PORT]`, `http://HOST[:PORT][/PATH]`, `https://...`, `unix:///PATH`.
fn parse(text: &str) -> Result<Parsed, &'static str> {
    if text.contains("$(") || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("is no address: it has blanks, or a variable that nobody expanded");
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let is_https = match scheme {
        Some("unix") if rest.starts_with('/') => {
            return Ok(Parsed { address: Address::Unix(rest.into()), base: String::new(), is_https: None });
        }
        Some("unix") => return Err("is no path of a socket: unix:///run/consul.sock would be one"),
        Some("http") => Some(false),
        Some("https") => Some(true),
        Some("tcp") | None => None,
        Some(_) => return Err("has an unknown scheme: allowed are http, https and unix"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("has a user and a password in it: use CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE");
    }
    if authority.contains(['?', '#']) || path.contains(['?', '#']) {
        return Err("has a query or a fragment: HOST:PORT would do");
    }
    let default_port = if is_https == Some(true) { 443 } else { 80 };
    let (host, port) = host_and_port(authority, default_port).ok_or("is no HOST:PORT")?;
    let base = path.trim_end_matches('/').to_owned();
    Ok(Parsed { address: Address::Tcp { host, port }, base, is_https })
}

fn host_and_port(authority: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or(if port.is_empty() { Some("") } else { None })?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let port = if port.is_empty() { default_port } else { port.parse().ok().filter(|port| *port > 0)? };
    (!host.is_empty() && host.chars().all(allowed)).then(|| (host.to_owned(), port))
}

/// As the programs of Consul read it.
///
/// # Errors
/// It is neither.
pub fn boolean(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{name} {value:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(address: Option<&str>, tls: bool, variables: &[(&str, &str)]) -> Result<Access, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Access::new(&Server { address: address.map(str::to_owned), tls }, &variable)
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn addresses_are_read_as_consul_reads_them() {
        let table = [
            ("127.0.0.1:8500", tcp("127.0.0.1", 8500), false),
            ("http://consul-server.consul:8500", tcp("consul-server.consul", 8500), false),
            ("https://consul.example:8501", tcp("consul.example", 8501), true),
            ("https://consul.example", tcp("consul.example", 443), true),
            ("http://consul.example/", tcp("consul.example", 80), false),
            ("[::1]:8500", tcp("::1", 8500), false),
            ("unix:///run/consul.sock", Address::Unix("/run/consul.sock".into()), false),
        ];
        for (given, address, tls) in table {
            let access = with(None, false, &[("CONSUL_HTTP_ADDR", given)]).unwrap();
            assert_eq!((access.address, access.tls.is_some(), access.base.as_str()), (address, tls, ""), "{given}");
        }
        assert_eq!(with(None, false, &[]).unwrap().address, tcp("127.0.0.1", 8500));
        let access = with(Some("10.0.0.1:8501"), true, &[("CONSUL_HTTP_ADDR", "http://other:1")]).unwrap();
        assert_eq!((access.address, access.tls), (tcp("10.0.0.1", 8501), Some(Tls::default())));
        assert_eq!(with(None, false, &[("CONSUL_HTTP_ADDR", "http://proxy:80/consul/")]).unwrap().base, "/consul");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let wrong = [
            "http://user:secret@consul:8500",
            "ftp://consul",
            "unix://relative",
            "http://",
            "consul:port",
            "consul:0",
            "consul:65536",
            "consul:8500?token=x",
            "$(CONSUL):8500",
            "a b:8500",
            "[::1:8500",
            "[::1]8500",
        ];
        for given in wrong {
            let why = with(None, false, &[("CONSUL_HTTP_ADDR", given)]).unwrap_err();
            assert!(why.starts_with("CONSUL_HTTP_ADDR"), "{given}: {why}");
        }
        assert!(with(None, false, &[("CONSUL_HTTP_SSL", "perhaps")]).unwrap_err().contains("perhaps"));
        assert!(with(None, false, &[("CONSUL_CLIENT_CERT", "/c")]).unwrap_err().contains("CONSUL_CLIENT_KEY"));
    }

    #[test]
    fn the_environment_says_the_rest() {
        let access = with(
            None,
            false,
            &[
                ("CONSUL_HTTP_ADDR", "consul.example:8501"),
                ("CONSUL_HTTP_SSL", "true"),
                ("CONSUL_HTTP_SSL_VERIFY", "false"),
                ("CONSUL_HTTP_TOKEN", "abc"),
                ("CONSUL_CACERT", "/ca"),
                ("CONSUL_CAPATH", "/cas"),
                ("CONSUL_CLIENT_CERT", "/c"),
                ("CONSUL_CLIENT_KEY", "/k"),
                ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
                ("CONSUL_NAMESPACE", "n"),
                ("CONSUL_PARTITION", "p"),
                ("CONSUL_DATACENTER", "d"),
            ],
        )
        .unwrap();
        let tls = Tls {
            ca_file: Some("/ca".into()),
            ca_path: Some("/cas".into()),
            identity: Some(("/c".into(), "/k".into())),
            server_name: Some("server.dc1.consul".into()),
            trusts_anybody: true,
        };
        assert_eq!(access.tls, Some(tls));
        assert_eq!(access.read_token(), Ok(Some("abc".into())));
        assert!(!format!("{access:?}").contains("abc"), "a token is never shown");
        let places = [access.namespace, access.partition, access.datacenter].map(Option::unwrap);
        assert_eq!(places, ["n", "p", "d"]);
    }

    #[test]
    fn a_token_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let access = with(None, false, &[("CONSUL_HTTP_TOKEN_FILE", path.to_str().unwrap())]).unwrap();
        assert!(access.read_token().unwrap_err().contains("token"));
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(access.read_token(), Ok(Some(token.into())));
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(access.read_token().unwrap_err().contains("empty"));
    }

    #[test]
    fn only_what_leaves_the_host_in_the_clear_is_plaintext() {
        for (given, expected) in [
            ("127.0.0.1:8500", false),
            ("localhost:8500", false),
            ("[::1]:8500", false),
            ("unix:///s", false),
            ("https://consul:8501", false),
            ("http://consul:8500", true),
            ("10.0.0.1:8500", true),
        ] {
            assert_eq!(with(None, false, &[("CONSUL_HTTP_ADDR", given)]).unwrap().is_plaintext(), expected, "{given}");
        }
    }
}
