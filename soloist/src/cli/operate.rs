//! What the verbs over a lock share: which lock it is, its board, and who asks.

pub(super) mod asking;
#[cfg(test)]
pub(super) mod fake;
pub(super) mod print;

use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::Args;
use nix::unistd::{Uid, User, gethostname};

use self::print::Format;
use crate::error::{Code, Failure};
use crate::lock::board::Board;
use crate::lock::file::FileBoard;
use crate::settings::{self, FilePlace, Place};

/// Which lock, and how to show what comes of it.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The lock: a path, or file:///path/app.lock
    #[arg(long, env = "SOLOIST_LOCK", value_name = "URL")]
    lock: Option<String>,
    /// The group's name; without --lock the lock is GROUP.lock in the state folder
    #[arg(long, env = "SOLOIST_GROUP")]
    group: Option<String>,
    /// A table for people, or JSON for programs
    #[arg(long, env = "SOLOIST_OUTPUT", default_value = "table", value_name = "FORMAT")]
    pub output: Format,
}

/// The lock that a verb is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The group's name.
    pub group: String,
    /// The lock file.
    pub lock: PathBuf,
}

impl Common {
    /// The lock for a verb that changes something: it must be named.
    pub fn target(&self) -> Result<Target, Failure> {
        self.there(settings::place(self.lock.as_deref(), self.named_group()?)?)
    }

    /// The lock for a verb that only looks: the only one in the state folder will do.
    pub fn target_to_look_at(&self) -> Result<Target, Failure> {
        match (&self.lock, self.named_group()?) {
            (None, None) => self.there(settings::only_one()?),
            (lock, group) => self.there(settings::place(lock.as_deref(), group)?),
        }
    }

    fn named_group(&self) -> Result<Option<&str>, Failure> {
        self.group.as_deref().map(settings::group_name).transpose()
    }

    fn there(&self, place: Place) -> Result<Target, Failure> {
        let group = self.group.clone().unwrap_or_else(|| place.name());
        let Place::File(FilePlace { path: lock, .. }) = place else {
            let what = format!("--lock {place}: this version can run members on a Lease, but not steer them from here");
            return Err(Failure::new(Code::Configuration, what));
        };
        let target = Target { group, lock };
        if !(is_there(&target.lock)? || is_there(&target.record())?) {
            let what = format!("there is no lock at {}", target.lock.display());
            let hint = "its first member makes it; is the path the one that the members were started with?";
            return Err(Failure::new(Code::Unavailable, what).hint(hint));
        }
        Ok(target)
    }
}

fn is_there(path: &Path) -> Result<bool, Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => {
            let code = if error.kind() == ErrorKind::PermissionDenied { Code::Permission } else { Code::Unavailable };
            Err(Failure::new(code, format!("failed to look at {}: {error}", path.display())))
        }
    }
}

impl Target {
    fn record(&self) -> PathBuf {
        let mut path = self.lock.clone().into_os_string();
        path.push(".record");
        path.into()
    }

    /// When the record was last written, by the wall clock: for display only.
    pub fn written_unix_us(&self) -> Option<u64> {
        let modified = self.record().metadata().ok()?.modified().ok()?;
        u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
    }

    /// The board beside the lock. Inside a runtime only.
    pub fn board(&self) -> Result<impl Board + use<>, Failure> {
        FileBoard::open(&self.lock).map_err(asking::failed)
    }
}

/// Runs a verb to its end. What still waits for a disk must not keep the process.
pub(super) fn block_on<T>(verb: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("failed to start the runtime: {error}")))?;
    let result = runtime.block_on(verb);
    runtime.shutdown_background();
    result
}

/// Who asks: a user, a host and a process.
pub(super) fn oneself() -> String {
    let uid = Uid::current();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = gethostname().map_or_else(|_| "unknown".to_owned(), |host| host.to_string_lossy().into_owned());
    format!("{user}@{host} (pid {})", std::process::id())
}
