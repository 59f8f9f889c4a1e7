//! Where the lock is: a URL, a path, or a file in the state folder.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Store;
use crate::error::{Code, Failure};
use crate::lock::consul::{self, Server};
use crate::lock::kubernetes::{Kind, ObjectName};

/// Where the lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(FilePlace),
    /// In a Lease of Kubernetes, or in Endpoints.
    Kubernetes(ObjectName),
    /// In a key of Consul.
    Consul(Box<ConsulPlace>),
}

/// Where a lock on Consul is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulPlace {
    /// How Consul is reached.
    pub access: consul::Access,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// The session's name, where the key is used as `consul lock` uses it: free where it is absent, and with nothing
    /// beside it.
    pub consul_lock_session: Option<String>,
    /// As it was given.
    server: Server,
}

impl ConsulPlace {
    /// The lock under `prefix` on `server`, with everything else from `variable`: the environment, as a rule.
    ///
    /// # Errors
    /// A prefix that is none, or an environment that contradicts itself.
    pub fn new(server: Server, prefix: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        if let Some(why) = fault(prefix) {
            return Err(Failure::new(Code::Usage, format!("the prefix {prefix:?} {why}"))
                .hint("such as capi-drs-lock or service/app/leader"));
        }
        let code = if server.address.is_some() { Code::Usage } else { Code::Configuration };
        let access = consul::Access::new(&server, variable).map_err(|why| Failure::new(code, why))?;
        Ok(Self { access, prefix: prefix.to_owned(), consul_lock_session: None, server })
    }

    /// Refuses to tell everybody on the way the token.
    ///
    /// # Errors
    /// A token would be sent in the clear, and `is_allowed` does not say so.
    pub fn check_plaintext(&self, is_allowed: bool) -> Result<(), Failure> {
        if !self.access.is_plaintext() || self.access.token.is_none() || is_allowed {
            return Ok(());
        }
        let what = format!("the token for Consul at {} would be sent without TLS", self.access.address);
        Err(Failure::new(Code::Configuration, what)
            .hint("use consuls://HOST:PORT/PREFIX or CONSUL_HTTP_SSL=true; --allow-plaintext sends it all the same"))
    }
}

/// Where the lock file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The lock file.
    pub path: PathBuf,
    /// Chosen from the group's name, not by the user.
    pub is_default: bool,
}

impl Place {
    /// What a group without a name of its own is called: the Lease's name, or the lock file's without `.lock`.
    pub fn name(&self) -> String {
        match self {
            Place::File(file) => file.name(),
            Place::Kubernetes(object) => object.name.clone(),
            Place::Consul(consul) => consul.prefix.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }

    /// What keeps it.
    pub fn store(&self) -> Store {
        match self {
            Place::File(_) => Store::File,
            Place::Kubernetes(_) => Store::Kubernetes,
            Place::Consul(_) => Store::Consul,
        }
    }

    /// The lock of a slot.
    #[must_use]
    pub fn of_slot(&self, slot: u32) -> Self {
        match self {
            Place::File(file) => Place::File(file.of_slot(slot)),
            Place::Kubernetes(object) => Place::Kubernetes(object.of_slot(slot)),
            Place::Consul(consul) => {
                let prefix = of_slot(&consul.prefix, slot);
                Place::Consul(Box::new(ConsulPlace { prefix, ..(**consul).clone() }))
            }
        }
    }

    /// Makes the state folder where the lock is to be in it: for members only, whoever just looks leaves no trace.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        match self {
            Place::File(FilePlace { path, is_default: true }) => path.parent().map_or(Ok(()), create_private),
            Place::File(_) | Place::Kubernetes(_) | Place::Consul(_) => Ok(()),
        }
    }
}

/// What the lock of a slot is called: that of the first one as the group's own.
pub fn of_slot(name: &str, slot: u32) -> String {
    if slot == 1 { name.to_owned() } else { format!("{name}.{slot}") }
}

impl FilePlace {
    /// The lock file of a slot.
    #[must_use]
    pub fn of_slot(&self, slot: u32) -> Self {
        let mut path = self.path.clone();
        if slot > 1 {
            path.as_mut_os_string().push(format!(".{slot}"));
        }
        Self { path, is_default: self.is_default }
    }

    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".lock").filter(|stem| !stem.is_empty()).unwrap_or(&name).to_owned()
    }
}

/// As it would be given to `--lock`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(file) => file.path.display().fmt(f),
            Place::Kubernetes(ObjectName { kind, namespace, name }) => {
                let kind = if *kind == Kind::Endpoints { ENDPOINTS } else { "" };
                write!(f, "kubernetes://{namespace}/{kind}{name}")
            }
            Place::Consul(consul) => {
                let ConsulPlace { server, prefix, .. } = &**consul;
                let scheme = if server.tls { "consuls" } else { "consul" };
                write!(f, "{scheme}://{}/{prefix}", server.address.as_deref().unwrap_or_default())
            }
        }
    }
}

const ALLOWED: &str = "a path, file:///path/app.lock, kubernetes://NAMESPACE/NAME or consul://HOST:PORT/PREFIX";

/// Finds the lock from `--lock` and `--group`.
///
/// # Errors
/// Neither was given, or not in a way that this version understands.
pub fn place(lock: Option<&str>, group: Option<&str>) -> Result<Place, Failure> {
    match (lock, group) {
        (Some(lock), _) => parse(lock),
        (None, Some(group)) => {
            Ok(Place::File(FilePlace { path: state_folder()?.join(format!("{group}.lock")), is_default: true }))
        }
        (None, None) => Err(Failure::new(Code::Usage, "neither --lock nor --group was given")
            .hint("--lock ./app.lock, or --group app for a lock file in the state folder")),
    }
}

/// Finds the only lock file in the state folder, for those who only look and gave neither `--lock` nor `--group`.
///
/// # Errors
/// There is none, and where it was searched; or there are several, and which.
pub fn only_one() -> Result<Place, Failure> {
    only_one_in(&state_folder()?)
}

fn only_one_in(folder: &Path) -> Result<Place, Failure> {
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(is_lock).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let code = operating(&error);
            return Err(Failure::new(code, format!("failed to search {}: {error}", folder.display())));
        }
    };
    let mut places: Vec<_> = entries.into_iter().map(|path| FilePlace { path, is_default: true }).collect();
    match (places.pop(), places.is_empty()) {
        (Some(place), true) => Ok(Place::File(place)),
        (Some(last), false) => {
            places.push(last);
            let mut names: Vec<String> = places.iter().map(FilePlace::name).collect();
            names.sort_unstable();
            let what =
                format!("neither --lock nor --group was given, and there are several locks in {}", folder.display());
            Err(Failure::new(Code::Usage, format!("{what}: {}", names.join(", "))).hint("--group NAME"))
        }
        (None, _) => {
            let searched = folder.join("*.lock");
            let what = format!("found no lock: neither --lock nor --group was given; searched {}", searched.display());
            Err(Failure::new(Code::Unavailable, what).hint("--lock PATH, as the members were started with"))
        }
    }
}

/// The exit code for a file that cannot be read.
pub(super) fn operating(error: &std::io::Error) -> Code {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Code::Permission,
        _ => Code::Unavailable,
    }
}

fn parse(lock: &str) -> Result<Place, Failure> {
    let refuse = |what: &str| Failure::new(Code::Usage, format!("--lock {lock:?} {what}")).hint(ALLOWED);
    if lock.is_empty() {
        return Err(refuse("is empty"));
    }
    let path = match lock.split_once("://") {
        None => lock,
        Some(("file", path)) if path.starts_with('/') => path,
        Some(("file", _)) => return Err(refuse("names a host or a relative path")),
        Some(("kubernetes", place)) => return object(lock, place).map(Place::Kubernetes),
        Some((scheme @ ("consul" | "consuls"), place)) => {
            return consul_place(lock, scheme == "consuls", place).map(Box::new).map(Place::Consul);
        }
        Some((scheme, _)) => return Err(refuse(&format!("has the unknown scheme {scheme:?}"))),
    };
    if path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        return Err(refuse("names a folder, not a file"));
    }
    Ok(Place::File(FilePlace { path: absolute(Path::new(path))?, is_default: false }))
}

/// Between namespace and name, where the record is in Endpoints and not in a Lease.
const ENDPOINTS: &str = "endpoints/";

/// The longest name of a namespace, and of anything else.
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// `NAMESPACE/NAME`, as the API server would take them, or `NAMESPACE/endpoints/NAME`.
fn object(lock: &str, place: &str) -> Result<ObjectName, Failure> {
    let refuse = |what: &str| {
        Err(Failure::new(Code::Usage, format!("--lock {lock:?} {what}"))
            .hint("kubernetes://NAMESPACE/NAME, or kubernetes:///NAME for the pod's own namespace"))
    };
    if place.contains("$(") {
        return refuse("contains a variable that nobody expanded");
    }
    let Some((namespace, name)) = place.split_once('/') else { return refuse("names no Lease") };
    if !namespace.is_empty() && !is_label(namespace) {
        return refuse("has a namespace that is not a DNS-1123 label (a-z, 0-9, '-', at most 63)");
    }
    let (kind, name) = match name.strip_prefix(ENDPOINTS) {
        Some(name) => (Kind::Endpoints, name),
        None => (Kind::Lease, name),
    };
    if !is_subdomain(name) {
        return refuse("has a name that is not a DNS-1123 subdomain (a-z, 0-9, '-', '.', at most 253)");
    }
    Ok(ObjectName { kind, ..ObjectName::lease(namespace, name) })
}

/// Whether a namespace or a port could have this name: a DNS-1123 label.
pub(crate) fn is_label(name: &str) -> bool {
    let allowed = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    allowed && !name.is_empty() && name.len() <= LABEL_MAX && !name.starts_with('-') && !name.ends_with('-')
}

/// Whether most other things could have this name: DNS-1123 labels with dots between them.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let allowed = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
    allowed && name.len() <= SUBDOMAIN_MAX && name.split('.').all(is_part)
}

/// `HOST:PORT/PREFIX`, or `/PREFIX` for the Consul of the environment.
fn consul_place(lock: &str, tls: bool, place: &str) -> Result<ConsulPlace, Failure> {
    let refuse = |what: &str| {
        Failure::new(Code::Usage, format!("--lock {lock:?} {what}"))
            .hint("consul://HOST:PORT/PREFIX, consuls:// for TLS, or consul:///PREFIX for the CONSUL_* environment")
    };
    if place.contains("$(") {
        return Err(refuse("contains a variable that nobody expanded"));
    }
    let Some((authority, prefix)) = place.split_once('/') else { return Err(refuse("names no key")) };
    if let Some(why) = fault(prefix) {
        return Err(refuse(&format!("has a prefix that {why}")));
    }
    ConsulPlace::new(server(authority, tls).map_err(refuse)?, prefix, &|name| std::env::var(name).ok())
}

/// Which Consul `HOST`, `HOST:PORT` or nothing names.
pub(super) fn server(authority: &str, tls: bool) -> Result<Server, &'static str> {
    if authority.contains('@') {
        return Err("has a user and a password in it: use CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE");
    }
    let default_port = if tls { 8501 } else { 8500 };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = match authority {
        "" => None,
        _ if has_port => Some(authority.to_owned()),
        _ => Some(format!("{authority}:{default_port}")),
    };
    Ok(Server { address, tls })
}

/// The longest name that Consul takes is longer, but no person could tell two such names apart.
const PREFIX_MAX: usize = 400;

/// What is wrong with a prefix, if anything is.
pub(super) fn fault(prefix: &str) -> Option<&'static str> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "?#%".contains(c);
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    if prefix.is_empty() {
        Some("is empty")
    } else if prefix.len() > PREFIX_MAX {
        Some("is longer than 400 bytes")
    } else if prefix.chars().any(is_odd) {
        Some("has blanks, '?', '#' or '%' in it")
    } else if !prefix.split('/').all(is_part) {
        Some("begins or ends with '/', or has an empty part, '.' or '..' in it")
    } else {
        None
    }
}

/// Members may be started in different folders, and the record names the path to the guard.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Code::Configuration, format!("failed to find {}: {error}", path.display())))
}

/// `/var/lib/soloist` for root, else `.local/state/soloist` in the user's home as the user database has it: two shells
/// with different variables must agree.
pub(super) fn state_folder() -> Result<PathBuf, Failure> {
    let uid = nix::unistd::Uid::effective();
    let folder = if uid.is_root() {
        PathBuf::from("/var/lib/soloist")
    } else {
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let home = user.map(|user| user.dir).filter(|home| home.is_absolute());
        home.map(|home| home.join(".local/state/soloist")).ok_or_else(|| {
            Failure::new(Code::Configuration, format!("user {uid} has no home folder")).hint("give --lock PATH")
        })?
    };
    Ok(folder)
}

fn create_private(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Failure::new(Code::Permission, format!("failed to create the state folder {}: {error}", folder.display()))
            .hint("give --lock PATH with a folder that you may write")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_taken() {
        let path = |lock: &str, group| match place(Some(lock), group).unwrap() {
            Place::File(file) => file.path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("/a/b.lock", None), Path::new("/a/b.lock"));
        assert_eq!(path("file:///a/b.lock", None), Path::new("/a/b.lock"));
        assert!(path("./x.lock", Some("ignored")).is_absolute());
    }

    #[test]
    fn everything_else_is_refused() {
        let usage = ["", "file://host/x", "http://x", "/a/", "/a/.."];
        for lock in usage {
            assert_eq!(place(Some(lock), None).unwrap_err().code, Code::Usage, "{lock:?}");
        }
        assert_eq!(place(None, None).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn the_only_lock_is_found_and_none_or_several_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let none = only_one_in(&folder.path().join("nowhere")).unwrap_err();
        assert_eq!(none.code, Code::Unavailable);
        assert!(none.message.contains("nowhere/*.lock"), "{none}");
        for file in ["a.lock", "a.lock.record", "a.lock.write"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(only_one_in(folder.path()).unwrap().name(), "a");
        std::fs::write(folder.path().join("b.lock"), "").unwrap();
        let several = only_one_in(folder.path()).unwrap_err();
        assert_eq!(several.code, Code::Usage);
        assert!(several.message.ends_with("a, b"), "{several}");
    }

    #[test]
    fn a_key_of_consul_is_named_by_server_and_prefix() {
        let consul = |lock: &str| match place(Some(lock), None).unwrap() {
            Place::Consul(consul) => *consul,
            other => panic!("{other:?}"),
        };
        let table = [
            ("consul://10.0.0.1:8500/capi-drs-lock", "10.0.0.1:8500", "capi-drs-lock", false),
            ("consul://consul.example/a/b", "consul.example:8500", "a/b", false),
            ("consuls://consul.example/a", "consul.example:8501", "a", true),
            ("consul://[::1]/a", "[::1]:8500", "a", false),
        ];
        for (lock, address, prefix, tls) in table {
            let place = consul(lock);
            let found = (place.access.address.to_string(), place.prefix.as_str(), place.access.tls.is_some());
            assert_eq!(found, (address.to_owned(), prefix, tls), "{lock}");
        }
        let place = place(Some("consul://10.0.0.1:1/service/app"), None).unwrap();
        assert_eq!((place.to_string().as_str(), place.name().as_str()), ("consul://10.0.0.1:1/service/app", "app"));
        let wrong = [
            "consul://",
            "consul://host",
            "consul:///",
            "consul://host/",
            "consul:////a",
            "consul:///a/",
            "consul:///a//b",
            "consul:///a/../b",
            "consul:///a b",
            "consul:///a?x",
            "consul:///$(NAME)",
            "consul://user:secret@host/a",
            &format!("consul:///{}", "a".repeat(401)),
        ];
        for lock in wrong {
            assert_eq!(parse(lock).unwrap_err().code, Code::Usage, "{lock}");
        }
        assert_eq!(parse("consul://host:port/a").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn a_token_is_not_sent_in_the_clear_unless_that_is_allowed() {
        let mut place =
            ConsulPlace::new(Server { address: Some("10.0.0.1:8500".into()), tls: false }, "a", &|_| None).unwrap();
        place.check_plaintext(false).unwrap();
        place.access.token = Some(consul::Token::Literal("secret".into()));
        let failure = place.check_plaintext(false).unwrap_err();
        assert_eq!(failure.code, Code::Configuration);
        assert!(!failure.to_string().contains("secret"), "{failure}");
        place.check_plaintext(true).unwrap();
    }

    #[test]
    fn a_lease_is_named_by_namespace_and_name() {
        let read = |lock: &str| parse(lock).map_err(|failure| failure.code);
        let lease = |namespace: &str, name: &str| Ok(Place::Kubernetes(ObjectName::lease(namespace, name)));
        assert_eq!(read("kubernetes://prod/app"), lease("prod", "app"));
        assert_eq!(read("kubernetes:///app.v1-2"), lease("", "app.v1-2"));
        let long = format!("kubernetes://prod/{}", "a".repeat(254));
        let wrong = [
            "kubernetes://",
            "kubernetes://app",
            "kubernetes:///",
            "kubernetes://prod/",
            "kubernetes://prod/a/b",
            "kubernetes://prod/endpoints/",
            "kubernetes://prod/endpoints/a/b",
            "kubernetes://Prod/app",
            "kubernetes://a.b/app",
            "kubernetes://prod/App",
            "kubernetes://prod/a_b",
            "kubernetes://prod/-a",
            "kubernetes://prod/a-",
            "kubernetes://prod/a..b",
            "kubernetes://prod/a?x",
            "kubernetes://$(NS)/app",
            "kubernetes://prod/$(NAME)",
            "kubernetes://prod/a%2Fb",
            &long,
        ];
        for lock in wrong {
            assert_eq!(read(lock), Err(Code::Usage), "{lock}");
        }
        let endpoints = place(Some("kubernetes://prod/endpoints/app"), None).unwrap();
        assert_eq!(endpoints, Place::Kubernetes(ObjectName::endpoints("prod", "app")));
        assert_eq!((endpoints.to_string(), endpoints.name()), ("kubernetes://prod/endpoints/app".into(), "app".into()));
        let shown = place(Some("kubernetes:///app"), None).unwrap();
        assert_eq!((shown.to_string().as_str(), shown.name().as_str()), ("kubernetes:///app", "app"));
    }
}
