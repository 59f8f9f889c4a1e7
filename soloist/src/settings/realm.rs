//! Where groups are looked for: a folder of lock files, a namespace or a whole cluster, or a part of a Consul.

use std::fmt;
use std::path::{Path, PathBuf};

use super::ConsulPlace;
use super::lock_url::{absolute, fault, is_label, server, state_folder};
use crate::error::{Code, Failure};
use crate::lock::consul::{self, Server};
use crate::lock::kubernetes::Scope;

/// Where groups are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realm {
    /// In the files of a folder.
    Folder(PathBuf),
    /// In the Leases of Kubernetes.
    Kubernetes(Scope),
    /// Below a prefix of Consul; everywhere where that is empty.
    Consul {
        /// Which Consul, as it was given.
        server: Server,
        /// How it is reached.
        access: Box<consul::Access>,
        /// Without a slash at its end.
        prefix: String,
    },
}

const ALLOWED: &str = "a folder, kubernetes://NAMESPACE/, kubernetes:/// for the own one, -A for all of them, or \
                       consul://HOST:PORT/PREFIX/";

impl Realm {
    /// What `place` and `--all-namespaces` name; the state folder where nothing is said.
    ///
    /// # Errors
    /// Neither a place, nor one of all namespaces.
    pub fn new(place: Option<&str>, is_everywhere: bool) -> Result<Self, Failure> {
        let Some(place) = place else {
            return if is_everywhere { Ok(Self::Kubernetes(Scope::Cluster)) } else { state_folder().map(Self::Folder) };
        };
        let refuse = |what: &str| Failure::new(Code::Usage, format!("{place:?} {what}")).hint(ALLOWED);
        let realm = match place.split_once("://") {
            _ if place.is_empty() => return Err(refuse("is empty")),
            None => Self::Folder(absolute(Path::new(place))?),
            Some(("file", path)) if path.starts_with('/') => Self::Folder(absolute(Path::new(path))?),
            Some(("kubernetes", rest)) => Self::Kubernetes(Scope::Namespace(namespace(rest).map_err(refuse)?)),
            Some((scheme @ ("consul" | "consuls"), rest)) => part_of_consul(scheme == "consuls", rest, refuse)?,
            Some((scheme, _)) => return Err(refuse(&format!("has the unknown scheme {scheme:?}"))),
        };
        match realm {
            Self::Kubernetes(Scope::Namespace(name)) if is_everywhere && name.is_empty() => {
                Ok(Self::Kubernetes(Scope::Cluster))
            }
            _ if is_everywhere => {
                Err(refuse("is one place, and --all-namespaces asks for all namespaces of a cluster"))
            }
            realm => Ok(realm),
        }
    }
}

fn namespace(rest: &str) -> Result<String, &'static str> {
    match rest.strip_suffix('/').unwrap_or(rest) {
        "" => Ok(String::new()),
        name if name.contains('/') => Err("names one lock, which soloist status shows"),
        name if is_label(name) => Ok(name.to_owned()),
        _ => Err("has a namespace that is not a DNS-1123 label (a-z, 0-9, '-', at most 63)"),
    }
}

fn part_of_consul(tls: bool, rest: &str, refuse: impl Fn(&str) -> Failure) -> Result<Realm, Failure> {
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if let Some(why) = fault(prefix).filter(|_| !prefix.is_empty()) {
        return Err(refuse(&format!("has a prefix that {why}")));
    }
    let server = server(authority, tls).map_err(&refuse)?;
    let access = consul::Access::new(&server, &|name| std::env::var(name).ok()).map_err(|why| refuse(&why))?;
    Ok(Realm::Consul { server, access: Box::new(access), prefix: prefix.to_owned() })
}

impl Realm {
    /// The lock below a prefix that was found here.
    ///
    /// # Errors
    /// A prefix that nobody could name.
    pub fn consul_place(server: &Server, prefix: &str) -> Result<ConsulPlace, Failure> {
        ConsulPlace::new(server.clone(), prefix, &|name| std::env::var(name).ok())
    }
}

/// For people, after "in".
impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Realm::Folder(path) => path.display().fmt(f),
            Realm::Kubernetes(Scope::Cluster) => f.write_str("any namespace"),
            Realm::Kubernetes(Scope::Namespace(name)) if name.is_empty() => f.write_str("the namespace of the context"),
            Realm::Kubernetes(Scope::Namespace(name)) => write!(f, "namespace {name}"),
            Realm::Consul { access, prefix, .. } => write!(f, "{prefix}/ of Consul at {}", access.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(place: &str) -> Realm {
        Realm::new(Some(place), false).unwrap()
    }

    #[test]
    fn a_place_is_a_folder_a_namespace_or_a_prefix() {
        assert_eq!(of("/srv/app/"), Realm::Folder("/srv/app".into()));
        assert_eq!(of("file:///srv/app"), Realm::Folder("/srv/app".into()));
        for (place, name) in [
            ("kubernetes://", ""),
            ("kubernetes:///", ""),
            ("kubernetes://prod", "prod"),
            ("kubernetes://prod/", "prod"),
        ] {
            assert_eq!(of(place), Realm::Kubernetes(Scope::Namespace(name.to_owned())), "{place}");
        }
        for (place, expected) in
            [("consul://h:1/a/b/", "a/b"), ("consul://h:1/", ""), ("consul://h:1", ""), ("consuls://h/a", "a")]
        {
            let Realm::Consul { prefix, .. } = of(place) else { panic!("{place}") };
            assert_eq!(prefix, expected, "{place}");
        }
        let everywhere = Realm::Kubernetes(Scope::Cluster);
        assert_eq!(Realm::new(None, true).unwrap(), everywhere);
        assert_eq!(Realm::new(Some("kubernetes:///"), true).unwrap(), everywhere);
    }

    #[test]
    fn everything_else_is_refused() {
        for place in [
            "",
            "http://x",
            "file://host/x",
            "kubernetes://prod/app",
            "kubernetes://Prod",
            "consul://h/a//b",
            "consul://u@h/a",
        ] {
            let failure = Realm::new(Some(place), false).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{place}");
            assert!(failure.hint.is_some(), "{place}");
        }
        for place in ["/srv", "kubernetes://prod/", "consul://h/a"] {
            assert_eq!(Realm::new(Some(place), true).unwrap_err().code, Code::Usage, "{place}");
        }
    }
}
