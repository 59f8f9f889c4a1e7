//! Where the lock is: a URL, a path, or a file in the state folder.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Failure};
use crate::lock::kubernetes::LeaseName;

/// Where the lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(FilePlace),
    /// In a Lease of Kubernetes.
    Lease(LeaseName),
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
            Place::Lease(lease) => lease.name.clone(),
        }
    }

    /// Makes the state folder where the lock is to be in it: for members only, whoever just looks leaves no trace.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        match self {
            Place::File(FilePlace { path, is_default: true }) => path.parent().map_or(Ok(()), create_private),
            Place::File(_) | Place::Lease(_) => Ok(()),
        }
    }
}

impl FilePlace {
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
            Place::Lease(lease) => write!(f, "kubernetes://{}/{}", lease.namespace, lease.name),
        }
    }
}

const ALLOWED: &str = "a path, file:///path/app.lock or kubernetes://NAMESPACE/NAME";

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
            names.sort();
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
fn operating(error: &std::io::Error) -> Code {
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
        Some(("kubernetes", place)) => return lease(lock, place).map(Place::Lease),
        Some(("consul" | "consuls", _)) => {
            let what = format!("--lock {lock:?} names a store that this version cannot use");
            return Err(Failure::new(Code::Configuration, what).hint(ALLOWED));
        }
        Some((scheme, _)) => return Err(refuse(&format!("has the unknown scheme {scheme:?}"))),
    };
    if path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        return Err(refuse("names a folder, not a file"));
    }
    Ok(Place::File(FilePlace { path: absolute(Path::new(path))?, is_default: false }))
}

/// The longest name of a namespace, and of anything else.
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// `NAMESPACE/NAME`, as the API server would take them.
fn lease(lock: &str, place: &str) -> Result<LeaseName, Failure> {
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
    if !is_subdomain(name) {
        return refuse("has a name that is not a DNS-1123 subdomain (a-z, 0-9, '-', '.', at most 253)");
    }
    Ok(LeaseName { namespace: namespace.to_owned(), name: name.to_owned() })
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

/// Members may be started in different folders, and the record names the path to the guard.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Code::Configuration, format!("failed to find {}: {error}", path.display())))
}

/// `/var/lib/soloist` for root, else `.local/state/soloist` in the user's home as the user database has it: two shells
/// with different variables must agree.
fn state_folder() -> Result<PathBuf, Failure> {
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
            Place::Lease(lease) => panic!("{lease:?}"),
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
        assert_eq!(place(Some("consul:///x"), None).unwrap_err().code, Code::Configuration);
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
    fn a_lease_is_named_by_namespace_and_name() {
        let read = |lock: &str| parse(lock).map_err(|failure| failure.code);
        let lease = |namespace: &str, name: &str| {
            Ok(Place::Lease(LeaseName { namespace: namespace.into(), name: name.into() }))
        };
        assert_eq!(read("kubernetes://prod/app"), lease("prod", "app"));
        assert_eq!(read("kubernetes:///app.v1-2"), lease("", "app.v1-2"));
        let long = format!("kubernetes://prod/{}", "a".repeat(254));
        let wrong = [
            "kubernetes://",
            "kubernetes://app",
            "kubernetes:///",
            "kubernetes://prod/",
            "kubernetes://prod/a/b",
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
        let shown = place(Some("kubernetes:///app"), None).unwrap();
        assert_eq!((shown.to_string().as_str(), shown.name().as_str()), ("kubernetes:///app", "app"));
    }
}
