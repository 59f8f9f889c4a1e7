//! What keeps a lock: not every store takes every lease.

use std::fmt;

use election::Timing;
use serde::Serialize;

use super::place;
use crate::error::{Code, Failure};
use crate::lock::{consul, kubernetes};

/// What keeps a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// A file.
    File,
    /// Kubernetes.
    Kubernetes,
    /// Consul.
    Consul,
}

impl Store {
    const ALL: [Store; 3] = [Store::File, Store::Kubernetes, Store::Consul];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Store::File => "file",
            Store::Kubernetes => "kubernetes",
            Store::Consul => "consul",
        }
    }

    /// Refuses a lease, which was given as `lease`, that the store cannot carry.
    pub(super) fn check_lease(self, timing: &Timing, lease: &str) -> Result<(), Failure> {
        let fits = match self {
            Store::File => Ok(()),
            Store::Kubernetes => kubernetes::check_lease(timing.lease()),
            Store::Consul => consul::check_lease(timing.lease()),
        };
        fits.map_err(|why| Failure::new(Code::Configuration, format!("--lease {lease}: {why}")).hint("use --lease 15s"))
    }
}

/// For people.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Store::File => "a lock file",
            Store::Kubernetes => "a Lease of Kubernetes",
            Store::Consul => "a key of Consul",
        })
    }
}

/// What keeps the lock that `--lock` names, which may also be the word for a kind of store; a file where nothing is said.
///
/// # Errors
/// Neither such a word nor a lock.
pub fn store(lock: Option<&str>) -> Result<Store, Failure> {
    let Some(lock) = lock else { return Ok(Store::File) };
    match Store::ALL.into_iter().find(|store| store.word() == lock) {
        Some(store) => Ok(store),
        None => Ok(place(Some(lock), None)?.store()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_or_the_word_for_its_store_will_do() {
        for (lock, expected) in [
            (None, Store::File),
            (Some("file"), Store::File),
            (Some("./kubernetes"), Store::File),
            (Some("kubernetes"), Store::Kubernetes),
            (Some("kubernetes:///app"), Store::Kubernetes),
            (Some("consul"), Store::Consul),
            (Some("consul://127.0.0.1/app"), Store::Consul),
        ] {
            assert_eq!(store(lock).unwrap(), expected, "{lock:?}");
        }
        assert_eq!(store(Some("http://x")).unwrap_err().code, Code::Usage);
    }
}
