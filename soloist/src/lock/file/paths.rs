//! Where the lock lives, and which places are refused.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, OFlags};

/// The files of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    /// The folder of all of them.
    pub folder: PathBuf,
    /// Flocked by the holder; its content is the token counter. Never renamed over.
    pub lock: PathBuf,
    /// The record, always replaced whole.
    pub record: PathBuf,
    /// What the next record is prepared in.
    pub temporary: PathBuf,
    /// Flocked for the moment of a compare-and-set.
    pub write: PathBuf,
    /// The folder in which members announce themselves.
    pub members: PathBuf,
    /// What an operator asks for.
    pub request: PathBuf,
    /// The last answer to that.
    pub answer: PathBuf,
}

impl Paths {
    /// The files beside `lock`; nothing if that does not name a file.
    pub fn of(lock: &Path) -> Option<Self> {
        let name = lock.file_name()?;
        let folder = match lock.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let beside = |suffix: &str| {
            let mut file: OsString = name.to_owned();
            file.push(suffix);
            folder.join(file)
        };
        Some(Self {
            lock: folder.join(name),
            record: beside(RECORD),
            temporary: beside(".record.new"),
            write: beside(".write"),
            members: beside(".members"),
            request: beside(".request"),
            answer: beside(".answer"),
            folder,
        })
    }
}

/// All locks in a folder that somebody has used: those that have a record beside them.
pub fn locks_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut locks = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(lock) = name.as_bytes().strip_suffix(RECORD.as_bytes()).filter(|lock| !lock.is_empty()) {
            locks.push(folder.join(OsStr::from_bytes(lock)));
        }
    }
    locks.sort_unstable();
    Ok(locks)
}

/// What the name of a record ends with.
const RECORD: &str = ".record";

/// Which file a path or a descriptor means: tells a file from another one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// Of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|data| Self { device: data.dev(), number: data.ino() })
    }

    /// Of what a path names now, nothing if there is no such file. Does not follow a symbolic link.
    pub fn of_path(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(data) => Ok(Some(Self { device: data.dev(), number: data.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a refusal is about, as the exit code tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Not allowed: exit code 77.
    Permission,
    /// Not possible this way: exit code 78.
    Configuration,
}

impl Category {
    /// The exit code of the process.
    pub const fn exit_code(self) -> u8 {
        match self {
            Category::Permission => 77,
            Category::Configuration => 78,
        }
    }
}

/// Why a path cannot be a lock. Each says what was got, what is allowed, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The path has no file name.
    #[error(
        "failed to open the lock: got {path:?}, which names no file; allowed is the path of a file: add a file name"
    )]
    NoFileName {
        /// The path as given.
        path: PathBuf,
    },
    /// The folder is not there.
    #[error(
        "failed to open the lock: got the missing folder {folder:?}; allowed is one that exists: create it with mkdir"
    )]
    MissingFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is something else.
    #[error("failed to open the lock: got {folder:?}, which is no folder; allowed is a folder: correct the path")]
    NotAFolder {
        /// What should be a folder.
        folder: PathBuf,
    },
    /// Anybody could replace the lock, or block it; the sticky bit does not prevent blocking.
    #[error(
        "failed to open the lock: got the world-writable folder {folder:?} (mode {mode:04o}); allowed is one that only its \
         owner or group can write: use another folder or chmod o-w"
    )]
    WorldWritable {
        /// The folder.
        folder: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of the lock is a symbolic link.
    #[error(
        "failed to open the lock: got the symbolic link {path:?}; allowed is a regular file: name its target or remove it"
    )]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A file of the lock is a folder, a pipe, a device ...
    #[error(
        "failed to open the lock: got {path:?}, which is {kind}; allowed is a regular file: remove it or use another path"
    )]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file has content that soloist did not write.
    #[error(
        "failed to open the lock: got {path:?} with the content of another program; allowed is an empty or a new file: use another path"
    )]
    NotALock {
        /// The file.
        path: PathBuf,
    },
    /// No permission.
    #[error(
        "failed to open the lock: got {path:?}, which user {uid} cannot write; allowed is a writable one: chown or chmod it"
    )]
    NotWritable {
        /// File or folder.
        path: PathBuf,
        /// The effective user.
        uid: u32,
    },
    /// The file system is mounted read-only.
    #[error(
        "failed to open the lock: got {path:?} on a read-only file system; allowed is a writable one: remount it or use another path"
    )]
    ReadOnly {
        /// File or folder.
        path: PathBuf,
    },
    /// A flock there does not exclude reliably, or not every member.
    #[error(
        "failed to open the lock: got {folder:?} on {kind}, where a lock may not exclude other members; allowed is a local \
         file system: use another folder, or allow it explicitly"
    )]
    RemoteOrLayered {
        /// The folder.
        folder: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// The host has no watch left.
    #[error(
        "failed to watch {folder:?}: {source}; allowed are two inotify instances for each member: raise fs.inotify.max_user_instances"
    )]
    NoWatch {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("failed to {action} {path:?}: {source}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Refusal {
    /// What the exit code says.
    pub fn category(&self) -> Category {
        match self {
            Refusal::WorldWritable { .. } | Refusal::NotWritable { .. } | Refusal::ReadOnly { .. } => {
                Category::Permission
            }
            Refusal::Failed { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Category::Permission,
            _ => Category::Configuration,
        }
    }

    /// The refusal that a failed call means.
    fn of_error(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Refusal::NotWritable { path, uid: rustix::process::geteuid().as_raw() },
            io::ErrorKind::ReadOnlyFilesystem => Refusal::ReadOnly { path },
            // O_NOFOLLOW says it this way.
            _ if source.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => Refusal::Symlink { path },
            _ => Refusal::Failed { action, path, source },
        }
    }
}

/// A place that was found fit for a lock.
#[derive(Debug)]
pub(super) struct Place {
    /// The files, in a folder without symbolic links on the way.
    pub paths: Paths,
    /// Whether another host may see the same files: then a foreign boot id proves nothing.
    pub remote: bool,
}

/// Checks everything that is refused, before any file is created.
pub(super) fn check(path: &Path, allow_remote_fs: bool) -> Result<Place, Refusal> {
    let given = Paths::of(path).ok_or_else(|| Refusal::NoFileName { path: path.to_owned() })?;
    let folder = given.folder.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Refusal::MissingFolder { folder: given.folder.clone() },
        io::ErrorKind::NotADirectory => Refusal::NotAFolder { folder: given.folder.clone() },
        _ => Refusal::Failed { action: "look up", path: given.folder.clone(), source },
    })?;
    let whole = folder.join(given.lock.file_name().unwrap_or_default());
    let paths = Paths::of(&whole).ok_or_else(|| Refusal::NoFileName { path: path.to_owned() })?;

    let kind = check_folder(&folder)?;
    if let (Some(kind), false) = (kind, allow_remote_fs) {
        return Err(Refusal::RemoteOrLayered { folder, kind });
    }
    for file in [&paths.lock, &paths.record, &paths.write, &paths.temporary] {
        check_file(file)?;
    }
    Ok(Place { paths, remote: kind.is_some() })
}

/// The name of its file system, if that is a remote or layered one.
fn check_folder(folder: &Path) -> Result<Option<&'static str>, Refusal> {
    let failed = |source| Refusal::Failed { action: "look up", path: folder.to_owned(), source };
    let data = fs::metadata(folder).map_err(failed)?;
    if !data.is_dir() {
        return Err(Refusal::NotAFolder { folder: folder.to_owned() });
    }
    let mode = data.permissions().mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(Refusal::WorldWritable { folder: folder.to_owned(), mode });
    }
    rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| Refusal::of_error("access", folder, errno.into()))?;
    let system = rustix::fs::statfs(folder).map_err(|errno| failed(errno.into()))?;
    // The magic numbers have 32 bits; some kernels store them with a sign.
    Ok(remote_or_layered(system.f_type as u32))
}

/// File systems where a flock is emulated, kept by each host alone, or taken on a copy of the file.
fn remote_or_layered(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0x786f_4256 => "VirtualBox shared folders",
        0x794c_7630 => "overlayfs",
        0x6175_6673 => "aufs",
        0xf15f => "eCryptfs",
        _ => return None,
    })
}

/// A file of the lock is a regular file, or not there yet.
fn check_file(path: &Path) -> Result<(), Refusal> {
    let data = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Refusal::of_error("look up", path, error)),
    };
    let kind = data.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_symlink() => return Err(Refusal::Symlink { path: path.to_owned() }),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Refusal::NotRegular { path: path.to_owned(), kind: what })
}

/// Opens the lock file, making it where it is missing. Readable for its group only: whoever can read can block it.
pub(super) fn open_lock(paths: &Paths) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o660)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(&paths.lock)?;
    require_regular(file)
}

/// Opens a file for reading, if it is there and regular.
pub(super) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => require_regular(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn require_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Opens the lock file for the first time and says why not in a way that helps.
pub(super) fn open_checked(paths: &Paths) -> Result<File, Refusal> {
    let file = open_lock(paths).map_err(|error| Refusal::of_error("open", &paths.lock, error))?;
    match super::store::read_counter(&file) {
        Ok(_) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Refusal::NotALock { path: paths.lock.clone() }),
        Err(error) => Err(Refusal::of_error("read", &paths.lock, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(path: &Path) -> Refusal {
        check(path, false).and_then(|place| open_checked(&place.paths).map(|_| ())).expect_err("it is refused")
    }

    #[test]
    fn unfit_places_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(matches!(refused(Path::new("/")), Refusal::NoFileName { .. }));
        assert!(matches!(refused(Path::new("..")), Refusal::NoFileName { .. }));
        assert!(matches!(refused(&at("missing/app.lock")), Refusal::MissingFolder { .. }));
        fs::write(at("file"), "").unwrap();
        assert!(matches!(refused(&at("file/app.lock")), Refusal::NotAFolder { .. }));
        assert!(matches!(refused(folder.path()), Refusal::WorldWritable { .. } | Refusal::NotRegular { .. }));
        fs::create_dir(at("folder")).unwrap();
        assert!(matches!(refused(&at("folder")), Refusal::NotRegular { kind: "a folder", .. }));
        assert!(matches!(refused(Path::new("/dev/null")), Refusal::NotRegular { kind: "a device", .. }));
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(refused(&at("pipe")), Refusal::NotRegular { kind: "a pipe", .. }));
        fs::write(at("text"), "root:x:0:0\n").unwrap();
        assert!(matches!(refused(&at("text")), Refusal::NotALock { .. }));
        assert_eq!(fs::read(at("text")).unwrap(), b"root:x:0:0\n");
    }

    #[test]
    fn symbolic_links_are_refused() {
        for name in ["app.lock", "app.lock.record", "app.lock.write", "app.lock.record.new"] {
            let folder = tempfile::tempdir().unwrap();
            let target = folder.path().join("target");
            fs::write(&target, "").unwrap();
            symlink(&target, folder.path().join(name)).unwrap();
            let refusal = refused(&folder.path().join("app.lock"));
            assert!(matches!(refusal, Refusal::Symlink { .. }), "{name}: {refusal}");
            assert_eq!(refusal.category().exit_code(), 78);
        }
    }

    #[test]
    fn a_link_that_appears_after_the_check_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let place = check(&folder.path().join("app.lock"), false).unwrap();
        symlink(folder.path().join("target"), &place.paths.lock).unwrap();
        assert!(matches!(open_checked(&place.paths), Err(Refusal::Symlink { .. })));
        assert!(!folder.path().join("target").exists());
    }

    #[test]
    fn a_folder_that_anybody_can_write_is_refused() {
        for mode in [0o777, 0o1777, 0o702] {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refusal = refused(&folder.path().join("app.lock"));
            assert!(matches!(refusal, Refusal::WorldWritable { .. }), "{refusal}");
            assert_eq!(refusal.category().exit_code(), 77);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was created");
        }
    }

    #[test]
    fn a_linked_folder_is_resolved_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        symlink("real", folder.path().join("link")).unwrap();
        let place = check(&folder.path().join("link/app.lock"), false).unwrap();
        assert!(place.paths.lock.ends_with("real/app.lock"));
        assert!(!place.remote);
    }

    #[test]
    fn errors_become_refusals() {
        let path = Path::new("/x");
        let of = |errno: nix::errno::Errno| Refusal::of_error("open", path, io::Error::from_raw_os_error(errno as i32));
        assert!(matches!(of(nix::errno::Errno::EACCES), Refusal::NotWritable { .. }));
        assert!(matches!(of(nix::errno::Errno::EPERM), Refusal::NotWritable { .. }));
        assert!(matches!(of(nix::errno::Errno::EROFS), Refusal::ReadOnly { .. }));
        assert_eq!(of(nix::errno::Errno::EROFS).category(), Category::Permission);
        assert_eq!(of(nix::errno::Errno::EMFILE).category(), Category::Configuration);
    }

    #[test]
    fn remote_and_layered_file_systems_are_known() {
        for magic in [0x6969, 0xff53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400, 0x794c_7630, 0x0bd0_0bd0] {
            assert!(remote_or_layered(magic).is_some(), "{magic:x}");
        }
        for (name, magic) in [("ext4", 0xef53), ("tmpfs", 0x0102_1994), ("xfs", 0x5846_5342), ("btrfs", 0x9123_683e)] {
            assert_eq!(remote_or_layered(magic), None, "{name}");
        }
    }
}
