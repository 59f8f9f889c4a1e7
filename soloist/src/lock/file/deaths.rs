//! Hears when members of this host end: the death of a process changes no file.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::workload::process::ProcessId;

/// Members whose end is heard of at once. The others are missed when their announcement expires.
const WATCHED_MAX: usize = 64;

/// A watch on processes, behind one descriptor.
pub(super) struct Deaths {
    set: Set,
    watched: Mutex<HashMap<ProcessId, OwnedFd>>,
    registered: OnceLock<AsyncFd<Set>>,
}

#[derive(Clone)]
struct Set(Arc<Epoll>);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Deaths {
    /// Watches nobody yet.
    pub fn new() -> io::Result<Self> {
        let set = Set(Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?));
        Ok(Self { set, watched: Mutex::default(), registered: OnceLock::new() })
    }

    /// Watches these and nobody else. One that cannot be watched is not: it is missed later.
    pub fn watch(&self, processes: impl IntoIterator<Item = ProcessId>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *watched);
        for process in processes.into_iter().take(WATCHED_MAX) {
            let known = before.remove(&process).or_else(|| self.add(process));
            watched.extend(known.map(|pidfd| (process, pidfd)));
        }
    }

    fn add(&self, process: ProcessId) -> Option<OwnedFd> {
        let pidfd = process.open().ok().flatten()?;
        // Once: who is dead stays so, and is left out of the next call.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 0);
        self.set.0.add(&pidfd, event).ok().map(|()| pidfd)
    }

    /// Waits for the end of one of them. Cancel safe.
    pub async fn heard(&self) -> io::Result<()> {
        let registered = match self.registered.get() {
            Some(registered) => registered,
            None => {
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe; this descriptor is owned and always the same one"
                )]
                let new = AsyncFd::with_interest(self.set.clone(), Interest::READABLE)?;
                self.registered.get_or_init(|| new)
            }
        };
        registered.readable().await?.clear_ready();
        Ok(())
    }
}
