//! Hears when members of this host end: the death of a process changes no file.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::ready::Ready;
use crate::workload::process::ProcessId;

/// Members whose end is heard of at once. The others are missed when their announcement expires.
const WATCHED_MAX: usize = 64;

/// A watch on processes, behind one descriptor.
pub(super) struct Deaths {
    set: Ready<Epoll>,
    watched: Mutex<HashMap<ProcessId, OwnedFd>>,
}

impl Deaths {
    /// Watches nobody yet.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { set: Ready::new(epoll, |epoll| epoll.0.as_raw_fd()), watched: Mutex::default() })
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
        self.set.get().add(&pidfd, event).ok().map(|()| pidfd)
    }

    /// Waits for the end of one of them. Cancel safe.
    pub async fn heard(&self) -> io::Result<()> {
        self.set.ready().await
    }
}
