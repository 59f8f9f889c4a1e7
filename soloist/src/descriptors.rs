//! The limit on open descriptors. A server of thousands of connections needs a higher one than programs expect to
//! find, so what this process starts gets back the one that it was started with.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What this process was started with, once it has changed it.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to `wanted`, or as near to it as it can be brought; says what it is then.
pub fn raise_to(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    let reachable = wanted.min(now.maximum.unwrap_or(u64::MAX));
    if reachable <= current {
        return current;
    }
    INHERITED.get_or_init(|| now);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: now.maximum }) {
        tracing::warn!("failed to raise the limit on descriptors to {reachable}: {error}");
        return current;
    }
    reachable
}

/// The limit that this process was started with, if it is another one now: for what it starts.
pub fn inherited() -> Option<Rlimit> {
    INHERITED.get().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_limit_is_remembered_as_it_was() {
        let now = getrlimit(Resource::Nofile);
        // Another test of this process may have raised it.
        let before = inherited().unwrap_or(now);
        let current = now.current.unwrap_or(u64::MAX);
        assert!(raise_to(1) >= current, "a limit is never lowered");
        let raised = raise_to(current.saturating_add(1));
        if raised > current {
            assert_eq!(inherited().map(|limit| limit.current), Some(before.current));
        }
        assert_eq!(getrlimit(Resource::Nofile).maximum, before.maximum);
    }
}
