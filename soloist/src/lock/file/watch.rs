//! Hears from the kernel that files of a lock changed.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::paths::Paths;
use super::ready::Ready;

/// Only files that come and go, as all of ours do: each write of a temporary file would wake every member once more.
/// What somebody else writes into a file in place is seen at the next look.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MOVED_TO
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DONT_FOLLOW)
    .union(AddWatchFlags::IN_ONLYDIR);

/// A watch on folders.
pub(super) struct Folders {
    source: Ready<Inotify>,
}

impl Folders {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { source: Ready::new(inotify, |inotify| inotify.as_fd().as_raw_fd()) })
    }

    /// Watches one more folder from now on; one that is watched already stays so.
    pub fn add(&self, folder: &Path) -> io::Result<WatchDescriptor> {
        Ok(self.source.get().add_watch(folder, CHANGES)?)
    }

    /// Takes what has happened so far.
    pub fn drain(&self, mut each: impl FnMut(InotifyEvent) -> io::Result<()>) -> io::Result<()> {
        loop {
            match self.source.get().read_events() {
                Ok(events) => events.into_iter().try_for_each(&mut each)?,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for something to drain. Cancel safe.
    pub async fn ready(&self) -> io::Result<()> {
        self.source.ready().await
    }
}

/// A watch on the folder of a lock: its files come and go, the folder stays.
pub(super) struct Watch {
    folders: Folders,
    folder: PathBuf,
    names: [Option<OsString>; 2],
}

impl Watch {
    /// Watches from now on.
    pub fn new(paths: &Paths) -> io::Result<Self> {
        let folders = Folders::new()?;
        folders.add(&paths.folder)?;
        let names = [&paths.record, &paths.lock].map(|path| path.file_name().map(OsString::from));
        Ok(Self { folders, folder: paths.folder.clone(), names })
    }

    /// Forgets what has happened so far. Whether it was about the record or the lock file.
    pub fn drain(&self) -> io::Result<bool> {
        let mut relevant = false;
        self.folders.drain(|event| {
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                // The folder is gone; without a new watch nothing would ever be heard again.
                self.folders.add(&self.folder)?;
            }
            // Without a name it is about the folder itself, or too much has happened to be listed.
            relevant |= event.name.is_none() || self.names.contains(&event.name);
            Ok(())
        })?;
        Ok(relevant)
    }

    /// Waits for something to drain. Cancel safe.
    pub async fn ready(&self) -> io::Result<()> {
        self.folders.ready().await
    }
}
