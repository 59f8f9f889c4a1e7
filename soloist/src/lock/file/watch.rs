//! Hears from the kernel that the lock's files changed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::paths::Paths;

/// Only files that come and go, as all of ours do: each write of a temporary file would wake every member once more.
/// What somebody else writes into a file in place is seen at the next look.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MOVED_TO
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A watch on the folder of a lock: its files come and go, the folder stays.
pub(super) struct Watch {
    source: Source,
    // Registered on first use, because a lock may be opened before its runtime runs.
    registered: OnceLock<AsyncFd<Source>>,
    folder: PathBuf,
    names: [Option<OsString>; 2],
}

#[derive(Clone)]
struct Source(Arc<Inotify>);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches from now on.
    pub fn new(paths: &Paths) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&paths.folder, CHANGES)?;
        Ok(Self {
            source: Source(Arc::new(inotify)),
            registered: OnceLock::new(),
            folder: paths.folder.clone(),
            names: [&paths.record, &paths.lock].map(|path| path.file_name().map(OsString::from)),
        })
    }

    /// Forgets what has happened so far. Whether it was about the record or the lock file.
    pub fn drain(&self) -> io::Result<bool> {
        let mut relevant = false;
        loop {
            match self.source.0.read_events() {
                Ok(events) => {
                    for event in events {
                        relevant |= self.is_relevant(&event)?;
                    }
                }
                Err(Errno::EAGAIN) => return Ok(relevant),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn is_relevant(&self, event: &InotifyEvent) -> io::Result<bool> {
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            // The folder is gone; without a new watch nothing would ever be heard again.
            self.source.0.add_watch(&self.folder, CHANGES)?;
        }
        // Without a name it is about the folder itself, or too much has happened to be listed.
        Ok(event.name.is_none() || self.names.contains(&event.name))
    }

    /// Waits for something to drain. Cancel safe.
    pub async fn ready(&self) -> io::Result<()> {
        let registered = match self.registered.get() {
            Some(registered) => registered,
            None => {
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe; this descriptor is owned and always the same one"
                )]
                let new = AsyncFd::with_interest(self.source.clone(), Interest::READABLE)?;
                self.registered.get_or_init(|| new)
            }
        };
        registered.readable().await?.clear_ready();
        Ok(())
    }
}
